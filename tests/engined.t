#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: how it starts, what its processes hold and may.

import os
import resource
import shutil
import signal
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import not_under_valgrind
from engined import (DROP, ENGINE_GID, ENGINE_UID, LOADED, Engine, KeyFiles, fds_held,
                     holds_as_before, join_through, listening_socket, refused_by, serve_through,
                     shown_hash, start_engine, works_through)
from peer import Peer
from pki import cert_hash, hashed_dir, pki, server_env
from privileges import as_root, has_nothing_of_root, is_confined
from proc import state_of, status_of
from processes import wait_dead
from scratch import close_later, temp, temp_dir
from sessions import ends_well, is_echoed
from tap import is_equal, is_true, run, test, wait_for

USAGE = 'tls-engined: usage: tls-engined ['


# How it starts

@test('under s6-ipcserver-socketbinder it serves each session in a process of its own')
def _():
    e = start_engine()
    is_equal(e.sessions(), [], 'sessions')
    one = join_through(e)
    first, = e.wait_sessions(1)
    two = join_through(e)
    is_equal(len(set(e.wait_sessions(2)) | {first, e.worker(), e.pid}), 4, 'processes')
    is_echoed(one[0])
    ends_well(*one)
    is_echoed(two[0])
    ends_well(*two)
    e.wait_sessions(0)
    is_equal(e.log(), [])


@test('the socket may come from anyone, and who comes before it is ready is served')
def _():
    listener, path = listening_socket()
    client, c = serve_through(path)
    e = Engine(server_env(), listener=listener).ready()
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)
    works_through(path)
    is_equal(e.log(), [])


@test('without -d it says nothing, and serves')
def _():
    listener, path = listening_socket()
    e = Engine(server_env(), listener=listener, notify=False)
    works_through(path)
    is_equal(e.log(), [])


def fill(path):
    """Connections that nobody accepts, as many as the backlog takes."""
    waiting = []
    while True:
        s = socket.socket(socket.AF_UNIX)
        close_later(s)
        s.setblocking(False)
        try:
            s.connect(path)
        except BlockingIOError:
            return waiting
        waiting.append(s)


@test('a chain that finds the backlog full waits for room, as long as it has for the handshake')
def _():
    listener, path = listening_socket(0)
    waiting = fill(path)
    is_equal(refused_by(path, 111, ['-K', '200']),
             'unable to connect to TLS_ENGINE %s: Resource temporarily unavailable' % path)
    client, c = serve_through(path)
    wait_for(lambda: state_of(c.pid) == 'S', 'it to wait')
    for s in waiting:
        s.close()
    e = Engine(server_env(), listener=listener).ready()
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)
    e.wait_sessions(0)


@test('readiness is told once, on a descriptor that is then closed')
def _():
    e = start_engine()
    is_equal(e.notification.read(), b'', 'all that comes after the first byte')
    e.signal(signal.SIGHUP)  # would fail with EPIPE, if it told that again
    works_through(e)


