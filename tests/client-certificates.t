#!/usr/bin/env python3
# ISC licence: see COPYING.
# Client certificates: -Y and -y, CAFILE, CADIR, CRLFILE, whom they let in, what is told of them.

import os
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, is_libressl, not_resident
from clients import client_facts
from peer import TLS12, TLS13, Peer
from pki import ca_env, cert_hash, issue, openssl, pki, server_env
from scratch import temp, temp_dir
from sessions import server_facts, server_refusal, turned_away
from sockets import tcp_pair
from tap import is_equal, is_true, run, test

CLIENT = 'extendedKeyUsage=clientAuth'
EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']


def path(name):
    return '%s/%s.pem' % (pki(), name)


def trusting(**more):
    """Variables of a server that trusts the CA, and knows what that revoked."""
    return server_env(**{'CAFILE': path('ca'), 'CRLFILE': path('crl'), **more})


def hashed(*names):
    """A CADIR with these certificates, and a file that has nothing to do with it."""
    d = temp_dir()
    for name in names:
        shutil.copy(path(name), d)
    openssl('rehash', d)
    with open(d + '/README', 'w') as f:
        f.write('no certificate\n')
    return d


def once(make):
    """Makes certificates of that name when first asked for them."""
    made = set()

    def get(name, *args, **kw):
        if name not in made:
            make(name, *args, **kw)
            made.add(name)
        return name
    return get


@once
def dated(name, start, end):
    """A certificate that is valid from start to end, as openssl ca writes them."""
    base = '%s/%s' % (pki(), name)
    with open(base + '.txt', 'w'), open(base + '.ext', 'w') as ext, open(base + '.cnf', 'w') as cnf:
        ext.write(CLIENT + '\n')
        cnf.write('[ca]\ndefault_ca=c\n[c]\ndatabase=%s.txt\nnew_certs_dir=%s\nrand_serial=yes\n'
                  'default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' % (base, pki()))
    openssl('req', '-new', *EC, '-keyout', base + '.key', '-out', base + '.csr', '-subj',
            '/CN=' + name)
    openssl('ca', '-batch', '-notext', '-config', base + '.cnf', '-cert', path('ca'), '-keyfile',
            pki() + '/ca.key', '-startdate', start, '-enddate', end, '-extfile', base + '.ext',
            '-in', base + '.csr', '-out', base + '.pem')


@once
def self_signed(name, subject=None, *more):
    openssl('req', '-x509', *EC, '-keyout', '%s/%s.key' % (pki(), name), '-out', path(name),
            '-days', '30', '-subj', subject or '/CN=' + name, *more)


@once
def issued(name, **kw):
    issue(pki(), name, kw.pop('extensions', CLIENT), **kw)


# Who gets in


GOOD = {
    'for clients': lambda: 'client',
    'without extended usages': lambda: issued('plain', extensions='basicConstraints=CA:FALSE'),
    'with an RSA key': lambda: issued('rsaclient', key=['rsa:2048']),
}

for what, make in GOOD.items():
    @test('a certificate %s gets in, with -Y and with -y' % what)
    def _(make=make):
        for option in '-Y', '-y':
            for version in TLS12, TLS13:
                f, peer = server_facts(trusting(), [option], cert=make(), min=version, max=version)
                is_equal(f['SSL_PEER_CERT_HASH'], cert_hash(make()))


MOD_SSL = 'SSL_CLIENT_S_DN'
UTF8 = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-utf8']


def names_of(subject):
    """What an application learns of a client whose certificate is for this, by mod_ssl's names."""
    name = 'named%d' % len([n for n in os.listdir(pki()) if n.startswith('named')])
    cert = issued(name, key=UTF8, subject=subject)
    f, _ = server_facts(trusting(), ['-y'], cert=cert)
    is_equal((f['SSL_CLIENT_VERIFY'], f[MOD_SSL]), ('SUCCESS', f['SSL_PEER_CERT_SUBJECT']))
    return f.get(MOD_SSL + '_CN'), f.get(MOD_SSL + '_Email')


@test('by the names of mod_ssl: the common name and the mail address of the client, and only these')
def _():
    for subject, wanted in (
            ('/CN=client', ('client', None)),
            ('/C=BE/O=x/CN=alice/emailAddress=alice@example.org', ('alice', 'alice@example.org')),
            (r'/O=x\/CN=admin\/emailAddress=root@example.org/CN=mallory', ('mallory', None)),
            (r'/O=no name\/CN=admin', (None, None)),
            ('/CN=Zo\u00eb/emailAddress=zoe@example.org', ('Zo\u00eb', 'zoe@example.org')),
            ('/CN=a\tb', (None, None))):
        is_equal(names_of(subject), wanted, subject)


