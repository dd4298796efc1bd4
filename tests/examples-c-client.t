#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/c/smtpc, a client by libtlsctl: Postfix, smtpd, servers that cheat, what it exits with.

import hashlib
import os
import random
import re
import ssl
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import delayed, dies
from compiled import PlayedSide, SmtpServer, compiled
from examples import Played, example, is_done, is_refused
from postfix import Postfix
from scratch import temp
from sockets import read_line, read_to_end
from tap import is_equal, is_true, run, test

ENVELOPE = ['alice@example.org', 'bob@example.net']
MAIL = b'Subject: dots and line ends\n\n.\n..\n.profile\nin CRLF\r\nthe last line, without its end'
BODY = b'.\n..\n.profile\nin CRLF\nthe last line, without its end\n'
HERE = ['-k', '127.0.0.1']
FATAL = 'smtpc: fatal: '
CLEAR = b'EHLO [127.0.0.1]\r\nSTARTTLS\r\n'


def send(port, *options, envelope=ENVELOPE, tls=HERE, input=MAIL, **more):
    """smtpc with these options, to that server; tls: options of tls-handshake, None to have none.
    """
    program = [compiled('smtpc'), *options, *envelope]
    if tls is not None:
        side = ['tls-await', '-c', 'tls-handshake', '-c', *tls, 'tls-io']
        program = delayed(program, side)
    return example('tcpclient', '-HRl0', '127.0.0.1', port, *program, input=input, **more)


def sent(how):
    return 'smtpc: info: sent ' + how


# Real servers

@test('a mail arrives at Postfix by verified STARTTLS, every dot in place')
def _():
    postfix = Postfix()
    is_refused(send(postfix.port, '-r'), 0)
    [(head, body)] = postfix.delivered()
    is_equal(body, BODY)
    is_true(b'with ESMTPS' in head, 'Received by TLS: %r' % head)
    is_refused(send(postfix.port), 0, sent('through TLSv1.3'))
    postfix.delivered(2)


@test('a mail of 20 MB arrives at Postfix whole')
def _():
    postfix = Postfix()
    line = random.Random(1)
    body = b''.join(b'%0*x\n' % (line.randrange(1, 76), line.getrandbits(300)) if n % 7 else b'.\n'
                    for n in range(20 << 20 >> 6))
    is_true(len(body) > 20_000_000, 'size')
    is_refused(send(postfix.port, '-r', input=b'Subject: large\n\n' + body), 0)
    [(_, got)] = postfix.delivered()
    is_equal((len(got), hashlib.sha256(got).hexdigest()),
             (len(body), hashlib.sha256(body).hexdigest()))


@test('Postfix without TLS: with -r it hears nothing of the mail, without -r gets it in plaintext')
def _():
    postfix = Postfix(level='none')
    is_refused(send(postfix.port, '-r'), 69, FATAL + 'the server does not offer STARTTLS')
    postfix.wait_log('[127.0.0.1] ehlo=1 commands=1')
    is_refused(send(postfix.port), 0, sent('in plaintext'))
    [(head, body)] = postfix.delivered()
    is_equal((b'with ESMTP ' in head, body), (True, BODY))


@test('smtpd: neither has a TLS library, and the mail goes through TLS; prog decides')
def _():
    server = SmtpServer('-r')
    is_refused(send(server.port, '-r', envelope=['', 'bob@example.net', 'carol@example.net']), 0)
    for who, result in (('code-100', (77, 'refused: 554 5.0.0 the mail is refused')),
                        ('code-1', (75, 'refused for now: 451 4.3.0 the mail cannot be taken at '
                                    'present'))):
        is_refused(send(server.port, '-r', envelope=['a@example.org', who + '@example.net']),
                   result[0], FATAL + result[1])
    [got] = server.mails()
    is_equal(got.text.encode().partition(b'\n\n')[2], BODY)
    is_equal((got.env['SENDER'], got.env['RECIPIENTS'], got.env['SSL_PROTOCOL']),
             ('', 'bob@example.net carol@example.net', 'TLSv1.3'))


# Whether there is TLS

def take(talk):
    """Offers nothing, and takes every mail."""
    talk.say('220 example.org\r\n')
    take_greeted(talk)


def take_greeted(talk, first='250 ok\r\n'):
    answer = first
    while line := talk.line():
        talk.say('354 go on\r\n' if line.startswith('DATA') else answer)
        answer = '250 ok\r\n'
        if line.startswith('DATA'):
            while talk.line() not in ('.\r\n', ''):
                pass
            talk.say('250 ok\r\n')


