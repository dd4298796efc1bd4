#!/usr/bin/env python3
# ISC licence: see COPYING.
# What was once broken on purpose, and no test noticed: resets, ends, alerts, facts, records.

import ctypes
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, descriptors, reason
from clients import CLIENT_ECHO, HERE, connect_client, start_client
from forger import ALERT, CLOSE_NOTIFY, HANDSHAKE, HELLO_REQUEST, KEY_UPDATE_REQUESTED, TEXT, Forger
from peer import TLS12, TLS13, VERSIONS, Peer, client_hello
from pki import pki_path, server_env
from proc import is_alive, state_of
from processes import engines, is_idle, wait_engine
from relay import Background, Session, is_same, join_app, sample_data, sha256
from scratch import close_later
from sessions import is_echoed, server_facts
from sockets import read_to_end, tcp_pair
from tap import is_equal, is_true, run, test, wait_for
from wire import OwnEngine

TLS11 = ssl.TLSVersion.TLSv1_1
RESET = 'Connection reset by peer'


# Resets

for version_name, version in VERSIONS:
    @test('%s: after a reset the first write of the application breaks' % version_name)
    def _(version=version):
        s = Session(version)
        s.peer.send(b'hello')
        is_equal(s.read(5), b'hello')
        s.peer.reset()
        is_equal(s.input.read(1), b'', 'end of file')
        try:
            s.output.write(b'x')
            raise AssertionError('it can be written')
        except BrokenPipeError:
            pass
        s.wait_gone()


class TwoWays:
    """A network of two connections, as a socket for a Peer: out is the one that it sends on."""

    def __init__(self):
        self.out, r = tcp_pair()
        self.back, w = tcp_pair()
        self.fds = {8: r.fileno(), 9: w.fileno()}
        self.ours = r, w

    def sendall(self, data):
        self.out.sendall(data)

    def recv(self, n):
        return self.back.recv(n)

    def shutdown(self, how):
        self.out.shutdown(how)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    sock.close()


def two_ways(program, version):
    """A client, and a chain whose network is two connections, with a program on 8 and 9."""
    net = TwoWays()
    c = Chain(['tls-handshake', '-6', '8', '-7', '9', 'tls-io', '-w', 'sh', '-c', program],
              env=server_env(), client=True, preexec=descriptors(net.fds))
    for sock in net.ours:
        sock.close()
    return Peer(net, min=version, max=version).handshake(), c


for version_name, version in VERSIONS:
    @test('%s: -6 and -7: a reset of the one does not discard what the other takes' % version_name)
    def _(version=version):
        peer, c = two_ways('echo ready >&9; cat <&8 >&2; head -c 300000 /dev/zero >&9', version)
        is_equal(peer.recv(6), b'ready\n')
        peer.send(b'hello\n')
        wait_for(lambda: c.stderr() == 'hello\n', 'the program to have it')
        reset(peer.sock.out)
        got, end = peer.recv_all()
        is_same(got, bytes(300000), 'what the client gets')
        is_equal(end, 'close_notify')
        is_equal(c.wait(), 98)
        is_true(re.fullmatch('hello\ntls-io: warning: session .*: %s\n' % RESET, c.stderr()),
                c.stderr())

    @test('%s: -6 and -7: a reset of the one does not discard what comes on the other'
          % version_name)
    def _(version=version):
        peer, c = two_ways('echo ready >&9; exec 9>&-; cat <&8 | sha256sum >&2', version)
        is_equal(peer.recv(6), b'ready\n')
        peer.recv_all()
        reset(peer.sock.back)
        peer.end = None
        peer.send(sample_data(300000))
        peer.close_notify()
        peer.shutdown()
        c.wait()
        is_true(c.stderr().startswith(sha256(sample_data(300000))), c.stderr())