@test('by the names of mod_ssl: of two common names the first; LibreSSL lets in no such client')
def _():
    if is_libressl():
        issued('twice', subject='/CN=first/CN=second')
        client, server = tcp_pair()
        c = Chain(['tls-handshake', '-y', 'tls-io', 'echo', 'served'], server, env=trusting())
        is_equal(Peer(client, cert='twice').handshake().recv_all()[0], b'')
        client.close()
        is_equal(c.wait(), 97)
        is_true('(two common names, or ' in c.stderr(), c.stderr())
    else:
        is_equal(names_of('/CN=first/CN=second'), ('first', None))


@test('by the names of mod_ssl: NONE for a client without a certificate; nothing in a client')
def _():
    for options in [], ['-Y']:
        f, _ = server_facts(trusting() if options else server_env(), options)
        is_equal({n: v for n, v in f.items() if 'CLIENT' in n}, {'SSL_CLIENT_VERIFY': 'NONE'})
        is_equal(f['SSL_CIPHER_ALGKEYSIZE'], f['SSL_CIPHER_USEKEYSIZE'])
    f = client_facts(['-n'], ca_env(**{MOD_SSL: 'outer', 'SSL_CLIENT_VERIFY': 'outer'}))
    is_equal([n for n in f if 'CLIENT' in n], [])


@test('a certificate of an intermediate CA gets in, if the client shows both')
def _():
    issued('inter', extensions='basicConstraints=critical,CA:TRUE')
    issued('leaf', ca='inter')
    name, why = turned_away(server_env(CAFILE=path('ca')), ['-y'], cert='leaf')
    is_equal(name, 'TLSV1_ALERT_UNKNOWN_CA')
    with open(path('leaf'), 'a') as leaf, open(path('inter')) as inter:
        leaf.write(inter.read())
    f, peer = server_facts(server_env(CAFILE=path('ca')), ['-y'], cert='leaf')
    is_equal(f['SSL_PEER_CERT_SUBJECT'], '/CN=leaf')


@test('a client without a certificate gets in with -Y, and nothing is told of one')
def _():
    for version in TLS12, TLS13:
        f, peer = server_facts(trusting(), ['-Y'], min=version, max=version)
        is_equal([v for v in f if v.startswith('SSL_PEER')], [])


@test('a client without a certificate does not get in with -y')
def _():
    name, why = turned_away(trusting(), ['-y'], max=TLS12)
    is_equal(name, 'SSLV3_ALERT_HANDSHAKE_FAILURE')
    name, why = turned_away(trusting(), ['-y'])
    is_equal(name, 'TLSV13_ALERT_CERTIFICATE_REQUIRED')


@test('without -Y and -y a client is not asked for a certificate')
def _():
    for version in TLS12, TLS13:
        f, peer = server_facts(trusting(), cert='client', min=version, max=version)
        is_equal([v for v in f if v.startswith('SSL_PEER')], [])


BAD = {
    'of an unknown CA': lambda: issued('stranger', ca='otherca'),
    'that is self-signed': lambda: self_signed('selfsigned'),
    'that has expired': lambda: dated('expired', '20200101000000Z', '20200201000000Z'),
    'that is not valid yet': lambda: dated('future', '20480101000000Z', '20490101000000Z'),
    'that is revoked': lambda: 'revoked',
    'for servers only': lambda: 'serveronly',
    'for signing mail only': lambda: issued('mail', extensions='extendedKeyUsage=emailProtection'),
}

for what, make in BAD.items():
    @test('a certificate %s is refused by an alert, with -Y and with -y' % what)
    def _(make=make):
        for option in '-Y', '-y':
            for version in TLS12, TLS13:
                name, why = turned_away(trusting(), [option], cert=make(), min=version,
                                        max=version)
                is_true('ALERT' in name, name)


@test('a certificate issued by a client, who is no CA, is refused')
def _():
    issued('forged', ca='client2')
    with open(path('forged'), 'a') as forged, open(path('client2')) as issuer:
        forged.write(issuer.read())
    name, why = turned_away(server_env(CAFILE=path('ca')), ['-y'], cert='forged')
    is_true('ALERT' in name, name)


@test('without CRLFILE nobody is revoked')
def _():
    f, peer = server_facts(server_env(CAFILE=path('ca')), ['-y'], cert='revoked')
    is_equal(f['SSL_PEER_CERT_SUBJECT'], '/CN=revoked')


# Whom the server trusts


@test('CADIR: a hashed directory')
def _():
    env = server_env(CADIR=hashed('ca'))
    server_facts(env, ['-y'], cert='client')
    name, why = turned_away(env, ['-y'], cert=issued('stranger', ca='otherca'))
    is_equal(name, 'TLSV1_ALERT_UNKNOWN_CA')


@test('CADIR with CRLFILE')
def _():
    env = server_env(CADIR=hashed('ca'), CRLFILE=path('crl'))
    server_facts(env, ['-y'], cert='client')
    name, why = turned_away(env, ['-y'], cert='revoked')
    is_equal(name, 'SSLV3_ALERT_CERTIFICATE_REVOKED')


