#!/usr/bin/env python3
# ISC licence: see COPYING.
# Settings of a server: key pairs by name, protocols, ciphers, curves, ALPN, staples; the facts.

import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, is_libressl, reason
from peer import TLS12, TLS13, Peer, client_hello, plain_context
from engined import shown_hash
from pki import cert_hash, cert_serial, issue, ocsp_response, openssl, pki, server_env
from scratch import temp
from sessions import ends_well, server_facts, server_refusal, turned_away
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test

TLS11 = ssl.TLSVersion.TLSv1_1
ALERT = b'\x15'  # the type of a record


def pair(name, pattern):
    """The variables that make NAME.pem the certificate for that server name."""
    return {'KEYFILE:' + pattern: '%s/%s.key' % (pki(), name),
            'CERTFILE:' + pattern: '%s/%s.pem' % (pki(), name)}


def named(**more):
    """A default pair, and three by name, one of them a wildcard."""
    return server_env(**pair('a', 'a.example.org'), **pair('b', 'b.example.org'),
                      **pair('wild', '*.wild.example.org'), **more)


def served(peer):
    """The hash of the certificate that the server showed."""
    return 'SHA256:' + hashlib.sha256(peer.tls.getpeercert(True)).hexdigest()


def unnamed(**more):
    """Pairs by name only, and a client has to name one."""
    return named(KEYFILE=None, CERTFILE=None, TLS_SNI='require', **more)


