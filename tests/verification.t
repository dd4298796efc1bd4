#!/usr/bin/env python3
# ISC licence: see COPYING.
# Which servers a client accepts, and what it says of those that it does not: code and message.

import os
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import dies, reason
from clients import HERE, client_facts, client_refusal, connect_client, serve_client
from peer import TLS12, TLS13
from pki import EXT, bundle, ca_env, cert_hash, hashed_dir, issued, openssl, pki_path
from scratch import temp, temp_dir
from sockets import read_to_end
from tap import is_equal, is_true, run, test

NOT_VERIFIED = 'certificate verification failed: '
A_CA = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'


def named(name, alternative):
    return issued(name, 'subjectAltName=' + alternative)


def is_taken(options, cert, env=None):
    """The client takes the server with that certificate, in every version of TLS, silently."""
    for version in TLS12, TLS13:
        f = client_facts(options, env, cert=cert, min=version, max=version)
        is_equal(f['stderr'], '', 'stderr')
        is_equal(f['SSL_PEER_CERT_HASH'], cert_hash(cert), 'the certificate')


def is_refused(options, cert, words, alert='none', env=None):
    """It does not, and says so with 97 and one line that begins with these words. The server gets
    this alert; there is none for a wrong name, which is found when the handshake is over."""
    for version in TLS12, TLS13:
        server, c = connect_client(options, ['tls-io', 'echo', 'ran'], env=env)
        try:
            is_equal(serve_client(server, cert=cert, min=version, max=version).recv_all(),
                     (b'', 'eof'))
            got = 'none'
        except ssl.SSLError as e:
            got = e.reason.split('ALERT_')[-1]
        server.close()
        is_equal(got, alert, 'alert')
        text = reason(c)
        is_true(text.startswith(words), text)


# Names

@test('the right name: one of several, in any case')
def _():
    for name in 'localhost', 'example.org', 'Example.ORG':
        is_taken(['-k', name], 'server')


@test('a wrong name')
def _():
    for name in 'wrong.example', 'xlocalhost', 'localhost.example.org', 'org', 'sub.example.org':
        is_refused(['-k', name], 'server', 'name `%s\' not present in server certificate' % name)


@test('a wildcard stands for one label, not for two and not for none')
def _():
    is_taken(['-k', 'x.wild.example.org'], 'wild')
    is_taken(['-k', 'LONG-er1.wild.example.org'], 'wild')
    for name in 'x.y.wild.example.org', 'wild.example.org', 'xwild.example.org', 'x.example.org':
        is_refused(['-k', name], 'wild', 'name `%s\' not present in server certificate' % name)


@test('a wildcard that would stand for too much, or for a part of a label, stands for nothing')
def _():
    for cert, alternative, name in (('top', 'DNS:*.example', 'a.example'), ('all', 'DNS:*', 'a'),
                                    ('part', 'DNS:w*.example.org', 'ww.example.org'),
                                    ('inner', 'DNS:a.*.example.org', 'a.b.example.org')):
        for version in TLS12, TLS13:
            client_refusal(['-k', name], cert=named(cert, alternative), min=version, max=version)


@test('an IP address, of either kind')
def _():
    is_taken(['-k', '127.0.0.1'], 'server')
    is_taken(['-k', '::1'], named('v6', 'IP:::1'))
    is_taken(['-k', '0:0::0:1'], 'v6')


@test('a wrong IP address; one that is there as a name; one as a wildcard')
def _():
    named('notip', 'DNS:127.0.0.1,DNS:*.0.0.1')
    for address, cert in (('127.0.0.2', 'server'), ('::1', 'server'), ('127.0.0.1', 'notip'),
                          ('127.0.0.1', named('v6', 'IP:::1')), ('::2', 'v6')):
        is_refused(['-k', address], cert, 'name `%s\' not present in server certificate' % address)


@test('the common name counts only where there is no other')
def _():
    is_taken(['-k', 'old.example'], issued('old', 'basicConstraints=CA:FALSE',
                                           subject='/CN=old.example'))
    is_refused(['-k', 'new.example'], issued('new', EXT['a'], subject='/CN=new.example'),
               'name `new.example\' not present in server certificate')


@test('a name with a null byte in it is not the name before that')
def _():
    name = b'localhost\0.evil.example'
    der = b'\x30%c\x82%c%s' % (len(name) + 2, len(name), name)
    issued('null', 'subjectAltName=DER:' + der.hex())
    for version in TLS12, TLS13:
        client_refusal(HERE, cert='null', min=version, max=version)


@test('no name on the command line: 100, and what to give')
def _():
    for options in [], ['-y'], ['-O'], ['-C', '2']:
        server, c = connect_client(options, ['echo', 'ran'])
        is_equal(read_to_end(server), b'')
        dies(c, 100, 'tls-handshake: fatal: no server name to verify: give -k name, or -n')


# Time

def dated(name, start, end):
    """A certificate that is valid between two times."""
    d = temp_dir()
    for file, content in (('index', ''), ('serial', '1000'), ('cnf', (
            '[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\n'
            'default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' % (d, d, d)))):
        with open('%s/%s' % (d, file), 'w') as f:
            f.write(content)
    issued(name)
    openssl('ca', '-batch', '-config', d + '/cnf', '-cert', pki_path('ca.pem'), '-keyfile',
            pki_path('ca.key'), '-in', pki_path(name + '.csr'), '-extfile', pki_path(name + '.ext'),
            '-startdate', start, '-enddate', end, '-notext', '-out', pki_path(name + '.pem'))
    return name


@test('a certificate that has expired')
def _():
    is_refused(HERE, dated('expired', '20200101000000Z', '20200201000000Z'),
               NOT_VERIFIED + 'certificate has expired', 'CERTIFICATE_EXPIRED')


