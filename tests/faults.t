#!/usr/bin/env python3
# ISC licence: see COPYING.
# What goes wrong, each with its exit code and one clear line: files, settings, peers.

import fcntl
import os
import signal
import socket
import struct
import sys
import termios
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (FATAL, Chain, at_most, delayed, need, not_resident, not_under_valgrind, reason,
                   tells_emfile)
from peer import TLS12, Peer, client_hello
from pki import openssl, pki, server_env
from processes import engines
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed, server_facts, server_refusal, turned_away
from sockets import drip, read_to_end, tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import STARTTLS_APP, starttls

ALERT, HANDSHAKE = b'\x15', b'\x16'  # types of a record
PLAINTEXT = "bytes came in plaintext before the client's TLS began"


def path(name, suffix='pem'):
    return '%s/%s.%s' % (pki(), name, suffix)


# Files

VARIABLES = {
    'KEYFILE': [], 'CERTFILE': [], 'OCSPFILE': [], 'CAFILE': ['-y'], 'CRLFILE': ['-y'],
}


def with_file(variable, value):
    return server_env(**{'CAFILE': path('ca'), variable: value})


for variable, options in VARIABLES.items():
    @test('%s is missing' % variable)
    def _(variable=variable, options=options):
        for name in '/nonexistent', temp() + '/x':
            why = server_refusal(with_file(variable, name), options)
            is_true(why.startswith('unable to read %s %s: ' % (variable, name)), why)
            is_true(why.endswith(('No such file or directory', 'Not a directory')), why)

    @test('%s is a directory' % variable)
    def _(variable=variable, options=options):
        d = temp_dir()
        is_equal(server_refusal(with_file(variable, d), options),
                 'unable to use %s %s: not a regular file' % (variable, d))

    @test('%s is a FIFO, with and without a writer' % variable)
    def _(variable=variable, options=options):
        fifo = temp_dir() + '/fifo'
        os.mkfifo(fifo)
        wanted = 'unable to use %s %s: not a regular file' % (variable, fifo)
        is_equal(server_refusal(with_file(variable, fifo), options), wanted)
        with open(fifo, 'r+b', buffering=0) as writer:
            writer.write(b'x')
            is_equal(server_refusal(with_file(variable, fifo), options), wanted)

    @test('%s is a descriptor of the chain' % variable)
    def _(variable=variable, options=options):
        for name in '/dev/fd/9', '/proc/self/fd/9', '/dev/stdin':
            is_equal(server_refusal(with_file(variable, name), options), 'unable to use %s %s: an '
                     "engine has no descriptors of the chain's: give a file" % (variable, name))

    @test('%s is set to nothing' % variable)
    def _(variable=variable, options=options):
        is_equal(server_refusal(with_file(variable, ''), options),
                 '%s is set to nothing: unset it, or give it a value' % variable)

    @test('%s is empty' % variable)
    def _(variable=variable, options=options):
        f = temp()
        is_equal(server_refusal(with_file(variable, f), options),
                 'unable to use %s %s: the file is empty' % (variable, f))

    @test('%s is malformed' % variable)
    def _(variable=variable, options=options):
        for content in (b'x', b'no PEM at all\n', b'x' * 23, b'\0' * 100, bytes(range(256)),
                        b'-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
                        b'-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n',
                        b'-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'):
            f = temp(content)
            why = server_refusal(with_file(variable, f), options)
            is_true(f in why and variable in why, why)

    @test('%s is unreadable' % variable)
    def _(variable=variable, options=options):
        f = temp(b'x')
        os.chmod(f, 0)
        command = ['tls-handshake', *options, 'tls-io', 'echo', 'served']
        if not os.getuid():
            need('setpriv')  # to root without these capabilities a file may be unreadable
            command[:0] = ['setpriv', '--inh-caps=-all',
                           '--bounding-set=-dac_override,-dac_read_search']
        client, server = tcp_pair()
        c = Chain(command, server, env=with_file(variable, f))
        client.shutdown(socket.SHUT_WR)
        is_equal(client.recv(1), b'', 'sent to the client')
        client.close()
        is_equal(reason(c, 96), 'unable to read %s %s: Permission denied' % (variable, f))


