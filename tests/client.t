#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-handshake -c: what a client asks for, shows, accepts and knows of its server.

import os
import re
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import FATAL, TOP, Chain, dies, not_resident, reason
from clients import (OpensslServer, client_facts, client_refusal, connect_client, serve_client,
                     start_client)
from peer import TLS12, TLS13, Peer, plain_context
from pki import EXT, bundle, ca_env, cert_hash, hashed_dir, issue, openssl, pki, server_env
from scratch import temp, temp_dir
from sockets import read_to_end, tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test

HELLO = 'echo hello >&7; exec 7>&-; cat <&6'  # shows what comes back
HERE = ['-k', 'localhost']


def path(name):
    return '%s/%s' % (pki(), name)


def issued(name, extensions=EXT['server'], **more):
    """A certificate of the CA, made when it is first asked for."""
    if not os.path.exists(path(name + '.pem')):
        issue(pki(), name, extensions, **more)
    return name


# The network

@test('a client on 6 and 7 talks to openssl s_server, and knows how that ended')
def _():
    for version in '-tls1_2', '-tls1_3':
        s = OpensslServer('-cert', path('server.pem'), '-key', path('server.key'), version)
        c = start_client(['tls-handshake', '-c', *HERE, 'tls-io', '-w', 'sh', '-c', HELLO],
                         s.connect())
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), 'olleh\n')


@test('-6 and -7: the network of a client elsewhere, its plaintext in the same place')
def _():
    for options, r, w in (['-6', '8', '-7', '9'], 8, 9), (['-6', '8'], 8, 7), (['-7', '9'], 6, 9):
        client, server = tcp_pair()
        with open('/dev/null') as null:
            unused = dict.fromkeys((6, 7, 8, 9), null.fileno())
            c = start_client(['tls-handshake', '-c', *HERE, *options, 'tls-io', '-w',
                              'sh', '-c', 'cat <&%d >&%d' % (r, w)], client,
                             fds={**unused, r: client.fileno(), w: client.fileno()})
        peer = serve_client(server)
        peer.send(b'hello')
        is_equal(peer.end_politely(), (b'hello', 'close_notify'))
        is_equal(c.wait(), 0)


@test('a server that hangs up in the middle of the handshake: 97')
def _():
    server, c = connect_client(HERE)
    server.recv(65536)
    server.close()
    is_equal(reason(c), 'the peer closed the connection')


@test('a server that resets the connection: 97')
def _():
    server, c = connect_client(HERE)
    server.recv(65536)
    Peer(server, client=False).reset()
    is_equal(reason(c), 'Connection reset by peer')


@test('an alert of the server is told: 97')
def _():
    text = client_refusal(HERE, alpn=['x'], ciphers='ECDHE-ECDSA-AES128-SHA', max=TLS12)
    is_true('handshake failure' in text, text)


# -K

TIMED_OUT = 'the handshake timed out'


@test('-K: a server that says nothing is left after that long, 97')
def _():
    server, c = connect_client(['-K', '100', *HERE])
    is_equal(reason(c), TIMED_OUT)


@test('-K: a server that stops in the middle of its answer is left as well')
def _():
    server, c = connect_client(['-K', str(500 * SLOW), *HERE])
    peer = Peer(server, client=False, cert='server')
    peer._in.write(server.recv(65536))
    try:
        peer.tls.do_handshake()
    except ssl.SSLWantReadError:
        server.sendall(peer.pending_records()[:-1])
    is_equal(reason(c), TIMED_OUT)


# -k, -n, -N

