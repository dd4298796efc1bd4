#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-peek: what a client says first, with not a byte of it taken.

import os
import socket
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed, dies, dies_of_usage, dies_without_program
from hello import alpn, client_hello_of, extension, records, sni, versions
from peer import TLS12, TLS13, Peer
from pki import server_env
from proc import cpu_ticks
from processes import is_idle, wait_asleep
from scratch import close_later
from sessions import ends_well, is_echoed
from sockets import drip, read_to_end, tcp_pair, unix_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for

SAID = 'tls-peek: fatal: '
NAMES = 'TLS_HELLO_PROTOCOL', 'TLS_HELLO_SERVERNAME', 'TLS_HELLO_ALPN'
TELL = PYTHON + ['''
import os, socket
s = socket.socket(fileno=0)
found = [os.environ.get("TLS_HELLO_" + n) for n in ("PROTOCOL", "SERVERNAME", "ALPN")]
lowat = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
s.setblocking(False)
there = s.recv(1 << 20, socket.MSG_PEEK)
os.write(2, repr((*found, lowat, there)).encode())
''']  # what prog finds, and what is still in the network


def peeked(data, options=(), pair=tcp_pair, send=None, env=None):
    """What prog finds after a client has sent that: protocol, name, ALPN. All of it is still there,
    and a poll tells of each byte again."""
    client, server = pair()
    sender = None
    if send:
        sender = threading.Thread(target=send, args=(client, data))
        sender.start()
    else:
        client.sendall(data)
    c = Chain(['tls-peek', *options, *TELL], server, env=env)
    is_equal(c.wait(), 0, 'exit code (stderr: %r)' % c.stderr())
    *found, lowat, there = eval(c.stderr())
    if sender:
        sender.join()
    is_equal((lowat, there), (1, data), 'SO_RCVLOWAT, what is still there')
    client.close()
    return tuple(found)


def refused(data, line, options=(), end=True, code=97):
    client, server = tcp_pair()
    client.sendall(data)
    if end:
        client.shutdown(socket.SHUT_WR)
    c = Chain(['tls-peek', *options, 'echo', 'ran'], server, keep=True)
    is_equal(read_to_end(client), b'', 'what the client gets')
    dies(c, code, SAID + line)
    client.close()
    server.close()


def hello(*extensions, **more):
    return records(client_hello_of(*extensions, **more))


# What it tells

@test('protocol, name and application protocols of a ClientHello')
def _():
    is_equal(peeked(hello(sni(b'a.example.org'), alpn(b'h2', b'http/1.1'), versions(0x304, 0x303))),
             ('TLSv1.3', 'a.example.org', 'h2,http/1.1'))
    is_equal(peeked(hello()), ('TLSv1.2', None, None))
    is_equal(peeked(hello(none=True)), ('TLSv1.2', None, None))


@test('the highest version that is known, whatever the record and the old field say')
def _():
    for legacy, offered, wanted in (
            (0x303, (0x304,), 'TLSv1.3'), (0x303, (0x0a0a, 0x303, 0x304), 'TLSv1.3'),
            (0x303, (0x303, 0x302), 'TLSv1.2'), (0x303, (0x7f1c,), 'TLSv1.2'),
            (0x304, (), 'TLSv1.2'), (0x302, (), 'TLSv1.1'), (0x301, (), 'TLSv1'),
            (0x300, (), 'SSLv3')):
        extensions = [versions(*offered)] if offered else []
        is_equal(peeked(hello(*extensions, legacy=legacy))[0], wanted, (legacy, offered))


@test('a name is in lower case, without a final dot; what is none is not told')
def _():
    for name, wanted in ((b'Mail.Example.ORG.', 'mail.example.org'),
                         (b'a_b.example', 'a_b.example'), (b'192.0.2.1', None),
                         (b'2001:db8::1', None), (b'..', None),
                         (b'../../etc', None), (b'.a', None), (b'-a', None), (b'a b', None),
                         (b'a\0b', None), (b'a\nb', None), (b'\xff', None),
                         (b'a' * 253, 'a' * 253), (b'a' * 253 + b'.', 'a' * 253),
                         (b'a' * 254, None), (b'a' * 300, None)):
        is_equal(peeked(hello(sni(name))), ('TLSv1.2', wanted, None), name)


@test('names of application protocols that a list cannot hold are left out')
def _():
    is_equal(peeked(hello(alpn(b'a,b', b'h2', b'\x0a\x0a', b'x y', b'z')))[2], 'h2,z')
    is_equal(peeked(hello(alpn(b'\x0a\x0a')))[2], None)