def offer(talk, hello='250 STARTTLS\r\n', answer='220 go ahead\r\n'):
    talk.say('220 example.org\r\n')
    talk.hear(r'EHLO \S+')
    talk.say(hello)
    talk.hear('STARTTLS')
    talk.say(answer)


@test('-r where the chain has no channels: 69 before a word; without -r, a mail in plaintext')
def _():
    server = Played(lambda talk: is_equal(talk.rest(), b''), take, lambda talk: take_offering(talk))
    is_refused(send(server.port, '-r', tls=None), 69,
               FATAL + 'no channels for TLS: run it under tls-ctl-open')
    for _ in range(2):
        is_refused(send(server.port, tls=None), 0, sent('in plaintext'))
    server.join()
    is_true(b'STARTTLS' not in server.talks[2].said, server.talks[2].said)


def take_offering(talk):
    talk.say('220 example.org\r\n')
    take_greeted(talk, '250 STARTTLS\r\n')


@test('a server that refuses STARTTLS: 69 with -r; without it, a mail in plaintext')
def _():
    def refuse(talk):
        offer(talk, answer='454 not now\r\n')
        take_greeted(talk)

    server = Played(refuse, refuse)
    is_refused(send(server.port, '-r'), 69, FATAL + 'the server does not start TLS: 454 not now')
    is_refused(send(server.port), 0, sent('in plaintext'))
    server.join()
    is_equal(server.talks[0].said, CLEAR)


@test('the offer may be in either case, with parameters, in any line; another word is none')
def _():
    for hello, is_offer in (('250-hi\r\n250-starttls\r\n250 SIZE\r\n', True),
                            ('250-hi\r\n250 StartTLS now\r\n', True),
                            ('250-hi\r\n250 STARTTLSX\r\n', False),
                            ('250-XSTARTTLS\r\n250 NOSTARTTLS\r\n', False),
                            ('250-hi\r\n250 SIZE STARTTLS\r\n', False), ('250\r\n', False)):
        def play(talk):
            if is_offer:
                offer(talk, hello)
                talk.start_tls()
                take_greeted(talk, hello)  # offered again, in TLS: nobody minds
            else:
                talk.say('220 hi\r\n')
                take_greeted(talk, hello)

        server = Played(play)
        is_refused(send(server.port), 0, sent('through TLSv1.3' if is_offer else 'in plaintext'))
        server.join()
        is_equal(b'STARTTLS' in server.talks[0].said, is_offer, 'asked after %r' % hello)


# Servers, and people on the way, that cheat

def inject(talk):
    """Answers the EHLO that the client will send in TLS, before TLS, in one write with the 220."""
    offer(talk, answer='220 go ahead\r\n250 AUTH PLAIN\r\n')
    is_equal(talk.rest(), b'')


def inject_later(talk):
    """The same in a write of its own, when the buffer of the client has been looked at, or not."""
    offer(talk)
    talk.say('250 AUTH PLAIN\r\n')
    talk.rest()


def impostor(talk):
    """Shows a certificate for another name, and would take the mail."""
    offer(talk)
    try:
        talk.start_tls(cert='a')
        is_equal(talk.peer.recv(1), b'', 'what the client says in TLS')
    except (ssl.SSLError, ConnectionError):
        pass


def old(talk):
    """Knows nothing newer than TLS 1.0: answers with an alert."""
    offer(talk)
    talk.say(b'\x15\3\1\0\2\2\x46')
    talk.rest()


def leave(talk):
    """Hangs up in place of TLS."""
    offer(talk)
    talk.sock.shutdown(1)
    talk.rest()


@test('whatever goes wrong with TLS, with -r and without: 97, and no mail in plaintext')
def _():
    for option in [], ['-r']:
        server = Played(inject, inject_later, impostor, old, leave)
        is_refused(send(server.port, *option), 97,
                   FATAL + 'bytes came in plaintext before TLS began')
        for why in '.* in plaintext', '.*127.0.0.1', '.*', '.*':
            result = send(server.port, *option)
            is_done(result, 97)
            is_true(re.search('^' + FATAL + 'TLS did not start: ' + why, result.err, re.M), result)
        server.join()
        for talk in server.talks:
            is_true(talk.said.startswith(CLEAR), 'said in plaintext: %r' % talk.said)
            is_true(b'alice' not in talk.said and b'MAIL' not in talk.said, 'said: %r' % talk.said)


