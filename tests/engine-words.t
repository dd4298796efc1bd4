#!/usr/bin/env python3
# ISC licence: see COPYING.
# Words that do not mislead: key pairs, protocols, a peer without TLS; and the times of a
# certificate, whenever they are.

import os
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, is_libressl, not_resident, reason
from clients import HERE, client_facts, client_refusal, connect_client
from engined import how_it_ends, start_engine, works_through
from examples import example
from peer import VERSIONS, Peer
from pki import EXT, ca_env, issued, issued_between, openssl, pki_path, server_env
from scratch import temp
from sessions import is_echoed, server_facts, server_refusal
from sockets import tcp_pair
from tap import is_equal, is_true, run, test

CLIENT = 'extendedKeyUsage=clientAuth'


def content(name):
    with open(pki_path(name)) as f:
        return f.read()


# Key pairs

def encrypted(*how):
    f = temp()
    openssl(*how, '-in', pki_path('server.key'), '-passout', 'pass:secret', '-out', f)
    return f


NOT_FIRST = "the key's certificate is not the first one: put it before its authority's"
ENCRYPTED = 'the private key is encrypted: store it without a passphrase (openssl pkey)'
NO_CERT, NO_KEY = ('there is no %s in PEM in it' % what for what in ('certificate', 'private key'))
IN_DER = 'it is in DER, not in PEM'
CUT_OFF = 'it is cut off in a PEM block'
FOREIGN = 'the key is not that of the certificate'
SHORT = 'the RSA key is too short: it takes 2048 bits or more'
ED25519 = ('a kind of private key that cannot be kept out of the process that reads the network '
           '(Ed25519 is one): take an EC key, on P-256, or an RSA key')
OF_BOTH = NOT_FIRST, FOREIGN, SHORT

GARBAGE = '-----BEGIN CERTIFICATE-----\nMAAAAA==\n-----END CERTIFICATE-----\n'

PAIRS = {
    'CERTFILE with the authority first': (
        lambda: {'CERTFILE': temp(content('ca.pem') + content('server.pem'))}, NOT_FIRST),
    'CERTFILE with two authorities first': (
        lambda: {'CERTFILE': temp(content('otherca.pem') + content('ca.pem')
                                  + content('server.pem'))}, NOT_FIRST),
    'CERTFILE that is a key': (lambda: {'CERTFILE': pki_path('server.key')}, NO_CERT),
    'CERTFILE that is a CRL': (lambda: {'CERTFILE': pki_path('crl.pem')}, NO_CERT),
    'CERTFILE in DER': (
        lambda: {'CERTFILE': temp(openssl('x509', '-in', pki_path('server.pem'), '-outform',
                                          'DER'))}, IN_DER),
    'CERTFILE that is cut off': (
        lambda: {'CERTFILE': temp(content('server.pem') + content('ca.pem')[:200])},
        CUT_OFF),
    'CERTFILE with an intermediate that is none': (
        lambda: {'CERTFILE': temp(content('server.pem') + GARBAGE)},
        'a certificate in it cannot be read'),
    'KEYFILE that is cut off': (
        lambda: {'KEYFILE': temp(content('server.key')[:-30])}, CUT_OFF),
    'KEYFILE with an encrypted key': (
        lambda: {'KEYFILE': encrypted('pkcs8', '-topk8')}, ENCRYPTED),
    'KEYFILE with an encrypted key in the old form': (
        lambda: {'KEYFILE': encrypted('ec', '-aes128')}, ENCRYPTED),
    'KEYFILE of another certificate': (lambda: {'KEYFILE': pki_path('a.key')}, FOREIGN),
    'KEYFILE of another kind': (lambda: {'KEYFILE': pki_path('rsa.key')}, FOREIGN),
    'KEYFILE that is a certificate': (lambda: {'KEYFILE': pki_path('server.pem')}, NO_KEY),
    'KEYFILE in DER': (
        lambda: {'KEYFILE': temp(openssl('pkey', '-in', pki_path('server.key'), '-outform',
                                         'DER'))}, IN_DER),
    'KEYFILE with a key that is none': (
        lambda: {'KEYFILE': temp('-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n')},
        'the private key cannot be read'),
    'KEYFILE with an Ed25519 key': (
        lambda: {'KEYFILE': temp(openssl('genpkey', '-algorithm', 'ed25519'))}, ED25519),
    'an RSA key of 1024 bits': (
        lambda: {name: pki_path(issued('small', key=['rsa:1024']) + suffix)
                 for name, suffix in (('CERTFILE', '.pem'), ('KEYFILE', '.key'))},
        SHORT),
}

