#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-handshake -c: what a client knows of its server, and the certificates by -C.

import os
import ssl
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, dies, reason
from clients import HERE, client_facts, connect_client, serve_client
from peer import TLS12, TLS13, Peer
from pki import bundle, ca_env, cert_hash, issued, openssl, pki_path, server_env
from scratch import temp
from sockets import read_to_end, tcp_pair
from tap import is_equal, is_true, run, test

# What a client knows

def of(cert):
    """What openssl x509 says of a certificate, as facts."""
    def tell(*options):
        text = openssl('x509', '-in', pki_path(cert + '.pem'), '-noout', *options).decode()
        return text.split('=', 1)[1].strip()
    return {'SSL_PEER_CERT_HASH': cert_hash(cert),
            'SSL_PEER_CERT_SUBJECT': tell('-subject', '-nameopt', 'compat'),
            'SSL_PEER_CERT_ISSUER': tell('-issuer', '-nameopt', 'compat'),
            'SSL_PEER_CERT_NOTBEFORE': str(ssl.cert_time_to_seconds(tell('-startdate'))),
            'SSL_PEER_CERT_NOTAFTER': last_second(ssl.cert_time_to_seconds(tell('-enddate')))}


def last_second(end):
    """This, as libtls can tell it: the system's python has the time_t that its libtls has."""
    try:
        time.gmtime(end)
        return str(end)
    except OverflowError:
        return str(2**31 - 1)


@test('the facts: all of them, and of the server\'s certificate what openssl says of it')
def _():
    subject = '/C=DE/O=An Example, Inc./OU=R+D/CN=localhost'
    for cert in 'server', 'rsa', issued('named', subject=subject, days='9999'): # past 2038
        wanted = dict(of(cert), SSL_ALPN='smtp', SSL_PROTOCOL='TLSv1.2',
                      SSL_SESSION_RESUMED='Initial', SSL_TLS_SNI_SERVERNAME='localhost',
                      SSL_CIPHER='ECDHE-%s-AES256-GCM-SHA384' % {'rsa': 'RSA'}.get(cert, 'ECDSA'),
                      SSL_CIPHER_USEKEYSIZE='256', SSL_CIPHER_ALGKEYSIZE='256')
        f = client_facts(['-k', 'LocalHost'], ca_env(TLS_ALPN='smtp'), cert=cert, alpn=['smtp'],
                         max=TLS12, ciphers='AES256')
        is_equal({k: f[k] for k in f if k.startswith('SSL_')}, wanted)


@test('the facts in TLS 1.3; what is not known is not set')
def _():
    f = client_facts(['-n'], min=TLS13)
    is_equal(f['SSL_PROTOCOL'], 'TLSv1.3')
    is_true(f['SSL_CIPHER'].endswith(('256_GCM_SHA384', 'CHACHA20_POLY1305_SHA256')), f)
    is_equal({k: f[k] for k in f if '_PEER_' in k}, of('server'))
    is_equal({k for k in f if k.startswith('SSL_') and '_PEER_' not in k},
             {'SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_SESSION_RESUMED', 'SSL_CIPHER_USEKEYSIZE',
              'SSL_CIPHER_ALGKEYSIZE'})


@test('the facts of a server that nothing was verified of are there as well')
def _():
    issued('stranger', ca='otherca')
    f = client_facts(['-N', '-v', '0'], cert='stranger')
    is_equal({k: f[k] for k in f if '_PEER_' in k}, of('stranger'))


# -C

def chain_of_three():
    """A server's certificate, the one that issued it, and the root; in PEM."""
    if not os.path.exists(pki_path('three.pem')):
        issued('middle', 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign')
        bundle('three', issued('leaf', ca='middle'), 'leaf', 'middle', 'ca')
    with open(pki_path('three.pem')) as f:
        return f.read()


def saved(options, cert, code=0, **settings):
    """What -C writes to a file of the server with that certificate."""
    name = temp()
    with open(name, 'w') as f:
        server, c = connect_client([*options, '-C', '9'], fds={9: f.fileno()})
    try:
        serve_client(server, cert=cert, **settings).end_politely()
    except ssl.SSLError:
        pass
    server.close()
    is_equal(c.wait(), code)
    with open(name) as f:
        return f.read()


@test('-C: the certificates that the server has sent, in PEM, to a file')
def _():
    wanted = chain_of_three()
    for version in TLS12, TLS13:
        for options in HERE, ['-n'], ['-N']:
            is_equal(saved(options, 'three', max=version), wanted)


@test('-C: exactly what was sent, be it one certificate, be it some that have no business there')
def _():
    for certs in ['server'], ['server', 'a'], ['server', 'ca', 'ca', 'otherca']:
        name = 'sent-%d' % len(certs)
        wanted = bundle(name, 'server', *certs)
        is_equal(saved(HERE, name), wanted)


@test('-C: nothing is written of a server that is not taken')
def _():
    is_equal(saved(HERE, issued('stranger', ca='otherca'), 97), '')
    is_equal(saved(['-k', 'wrong.example'], 'server', 97), '')


def into_pipe():
    """A session of which a pipe gets the certificates: the pipe, the server's socket, the chain."""
    r, w = os.pipe()
    with open(w):
        server, c = connect_client([*HERE, '-C', '9'], fds={9: w})
    return r, server, c


@test('-C: to a pipe, which ends before the session does')
def _():
    wanted = chain_of_three()
    r, server, c = into_pipe()
    peer = serve_client(server, cert='three')
    with open(r) as f:
        is_equal(f.read(), wanted)
    peer.send(b'hello')
    is_equal(peer.end_politely(), (b'hello', 'close_notify'))
    is_equal(c.wait(), 0)


def huge():
    """More certificates than a pipe takes."""
    if not os.path.exists(pki_path('huge.pem')):
        bundle('huge', 'server', 'server', *['ca'] * 150)
    with open(pki_path('huge.pem')) as f:
        pem = f.read()
    is_true(len(pem) > 65536, 'more than a pipe takes')
    return pem


@test('-C: a pipe that is too small, and that nobody empties, hangs nobody: 97')
def _():
    huge()
    r, server, c = into_pipe()
    with open(r):
        is_equal(serve_client(server, cert='huge').recv_all(), (b'', 'eof'))
        server.close()
        is_equal(reason(c), "no room for the peer's certificates")


@test('-C: a file takes as many')
def _():
    wanted = huge()
    is_equal(saved(HERE, 'huge'), wanted)


@test('-C: a server gets the certificates of its client in the same way')
def _():
    wanted = chain_of_three()
    client, server = tcp_pair()
    name = temp()
    with open(name, 'w') as f:
        c = Chain(['tls-handshake', '-y', '-C', str(f.fileno()), 'tls-io', '-w', 'true'], server,
                  env=server_env(CAFILE=pki_path('ca.pem')), pass_fds=[f.fileno()])
    is_equal(Peer(client, cert='three').handshake().end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    with open(name) as f:
        is_equal(f.read(), wanted)


@test('-C: a pipe that nobody reads is told of: 97')
def _():
    r, server, c = into_pipe()
    os.close(r)
    is_equal(serve_client(server).recv_all(), (b'', 'eof'))
    server.close()
    is_equal(reason(c), "unable to write the peer's certificates")


@test('-C: a descriptor that is not open: 100, and the server gets not one byte')
def _():
    server, c = connect_client([*HERE, '-C', '9'], ['echo', 'ran'])
    is_equal(read_to_end(server), b'')
    dies(c, 100, 'tls-handshake: fatal: unable to use the descriptor of -C: Bad file descriptor')


run()
