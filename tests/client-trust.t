#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-handshake -c: whom a client trusts: CAFILE, CADIR, the system, OCSP.

import ctypes
import ctypes.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import FATAL, TOP, not_resident, reason
from clients import HERE, OpensslServer, client_refusal, connect_client, serve_client, start_client
from pki import EXT, hashed_dir, issued, ocsp_response, openssl, pki_path
from scratch import temp, temp_dir
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, test

GNUTLS = ctypes.util.find_library('gnutls')
HELLO = 'echo hello >&7; exec 7>&-; cat <&6'  # shows what comes back


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
    is_equal(trusts({'CAFILE': pki_path('ca.pem')}), {'ca'})
    is_equal(trusts({'CAFILE': pki_path('otherca.pem')}), {'otherca'})
    both = [openssl('x509', '-in', pki_path(ca + '.pem')) for ca in ('otherca', 'ca')]
    is_equal(trusts({'CAFILE': temp(b''.join(both))}), {'ca', 'otherca'})


@test('CADIR: the authorities that are hashed there')
def _():
    is_equal(trusts({'CADIR': hashed_dir('ca')}), {'ca'})
    is_equal(trusts({'CADIR': hashed_dir('ca', 'otherca')}), {'ca', 'otherca'})


@test('CAFILE and CADIR: those of both')
def _():
    is_equal(trusts({'CAFILE': pki_path('ca.pem'), 'CADIR': hashed_dir('otherca')}),
             {'ca', 'otherca'})
    is_equal(trusts({'CAFILE': pki_path('otherca.pem'), 'CADIR': hashed_dir('ca')}),
             {'ca', 'otherca'})


@test('CADIR with a FIFO among its certificates would keep an engine waiting, and is refused')
def _():
    d = hashed_dir('ca')
    os.mkfifo(d + '/12345678.0')
    is_equal(client_refusal(HERE, {'CADIR': d}, 96),
             'unable to use CADIR: %s/12345678.0: not a regular file' % d)


@test('CADIR in which nothing is hashed trusts nobody, and is refused with the remedy')
def _():
    d = temp_dir()
    shutil.copy(pki_path('ca.pem'), d)
    for env in {'CADIR': d}, {'CADIR': d, 'CAFILE': pki_path('ca.pem')}:
        is_equal(client_refusal(HERE, env, 96), 'unable to use CADIR %s: no certificate in it is '
                 'named by hash: run openssl rehash on it' % d)


@test('CAFILE or CADIR that is not there, or is none: 96')
def _():
    for env, words in (({'CAFILE': '/nonesuch'}, 'unable to read CAFILE /nonesuch: No such file'),
                       ({'CADIR': '/nonesuch'}, 'unable to open CADIR /nonesuch: No such file'),
                       ({'CAFILE': temp(b'no PEM')}, 'unable to use CAFILE '),
                       ({'CAFILE': temp()}, 'unable to use CAFILE '),
                       ({'CADIR': pki_path('ca.pem')}, 'unable to open CADIR ')):
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
        with open(pki_path(certificate + '.pem')) as f, open('%s/%s' % (d, name), 'w') as to:
            to.write(f.read())
    return ['unshare', '-m', 'sh', '-c', 'mount --bind "$1" "$2" && shift 2 && exec "$@"', 'sh',
            d, there]


def hash_of(name):
    return openssl('x509', '-in', pki_path(name + '.pem'), '-noout',
                   '-hash').decode().strip() + '.0'


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


@test('neither CAFILE nor CADIR: a system that has no such file is told of, and what to set, 96')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    text = client_refusal(HERE, {}, 96, on_system())
    is_true(re.fullmatch(r"unable to read libtls's default CAFILE /.*/cert.pem: No such file or "
                         r'directory; install ca-certificates, or set CAFILE or CADIR .*'
                         r'CADIR=/etc/ssl/certs', text), text)


@test('CAFILE or CADIR: the system is not asked')
def _():
    wrapper = on_system(certs=[(hash_of('ca'), 'ca')])
    is_equal(system_trusts(wrapper, {'CAFILE': pki_path('otherca.pem')}), {'otherca'})
    is_equal(system_trusts(wrapper, {'CADIR': hashed_dir('otherca')}), {'otherca'})


@test('SSL_CERT_FILE and SSL_CERT_DIR do not matter')
def _():
    not_resident('reads the files where it runs, not where the chain does')
    env = {'SSL_CERT_FILE': pki_path('otherca.pem'), 'SSL_CERT_DIR': hashed_dir('otherca')}
    for wrapper in on_system(certs=[(hash_of('ca'), 'ca')]), on_system(files=['ca']):
        is_equal(system_trusts(wrapper, env), {'ca'})
    is_equal(trusts(dict(env, CAFILE=pki_path('ca.pem'))), {'ca'})