def sni(options, **settings):
    """The name that the server is asked for."""
    names = []
    context = plain_context(False, cert='server', **settings)
    context.sni_callback = lambda tls, name, context: names.append(name)
    server, c = connect_client(options)
    is_equal(serve_client(server, context=context).end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    return names


@test('-k is sent as SNI, as it is, to a server of TLS 1.2 and of 1.3')
def _():
    for version in TLS12, TLS13:
        for name in 'localhost', 'example.org', 'LocalHost', 'any.example.net':
            is_equal(sni(['-k', name], min=version, max=version), [name])


@test('-k is sent as SNI also where it is not verified')
def _():
    for option in '-n', '-N':
        is_equal(sni([option, '-k', 'other.example']), ['other.example'])


@test('without a name none is sent')
def _():
    for option in '-n', '-N':
        is_equal(sni([option]), [None])


@test('-k: an IP address is looked for in the certificate, not sent')
def _():
    is_equal(sni(['-k', '127.0.0.1']), [None])
    f = client_facts(['-k', '::1'], cert=issued('v6', 'subjectAltName=IP:::1'))
    is_equal(f['SSL_PEER_CERT_HASH'], cert_hash('v6'))


@test('-k: a dot at the end of a name is of no account')
def _():
    is_equal(sni(['-k', 'localhost.']), ['localhost'])
    is_equal(client_facts(['-k', 'Example.ORG.'])['SSL_TLS_SNI_SERVERNAME'], 'example.org')


@test('-k: what was not sent is not SSL_TLS_SNI_SERVERNAME')
def _():
    for options in ['-k', '127.0.0.1'], ['-n'], ['-n', '-k', '::1']:
        is_equal(client_facts(options).get('SSL_TLS_SNI_SERVERNAME'), None, 'with %r' % options)


@test('-k that is neither a host name nor an IP address: 96, and the server gets not one byte')
def _():
    for name in ('*.example.net', 'a b', '[::1]', '.', '..', 'a..b', '.a', '-a', 'a/b', 'a:1',
                 'b\u00fccher.example', 'x' * 254):
        for options in ['-k', name], ['-n', '-k', name]:
            server, c = connect_client(options, ['echo', 'ran'])
            server.shutdown(socket.SHUT_WR)
            is_equal(read_to_end(server), b'', 'what the server gets')
            is_equal(reason(c, 96), '-k %s is neither a host name nor an IP address' % name)
    is_equal(client_refusal(['-k', 'a\nb'], code=96),
             '-k a?b is neither a host name nor an IP address')


@test('a client that was given neither name nor -n nor -N: 100, and the server gets not one byte')
def _():
    server, c = connect_client([], ['echo', 'ran'])
    is_equal(read_to_end(server), b'')
    dies(c, 100, 'tls-handshake: fatal: no server name to verify: give -k name, or -n')


@test('-n takes a server of any name, if it is one that can be trusted')
def _():
    is_equal(client_facts(['-n'], cert='a')['stderr'], '')
    issued('stranger', ca='otherca')
    is_true('certificate verif' in client_refusal(['-n'], cert='stranger'), 'verifies')


@test('-N takes any server, and says once that it verifies nothing')
def _():
    issued('stranger', ca='otherca')
    for options in ['-N'], ['-N', '-k', 'wrong.example'], ['-N', '-n', '-N']:
        for env in ca_env(), {}:
            said = client_facts(options, env=env, cert='stranger')['stderr']
            is_true(re.fullmatch('tls-handshake: warning: [^\n]*nothing is verified\n', said), said)
    is_equal(client_facts(['-N', '-v', '0'], cert='stranger')['stderr'], '', 'stderr with -v 0')


@test('-N needs no trust store: what is wrong with it does not matter')
def _():
    client_facts(['-N'], env={'CAFILE': '/nonesuch', 'CADIR': '/nonesuch', 'CRLFILE': '/nonesuch'})


# -y

def showing(**more):
    """Variables for a client that has a certificate."""
    return ca_env(**server_env('client', **more))


def shown(options, mode=ssl.CERT_REQUIRED, **settings):
    """The common name in the certificate that the client shows, or None."""
    context = plain_context(False, cert='server', verify=True, **settings)
    context.verify_mode = mode
    server, c = connect_client([*HERE, *options], env=showing())
    peer = serve_client(server, context=context)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    cert = peer.tls.getpeercert()
    return cert and dict(pair for name in cert['subject'] for pair in name)['commonName']


@test('-y shows a certificate to a server that demands one; -Y does so too')
def _():
    for version in TLS12, TLS13:
        for option in '-y', '-Y':
            is_equal(shown([option], min=version, max=version), 'client')


@test('-y shows nothing to a server that asks for nothing')
def _():
    is_equal(shown(['-y'], ssl.CERT_NONE), None)


@test('without -y no certificate is shown, even if the variables of one are set')
def _():
    is_equal(shown([], ssl.CERT_OPTIONAL), None)


@test('a server that demands one turns a client without away: 97, in TLS 1.3 in the session, 98')
def _():
    for version, code in (TLS12, 97), (TLS13, 98):
        context = plain_context(False, cert='server', verify=True, min=version, max=version)
        server, c = connect_client(HERE)
        try:
            serve_client(server, context=context)
            raise AssertionError('the server let it in')
        except ssl.SSLError as e:
            is_equal(e.reason, 'PEER_DID_NOT_RETURN_A_CERTIFICATE')
        server.shutdown(socket.SHUT_WR)
        is_equal(c.wait(), code)
        is_true('alert' in c.stderr(), c.stderr())


@test('-y without a certificate to show, with half of a pair, or a wrong one: 96')
def _():
    not_resident('says so in words of its own: see engined.t')
    for env, words in ((ca_env(), 'KEYFILE and CERTFILE are not set: no certificate to show'),
                       (showing(KEYFILE=None), 'KEYFILE is not set, CERTFILE is'),
                       (showing(CERTFILE=None), 'CERTFILE is not set, KEYFILE is'),
                       (showing(KEYFILE='/nonesuch'),
                        'unable to read KEYFILE /nonesuch: No such file or directory')):
        is_equal(client_refusal([*HERE, '-y'], env, 96), words)
    text = client_refusal([*HERE, '-y'], showing(KEYFILE=path('server.key')), 96)
    is_true(text.startswith('unable to use CERTFILE %s with KEYFILE %s: '
                            % (path('client.pem'), path('server.key'))), text)


# Trust

def trusts(env, options=HERE, **more):
    """Of two servers that are alike but for the CA, those that a client trusts."""
    found = set()
    for ca in 'ca', 'otherca':
        name = issued('by-' + ca, ca=ca)
        server, c = connect_client(options, ['tls-io', '-w', 'true'], env=env, **more)
        try:
            is_equal(serve_client(server, cert=name).end_politely(), (b'', 'close_notify'))
            is_equal(c.wait(), 0)
            found.add(ca)
        except ssl.SSLError:
            server.close()
            is_true('certificate verif' in reason(c), c.stderr())
    return found


@test('CAFILE: one authority, or several in a file')
def _():
    is_equal(trusts({'CAFILE': path('ca.pem')}), {'ca'})
    is_equal(trusts({'CAFILE': path('otherca.pem')}), {'otherca'})
    both = [openssl('x509', '-in', path(ca + '.pem')) for ca in ('otherca', 'ca')]
    is_equal(trusts({'CAFILE': temp(b''.join(both))}), {'ca', 'otherca'})


@test('CADIR: the authorities that are hashed there')
def _():
    is_equal(trusts({'CADIR': hashed_dir('ca')}), {'ca'})
    is_equal(trusts({'CADIR': hashed_dir('ca', 'otherca')}), {'ca', 'otherca'})
    is_equal(trusts({'CADIR': hashed_dir()}), set())


@test('CAFILE and CADIR: those of both')
def _():
    is_equal(trusts({'CAFILE': path('ca.pem'), 'CADIR': hashed_dir('otherca')}), {'ca', 'otherca'})
    is_equal(trusts({'CAFILE': path('otherca.pem'), 'CADIR': hashed_dir('ca')}), {'ca', 'otherca'})
    is_equal(trusts({'CAFILE': path('ca.pem'), 'CADIR': hashed_dir()}), {'ca'})


@test('CAFILE or CADIR that is not there, or is none: 96')
def _():
    for env, words in (({'CAFILE': '/nonesuch'}, 'unable to read CAFILE /nonesuch: No such file'),
                       ({'CADIR': '/nonesuch'}, 'unable to open CADIR /nonesuch: No such file'),
                       ({'CAFILE': temp(b'no PEM')}, 'unable to use CAFILE '),
                       ({'CAFILE': temp()}, 'unable to use CAFILE '),
                       ({'CADIR': path('ca.pem')}, 'unable to open CADIR ')):
        text = client_refusal(HERE, env, 96)
        is_true(text.startswith(words), text)


def system_directory():
    """Where the libtls of the engine expects what the system trusts."""
    engine = os.path.join(TOP, 'tls-engine')
    libraries = re.findall(r'=> (\S*(?:libtls|libcrypto)\S*)', subprocess.run(
        ['ldd', engine], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)
    for name in sorted(libraries, key=lambda s: 'libcrypto' in s) + [engine]:
        with open(name, 'rb') as f:
            found = re.search(rb'(/[!-~]+)/cert\.pem\0', f.read())
        if found:
            return found[1].decode()


def on_system(files=(), certs=()):
    """A command that runs another on a system that trusts what is in these files: cert.pem has the
    first, certs/ the second, by name."""
    there = system_directory()
    if not there or not os.path.isdir(there):
        raise Skip('no directory for what the system trusts: %s' % there)
    if subprocess.run(['unshare', '-m', 'true'], stderr=subprocess.DEVNULL).returncode:
        raise Skip('no mount namespace to be had')
    d = temp_dir()
    os.mkdir(d + '/certs')
    for name, certificate in [*[('cert.pem', f) for f in files],
                              *[('certs/' + name, f) for name, f in certs]]:
        with open(path(certificate + '.pem')) as f, open('%s/%s' % (d, name), 'w') as to:
            to.write(f.read())
    return ['unshare', '-m', 'sh', '-c', 'mount --bind "$1" "$2" && shift 2 && exec "$@"', 'sh',
            d, there]


def hash_of(name):
    return openssl('x509', '-in', path(name + '.pem'), '-noout', '-hash').decode().strip() + '.0'


def system_trusts(wrapper, env={}):
    return {ca for ca in ('ca', 'otherca')
            if 'certificate verif' not in attempt(wrapper, env, issued('by-' + ca, ca=ca))}


def attempt(wrapper, env, cert):
    client, server = tcp_pair()
    c = start_client([*wrapper, 'tls-handshake', '-c', *HERE, 'tls-io', '-w', 'true'], client, env)
    try:
        serve_client(server, cert=cert).end_politely()
    except ssl.SSLError:
        server.close()
    c.wait()
    return c.stderr()


@test('neither CAFILE nor CADIR: the directory of the system, if it has hashed certificates')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    wrapper = on_system(files=['otherca'], certs=[(hash_of('ca'), 'ca')])
    is_equal(system_trusts(wrapper), {'ca'})


@test('neither CAFILE nor CADIR: else the file of the system')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    is_equal(system_trusts(on_system(files=['otherca'])), {'otherca'})
    wrapper = on_system(files=['otherca'], certs=[('ca.pem', 'ca'), ('README', 'ca')])
    is_equal(system_trusts(wrapper), {'otherca'}, 'with a directory that has no hashed certificate')


@test('neither CAFILE nor CADIR: a system that trusts nobody is told of, 96')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    text = client_refusal(HERE, {}, 96, on_system())
    is_true(re.match(r'unable to read \S+ /.*/cert.pem: No such file or directory', text), text)


@test('CAFILE or CADIR: the system is not asked')
def _():
    wrapper = on_system(certs=[(hash_of('ca'), 'ca')])
    is_equal(system_trusts(wrapper, {'CAFILE': path('otherca.pem')}), {'otherca'})
    is_equal(system_trusts(wrapper, {'CADIR': hashed_dir('otherca')}), {'otherca'})


@test('SSL_CERT_FILE and SSL_CERT_DIR do not matter')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    env = {'SSL_CERT_FILE': path('otherca.pem'), 'SSL_CERT_DIR': hashed_dir('otherca')}
    for wrapper in on_system(certs=[(hash_of('ca'), 'ca')]), on_system(files=['ca']):
        is_equal(system_trusts(wrapper, env), {'ca'})
    is_equal(trusts(dict(env, CAFILE=path('ca.pem'))), {'ca'})


# -O

def staple(name, status='V', signer='ca'):
    """A file with an OCSP response about a certificate: V is valid, R is revoked."""
    serial = openssl('x509', '-in', path(name + '.pem'), '-noout', '-serial').decode().split('=')[1]
    index = temp('\t'.join((status, '300101000000Z', '200101000000Z' if status == 'R' else '',
                            serial.strip(), 'unknown', '/CN=' + name)) + '\n')
    response, request = temp(), temp()
    openssl('ocsp', '-issuer', path('ca.pem'), '-cert', path(name + '.pem'), '-no_nonce',
            '-reqout', request)
    openssl('ocsp', '-index', index, '-CA', path('ca.pem'), '-rsigner', path(signer + '.pem'),
            '-rkey', path(signer + '.key'), '-reqin', request, '-respout', response, '-ndays', '7')
    return response


def with_staple(options, response, version):
    """The exit code of a client and what it says, of a server that staples this response."""
    s = OpensslServer('-cert', path('stapled.pem'), '-key', path('stapled.key'), version,
                      *(['-status_file', response] if response else []))
    c = start_client(['tls-handshake', '-c', *options, 'tls-io', '-w', 'sh', '-c', HELLO],
                     s.connect())
    return c.wait(), c.stderr()


@test('-O takes a server that staples a good OCSP response, and no other')
def _():
    issued('stapled', EXT['server'] + '\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1/')
    failed = FATAL + 'ocsp verify failed'
    for response, code, words in (
            (staple('stapled'), 0, 'olleh\n'),
            (None, 97, FATAL + 'no stapled OCSP response provided\n'),
            (staple('stapled', 'R'), 97, failed + ': revoked cert'),
            (staple('server'), 97, failed + ': no result for cert'),
            (staple('stapled', signer='otherca'), 97, failed)):
        for version in '-tls1_2', '-tls1_3':
            got, said = with_staple([*HERE, '-O'], response, version)
            is_equal(got, code, 'exit code with %r' % words)
            is_true(said.startswith(words) and said.count('\n') == 1, said)


@test('without -O no OCSP response is needed, but one that says revoked is believed')
def _():
    issued('stapled', EXT['server'] + '\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1/')
    is_equal(with_staple(HERE, staple('stapled'), '-tls1_3'), (0, 'olleh\n'))
    is_equal(with_staple(HERE, None, '-tls1_3'), (0, 'olleh\n'))
    code, said = with_staple(HERE, staple('stapled', 'R'), '-tls1_3')
    is_equal(code, 97)
    is_true('revoked' in said, said)


# Settings

@test('TLS_ALPN: what the client offers, in its order; SSL_ALPN is what the server took')
def _():
    for offer, choice, taken in (('smtp', ['smtp'], 'smtp'), ('h2,imap', ['imap'], 'imap'),
                                 ('h2,imap', ['imap', 'h2'], 'imap'), ('smtp', None, None)):
        f = client_facts(HERE, ca_env(TLS_ALPN=offer), **({'alpn': choice} if choice else {}))
        is_equal(f.get('SSL_ALPN'), taken, 'with %s' % offer)


@test('TLS_PROTOCOLS: the versions that the client offers')
def _():
    for protocols, settings, got in (('tlsv1.2', {}, 'TLSv1.2'), ('tlsv1.3', {}, 'TLSv1.3'),
                                     (None, {}, 'TLSv1.3'), (None, {'max': TLS12}, 'TLSv1.2')):
        f = client_facts(HERE, ca_env(TLS_PROTOCOLS=protocols), **settings)
        is_equal(f['SSL_PROTOCOL'], got, 'with %s' % protocols)
    for protocols, settings in ('tlsv1.2', {'min': TLS13}), ('tlsv1.3', {'max': TLS12}):
        text = client_refusal(HERE, ca_env(TLS_PROTOCOLS=protocols), **settings)
        is_true('protocol version' in text, text)


@test('a server that has nothing newer than TLS 1.1 is refused')
def _():
    text = client_refusal(HERE, max=ssl.TLSVersion.TLSv1_1, min=ssl.TLSVersion.TLSv1_1,
                          ciphers='ALL:@SECLEVEL=0')
    is_true('protocol' in text, text)


@test('TLS_CIPHERS: the suites of TLS 1.2 that the client offers')
def _():
    for cipher in 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES128-GCM-SHA256':
        is_equal(client_facts(HERE, ca_env(TLS_CIPHERS=cipher), max=TLS12)['SSL_CIPHER'], cipher)


@test('a server without forward secrecy or authenticated encryption is refused')
def _():
    for ciphers in 'AES128-GCM-SHA256', 'ECDHE-RSA-AES128-SHA256', 'DHE-RSA-AES128-GCM-SHA256':
        client_refusal(HERE, cert='rsa', max=TLS12, ciphers=ciphers)


@test('a bad setting: 96, and the server gets not one byte')
def _():
    for env, words in ((ca_env(TLS_PROTOCOLS='tlsv9'), 'unable to use TLS_PROTOCOLS tlsv9: '),
                       (ca_env(TLS_CIPHERS='nonesuch'), 'unable to use TLS_CIPHERS nonesuch: '),
                       (ca_env(CRLFILE='/nonesuch'), 'unable to read CRLFILE /nonesuch: ')):
        server, c = connect_client(HERE, ['echo', 'ran'], env=env)
        server.shutdown(socket.SHUT_WR)
        is_equal(read_to_end(server), b'')
        is_true(reason(c, 96).startswith(words), c.stderr())


# What a client knows

def of(cert):
    """What openssl x509 says of a certificate, as facts."""
    def tell(*options):
        text = openssl('x509', '-in', path(cert + '.pem'), '-noout', *options).decode()
        return text.split('=', 1)[1].strip()
    return {'SSL_PEER_CERT_HASH': cert_hash(cert),
            'SSL_PEER_CERT_SUBJECT': tell('-subject', '-nameopt', 'compat'),
            'SSL_PEER_CERT_ISSUER': tell('-issuer', '-nameopt', 'compat'),
            'SSL_PEER_CERT_NOTBEFORE': str(ssl.cert_time_to_seconds(tell('-startdate'))),
            'SSL_PEER_CERT_NOTAFTER': str(ssl.cert_time_to_seconds(tell('-enddate')))}


@test('the facts: all of them, and of the server\'s certificate what openssl says of it')
def _():
    subject = '/C=DE/O=An Example, Inc./OU=R+D/CN=localhost'
    for cert in 'server', 'rsa', issued('named', subject=subject, days='9999'):
        wanted = dict(of(cert), SSL_ALPN='smtp', SSL_PROTOCOL='TLSv1.2',
                      SSL_SESSION_RESUMED='Initial', SSL_TLS_SNI_SERVERNAME='localhost',
                      SSL_CIPHER='ECDHE-%s-AES256-GCM-SHA384' % {'rsa': 'RSA'}.get(cert, 'ECDSA'),
                      SSL_CIPHER_USEKEYSIZE='256')
        f = client_facts(['-k', 'LocalHost'], ca_env(TLS_ALPN='smtp'), cert=cert, alpn=['smtp'],
                         max=TLS12, ciphers='AES256')
        is_equal({k: f[k] for k in f if k.startswith('SSL_')}, wanted)


@test('the facts in TLS 1.3; what is not known is not set')
def _():
    f = client_facts(['-n'], min=TLS13)
    is_equal((f['SSL_PROTOCOL'], f['SSL_CIPHER'][-14:]), ('TLSv1.3', '256_GCM_SHA384'))
    is_equal({k: f[k] for k in f if '_PEER_' in k}, of('server'))
    is_equal({k for k in f if k.startswith('SSL_') and '_PEER_' not in k},
             {'SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_SESSION_RESUMED', 'SSL_CIPHER_USEKEYSIZE'})


@test('the facts of a server that nothing was verified of are there as well')
def _():
    issued('stranger', ca='otherca')
    f = client_facts(['-N', '-v', '0'], cert='stranger')
    is_equal({k: f[k] for k in f if '_PEER_' in k}, of('stranger'))


# -C

def chain_of_three():
    """A server's certificate, the one that issued it, and the root; in PEM."""
    if not os.path.exists(path('three.pem')):
        issued('middle', 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign')
        bundle('three', issued('leaf', ca='middle'), 'leaf', 'middle', 'ca')
    with open(path('three.pem')) as f:
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
    if not os.path.exists(path('huge.pem')):
        bundle('huge', 'server', 'server', *['ca'] * 150)
    with open(path('huge.pem')) as f:
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
                  env=server_env(CAFILE=path('ca.pem')), pass_fds=[f.fileno()])
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
