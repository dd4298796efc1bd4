#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: what a chain gives for its session, and what it is told.

import os
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, delayed, reason
from engined import (client_refuses, client_works, facts_through, how_it_ends, listening_socket,
                     refused_by, serve_through, shown_hash, start_engine, works_through)
from peer import TLS12, TLS13, Peer, plain_context
from pki import ca_env, cert_hash, pki, server_env
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed, server_facts
from sockets import tcp_pair
from tap import is_equal, is_true, run, test, wait_for
from ucspi import SETTINGS, STARTTLS_APP, starttls

OWN_NEEDED = 'the resident engine has no settings for this: give the chain an engine of its own'


# What a chain gives for a session

@test('a server: -Y and -y, each for its own session')
def _():
    e = start_engine(server_env(CAFILE=pki() + '/ca.pem', CRLFILE=pki() + '/crl.pem'))
    for options, cert, wanted in (
            ([], 'client', None), (['-Y'], 'client', 'client'), (['-Y'], None, None),
            (['-y'], 'client2', 'client2'), ([], None, None)):
        f, _ = facts_through(e, options, cert=cert)
        is_equal(f.get('SSL_PEER_CERT_HASH'), wanted and cert_hash(wanted), '%r' % options)
    refused_by(e, 97, ['-y'])
    for option in '-Y', '-y':
        for cert in 'revoked', 'serveronly':
            refused_by(e, 97, [option], cert=cert)
    f, _ = facts_through(e, [], cert='revoked')
    is_equal(f.get('SSL_PEER_CERT_HASH'), None)


@test('a server: -C, -K, -v and the options of tls-io, each for its own session')
def _():
    e = start_engine(server_env(CAFILE=pki() + '/ca.pem'))
    out = temp()
    with open(out, 'wb') as f:
        client, c = serve_through(e, ['true'], ['-y', '-C', str(f.fileno())], pass_fds=[f.fileno()])
    Peer(client, cert='client').handshake().recv_all()
    client.close()
    is_equal(c.wait(), 0)
    with open(out) as got, open(pki() + '/client.pem') as wanted:
        is_equal(got.read(), wanted.read(), 'certificates of the peer')

    client, c = serve_through(e, options=['-K', '200'])
    is_equal(client.recv(1), b'')
    is_equal(reason(c, 97), 'the handshake timed out')

    client, c = serve_through(e, options=['-v', '0', '-K', '200'])
    is_equal((client.recv(1), c.wait(), c.stderr()), (b'', 97, ''))

    _, c = facts_through(e, ['-v', '2'])
    is_true(c.stderr().startswith('tls-handshake: info: session started: TLSv1.3'), c.stderr())
    wait_for(e.log, 'the end of the session in the log of the engine')
    is_true(e.log()[0].startswith('tls-engine: info: session ended: 0 bytes received'), e.log()[0])

    client, c = serve_through(e, io=['-s', '-w'])
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'eof'), '-s')
    is_equal(c.wait(), 0)


@test('a server: several key pairs, by the name that the client sends')
def _():
    p = pki()
    more = {'%sFILE:%s' % (k, name): '%s/%s.%s' % (p, f, x)
            for name, f in (('a.example.org', 'a'), ('b.example.org', 'b'),
                            ('*.wild.example.org', 'wild'))
            for k, x in (('KEY', 'key'), ('CERT', 'pem'))}
    pairs = {'a.example.org': 'a', 'b.example.org': 'b', 'x.wild.example.org': 'wild'}
    e = start_engine(server_env(**more))
    for name, pair in {**pairs, 'other.example.org': 'server', None: 'server'}.items():
        is_equal(works_through(e, name=name), cert_hash(pair), 'for %s' % name)

    for env in server_env(TLS_SNI='require', **more), {'TLS_SNI': 'require', **more}:
        e = start_engine(env)
        for name, pair in pairs.items():
            for version in TLS12, TLS13:
                is_equal(works_through(e, name=name, min=version, max=version), cert_hash(pair))
        for name in 'other.example.org', None:
            is_equal(refused_by(e, 97, name=name), 'the client named no known server')


@test('a client: -k, -n, -N and -O, each for its own session')
def _():
    e = start_engine(ca_env(), ['-c'])
    for name in 'localhost', 'example.org', '127.0.0.1', 'x.example.net':
        client_works(e, ['-k', name])
    why = client_refuses(e, ['-k', 'wrong.example'])
    is_true("wrong.example' not present in server certificate" in why, why)
    client_works(e, ['-n'], cert='a')
    client_works(e, ['-k', 'a.example.org'], cert='a')
    stranger = 'otherca'
    is_true('certificate' in client_refuses(e, ['-n'], cert=stranger), '-n')
    _, c = client_works(e, ['-N'], cert=stranger)
    is_equal(c.stderr(), 'tls-handshake: warning: -N: anyone may answer as the server, nothing is '
                         'verified\n')
    is_true('certificate' in client_refuses(e, ['-n'], cert=stranger), '-n after -N')
    is_true(client_refuses(e, ['-O', '-k', 'localhost']), '-O')
    client_works(e, ['-k', 'localhost'])
    is_true('neither a host name nor an IP address' in client_refuses(e, ['-k', '*.org'], 96), '-k')