@test('a key and a certificate in each other\'s place')
def _():
    why = server_refusal(server_env(KEYFILE=path('server'), CERTFILE=path('server', 'key')))
    is_true(why.startswith('unable to use KEYFILE %s: ' % path('server')), why)


@test('a key that does not match the certificate, of the same kind or another')
def _():
    for key in path('a', 'key'), path('rsa', 'key'):
        why = server_refusal(server_env(KEYFILE=key))
        is_true(why.startswith('unable to use CERTFILE %s with KEYFILE %s: ' %
                               (path('server'), key)), why)


@test('a key by name that does not match is told from the pairs that do')
def _():
    env = {'KEYFILE:a.example.org': path('b', 'key'), 'CERTFILE:a.example.org': path('a')}
    why = server_refusal(server_env(**env))
    is_true(why.startswith('unable to use CERTFILE %s with KEYFILE %s: ' %
                           (path('a'), path('b', 'key'))), why)


@test('a key that wants a passphrase: nobody is asked for it')
def _():
    f = temp()
    openssl('ec', '-in', path('server', 'key'), '-aes128', '-passout', 'pass:secret', '-out', f)
    why = server_refusal(server_env(KEYFILE=f))
    is_true(f in why, why)


@test('half a pair')
def _():
    for env, unset in ((server_env(KEYFILE=None), 'CERTFILE is set, but KEYFILE is not'),
                       (server_env(CERTFILE=None), 'KEYFILE is set, but CERTFILE is not'),
                       (server_env(**{'KEYFILE:x': path('a', 'key')}),
                        'KEYFILE:x is set, but CERTFILE:x is not'),
                       (server_env(**{'CERTFILE:*.x': path('a')}),
                        'CERTFILE:*.x is set, but KEYFILE:*.x is not')):
        is_equal(server_refusal(env), unset)


@test('no pair at all')
def _():
    is_equal(server_refusal({}), 'KEYFILE and CERTFILE are not set')
    is_equal(server_refusal({'TLS_SNI': 'require'}), 'KEYFILE and CERTFILE are not set')


@test('CADIR is missing or no directory, with CAFILE or without')
def _():
    program = temp()
    os.chmod(program, 0o755)
    for more in {}, {'CAFILE': path('ca')}:
        for d, error in (('/nonexistent', 'No such file or directory'),
                         (temp(), 'Not a directory'), (program, 'Not a directory')):
            why = server_refusal(server_env(CADIR=d, **more), ['-y'])
            is_true(why.endswith('CADIR %s: %s' % (d, error)), why)


@test('an entry of CADIR is malformed, with CAFILE')
def _():
    d = temp_dir()
    with open(d + '/01234567.0', 'w') as f:
        f.write('no PEM\n')
    # What can be trusted is; a certificate that is not there cannot.
    server_facts(server_env(CADIR=d, CAFILE=path('ca')), ['-y'], cert='client')


# Handshakes that cannot succeed

@test('no common cipher: an alert, and one line')
def _():
    name, why = turned_away(server_env(), max=TLS12, ciphers='AES128-SHA')
    is_equal(name, 'SSLV3_ALERT_HANDSHAKE_FAILURE')
    is_true('no shared cipher' in why, why)


@test('no common protocol: an alert, and one line')
def _():
    name, why = turned_away(server_env(TLS_PROTOCOLS='tlsv1.3'), max=TLS12)
    is_equal(name, 'TLSV1_ALERT_PROTOCOL_VERSION')


@test('the alert reaches a client that has sent more after its ClientHello: no reset destroys it')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io echo served', server, env=server_env())
    client.sendall(client_hello(max=TLS12, ciphers='AES128-SHA') + os.urandom(300000))
    got = read_to_end(client)
    is_equal((got[:1], got[5:]), (ALERT, b'\x02\x28'), 'fatal handshake_failure')
    client.close()
    reason(c)


