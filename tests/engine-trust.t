#!/usr/bin/env python3
# ISC licence: see COPYING.
# Trust that cannot be used, and who is not trusted: each in words of its own, at either side.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import is_libressl
from clients import HERE, client_facts, client_refusal
from peer import TLS12, TLS13
from pki import (EXT, bundle, ca_env, hashed_dir, issued, issued_between, openssl, pki_path,
                 revocations, server_env)
from scratch import temp, temp_dir
from sessions import server_facts, server_refusal, turned_away
from tap import is_equal, is_true, run, test

CLIENT = 'extendedKeyUsage=clientAuth'
A_CA = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'


def pem(name):
    with open(pki_path(name + '.pem')) as f:
        return f.read()


def spoiled(name):
    """A certificate in PEM whose bytes are those of no certificate."""
    lines = pem(name).splitlines(True)
    lines[3] = lines[3].strip()[::-1] + '\n'
    return ''.join(lines)


# CAFILE and CRLFILE that are none

def pkcs7(*more):
    return openssl('crl2pkcs7', '-nocrl', '-certfile', pki_path('ca.pem'), *more)


DER, PKCS7 = 'it is in DER, not in PEM', 'it is in PKCS #7, not in PEM blocks'
CUT, BAD = 'it is cut off in a PEM block', 'a certificate in it cannot be read'
NO_ROOT = 'it has no root certificate: add that of the authority on top'
NO_CERT, NO_CRL = 'there is no certificate in PEM in it', 'there is no CRL in PEM in it'

ANCHORS = {
    'in DER': (lambda: openssl('x509', '-in', pki_path('ca.pem'), '-outform', 'DER'), DER),
    'in PKCS #7': (pkcs7, PKCS7),
    'in PKCS #7 and in DER': (lambda: pkcs7('-outform', 'DER'), DER),
    'cut off in its only certificate': (lambda: pem('ca')[:-60], CUT),
    'cut off in its second certificate': (lambda: pem('ca') + pem('otherca')[:200], CUT),
    'with a bad certificate as its first': (lambda: spoiled('otherca') + pem('ca'), BAD),
    'with a bad certificate among good ones':
        (lambda: pem('ca') + spoiled('otherca') + pem('client'), BAD),
    'with a bad certificate as its last': (lambda: pem('ca') + spoiled('otherca'), BAD),
    'that is a key': (lambda: open(pki_path('ca.key')).read(), NO_CERT),
    'that is a CRL': (lambda: open(pki_path('crl.pem')).read(), NO_CERT),
}

for what, (make, words) in ANCHORS.items():
    @test('CAFILE %s is refused in words of its own, by a server and by a client' % what)
    def _(make=make, words=words):
        f = temp(make())
        wanted = 'unable to use CAFILE %s: %s' % (f, words)
        for option in '-Y', '-y':
            is_equal(server_refusal(server_env(CAFILE=f), [option]), wanted)
        is_equal(client_refusal(HERE, {'CAFILE': f}, code=96), wanted)
        is_equal(client_refusal(HERE, {'CAFILE': f, 'CADIR': hashed_dir('ca')}, code=96), wanted,
                 'with a good CADIR')


@test('CAFILE with intermediate certificates only is refused, unless CADIR can have the root')
def _():
    issued('middle', A_CA)
    issued('lower', A_CA, ca='middle')
    f = temp(pem('lower') + pem('middle'))
    wanted = 'unable to use CAFILE %s: %s' % (f, NO_ROOT)
    is_equal(server_refusal(server_env(CAFILE=f), ['-y']), wanted)
    is_equal(client_refusal(HERE, {'CAFILE': f}, code=96), wanted)
    cert = issued('lowest', EXT['server'], ca='lower')
    client_facts(HERE, {'CAFILE': f, 'CADIR': hashed_dir('ca')}, cert=cert)
    client_facts(HERE, {'CAFILE': temp(pem('lower') + pem('middle') + pem('ca'))}, cert=cert)

CRLS = {
    'in DER': (lambda: openssl('crl', '-in', pki_path('crl.pem'), '-outform', 'DER'), DER),
    'cut off': (lambda: pem('crl')[:-60], CUT),
    'cut off in its second list': (lambda: revocations('otherca').decode() + pem('crl')[:-60], CUT),
    'that is a certificate': (lambda: pem('ca'), NO_CRL),
    'in PKCS #7': (pkcs7, PKCS7),
}

for what, (make, words) in CRLS.items():
    @test('CRLFILE %s is refused in words of its own, by a server and by a client' % what)
    def _(make=make, words=words):
        f = temp(make())
        wanted = 'unable to use CRLFILE %s: %s' % (f, words)
        is_equal(server_refusal(server_env(CAFILE=pki_path('ca.pem'), CRLFILE=f), ['-y']), wanted)
        is_equal(client_refusal(HERE, ca_env(CRLFILE=f), code=96), wanted)


@test('CAFILE with a bad entry of CADIR: the one that is bad is named')
def _():
    d = hashed_dir('otherca')
    entry = d + '/01234567.0'
    for content, words in (spoiled('ca'), BAD), (pem('ca')[:-60], CUT):
        with open(entry, 'w') as f:
            f.write(content)
        why = client_refusal(HERE, ca_env(CADIR=d), code=96)
        is_equal(why, 'unable to use CADIR %s: %s' % (entry, words))


# Who is not trusted