@test('a client that has ended, and has not yet taken what is on its way to it, costs nothing')
def _():
    for end in 'close_notify', 'FIN':
        s = Session(sndbuf=400000, rcvbuf=4096)
        if end == 'close_notify':
            s.peer.close_notify()
        s.peer.shutdown()
        is_equal(s.input.read(1), b'', 'end of file')
        s.output.write(bytes(60000))
        s.output.close()
        s.input.close()
        is_idle(s.engine)
        is_true(not s.is_gone(), 'it waits')
        is_equal(s.peer.recv_all(), (bytes(60000), 'close_notify'))
        s.wait_gone()


# Our own end

def without_ends(sock, version):
    """A client whose system drops every segment with a FIN, so that none is acknowledged."""
    program = ctypes.create_string_buffer(b''.join(
        struct.pack('=HBBI', *step) for step in (
            (0x30, 0, 0, 13),       # the flags of TCP
            (0x45, 0, 1, 1),        # FIN
            (0x06, 0, 0, 0),        # none of it
            (0x06, 0, 0, 0xffff))))  # all of it
    SO_ATTACH_FILTER = 26
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                    struct.pack('HP', 4, ctypes.addressof(program)))
    return Peer(sock, min=version, max=version)


@test('-s: our own end, if it is not acknowledged, is no byte that the client has not taken')
def _():
    for version in TLS12, TLS13:
        peer, c = join_app(['echo', 'hello'], version, client=without_ends, io=['-w', '-s'])
        is_equal(peer.recv(6), b'hello\n')
        is_equal((c.wait(60), c.stderr()), (0, ''))
        peer.reset()


# Alerts

REFUSED = {
    'of TLS 1.1': (dict(min=TLS11, max=TLS11, ciphers='ALL:@SECLEVEL=0'), b'\x02\x46'),
    'without a common cipher': (dict(max=TLS12, ciphers='AES128-SHA'), b'\x02\x28'),
}

for what, (settings, alert) in REFUSED.items():
    @test('a client %s that goes on sending gets its alert, and then an end: no reset' % what)
    def _(settings=settings, alert=alert):
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'tls-io', 'echo', 'served'], server, env=server_env())
        engine = wait_engine()[0]
        # more than the engine has read when it refuses
        sender = Background(client.sendall, client_hello(**settings) + bytes(2 << 20))
        got = read_to_end(client)
        is_equal((got[:1], got[5:]), (b'\x15', alert), 'the alert')
        sender.finish()
        wait_for(lambda: c.poll() or is_alive(engine) and state_of(engine) == 'S',
                 'the engine to wait for us, or to have left')
        client.sendall(b'more')  # a reset would have come by now
        client.close()
        reason(c)


# Facts

@test('a fact with a control character is not handed on, by the engine; the session goes on')
def _():
    for protocol in 'a\x01b', '\n', 'a\x7f', '\x1b[2J':
        for version in TLS12, TLS13:
            e = OwnEngine(server_env(TLS_ALPN=protocol))
            peer = Peer(e.client, alpn=[protocol], min=version, max=version).handshake()
            is_equal(peer.tls.selected_alpn_protocol(), protocol)
            facts = e.facts()
            is_equal(facts[0], b'TLSv1.2' if version == TLS12 else b'TLSv1.3', 'the protocol')
            is_true(3 not in facts, 'SSL_ALPN: %r' % facts)
            app = e.join()
            peer.send(b'hello')
            is_equal(app.recv(5), b'hello')
            app.close()
            peer.end_politely()
            is_equal((e.process.wait(), e.lines()), (0, []))


@test('nor by the chain, which serves; one without such a character is')
def _():
    f, peer = server_facts(server_env(TLS_ALPN='a\x01b', SSL_ALPN='of old'), alpn=['a\x01b'])
    is_equal(f.get('SSL_ALPN'), None)
    f, peer = server_facts(server_env(TLS_ALPN='a b'), alpn=['a b'])
    is_equal(f['SSL_ALPN'], 'a b')


# A renegotiation

