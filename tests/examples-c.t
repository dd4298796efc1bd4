#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/c/smtpd, a server by libtlsctl: real clients, what clients may and may not do, mails.

import os
import re
import smtplib
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, Chain, delayed, dies, need
from compiled import (CODES, DELAYED, GO_AHEAD, GREETING, IN_CLEAR, IN_TLS, RCPT, SENDER, TAKEN,
                      PlayedSide, SmtpServer, compile_c, compiled, example_sources, hand_in,
                      stuffed)
from examples import example, is_refused
from peer import Peer
from pki import pki, server_env
from postfix import Postfix
from scratch import temp, temp_dir
from services import verifying_context
from smtp import SmtpTalk, run_swaks
from sockets import read_to_end, tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import APP_FDS, NETIDS, PLUMBING, SETTINGS, starttls

MAIL = ['From: alice@example.org', 'Subject: hi', '', '.', '..', '.profile', 'end']
GOOD_BYE = '221 2.0.0 mx.example.org closing'
NO_MAIL = '503 5.5.1 say MAIL first'
NOT_NOW = '451 4.3.0 the mail cannot be taken at present'


@test('the examples, and the library that they have copied, compile by gcc without a word')
def _():
    compiles('gcc')


@test('the same by clang')
def _():
    compiles('clang')


def compiles(cc):
    for name in 'smtpd', 'smtpc':
        is_equal(compile_c(temp_dir() + '/' + name, *example_sources(name), cc=cc,
                           library=TOP + '/src/tlsctl/tlsctl.c'), '', name)


# Real clients

@test('swaks sends a mail by STARTTLS, verifying; with -r not without')
def _():
    server = SmtpServer('-r')
    argv = ['--from', 'alice@example.org', '--to', 'bob@example.net', '--data', '\n'.join(MAIL)]
    p = run_swaks(server.port, *argv)
    is_equal(p.returncode, 23, 'exit code of swaks without TLS (23: MAIL refused):\n' + p.stdout)
    is_true('\n<** 530 5.7.0 say STARTTLS first\n' in p.stdout, p.stdout)
    p = run_swaks(server.port, *argv, '--tls', '--tls-verify', '--tls-ca-path', pki() + '/ca.pem')
    is_equal(p.returncode, 0, 'exit code of swaks, which says:\n' + p.stdout)
    is_equal(re.findall('^<-  (.*)$', p.stdout, re.M), [GREETING, *IN_CLEAR, GO_AHEAD])
    is_equal(re.findall('^<~  (.*)$', p.stdout, re.M),
             [*IN_TLS, *CODES, TAKEN, GOOD_BYE])
    [got] = server.mails()
    is_equal(got.text.rstrip('\n').split('\n'), MAIL)


@test('smtplib sends two mails, one to two, the other large; what it says in clear is forgotten')
def _():
    server = SmtpServer()
    large = 'x' * 900 + '\n'
    with smtplib.SMTP('127.0.0.1', server.port, timeout=30 * SLOW) as client:
        client.ehlo()
        is_true(client.has_extn('starttls'), 'STARTTLS is offered')
        client.starttls(context=verifying_context())
        client.ehlo('client.example')
        is_true(not client.has_extn('starttls'), 'STARTTLS is not offered again')
        client.sendmail('alice@example.org', ['bob@example.net', 'carol@example.net'],
                        '\n'.join(MAIL))
        client.sendmail('', ['bob@example.net'], 'Subject: large\n\n' + large * 2000)
    small, big = server.mails()
    is_equal(small.text, '\n'.join(MAIL) + '\n')
    is_equal(big.text, 'Subject: large\n\n' + large * 2000)
    is_equal([(m.env['SENDER'], m.env['RECIPIENTS'], m.env['SSL_PROTOCOL']) for m in (small, big)],
             [('alice@example.org', 'bob@example.net carol@example.net', 'TLSv1.3'),
              ('', 'bob@example.net', 'TLSv1.3')])
    is_equal([s.split('_')[0] for s in (small.env['SSL_CIPHER'], big.env['SSL_CIPHER'])],
             ['TLS', 'TLS'])
    wanted = (r'Received: from client\.example \(\[127\.0\.0\.1\]\)\|'
              r'  by mx\.example\.org with ESMTPS \(TLSv1\.3\);\|'
              r'  [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000')
    is_true(re.fullmatch(wanted, '|'.join(small.received)),
            'Received: %r' % small.received)


