#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-handshake -c: what a client asks for, shows and accepts.

import os
import re
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import dies, not_resident, reason
from clients import (HERE, OpensslServer, client_facts, client_refusal, connect_client,
                     serve_client, start_client)
from peer import TLS12, TLS13, Peer, plain_context
from pki import ca_env, cert_hash, issued, pki_path, server_env
from sockets import read_to_end, tcp_pair
from tap import SLOW, is_equal, is_true, run, test

HELLO = 'echo hello >&7; exec 7>&-; cat <&6'  # shows what comes back


# The network

@test('a client on 6 and 7 talks to openssl s_server, and knows how that ended')
def _():
    for version in '-tls1_2', '-tls1_3':
        s = OpensslServer('-cert', pki_path('server.pem'), '-key', pki_path('server.key'), version)
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
    server.sendall(peer.next_flight()[:-1])
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
                       (showing(KEYFILE=None), 'CERTFILE is set, but KEYFILE is not'),
                       (showing(CERTFILE=None), 'KEYFILE is set, but CERTFILE is not'),
                       (showing(KEYFILE='/nonesuch'),
                        'unable to read KEYFILE /nonesuch: No such file or directory')):
        is_equal(client_refusal([*HERE, '-y'], env, 96), words)
    text = client_refusal([*HERE, '-y'], showing(KEYFILE=pki_path('server.key')), 96)
    is_true(text.startswith('unable to use CERTFILE %s with KEYFILE %s: '
                            % (pki_path('client.pem'), pki_path('server.key'))), text)


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


run()