# -O

STAPLED = EXT['server'] + '\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1/'


def client_of(net, options):
    """The exit code of a client and what it says, of the server at the other end."""
    c = start_client(['tls-handshake', '-c', *options, 'tls-io', '-w', 'sh', '-c', HELLO], net)
    return c.wait(), c.stderr()


def with_staple(options, response, version):
    """The same of an openssl s_server that staples this response."""
    s = OpensslServer('-cert', pki_path('stapled.pem'), '-key', pki_path('stapled.key'),
                      '-' + version.replace('.', '_').replace('v', ''),
                      *(['-status_file', response] if response else []))
    return client_of(s.connect(), options)


def with_any_staple(options, response, version):
    """The same of a server of GnuTLS, which sends back what it hears. It can be told not to look
    what a response is about; OpenSSL 3.6 always looks."""
    gnutls = ctypes.CDLL(GNUTLS)
    session, trust = ctypes.c_void_p(), ctypes.c_void_p()
    gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(trust))
    gnutls.gnutls_certificate_set_flags(trust, 4)  # GNUTLS_CERTIFICATE_SKIP_OCSP_RESPONSE_CHECK
    files = [pki_path('stapled.pem').encode(), pki_path('stapled.key').encode()]
    is_equal(gnutls.gnutls_certificate_set_x509_key_file(trust, *files, 1), 0, 'key pair, in PEM')
    is_equal(gnutls.gnutls_certificate_set_ocsp_status_request_file(trust, response.encode(), 0), 0,
             'response')
    gnutls.gnutls_init(ctypes.byref(session), 1)  # a server
    priority = 'NORMAL:-VERS-ALL:+VERS-' + version.upper().replace('V', '')
    is_equal(gnutls.gnutls_priority_set_direct(session, priority.encode(), None), 0, priority)
    gnutls.gnutls_credentials_set(session, 1, trust)
    client, server = tcp_pair()
    server.setblocking(True)
    gnutls.gnutls_transport_set_int2(session, server.fileno(), server.fileno())

    def serve():
        text = ctypes.create_string_buffer(100)
        if gnutls.gnutls_handshake(session) == 0:
            n = gnutls.gnutls_record_recv(session, text, 100)
            if n > 0:
                gnutls.gnutls_record_send(session, text, n)
                gnutls.gnutls_bye(session, 0)
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return client_of(client, options)
    finally:
        thread.join()
        gnutls.gnutls_deinit(session)
        gnutls.gnutls_certificate_free_credentials(trust)


def is_taken_with_O(server, response, code, words):
    for version in 'tlsv1.2', 'tlsv1.3':
        got, said = server([*HERE, '-O'], response, version)
        is_equal(got, code, 'exit code with %r' % words)
        is_true(said.startswith(words) and said.count('\n') == 1, said)


OCSP_FAILED = FATAL + 'ocsp verify failed'


@test('-O takes a server that staples a good OCSP response, and not one that is revoked, or none')
def _():
    issued('stapled', STAPLED)
    is_taken_with_O(with_staple, ocsp_response('stapled'), 0, 'olleh\n')
    is_taken_with_O(with_staple, None, 97, FATAL + 'no stapled OCSP response provided\n')
    is_taken_with_O(with_staple, ocsp_response('stapled', 'R'), 97, OCSP_FAILED + ': revoked cert')


@test('-O takes no response about another certificate, nor by another authority')
def _():
    if not GNUTLS:
        raise Skip('libgnutls is not installed')
    issued('stapled', STAPLED)
    other = ocsp_response('stapled', signer='otherca')
    is_taken_with_O(with_any_staple, ocsp_response('stapled'), 0, 'hello\n')
    is_taken_with_O(with_any_staple, ocsp_response('server'), 97,
                    OCSP_FAILED + ': no result for cert')
    is_taken_with_O(with_any_staple, other, 97, OCSP_FAILED)


@test('without -O no OCSP response is needed, but one that says revoked is believed')
def _():
    issued('stapled', STAPLED)
    is_equal(with_staple(HERE, ocsp_response('stapled'), 'tlsv1.3'), (0, 'olleh\n'))
    is_equal(with_staple(HERE, None, 'tlsv1.3'), (0, 'olleh\n'))
    code, said = with_staple(HERE, ocsp_response('stapled', 'R'), 'tlsv1.3')
    is_equal(code, 97)
    is_true('revoked' in said, said)


run()