@test('openssl s_client, patient and verifying')
def _():
    server = SmtpServer('-r')
    p = subprocess.Popen(
        ['openssl', 's_client', '-connect', '127.0.0.1:%d' % server.port, '-starttls', 'smtp',
         '-quiet', '-CAfile', pki() + '/ca.pem', '-verify_return_error', '-verify_hostname',
         'localhost'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = p.communicate(b'HELO client.example\r\nVRFY bob\r\nQUIT\r\n')[0]
    is_equal((p.returncode, out.decode().split('\r\n')),
             (0, ['250 mx.example.org', '252 2.0.0 try it', GOOD_BYE, '']))


@test("Postfix's posttls-finger finds TLS, and the certificate verified")
def _():
    need('posttls-finger')
    server = SmtpServer()
    p = subprocess.run(['posttls-finger', '-c', '-l', 'verify', '-F', pki() + '/ca.pem', '-m', '0',
                        '[127.0.0.1]:%d' % server.port, 'localhost'], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    is_true('Verified TLS connection established' in p.stdout, p.stdout)
    server.wait_log('tcpserver: end ')
    server.wait_idle()


@test("Postfix's smtp(8) passes a mail on by STARTTLS, verified")
def _():
    server = SmtpServer('-r')
    postfix = Postfix(relayhost='[127.0.0.1]:%d' % server.port, smtp_tls_security_level='verify',
                      smtp_tls_verify_cert_match='example.org', smtp_tls_loglevel=1,
                      smtp_tls_CAfile=pki() + '/ca.pem')
    with smtplib.SMTP('127.0.0.1', postfix.port, timeout=30 * SLOW) as client:
        client.sendmail('alice@example.org', ['carol@example.com'], '\n'.join(MAIL))
    [got] = wait_for(server.mails, 'the mail')
    is_true(got.text.endswith('\n'.join(['', *MAIL[2:], ''])), 'the mail: %r' % got.text)
    is_equal((got.env['SENDER'], got.env['RECIPIENTS'], got.env['SSL_PROTOCOL']),
             ('alice@example.org', 'carol@example.com', 'TLSv1.3'))
    postfix.wait_log('Verified TLS connection established to 127.0.0.1')
    postfix.wait_log('status=sent (250 2.0.0 the mail has been taken)')


# What is kept in plaintext, and what is not

@test('nothing that was said before STARTTLS counts after it')
def _():
    server = SmtpServer()
    talk = server.talk()
    for line in 'EHLO clear.example', SENDER, RCPT:
        is_equal(talk.ask(line)[:3], '250')
    is_equal(talk.ask('STARTTLS'), GO_AHEAD)
    talk.start_tls()
    for line, answer in (('DATA', '503 5.5.1 say RCPT first'), (RCPT, NO_MAIL),
                         (SENDER, '503 5.5.1 say EHLO first'),
                         ('STARTTLS', '503 5.5.1 TLS has started already'),
                         ('EHLO tls.example', ' / '.join(IN_TLS)), (RCPT, NO_MAIL)):
        is_equal((line, talk.ask(line)), (line, answer))
    is_equal(hand_in(talk, *MAIL), TAKEN)
    is_equal(talk.ask('QUIT'), GOOD_BYE)
    is_equal(talk.rest(), b'')
    server.ends(0, 0, 0)
    [got] = server.mails()
    is_true('from tls.example ' in got.received[0], 'Received: %r' % got.received)


@test('commands that come with STARTTLS in one write are not obeyed: the session ends, 97')
def _():
    for option in '-r', '':
        server = SmtpServer(option)
        talk = server.talk()
        injected = ['EHLO me', SENDER, RCPT, 'DATA', stuffed('hi')]
        is_equal(talk.ask('\r\n'.join(['STARTTLS', *injected])), GO_AHEAD)
        is_equal(talk.rest(), b'')
        server.wait_log('smtpd: fatal: bytes came in plaintext before TLS began')
        server.ends(97, 0)
        is_equal(server.mails(), [])


@test('what comes after the 220, in plaintext, is found by the TLS side: the session ends, 97')
def _():
    server = SmtpServer()
    talk = server.talk()
    is_equal(talk.ask('STARTTLS'), GO_AHEAD)
    talk.send(b'EHLO injected.example\r\n')
    is_equal(talk.rest(), b'')
    server.wait_log("smtpd: fatal: TLS did not start: bytes came in plaintext before the client's")
    server.ends(97, 97, 97)


@test('TLS that fails ends the session: 97, and not a word more in plaintext')
def _():
    server = SmtpServer()
    talk = server.talk()
    is_equal(talk.ask('STARTTLS'), GO_AHEAD)
    talk.send(b'\x16\3\1\0\5hello')
    is_true(b'mx.example.org' not in talk.rest(), 'what it still says')
    server.wait_log('smtpd: fatal: TLS did not start')
    server.ends(97, 97, 97)
    server = SmtpServer(CERTFILE='/nonesuch')
    talk = server.talk()
    is_equal(talk.ask('STARTTLS'), GO_AHEAD)
    is_equal(talk.rest(), b'')
    server.ends(97, 96, 96)

# Without TLS

@test('without -r, a mail in plaintext; -r refuses mail, and nothing else')
def _():
    server = SmtpServer()
    talk = server.talk()
    is_equal(talk.ask('HELO clear.example'), '250 mx.example.org')
    is_equal(hand_in(talk, *MAIL), TAKEN)
    [got] = server.mails()
    is_equal(got.text, '\n'.join(MAIL) + '\n')
    is_equal((got.received[1], got.env.get('SSL_PROTOCOL')),
             ('  by mx.example.org with SMTP;', None))

    talk = SmtpServer('-r').talk()
    is_equal(talk.ask('EHLO clear.example'), ' / '.join(IN_CLEAR))
    for line in SENDER, RCPT, 'DATA', 'VRFY bob', 'mail from:<>':
        is_equal((line, talk.ask(line)), (line, '530 5.7.0 say STARTTLS first'))
    for line, answer in (('HELO me', '250 mx.example.org'), ('NOOP', '250 2.0.0 OK'),
                         ('RSET', '250 2.0.0 OK'), ('STARTTLS now', '501 5.5.4 STARTTLS has no '
                          'parameters'), ('QUIT', GOOD_BYE)):
        is_equal((line, talk.ask(line)), (line, answer))
    is_equal(talk.rest(), b'')


@test('where no TLS can be had, it is not offered, and refused; with -r it does not start')
def _():
    run = "#!/usr/bin/env -S execlineb -P\ntcpserver -v1HR -l mx.example.org 127.0.0.1 0\n%s\n"
    server = SmtpServer(run=run)
    talk = server.talk()
    is_equal(talk.ask('EHLO clear.example'), ' / '.join(IN_TLS))
    is_equal(talk.ask('STARTTLS'), '502 5.5.1 TLS is not offered')
    is_equal(hand_in(talk, *MAIL), TAKEN)
    is_refused(example(compiled('smtpd'), '-r', 'true'), 100,
               'smtpd: fatal: no channels for TLS: run it under tls-ctl-open')


@test('a TLS side that has given up, as tls-await -t does: 454, and TLS is not offered any more')
def _():
    side = PlayedSide([compiled('smtpd'), 'true'], [0, 1])
    talk = SmtpTalk(side.net)
    is_equal(talk.answers(), ['220 localhost ESMTP'])
    is_true('250-STARTTLS' in talk.ask('EHLO me'), 'as long as it is there, it is offered')
    side.ctl.close()
    is_equal(talk.ask('STARTTLS'), '454 4.7.0 TLS is not available at present')
    is_true('STARTTLS' not in talk.ask('EHLO me'), 'an offer')
    is_equal(hand_in(talk, *MAIL), TAKEN)


@test('with TLS from the first byte: ESMTPS, and no STARTTLS')
def _():
    run = """#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -l mx.example.org 127.0.0.1 0
s6-envdir ./tls
tls-handshake
tls-io
%s
"""
    server = SmtpServer(run=run)
    talk = SmtpTalk(server.connect()).start_tls()
    is_equal(talk.answers(), [GREETING])
    is_equal(talk.ask('EHLO tls.example'), ' / '.join(IN_TLS))
    is_equal(hand_in(talk, *MAIL), TAKEN)
    is_true('with ESMTPS (TLSv1.3);' in server.mails()[0].received[1], server.mails())


# Mails

@test('a mail whose end is not there is no mail, in plaintext and in TLS')
def _():
    server = SmtpServer()
    for talk in server.talk(), server.talk_in_tls():
        talk.ask('EHLO me')
        is_equal([talk.ask(line) for line in (SENDER, RCPT, 'DATA')], CODES)
        talk.send(b'Subject: cut\r\n\r\na line\r\n')
        if talk.peer:
            talk.peer.close_notify()
            talk.peer.shutdown()
        else:
            talk.sock.shutdown(socket.SHUT_WR)
        is_equal(talk.rest(), b'')
    server.wait_log('tcpserver: end ', 2)
    server.wait_idle()
    is_equal(server.mails(), [])


@test('a whole session in one write, in TLS, which is what PIPELINING is for')
def _():
    server = SmtpServer()
    talk = server.talk_in_tls()
    lines = ['EHLO me', SENDER, RCPT, 'DATA', stuffed(*MAIL), SENDER, RCPT, 'RSET', SENDER, RCPT,
             RCPT, 'DATA', stuffed('second'), 'QUIT']
    talk.send(('\r\n'.join(lines) + '\r\n').encode())
    is_equal(talk.rest().decode().split('\r\n'),
             [*IN_TLS, *CODES, TAKEN, *CODES[:2], '250 2.0.0 OK', CODES[0], CODES[1], *CODES[1:],
              TAKEN, GOOD_BYE, ''])
    is_equal([(m.text, m.env['RECIPIENTS']) for m in server.mails()],
             [('\n'.join(MAIL) + '\n', 'bob@example.net'),
              ('second\n', 'bob@example.net bob@example.net')])


@test('what prog exits with is the answer; what it prints goes to the log')
def _():
    server = SmtpServer()
    talk = server.talk_in_tls()
    talk.ask('EHLO me')
    refused = '554 5.0.0 the mail is refused'
    for who, answer in (('code-100', refused), ('code-111', NOT_NOW), ('code-1', NOT_NOW),
                        ('killed', NOT_NOW), ('bob', TAKEN)):
        is_equal((who, hand_in(talk, *MAIL, to='RCPT TO:<%s@example.net>' % who)), (who, answer))
    is_true('this must not get to the client' in server.log(), server.log())
    is_equal(len(server.mails()), 1)
    run = DELAYED.replace('%s', '%s/no')
    talk = SmtpServer(run=run).talk()
    talk.ask('EHLO me')
    is_equal(hand_in(talk, *MAIL), NOT_NOW)


@test('prog holds 0, 1 and 2, and knows nothing of the channels')
def _():
    server = SmtpServer()
    for talk in server.talk(), server.talk_in_tls():
        talk.ask('EHLO me')
        is_equal(hand_in(talk, *MAIL), TAKEN)
    for got in server.mails():
        is_equal(got.fds, [0, 1, 2])
        is_equal([name for name in got.env if name in APP_FDS + PLUMBING + NETIDS + SETTINGS], [])


# Descriptors

REPLY = b'SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=a-cipher\0\0'


@test('one socket for both directions, under one number or two; under those of the network')
def _():
    for r, w in (11, 11), (11, 12):
        side = PlayedSide([compiled('smtpd'), 'sh', '-c', 'echo $SSL_PROTOCOL $SSL_CIPHER'], [0, 1],
                          r, w)
        talk = SmtpTalk(side.net)
        is_equal(talk.answers(), ['220 localhost ESMTP'])
        is_equal(talk.ask('STARTTLS'), GO_AHEAD)
        side.reply(REPLY)
        is_equal(read_to_end(side.net), b'', 'what is said on the network still')
        talk = SmtpTalk(side.plain)
        is_equal(talk.ask('EHLO tls.example')[:13], '250-localhost')
        is_equal(hand_in(talk, *MAIL), TAKEN)
        talk.sock.shutdown(socket.SHUT_WR)
        is_equal(talk.rest(), b'')
        is_equal((side.c.wait(), side.c.stderr()), (0, 'TLSv1.3 a-cipher\n'))


@test('a TLS side that refuses, whatever it says: 97, nothing more on the network')
def _():
    for reply, reason in (b'', b''), (b'SSL_PROTOCOL=TLSv1.3\0', b''), (b'', b': no cipher'):
        side = PlayedSide([compiled('smtpd'), 'true'], [0, 1], reason=reason[2:])
        talk = SmtpTalk(side.net)
        talk.answers()
        is_equal(talk.ask('STARTTLS'), GO_AHEAD)
        side.reply(reply)
        is_equal((read_to_end(side.net), read_to_end(side.plain)), (b'', b''))
        dies(side.c, 97, 'smtpd: fatal: TLS did not start' + reason.decode())


@test('a client that reads no reply: the session is over, and no death by SIGPIPE')
def _():
    side = PlayedSide([compiled('smtpd'), 'true'], [0, 1])
    talk = SmtpTalk(side.net)
    talk.answers()
    is_equal(talk.ask('STARTTLS'), GO_AHEAD)
    side.plain.sendall(b'NOOP\r\n')
    side.plain.close()
    side.reply(REPLY)
    is_equal((side.c.wait(), side.c.stderr()), (0, ''))


# What asks with y, and answers each line with itself.
ASKER = b'''
#include <unistd.h>
#include <tlsctl.h>
static void line(void)
{
  char c = 0;
  while (c != '\\n' && read(0, &c, 1) == 1) if (tlsctl_offered() == 0) write(1, &c, 1);
}
int main(void)
{
  line();
  write(1, "go ahead\\n", 9);
  if (tlsctl_start(0, 1, 0, 0, 0) != TLSCTL_STARTED) return 97;
  line();
  return 0;
}
'''


@test('asked with y, the library waits for nothing, and TLS is there')
def _():
    program = temp_dir() + '/asker'
    compile_c(program, temp(ASKER, suffix='.c'))
    client, server = tcp_pair()
    c = Chain(delayed([program]), server, env=server_env())
    starttls(client)
    peer = Peer(client, verify=True).handshake()
    peer.send(b'a line\n')
    is_equal(peer.recv_all(), (b'a line\n', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


run()
