#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: its limits, and who harms whom.

import os
import random
import resource
import signal
import socket
import struct
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, PYTHON, Chain, descriptors, need, not_under_valgrind, reason
from engined import (ENGINE_UID, Engine, KeyFiles, fds_held, holds_as_before, how_it_ends,
                     join_through, refused_by, serve_through, slow_file, start_engine, wait_deaf,
                     works_through)
from peer import Peer, Recorder
from pki import pki, server_env
from privileges import all_can_run, as_root
from proc import status_of
from processes import wait_dead
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from wire import framed, start_text

COUNTED_UID = '60013'  # no other test has a process of that user
CAT_8_9 = '''
import os
while True:
    data = os.read(8, 4096)
    if not data:
        break
    os.write(9, data)
'''  # an application whose network is where most others have none


# Limits

@test('-m: beyond that many sessions a chain says why, the network is hung up; then there is room')
def _():
    e = start_engine(options=['-m', '2'])
    for _ in range(3):
        peers = [join_through(e) for _ in range(2)]
        for _ in range(3):
            is_equal(refused_by(e, 111), 'the resident engine is at its limit of sessions (-m)')
        for peer, _ in peers:
            is_echoed(peer)
        ends_well(*peers.pop())
        e.wait_sessions(1)
        peers.append(join_through(e))
        for peer, c in peers:
            ends_well(peer, c)
        e.wait_sessions(0)
    is_equal(e.log(), [])


@test('a refusal is heard, whoever is the first to speak')
def _():
    e = start_engine(options=['-m', '1'])
    peer, c = join_through(e)
    clients = [serve_through(e, ['echo', 'served']) for _ in range(30)]
    for client, chain_ in clients:
        is_equal(client.recv(1), b'', 'sent to the client')
        is_equal(reason(chain_, 111), 'the resident engine is at its limit of sessions (-m)')
    ends_well(peer, c)


@as_root('where no process can be had for a session, the chain says so')
def _():
    not_under_valgrind('ends a process whose fork fails')

    def preexec():
        resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))  # worker, signer, a session
    env = server_env(TLS_UID=COUNTED_UID, TLS_GID=COUNTED_UID,
                     KEYFILE=KeyFiles('server').env['KEYFILE'])
    e = start_engine(env, preexec_fn=preexec)
    peer, c = join_through(e)
    is_equal(refused_by(e, 111), 'the resident engine cannot fork')
    is_echoed(peer)
    ends_well(peer, c)
    e.wait_sessions(0)
    works_through(e)


def sleeps_of(pid):
    """How often a process has had to wait for something."""
    return int(status_of(pid)['voluntary_ctxt_switches'])


@as_root('a worker that has no descriptor left waits without a stir, and serves when it has one')
def _():
    e = start_engine()
    worker = e.worker()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (max(fds_held(worker)) + 1, limits[1]))
    with socket.socket(socket.AF_UNIX) as s:
        before = sleeps_of(worker)
        s.connect(e.path)
        wait_for(lambda: sleeps_of(worker) > before + 2, 'it to try, and to sleep, and again')
        is_equal(e.sessions(), [], 'sessions')
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        e.wait_sessions(1)
    works_through(e)


@test('-u: nobody else is served')
def _():
    me = os.getuid()
    works_through(start_engine(options=['-u', str(me)]))
    e = start_engine(options=['-u', str(me + 1)])
    is_equal(refused_by(e, 111), 'the resident engine does not serve this user')
    is_equal(e.sessions(), [], 'sessions')


@as_root('-u: that user is served, though not root')
def _():
    need('setpriv')
    e = start_engine(options=['-u', str(ENGINE_UID)])
    os.chmod(e.path, 0o777)
    client, server = tcp_pair()
    if not all_can_run(BIN + '/tls-handshake'):
        raise Skip('only root can run the programs where they are')
    c = Chain(['setpriv', '--reuid=%d' % ENGINE_UID, '--clear-groups', 'tls-handshake', 'tls-io',
               'cat'],
              server, env={'TLS_ENGINE': e.path})
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)
    is_equal(refused_by(e, 111), 'the resident engine does not serve this user')


@test('who may connect is what the socket says')
def _():
    need('setpriv')
    if os.getuid():
        raise Skip('not root')
    e = start_engine(bound=['-a', '0700'])
    is_equal(os.stat(e.path).st_mode & 0o777, 0o700)
    with socket.socket(socket.AF_UNIX) as s:
        os.seteuid(ENGINE_UID)
        try:
            s.connect(e.path)
            raise AssertionError('connected')
        except PermissionError:
            pass
        finally:
            os.seteuid(0)
    works_through(e)


