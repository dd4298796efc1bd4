#!/usr/bin/env python3
# ISC licence: see COPYING.
# The groups of the key agreement: a hybrid with ML-KEM first where libtls knows it. Seen in the
# clear, in what passes between client and server.

import functools
import os
import socket
import subprocess
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, libressl_version
from clients import HERE, OpensslServer, start_client
from peer import TLS13, Peer, plain_context
from pki import ca_env, pki_path, server_env
from relay import Background
from sessions import server_refusal
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test

P256, P384, P521, X25519, X25519MLKEM768 = 0x17, 0x18, 0x19, 0x1d, 0x11ec
SUPPORTED_GROUPS, KEY_SHARE = 10, 51
CLIENT_HELLO, SERVER_HELLO = 1, 2
RETRY = bytes.fromhex('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c')
CLASSIC = [X25519, P256, P384]
HYBRID = 'X25519MLKEM768'


def int_of(raw):
    return int.from_bytes(raw, 'big')


def hellos(raw, kind):
    """The hellos in the clear at the beginning of one direction, each as its random bytes and its
    extensions."""
    stream, found = b'', []
    while raw[:1] in (b'\x16', b'\x14'):  # handshake; change_cipher_spec, which parts two hellos
        n = 5 + int_of(raw[3:5])
        stream += raw[5:n] if raw[0] == 0x16 else b''
        raw = raw[n:]
    while stream[:1] == bytes([kind]):
        n = 4 + int_of(stream[1:4])
        found.append((stream[6:38], extensions(stream[38:n], kind)))
        stream = stream[n:]
    return found


def extensions(body, kind):
    """From the session id of a hello on."""
    body = body[1 + body[0]:]
    if kind == CLIENT_HELLO:
        body = body[2 + int_of(body[:2]):]  # the cipher suites
        body = body[1 + body[0]:]           # the compression methods
    else:
        body = body[3:]
    body, found = body[2:], {}
    while body:
        n = 4 + int_of(body[2:4])
        found[int_of(body[:2])] = body[4:n]
        body = body[n:]
    return found


def groups_in(ext):
    """The groups that a ClientHello allows."""
    return [int_of(ext[i:i + 2]) for i in range(2, len(ext), 2)]


def shares_in(ext):
    """The groups of which a ClientHello has a share already."""
    ext, found = ext[2:], []
    while ext:
        found.append(int_of(ext[:2]))
        ext = ext[4 + int_of(ext[2:4]):]
    return found


class Between:
    """A client and a server that each got one end of a connection; all that passes is recorded."""

    def __init__(self, piece=65536):
        self.client, mine_c = tcp_pair()
        mine_s, self.server = tcp_pair()
        for end in self.client, self.server, mine_c, mine_s:
            end.settimeout(30 * SLOW)
        self._up, self._down = bytearray(), bytearray()
        self._jobs = [Background(self._pass_on, mine_c, mine_s, self._up, piece),
                      Background(self._pass_on, mine_s, mine_c, self._down, piece)]

    @staticmethod
    def _pass_on(source, target, record, piece):
        try:
            while more := source.recv(piece):
                record += more
                target.sendall(more)
            target.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # the end of a session that failed

    def end(self):
        for job in self._jobs:
            job.finish()

    def offered(self):
        """What the client offered first: its groups, and those it sent a share of."""
        found = hellos(bytes(self._up), CLIENT_HELLO)[0][1]
        return (groups_in(found[SUPPORTED_GROUPS]),
                shares_in(found[KEY_SHARE]) if KEY_SHARE in found else None)

    def agreed(self):
        """What the server chose, and whether it took a second ClientHello to get there."""
        found = hellos(bytes(self._down), SERVER_HELLO)
        return int_of(found[-1][1][KEY_SHARE][:2]), found[0][0] == RETRY


def serve(between, env={}):
    return Chain('tls-handshake tls-io echo served', between.server, env=server_env(**env))


def session(server={}, client={}, piece=65536):
    """A session of ours on both sides, with these variables more; what passed."""
    b = Between(piece)
    s = serve(b, server)
    app = 'read line <&6; test "$line" = served'
    c = start_client(['tls-handshake', '-c', *HERE, 'tls-io', '-w', 'sh', '-c', app], b.client,
                     ca_env(**client))
    is_equal((s.wait(), c.wait()), (0, 0), 'exit codes (%s%s)' % (s.stderr(), c.stderr()))
    b.end()
    return b


def with_peer(env={}, **settings):
    """The same with a Python client, which has one library, whatever ours is."""
    b = Between()
    s = serve(b, env)
    is_equal(Peer(b.client, **settings).handshake().end_politely(), (b'served\n', 'close_notify'))
    is_equal(s.wait(), 0, 'exit code (%s)' % s.stderr())
    b.client.close()
    b.end()
    return b


@functools.cache
def known():
    """Whether our libtls takes the name of the hybrid in a setting."""
    b = Between()
    s = serve(b, {'TLS_CURVES': HYBRID})
    b.client.shutdown(socket.SHUT_WR)
    code = s.wait()
    is_true(code in (0, 96, 97), s.stderr())
    is_true(code != 96 or 'unable to use TLS_CURVES ' + HYBRID in s.stderr(), s.stderr())
    return code != 96


def need_hybrid():
    if not known():
        raise Skip('libtls knows no %s' % HYBRID)


