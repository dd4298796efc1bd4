#!/usr/bin/env python3
# ISC licence: see COPYING.
# mailfront, as Debian packages it, behind the chain: STARTTLS and plain TLS, with real clients.

import os
import re
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from peer import Peer, client_hello
from pki import pki, server_env
from tap import SLOW, is_equal, is_true, run, test
from tcpserver import Server

STARTTLS = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -l localhost 127.0.0.1 0
export UCSPITLS ""
tls-ctl-open
{
  s6-envdir ./tls
  tls-await
  tls-handshake -v 2
  tls-io
}
smtpfront-echo starttls-ucspi accept
'''

IMMEDIATE = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -l localhost 127.0.0.1 0
s6-envdir ./tls
tls-handshake -v 2
tls-io
smtpfront-echo starttls-ucspi accept
'''

MAIL = ['From: alice@example.org', 'To: bob@example.net', 'Subject: some kB', '']
MAIL += ['line %d of a body that takes more than one read' % i for i in range(200)]

CAPABILITIES = ['250-localhost', '250-8BITMIME', '250-ENHANCEDSTATUSCODES', '250 PIPELINING']
DELIVERED = [
    "250 Sender='alice@example.org'.",
    "250 Recipient='bob@example.net'.",
    '354 End your message with a period on a line by itself.',
    '250 Received %d bytes.' % len('\n'.join(MAIL) + '\n'),
    '221 2.0.0 Good bye.',
]
CLEAR = [
    '220 localhost mailfront ESMTP',
    '250-localhost', '250-STARTTLS', '250-8BITMIME', '250-ENHANCEDSTATUSCODES', '250 PIPELINING',
]
GO_AHEAD = '220 2.0.0 Ready to start TLS'
GOOD_BYE = '221 2.0.0 Good bye.'


def start(run):
    need('smtpfront-echo')
    return Server(run, server_env())