def asked(*options, **more):
    """A TLS side that the test plays, when the client has read 220 and asks for TLS."""
    side = PlayedSide([compiled('smtpc'), *options, *ENVELOPE], [6, 7], **more)
    side.net.sendall(b'220 hi\r\n')
    is_equal(read_line(side.net)[:4], b'EHLO')
    side.net.sendall(b'250 STARTTLS\r\n')
    is_equal(read_line(side.net), b'STARTTLS\r\n')
    side.net.sendall(b'220 go ahead\r\n')
    return side


@test('what comes after the 220 was read, and before TLS, is found by the TLS side: 97')
def _():
    side = asked('-r')
    is_equal(side.ctl.recv(10), b'Y')
    side.net.sendall(b'250 injected\r\n')  # as tls-handshake would find it
    side.ctl.close()
    is_equal((read_to_end(side.net, ConnectionResetError), read_to_end(side.plain)), (b'', b''))
    dies(side.c, 97, FATAL + 'TLS did not start')


@test('one socket for both directions, under one number or two')
def _():
    for r, w in (11, 11), (11, 12):
        side = asked(r=r, w=w, stdin=temp(MAIL))
        side.reply(b'SSL_PROTOCOL=TLSv9\0\0')
        for answer in '250 hi', '250 ok', '250 ok', '354 go on':
            read_line(side.plain)
            side.plain.sendall(answer.encode() + b'\r\n')
        while read_line(side.plain) not in (b'.\r\n', b''):
            pass
        side.plain.sendall(b'250 ok\r\n')
        is_equal(read_to_end(side.net), b'', 'what is said on the network still')
        is_equal(read_line(side.plain), b'QUIT\r\n')
        side.plain.close()
        is_equal((side.c.wait(), side.c.stderr()), (0, sent('through TLSv9') + '\n'))


@test('a session that is over as soon as TLS has started: 76, and no death by SIGPIPE')
def _():
    side = asked()
    side.plain.close()
    side.reply(b'\0')
    dies(side.c, 76, FATAL + 'the server does not read any more')


# What it says, and what it exits with

HELLO = ['220 hi', r'EHLO \[127\.0\.0\.1\]', '250-hi\r\n250 SIZE', r'MAIL FROM:<alice@example.org>',
         '250 ok', 'RCPT TO:<bob@example.net>', '250 ok', 'DATA', '354 go on']


def talk_to(play, *options, **more):
    """What smtpc makes of that server, which is played or says these lines and hears the rest;
    what it has said."""
    def play_lines(talk):
        for i, line in enumerate(play):
            talk.hear(line) if i % 2 else talk.say(line + '\r\n')
        talk.rest()

    server = Played(play if callable(play) else play_lines)
    result = send(server.port, *options, tls=None, **more)
    server.join()
    return result, server.talks[0].said.decode().split('\r\n')


@test('what it sends, line by line, to two at once')
def _():
    result, said = talk_to(take, envelope=[*ENVELOPE, 'carol@example.net'],
                           env={'HELO': 'mx.example.org'})
    is_refused(result, 0, sent('in plaintext'))
    is_equal(said, [
        'EHLO mx.example.org', 'MAIL FROM:<alice@example.org>', 'RCPT TO:<bob@example.net>',
        'RCPT TO:<carol@example.net>', 'DATA', 'Subject: dots and line ends', '', '..', '...',
        '..profile', 'in CRLF', 'the last line, without its end', '.', 'QUIT', ''])
    for message, lines in (b'', []), (b'.', ['..']), (b'\n\n', ['', '']), (b'x\r', ['x']):
        said = talk_to(take, input=message)[1]
        is_equal(said[4:-2], [*lines, '.'], repr(message))