GARBAGE = {
    'an HTTP request': (b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', PLAINTEXT),
    'SMTP commands': (b'EHLO evil\r\nMAIL FROM:<>\r\n', PLAINTEXT),
    'an SMTP command and then a ClientHello': (b'EHLO evil\r\n\x16\x03\x01', PLAINTEXT),
    'a null byte': (b'\0', PLAINTEXT),
    'a record of application data': (b'\x17\x03\x03\0\1x', PLAINTEXT),
    'a ClientHello of SSL 2': (b'\x80\x2e\1\0\2\0\x15\0\0\0\x10', PLAINTEXT),
    'a handshake record that is none': (b'\x16' * 600, None),
    'a handshake record with an empty message': (b'\x16\x03\x01\0\0', None),
    'a record longer than any may be': (b'\x16\x03\x01\xff\xff' + b'x' * 65535, None),
}
for what, (data, why) in GARBAGE.items():
    @test('%s in place of a ClientHello' % what)
    def _(data=data, why=why):
        client, server = tcp_pair()
        c = Chain('tls-handshake tls-io echo served', server, env=server_env())
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        got = read_to_end(client)
        is_true(got[:1] in ([b''] if why else [b'', ALERT]), 'sent to the client: %r' % got)
        client.close()
        is_true(reason(c) == (why or reason(c)), 'the reason: ' + reason(c))


# Slow clients

def unread(sock):
    """How many bytes have come and wait."""
    return struct.unpack('i', fcntl.ioctl(sock, termios.FIONREAD, b'\0' * 4))[0]


@test('a ClientHello in segments of one byte is as good as any')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io cat', server, env=server_env(), keep=True)
    peer = Peer(client)
    for byte in peer.next_flight():
        client.send(bytes([byte]))
        wait_for(lambda: not unread(server), 'the byte is read')
    server.close()
    peer.handshake()
    is_echoed(peer)
    ends_well(peer, c)


LIMIT = 700 * SLOW  # ms
ALARMS = {
    'as it is': None,
    'ignored': lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN),
    'blocked': lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]),
}
for what, preexec in ALARMS.items():
    @test('the limit is for the whole handshake, however often a byte comes; SIGALRM ' + what)
    def _(preexec=preexec):
        client, server = tcp_pair()
        c = Chain('tls-handshake -K %d tls-io echo served' % LIMIT, server, env=server_env(),
                  preexec=preexec)
        took = drip(client, client_hello(), 0.1 * SLOW)  # all of it takes 50 times LIMIT
        is_equal(reason(c), 'the handshake timed out')
        is_true(took < 10 * LIMIT / 1000, 'took %.1f s' % took)


@test('the limit is for the whole handshake: a client that stops after its ClientHello')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake -K %d tls-io echo served' % LIMIT, server, env=server_env())
    client.sendall(client_hello())
    is_equal(client.recv(1), HANDSHAKE)
    read_to_end(client)
    is_equal(reason(c), 'the handshake timed out')


# Peers that leave

def leave(how):
    """What the chain says of a client that leaves so."""
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io echo served', server, env=server_env())
    how(Peer(client))
    return reason(c)


def half_hello(peer):
    peer.sock.sendall(client_hello()[:100])


def whole_hello(peer):
    peer.sock.sendall(client_hello())
    is_equal(peer.sock.recv(1), HANDSHAKE)


for what, start in (('at once', lambda peer: None), ('in its ClientHello', half_hello),
                    ('after its ClientHello', whole_hello)):
    @test('a client that ends the stream %s' % what)
    def _(start=start):
        def how(peer):
            start(peer)
            peer.shutdown()
            read_to_end(peer.sock)
        is_equal(leave(how), 'the peer closed the connection')

    @test('a client that resets the connection %s' % what)
    def _(start=start):
        def how(peer):
            start(peer)
            peer.reset()
        is_equal(leave(how), 'Connection reset by peer')


def warning(c):
    """The one line about a session, once the engine is gone."""
    wait_for(lambda: not engines(), 'the engine leaves')
    text = c.stderr()
    is_true(text.find('\n') == len(text) - 1, 'one line: %r' % text)
    return text[:-1]


