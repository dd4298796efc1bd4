#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/*, starttls-connect and starttls-cert, with Postfix; with servers that cheat.

import hashlib
import os
import random
import re
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain
from examples import EXAMPLES, Played, example, is_done, is_refused
from pki import pki
from postfix import Postfix
from tap import is_equal, is_true, run, test, wait_for

ENVELOPE = ['alice@example.org', 'bob@example.net']
MAIL = b'''From: alice@example.org
To: bob@example.net
Subject: dots and line ends

.
..
.profile
a line that ends in CRLF\r
the last line, without its end'''
BODY = b'.\n..\n.profile\na line that ends in CRLF\nthe last line, without its end\n'

CLEAR = b'EHLO [127.0.0.1]\r\nSTARTTLS\r\n'
FATAL = 'tls-handshake: fatal: unable to start TLS: '
ANYONE = 'tls-handshake: warning: -N: anyone may answer as the server, nothing is verified'


def send(how, port, mail=MAIL, **more):
    return example('mail/send-' + how, '127.0.0.1', port, *ENVELOPE, input=mail, **more)


@test('send-mandatory: a mail arrives at Postfix by verified STARTTLS, every dot in place')
def _():
    postfix = Postfix()
    is_refused(send('mandatory', postfix.port), 0)
    [(head, body)] = postfix.delivered()
    is_equal(body, BODY)
    is_true(b'with ESMTPS' in head, 'Received by TLS: %r' % head)


@test('a mail of 20 MB arrives at Postfix whole, by STARTTLS')
def _():
    postfix = Postfix()
    line = random.Random(1)
    body = b''.join(b'%0*x\n' % (line.randrange(1, 76), line.getrandbits(300)) if n % 7 else b'.\n'
                    for n in range(20 << 20 >> 6))
    is_true(len(body) > 20_000_000, 'size')
    is_done(example('starttls-dial', 'smtp', '127.0.0.1', postfix.port, 'tls-handshake', '-c', '-k',
                    '127.0.0.1', 'tls-io', '-w', EXAMPLES + '/mail/smtp-send', *ENVELOPE,
                    input=b'Subject: large\n\n' + body))
    [(_, got)] = postfix.delivered()
    is_equal((len(got), hashlib.sha256(got).hexdigest()),
             (len(body), hashlib.sha256(body).hexdigest()))


@test('the same by UCSPI-TLS: tls-ctl-open, starttls/smtp, tls-ctl-start')
def _():
    postfix = Postfix()
    tls_side = 'tls-await -c tls-handshake -c -k 127.0.0.1 tls-io'.split()
    is_done(example('tcpclient', '-HRl0', '127.0.0.1', postfix.port,
                    'tls-ctl-open', *[' ' + word for word in tls_side], '',
                    EXAMPLES + '/starttls/smtp', 'tls-ctl-start', '-c',
                    EXAMPLES + '/mail/smtp-send', *ENVELOPE, input=MAIL))
    [(head, body)] = postfix.delivered()
    is_equal(body, BODY)
    is_true(b'with ESMTPS' in head, 'Received by TLS: %r' % head)


@test('starttls-connect: a conversation with Postfix; a name that is wrong, one that is right')
def _():
    postfix = Postfix()
    result = example('starttls-connect', 'smtp', '127.0.0.1', postfix.port,
                     input=[b'EHLO client.example', b'QUIT'])
    is_done(result)
    lines = result.out.decode().split('\r\n')
    is_equal((lines[0], lines[-2:]), ('250-example.org', ['221 2.0.0 Bye', '']))
    is_true('250-STARTTLS' not in lines, 'in TLS')
    quit = {'input': b'QUIT\r\n'}
    result = example('starttls-connect', '-k', 'example.com', 'smtp', '127.0.0.1', postfix.port,
                     **quit)
    is_equal((result.code, result.out), (97, b''))
    is_true(result.err.startswith(FATAL + "name `example.com' not present in server certificate"),
            result.err)
    for name in 'example.org', 'www.example.net', 'localhost':
        is_done(example('starttls-connect', '-k', name, 'smtp', '127.0.0.1', postfix.port, **quit))


@test('a tunnel for programs that know no TLS: starttls-connect behind tcpserver')
def _():
    postfix = Postfix()
    tunnel = Chain(['tcpserver', '-1HRl0', '127.0.0.1', '0', EXAMPLES + '/starttls-connect', 'smtp',
                    '127.0.0.1', str(postfix.port), 's6-ioconnect'],
                   env={'CAFILE': pki() + '/ca.pem'})
    port = wait_for(lambda: tunnel.stderr().split('\n')[0], 'a port')
    result = example('tcpclient', '-HRl0', '127.0.0.1', port, EXAMPLES + '/interactive',
                     input=[b'EHLO client.example', b'QUIT'])
    is_done(result)
    is_true(result.out.startswith(b'250-example.org\r\n'), 'answer: %r' % result.out)
    is_true(result.out.endswith(b'221 2.0.0 Bye\r\n'), 'answer: %r' % result.out)