# Who harms whom

@test('a session that is killed is a failure of its own chain, and of nobody else, and is told')
def _():
    e = start_engine()
    told = []
    victim, its = join_through(e, io=['-w'])
    session, = e.wait_sessions(1)
    peer, c = join_through(e)
    for sig in signal.SIGKILL, signal.SIGABRT:
        os.kill(session, sig)
        is_equal(victim.recv_all(), (b'', 'eof'))
        victim.sock.close()
        is_equal(its.wait(), 98)
        e.wait_sessions(1)
        told.append('tls-engined: warning: the session in process %d was killed by signal %d'
                    % (session, sig))
        is_echoed(peer)
        if sig == signal.SIGKILL:
            before = e.sessions()
            victim, its = join_through(e, io=['-w'])
            session, = set(e.wait_sessions(2)) - set(before)
    ends_well(peer, c)
    e.wait_sessions(0)
    works_through(e)
    is_equal((e.poll(), e.log()), (None, told))


@test('a session that is killed in the handshake: 98, and the network is hung up')
def _():
    e = start_engine()
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, keep=True, env={'TLS_ENGINE': e.path})
    session, = e.wait_sessions(1)
    os.kill(session, signal.SIGKILL)
    is_equal(client.recv(1), b'')
    server.close()
    is_equal(reason(c, 98), 'the engine exited unexpectedly')


@test('garbage on the socket harms nobody and leaves nothing')
def _():
    e = start_engine()
    worker = e.worker()
    peer, c = join_through(e)
    held = fds_held(worker)
    null = [os.open('/dev/null', os.O_RDWR) for _ in range(200)]
    ours, its = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)  # or a refusal would wait for a peer that says nothing
    two = [its.fileno()] * 2
    noise = random.Random(4)

    def talk(data, fds=()):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30 * SLOW)
            s.connect(e.path)
            try:
                if fds:
                    socket.send_fds(s, [data], fds)
                else:
                    s.sendall(data)
                if data:
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(4096):
                        pass
            except (BrokenPipeError, ConnectionResetError):
                pass
    try:
        for data, fds in (
                (framed(start_text(version=3), two), two),       # a version to come
                (framed(start_text(version=1), two), two),
                (framed(start_text(role=7), two), two),
                (framed(start_text(role=1), two), two),          # a role it has not
                (framed(start_text(peer=b'a\0b'), two), two),
                (framed(b'', two), two),
                (framed(start_text()), ()),                      # no descriptors
                (framed(start_text(), two), ()),                 # nor those that it promises
                (framed(start_text(), two), two[:1]),
                (framed(start_text(), null[:200]), null[:200]),  # many
                (framed(start_text(), two), null[:200]),
                (framed(b'J' + bytes(7), two), two),             # out of turn
                (framed(start_text()[:5], two), two),
                (framed(start_text(), null[:2]), null[:2]),      # no network
                (struct.pack('>IH', 0xffffffff, 0xffff) + b'x', ()),
                (b'GET / HTTP/1.0\r\n\r\n', ()),
                (b'\0', ()),
                (b'', ()),                                           # hangs up at once
                *((noise.randbytes(noise.randrange(1, 9000)), ()) for _ in range(20)),
                *((noise.randbytes(noise.randrange(1, 9000)), null[:noise.randrange(1, 200)])
                  for _ in range(10))):
            talk(data, fds)
    finally:
        for fd in null:
            os.close(fd)
        ours.close()
        its.close()
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(e.path)
    e.wait_sessions(2)
    is_echoed(peer)
    works_through(e)
    silent.close()
    e.wait_sessions(1)
    is_equal(e.worker(), worker)
    holds_as_before(worker, held)
    for line in e.log():
        is_true(line.startswith('tls-engine: fatal: '), line)
    ends_well(peer, c)


@test('who connects and says nothing is no session for long, chains that wait are')
def _():
    e = start_engine(options=['-m', '2'])
    client, c = serve_through(e, options=['-K', '0'])
    client.sendall(b'\x16')
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(30 * SLOW)
        silent.connect(e.path)
        e.wait_sessions(2)
        refused_by(e, 111)
        is_equal(silent.recv(1), b'', 'what it gets')
    e.wait_sessions(1)
    works_through(e)
    is_equal(c.poll(), None, 'exit code of the chain that waits')
    client.close()
    is_equal(reason(c, 97), 'the peer closed the connection')