for what, (make, words) in PAIRS.items():
    if is_libressl() and '1024' in what:
        continue  # it takes them

    @test('%s: refused in words that say so, by a server and by a client' % what)
    def _(make=make, words=words, what=what):
        pair = server_env(**make())
        names = 'CERTFILE %(CERTFILE)s with KEYFILE %(KEYFILE)s' if words in OF_BOTH else \
            'CERTFILE %(CERTFILE)s' if what.startswith('CERT') else 'KEYFILE %(KEYFILE)s'
        wanted = 'unable to use %s: %s' % (names % pair, words)
        is_equal(server_refusal(pair), wanted)
        is_equal(client_refusal([*HERE, '-y'], ca_env(**pair), code=96), wanted)
        named = {name + ':a.example.org': path for name, path in pair.items()}
        is_equal(server_refusal(server_env(**named)), wanted, 'of a named pair')


@test('a CAFILE that is none is told, whatever else a client could show and does not')
def _():
    f = temp('nothing')
    pair = {'CERTFILE': pki_path('client.pem'), 'KEYFILE': pki_path('client.key')}
    for more in {}, pair, {'CERTFILE': '/nowhere', 'KEYFILE': '/nowhere'}:
        is_equal(client_refusal(HERE, {'CAFILE': f, **more}, code=96),
                 'unable to use CAFILE %s: there is no certificate in PEM in it' % f)
        broken = temp(content('ca.pem') + GARBAGE)
        is_equal(client_refusal(HERE, {'CAFILE': broken, **more}, code=96),
                 'unable to use CAFILE %s: a certificate in it cannot be read' % broken)


@test('a file that is too large for what it should be is not read')
def _():
    f = temp(content('server.pem'))
    os.truncate(f, (64 << 20) + 1)
    is_equal(server_refusal(server_env(CERTFILE=f)),
             'unable to use CERTFILE %s: the file is too large' % f)


# A certificate of another time

DATES = {'has expired': ('20200101000000Z', '20200201000000Z'),
         'is not valid yet': ('20400101000000Z', '20480101000000Z')}


def untimely(what, extensions=EXT['server']):
    name = issued_between(what.replace(' ', '-') + extensions[:3], *DATES[what], extensions)
    return pki_path(name + '.pem'), {'CERTFILE': pki_path(name + '.pem'),
                                     'KEYFILE': pki_path(name + '.key')}


def warnings(c):
    return [line for line in c.stderr().splitlines() if ': warning: CERTFILE ' in line]


for what in DATES:
    @test('a certificate of its own that %s: a warning, and it is served' % what)
    def _(what=what):
        not_resident('warns as it loads')
        path, pair = untimely(what)
        for more in {}, {'CAFILE': pki_path('ca.pem')}, \
                {'CERTFILE:a.example.org': pki_path('a.pem'),
                 'KEYFILE:a.example.org': pki_path('a.key')}:
            client, server = tcp_pair()
            c = Chain(['tls-handshake', *(['-Y'] if 'CAFILE' in more else []), 'tls-io', 'cat'],
                      server, env={**pair, **more})
            peer = Peer(client).handshake()
            is_echoed(peer)
            peer.end_politely()
            is_equal(c.wait(), 0)
            is_equal(c.stderr(), 'tls-engine: warning: CERTFILE %s %s\n' % (path, what))

    @test('a named certificate that %s: a warning of that one only' % what)
    def _(what=what):
        not_resident('warns as it loads')
        path, pair = untimely(what)
        named = {name + ':a.example.org': value for name, value in pair.items()}
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env(**named))
        Peer(client).handshake().end_politely()
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), 'tls-engine: warning: CERTFILE %s %s\n' % (path, what))

    @test('a resident engine warns once per load, whoever is served: a certificate that ' + what)
    def _(what=what):
        path, pair = untimely(what)
        warning = 'tls-engined: warning: CERTFILE %s %s' % (path, what)
        e = start_engine({**pair, 'CAFILE': pki_path('ca.pem')})
        is_equal(e.log(), [warning])
        for options in [], ['-Y']:
            works_through(e, options=options)
        is_equal(e.log(), [warning])

    @test('a client whose own certificate %s: a warning if it shows it, and it is shown' % what)
    def _(what=what):
        not_resident('warns as it loads')
        path, pair = untimely(what, CLIENT)
        for options, told in ([], ''), (['-y'], 'tls-engine: warning: CERTFILE %s %s\n'
                                        % (path, what)):
            f = client_facts([*HERE, *options], ca_env(**pair))
            is_equal(f['stderr'], told)
        e = start_engine(ca_env(**pair), ['-c'])
        is_equal(e.log(), ['tls-engined: warning: CERTFILE %s %s' % (path, what)])


# Protocols, and a peer without TLS

