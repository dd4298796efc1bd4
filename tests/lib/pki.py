# ISC licence: see COPYING.
"""The PKI of the tests. One CA, and what it issued; another CA that nobody trusts."""

import hashlib
import os
import shutil
import subprocess
import tempfile

from scratch import temp, temp_dir
from tap import at_end

_pki = None
EXT = {
    'server': 'subjectAltName=DNS:localhost,DNS:example.org,DNS:*.example.net,IP:127.0.0.1',
    'a': 'subjectAltName=DNS:a.example.org',
    'b': 'subjectAltName=DNS:b.example.org',
    'wild': 'subjectAltName=DNS:*.wild.example.org',
    'client': 'extendedKeyUsage=clientAuth',
    'client2': 'extendedKeyUsage=clientAuth',
    'revoked': 'extendedKeyUsage=clientAuth',
    'serveronly': 'extendedKeyUsage=serverAuth',
}


def openssl(*args, **kw):
    return subprocess.run(['openssl', *args], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **kw).stdout


def pki():
    """The directory of the test PKI: NAME.key and NAME.pem for ca, otherca, and each in EXT, with
    an EC P-256 key; rsa.key and rsa.pem like server; crl.pem, which has revoked in it."""
    global _pki
    if _pki:
        return _pki
    _pki = d = tempfile.mkdtemp(prefix='tls-chain-pki.')
    os.chmod(d, 0o755)  # for an engine that is not root any more
    for ca in 'ca', 'otherca':
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                '-keyout', '%s/%s.key' % (d, ca), '-out', '%s/%s.pem' % (d, ca), '-days', '30',
                '-subj', '/CN=Test ' + ca, '-addext', 'basicConstraints=critical,CA:TRUE',
                '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
    for name in EXT:
        issue(d, name, EXT[name])
    issue(d, 'rsa', EXT['server'], key=['rsa:2048'])
    with open(d + '/index.txt', 'w'), open(d + '/ca.cnf', 'w') as f:
        f.write('[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index.txt\ndefault_md=sha256\n'
                'default_crl_days=30\ncertificate=%s/ca.pem\nprivate_key=%s/ca.key\n' % (d, d, d))
    openssl('ca', '-config', d + '/ca.cnf', '-revoke', d + '/revoked.pem')
    openssl('ca', '-config', d + '/ca.cnf', '-gencrl', '-out', d + '/crl.pem')
    return d


def issue(d, name, extensions, key=('ec', '-pkeyopt', 'ec_paramgen_curve:P-256'), ca='ca',
          subject=None, days='30'):
    """A key and a certificate for it: d/NAME.key, d/NAME.pem."""
    base = '%s/%s' % (d, name)
    with open(base + '.ext', 'w') as f:
        f.write(extensions + '\n')
    openssl('req', '-new', '-newkey', *key, '-nodes', '-keyout', base + '.key',
            '-out', base + '.csr', '-subj', subject or '/CN=' + name)
    openssl('x509', '-req', '-in', base + '.csr', '-CA', '%s/%s.pem' % (d, ca), '-CAkey',
            '%s/%s.key' % (d, ca), '-out', base + '.pem', '-days', days, '-extfile', base + '.ext')


def pki_path(name):
    return '%s/%s' % (pki(), name)


def issued(name, extensions=EXT['server'], **more):
    """A certificate of the CA, made when it is first asked for."""
    if not os.path.exists(pki_path(name + '.pem')):
        issue(pki(), name, extensions, **more)
    return name


def signer(ca):
    """A directory for openssl ca, and its arguments to sign as that authority."""
    d = temp_dir()
    for file, content in (('index', ''), ('cnf', (
            '[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\n'
            'default_md=sha256\ndefault_crl_days=30\npolicy=p\n[p]\ncommonName=supplied\n'
            % (d, d)))):
        with open('%s/%s' % (d, file), 'w') as f:
            f.write(content)
    return ['ca', '-batch', '-notext', '-config', d + '/cnf', '-cert', pki_path(ca + '.pem'),
            '-keyfile', pki_path(ca + '.key')]


def issued_between(name, start, end, extensions=EXT['server']):
    """A certificate of the CA that is valid between two times, as openssl ca writes them."""
    if not os.path.exists(pki_path(name + '.csr')):
        issue(pki(), name, extensions)
        openssl(*signer('ca'), '-in', pki_path(name + '.csr'), '-extfile', pki_path(name + '.ext'),
                '-startdate', start, '-enddate', end, '-out', pki_path(name + '.pem'))
    return name


def revocations(ca, *certs, more=()):
    """A CRL of that authority, in PEM, with these certificates; more options of openssl ca."""
    command = signer(ca)
    for name in certs:
        openssl(*command, '-revoke', pki_path(name + '.pem'))
    return openssl(*command, '-gencrl', *more)


@at_end
def remove_pki():
    if _pki:
        shutil.rmtree(_pki)


def cert_hash(name):
    """What SSL_PEER_CERT_HASH should be for a certificate of the PKI."""
    der = openssl('x509', '-in', '%s/%s.pem' % (pki(), name), '-outform', 'DER')
    return 'SHA256:' + hashlib.sha256(der).hexdigest()


def server_env(name='server', **more):
    """Variables for a server with that key pair; more of them, None to leave one out."""
    env = {'KEYFILE': '%s/%s.key' % (pki(), name), 'CERTFILE': '%s/%s.pem' % (pki(), name)}
    env.update(more)
    return {k: v for k, v in env.items() if v is not None}


def ca_env(**more):
    """Variables for a client that trusts the test CA; more of them, None to leave one out."""
    env = dict({'CAFILE': pki() + '/ca.pem'}, **more)
    return {k: v for k, v in env.items() if v is not None}


def bundle(name, key, *certs):
    """A file of several certificates, PKI/NAME.pem, with a key; its text."""
    pem = ''
    for cert in certs:
        with open('%s/%s.pem' % (pki(), cert)) as f:
            pem += f.read()
    with open('%s/%s.pem' % (pki(), name), 'w') as f:
        f.write(pem)
    os.symlink('%s/%s.key' % (pki(), key), '%s/%s.key' % (pki(), name))
    return pem


def hashed_dir(*certs):
    """A CADIR with these certificates."""
    d = temp_dir()
    for name in certs:
        pem = '%s/%s.pem' % (pki(), name)
        os.symlink(pem, '%s/%s.0' % (d, openssl('x509', '-in', pem, '-noout', '-hash')
                                     .decode().strip()))
    return d


def cert_serial(name):
    return openssl('x509', '-in', pki_path(name + '.pem'), '-noout',
                   '-serial').decode().strip().partition('=')[2]


def ocsp_response(name, status='V', signer='ca'):
    """A file with an OCSP response about a certificate: V is valid, R is revoked."""
    index = temp('\t'.join((status, '300101000000Z', '200101000000Z' if status == 'R' else '',
                            cert_serial(name), 'unknown', '/CN=' + name)) + '\n')
    response, request = temp(), temp()
    openssl('ocsp', '-issuer', pki_path('ca.pem'), '-cert', pki_path(name + '.pem'), '-no_nonce',
            '-reqout', request)
    openssl('ocsp', '-index', index, '-CA', pki_path('ca.pem'), '-rsigner',
            pki_path(signer + '.pem'),
            '-rkey', pki_path(signer + '.key'), '-reqin', request, '-respout', response, '-ndays',
            '7')
    return response