@test('a client: -y shows a certificate, for its own session')
def _():
    e = start_engine(server_env('client', CAFILE=pki() + '/ca.pem'), ['-c'])
    context = plain_context(client=False, cert='server')
    context.load_verify_locations(pki() + '/ca.pem')
    context.verify_mode = ssl.CERT_OPTIONAL
    for options, cert in ([], None), (['-y'], 'client'), ([], None):
        peer, _ = client_works(e, ['-k', 'localhost', *options], context=context)
        der = peer.tls.getpeercert(True)
        is_equal(der and shown_hash(peer), cert and cert_hash(cert), '%r' % options)


@test('what the engine has no settings for: the chain needs one of its own, and is told')
def _():
    server, client = start_engine(), start_engine(ca_env(), ['-c'])
    for option in '-y', '-Y':
        is_equal(refused_by(server, 96, [option]), OWN_NEEDED)
    is_equal(refused_by(client, 96), OWN_NEEDED)
    is_equal(client_refuses(server, ['-n'], 96), OWN_NEEDED)
    is_equal(client_refuses(client, ['-n', '-y'], 96), OWN_NEEDED)
    works_through(server)
    client_works(client, ['-n'])


# The chain's side

@test('TLS_ENGINE and a setting of an own engine: 100, and a line that names the setting')
def _():
    e = start_engine()
    for name in SETTINGS:
        if name == 'TLS_ENGINE':
            continue
        client, c = serve_through(e, ['echo', 'served'], env={name: 'value'})
        is_equal((client.recv(1), c.wait()), (b'', 100), 'with ' + name)
        is_equal(c.stderr(), 'tls-handshake: fatal: %s is set, but the engine at TLS_ENGINE has '
                             'settings of its own: unset one of them\n' % name)
    is_equal(e.sessions(), [])


@test('TLS_ENGINE and a setting of an own engine: who holds the network cannot go on in plaintext')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'echo', 'served'], server, keep=True,
              env=server_env(TLS_ENGINE='/nonexistent'))
    is_equal(c.wait(), 100)
    try:
        server.send(b'x')
        raise AssertionError('sent in plaintext')
    except BrokenPipeError:
        pass
    is_equal(client.recv(1), b'')


@test('TLS_ENGINE that names no engine: 111, and a line that says why')
def _():
    d = temp_dir()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(d + '/nobody')
    for path, why in ((d + '/none', 'No such file or directory'),
                      (d + '/nobody', 'Connection refused'), (temp(), 'Connection refused')):
        got = refused_by(path, 111)
        is_equal(got, 'unable to connect to TLS_ENGINE %s: %s' % (path, why))


@test('an engine that hangs up at once, or says nothing: 98, or 97 when time is out')
def _():
    listener, path = listening_socket()
    client, c = serve_through(path)
    conn, _ = listener.accept()
    conn.recv(4096)  # it has spoken
    conn.close()
    is_equal(client.recv(1), b'')
    is_equal(reason(c, 98), 'the engine exited unexpectedly')
    is_equal(refused_by(path, 97, ['-K', '200']), 'the handshake timed out')


@test('delayed TLS: the application knows nothing of the engine')
def _():
    e = start_engine()
    for prog in STARTTLS_APP, ['sh', '-c', 'test -z "$TLS_ENGINE" && exec "$@"', 'sh',
                               *STARTTLS_APP]:
        client, server = tcp_pair()
        c = Chain(delayed(prog, ['tls-await', 'tls-handshake', 'tls-io']), server,
                  env={'TLS_ENGINE': e.path})
        is_equal(e.sessions(), [], 'sessions in the plaintext phase')
        starttls(client)
        peer = Peer(client).handshake()
        is_echoed(peer)
        e.wait_sessions(1)
        ends_well(peer, c)
        e.wait_sessions(0)
    is_equal(e.log(), [])


@test('delayed TLS: without an engine the application cannot go on in plaintext')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, ['tls-await', 'tls-handshake', 'tls-io']), server,
              env={'TLS_ENGINE': temp_dir() + '/none'})
    starttls(client)
    is_equal(client.recv(1), b'')
    is_equal(c.wait(), 10)


# The rehearsal

@test('what a worker rehearses is not to be seen')
def _():
    p = pki()
    named = {'KEYFILE:a.example.org': p + '/a.key', 'CERTFILE:a.example.org': p + '/a.pem'}
    for env, options, good, bad in (
            ({'TLS_SNI': 'require', **named}, [], {'name': 'a.example.org'}, {}),
            (server_env(TLS_PROTOCOLS='tlsv1.2'), [], {'max': TLS12}, {'min': TLS13}),
            (server_env(TLS_PROTOCOLS='tlsv1.3'), [], {'min': TLS13}, {'max': TLS12}),
            (server_env(CAFILE=p + '/ca.pem'), ['-y'], {'cert': 'client'}, {}),
            (server_env(TLS_ALPN='smtp'), [], {'alpn': ['smtp']}, None),
            (server_env('rsa', TLS_CIPHERS='ECDHE-RSA-AES256-GCM-SHA384'), [], {},
             {'max': TLS12, 'ciphers': 'ECDHE-RSA-AES128-GCM-SHA256'})):
        e = start_engine(env)
        own = {n: v for n, v in server_facts(env, options, **good)[0].items()
               if n.startswith('SSL_')}
        for _ in range(2):
            f, _ = facts_through(e, options, **good)
            is_equal({n: f[n] for n in f if n.startswith('SSL_')}, own, 'facts with %r' % env)
            if bad is not None:
                is_equal(refused_by(e, 97, options, **bad), own_refusal(env, options, **bad))
        is_equal(e.log(), [])


def own_refusal(env, options, **settings):
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    how_it_ends(Peer(client, **settings))
    client.close()
    return reason(c, 97)


run()
