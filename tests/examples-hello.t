#!/usr/bin/env python3
# ISC licence: see COPYING.
# The service directories that look at a client's first words: s6-svscan runs copies of them.

import hashlib
import http.client
import os
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from pki import cert_hash, issue, issued, pki, server_env
from services import (LOOPBACK, SERVICES, Scan, ask_to_end, get_page, run_command, tls_to, web_root,
                      write_line)
from tap import SLOW, is_equal, is_true, run, test

NAMES = 1000


def certificate_of(port, name, alpn=None):
    """What a server shows to who asks for that name; and the protocol it has chosen."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    with socket.create_connection((LOOPBACK, port), timeout=30 * SLOW) as s:
        with context.wrap_socket(s, server_hostname=name) as s:
            return s.getpeercert(True), s.selected_alpn_protocol()


def hash_of(der):
    return 'SHA256:' + hashlib.sha256(der).hexdigest()


def turned_away(port, name):
    """A client that asks for that name, or for none, gets not one byte."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    with socket.create_connection((LOOPBACK, port), timeout=30 * SLOW) as s:
        s.sendall(outgoing.read())
        try:
            is_equal(s.recv(1), b'', 'an answer')
        except ConnectionResetError:
            pass


@test('by-name: of %d names each has its certificate and its pages, and no other is served' % NAMES,
      limit=120)
def _():
    need('busybox')
    scan = Scan()
    names, roots = scan.dir + '/names', scan.dir + '/roots'
    pairs = {name: server_env(issued(name, 'subjectAltName=DNS:%s.example.org' % name))
             for name in ('first', 'last')}
    for i in range(NAMES):
        name = 'first' if not i else 'last' if i == NAMES - 1 else 'n%d' % i
        for d in names, roots:
            os.makedirs('%s/%s.example.org' % (d, name))
        write_line('%s/%s.example.org/index.html' % (roots, name), 'the page of ' + name)
        for variable, path in pairs.get(name, {'KEYFILE': '/no', 'CERTFILE': '/no'}).items():
            write_line('%s/%s.example.org/%s' % (names, name, variable), path)
    scan.add('by-name', NAMES=names, ROOTS=roots)
    scan.start()
    port = scan.ports['by-name']
    for name in pairs:
        is_equal(get_page(port, name + '.example.org'), b'the page of %s\n' % name.encode())
    for name in 'other.example.org', None, '192.0.2.1':
        turned_away(port, name)
    scan.wait_log('by-name', r's6-envdir: fatal: .*/other\.example\.org')


@test('pass-through: each name gets its own server, by TLS with that one', limit=90)
def _():
    need('s6-ioconnect', 'tcpclient', 'busybox')
    scan = Scan()
    web_root(scan)
    names = ['www.example.org', 'mail.example.org']
    for name in names:
        issue(pki(), name, 'subjectAltName=DNS:' + name)
    scan.add('both', ROOT=scan.dir + '/www', **server_env(names[0]))
    scan.add('acme', ROOT=scan.dir + '/www', CHALLENGES='/nowhere', **server_env(names[1]))
    scan.add('pass-through')
    for name, service in zip(names, ('both', 'acme')):
        d = '%s/services/pass-through/backends/%s' % (scan.dir, name)
        write_line(d + '/BACKEND_IP', LOOPBACK)
        write_line(d + '/BACKEND_PORT', str(scan.ports[service]))
    scan.start()
    port = scan.ports['pass-through']
    for name in names:
        is_equal(hash_of(certificate_of(port, name)[0]), cert_hash(name))
        is_equal(get_page(port, name), b'a page\n')
    for name in 'other.example.org', None:
        turned_away(port, name)


@test('both: TLS gets the page, plaintext is sent there', limit=90)
def _():
    need('busybox')
    scan = Scan()
    scan.add('both', ROOT=web_root(scan))
    scan.start()
    port = scan.ports['both']
    is_equal(get_page(port), b'a page\n')
    for path, wanted in (('/', '/'), ('/a/b.html?c=d&e', '/a/b.html?c=d&e'), ('/a"b<c', '/'),
                         ('//x/../y', '//x/../y'), ('x', '/')):
        with socket.create_connection((LOOPBACK, port), timeout=30 * SLOW) as s:
            answer = ask_to_end(s, b'GET %s HTTP/1.1\r\nHost: x\r\n\r\n' % path.encode())
        is_equal(answer.split(b'\r\n')[:2], [b'HTTP/1.0 301 Moved Permanently',
                 b'Location: https://localhost:%d%s' % (port, wanted.encode())])
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30 * SLOW)
    connection.request('GET', '/')
    is_equal(connection.getresponse().status, 301)
    connection.close()


@test('acme: the certificate authority is answered by ALPN (RFC 8737), all others get the page',
      limit=90)
def _():
    need('busybox')
    scan = Scan()
    os.mkdir(scan.dir + '/challenges')
    scan.add('acme', ROOT=web_root(scan), CHALLENGES=scan.dir + '/challenges')
    scan.start()
    port, name = scan.ports['acme'], 'a.example.org'
    challenge = [SERVICES + '/acme/challenge', scan.dir + '/challenges', name]
    run_command(*challenge, 'token.thumbprint')
    # What the authority does: acme-tls/1 and nothing else, the name, then it looks.
    der, alpn = certificate_of(port, name, ['acme-tls/1'])
    digest = hashlib.sha256(b'token.thumbprint').digest()
    oid = bytes.fromhex('06082b0601050507011f')
    is_equal(alpn, 'acme-tls/1')
    is_true(oid + b'\x01\x01\xff\x04\x22\x04\x20' + digest in der, 'a critical acmeIdentifier')
    is_true(b'\x82' + bytes([len(name)]) + name.encode() in der, 'the name')
    is_equal(get_page(port), b'a page\n')
    for offered in ['h2'], ['h2', 'acme-tls/1'], None:
        is_equal(hash_of(certificate_of(port, name, offered)[0]), cert_hash('server'), offered)
    run_command(*challenge)
    is_equal(os.listdir(scan.dir + '/challenges'), [])
    try:
        certificate_of(port, name, ['acme-tls/1'])
        is_true(False, 'a challenge that is over is not answered')
    except (ssl.SSLError, ConnectionError):
        pass
    run_command(SERVICES + '/acme/challenge', scan.dir, '../x', 'k', code=1)
    run_command(SERVICES + '/acme/challenge', scan.dir, code=100)


run()
