#!/usr/bin/env python3
# ISC licence: see COPYING.
# What must not get from plaintext into TLS, from one session into another, from TLS into plaintext.

import os
import signal
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import FATAL, PYTHON, Chain, delayed, not_resident, reason
from clients import HERE, client_facts, connect_client, serve_client, start_client
from peer import Peer
from pki import ca_env, cert_hash, pki, server_env
from processes import engines, wait_engine
from sockets import read_line, read_to_end, tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import FACTS

BY_SERVER = 'the server sent bytes in plaintext before TLS began'
BY_CLIENT = 'bytes came in plaintext before the client\'s TLS began'
GONE = 'tls-ctl-start: fatal: TLS did not start: '
ALERT = b'\x15\3\3\0\2\2\x28'
SERVER_HELLO = b'\x16\3\3\0\x7a\2\0\0\x76\3\3' + bytes(115)


# Responses, injected before a client's TLS

def is_refused_by_client(data, options=HERE):
    """The server has sent this before tls-handshake starts; it gets nothing, not a ClientHello."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    server.sendall(data)
    c = start_client(['tls-handshake', '-c', *options, 'tls-io', 'echo', 'ran'], client)
    is_equal(read_to_end(server), b'', 'what the server gets')
    server.close()
    is_equal(reason(c), BY_SERVER)


@test('a byte that waits before the ClientHello ends a client\'s attempt, whatever it is: 97')
def _():
    for data in b'2', b'\n', b'\0', b'\x16', b'\x15', b'\xff':
        is_refused_by_client(data)


@test('so does a line, a lot of them, an alert of TLS, the beginning of a ServerHello')
def _():
    for data in b'250 injected\r\n', b'250 injected\r\n' * 10000, ALERT, SERVER_HELLO:
        is_refused_by_client(data)


@test('whether the server is verified or not')
def _():
    for options in ['-n'], ['-N', '-v1'], ['-O', *HERE]:
        client, server = tcp_pair()
        server.sendall(b'250 injected\r\n')
        c = start_client(['tls-handshake', '-c', *options, 'tls-io', 'echo', 'ran'], client)
        is_equal(read_to_end(server), b'', 'what the server gets')
        server.close()
        is_equal(c.wait(), 97)
        is_equal(c.stderr().splitlines()[-1], FATAL + BY_SERVER)


# A client that reads the line that says "go ahead", and not a byte more.
STARTTLS_CLIENT = 'read line <&6; echo STARTTLS >&7; read line <&6; exec tls-ctl-start -c "$@"'


def starttls_client(greeting, answer, tail=b'', prog=('sh', '-c', 'cat <&6 >&2')):
    """A delayed client at a server that says this; the server's socket, and the chain."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    c = start_client(delayed(['sh', '-c', STARTTLS_CLIENT, 'sh', *prog],
                             ['tls-await', '-c', 'tls-handshake', '-c', *HERE, 'tls-io']), client)
    server.sendall(greeting)
    is_equal(read_line(server), b'STARTTLS\n')
    server.sendall(answer + tail)
    return server, c


@test('a response that comes with the one to STARTTLS never gets into the session: 97')
def _():
    for tail in b'250 injected\r\n', b'\n', SERVER_HELLO:
        server, c = starttls_client(b'220 hello\n', b'220 go ahead\n', tail)
        is_equal(read_to_end(server), b'', 'what the server gets')
        server.close()
        is_equal(c.wait(), 97)
        is_equal(sorted(c.stderr().splitlines()),
                 [GONE + BY_SERVER, FATAL + BY_SERVER])


@test('nor does one that was sent with the greeting, long before')
def _():
    server, c = starttls_client(b'220 hello\n220 go ahead\n250 injected\n', b'220 go ahead\n')
    is_equal(read_to_end(server), b'', 'what the server gets')
    server.close()
    is_equal(c.wait(), 97)
    is_true(FATAL + BY_SERVER in c.stderr(), c.stderr())