@test('old values of its variables are gone')
def _():
    is_equal(peeked(hello(), env=dict.fromkeys(NAMES, 'old')), ('TLSv1.2', None, None))
    is_equal(peeked(b'EHLO x\r\n', ['-a'], env=dict.fromkeys(NAMES, 'old')), (None, None, None))


@test('clients of openssl: by name, without one, TLS 1.2 and 1.3')
def _():
    for options, wanted in (
            (['-servername', 'a.example', '-alpn', 'acme-tls/1'],
             ('TLSv1.3', 'a.example', 'acme-tls/1')),
            (['-noservername', '-tls1_2'], ('TLSv1.2', None, None)),
            (['-noservername', '-alpn', 'h2,http/1.1'], ('TLSv1.3', None, 'h2,http/1.1'))):
        listener = socket.create_server(('127.0.0.1', 0))
        close_later(listener)
        p = subprocess.Popen(['openssl', 's_client', '-connect',
                              '127.0.0.1:%d' % listener.getsockname()[1], *options],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        server, _ = listener.accept()
        c = Chain(['tls-peek', *TELL], server)
        is_equal(c.wait(), 0, 'exit code (stderr: %r)' % c.stderr())
        is_equal(eval(c.stderr())[:3], wanted, options)
        p.kill()
        p.wait()


# How it comes

FULL = client_hello_of(sni(b'a.example'), alpn(b'h2'), versions(0x304), extension(21, bytes(600)))
WANTED = 'TLSv1.3', 'a.example', 'h2'


@test('in records of any size, in pieces of any size, on TCP and on a Unix socket')
def _():
    for pair in tcp_pair, unix_pair:
        for size in 1, 2, 5, 100, 16384:
            is_equal(peeked(records(FULL, size), pair=pair), WANTED, size)
        is_equal(peeked(records(FULL), pair=pair, send=in_pieces), WANTED, 'pieces')


def in_pieces(sock, data):
    """Byte by byte, where it matters, then in larger pieces; all seen as they come."""
    for i in range(0, 12):
        sock.sendall(data[i:i + 1])
        threading.Event().wait(0.01)
    for i in range(12, len(data), 100):
        sock.sendall(data[i:i + 100])
        threading.Event().wait(0.01)


@test('whatever comes after the hello is left alone as well')
def _():
    is_equal(peeked(records(FULL) + b'more' * 1000), WANTED)


@test('half a hello, and a client that says no more: it sleeps, without a stir')
def _():
    for pair in tcp_pair, unix_pair:
        client, server = pair()
        client.sendall(records(FULL)[:100])
        c = Chain(['tls-peek', *TELL], server)
        wait_asleep(c.pid)
        is_idle(c.pid)
        before = cpu_ticks(c.pid)
        is_idle(c.pid)
        is_true(cpu_ticks(c.pid) - before <= 2 * SLOW, 'CPU time')
        client.sendall(records(FULL)[100:])
        is_equal((c.wait(), eval(c.stderr())[:3]), (0, WANTED))


# What it refuses

@test('what is no TLS: 97, and the network is shut')
def _():
    line = 'the peer does not speak TLS'
    for data in b'GET / HTTP/1.0\r\n\r\n', b'E', b'\x80\x2e\x01\x03\x01', b'\x16\x02\x00', b'\0':
        refused(data, line, end=False)
    refused(b'\x15\x03\x01\x00\x02\x02\x28', line)


@test('a ClientHello that is none: 97')
def _():
    whole = client_hello_of(sni(b'a.example'), versions(0x304))
    for message in (
            b'\x02' + whole[1:],                                       # another message
            client_hello_of(sni(b'a'), sni(b'b')),                     # an extension twice
            client_hello_of(sni(b'')), client_hello_of(extension(0, b'')),
            client_hello_of(sni(b'a', kind=1)), client_hello_of(extension(0, b'\0\1\0')),
            client_hello_of(alpn()), client_hello_of(alpn(b'')), client_hello_of(alpn(b'a', b'')),
            client_hello_of(extension(43, b'\0')), client_hello_of(extension(43, b'\1\3')),
            client_hello_of(extension(43, b'\2\3\4x')),
            client_hello_of(session=bytes(33)), client_hello_of(ciphers=b''),
            client_hello_of(ciphers=b'x'), client_hello_of(compressions=b''),
            client_hello_of(legacy=0x2ff), client_hello_of(more=b'x'),
            client_hello_of(none=True, more=b'x'),
            client_hello_of(none=True, more=b'\0\3\0\0\0'),
            client_hello_of(none=True, more=b'\0\5\0\0\0\2x'),
            b'\1\0\x40\x01' + bytes(100), b'\1\0\0\0'):
        refused(records(message), 'malformed ClientHello', end=False)
    refused(b'\x16\x03\x01\0\0' + records(whole), 'malformed ClientHello', end=False)
    refused(records(whole)[:30] + b'', 'the peer ended the connection before its ClientHello')
    refused(records(whole, 20)[:25] + b'\x17\x03\x03\0\1x', 'malformed ClientHello', end=False)


@test('one that is longer than 16 KiB: 97, before all of it has come')
def _():
    refused(records(client_hello_of(extension(21, bytes(17000)))), 'malformed ClientHello')
    refused(records(client_hello_of(extension(21, bytes(4000))), 1)[:16384],
            'malformed ClientHello', end=False)
    is_equal(peeked(hello(extension(21, bytes(16000)), sni(b'a'))), ('TLSv1.2', 'a', None))


@test('the time that -t gives, and an end: 97')
def _():
    refused(b'', 'timed out: no ClientHello', ['-t', '100'], end=False)
    refused(records(FULL)[:100], 'timed out: no ClientHello', ['-t', '100'], end=False)
    refused(b'', 'the peer ended the connection before its ClientHello')
    refused(records(FULL)[:3], 'the peer ended the connection before its ClientHello')
    client, server = unix_pair()
    client.sendall(records(FULL)[:100])
    c = Chain(['tls-peek', '-t', '100', 'echo', 'ran'], server)
    dies(c, 97, SAID + 'timed out: no ClientHello')


# -a

@test('-a: without TLS prog is run as it is, at the first byte, after an end, or when -t is over')
def _():
    none = None, None, None
    is_equal(peeked(b'EHLO x\r\n', ['-a']), none)
    is_equal(peeked(b'\n', ['-a']), none)
    is_equal(peeked(records(FULL), ['-a']), WANTED)
    for end, options in (True, ['-a']), (False, ['-a', '-t', '100']):
        client, server = tcp_pair()
        if end:
            client.shutdown(socket.SHUT_WR)
        c = Chain(['tls-peek', *options, 'echo', 'hello'], server)
        is_equal(client.recv(100), b'hello\n')
        is_equal((c.wait(), c.stderr()), (0, ''))
        client.close()


@test('-a: a hello that is broken, or half of one, is not taken for plaintext')
def _():
    refused(records(b'\x02' + FULL[1:]), 'malformed ClientHello', ['-a'], end=False)
    refused(records(FULL)[:9], 'the peer ended the connection before its ClientHello', ['-a'])
    refused(records(FULL)[:9], 'timed out: no ClientHello', ['-a', '-t', '100'], end=False)


# In a chain

@test('tls-handshake after it finds all of the hello; the application does not get its variables')
def _():
    for version in TLS12, TLS13:
        client, server = tcp_pair()
        c = Chain(['tls-peek', 'sh', '-c', 'echo $TLS_HELLO_SERVERNAME >&2; exec "$@"', 'sh',
                   'tls-handshake', 'tls-io', 'sh', '-c', 'env | grep HELLO >&2; cat'], server,
                  env=server_env())
        peer = Peer(client, name='b.example.org', min=version, max=version).handshake()
        is_echoed(peer)
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal((c.wait(), c.stderr()), (0, 'b.example.org\n'))


@test('in delayed TLS it goes after tls-await')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(PYTHON + ['''
import os
ctl, r, w = (int(os.environ[v]) for v in ("SSLCTLFD", "SSLREADFD", "SSLWRITEFD"))
os.write(ctl, b"Y")
while os.read(ctl, 4096):
    pass
while data := os.read(r, 4096):
    os.write(w, data)
'''], ('tls-await', 'tls-peek', 'tls-handshake', 'tls-io')), server, env=server_env())
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)


@test('what is no network, or has a session, is told of')
def _():
    for options in ['-x', 'true'], ['-t', 'x', 'true'], ['-6', '-1', 'true']:
        dies_of_usage(Chain(['tls-peek', *options]))
    for options in [], ['-t', '1']:
        dies_without_program(Chain(['tls-peek', *options]))
    line = 'the network is not a socket: what it brings cannot be looked at'
    dies(Chain(['tls-peek', 'true']), 100, SAID + line)
    r, w = os.pipe()
    with os.fdopen(r), os.fdopen(w, 'w'):
        dies(Chain(['tls-peek', '-6', str(r), 'true'], pass_fds=[r]), 100, SAID + line)
    client, server = tcp_pair()
    dies(Chain(['tls-peek', 'true'], server, env={'TLS_SESSIONFD': '5'}), 100,
         SAID + 'TLS_SESSIONFD is set: tls-peek goes before tls-handshake')
    is_equal(client.recv(1), b'')
    client, server = tcp_pair()
    client.sendall(hello())
    dies(Chain(['tls-peek', '/nowhere'], server), 127,
         SAID + 'unable to exec /nowhere: No such file or directory')


run()