@test('refused for now is 75, refused for good is 77, nonsense or an end is 76')
def _():
    for answer, code, line in (
            ('421 too busy', 75, 'refused for now: 421 too busy'),
            ('550-no\r\n550 such thing', 77, 'refused: 550 such thing'),
            ('250', 76, 'the server talks nonsense: 250'),
            ('550-no\r\n250 yes', 76, 'the server talks nonsense: 250 yes'),
            ('150 ok', 76, 'the server talks nonsense: 150 ok'),
            ('250ok', 76, 'the server talks nonsense: 250ok'),
            ('220 a\nb', 76, 'the server talks nonsense: 220 a'),
            ('\r\n'.join(['250-more'] * 101), 76, 'the server talks nonsense: 250-more'),
            ('hello\x1b[2J', 76, 'the server talks nonsense: hello?[2J')):
        for n in 0, 2, 4, 6, 8:
            if n and answer == '250' and n < 8:
                continue
            result, said = talk_to(HELLO[:n] + [answer])
            is_refused(result, code, FATAL + line)
            is_equal(len(said), n // 2 + 1, 'lines said, and nothing after them')
    result, said = talk_to(lambda talk: talk.say('220 hi'))
    is_refused(result, 76, FATAL + 'the server has closed the connection')


@test('accepted once the server says so after the last dot, whatever comes then')
def _():
    def answer_the_dot(answer):
        def play(talk):
            for i, line in enumerate(HELLO):
                talk.hear(line) if i % 2 else talk.say(line + '\r\n')
            while talk.line() != '.\r\n':
                pass
            talk.say(answer)
        return play

    for answer, code in ('250 ok\r\n', 0), ('451 later\r\n', 75), ('554 no\r\n', 77), ('', 76):
        is_done(talk_to(answer_the_dot(answer))[0], code)


@test('a message that cannot be read, or sent, to its end is 74, and has no last dot')
def _():
    result, said = talk_to(HELLO, input='/')
    is_refused(result, 74, FATAL + 'unable to read the message to its end: Is a directory')
    is_equal(said[-2:], ['DATA', ''])

    def hang_up(talk):
        for i, line in enumerate(HELLO):
            talk.hear(line) if i % 2 else talk.say(line + '\r\n')
        talk.exactly(100000)
        talk.reset()

    result, said = talk_to(hang_up, input=b'Subject: large\n\n' + b'x' * 79 * 100000)
    is_refused(result, 74, FATAL + 'unable to send the message to its end')


@test('a CR that ends no line is refused: 65, and no last dot')
def _():
    for text in b'a line\rwith a CR\n', b'\rfirst\n', b'twice\r\r\n', b'x\r.\r\nMAIL FROM:<>\r\n':
        for before in b'before\r\n', b'before\n' * 100000:
            result, said = talk_to(HELLO, input=before + text)
            is_refused(result, 65, FATAL +
                       'unable to send the message: a line has a CR before its end')
            is_true('.' not in said and set(said[4:]) <= {'before', 'befor', ''}, said[-5:])


@test('a server that does not answer, or does not read, within -t: 76, 74')
def _():
    result, said = talk_to(lambda talk: talk.rest(), '-t', '1')
    is_refused(result, 76, FATAL + 'the server does not answer')
    result, said = talk_to(lambda talk: (talk.say('220 hi\r\n'), talk.rest()), '-t', '1')
    is_refused(result, 76, FATAL + 'the server does not answer')

    over = threading.Event()

    def stop(talk):
        for i, line in enumerate(HELLO):
            talk.hear(line) if i % 2 else talk.say(line + '\r\n')
        over.wait()

    server = Played(stop)
    result = send(server.port, '-t', '1', tls=None, input=b'x' * 79 * 500000)
    over.set()
    is_refused(result, 74, FATAL + 'unable to send the message to its end')
    server.join()


@test('misused: one line, 100, and nothing is said')
def _():
    usage = FATAL + 'usage: smtpc [ -r ] [ -t seconds ] sender recipient... < message'
    for argv in [], ['-r'], ['a@b'], ['-x', 'a', 'b'], ['-t', '0', 'a', 'b'], ['-t', 'x', 'a', 'b']:
        is_refused(example(compiled('smtpc'), *argv), 100, usage)
    is_refused(example(compiled('smtpc'), 'a', 'b'), 100,
               FATAL + 'no connection on descriptors 6 and 7: run it under tcpclient')
    for address in 'bob@example.net> NOTIFY=NEVER', 'bob@example.net\r\nRSET', 'b\xf6b@example.net':
        result, said = talk_to(['220 hi'], envelope=[ENVELOPE[0], address])
        is_refused(result, 100, FATAL + 'unfit for an SMTP command: an address')
        is_equal(said, [''])
    result, said = talk_to([''], env={'HELO': 'mx.example.org\r\nRSET'})
    is_refused(result, 100, FATAL + 'unfit for an SMTP command: the name in HELO')
    is_equal(said, [''])
    result, said = talk_to(HELLO[:5], envelope=['alice@example.org', 'x' * 500])
    is_refused(result, 100, FATAL + 'too long for an SMTP command: ' + 'x' * 500)


run()