@test('the same conversation without anything injected works')
def _():
    server, c = starttls_client(b'220 hello\n', b'220 go ahead\n')
    peer = serve_client(server)
    peer.send(b'250 not injected\n')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '250 not injected\n')


@test('a server that answers the ClientHello in plaintext: 97, and none of it gets to the program')
def _():
    server, c = connect_client(HERE, ['tls-io', 'sh', '-c', 'cat <&6 >&2'])
    server.recv(1, socket.MSG_PEEK)
    server.sendall(b'500 what?\r\n')
    server.shutdown(socket.SHUT_WR)
    is_true('500' not in reason(c), c.stderr())


@test('plaintext in the middle of a session fails it, and does not get to the program: 98')
def _():
    server, c = connect_client(HERE, ['tls-io', '-w', 'sh', '-c', 'cat <&6 >&2'])
    peer = serve_client(server)
    peer.send(b'encrypted\n')
    wait_for(lambda: 'encrypted\n' in c.stderr(), 'the first line')
    server.sendall(b'plaintext\n')
    read_to_end(server)
    server.close()
    is_equal(c.wait(), 98)
    is_true('plaintext' not in c.stderr(), c.stderr())


# Commands, injected before a server's TLS

STARTTLS_SERVER = 'read line; echo go ahead; exec tls-ctl-start sh -c \'cat >&2\''


def is_refused_by_server(data, words=BY_CLIENT):
    """STARTTLS, data, and a ClientHello, in one segment."""
    client, server = tcp_pair()
    peer = Peer(client)
    client.sendall(b'STARTTLS\n' + data + peer.next_flight())
    c = Chain(delayed(['sh', '-c', STARTTLS_SERVER]), server, env=server_env())
    got = read_to_end(client)
    client.close()
    is_equal(c.wait(), 97)
    is_true(got[:9] == b'go ahead\n' and len(got) < 9 + 16, 'at most an alert: %r' % got)
    gone, failed = sorted(c.stderr().splitlines())
    is_true(failed.startswith(FATAL + words), failed)
    is_equal(gone, GONE + failed[len(FATAL):], 'the application knows the reason')


@test('a command that comes with STARTTLS never gets into the session: 97')
def _():
    for data in b'RCPT TO:<evil>\r\n', b'\n', b'\0', b'\x15', b'\x17', b'x' * 50000:
        is_refused_by_server(data)


@test('nor does one that begins as TLS does')
def _():
    for data in b'\x16', b'\x16RCPT TO:<evil>\r\n', b'\x16\3\1\0\5evil\n':
        is_refused_by_server(data, words='')


@test('the same conversation without anything injected works, also in one segment')
def _():
    client, server = tcp_pair()
    peer = Peer(client)
    client.sendall(b'STARTTLS\n' + peer.next_flight())
    c = Chain(delayed(['sh', '-c', STARTTLS_SERVER]), server, env=server_env())
    is_equal(read_line(client), b'go ahead\n')
    peer.handshake()
    peer.send(b'RCPT TO:<friend>\n')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'RCPT TO:<friend>\n')


# Facts of an outer session

OUTER = {name: 'outer' for name in FACTS}
PLAIN = {'SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_CIPHER_USEKEYSIZE', 'SSL_CIPHER_ALGKEYSIZE',
         'SSL_SESSION_RESUMED'}
PLAIN_SERVER = PLAIN | {'SSL_CLIENT_VERIFY'}
PEER_CERT = {name for name in FACTS if '_PEER_' in name}


def of_session(text):
    """What an environment, printed by env -0, tells of a session; there may be lines after it."""
    f = dict(v.split('=', 1) for v in text.decode().split('\0')[:-1])
    return {name: f[name] for name in f if name.startswith('SSL_')}


def is_clean(f, names):
    is_equal(set(f), names, 'the facts')
    is_true('outer' not in f.values(), f)


@test('a client: no fact of an outer session survives into its own')
def _():
    f = client_facts(['-n'], ca_env(**OUTER))
    is_clean({name: f[name] for name in f if name.startswith('SSL_')}, PLAIN | PEER_CERT)