def s_client(env, *options):
    """What openssl s_client prints about a session."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = subprocess.Popen(
            ['openssl', 's_client', '-connect', '127.0.0.1:%d' % listener.getsockname()[1],
             *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        server, _ = listener.accept()
    c = Chain('tls-handshake tls-io echo served', server, env=env)
    out = client.communicate(timeout=30 * SLOW)[0].decode()
    return c, out


# Key pairs by name


for asked, name in (('a.example.org', 'a'), ('b.example.org', 'b'), ('x.wild.example.org', 'wild'),
                    ('localhost', 'server'), ('unknown.example.com', 'server'), (None, 'server')):
    @test('a client that asks for %s gets the certificate %s' % (asked or 'no name', name))
    def _(asked=asked, name=name):
        for version in TLS12, TLS13:
            f, peer = server_facts(named(), name=asked, min=version, max=version)
            is_equal(served(peer), cert_hash(name))
            is_equal(f.get('SSL_TLS_SNI_SERVERNAME'), asked)


@test('the server name is told in lower case')
def _():
    f, peer = server_facts(named(), name=b'A.Example.ORG')
    is_equal(f['SSL_TLS_SNI_SERVERNAME'], 'a.example.org')
    is_equal(served(peer), cert_hash('a'))


@test('an EC certificate and an RSA one can serve side by side')
def _():
    env = server_env('rsa', **pair('a', 'a.example.org'))
    f, peer = server_facts(env, name='a.example.org', max=TLS12)
    is_equal((f['SSL_CIPHER'][:11], served(peer)), ('ECDHE-ECDSA', cert_hash('a')))
    f, peer = server_facts(env, name='localhost', max=TLS12)
    is_equal((f['SSL_CIPHER'][:9], served(peer)), ('ECDHE-RSA', cert_hash('rsa')))


# TLS_SNI=require


for asked in 'a.example.org', 'b.example.org', 'x.wild.example.org', b'A.EXAMPLE.ORG':
    @test('TLS_SNI=require serves %s' % (asked if type(asked) is str else asked.decode()))
    def _(asked=asked):
        server_facts(unnamed(), name=asked)
        server_facts(named(TLS_SNI='require'), name=asked)


for asked, why in ((None, 'no name'), ('unknown.example.com', 'an unknown name'),
                   ('wild.example.org', 'a wildcard without a label'),
                   ('x.y.wild.example.org', 'two labels for a wildcard'),
                   ('xa.example.org', 'a longer name'), ('example.org', 'a shorter name'),
                   ('localhost', 'a name of the default certificate only')):
    @test('TLS_SNI=require refuses %s before any byte of the application' % why)
    def _(asked=asked):
        for env in unnamed(), named(TLS_SNI='require'):
            for version in TLS12, TLS13:
                client, server = tcp_pair()
                c = Chain('tls-handshake foreground { fdmove 1 2 echo served } tls-io echo served',
                          server, env=env)
                peer = Peer(client, name=asked, min=version, max=version).handshake()
                peer.send(b'early')
                is_equal(peer.recv_all()[0], b'', 'sent to the client')
                client.close()
                is_equal(reason(c), 'the client named no known server')


@test('TLS_SNI takes no other value')
def _():
    for value in 'required', 'Require':
        is_equal(server_refusal(named(TLS_SNI=value)), 'TLS_SNI must be "require" or unset')


# What is no host name


BAD_NAMES = {
    'a path upwards': b'a/../../etc/passwd',
    'two dots': b'a..example.org',
    'two dots at the end': b'a.example.org..',
    'a slash': b'a/b.example.org',
    'a line end': b'a\nSSL_CIPHER=x',
    'a control byte': b'a\x1b[2J.example.org',
    'a space': b'a .example.org',
    'an equals sign': b'a=b',
    'a dollar sign': b'${x}',
    'a star': b'*.wild.example.org',
    'a hyphen first': b'-a.example.org',
    '254 bytes': b'.'.join([b'a' * 63] * 4)[:254],
}

for what, bad in BAD_NAMES.items():
    @test('a server name with %s is refused' % what)
    def _(bad=bad):
        for version in TLS12, TLS13:
            client, server = tcp_pair()
            c = Chain('tls-handshake foreground { fdmove 1 2 env } tls-io env', server,
                      env=named())
            peer = Peer(client, name=bad, min=version, max=version)
            try:
                got = peer.handshake().recv_all()[0]
            except ssl.SSLError:
                got = b''  # a library that refuses it by itself
            is_equal(got, b'', 'sent to the client')
            client.close()
            reason(c)


for what, bad in (('dots and slashes only', '../../etc/passwd'),
                  ('a byte that is no ASCII', b'a\xffb.example.org')):
    @test('a server name with %s is refused' % what)
    def _(bad=bad):
        c, out = s_client(named(), '-servername', bad)
        is_true('served' not in out, 'the application does not run')
        reason(c)


@test('a server name with a null byte is refused by an alert')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io env', server, env=named())
    client.sendall(client_hello(name='aQb.example.org').replace(b'aQb', b'a\0b'))
    is_equal(client.recv(1), ALERT, 'type of the first record')
    client.close()
    reason(c)


# Protocols


@test('TLS 1.2 and TLS 1.3 are spoken by default')
def _():
    for version, name in (TLS12, 'TLSv1.2'), (TLS13, 'TLSv1.3'):
        f, peer = server_facts(server_env(), min=version, max=version)
        is_equal((f['SSL_PROTOCOL'], peer.tls.version()), (name, name))


@test('a client that knows TLS 1.1 at most gets the alert protocol_version')
def _():
    for version in ssl.TLSVersion.TLSv1, TLS11:
        name, why = turned_away(server_env('rsa'), min=version, max=version,
                                ciphers='ALL:@SECLEVEL=0')
        is_equal(name, 'TLSV1_ALERT_PROTOCOL_VERSION')


@test('TLS_PROTOCOLS chooses the protocols')
def _():
    f, peer = server_facts(server_env(TLS_PROTOCOLS='tlsv1.2'))
    is_equal((f['SSL_PROTOCOL'], peer.tls.version()), ('TLSv1.2', 'TLSv1.2'))
    f, peer = server_facts(server_env(TLS_PROTOCOLS='all:!tlsv1.3'))
    is_equal((f['SSL_PROTOCOL'], peer.tls.version()), ('TLSv1.2', 'TLSv1.2'))
    f, peer = server_facts(server_env(TLS_PROTOCOLS='tlsv1.3'))
    is_equal((f['SSL_PROTOCOL'], peer.tls.version()), ('TLSv1.3', 'TLSv1.3'))
    name, why = turned_away(server_env(TLS_PROTOCOLS='tlsv1.3'), max=TLS12)
    is_equal(name, 'TLSV1_ALERT_PROTOCOL_VERSION')


# Ciphers


for certificate, suffix in ('server', 'ECDSA'), ('rsa', 'RSA'):
    for cipher in 'AES128-GCM-SHA256', 'AES256-GCM-SHA384', 'CHACHA20-POLY1305':
        @test('ECDHE-%s-%s is accepted by default' % (suffix, cipher))
        def _(certificate=certificate, cipher='ECDHE-%s-%s' % (suffix, cipher)):
            f, peer = server_facts(server_env(certificate), max=TLS12, ciphers=cipher)
            is_equal((f['SSL_CIPHER'], peer.tls.cipher()[0]), (cipher, cipher))


for cipher in 'AES128-SHA', 'AES128-GCM-SHA256', 'AES256-GCM-SHA384':
    @test('RSA key transport with %s is refused, also where TLS_CIPHERS says so' % cipher)
    def _(cipher=cipher):
        name, why = turned_away(server_env('rsa'), max=TLS12, ciphers=cipher)
        is_equal(name, 'SSLV3_ALERT_HANDSHAKE_FAILURE')
        name, why = turned_away(server_env('rsa', TLS_CIPHERS=cipher), max=TLS12, ciphers=cipher)
        is_equal(why, 'RSA key transport is not served: take a cipher with ECDHE')


for what, certificate, cipher in (
        ('ECDHE-RSA with CBC', 'rsa', 'ECDHE-RSA-AES128-SHA256'),
        ('ECDHE-RSA with CBC and SHA-1', 'rsa', 'ECDHE-RSA-AES256-SHA'),
        ('ECDHE-ECDSA with CBC', 'server', 'ECDHE-ECDSA-AES128-SHA256')):
    @test('%s is refused by default, and accepted where TLS_CIPHERS says so' % what)
    def _(certificate=certificate, cipher=cipher):
        name, why = turned_away(server_env(certificate), max=TLS12, ciphers=cipher)
        is_equal(name, 'SSLV3_ALERT_HANDSHAKE_FAILURE')
        f, peer = server_facts(server_env(certificate, TLS_CIPHERS=cipher), max=TLS12,
                               ciphers=cipher)
        is_equal((f['SSL_CIPHER'], peer.tls.cipher()[0]), (cipher, cipher))


@test('TLS_CIPHERS chooses the cipher, and refuses every other')
def _():
    chosen, other = 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES128-GCM-SHA256'
    f, peer = server_facts(server_env(TLS_CIPHERS=chosen), max=TLS12)
    is_equal((f['SSL_CIPHER'], peer.tls.cipher()[0]), (chosen, chosen))
    name, why = turned_away(server_env(TLS_CIPHERS=chosen), max=TLS12, ciphers=other)
    is_equal(name, 'SSLV3_ALERT_HANDSHAKE_FAILURE')


# Curves


@test('TLS_CURVES chooses the curve, and refuses every other')
def _():
    for curve, key in ('P-384', 'secp384r1'), ('P-256', 'prime256v1'), ('X25519', 'X25519'):
        c, out = s_client(server_env(TLS_CURVES=curve))
        # OpenSSL 3.5 says Peer for Server.
        is_true(re.search('^(Server|Peer) Temp Key: .*' + key, out, re.M), '%s in %s' % (key, out))
        is_equal(c.wait(), 0, 'exit code')
    context = plain_context()
    context.set_ecdh_curve('prime256v1')
    server_facts(server_env(TLS_CURVES='P-384:P-256'), context=context)
    name, why = turned_away(server_env(TLS_CURVES='P-384'), context=context)
    is_equal(name, 'eof' if is_libressl() else 'SSLV3_ALERT_HANDSHAKE_FAILURE')


# ALPN


@test('TLS_ALPN: the first protocol of the server that the client knows is chosen')
def _():
    common = [(['http/1.1', 'h2'], 'h2'), (['http/1.1'], 'http/1.1'), (None, None)]
    for offered, chosen in common if is_libressl() else [*common, (['imap'], None)]:
        for version in TLS12, TLS13:
            f, peer = server_facts(server_env(TLS_ALPN='h2,http/1.1', SSL_ALPN='of old'),
                                   alpn=offered, min=version, max=version)
            is_equal(f.get('SSL_ALPN'), chosen)
            is_equal(peer.tls.selected_alpn_protocol(), chosen)


@test('TLS_ALPN: with LibreSSL, a client that knows none of them is refused, as RFC 7301 has it')
def _():
    if not is_libressl():
        raise Skip('LibreTLS goes on without a protocol')
    for version in TLS12, TLS13:
        name, why = turned_away(server_env(TLS_ALPN='h2'), alpn=['imap'], min=version, max=version)
        is_true('no application protocol' in why, why)


@test('without TLS_ALPN no protocol is chosen')
def _():
    f, peer = server_facts(server_env(), alpn=['h2'])
    is_equal((f.get('SSL_ALPN'), peer.tls.selected_alpn_protocol()), (None, None))


# Wrong values


WRONG = [
    ('TLS_PROTOCOLS', 'tlsv1.9'), ('TLS_PROTOCOLS', 'tlsv1.2,nonsense'),
    ('TLS_CIPHERS', 'NO-SUCH-CIPHER'),
    ('TLS_CURVES', 'P-0'), ('TLS_CURVES', 'P-256:nonsense'),
    ('TLS_ALPN', 'h2,,h3'), ('TLS_ALPN', 'x' * 256),
]

for variable, value in WRONG:
    @test('%s=%.20s is a configuration error that names the variable' % (variable, value))
    def _(variable=variable, value=value):
        why = server_refusal(server_env(**{variable: value}))
        is_true(why.startswith('unable to use %s %s: ' % (variable, value)), why)
        is_true('memory' not in why, 'the reason is not the true one: ' + why)


@test('a setting that is set to nothing is a configuration error that names the variable')
def _():
    for name in ('TLS_SNI', 'TLS_PROTOCOLS', 'TLS_CIPHERS', 'TLS_CURVES', 'TLS_ALPN',
                 'CERTFILE:a.example.org', 'KEYFILE:a.example.org', 'OCSPFILE:a.example.org'):
        is_equal(server_refusal({**named(), name: ''}),
                 name + ' is set to nothing: unset it, or give it a value')


@test('a name that no client can ask for is a configuration error')
def _():
    for name in ('a.example.org.', '*.example.org.', 'a..b', '*', '*.', '', '127.0.0.1', '::1',
                 'a*.example.org', 'x' * 300, '.'.join(['a' * 63] * 4)):
        is_equal(server_refusal(named(**{'CERTFILE:' + name: '/x'})),
                 'neither a host name nor *.domain: CERTFILE:' + name)


@test('a pair with a name in full is served before a wildcard, in whatever order they are set')
def _():
    p = pki()
    issue(p, 'any', 'subjectAltName=DNS:*.example.org')
    pairs = [('a.example.org', 'a'), ('*.example.org', 'any')]
    for order in pairs, pairs[::-1]:
        for default in {'TLS_SNI': 'require'}, server_env('server'):
            env = dict(default)
            for name, pair in order:
                env['CERTFILE:' + name] = '%s/%s.pem' % (p, pair)
                env['KEYFILE:' + name] = '%s/%s.key' % (p, pair)
            for asked, served in ('a.example.org', 'a'), ('c.example.org', 'any'):
                client, server = tcp_pair()
                c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=env)
                peer = Peer(client, name=asked).handshake()
                is_equal(shown_hash(peer), cert_hash(served), asked)
                ends_well(peer, c)


@test('one dot at the end of a server name is dropped')
def _():
    if is_libressl():
        raise Skip('LibreSSL refuses it by itself')
    f, _ = server_facts(named(TLS_SNI='require'), name=b'A.example.org.')
    is_equal(f['SSL_TLS_SNI_SERVERNAME'], 'a.example.org')


# A stapled OCSP response


@test('OCSPFILE is stapled for a client that asks, each pair with its own')
def _():
    env = named(**{'OCSPFILE': ocsp_response('server'),
                   'OCSPFILE:a.example.org': ocsp_response('a')})
    for name, cert in ('localhost', 'server'), ('a.example.org', 'a'):
        serial = cert_serial(cert)
        c, out = s_client(env, '-status', '-servername', name)
        is_true('OCSP Response Status: successful' in out, 'a staple: ' + out)
        is_true('Serial Number: ' + serial in out, 'serial number %s: %s' % (serial, out))
        is_true('Cert Status: good' in out, 'status: ' + out)
        is_equal(c.wait(), 0, 'exit code')


@test('an OCSPFILE that is cut off, or longer than its response, is refused')
def _():
    with open(ocsp_response('server'), 'rb') as f:
        good = f.read()
    is_equal((good[:2], len(good)), (b'\x30\x82', 4 + int.from_bytes(good[2:4], 'big')))
    for bad in good[:-1], good + b'\n', good[:3], good[:2], good[:1], b'0\x7f' + good[4:]:
        f = temp(bad)
        is_equal(server_refusal(server_env(OCSPFILE=f)),
                 'unable to use OCSPFILE %s: not an OCSP response in DER' % f)


@test('where there is no OCSPFILE for a pair, nothing is stapled')
def _():
    for env in server_env(), named(OCSPFILE=ocsp_response('server')):
        c, out = s_client(env, '-status', '-servername', 'a.example.org')
        # OpenSSL 3.6 speaks of responses.
        is_true(re.search('^OCSP responses?: no responses? sent$', out, re.M), 'no staple: ' + out)
        is_equal(c.wait(), 0, 'exit code')


# Facts


for version, name in (TLS12, 'TLSv1.2'), (TLS13, 'TLSv1.3'):
    for certificate in 'server', 'rsa':
        @test('facts of a %s session with the certificate %s' % (name, certificate))
        def _(version=version, name=name, certificate=certificate):
            f, peer = server_facts(server_env(certificate), name='localhost', min=version,
                                   max=version)
            cipher, _, bits = peer.tls.cipher()
            is_equal(f['SSL_PROTOCOL'], name)
            is_true(f['SSL_CIPHER'] in (cipher, cipher.replace('TLS_', 'AEAD-').replace('_', '-')),
                    '%s is %s' % (f['SSL_CIPHER'], cipher))
            is_equal(f['SSL_CIPHER_USEKEYSIZE'], str(bits))
            is_equal(f['SSL_SESSION_RESUMED'], 'Initial')
            is_equal(f['SSL_TLS_SNI_SERVERNAME'], 'localhost')
            is_equal([v for v in f if v.startswith('SSL_PEER')], [])


@test('facts of a client certificate are what openssl x509 says')
def _():
    env = server_env(CAFILE=pki() + '/ca.pem')
    for version in TLS12, TLS13:
        f, peer = server_facts(env, ['-y'], cert='client', min=version, max=version)
        out = openssl('x509', '-in', pki() + '/client.pem', '-noout', '-subject', '-issuer',
                      '-dates', '-nameopt', 'compat')
        x509 = dict(line.split('=', 1) for line in out.decode().splitlines())
        is_equal(f['SSL_PEER_CERT_HASH'], cert_hash('client'))
        is_equal(f['SSL_PEER_CERT_SUBJECT'], x509['subject'])
        is_equal(f['SSL_PEER_CERT_ISSUER'], x509['issuer'])
        is_equal(int(f['SSL_PEER_CERT_NOTBEFORE']), ssl.cert_time_to_seconds(x509['notBefore']))
        is_equal(int(f['SSL_PEER_CERT_NOTAFTER']), ssl.cert_time_to_seconds(x509['notAfter']))


@test('a fact that is not known is unset, whatever was inherited')
def _():
    names = ['SSL_TLS_SNI_SERVERNAME', 'SSL_ALPN', 'SSL_PEER_CERT_HASH', 'SSL_PEER_CERT_SUBJECT',
             'SSL_PEER_CERT_ISSUER', 'SSL_PEER_CERT_NOTBEFORE', 'SSL_PEER_CERT_NOTAFTER']
    f, peer = server_facts(server_env(**{v: 'of old' for v in names}))
    is_equal({v: f[v] for v in names if v in f}, {})


run()