# Stripping, and who the server is

@test('send-mandatory: a server that does not offer STARTTLS gets not one byte of the mail: 69')
def _():
    postfix = Postfix(level='none')
    is_refused(send('mandatory', postfix.port), 69,
               'starttls/smtp: fatal: the server does not offer STARTTLS')
    postfix.wait_log('[127.0.0.1] ehlo=1 commands=1')


def strip(talk):
    """Somebody on the way has removed the offer, and would take the mail."""
    talk.say('220 example.org\r\n')
    line = talk.line()
    while line:
        talk.say('354 go on\r\n' if line.startswith('DATA') else '250 ok\r\n')
        if line.startswith('DATA'):
            while talk.line() not in ('.\r\n', ''):
                pass
            talk.say('250 ok\r\n')
        line = talk.line()


def offer(talk):
    talk.say('220 example.org\r\n')
    talk.hear(r'EHLO \S+')
    talk.say('250 STARTTLS\r\n')
    talk.hear('STARTTLS')
    talk.say('220 go ahead\r\n')


def impostor(talk):
    """Shows a certificate for another name, and would take the mail."""
    offer(talk)
    try:
        talk.start_tls(cert='a')
        is_equal(talk.peer.recv(1), b'', 'what the client says in TLS')
    except (ssl.SSLError, ConnectionError):
        pass


def inject(talk):
    """Answers the EHLO that the client will send in TLS, before TLS."""
    talk.say('220 example.org\r\n')
    talk.hear(r'EHLO \S+')
    talk.say('250 STARTTLS\r\n')
    talk.hear('STARTTLS')
    talk.say('220 go ahead\r\n250 AUTH PLAIN\r\n')
    is_equal(talk.rest(), b'')


def old(talk):
    """Knows nothing newer than TLS 1.0, or nothing of TLS at all: answers with an alert."""
    offer(talk)
    talk.say(b'\x15\3\1\0\2\2\x46')
    talk.rest()


@test('send-mandatory: a server that cheats gets not one byte of the mail')
def _():
    server = Played(strip, impostor, inject, old)
    is_done(send('mandatory', server.port), 69)
    result = send('mandatory', server.port)
    is_done(result, 97)
    is_true(re.match(FATAL + ".*127.0.0.1", result.err), result.err)
    is_refused(send('mandatory', server.port), 97,
               FATAL + 'the server sent bytes in plaintext before TLS began')
    is_done(send('mandatory', server.port), 97)
    server.join()
    is_equal([talk.said for talk in server.talks[:1]], [b'EHLO [127.0.0.1]\r\n'])
    for talk in server.talks[1:]:
        is_true(talk.said.startswith(CLEAR), 'said in plaintext: %r' % talk.said)
        is_true(b'alice' not in talk.said and b'MAIL' not in talk.said, 'said: %r' % talk.said)


@test('send-opportunistic: encrypted and verified; encrypted; in plaintext; it says which')
def _():
    said = 'send-opportunistic: info: sent '
    postfix = Postfix()
    is_refused(send('opportunistic', postfix.port), 0, said + 'encrypted, the server verified')
    [(head, body)] = postfix.delivered()
    is_equal((b'with ESMTPS' in head, body), (True, BODY))

    result = send('opportunistic', postfix.port, env={'CAFILE': pki() + '/otherca.pem'})
    is_done(result)
    failed, nobody, sent = result.err.splitlines()
    is_true(failed.startswith(FATAL), failed)
    is_equal([nobody, sent], [ANYONE, said + 'encrypted, the server not verified'])
    is_equal([(b'with ESMTPS' in head, body) for head, body in postfix.delivered(2)],
             [(True, BODY)] * 2)

    postfix = Postfix(level='none')
    is_refused(send('opportunistic', postfix.port), 0,
               'starttls/smtp: fatal: the server does not offer STARTTLS', said + 'in plaintext')
    [(head, body)] = postfix.delivered()
    is_equal((b'with ESMTP ' in head, body), (True, BODY))


@test('send-opportunistic: where TLS does not work, three tries, the last in plaintext')
def _():
    server = Played(old, old, strip)
    result = send('opportunistic', server.port)
    is_done(result)
    lines = [s for s in result.err.splitlines() if not s.startswith(FATAL)]
    is_equal(lines, [ANYONE, 'send-opportunistic: info: sent in plaintext'])
    server.join()
    is_true(b'\r\n...\r\n' in server.talks[2].said, 'the mail: %r' % server.talks[2].said)


@test('send-opportunistic: a mail that may have arrived is not sent again in another way')
def _():
    def forget(talk):
        offer(talk)
        talk.start_tls()
        for answer in '250 hi', '250 ok', '250 ok', '354 go on':
            talk.line()
            talk.say(answer + '\r\n')
        while talk.line() != '.\r\n':
            pass

    server = Played(forget)
    result = send('opportunistic', server.port)
    is_done(result, 76)
    is_true('mail/smtp-send: fatal: the server has closed the connection\n' in result.err, result)
    server.join()
    is_equal(server.late(), 0, 'further connections')


