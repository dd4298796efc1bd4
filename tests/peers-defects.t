#!/usr/bin/env python3
# ISC licence: see COPYING.
# What other programs of this kind have got wrong, one after the other: it does not happen here.

# Each test is short and direct; the file that a comment names goes into depth.

import os
import signal
import socket
import ssl
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, FATAL, PYTHON, Chain, delayed, reason
from peer import TLS12, TLS13, Peer, client_hello
from pki import EXT, cert_hash, hashed_dir, issue, openssl, pki, server_env
from proc import cpu_ticks, find_processes, status_of
from processes import confined_engine, wait_engine
from scratch import temp_dir
from sessions import is_echoed, server_facts, server_refusal, turned_away
from sockets import drip, read_to_end, tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from ucspi import STARTTLS_APP, starttls

SERVE = ['tls-await', 'tls-handshake', 'tls-io']
KINDS = {'TLS 1.2': TLS12, 'TLS 1.3': TLS13}
LIMIT = 300 * SLOW  # ms, for a handshake


def python(text):
    return [*PYTHON, 'import os\n' + text]


def immediate(app, env=None, options=()):
    """A session with an application behind tls-handshake tls-io: the peer, the chain."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', *options, *app], server, env=env or server_env())
    return Peer(client), c


def gate():
    """A fifo that an application can wait for, by reading from it."""
    path = temp_dir() + '/gate'
    os.mkfifo(path)
    return path


def open_gate(path):
    os.close(os.open(path, os.O_WRONLY))


def try_gate(path):
    """A descriptor whose end opens the gate, or None if nobody waits there."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


# exit-at-once.t, relay.t
@test('an application that writes and exits at once: its reply is neither lost nor cut')
def _():
    for size, times in (4, 20), (300000, 5):
        for _ in range(times):
            peer, c = immediate(python('os.write(1, b"x" * %d)' % size))
            is_equal(peer.handshake().recv_all(), (b'x' * size, 'close_notify'))
            peer.sock.close()
            is_equal(c.wait(), 0)


# records.t
for name, version in KINDS.items():
    @test('a record of exactly 16384 bytes does not stall: its last byte comes as well, ' + name)
    def _(version=version):
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
        peer = Peer(client, min=version, max=version).handshake()
        for _ in range(3):
            peer.send(b'x' * 16384, record=16384)
            is_equal(len(peer.recv(16384)), 16384)
        peer.end_politely()
        is_equal(c.wait(), 0)


# closing.t
@test('an application that closes only its reading side: its output is delivered')
def _():
    g = gate()
    peer, c = immediate(python('os.close(0); os.write(1, b"ready"); open("%s").read()\n'
                               'os.write(1, b"x" * 50000)' % g))
    is_equal(peer.handshake().recv(5), b'ready')
    peer.send(b'to nobody' * 1000)
    open_gate(g)
    is_equal(peer.recv_all(), (b'x' * 50000, 'close_notify'))
    peer.sock.close()
    is_equal(c.wait(), 0)


# closing.t
for how in 'with close_notify', 'without close_notify':
    @test('a client that ends its direction, %s, still gets the reply' % how)
    def _(how=how):
        for version in TLS12, TLS13:
            client, server = tcp_pair()
            app = python('while os.read(0, 99): pass\nos.write(1, b"reply" * 20000)')
            c = Chain(['tls-handshake', 'tls-io', *app], server, env=server_env())
            peer = Peer(client, min=version, max=version).handshake()
            peer.send(b'request')
            if how == 'with close_notify':
                peer.close_notify()
            peer.shutdown()
            is_equal(peer.recv_all(), (b'reply' * 20000, 'close_notify'))
            is_equal(c.wait(), 0)


# closing.t, tls-io.t
@test('a truncated stream is noticed, and told from one that is complete')
def _():
    for version in TLS12, TLS13:
        for polite in False, True:
            client, server = tcp_pair()
            c = Chain('tls-handshake tls-io -w cat', server, env=server_env())
            peer = Peer(client, min=version, max=version).handshake()
            peer.send(b'half a mess')
            if polite:
                peer.close_notify()
            peer.shutdown()
            is_equal(peer.recv_all(), (b'half a mess', 'close_notify'))
            is_equal(c.wait(), 0 if polite else 98)
            is_equal('truncated: the peer ended without close_notify' in c.stderr(), not polite)


# faults.t, tls-handshake.t
@test('the handshake limit ends in an exit code and a message, not in death by a signal')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake -K %d tls-io echo served' % LIMIT, server, env=server_env())
    read_to_end(client)
    is_equal(reason(c), 'the handshake timed out')