def s_client(server, name='localhost'):
    """openssl s_client, verifying, says EHLO and QUIT: its exit code, what mailfront answers."""
    p = subprocess.run(
        ['openssl', 's_client', '-connect', '127.0.0.1:%d' % server.port, '-starttls', 'smtp',
         '-quiet', '-CAfile', pki() + '/ca.pem', '-verify_return_error', '-verify_hostname', name,
         '-servername', name],
        input=b'EHLO client.example\r\nQUIT\r\n', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return p.returncode, p.stdout.decode().split('\r\n')[:-1]


def swaks(server, tls):
    """swaks, verifying, sends the mail: what mailfront answers in clear, what it answers in TLS."""
    need('swaks')
    p = subprocess.run(
        ['swaks', '--server', '127.0.0.1', '--port', str(server.port), tls, '--tls-verify',
         '--tls-ca-path', pki() + '/ca.pem', '--ehlo', 'client.example', '--timeout',
         '%ds' % (30 * SLOW), '--from', 'alice@example.org', '--to', 'bob@example.net',
         '--data', '\n'.join(MAIL)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = p.stdout.decode()
    is_equal(p.returncode, 0, 'exit code of swaks, which says:\n' + text)
    return re.findall('^<-  (.*)$', text, re.M), re.findall('^<~  (.*)$', text, re.M)


def say(sock, *lines):
    """Sends lines in one segment."""
    sock.sendall(''.join(s + '\r\n' for s in lines).encode())


def answers(sock, n):
    """The next n lines, and not one byte after them."""
    with sock.makefile('rb', buffering=0) as f:
        return [f.readline().decode().rstrip('\r\n') for _ in range(n)]


def say_hello(server):
    """A client in plaintext that has said EHLO."""
    sock = server.connect()
    say(sock, 'EHLO client.example')
    is_equal(answers(sock, len(CLEAR)), CLEAR)
    return sock


def quit_in_tls(sock):
    """Starts TLS, says QUIT: the codes of all answers in it. ConnectionError if TLS is refused."""
    peer = Peer(sock).handshake()
    peer.send(b'QUIT\r\n')
    data, end = peer.recv_all()
    is_equal(end, 'close_notify')
    return [line[:3] for line in data.decode().splitlines()]


def is_injection(server):
    """The TLS side has refused what it found on the network."""
    server.wait_log("unable to start TLS: bytes came in plaintext before the client's TLS began")
    server.wait_idle()
    is_equal(server.codes, [97, 97], 'exit codes of engine and TLS side')


@test('openssl s_client gets STARTTLS, the certificate verified')
def _():
    server = start(STARTTLS)
    is_equal(s_client(server), (0, CAPABILITIES + [GOOD_BYE]))
    server.wait_log(': info: session ended: 27 bytes received')
    ports = [re.match(r'tcpserver: ok \d+ \S+ :127\.0\.0\.1::(\d+)$', s) for s in server.log()]
    port, = [m[1] for m in ports if m]
    server.wait_log('tls-engine: 127.0.0.1:%s: info: session ended' % port)
    server.wait_log('tcpserver: end ')
    is_true([s for s in server.log() if re.match(
        r'tls-handshake: info: session started: TLSv1\.3 \S+, server name localhost$', s)],
        'a line that tells the session')
    server.wait_idle()
    is_equal(server.codes, [0, 0], 'exit codes of TLS side and engine')


@test('openssl s_client minds another name')
def _():
    server = start(STARTTLS)
    is_equal(s_client(server, name='mail.example.com'), (1, []))


@test('swaks sends a whole mail over STARTTLS, the certificate verified')
def _():
    server = start(STARTTLS)
    is_equal(swaks(server, '--tls'), (CLEAR + [GO_AHEAD], CAPABILITIES + DELIVERED))
    server.wait_idle()
    is_equal(server.codes, [0, 0], 'exit codes of TLS side and engine')


@test('swaks sends a whole mail over plain TLS, to the same application')
def _():
    server = start(IMMEDIATE)
    is_equal(swaks(server, '--tls-on-connect'), ([], CLEAR[:1] + CAPABILITIES + DELIVERED))
    server.wait_idle()
    is_equal(server.codes, [0], 'exit code of the engine')


@test('a session that never asks for TLS works in plaintext, ends with 0, leaves nothing')
def _():
    server = start(STARTTLS)
    sock = say_hello(server)
    is_equal(len(server.orphans()), 1, 'TLS sides that wait')
    say(sock, 'MAIL FROM:<alice@example.org>', 'RCPT TO:<bob@example.net>', 'DATA')
    is_equal(answers(sock, 3), DELIVERED[:3])
    say(sock, *MAIL, '.', 'QUIT')
    is_equal(answers(sock, 2), DELIVERED[3:])
    is_equal(sock.recv(1), b'', 'the end')
    server.wait_log('tcpserver: end ')
    is_true([s for s in server.log() if re.match(r'tcpserver: end \d+ status 0$', s)], 'status 0')
    server.wait_idle()
    is_equal(server.codes, [0], 'exit code of the TLS side')
    is_equal([s for s in server.log() if s.startswith('tls-')], [], 'what the TLS side says')


# STARTTLS command injection: what comes in plaintext after STARTTLS must not count in TLS.

@test('injection in the segment of STARTTLS: mailfront refuses it')
def _():
    sock = say_hello(start(STARTTLS))
    say(sock, 'STARTTLS', 'EHLO injected')
    is_equal(answers(sock, 1), [GO_AHEAD])
    is_equal(quit_in_tls(sock), ['500', '221'], 'answers in TLS: bad pipelining, good bye')


@test('injection in a segment of its own: the TLS side refuses it')
def _():
    server = start(STARTTLS)
    sock = say_hello(server)
    say(sock, 'STARTTLS')
    is_equal(answers(sock, 1), [GO_AHEAD])
    say(sock, 'EHLO injected')
    is_equal(sock.recv(1), b'', 'answer')
    sock.close()
    is_injection(server)


@test('injection in the segment of the ClientHello: the TLS side refuses it')
def _():
    server = start(STARTTLS)
    sock = say_hello(server)
    say(sock, 'STARTTLS')
    is_equal(answers(sock, 1), [GO_AHEAD])
    sock.sendall(b'EHLO injected\r\n' + client_hello())
    is_equal(sock.recv(1), b'', 'answer')
    sock.close()
    is_injection(server)


@test('injection right after STARTTLS: whoever sees it, nobody answers')
def _():
    server = start(STARTTLS)
    sock = say_hello(server)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    say(sock, 'STARTTLS')
    say(sock, 'EHLO injected')
    is_equal(answers(sock, 1), [GO_AHEAD])
    try:
        got = quit_in_tls(sock)
    except ConnectionError:
        sock.close()
        return is_injection(server)
    is_equal(got, ['500', '221'], 'answers in TLS: bad pipelining, good bye')


run()