@test('a server: no fact of an outer session survives into its own')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'env', '-0'], server, env=server_env(**OUTER))
    is_clean(of_session(Peer(client).handshake().end_politely()[0]), PLAIN_SERVER)
    is_equal(c.wait(), 0)


@test('delayed, both roles: none before TLS starts, none in the reply, none after it')
def _():
    show = 'env -0 >&%d; exec tls-ctl-start %s sh -c \'env -0 >&%d\''
    client, server = tcp_pair()
    c = Chain(delayed(['sh', '-c', show % (2, '', 1)]), server, env=server_env(**OUTER))
    is_clean(of_session(Peer(client).handshake().end_politely()[0]), PLAIN_SERVER)
    is_equal(c.wait(), 0)
    is_clean(of_session(c.stderr().encode()), set())

    client, server = tcp_pair()
    c = start_client(delayed(['sh', '-c', show % (2, '-c', 7)],
                             ['tls-await', '-c', 'tls-handshake', '-c', '-n', 'tls-io']),
                     client, ca_env(**OUTER))
    is_clean(of_session(serve_client(server).end_politely()[0]), PLAIN | PEER_CERT)
    is_equal(c.wait(), 0)
    is_clean(of_session(c.stderr().encode()), set())


def nested(outer, inner):
    """A server's session on 0 and 1 and a client's on 6 and 7, one within the other; the client of
    the one, the server of the other, and the chain."""
    client, s = tcp_pair()
    c, server = tcp_pair()
    chain = start_client(['tls-handshake', *outer, 'tls-io', '-Z', 'tls-handshake', *inner,
                          'tls-io', 'sh', '-c', 'env -0 >&%d' % (7 if '-c' in inner else 1)], c,
                         server_env(CAFILE=pki() + '/ca.pem', TLS_ALPN='smtp'),
                         fds={0: s.fileno(), 1: s.fileno()})
    s.close()
    return client, server, chain


@test('a client\'s session within a server\'s has its own facts, and those only')
def _():
    not_resident('has one role, this chain has both')
    client, server, c = nested(['-y'], ['-c', '-n'])
    outer = Peer(client, name='example.org', cert='client', alpn=['smtp']).handshake()
    f = of_session(serve_client(server).end_politely()[0])
    is_clean(f, PLAIN | PEER_CERT)
    is_equal(f['SSL_PEER_CERT_HASH'], cert_hash('server'))
    outer.end_politely()
    is_equal(c.wait(), 0)


@test('a server\'s session within a client\'s has its own facts, and those only')
def _():
    not_resident('has one role, this chain has both')
    client, server, c = nested(['-c', *HERE], [])
    outer = serve_client(server, alpn=['smtp'])
    is_clean(of_session(Peer(client).handshake().end_politely()[0]), PLAIN_SERVER)
    outer.end_politely()
    is_equal(c.wait(), 0)


# Plaintext after a failure: whoever holds a copy of the network cannot use it any more.

def hang_up(server):
    try:
        server.shutdown(socket.SHUT_WR)
    except OSError:  # the other side was faster
        pass


def turn_away(cert):
    """A server with that certificate, which the client does not take."""
    def serve_it(server, c):
        try:
            serve_client(server, cert=cert).recv_all()
        except ssl.SSLError:
            pass
        hang_up(server)
    return serve_it


def say(text, wait=True):
    """A server that says this, once it has got the ClientHello or before it has, and then ends."""
    def say_it(server, c):
        if wait:
            server.recv(65536)
        server.sendall(text)
        hang_up(server)
    return say_it


def wait_for_end(server, c):
    is_equal(read_to_end(server), b'', 'what the server gets')
    hang_up(server)


def kill_client(server, c):
    server.recv(1, socket.MSG_PEEK)  # the ClientHello
    c.kill()
    wait_for(lambda: not engines(), 'the end of the engine')


def kill_engine(server, c):
    server.recv(1, socket.MSG_PEEK)
    os.kill(wait_engine()[0], signal.SIGKILL)