# leaks.t
@test('no variable with the path of a key reaches the application')
def _():
    secret = pki() + '/a'
    more = {'KEYFILE:a.example.org': secret + '.key', 'CERTFILE:a.example.org': secret + '.pem'}
    f, peer = server_facts(
        server_env(CAFILE=pki() + '/ca.pem', CADIR=hashed_dir('ca'), **more), ['-Y'])
    is_equal({v: f[v] for v in f if pki() in f[v]}, {})
    client, server = tcp_pair()
    c = Chain(delayed(['env', '-0'], SERVE), server, env=server_env(**more))
    is_true(pki().encode() not in read_to_end(client), 'no path of the PKI')
    client.close()
    is_equal(c.wait(), 0)


# privileges.t
@test('the groups of root are not kept when the user is dropped')
def _():
    if os.getuid():
        raise Skip('not root')
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io cat', server, preexec=lambda: os.setgroups([0, 1, 2, 27]),
              env=server_env(TLS_UID='60001', TLS_GID='60002'))
    is_equal(status_of(confined_engine())['Groups'].split(), [])
    client.close()
    c.wait()


# ucspi-tls.t
@test('an application that asks by y, and closes the control socket, is served')
def _():
    app = python('ctl, r, w = (int(os.environ[v]) for v in ("SSLCTLFD", "SSLREADFD", '
                 '"SSLWRITEFD"))\n'
                 'os.write(ctl, b"y"); os.close(ctl); os.write(w, os.read(r, 5))')
    client, server = tcp_pair()
    c = Chain(delayed(app, SERVE), server, env=server_env())
    peer = Peer(client).handshake()
    peer.send(b'hello')
    is_equal(peer.recv_all(), (b'hello', 'close_notify'))
    client.close()
    is_equal(c.wait(), 0)


# ucspi-tls.t, tls-ctl-open.t
@test('the engine is not looked up in PATH')
def _():
    d = temp_dir()
    with open(d + '/tls-engine', 'w') as f:
        f.write('#!/bin/sh\nexit 1\n')
    os.chmod(d + '/tls-engine', 0o755)
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io echo served', server, env=server_env(),
              path=d + ':' + BIN + ':' + os.environ['PATH'])
    is_equal(Peer(client).handshake().recv_all(), (b'served\n', 'close_notify'))
    client.close()
    is_equal(c.wait(), 0)


# tls-ctl-open.t
@test('a TLS side that is not there is told before the application runs, not at STARTTLS time')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(['echo', 'plaintext'], ['no-such-program']), server)
    is_equal(read_to_end(client), b'')
    client.close()
    is_equal(c.wait(), 127)
    is_true('no-such-program: No such file or directory\n' in c.stderr(), c.stderr())


# settings.t
@test('where the client has to name a server, an unknown name is refused')
def _():
    env = server_env(TLS_SNI='require', **{'KEYFILE:localhost': pki() + '/server.key',
                                           'CERTFILE:localhost': pki() + '/server.pem'})
    server_facts(env, name='localhost')
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io echo served', server, env=env)
    is_equal(Peer(client, name='example.com').handshake().recv_all()[0], b'')
    client.close()
    is_equal(reason(c), 'the client named no known server')


# client-certificates.t
@test('CAFILE and CADIR: neither puts the other out of force')
def _():
    d = temp_dir()
    os.symlink(pki() + '/otherca.pem', d + '/otherca.pem')
    openssl('rehash', d)
    issue(pki(), 'stranger', EXT['client'], ca='otherca')
    env = server_env(CAFILE=pki() + '/ca.pem', CADIR=d)
    for name in 'client', 'stranger':
        f, peer = server_facts(env, ['-y'], cert=name)
        is_equal(f['SSL_PEER_CERT_HASH'], cert_hash(name))


# client-certificates.t
@test('a subject so long that the reply would exceed 4096 bytes does not end the session')
def _():
    issue(pki(), 'long', EXT['client'], subject='/DC=' + 'x' * 6000)
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, ['tls-await', 'tls-handshake', '-y', 'tls-io']), server,
              env=server_env(CAFILE=pki() + '/ca.pem'))
    starttls(client)
    peer = Peer(client, cert='long').handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


# ucspi-tls.t
@test('the control socket is closed after the reply to Y: who reads to the end does not hang')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, SERVE), server, env=server_env())
    starttls(client)
    peer = Peer(client).handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')  # it has read to the end
    peer.end_politely()
    is_equal(c.wait(), 0)


# tls-await.t, ucspi-tls.t
@test('an application that declines TLS is not killed for it')
def _():
    g = gate()
    app = python('os.close(int(os.environ["SSLCTLFD"])); open("%s").read()\n'
                 'os.write(1, b"still there")' % g)
    client, server = tcp_pair()
    c = Chain(delayed(app, SERVE), server, env=server_env())
    fd = wait_for(lambda: try_gate(g), 'the application has declined')
    wait_for(lambda: not find_processes('tls-await'), 'the TLS side is gone')
    os.close(fd)
    is_equal(read_to_end(client), b'still there')
    client.close()
    is_equal((c.wait(), c.stderr()), (0, ''))