@test('TLS_PROTOCOLS with another word, or with none that is served: refused with those that are')
def _():
    for value in ('1.3', 'TLS1.3', 'tlsv1.4', 'ssl', 'tlsv1.1', 'tlsv1.0,tlsv1.1', 'tlsv1.2,x', ',',
                  'TLSv1.1,tlsv1.2'):
        wanted = 'unable to use TLS_PROTOCOLS %s: invalid value (known are tlsv1.2 and tlsv1.3)'
        is_equal(server_refusal(server_env(TLS_PROTOCOLS=value)), wanted % value)
        is_equal(client_refusal(HERE, ca_env(TLS_PROTOCOLS=value), code=96), wanted % value)


@test('a server without TLS: the client says that it has none')
def _():
    for said in b'220 hello\r\n', b'HTTP/1.0 400 Bad Request\r\n\r\n', b'-ERR\r\n', b'\0', b'\x17':
        server, c = connect_client(HERE)
        is_equal(server.recv(1), b'\x16', 'the beginning of a ClientHello')
        server.sendall(said)
        server.shutdown(socket.SHUT_WR)
        is_equal(reason(c), 'the server answered in plaintext: it does not speak TLS here')
        server.close()


# Times

def seconds(path, which):
    """A time of a certificate as openssl tells it."""
    text = openssl('x509', '-in', path, '-noout', '-' + which).decode().strip().partition('=')[2]
    return ssl.cert_time_to_seconds(text)


def is_32_bits():
    """Whether the engine is a program of 32 bits: its libtls may have a time that ends in 2038."""
    with open(BIN + '/tls-engine', 'rb') as f:
        return f.read(5)[4] == 1


TIMES = {
    'before 1970': ('19600101000000Z', '20480101000000Z', -315619200),
    'two seconds before 1970': ('19691231235958Z', '20480101000000Z', -2),
    'in 1970': ('19700101000000Z', '20480101000000Z', 0),
    'far away': ('19500101000000Z', '21500101000000Z', -631152000),
}

for number, (what, (start, end, wanted)) in enumerate(TIMES.items()):
    @test('a certificate that begins %s: SSL_PEER_CERT_NOTBEFORE is %s' % (what, wanted))
    def _(number=number, start=start, end=end, wanted=wanted):
        for name, extensions in ('then', EXT['server']), ('thenclient', CLIENT):
            issued_between(name + str(number), start, end, extensions)
        last = seconds(pki_path('then%d.pem' % number), 'enddate')
        wanted = [{'SSL_PEER_CERT_NOTBEFORE': str(wanted), 'SSL_PEER_CERT_NOTAFTER': str(end)}
                  for end in ([last, min(last, 2**31 - 1)] if is_32_bits() else [last])]
        for _, version in VERSIONS:
            f, _ = server_facts(server_env(CAFILE=pki_path('ca.pem')), ['-y'],
                                cert='thenclient%d' % number, min=version, max=version)
            is_true({key: f.get(key) for key in wanted[0]} in wanted, 'at a server: %r' % f)
            f = client_facts(HERE, cert='then%d' % number, min=version, max=version)
            is_true({key: f.get(key) for key in wanted[0]} in wanted, 'at a client: %r' % f)


@test('a certificate that begins a second before 1970: a failure of libtls, told as that')
def _():
    wanted = ("libtls cannot tell what is in the peer's certificate "
              '(two common names, or a time of 1969-12-31 23:59:59?)')
    for name, extensions in ('last', EXT['server']), ('lastclient', CLIENT):
        issued_between(name, '19691231235959Z', '20480101000000Z', extensions)
    if is_libressl():  # where it is only not known
        f, _ = server_facts(server_env(CAFILE=pki_path('ca.pem')), ['-y'], cert='lastclient')
        is_true('SSL_PEER_CERT_HASH' in f and 'SSL_PEER_CERT_NOTBEFORE' not in f, 'the facts')
        return
    for _, version in VERSIONS:
        client, server = tcp_pair()
        c = Chain(['tls-handshake', '-y', 'tls-io', 'echo', 'served'], server,
                  env=server_env(CAFILE=pki_path('ca.pem')))
        peer = Peer(client, cert='lastclient', min=version, max=version)
        is_equal(how_it_ends(peer), b'', 'what the client gets')
        client.close()
        is_equal(reason(c), wanted)
        is_equal(client_refusal(HERE, cert='last', min=version, max=version), wanted)


@test('starttls-cert: times before 1970')
def _():
    result = example('policy/print-cert', env={
        'SSL_PEER_CERT_SUBJECT': '/CN=a', 'SSL_PEER_CERT_ISSUER': '/CN=b',
        'SSL_PEER_CERT_HASH': 'SHA256:0', 'SSL_PEER_CERT_NOTBEFORE': '-315619200',
        'SSL_PEER_CERT_NOTAFTER': '-86400'})
    said = result.out.decode()
    is_true('valid from  1960-01-01 00:00:00 UTC\n' in said, said)
    is_true('valid until 1969-12-31 00:00:00 UTC\n' in said, said)
    is_true(int(said.split('days left')[1]) < -20000, said)


run()