def is_accepting(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


@test('nobody has to read what is told of readiness')
def _():
    r, w = os.pipe()
    os.close(r)
    e = Engine(server_env(), ['-d', str(w)], notify=False, pass_fds=[w])
    os.close(w)
    wait_for(lambda: is_accepting(e.path), 'the socket')
    works_through(e)
    is_equal(e.poll(), None, 'exit code')


@test('the files are read before it is ready, and no more after that')
def _():
    d = temp_dir()
    for name in 'server.key', 'server.pem':
        shutil.copy('%s/%s' % (pki(), name), d)
    e = start_engine({'KEYFILE': d + '/server.key', 'CERTFILE': d + '/server.pem'})
    os.unlink(d + '/server.key')
    os.unlink(d + '/server.pem')
    for _ in range(2):
        is_equal(works_through(e), cert_hash('server'))


def bad_settings():
    """Settings that are none: what they are, the options, the exit code, what the line says."""
    none, garbage = '/nonexistent/file', temp(b'garbage\n')
    p = pki()
    ca = p + '/ca.pem'
    return [
        ({}, (), 96, 'KEYFILE and CERTFILE are not set'),
        (server_env(KEYFILE=None), (), 96, 'CERTFILE is set, but KEYFILE is not'),
        (server_env(KEYFILE=none), (), 96, 'unable to read KEYFILE ' + none),
        (server_env(CERTFILE=none), (), 96, 'unable to read CERTFILE ' + none),
        (server_env(CERTFILE=garbage), (), 96, 'unable to use CERTFILE ' + garbage),
        (server_env(KEYFILE=garbage), (), 96, garbage),
        (server_env(KEYFILE=p + '/a.key'), (), 96, p + '/a.key'),
        (server_env(**{'CERTFILE:a': none, 'KEYFILE:a': none}), (), 96, none),
        (server_env(**{'CERTFILE:a': p + '/a.pem'}), (), 96,
         'CERTFILE:a is set, but KEYFILE:a is not'),
        (server_env(CAFILE=none), (), 96, 'unable to read CAFILE ' + none),
        (server_env(CAFILE=garbage), (), 96, garbage),
        (server_env(CADIR=none), (), 96, 'unable to open CADIR ' + none),
        (server_env(CAFILE=ca, CRLFILE=garbage), (), 96, 'unable to use CRLFILE ' + garbage),
        (server_env(OCSPFILE=garbage), (), 96, 'unable to use OCSPFILE ' + garbage),
        (server_env(TLS_SNI='maybe'), (), 96, 'TLS_SNI'),
        (server_env(TLS_PROTOCOLS='ssl'), (), 96, 'unable to use TLS_PROTOCOLS ssl'),
        (server_env(TLS_CIPHERS='ROT13'), (), 96, 'unable to use TLS_CIPHERS ROT13'),
        (server_env(TLS_UID='nobody', TLS_GID='0'), (), 96, 'TLS_UID must be a number: nobody'),
        (server_env(TLS_UID='60000'), (), 96, 'TLS_UID is set, but TLS_GID is not'),
        ({'CAFILE': none}, ['-c'], 96, 'unable to read CAFILE ' + none),
        ({'CAFILE': ca, 'TLS_PROTOCOLS': 'ssl'}, ['-c'], 96, 'unable to use TLS_PROTOCOLS ssl'),
        (server_env(CAFILE=ca, KEYFILE=none), ['-c'], 96, 'unable to read KEYFILE ' + none),
        (server_env(CAFILE=ca, KEYFILE=None), ['-c'], 96, 'CERTFILE is set, but KEYFILE is not'),
    ]


@test('settings that are none: one line that names them, no readiness, exit 96')
def _():
    for env, options, code, text in bad_settings():
        e = Engine(env, options)
        is_equal(e.notification.read(), b'', 'readiness with %r' % env)
        is_equal((e.wait(), len(e.log())), (code, 1), 'exit code, lines with %r' % env)
        line, = e.log()
        is_true(line.startswith('tls-engined: fatal: ') and text in line, '%r in %r' % (text, line))


@test('what a client cannot use is found as it starts, too')
def _():
    garbage, p = temp(b'garbage\n'), pki()
    ca = p + '/ca.pem'
    for env, text in (
            ({'CAFILE': garbage}, garbage),
            ({'CAFILE': ca, 'KEYFILE': p + '/a.key'}, 'KEYFILE is set, but CERTFILE is not'),
            (server_env('a', CAFILE=ca, KEYFILE=p + '/b.key'), p + '/b.key'),
            (server_env('a', CAFILE=ca, KEYFILE=garbage), garbage)):
        e = Engine(env, ['-c'])
        is_equal(e.notification.read(), b'', 'readiness with %r' % env)
        is_equal((e.wait(), len(e.log())), (96, 1), 'exit code, lines with %r' % env)
        is_true(text in e.log()[0], '%r in %r' % (text, e.log()[0]))


@test('what is no option or no number is a usage error')
def _():
    for options in ['-x'], ['program'], ['-m', '0'], ['-m', 'x'], ['-m', ''], ['-t', '-1'], \
            ['-t', '5000000000'], ['-u', 'root'], ['-d', 'x'], ['-m']:
        e = Engine(server_env(), options, notify=False)
        is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines with %r' % options)
        is_true(e.log()[0].startswith(USAGE), e.log()[0])


@test('a descriptor of -d that is not open, or a 0 that nobody listens on: 100, and a line')
def _():
    ours, its = socket.socketpair()
    with ours, its, socket.socket(socket.AF_UNIX) as deaf, open('/dev/null') as null:
        deaf.bind(temp_dir() + '/engine')
        for given in deaf, its, null:
            e = Engine(server_env(), listener=given)
            is_equal(e.notification.read(), b'', 'readiness')
            is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines')
    e = Engine(server_env(), ['-d', '77'], notify=False)
    is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines')


# What its processes hold and may

@test('keeper, worker and session hold what they need, whatever they were given', limit=20)
def _():
    not_under_valgrind('has descriptors of its own')
    rfd, wfd = os.pipe()
    reader = os.fdopen(rfd, 'rb')
    close_later(reader)
    e = Engine(server_env(), pass_fds=[wfd]).ready()
    os.close(wfd)
    is_equal(reader.read(), b'', 'a pipe end that was in the way')
    listening = fds_held(e.pid)[0]
    peer, c = join_through(e)
    session, = e.wait_sessions(1)
    held = fds_held(session)
    is_true(listening not in held.values(), 'a session does not listen: %r' % held)
    is_equal({held[1], held[2]}, {fds_held(e.pid)[2]}, 'stderr')
    links = sorted(v.split(':')[0] for fd, v in held.items() if fd not in (1, 2))
    # the session socket, the network twice, a pipe each way, where it says that it lingers, ends
    is_equal(links, ['pipe'] * 4 + ['socket'] * 3)
    is_equal(listening in fds_held(e.worker()).values(), True, 'the worker listens')
    before = fds_held(e.worker())
    ends_well(peer, c)
    e.wait_sessions(0)
    holds_as_before(e.worker(), before)


@as_root('worker and sessions are TLS_UID, without groups, confined; the keeper reads the files')
def _():
    def preexec():
        os.setgroups([0, 1, 2, 27, 60003])
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    files = KeyFiles('a')
    e = start_engine({**files.env, **DROP}, preexec_fn=preexec)
    for name in 'a', 'b':
        worker = e.worker()
        has_nothing_of_root(worker, ENGINE_UID, ENGINE_GID)
        is_confined(worker, forks=True)
        peer, c = join_through(e)
        is_equal(shown_hash(peer), cert_hash(name))
        session, = e.wait_sessions(1)
        has_nothing_of_root(session, ENGINE_UID, ENGINE_GID)
        is_confined(session)
        ends_well(peer, c)
        is_equal(status_of(e.pid)['Uid'].split(), ['0'] * 4, 'the keeper')
        if name == 'a':
            files.become('b')
            e.signal(signal.SIGHUP)
            wait_dead(worker)
    is_equal(e.log(), [LOADED])


@as_root('without TLS_UID and TLS_GID they keep user and group, and are confined as well')
def _():
    e = start_engine(preexec_fn=lambda: os.setgroups([1, 2]))
    peer, c = join_through(e)
    for pid in e.worker(), *e.wait_sessions(1):
        is_equal(status_of(pid)['Uid'].split(), ['0'] * 4)
        is_equal(status_of(pid)['Groups'].split(), [])
        is_confined(pid, forks=pid == e.worker())
    ends_well(peer, c)


@as_root('a CADIR that TLS_UID cannot read: a server has read it, a client says so as it starts')
def _():
    d = hashed_dir('ca')
    os.chmod(d, 0o700)
    works_through(start_engine(server_env(CADIR=d, **DROP)))
    e = Engine({'CADIR': d, **DROP}, ['-c'])
    is_equal(e.notification.read(), b'', 'readiness')
    is_equal(e.wait(), 111)
    is_equal(e.log(), ['tls-engined: fatal: unable to read CADIR as TLS_UID: Permission denied'])


run()