@test('a certificate that is not yet valid')
def _():
    is_refused(HERE, dated('early', '20400101000000Z', '20480101000000Z'),
               NOT_VERIFIED + 'certificate is not yet valid', 'BAD_CERTIFICATE')


# Authorities

UNKNOWN = NOT_VERIFIED + 'unable to get local issuer certificate'


@test('a self-signed certificate; one that the client trusts')
def _():
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-keyout', pki_path('self.key'), '-out', pki_path('self.pem'), '-subj', '/CN=localhost',
            '-addext', EXT['server'])
    is_refused(HERE, 'self', NOT_VERIFIED + 'self', 'UNKNOWN_CA')
    is_taken(HERE, 'self', {'CAFILE': pki_path('self.pem')})


@test('an authority that is not known')
def _():
    is_refused(HERE, issued('stranger', ca='otherca'), UNKNOWN, 'UNKNOWN_CA')


@test('an authority that is not known, and that the server shows')
def _():
    bundle('introduced', issued('stranger', ca='otherca'), 'stranger', 'otherca')
    is_refused(HERE, 'introduced', NOT_VERIFIED + 'self', 'UNKNOWN_CA')


@test('an authority that has the name of a known one, but another key')
def _():
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-keyout', pki_path('false.key'), '-out', pki_path('false.pem'), '-subj', '/CN=Test ca',
            '-addext', 'basicConstraints=critical,CA:TRUE')
    is_refused(HERE, issued('forged', ca='false'), NOT_VERIFIED,
               'UNKNOWN_CA')


@test('six intermediate certificates are verified, seven are too many')
def _():
    between, ca = [], 'ca'
    for n in range(1, 8):
        ca = issued('between%d' % n, 'basicConstraints=critical,CA:TRUE', ca=ca)
        between.insert(0, ca)
        if n >= 6:
            name = 'below%d' % n
            bundle(name, issued('under%d' % n, EXT['server'], ca=ca), 'under%d' % n, *between)
    is_taken(HERE, 'below6')
    is_refused(HERE, 'below7', NOT_VERIFIED, 'UNKNOWN_CA')


@test('an intermediate certificate that the server does not send; the client that has it')
def _():
    issued('middle', A_CA)
    issued('leaf', ca='middle')
    is_refused(HERE, 'leaf', UNKNOWN, 'UNKNOWN_CA')
    bundle('complete', 'leaf', 'leaf', 'middle')
    is_taken(HERE, 'complete')
    is_taken(HERE, 'leaf', {'CADIR': hashed_dir('ca', 'middle')})


@test('an intermediate certificate that must not issue any')
def _():
    issued('pretender', ca='server')
    bundle('pretended', 'pretender', 'pretender', 'server')
    is_refused(HERE, 'pretended', NOT_VERIFIED,
               'UNKNOWN_CA')


@test('a certificate that is not one for servers')
def _():
    issued('noserver', EXT['server'] + '\nextendedKeyUsage=clientAuth')
    is_refused(HERE, 'noserver', NOT_VERIFIED + 'unsu', 'UNSUPPORTED_CERTIFICATE')


# Revocation

def revocations(ca, *certs):
    """A CRL of that authority, in PEM, with these certificates."""
    d = temp_dir()
    for file, content in (('index', ''), ('cnf', '[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index\n'
                                                 'default_md=sha256\ndefault_crl_days=30\n' % d)):
        with open('%s/%s' % (d, file), 'w') as f:
            f.write(content)
    signer = ['-config', d + '/cnf', '-cert', pki_path(ca + '.pem'), '-keyfile',
              pki_path(ca + '.key')]
    for name in certs:
        openssl('ca', *signer, '-revoke', pki_path(name + '.pem'))
    return openssl('ca', *signer, '-gencrl')


@test('a certificate that a CRL has revoked; others of its authority are taken')
def _():
    env = ca_env(CRLFILE=temp(revocations('ca', issued('gone'))))
    is_refused(HERE, 'gone', NOT_VERIFIED + 'certificate revoked',
               'CERTIFICATE_REVOKED', env)
    is_taken(HERE, 'server', env)
    is_taken(HERE, 'gone')


@test('an authority without a CRL, where there has to be one')
def _():
    env = {'CAFILE': pki_path('otherca.pem'), 'CRLFILE': temp(revocations('ca'))}
    is_refused(HERE, issued('stranger', ca='otherca'),
               NOT_VERIFIED + 'unable to get certificate CRL', 'UNKNOWN_CA', env)


@test('a CRL of each authority on the way; an intermediate certificate that is revoked')
def _():
    issued('middle', A_CA)
    issued('leaf', ca='middle')
    if not os.path.exists(pki_path('complete.pem')):
        bundle('complete', 'leaf', 'leaf', 'middle')
    lists = revocations('ca') + revocations('middle')
    is_taken(HERE, 'complete', ca_env(CRLFILE=temp(lists)))
    lists = revocations('ca', 'middle') + revocations('middle')
    is_refused(HERE, 'complete', NOT_VERIFIED + 'certificate revoked',
               'CERTIFICATE_REVOKED', ca_env(CRLFILE=temp(lists)))


@test('-n verifies all but the name; -N verifies nothing')
def _():
    issued('stranger', ca='otherca')
    is_refused(['-n'], 'stranger', UNKNOWN, 'UNKNOWN_CA')
    is_refused(['-n'], dated('expired', '20200101000000Z', '20200201000000Z'),
               NOT_VERIFIED + 'certificate has expired', 'CERTIFICATE_EXPIRED')
    is_taken(['-n', '-k', 'wrong.example'], 'server')
    for cert in 'stranger', 'expired', 'client':
        is_taken(['-N', '-v', '0', '-k', 'wrong.example'], cert)


run()