ASKED = 'session failed: decrypt: the peer asked for a renegotiation'


def forged_server(prog=('tls-io', '-w', *CLIENT_ECHO)):
    server, c = connect_client(HERE, prog)
    peer = Forger(server, TLS12, client=False).handshake()
    return peer, c


ENDS = {
    'nothing': [],
    'close_notify': [(ALERT, CLOSE_NOTIFY)],
    'more': [(TEXT, b'after')],
    'another one': [(HANDSHAKE, HELLO_REQUEST)],
}

for what, then in ENDS.items():
    for fin in False, True:
        @test('a client that a server of TLS 1.2 asks for a renegotiation, then %s%s: 98, one line'
              % (what, ', and FIN' if fin else ''))
        def _(then=then, fin=fin):
            peer, c = forged_server()
            peer.forge((TEXT, b'before'))
            is_equal(peer.recv(6), b'before')
            peer.forge((HANDSHAKE, HELLO_REQUEST), *then)
            if fin:
                peer.shutdown()
            is_equal(c.wait(), 98)
            is_equal(c.stderr(), 'tls-io: warning: %s\n' % ASKED)
            peer.sock.close()
            wait_for(lambda: not engines(), 'the end of the engine')


@test('what comes before the request, in the same segment, is the program\'s; what follows is not')
def _():
    peer, c = forged_server(['tls-io', '-w', 'sh', '-c', 'cat <&6 >&2'])
    peer.forge((TEXT, b'before\n'), (HANDSHAKE, HELLO_REQUEST), (TEXT, b'after\n'))
    is_equal(c.wait(), 98)
    is_equal(sorted(c.stderr().splitlines()), ['before', 'tls-io: warning: ' + ASKED])


@test('openssl s_server asks for a renegotiation: 98, one line')
def _():
    p = subprocess.Popen(['openssl', 's_server', '-accept', '127.0.0.1:0', '-naccept', '1',
                          '-tls1_2', '-cert', pki_path('server.pem'), '-key',
                          pki_path('server.key')],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         bufsize=0)
    p.close = p.kill
    close_later(p, p.stdin, p.stdout)

    def expect(text):
        said = b''
        while text not in said:
            more = p.stdout.read(4096)
            is_true(more, '%r expected: %r' % (text, said))
            said += more
        return said
    port = int(expect(b'ACCEPT 127.0.0.1:').split(b':')[1].split()[0])
    c = start_client(['tls-handshake', '-c', *HERE, 'tls-io', '-w', *CLIENT_ECHO],
                     socket.create_connection(('127.0.0.1', port)))
    p.stdin.write(b'hello\n')
    expect(b'hello')
    p.stdin.write(b'r\n')
    is_equal(c.wait(), 98)
    is_equal(c.stderr(), 'tls-io: warning: %s\n' % ASKED)


@test('TLS 1.3: a record of the handshake in the clear is bad, and no renegotiation')
def _():
    peer, c = join_app(['cat'], io=['-w'])
    peer.sock.sendall(b'\x16\3\3\0\4' + HELLO_REQUEST)
    is_equal(c.wait(), 98)
    told = c.stderr()
    is_true(told.startswith('tls-io: warning: session failed: decrypt: '), told)
    is_true('renegotiation' not in told, told)


@test('a KeyUpdate of a server of TLS 1.3 is no renegotiation')
def _():
    server, c = connect_client(HERE)
    peer = Forger(server, TLS13, client=False).handshake()
    for _ in range(3):
        peer.forge((HANDSHAKE, KEY_UPDATE_REQUESTED))
        peer.update_key()
        peer.forge((TEXT, b'hello'))
        is_equal(peer.recv(5), b'hello')
    peer.forge((ALERT, CLOSE_NOTIFY))
    is_equal(peer.recv_all(), (b'', 'close_notify'))
    is_equal((c.wait(), c.stderr()), (0, ''))


run()