@test('a client that resets the connection in a session: the application sees the end')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io cat', server, env=server_env())
    peer = Peer(client).handshake()
    is_echoed(peer)
    peer.reset()
    is_equal(c.wait(), 0)
    why = warning(c)
    is_true(why.startswith('tls-engine: warning: session ') and 'reset by peer' in why, why)


@test('a client that resets the connection in a session: tls-io -w exits 98')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io -w cat', server, env=server_env())
    peer = Peer(client).handshake()
    is_echoed(peer)
    peer.reset()
    is_equal(c.wait(), 98)
    why = warning(c)
    is_true('reset by peer' in why, why)


@test('a client that ends without close_notify: all is delivered, the truncation is told')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io cat', server, env=server_env())
    peer = Peer(client).handshake()
    peer.send(b'the last words')
    peer.shutdown()
    is_equal(peer.recv_all(), (b'the last words', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(warning(c),
             'tls-engine: warning: session truncated: the peer ended without close_notify')


@test('a client that just leaves, once it has seen the end of a finished application, is no fault')
def _():
    for _ in range(20):
        client, server = tcp_pair()
        c = Chain('tls-handshake tls-io -w echo served', server, env=server_env())
        peer = Peer(client).handshake()
        is_equal(peer.recv_all(), (b'served\n', 'close_notify'))
        client.close()
        is_equal((c.wait(), c.stderr()), (0, ''))


# Afterwards the application cannot go on in plaintext

def fallback(tls_side, talk, env=None):
    """Has an application ask for a TLS that fails; what it could still write; the chain."""
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, tls_side), server, env=server_env() if env is None else env)
    starttls(client)
    talk(client)
    got = read_to_end(client)
    client.close()
    is_equal(c.wait(), 10, 'exit code of the application')
    is_true(b'plaintext' not in got, 'written in plaintext: %r' % got)
    wait_for(lambda: c.stderr().endswith('\n'), 'a line')
    return c


def end(client):
    client.shutdown(socket.SHUT_WR)


SERVE = ['tls-await', 'tls-handshake', 'tls-io']


@test('no plaintext after a failed handshake: bad configuration')
def _():
    is_equal(fallback(SERVE, end, {}).stderr(), FATAL + 'KEYFILE and CERTFILE are not set\n')


@test('no plaintext after a failed handshake: no common cipher')
def _():
    def talk(client):
        client.sendall(client_hello(max=TLS12, ciphers='AES128-SHA'))
        end(client)
    is_true('no shared cipher' in fallback(SERVE, talk).stderr(), 'reason')


@test('no plaintext after a failed handshake: commands in plaintext before TLS')
def _():
    def talk(client):
        client.sendall(b'EHLO evil\r\n' + client_hello())
        end(client)
    is_equal(fallback(SERVE, talk).stderr(), FATAL + PLAINTEXT + '\n')


@test('no plaintext after a failed handshake: time is up')
def _():
    c = fallback(['tls-await', 'tls-handshake', '-K', '100', 'tls-io'], lambda client: None)
    is_equal(c.stderr(), FATAL + 'the handshake timed out\n')


@test('no plaintext after a failed handshake: the client leaves')
def _():
    is_equal(fallback(SERVE, end).stderr(), FATAL + 'the peer closed the connection\n')


@test('no plaintext after a failed handshake: there are no descriptors for it')
def _():
    not_resident('leaves a chain with need of fewer descriptors')
    not_under_valgrind('needs descriptors of its own')
    c = fallback(['tls-await', *at_most(7), *SERVE[1:]], lambda client: None)
    is_true(tells_emfile(c.stderr()), c.stderr())


@test('commands sent together with STARTTLS are refused in words of their own')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, SERVE), server, env=server_env())
    client.sendall(b'STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil>\r\n')
    is_equal(client.recv(9), b'go ahead\n')
    end(client)
    is_equal(read_to_end(client), b'')
    client.close()
    is_equal(c.wait(), 10)
    is_equal(c.stderr(), FATAL + PLAINTEXT + '\n')


run()
