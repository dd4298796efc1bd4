#!/usr/bin/env python3
# ISC licence: see COPYING.
# What an exec hands on to an engine and it must settle: signals, alarms, capabilities, ids,
# O_NONBLOCK on a network that is no socket.

import fcntl
import os
import signal
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, descriptors, need, not_resident, not_under_valgrind, reason
from engined import LOADED, KeyFiles, join_through, listening_socket, start_engine, works_through
from peer import VERSIONS, Peer
from pki import cert_hash, pki, server_env
from privileges import all_can_run, as_root, has_no_capability, has_nothing_of_root, is_confined
from proc import fds_of, mode_of, status_of
from processes import confined_engine, wait_asleep, wait_dead, wait_process
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from wire import OwnEngine, Pipes

UID, GID = 60021, 60022  # nobody needs to have that name
DROP = {'TLS_UID': str(UID), 'TLS_GID': str(GID)}
ALL = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
KEPT = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}  # as a shell leaves them to the background


def ignoring(*signals):
    def preexec():
        for sig in signals:
            signal.signal(sig, signal.SIG_IGN)
    return preexec


def with_alarm():
    """An alarm to come, one that has come already, and both held back so far."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.1 * SLOW)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
    for sig in signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM:
        os.kill(os.getpid(), sig)


def alarm_is_over():
    """Waits until one who had the same alarm has died of it."""
    p = subprocess.Popen(['sleep', '100'],
                         preexec_fn=lambda: signal.setitimer(signal.ITIMER_REAL, 0.1 * SLOW))
    is_equal(p.wait(), -signal.SIGALRM)


def signals_of(pid, name):
    """A set of signals, as /proc tells it."""
    mask = int(status_of(pid)[name], 16)
    return {sig for sig in ALL if mask >> sig - 1 & 1}


# Signals

@test('tls-engined with SIGCHLD ignored counts the ends of its sessions')
def _():
    e = start_engine(options=['-m', '1'], preexec_fn=ignoring(signal.SIGCHLD))
    for _ in range(5):
        works_through(e)
        e.wait_sessions(0)
    e.signal(signal.SIGTERM)
    is_equal((e.wait(), e.log()), (0, []))


@test('tls-engined with SIGTERM ignored or blocked: it ends, and so do its sessions after -t')
def _():
    def blocking():
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    for preexec in ignoring(signal.SIGTERM), blocking, ignoring(*ALL):
        e = start_engine(options=['-t', '100'], preexec_fn=preexec)
        peer, c = join_through(e, io=['-w'])
        session, = e.wait_sessions(1)
        e.signal(signal.SIGTERM)
        is_equal(e.wait(), 0)
        wait_dead(session)
        is_equal(peer.recv_all(), (b'', 'eof'))
        is_equal(c.wait(), 98)


@test('tls-engined with SIGHUP ignored loads its settings all the same')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env, preexec_fn=ignoring(signal.SIGHUP))
    files.become('b')
    e.signal(signal.SIGHUP)
    wait_for(lambda: LOADED in e.log(), 'the new settings')
    is_equal(works_through(e), cert_hash('b'))


@test('a session has no signal blocked, and none ignored but those that are another\'s to ignore')
def _():
    def preexec():
        ignoring(*ALL)()
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    e = start_engine(preexec_fn=preexec)
    peer, c = join_through(e)
    own = OwnEngine(preexec=preexec)
    Peer(own.client).handshake()
    for pid in e.wait_sessions(1)[0], own.pid:
        is_equal(signals_of(pid, 'SigBlk'), set(), 'blocked')
        left = signals_of(pid, 'SigIgn')
        is_true(signal.SIGPIPE in left, 'SIGPIPE')
        for sig in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGABRT,
                    signal.SIGSEGV, signal.SIGUSR1):
            is_true(sig not in left, '%s is ignored' % sig.name)
    ends_well(peer, c)


@test('an alarm from before the exec, pending or to come, does not kill an engine')
def _():
    listener, path = listening_socket()
    e = start_engine(listener=listener, preexec_fn=with_alarm)
    own = OwnEngine(preexec=with_alarm)
    alarm_is_over()
    works_through(path)
    is_equal((e.poll(), e.log()), (None, []))
    peer = Peer(own.client).handshake()
    own.facts()
    app = own.join()
    app.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    app.close()
    peer.end_politely()
    is_equal((own.process.wait(), own.lines()), (0, []))


# Descriptors

@test('an engine without descriptor 2 has a pipe there that nobody reads, and so on 1')
def _():
    not_under_valgrind('opens what is closed')
    for closed in (2,), (1, 2):
        def preexec():
            for fd in closed:
                os.close(fd)
        own = OwnEngine(preexec=preexec)
        Peer(own.client).handshake()
        e = start_engine(listener=listening_socket()[0], preexec_fn=preexec)
        for pid in own.pid, e.pid, e.worker():
            fds = fds_of(pid)
            is_true(fds[2].startswith('pipe:'), fds)
            is_equal({fd: mode_of(pid, fd) for fd in fds if fds[fd] == fds[2]},
                     {1: os.O_WRONLY, 2: os.O_WRONLY})


# Capabilities and ids

CAPS = '+net_admin,+dac_override,+setuid,+setgid,+sys_ptrace'


def setpriv(*options):
    """The start of a command; skips where that cannot be had."""
    need('setpriv')
    if subprocess.call(['setpriv', *options, 'true'], stderr=subprocess.DEVNULL):
        raise Skip('setpriv %s cannot be had' % ' '.join(options))
    return ['setpriv', *options]


def prefixed(program, command):
    """A PATH in which the program is started by that command."""
    d = temp_dir()
    with open(d + '/' + program, 'w') as f:
        f.write('#!/bin/sh\nexec %s %s/%s "$@"\n' % (' '.join(command), BIN, program))
    os.chmod(d + '/' + program, 0o755)
    return d + ':' + os.environ['PATH']


def readable_env(**more):
    """A key pair that everybody can read."""
    files = []
    for name in 'server.key', 'server.pem':
        with open('%s/%s' % (pki(), name), 'rb') as f:
            files.append(temp(f.read()))
    return server_env(KEYFILE=files[0], CERTFILE=files[1], **more)


def serves(pid, client, c, check, rooted=True):
    """The session works, and the engine is checked before a byte is read and in the session."""
    check(pid)
    peer = Peer(client).handshake()
    is_echoed(peer)
    check(pid)
    is_confined(pid, rooted=rooted)
    ends_well(peer, c)


def start_as(command, env):
    client, server = tcp_pair()
    c = Chain([*command, 'tls-handshake', 'tls-io', 'cat'], server, env=env)
    return confined_engine(), client, c


WAYS = {
    'inheritable': ['--inh-caps=' + CAPS],
    'ambient': ['--inh-caps=' + CAPS, '--ambient-caps=' + CAPS],
    'kept by no_setuid_fixup': ['--securebits=+no_setuid_fixup'],
    'ambient, and kept by no_setuid_fixup':
        ['--inh-caps=' + CAPS, '--ambient-caps=' + CAPS, '--securebits=+no_setuid_fixup'],
}

for way, options in WAYS.items():
    @as_root('capabilities %s: none is left after TLS_UID to an engine of the chain\'s own' % way)
    def _(options=options):
        not_resident('does not get its capabilities from the chain')
        serves(*start_as(setpriv(*options), server_env(**DROP)),
               lambda pid: has_nothing_of_root(pid, UID, GID))

    @as_root('capabilities %s: none is left after TLS_UID to a worker and its session' % way)
    def _(options=options):
        e = start_engine(server_env(PATH=prefixed('tls-engined', setpriv(*options)), **DROP))
        peer, c = join_through(e)
        for pid in e.worker(), e.wait_sessions(1)[0]:
            has_nothing_of_root(pid, UID, GID)
            is_confined(pid, forks=pid == e.worker())
        ends_well(peer, c)


@as_root('capabilities of a user who is not root: none is left, with and without TLS_UID')
def _():
    not_resident('does not get its capabilities from the chain')
    if not all_can_run(BIN + '/tls-handshake') or not all_can_run(BIN + '/tls-engine'):
        raise Skip('only root can run the programs where they are')
    command = setpriv('--reuid=%d' % UID, '--regid=%d' % GID, '--clear-groups',
                      '--inh-caps=' + CAPS, '--ambient-caps=' + CAPS)
    for more in {}, DROP, {'TLS_UID': str(UID + 7), 'TLS_GID': str(GID)}:
        serves(*start_as(command, readable_env(**more)), has_no_capability, rooted=False)


@as_root('real and effective ids that differ: all become TLS_UID, or the session is refused')
def _():
    not_resident('does not get its ids from the chain')
    if not all_can_run(BIN + '/tls-handshake') or not all_can_run(BIN + '/tls-engine'):
        raise Skip('only root can run the programs where they are')
    serves(*start_as(setpriv('--ruid=%d' % UID, '--rgid=%d' % GID, '--clear-groups'),
                     server_env(**DROP)),
           lambda pid: has_nothing_of_root(pid, UID, GID))
    client, server = tcp_pair()
    command = setpriv('--euid=%d' % UID, '--egid=%d' % GID, '--clear-groups')
    c = Chain([*command, 'tls-handshake', 'tls-io', 'echo', 'served'], server,
              env=readable_env(**DROP))
    is_equal(client.recv(1), b'', 'sent to the client')
    client.close()
    is_equal(reason(c, 111), 'unable to drop supplementary groups: Operation not permitted')


# O_NONBLOCK

def is_nonblocking(fd):
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


for version_name, version in VERSIONS:
    @test('%s: a network of pipes: O_NONBLOCK is after the session as it was before' % version_name)
    def _(version=version):
        for before in (False, False), (True, False), (False, True), (True, True):
            pipes = Pipes()
            for fd, flag in zip(pipes.fds, before):
                os.set_blocking(fd, not flag)
            c = Chain(['tls-handshake', '-6', '8', '-7', '9', 'tls-io', 'sh', '-c',
                       'cat <&8 >&9'], env=server_env(), client=True,
                      preexec=descriptors(dict(zip((8, 9), pipes.fds))))
            peer = Peer(pipes, min=version, max=version).handshake()
            is_echoed(peer)
            engine = confined_engine()
            peer.close_notify()
            peer.shutdown()
            is_equal(c.wait(), 0)
            wait_dead(engine)
            is_equal(tuple(map(is_nonblocking, pipes.fds)), before, 'O_NONBLOCK')
            pipes.close()


@test('a network of pipes: a client that does not read does not stop what it says itself')
def _():
    pipes = Pipes()
    c = Chain(['tls-handshake', '-6', '8', '-7', '9', 'tls-io', 'sh', '-c',
               'head -c 2000000 /dev/zero >&9 & cat <&8 >&2'], env=server_env(),
              client=True, preexec=descriptors(dict(zip((8, 9), pipes.fds))))
    peer = Peer(pipes).handshake()
    wait_asleep(wait_process('head'))  # everything on the way is full
    engine = confined_engine()
    wait_asleep(engine)
    peer.send(b'hello\n')
    wait_for(lambda: c.stderr() == 'hello\n', 'the program to have it')
    is_equal(peer.recv(2000000), bytes(2000000))
    peer.close_notify()
    peer.shutdown()
    is_equal(peer.recv_all(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('nor is O_NONBLOCK left on pipes by a handshake that fails')
def _():
    pipes = Pipes()
    own = OwnEngine(net=(pipes, pipes.fds))
    pipes.sendall(b'GET / HTTP/1.0\r\n\r\n')
    pipes.shutdown()
    is_equal(own.refusal()[0], 97)
    own.process.wait()
    is_equal(tuple(map(is_nonblocking, pipes.fds)), (False, False), 'O_NONBLOCK')


run()
