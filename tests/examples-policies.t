#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/policy/*, starttls-cert and starttls-chain, starttls-server.

import calendar
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, unjoined
from examples import (EXAMPLES, SAY_HELLO, Played, Result, example, free_port, gets_nothing, greets,
                      is_done, is_refused, port_is_open)
from peer import TLS12, Peer
from pki import cert_hash, issued_between, openssl, pki, server_env
from scratch import temp_dir
from sockets import tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for

POLICY = EXAMPLES + '/policy/'


def visit(server, policy, *args, **more):
    """Greets the server, which nobody has verified, if the policy allows it."""
    return example('starttls-dial', 'tls', '127.0.0.1', server.port, 'tls-handshake', '-c', '-v',
                   0, '-k', 'example.org', '-N', POLICY + policy, *args, 'tls-io', *SAY_HELLO,
                   **more)


# For a client

@test('pin: goes on with the certificate of that hash, or one of these')
def _():
    server = Played(greets(), greets('a'))
    pins = cert_hash('server') + ',' + cert_hash('a')
    for pin, cert in (cert_hash('server'), b'server'), (pins, b'a'):
        result = visit(server, 'pin', pin)
        is_done(result)
        is_equal((result.out, result.err), (b'hello from %s\n' % cert, ''))
    server.join()


@test('pin: another certificate is refused, and not one byte has passed')
def _():
    server = Played(gets_nothing('a'), gets_nothing('a'))
    for pin in cert_hash('server'), cert_hash('a')[:-1]:
        is_refused(visit(server, 'pin', pin), 77,
                   "pin: fatal: the peer's certificate is another one: " + cert_hash('a'))
    server.join()


@test('tofu: trusts the first certificate, and from then on no other')
def _():
    server = Played(greets('a'), greets('a'), gets_nothing('b'), greets('a'), greets('b'))
    file = temp_dir() + '/trusted'
    first = 'tofu: info: first use: %s is now %s\n'

    def goes_on(said):
        result = visit(server, 'tofu', file)
        is_done(result)
        is_equal(result.err, said)

    goes_on(first % (file, cert_hash('a')))
    with open(file) as f:
        is_equal(f.read(), cert_hash('a') + '\n')
    goes_on('')
    is_refused(visit(server, 'tofu', file), 77,
               'tofu: fatal: %s trusts %s, the peer\'s certificate is %s' % (
                   file, cert_hash('a'), cert_hash('b')))
    goes_on('')
    os.remove(file)
    goes_on(first % (file, cert_hash('b')))
    is_equal(os.listdir(os.path.dirname(file)), ['trusted'], 'files')
    server.join()