def cpu_time(pid):
    """In clock ticks; none for a process that is gone, as it may be after a reset."""
    try:
        return cpu_ticks(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0


# closing.t
for how in 'without close_notify', 'with close_notify', 'altogether':
    @test('no busy loop after the peer has closed %s, while the application thinks' % how)
    def _(how=how):
        g = gate()
        peer, c = immediate(python('while os.read(0, 99): pass\nopen("%s").read()' % g))
        peer.handshake()
        pid = wait_engine()[0]
        if how == 'with close_notify':
            peer.close_notify()
        if how == 'altogether':
            peer.sock.close()
        else:
            peer.shutdown()
        fd = wait_for(lambda: try_gate(g), 'the application thinks')
        before = cpu_time(pid)
        time.sleep(0.25)  # time enough for a loop to show
        is_true(cpu_time(pid) - before <= 2, 'the engine sleeps')
        os.close(fd)
        peer.sock.close()
        is_equal(c.wait(), 0)


# relay.t, backpressure.t
@test('8 MB both ways at the same time: no deadlock')
def _():
    size = 8 << 20
    data = os.urandom(1 << 20) * 8
    peer, c = immediate(['cat'])
    peer.handshake()
    for i in range(0, size, 1 << 16):
        peer.tls.write(data[i:i + (1 << 16)])
    sender = threading.Thread(target=peer.sock.sendall, args=[peer.pending_records()])
    sender.start()
    got = peer.recv(size)
    sender.join()
    is_true(got == data, 'the same bytes')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


# faults.t
@test('bytes that wait on the network before TLS begins are refused, and told by that name')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, SERVE), server, env=server_env())
    client.sendall(b'STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n' + client_hello())
    is_equal(read_to_end(client), b'go ahead\n')
    client.close()
    is_equal(c.wait(), 10)
    is_equal(c.stderr(), FATAL + "bytes came in plaintext before the client's TLS began\n")


# exit-at-once.t, closing.t
@test('an application that exits with input unread: no reset, all of its output arrives')
def _():
    for _ in range(5):
        peer, c = immediate(python('os.read(0, 1); os.write(1, b"x" * 300000)'))
        peer.handshake()
        peer.send(b'y' * 300000)
        is_equal(peer.recv_all(), (b'x' * 300000, 'close_notify'))
        peer.sock.close()
        is_equal(c.wait(), 0)


# faults.t
@test('a key and a certificate that do not match: a message, no crash')
def _():
    for key in 'a.key', 'rsa.key':
        why = server_refusal(server_env(KEYFILE=pki() + '/' + key))
        is_true(why.startswith('unable to use CERTFILE %s/server.pem with KEYFILE %s/%s: ' %
                               (pki(), pki(), key)), why)


# faults.t
@test('the handshake limit is for the whole, not for each read, also with SIGALRM blocked')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake -K %d tls-io echo served' % LIMIT, server, env=server_env(),
              preexec=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]))
    drip(client, client_hello(), 0.1 * SLOW)
    is_equal(reason(c), 'the handshake timed out')


# ucspi-tls.t
@test('the first bytes that are written after the request for TLS do not go out in clear')
def _():
    app = python('ctl, w = (int(os.environ[v]) for v in ("SSLCTLFD", "SSLWRITEFD"))\n'
                 'os.write(ctl, b"y"); os.write(w, b"220 secret")')
    client, server = tcp_pair()
    c = Chain(delayed(app, SERVE), server, env=server_env())
    is_equal(c.wait(), 0)  # it has written, and the client has not said a word
    client.sendall(client_hello())
    raw = client.recv(1)
    is_equal(raw, b'\x16', 'type of the first record')
    client.shutdown(socket.SHUT_WR)
    is_true(b'secret' not in read_to_end(client), 'nothing in clear')
    client.close()

    client, server = tcp_pair()
    c = Chain(delayed(app, SERVE), server, env=server_env())
    is_equal(Peer(client).handshake().recv_all(), (b'220 secret', 'close_notify'))
    client.close()
    is_equal(c.wait(), 0)


# settings.t
@test('a client of TLS 1.0 or 1.1 is not served, and gets the alert protocol_version')
def _():
    for version in ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1:
        name, why = turned_away(server_env(), min=version, max=version,
                                ciphers='ALL:@SECLEVEL=0')
        is_equal(name, 'TLSV1_ALERT_PROTOCOL_VERSION')


# client-certificates.t
@test('a client certificate without the usage for clients is refused')
def _():
    for option in '-Y', '-y':
        name, why = turned_away(server_env(CAFILE=pki() + '/ca.pem'), [option],
                                cert='serveronly')
        is_equal(name, 'SSLV3_ALERT_UNSUPPORTED_CERTIFICATE')


run()