def need_openssl_hybrid():
    need_hybrid()
    said = subprocess.run(['openssl', 'list', '-kem-algorithms'], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout
    if HYBRID not in said:
        raise Skip('openssl knows no %s: OpenSSL 3.5 or newer does' % HYBRID)


def preferred():
    return [X25519MLKEM768, *CLASSIC] if known() else CLASSIC


# By default

@test('ours on both sides: the hybrid where libtls knows it, else X25519, without a retry')
def _():
    b = session()
    groups, shares = b.offered()
    is_equal(groups, preferred(), 'what the client offers')
    is_equal(shares[0], preferred()[0], 'of what it sends a share first')
    is_equal(b.agreed(), (preferred()[0], False))


@test('a LibreSSL whose library names the hybrid has it by default')
def _():
    version = libressl_version()
    if not version:
        raise Skip('this is LibreTLS')
    if version < (4, 3):
        raise Skip('LibreSSL %d.%d is older than 4.3' % version)
    is_equal(session().agreed(), (X25519MLKEM768, False))


@test('a hello that comes a byte at a time')
def _():
    is_equal(session(piece=1).agreed(), (preferred()[0], False))


@test('a client that knows no hybrid gets X25519, P-256 or P-384 from a server')
def _():
    for curve, group in ('prime256v1', P256), ('secp384r1', P384), ('X25519', X25519):
        context = plain_context(min=TLS13)
        try:
            context.set_ecdh_curve(curve)
        except ssl.SSLError:  # an OpenSSL that takes no such name there begins with it, and knows
            is_equal((curve, ssl.OPENSSL_VERSION_INFO < (3, 5)), ('X25519', True))  # no hybrid
        is_equal(with_peer(context=context).agreed(), (group, False), curve)


@test('a server that knows no hybrid gets X25519, P-256 or P-384 from a client')
def _():
    for group, name in (X25519, 'X25519'), (P256, 'P-256'), (P384, 'P-384'):
        is_equal(session(server={'TLS_CURVES': name}).agreed()[0], group, name)
    is_equal(session(server={'TLS_CURVES': 'X25519'}).agreed(), (X25519, False), 'no retry')


@test('TLS 1.2 has no hybrid, and goes on without')
def _():
    for server, client in ({}, {'TLS_PROTOCOLS': 'tlsv1.2'}), ({'TLS_PROTOCOLS': 'tlsv1.2'}, {}):
        b = session(server, client)
        groups, shares = b.offered()
        is_equal(groups, preferred() if not client else CLASSIC, 'groups offered')
        is_true(KEY_SHARE not in hellos(bytes(b._down), SERVER_HELLO)[-1][1], 'this is TLS 1.2')


# TLS_CURVES

@test('TLS_CURVES replaces the list of a client')
def _():
    for value, groups in (('P-384', [P384]), ('P-256,X25519', [P256, X25519]),
                          ('P-521:P-384', [P521, P384])):
        b = session({'TLS_CURVES': 'P-521,P-384,P-256,X25519'}, {'TLS_CURVES': value})
        is_equal(b.offered()[0], groups, value)
        is_equal(b.agreed()[0], groups[0], value)


@test('TLS_CURVES replaces the list of a server')
def _():
    is_equal(session({'TLS_CURVES': 'P-384'}).agreed()[0], P384)
    if known():
        is_equal(session({'TLS_CURVES': HYBRID}).agreed(), (X25519MLKEM768, False))
        b = session({'TLS_CURVES': 'X25519'}, {'TLS_CURVES': 'X25519MLKEM768,X25519'})
        is_equal(b.agreed(), (X25519, False))


@test('TLS_CURVES with the hybrid in it: refused by name where libtls does not know it')
def _():
    if known():
        raise Skip('libtls knows it')
    why = server_refusal(server_env(TLS_CURVES=HYBRID + ',X25519'))
    is_true(why.startswith('unable to use TLS_CURVES %s,X25519: ' % HYBRID), why)
    is_true(HYBRID in why.partition(': ')[2], why)


# OpenSSL 3.5 and newer

@test('openssl s_client agrees on the hybrid with our server, and says so')
def _():
    need_openssl_hybrid()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = subprocess.Popen(
            ['openssl', 's_client', '-connect', '127.0.0.1:%d' % listener.getsockname()[1]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        server, _ = listener.accept()
    c = Chain('tls-handshake tls-io echo served', server, env=server_env())
    said = client.communicate(timeout=30 * SLOW)[0]
    is_true('Negotiated TLS1.3 group: ' + HYBRID in said, said)
    is_equal(c.wait(), 0, 'exit code')


@test('openssl s_server agrees on the hybrid with our client, also where it takes nothing else')
def _():
    need_openssl_hybrid()
    for options in [], ['-groups', HYBRID]:
        s = OpensslServer('-cert', pki_path('server.pem'), '-key', pki_path('server.key'), *options)
        b = Between()
        onward = s.connect()
        jobs = [Background(Between._pass_on, b.server, onward, bytearray(), 65536),
                Background(Between._pass_on, onward, b.server, bytearray(), 65536)]
        app = 'echo live >&7; read line <&6; test "$line" = evil'
        c = start_client(['tls-handshake', '-c', *HERE, 'tls-io', '-w', 'sh', '-c', app], b.client)
        is_equal(c.wait(), 0, 'exit code (%s)' % c.stderr())
        b.end()
        for job in jobs:
            job.finish()
        is_equal(b.agreed(), (X25519MLKEM768, False), options)


run()
