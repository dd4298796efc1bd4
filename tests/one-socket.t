#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-io -u: one socket for both directions, where a program wants to read and write on one number.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed
from clients import serve_client, start_client
from peer import Peer
from pki import ca_env, server_env
from processes import wait_dead, wait_engine
from sockets import tcp_pair
from tap import SLOW, is_equal, run, test, wait_for

NEEDED = 'import os, socket, stat, sys\ns = socket.socket(fileno=%d)\n'
BIG = 4 << 20


def program(text, fd=0):
    return [*PYTHON, NEEDED % fd + text]


def server(text, *options):
    client, net = tcp_pair()
    client.settimeout(30 * SLOW)
    c = Chain(['tls-handshake', 'tls-io', '-u', *options, *program(text)], net, env=server_env())
    return Peer(client).handshake(), c


@test('0 and 1 are one stream socket, which blocks; a dialogue on 0 alone')
def _():
    peer, c = server('''
st = [os.fstat(fd) for fd in (0, 1)]
assert st[0].st_ino == st[1].st_ino and stat.S_ISSOCK(st[0].st_mode)
assert s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM and os.get_blocking(0)
os.close(1)
while line := s.recv(100):
    s.sendall(b'you said ' + line)
''')
    for word in b'one', b'two':
        peer.send(word)
        answer = b'you said ' + word
        is_equal(peer.recv(len(answer)), answer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('in a client 6 and 7 are that')
def _():
    client, sock = tcp_pair()
    sock.settimeout(30 * SLOW)
    c = start_client(['tls-handshake', '-c', '-k', 'localhost', 'tls-io', '-uw', *program('''
assert os.fstat(6).st_ino == os.fstat(7).st_ino
s.sendall(s.recv(100))
''', 6)], client, ca_env())
    peer = serve_client(sock)
    peer.send(b'hello')
    is_equal(peer.end_politely(), (b'hello', 'close_notify'))
    is_equal((c.wait(), c.stderr()), (0, ''))


@test('the client ends its direction: the program hears it, and can still write')
def _():
    peer, c = server('''
data = b''
while got := s.recv(100):
    data += got
s.sendall(b'all of ' + data)
''')
    peer.send(b'the words')
    is_equal(peer.end_politely(), (b'all of the words', 'close_notify'))
    is_equal(c.wait(), 0)


@test('the program ends its direction: the client is told, and can still write')
def _():
    peer, c = server('''
s.sendall(b'bye')
s.shutdown(socket.SHUT_WR)
data = b''
while got := s.recv(100):
    data += got
sys.exit(data != b'more')
''')
    is_equal(peer.recv_all(), (b'bye', 'close_notify'))
    peer.send(b'more')
    peer.close_notify()
    is_equal(c.wait(), 0)
    peer.sock.close()


@test('what a program wrote before it exits is delivered, with input unread')
def _():
    peer, c = server('s.sendall(bytes(%d))' % BIG)
    peer.send(b'nobody reads this')
    data, end = peer.recv_all()
    is_equal((len(data), end), (BIG, 'close_notify'))
    is_equal(c.wait(), 0)
    peer.sock.close()


@test('4 MB each way')
def _():
    peer, c = server('''
while got := s.recv(65536):
    s.sendall(got)
''')
    for _ in range(BIG // 16384):
        peer.send(bytes(16384))
        is_equal(len(peer.recv(16384)), 16384)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('the client is gone: the program that writes is told, and the engine ends')
def _():
    peer, c = server('''
try:
    while True:
        s.sendall(bytes(65536))
except BrokenPipeError:
    sys.exit(3)
''')
    engine = wait_engine()
    peer.recv(100)
    peer.reset()
    is_equal(c.wait(), 3)
    wait_dead(*engine)


@test('below tls-ctl-open there are pipes already')
def _():
    c = Chain(delayed(['true'], ['tls-io', '-u']))
    c.wait()
    wait_for(lambda: 'tls-io: fatal: -u: the pipes are those of tls-ctl-open' in c.stderr(),
             'the line of tls-io')


run()