VERIFICATION = 'certificate verification failed: '
CURRENT, EVERY = "CRLFILE needs the authority's current list", \
    'CRLFILE needs the list of every authority on the way'
PURPOSE = 'the certificate is not meant for this side: extendedKeyUsage'


def crl(*more, ca='ca'):
    return temp(revocations(ca, more=more))


def with_ca(**more):
    return {'CAFILE': pki_path('ca.pem'), **more}


def middle(name, extensions):
    """A certificate of an intermediate authority, that comes without that one's."""
    issued('middle', A_CA)
    return issued(name, extensions, ca='middle')


# what is trusted; the client's certificate, the server's; a word of the reason, and of the hint
REFUSED = {
    'an unknown authority': (
        lambda: {'CAFILE': pki_path('otherca.pem')}, lambda: 'client', lambda: 'server',
        'unable to get local issuer certificate', 'either an intermediate certificate is missing'),
    'an intermediate certificate only, in CADIR': (
        lambda: {'CADIR': hashed_dir('middle')}, lambda: middle('mclient', CLIENT),
        lambda: middle('mserver', EXT['server']),
        'unable to get', 'either an intermediate' if is_libressl() else
        "CAFILE or CADIR has an intermediate certificate only: add the root's"),
    'a certificate for the other side': (
        with_ca, lambda: 'serveronly', lambda: issued('clientonly', EXT['server'] + '\n' + CLIENT),
        'certificate purpose', PURPOSE),
    'a CRL that has expired': (
        lambda: with_ca(CRLFILE=crl('-crl_lastupdate', '20200101000000Z', '-crl_nextupdate',
                                    '20200201000000Z')),
        lambda: 'client', lambda: 'server', 'CRL has expired', CURRENT),
    'a CRL that is not valid yet': (
        lambda: with_ca(CRLFILE=crl('-crl_lastupdate', '20400101000000Z', '-crl_nextupdate',
                                    '20410101000000Z')),
        lambda: 'client', lambda: 'server', 'CRL is not yet valid', 'is this clock right?'),
    'a CRL of another authority': (
        lambda: with_ca(CRLFILE=crl(ca='otherca')), lambda: 'client', lambda: 'server',
        'unable to get certificate CRL', EVERY),
    'a certificate that is revoked': (
        lambda: with_ca(CRLFILE=temp(revocations('ca', 'client2', issued('gone')))),
        lambda: 'client2', lambda: 'gone', 'certificate revoked', ''),
    'a certificate that has expired': (
        with_ca, lambda: issued_between('oldc', '20200101000000Z', '20200201000000Z', CLIENT),
        lambda: issued_between('olds', '20200101000000Z', '20200201000000Z', EXT['server']),
        'certificate has expired', 'its owner must renew it, if this clock is right'),
    'a certificate that is not valid yet': (
        with_ca, lambda: issued_between('newc', '20400101000000Z', '20480101000000Z', CLIENT),
        lambda: issued_between('news', '20400101000000Z', '20480101000000Z', EXT['server']),
        'not yet valid', 'is this clock right?'),
}


def is_told(why, words, hint):
    is_true(why.startswith(VERIFICATION) and words in why, why)
    is_true(' (%s' % hint in why if hint else '(' not in why, why)


for what, (env, client, server, words, hint) in REFUSED.items():
    @test('%s: in words of its own, at a server and at a client' % what)
    def _(make=env, client=client, server=server, words=words, hint=hint):
        shown, cert = client(), server()
        env = make()
        for version in {'min': TLS12, 'max': TLS12}, {'min': TLS13, 'max': TLS13}:
            for option in '-Y', '-y':
                alert, why = turned_away(server_env(**env), [option], cert=shown, **version)
                is_true('ALERT' in alert, alert)
                if is_libressl() and version['max'] == TLS12:  # which does not tell us
                    is_true('returned (the client\'s certificate is not trusted;' in why, why)
                else:
                    is_told(why, words, hint)
            is_told(client_refusal(HERE, env, cert=cert, **version), words, hint)


@test('no two of these refusals have the same words')
def _():
    told = [words + hint for _, _, _, words, hint in REFUSED.values()]
    is_equal(len(set(told)), len(told))


@test('with a current CRL of each authority everybody is served')
def _():
    middle('mclient', CLIENT)
    middle('mserver', EXT['server'])
    for name in 'mclient', 'mserver':
        if not os.path.exists(pki_path(name + 'all.pem')):
            bundle(name + 'all', name, name, 'middle')
    lists = temp(revocations('ca') + revocations('middle'))
    server_facts(server_env(**with_ca(CRLFILE=lists)), ['-y'], cert='mclientall')
    client_facts(HERE, with_ca(CRLFILE=lists), cert='mserverall')


@test('a TRUSTED CERTIFICATE of openssl is a certificate, too')
def _():
    f = temp(openssl('x509', '-in', pki_path('ca.pem'), '-trustout'))
    is_true(b'BEGIN TRUSTED CERTIFICATE' in open(f, 'rb').read(), 'what openssl makes')
    server_facts(server_env(CAFILE=f), ['-y'], cert='client')
    client_facts(HERE, {'CAFILE': f}, cert='server')


@test('CADIR without a hashed name: a server, too, is told how to make them')
def _():
    d = temp_dir()
    with open(d + '/ca.pem', 'w') as f:
        f.write(pem('ca'))
    is_equal(server_refusal(server_env(CADIR=d), ['-y']), 'unable to use CADIR %s: no certificate '
             'in it is named by hash: run openssl rehash on it' % d)


run()