@test('tofu: of many that are first at the same time one is; all others agree or are refused')
def _():
    file = temp_dir() + '/trusted'
    hashes = ['SHA256:%064x' % n for n in range(30)]
    results = []

    def first(hash):
        env = {'SSL_PEER_CERT_HASH': hash}
        results.append((hash, example('policy/tofu', file, 'true', env=env)))

    threads = [threading.Thread(target=first, args=[hash]) for hash in hashes * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with open(file) as f:
        trusted = f.read().rstrip('\n')
    is_equal(len(results), len(threads))
    for hash, result in results:
        is_equal(result.code, 0 if hash == trusted else 77, hash)
    is_equal(sum('first use' in result.err for _, result in results), 1, 'times it was the first')
    is_equal(os.listdir(os.path.dirname(file)), ['trusted'], 'files')


@test('tofu: a file that cannot be written, or holds nothing, is no reason to go on')
def _():
    d = temp_dir()
    open(d + '/empty', 'w').close()
    for file in d + '/no/such/dir', d + '/empty', d:
        result = example('policy/tofu', file, 'echo', 'gone on',
                         env={'SSL_PEER_CERT_HASH': 'SHA256:0'})
        is_equal((result.code, result.out, len(result.err.splitlines())), (111, b'', 1), file)
    for policy in ['pin', ''], ['pin', ',,'], ['tofu', d + '/none'], ['admit-clients', d]:
        result = example('policy/' + policy[0], policy[1], 'echo', 'gone on')
        is_equal((result.code, result.out), (77, b''), 'no certificate, ' + policy[0])
    is_true(not os.path.exists(d + '/none'), 'no file')


# For a server

@test('admit-clients: a client is in when its hash is a file; others get not one byte')
def _():
    d = temp_dir()

    def come(cert):
        client, server = tcp_pair()
        c = Chain(['tls-handshake', '-y', POLICY + 'admit-clients', d, 'tls-io', 'echo', 'welcome'],
                  server, env=server_env(CAFILE=pki() + '/ca.pem'))
        got = Peer(client, cert=cert, max=TLS12).handshake().recv_all()
        client.close()
        return got, c.wait(), c.stderr() if got[1] == 'close_notify' else unjoined(c)

    open('%s/%s' % (d, cert_hash('client')), 'w').close()
    refused = 'admit-clients: fatal: client not admitted: %s\n'
    is_equal(come('client'), ((b'welcome\n', 'close_notify'), 0, ''))
    is_equal(come('client2'), ((b'', 'eof'), 77, refused % cert_hash('client2')))
    os.remove('%s/%s' % (d, cert_hash('client')))
    is_equal(come('client'), ((b'', 'eof'), 77, refused % cert_hash('client')))


# starttls-cert, starttls-chain

@test('starttls-cert: what is printed of a certificate that can be verified')
def _():
    server = Played(gets_nothing())
    result = example('starttls-cert', '-k', 'www.example.net', 'tls', '127.0.0.1', server.port)
    server.join()
    is_done(result)
    is_equal(result.err, '')
    start, end = openssl('x509', '-in', pki() + '/server.pem', '-noout', '-dates', '-dateopt',
                         'iso_8601').decode().split('\n')[:2]
    said = result.out.decode().splitlines()
    names, protocol = said.pop(2), said.pop(7)
    is_true(re.fullmatch('names       localhost, example.org, .*', names), names)
    is_true(re.fullmatch('protocol    TLSv1.3, TLS_[A-Z0-9_]+', protocol), protocol)
    is_equal(said, [
        'subject     /CN=server',
        'issuer      /CN=Test ca',
        'key         EC P-256',
        'hash        ' + cert_hash('server'),
        'valid from  ' + start.split('=')[1].replace('Z', ' UTC'),
        'valid until ' + end.split('=')[1].replace('Z', ' UTC'),
        'days left   29',
        'verified    yes, for www.example.net'])


def lists(text, *options):
    result = example('starttls-cert', *options, input=text.encode())
    return result.code, result.out.decode(), result.err


@test('starttls-cert -w: 1 if too few days are left; a list has a line for each; -q')
def _():
    server = Played(*[gets_nothing()] * 6)
    here = 'tls 127.0.0.1 %d' % server.port
    name = ['-k', 'example.org']
    result = example('starttls-cert', '-w', '29', *name, *here.split())
    is_done(result)
    result = example('starttls-cert', '-w', '30', *name, *here.split())
    is_done(result, 1)
    is_equal(result.out.decode().splitlines()[-1].strip(), 'less than 30 days are left')
    result = example('starttls-cert', '-q', *name, *here.split())
    is_equal((result.code, result.out, result.err), (0, b'', ''))
    closed = 'tls 127.0.0.1 %d' % free_port()
    lost = 'bad      -  %s: no connection to 127.0.0.1 port %s: ' % (closed, closed.split()[-1])
    text = '# ours\n\n%s\n' % here
    is_equal(lists(text, '-w', '29'), (0, 'ok      29  %s\n' % here, ''))
    is_equal(lists(text, '-w', '30', '-q'), (1, 'soon    29  %s\n' % here, ''))
    code, out, err = lists('%s\n%s' % (closed, text), '-q')
    is_equal((code, err), (111, ''))
    is_true(out.startswith(lost) and out.count('\n') == 1, out)
    server.join()
    code, out, err = lists('tls example.org 443 now\n')
    is_equal((code, out), (100, ''))
    is_true('starttls-cert: fatal: a line of the list is not PROTO HOST [ PORT ]' in err, err)


@test('starttls-cert -t: who does not answer is given up, 124')
def _():
    with socket.create_server(('127.0.0.1', 0)) as silent:
        is_refused(example('starttls-cert', '-t', '1', 'smtp', '127.0.0.1',
                           silent.getsockname()[1]), 124,
                   'starttls-cert: fatal: 127.0.0.1 has not answered in 1 s')


@test('localhost, and an address of IPv6; without bash, by what there is; or what is missing')
def _():
    server = Played(gets_nothing(), host='::1')
    is_done(example('starttls-cert', '-k', 'example.org', 'tls', '::1', server.port))
    server.join()
    server = Played(gets_nothing())
    is_done(example('starttls-cert', '-k', 'example.org', 'tls', 'localhost', server.port))
    server.join()
    tools = temp_dir()
    for name in 'sh', 'tcpclient', 'true', 'cat':
        path = shutil.which(name)
        path and os.symlink(path, tools + '/' + name)
    env = {'PATH': tools}
    if os.path.exists(tools + '/tcpclient'):
        result = example('starttls-dial', 'tls', '127.0.0.1', free_port(), 'true', env=env)
        is_true(result.err.startswith('tcpclient: unable to connect'), result)
        os.unlink(tools + '/tcpclient')
    is_refused(example('starttls-dial', 'tls', '127.0.0.1', '1', 'true', env=env), 111,
               'starttls-dial: fatal: nothing here connects: install bash, s6-networking or '
               'ucspi-tcp')


@test('starttls-cert: one that cannot be verified is shown all the same, and why: 97')
def _():
    def refused(talk):
        try:
            talk.start_tls(cert='server')
            talk.peer.recv_all()
        except (ssl.SSLError, ConnectionError):
            pass

    for name, ca, reason in (('example.com', 'ca', "name `example.com' not present"),
                             ('example.org', 'otherca', '.*unable to get (local )?issuer')):
        server = Played(refused, gets_nothing())
        result = example('starttls-cert', '-k', name, 'tls', '127.0.0.1', server.port,
                         env={'CAFILE': '%s/%s.pem' % (pki(), ca)})
        server.join()
        is_done(result, 97)
        is_equal(result.err, '')
        lines = result.out.decode().splitlines()
        is_true('hash        ' + cert_hash('server') in lines, lines)
        is_true(re.match('verified    no: ' + reason, lines[-1]), lines)


@test('starttls-cert: an expired one has less than no days left')
def _():
    now = int(time.time())
    for seconds, days in (-1, -1), (-86400 * 3 + 60, -3), (86400 * 2 + 60, 2), (60, 0):
        result = example('policy/print-cert', env={
            'SSL_PEER_CERT_SUBJECT': '/CN=a', 'SSL_PEER_CERT_ISSUER': '/CN=b',
            'SSL_PEER_CERT_HASH': 'SHA256:0', 'SSL_PEER_CERT_NOTBEFORE': '0',
            'SSL_PEER_CERT_NOTAFTER': str(now + seconds)})
        is_true('days left   %d\n' % days in result.out.decode(), '%d: %r' % (days, result))


@test('starttls-cert: a certificate of 1950 to 1965, and one around 1970')
def _():
    def shows(cert):
        def play(talk):
            try:
                talk.start_tls(cert=cert)
                talk.peer.recv_all()
            except (ssl.SSLError, ConnectionError):
                pass
        return play

    def days_of(cert, start, end):
        play = shows(issued_between(cert, start, end))
        server = Played(play, play)
        result = example('starttls-cert', 'tls', '127.0.0.1', server.port)
        server.join()
        is_done(result, 97)
        is_equal(result.err, '')
        return re.findall('^(?:valid|days).*', result.out.decode(), re.M)

    end = calendar.timegm((1965, 1, 2, 3, 4, 5))
    before = int(time.time())
    from_, until, left = days_of('old', '500411000000Z', '650102030405Z')
    is_equal((from_, until), ('valid from  1950-04-11 00:00:00 UTC',
                              'valid until 1965-01-02 03:04:05 UTC'))
    is_true(left in ['days left   %d' % ((end - now) // 86400)
                     for now in (before, int(time.time()))], left)
    is_equal(days_of('epoch', '691231235958Z', '700101000000Z')[:2],
             ['valid from  1969-12-31 23:59:58 UTC', 'valid until 1970-01-01 00:00:00 UTC'])


@test('print-cert: a time that is not known, or empty, is unknown; no certificate is 77')
def _():
    known = {'SSL_PEER_CERT_SUBJECT': '/CN=a', 'SSL_PEER_CERT_ISSUER': '/CN=b',
             'SSL_PEER_CERT_HASH': 'SHA256:0'}
    for more in {}, {'SSL_PEER_CERT_NOTBEFORE': '', 'SSL_PEER_CERT_NOTAFTER': ''}:
        result = example('policy/print-cert', env={**known, **more})
        is_refused(Result(result.code, b'', result.err), 0)
        is_equal(result.out.decode().splitlines()[3:],
                 ['valid from  unknown', 'valid until unknown', 'days left   unknown'])
    for more in {}, {'SSL_PEER_CERT_HASH': ''}:
        is_refused(example('policy/print-cert', env=more), 77,
                   'print-cert: fatal: the peer has shown no certificate')


@test('starttls-cert, starttls-chain: no server, no TLS, wrong usage')
def _():
    for program in 'starttls-cert', 'starttls-chain':
        result = example(program, 'tls', '127.0.0.1', free_port())
        is_equal((result.code, result.out), (111, b''))
        is_true(result.err.startswith('starttls-dial: fatal: no connection to 127.0.0.1 port '),
                result)
        is_refused(example(program, 'gopher', '127.0.0.1'), 100,
                   'starttls-dial: fatal: unknown protocol: gopher')
        result = example(program, 'tls')
        is_equal(result.code, 100)

        def no_tls(talk):
            talk.say('220 hello\r\n')
            talk.line()
            talk.say('250 hello\r\n')

        server = Played(no_tls)
        is_refused(example(program, 'smtp', '127.0.0.1', server.port), 69,
                   'starttls/smtp: fatal: the server does not offer STARTTLS')
        server.join()


@test('starttls-chain: all certificates that the server shows, in PEM')
def _():
    d = temp_dir()
    with open(d + '/both.pem', 'wb') as f:
        for name in 'server', 'ca':
            f.write(open('%s/%s.pem' % (pki(), name), 'rb').read())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(d + '/both.pem', pki() + '/server.key')

    def play(talk):
        Peer(talk.sock, client=False, context=context).handshake()

    server = Played(play)
    result = example('starttls-chain', 'tls', '127.0.0.1', server.port)
    is_done(result)
    with open(d + '/both.pem', 'rb') as f:
        is_equal(result.out, f.read())
    server.join()


# The server

class StarttlsServer:
    """The service directory of the example, with the test's key pair."""

    def __init__(self):
        self.dir = temp_dir() + '/starttls-server'
        shutil.copytree(EXAMPLES + '/starttls-server', self.dir)
        os.mkdir(self.dir + '/tls')
        for name, value in server_env().items():
            with open('%s/tls/%s' % (self.dir, name), 'w') as f:
                f.write(value + '\n')
        self.port = free_port()
        self.chain = Chain(['./run'], env={'PORT': str(self.port)},
                           preexec=lambda: os.chdir(self.dir))
        wait_for(lambda: self.chain.poll() is not None or port_is_open(self.port), 'the server')
        is_equal(self.chain.poll(), None, 'exit code: ' + self.chain.stderr())


TYPED = b'EHLO me\r\nSTARTTLS\r\nWHO\r\nQUIT\r\n'


@test('starttls-server: openssl s_client -starttls smtp, verifying, talks to it')
def _():
    server = StarttlsServer()
    result = example('openssl', 's_client', '-connect', '127.0.0.1:%d' % server.port, '-starttls',
                     'smtp', '-quiet', '-crlf', '-CAfile', pki() + '/ca.pem',
                     '-verify_return_error', '-verify_hostname', 'example.org', '-tls1_3',
                     input=b'EHLO me\nWHO\nQUIT\n')
    is_done(result)
    is_true(re.fullmatch(r'250-hello\r\n250 WHO\r\n250 we talk TLSv1\.3 with \S+\r\n221 bye\r\n',
                         result.out.decode()), result)


@test('starttls-server: our own client talks to it; in TLS there is no STARTTLS')
def _():
    server = StarttlsServer()
    result = example('starttls-connect', 'smtp', '127.0.0.1', server.port, input=TYPED)
    is_done(result)
    said = result.out.decode().split('\r\n')
    is_equal(said, ['250-hello', '250 WHO', '500 what?', said[3], '221 bye', ''])


@test('starttls-server: what is said in plaintext is not remembered, what is injected refused')
def _():
    server = StarttlsServer()

    def plaintext(data):
        sock = socket.create_connection(('127.0.0.1', server.port), timeout=20 * SLOW)
        sock.sendall(data)
        return sock

    with plaintext(b'EHLO me\r\nWHO\r\nquit\r\n') as sock:
        is_equal(sock.makefile('rb').read(), b'220 hello\r\n250-hello\r\n250 STARTTLS\r\n'
                                             b'500 what?\r\n221 bye\r\n')
    with plaintext(b'startTLS \r\nQUIT\r\n') as sock:
        is_equal(sock.makefile('rb').read(), b'220 hello\r\n220 go ahead\r\n')
    wait_for(lambda: 'bytes came in plaintext before' in server.chain.stderr(), 'the refusal')


run()