@test('a keeper that is killed leaves no worker; sessions go on, and the last one is the end')
def _():
    e = start_engine()
    worker = e.worker()
    e.signal(signal.SIGKILL)
    wait_dead(worker)
    e = start_engine()
    worker = e.worker()
    peer, c = join_through(e)
    e.signal(signal.SIGKILL)
    wait_deaf(worker)
    is_equal(refused_by(e, 111),
             'unable to connect to TLS_ENGINE %s: Connection refused' % e.path)
    is_echoed(peer)
    ends_well(peer, c)
    wait_dead(worker)


REPLACED = 'tls-engined: warning: the worker exited unexpectedly: starting another one'


@test('a worker that is killed: the keeper says so and starts another one, sessions go on')
def _():
    e = start_engine()
    peer, c = join_through(e)
    session, = e.wait_sessions(1)
    worker = e.worker()
    os.kill(worker, signal.SIGKILL)
    works_through(e)
    is_true(e.worker() != worker, 'another worker')
    is_equal(e.log(), [REPLACED])
    is_echoed(peer)
    ends_well(peer, c)
    wait_dead(session)


@test('one that keeps dying is replaced once a second, and who comes waits')
def _():
    e = start_engine()
    start = time.monotonic()
    for n in range(1, 4):
        works_through(e)
        os.kill(e.worker(), signal.SIGKILL)
        wait_for(lambda: e.log() == [REPLACED] * n, 'a line')
    works_through(e)
    is_true(time.monotonic() - start > 2.5, 'it took its time')


@test('one that cannot be replaced, as a file is bad by now: the keeper ends with that')
def _():
    files = KeyFiles('server')
    e = start_engine(files.env)
    files.spoil()
    os.kill(e.worker(), signal.SIGKILL)
    is_equal(e.wait(), 96)
    is_equal([line.split(':')[1] for line in e.log()], [' warning', ' fatal'])


@test('a worker that is killed before it is ready: the keeper does not end in silence')
def _():
    e = Engine(server_env(CAFILE=slow_file()))
    os.kill(wait_for(e.workers, 'a worker')[0], signal.SIGKILL)
    is_equal(e.notification.read(), b'', 'readiness')
    is_true(e.wait() > 0, 'exit code')
    is_equal(len(e.log()), 1, 'lines on stderr')


@test('100 sessions at once', limit=120)
def _():
    e = start_engine()
    n = 100 if SLOW == 1 else 20
    clients = [serve_through(e) for _ in range(n)]
    peers = [(Peer(client).handshake(), c) for client, c in clients]
    e.wait_sessions(n)
    for i, (peer, _) in enumerate(peers):
        peer.send(b'%099d\n' % i)
    for i, (peer, _) in enumerate(peers):
        is_equal(peer.recv(100), b'%099d\n' % i)
    for peer, c in peers:
        ends_well(peer, c)
    e.wait_sessions(0)
    is_equal(e.log(), [])


@test('a chain with any of 0, 1 and 2 closed: no message gets into the session, nor into the data')
def _():
    e = start_engine(server_env(CAFILE=pki() + '/ca.pem'))
    for closed in (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2):
        for options in ['-v', '2'], ['-v', '2', '-y']:
            client, server = tcp_pair()
            table = {8: server.fileno(), 9: server.fileno(), **{fd: None for fd in closed}}
            c = Chain(['tls-handshake', '-6', '8', '-7', '9', *options, 'tls-io',
                       *PYTHON, CAT_8_9], client=True, preexec=descriptors(table),
                      env={'TLS_ENGINE': e.path})
            server.close()
            wire = Recorder(client)
            peer = Peer(wire)
            if options[2:]:
                is_equal(how_it_ends(peer), b'')
            else:
                peer.handshake()
                is_echoed(peer)
                is_equal(peer.end_politely(), (b'', 'close_notify'))
            client.close()
            is_equal(c.wait(), 97 if options[2:] else 0, 'exit code with %r closed' % (closed,))
            is_equal('tls-handshake: ' in c.stderr(), 2 not in closed, c.stderr())
            is_true(b'tls-' not in wire.raw, 'a message in the data: %r' % wire.raw)
    e.wait_sessions(0)
    for line in e.log():
        is_true(line.startswith('tls-engine: info: session ended: 5 bytes received, 5 sent'), line)


run()