# smtp-send by itself, in plaintext

HELLO = ['220 hi', r'EHLO \[127\.0\.0\.1\]', '250-hi\r\n250 SIZE', r'MAIL FROM:<alice@example.org>',
         '250 ok', 'RCPT TO:<bob@example.net>', '250 ok', 'DATA', '354 go on']


def smtp_send(play, *envelope, **more):
    """What smtp-send makes of that server, which is played or says these lines and hears the rest;
    what it has said."""
    def play_lines(talk):
        for i, line in enumerate(play):
            talk.hear(line) if i % 2 else talk.say(line + '\r\n')
        talk.rest()

    server = Played(play if callable(play) else play_lines)
    result = example('tcpclient', '-HRl0', '127.0.0.1', server.port,
                     EXAMPLES + '/mail/smtp-send', '-g', *(envelope or ENVELOPE),
                     **{'input': MAIL, **more})
    server.join()
    return result, server.talks[0].said.decode().split('\r\n')


@test('smtp-send: what it sends, line by line, to two at once')
def _():
    result, said = smtp_send(strip, *ENVELOPE, 'carol@example.net', env={'HELO': 'mx.example.org'})
    is_refused(result, 0)
    is_equal(said, [
        'EHLO mx.example.org', 'MAIL FROM:<alice@example.org>', 'RCPT TO:<bob@example.net>',
        'RCPT TO:<carol@example.net>', 'DATA', 'From: alice@example.org', 'To: bob@example.net',
        'Subject: dots and line ends', '', '..', '...', '..profile',
        'a line that ends in CRLF', 'the last line, without its end', '.', 'QUIT', ''])


@test('smtp-send -g: to a server that talks TLS from the first byte, and greets in it')
def _():
    def play(talk):
        talk.start_tls()
        strip(talk)

    server = Played(play)
    is_done(example('starttls-dial', 'tls', '127.0.0.1', server.port, 'tls-handshake', '-c', '-k',
                    'localhost', 'tls-io', EXAMPLES + '/mail/smtp-send', '-g', *ENVELOPE,
                    input=MAIL))
    server.join()


@test('smtp-send: refused for now is 75, refused for good is 77, nonsense or an end is 76')
def _():
    fatal = 'mail/smtp-send: fatal: '
    for answer, code, line in (
            ('421 too busy', 75, 'refused for now: 421 too busy'),
            ('550-no\r\n550 such thing', 77, 'refused: 550 such thing'),
            ('250', 76, 'the server talks nonsense: 250'),
            ('hello', 76, 'the server talks nonsense: hello')):
        for n in 0, 2, 4, 6, 8:
            if n and answer.startswith('250') and n < 8:
                continue
            result, said = smtp_send(HELLO[:n] + [answer])
            is_refused(result, code, fatal + line)
            is_equal(len(said), n // 2 + 1, 'lines said, and nothing after them')


@test('smtp-send: accepted once the server says so after the last dot, whatever comes then')
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
        result, said = smtp_send(answer_the_dot(answer))
        is_done(result, code)


@test('smtp-send: a message that cannot be read, or sent, to its end is 74, and has no last dot')
def _():
    fatal = 'mail/smtp-send: fatal: unable to send the message to its end'
    result, said = smtp_send(HELLO, input='/')
    is_refused(result, 74, fatal)
    is_equal(said[-2:], ['DATA', ''])

    def hang_up(talk):
        for i, line in enumerate(HELLO):
            talk.hear(line) if i % 2 else talk.say(line + '\r\n')
        talk.exactly(100000)
        talk.reset()

    result, said = smtp_send(hang_up, input=b'Subject: large\n\n' + b'x' * 79 * 100000)
    is_refused(result, 74, fatal)


@test('smtp-send: a CR that ends no line is refused: 65, no last dot, nothing from there on')
def _():
    head = b'Subject: hi\n\n'
    for text in b'a line\rwith a CR\n', b'\rfirst\n', b'twice\r\r\n', b'x\r.\r\nMAIL FROM:<>\r\n':
        for after in b'', b'more\n' * 100000:
            result, said = smtp_send(HELLO, input=head + b'before\r\n' + text + after)
            is_refused(result, 65, 'mail/smtp-send: fatal: '
                       'unable to send the message: a line has a CR before its end')
            is_equal(said[-5:], ['DATA', 'Subject: hi', '', 'before', ''], repr(text))


@test('smtp-send: an address that could end the command is refused before anything is said')
def _():
    for address in 'bob@example.net> NOTIFY=NEVER', 'bob@example.net\r\nRSET', 'b\xf6b@example.net':
        result, said = smtp_send(['220 hi'], ENVELOPE[0], address)
        is_refused(result, 100, 'mail/smtp-send: fatal: unfit for an SMTP command: an address')
        is_equal(said, [''])


run()