def nothing(server, c):
    pass


def take(server, c):
    serve_client(server)
    hang_up(server)


FAILURES = {
    'a certificate that is not trusted': (HERE, turn_away('client'), 97),
    'a wrong name': (['-k', 'wrong.example'], turn_away('server'), 97),
    'a staple that is missing': ([*HERE, '-O'], turn_away('server'), 97),
    'an injected response': (HERE, say(b'250 injected\r\n', wait=False), 97),
    'an answer in plaintext': (HERE, say(b'500 what?\r\n'), 97),
    'an alert': (HERE, say(ALERT), 97),
    'a server that hangs up': (HERE, say(b''), 97),
    'a reset': (HERE, lambda server, c: Peer(server, client=False).reset(), 97),
    'the limit of time': (['-K', '100', *HERE], nothing, 97),
    'a bad setting': ([*HERE, '-y'], wait_for_end, 96),
    'a name that is none': (['-k', 'no name'], wait_for_end, 96),
    'no name on the command line': ([], wait_for_end, 100),
    'a descriptor that is not open': ([*HERE, '-C', '77'], wait_for_end, 100),
    'the death of tls-handshake': (HERE, kill_client, -signal.SIGKILL),
    'the death of the engine': (HERE, kill_engine, 98),
    'a file for the certificates that is full': ([*HERE, '-C', '9'], take, 97),
    'a policy that says no': ([*HERE, 'false'], take, 1),
    'a next program that is not there': ([*HERE, '/nonesuch'], take, 127),
}


def cannot_go_on(network):
    """This copy of the network is shut, both ways."""
    try:
        network.send(b'plaintext')
        raise AssertionError('plaintext could be written')
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        while network.recv(65536, socket.MSG_DONTWAIT):
            pass
    except ConnectionResetError:
        pass


def everything(sock):
    """All that still comes; it may be a reset, or closed already."""
    try:
        return read_to_end(sock) if sock.fileno() >= 0 else b''
    except ConnectionResetError:
        return b''


def failure(options, happens, code):
    def check():
        client, server = tcp_pair()
        server.settimeout(30 * SLOW)
        with client.dup() as copy, open('/dev/full', 'w') as full:
            c = start_client(['tls-handshake', '-c', *options, 'tls-io', 'echo', 'ran'], client,
                             fds={9: full.fileno()})
            happens(server, c)
            is_equal(c.wait(), code, 'exit code (stderr: %r)' % c.stderr())
            wait_for(lambda: not engines(), 'the end of the engine')
            cannot_go_on(copy)
        is_true(b'plaintext' not in everything(server), 'what the server gets')
        is_true('ran' not in c.stderr().split('\n'), 'the program is not run')
    return check


for name, failed in FAILURES.items():
    test('no plaintext on any copy of the network after ' + name)(failure(*failed))


# A client that asks for TLS and, without it, tries to go on.
STUBBORN = PYTHON + ['''
import os
ctl = int(os.environ["SSLCTLFD"])
os.write(7, b"STARTTLS\\n")
while os.read(6, 1) != b"\\n":
    pass
os.write(ctl, b"Y")
if os.read(ctl, 4096):
    os._exit(0)
try:
    os.write(7, b"plaintext")
except OSError:
    os._exit(10)
os._exit(20)
''']


@test('nor can a client that asked for TLS and did not get it')
def _():
    for name in ('a certificate that is not trusted', 'a wrong name', 'a server that hangs up',
                 'a bad setting', 'no name on the command line'):
        options, happens, code = FAILURES[name]
        client, server = tcp_pair()
        server.settimeout(30 * SLOW)
        c = start_client(delayed(STUBBORN,
                                 ['tls-await', '-c', 'tls-handshake', '-c', *options, 'tls-io']),
                         client)
        is_equal(read_line(server), b'STARTTLS\n')
        server.sendall(b'go ahead\n')
        happens(server, c)
        is_equal(c.wait(), 10, 'exit code after ' + name)
        is_true(b'plaintext' not in everything(server), 'what the server gets')


run()