@test('CADIR with two CAs')
def _():
    env = server_env(CADIR=hashed('ca', 'otherca'))
    server_facts(env, ['-y'], cert='client')
    server_facts(env, ['-y'], cert=issued('stranger', ca='otherca'))


for file, directory in ('ca', 'otherca'), ('otherca', 'ca'):
    @test('CAFILE and CADIR together trust what either has: %s in CAFILE' % file)
    def _(file=file, directory=directory):
        self_signed('selfsigned')
        env = server_env(CAFILE=path(file), CADIR=hashed(directory))
        server_facts(env, ['-y'], cert='client')
        server_facts(env, ['-y'], cert=issued('stranger', ca='otherca'))
        name, why = turned_away(env, ['-y'], cert='selfsigned')
        is_true('ALERT' in name, name)


@test('CAFILE, CADIR and CRLFILE together')
def _():
    env = trusting(CADIR=hashed('otherca'))
    server_facts(env, ['-y'], cert='client')
    name, why = turned_away(env, ['-y'], cert='revoked')
    is_equal(name, 'SSLV3_ALERT_CERTIFICATE_REVOKED')


@test('CAFILE with two CAs')
def _():
    with open(path('ca')) as ca, open(path('otherca')) as other:
        env = server_env(CAFILE=temp(ca.read() + other.read()))
    server_facts(env, ['-y'], cert='client')
    server_facts(env, ['-y'], cert=issued('stranger', ca='otherca'))


@test('-Y and -y without CAFILE and CADIR are a configuration error')
def _():
    not_resident('says so in words of its own: see engined.t')
    for option in '-Y', '-y':
        is_equal(server_refusal(server_env(), [option]), 'neither CAFILE nor CADIR is set: '
                 'nothing to verify client certificates with')


# What is told of them


SUBJECTS = {
    'one name of 6000 bytes is cut to 768': '/DC=' + 'x' * 6000,
    '500 names is cut to 768 bytes': ''.join('/OU=unit %d' % i for i in range(500)),
    '768 bytes is told whole': '/DC=' + 'x' * 764,
}

for number, (what, subject) in enumerate(SUBJECTS.items()):
    @test('a subject of %s, and the session goes on' % what)
    def _(name='subject%d' % number, subject=subject):
        issued(name, subject=subject)
        for option in '-Y', '-y':
            for version in TLS12, TLS13:
                f, peer = server_facts(trusting(), [option], cert=name, min=version, max=version)
                is_equal(f['SSL_PEER_CERT_SUBJECT'], subject[:768])
                is_equal(f['SSL_PEER_CERT_ISSUER'], '/CN=Test ca')
                is_equal(f['SSL_PEER_CERT_HASH'], cert_hash(name))


@test('a long issuer is cut as well, and all facts together stay below 4096 bytes')
def _():
    issuer, subject = '/DC=' + 'i' * 6000, '/DC=' + 's' * 6000
    self_signed('longca', issuer, '-addext', 'basicConstraints=critical,CA:TRUE')
    issued('longboth', ca='longca', subject=subject)
    f, peer = server_facts(server_env(CAFILE=path('longca'), TLS_ALPN='a' * 255), ['-y'],
                           cert='longboth', alpn=['a' * 255], name='.'.join(['n' * 49] * 5))
    is_equal(f['SSL_PEER_CERT_SUBJECT'], subject[:768])
    is_equal(f['SSL_PEER_CERT_ISSUER'], issuer[:768])
    is_equal(f['SSL_ALPN'], 'a' * 255)
    is_equal(f['SSL_TLS_SNI_SERVERNAME'], '.'.join(['n' * 49] * 5))
    is_true('SSL_PEER_CERT_NOTAFTER' in f, 'the last of the facts is there')
    size = sum(len(v) + len(f[v]) + 2 for v in f if v.startswith('SSL_'))
    is_true(size < 4096, 'size of the facts: %d' % size)


@test('control bytes of a subject do not get into the environment')
def _():
    issued('control', subject='/CN=a\nSSL_CIPHER=none\r\x1b[2J\x7f')
    f, peer = server_facts(trusting(), ['-y'], cert='control')
    is_equal(f['SSL_CIPHER'], peer.tls.cipher()[0])
    is_equal([v for v in f if v.startswith('SSL_') and not f[v].isprintable()], [])
    is_equal(f['SSL_PEER_CERT_HASH'], cert_hash('control'))


@test('a policy between tls-handshake and tls-io can tell two clients of one CA apart')
def _():
    script = ('tls-handshake -y importas -i hash SSL_PEER_CERT_HASH '
              'ifelse { test $hash = %s } { tls-io echo served } exit 1' % cert_hash('client'))
    for name, got, code in ('client', b'served\n', 0), (issued('plain'), b'', 1):
        client, server = tcp_pair()
        c = Chain(script, server, env=trusting())
        is_equal(Peer(client, cert=name).handshake().recv_all()[0], got)
        client.close()
        is_equal(c.wait(), code)


run()
