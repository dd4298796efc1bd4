#!/usr/bin/env python3
# ISC licence: see COPYING.
# Variables of a chain that are empty, double or stale; what START says of the peer; log lines.

import fcntl
import os
import re
import signal
import socket
import struct
import sys
import termios
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed, dies, not_resident, not_under_valgrind, without_pid
from peer import Peer
from pki import server_env
from proc import environ_of, state_of
from processes import confined_engine, wait_process
from scratch import close_later, temp, temp_dir
from sockets import read_to_end, tcp_pair, unix_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import APP_FDS, ECHO, FACTS, NETIDS, PLUMBING, SETTINGS, application, starttls


# Empty is not unset

def listening(name):
    s = socket.socket(socket.AF_UNIX)
    close_later(s)
    s.bind(name)
    s.listen(5)
    return s


@test('TLS_ENGINE that is empty: 100, and nobody else gets the session')
def _():
    client, server = tcp_pair()
    abstract = listening('')  # an abstract name, which the system chooses
    for env in {}, server_env():
        c = Chain(['tls-handshake', '-v', '0', 'echo', 'ran'], server, keep=True,
                  env={'TLS_ENGINE': '', **env})
        dies(c, 100, 'tls-handshake: fatal: TLS_ENGINE is set, but empty')
    abstract.settimeout(0)
    try:
        abstract.accept()
        raise AssertionError('a connection')
    except BlockingIOError:
        pass


@test('every other variable of the chain that is empty: 100, and which it is')
def _():
    ours, theirs = unix_pair()
    n = str(theirs.fileno())
    app = {'SSLCTLFD': n, 'SSLREADFD': n, 'SSLWRITEFD': n, 'SSLNETID': '1:2'}
    io = {'TLS_SESSIONFD': n, 'TLS_NETRFD': n, 'TLS_NETWFD': n, 'TLS_CTLFD': n}
    delayed_io = {**io, 'TLS_PLAINRFD': n, 'TLS_PLAINWFD': n}
    del delayed_io['TLS_NETRFD'], delayed_io['TLS_NETWFD']
    for argv, env in ((['tls-ctl-start'], app), (['tls-await'], {'TLS_CTLFD': n}),
                      (['tls-io'], io), (['tls-io'], delayed_io),
                      (['tls-handshake'], {'TLS_NETID': '1:2'}),
                      (['tls-handshake'], {'TLS_CTLFD': n})):
        for variable in env:
            net, far = unix_pair()
            dies(Chain([*argv, 'echo', 'ran'], far, env={**env, variable: ''},
                       pass_fds=[theirs.fileno()]),
                 100, '%s: fatal: %s is set, but empty' % (argv[0], variable))
            net.close()


@test('TLS_ENGINE that is too long, or where no engine is: the line has its path')
def _():
    for path, code, line in (
            ('/' + 'x' * 107, 100, 'TLS_ENGINE is too long for the path of a socket: %s'),
            ('/' + 'x' * 106, 111, 'unable to start TLS: unable to connect to TLS_ENGINE %s: '
             'No such file or directory'),
            ('/nonesuch', 111, 'unable to start TLS: unable to connect to TLS_ENGINE %s: '
             'No such file or directory')):
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'echo', 'ran'], server, env={'TLS_ENGINE': path})
        dies(c, code, 'tls-handshake: fatal: ' + line % path)
        is_equal(client.recv(1), b'')
        client.close()


# Set twice

def twice(env, argv):
    """Runs argv with an environment that begins with these variables, which it has already."""
    code = ('import ctypes, os, sys; libc = ctypes.CDLL(None); '
            'more = sys.argv[1].split(","); argv = [a.encode() for a in sys.argv[2:]]; '
            'env = [m.encode() for m in more] + [k + b"=" + v for k, v in os.environb.items()]; '
            'P = ctypes.c_char_p; libc.execvpe(P(argv[0]), (P * (len(argv) + 1))(*argv, None), '
            '(P * (len(env) + 1))(*env, None))')
    return [*PYTHON, code, ','.join('%s=%s' % v for v in env.items()), *argv]


ENVIRON = ['sh', '-c', 'tr "\\0" "\\n" </proc/$$/environ >$OUT']


def lines_with(out, name):
    with open(out) as f:
        return [line.strip() for line in f if line.startswith(name + '=')]


@test('a variable that is in the environment twice, the first one stale: the new one is the only')
def _():
    out = temp()
    stale = {n: '99' for n in ('TLS_SESSIONFD', 'TLS_NETRFD', 'TLS_NETWFD', 'SSL_PROTOCOL')}
    client, server = tcp_pair()
    c = Chain(twice(stale, twice(stale, ['tls-handshake', *ENVIRON])), server,
              env=server_env(OUT=out))
    Peer(client).handshake()
    is_equal(c.wait(), 0)
    for name in stale:
        found = lines_with(out, name)
        is_true(len(found) == 1 and not found[0].endswith('=99'), '%s: %r' % (name, found))


@test('a chain whose environment has a stale session in it, twice, works')
def _():
    for options in [], ['-w']:
        client, server = tcp_pair()
        stale = {n: '99' for n in PLUMBING}
        c = Chain(twice(stale, twice(stale, delayed(application('greet(); ask()' + ECHO),
                                                    ['tls-await', 'tls-handshake', 'tls-io',
                                                     *options]))), server, env=server_env())
        starttls(client)
        peer = Peer(client).handshake()
        peer.send(b'hello')
        is_equal(peer.recv(5), b'hello')
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)


@test('tls-io -w does not keep the settings in the environment that /proc shows')
def _():
    not_under_valgrind('shows an environment of its own there')
    for argv in ['tls-io', '-w', 'sh', '-c', 'cat'], ['tls-io', '-wZ', 'sh', '-c', 'cat']:
        client, server = tcp_pair()
        c = Chain(['tls-handshake', *argv], server, env=server_env(KEEP='1', TLS_ALPN='smtp'))
        peer = Peer(client).handshake()
        peer.send(b'hello')
        is_equal(peer.recv(5), b'hello')
        pid = c.pid
        wait_for(lambda: 'TLS_SESSIONFD' not in environ_of(pid), 'a clean environment')
        found = environ_of(pid)
        is_equal([n for n in found if n in SETTINGS + PLUMBING], [], 'variables left')
        is_equal(found.get('KEEP'), '1')
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)


@test('nor does it without a program')
def _():
    not_under_valgrind('shows an environment of its own there')
    client, server = tcp_pair()
    c = Chain(delayed(application('greet(); ask()' + ECHO),
                      ['tls-await', 'tls-handshake', 'tls-io', '-w']), server, env=server_env())
    starttls(client)
    peer = Peer(client).handshake()
    pid = wait_process('tls-io')
    wait_for(lambda: 'TLS_PLAINRFD' not in environ_of(pid), 'a clean environment')
    is_equal([n for n in environ_of(pid) if n in SETTINGS + PLUMBING], [], 'variables left')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('the engine gets no variable of a chain, neither of this one nor of an outer one')
def _():
    not_resident('gets nothing at all from a chain')
    client, server = tcp_pair()
    stale = FACTS + APP_FDS + NETIDS[1:] + ['TLS_PLAINRFD', 'TLS_PLAINWFD', 'TLS_NETRFD']
    c = Chain(['tls-handshake', 'true'], server, env=server_env(**{n: '99' for n in stale}))
    found = environ_of(confined_engine())
    is_equal([n for n in found if n in PLUMBING + stale], [], 'variables of the engine')
    is_true('KEYFILE' in found, 'its settings')
    client.close()
    is_equal(c.wait(), 97)


# The peer, as START tells the engine

def start_with(env):
    """The name and the peer of START, as an engine at TLS_ENGINE reads it."""
    path = temp_dir() + '/engine'
    engine = listening(path)
    engine.settimeout(20 * SLOW)
    client, server = tcp_pair()
    c = Chain(['tls-handshake', '-v', '0', 'echo', 'ran'], server,
              env={'TLS_ENGINE': path, **env})
    s, _ = engine.accept()
    s.settimeout(20 * SLOW)
    message = s.recv(4096)
    s.close()
    is_equal(c.wait(), 98)
    length, fds = struct.unpack('>IH', message[:6])
    is_equal((length, fds, message[6:8]), (len(message) - 6, 2, b'S\2'), 'START')
    name, _, peer = message[13:].partition(b'\0')
    is_equal(name, b'')
    return peer.decode()


def tcp(ip, port, proto='TCP', prefix='TCP'):
    env = {'PROTO': proto, prefix + 'REMOTEIP': ip, prefix + 'REMOTEPORT': port}
    return {n: v for n, v in env.items() if v is not None}


@test('START has the peer\'s address as the UCSPI program tells it')
def _():
    for env, peer in (
            (tcp('192.0.2.1', '4321'), '192.0.2.1:4321'),
            (tcp('2001:db8::1', '25'), '[2001:db8::1]:25'),
            (tcp('::ffff:192.0.2.1', '65535', 'TCP6', 'TCP6'), '[::ffff:192.0.2.1]:65535'),
            (tcp('192.0.2.1', '4321', 'SSL', 'SSL'), '192.0.2.1:4321'),
            (tcp('192.0.2.1', '4321', 'SSL', 'TCP'), '192.0.2.1:4321'),
            ({'PROTO': 'IPC', 'IPCREMOTEEUID': '1000', 'IPCREMOTEEGID': '7'}, 'uid 1000'),
            ({'PROTO': 'UNIX', 'UNIXREMOTEEUID': '0', 'UNIXREMOTEPID': '77'}, 'uid 0, pid 77')):
        is_equal(start_with(env), peer, 'with %r' % env)


@test('START has no peer where that is not told, too long, or not in printable words')
def _():
    longest = 'x' * (63 - len(':4321'))
    is_equal(start_with(tcp(longest, '4321')), longest + ':4321')
    for env in ({}, {'PROTO': 'TCP'}, tcp('192.0.2.1', None), tcp(None, '25'), tcp('', '25'),
                tcp('192.0.2.1', ''), tcp('192.0.2.1', '25', 'OTHER'), tcp('192.0.2.1', '25', ''),
                tcp(longest + 'x', '4321'), tcp('192.0.2.1\n', '25'), tcp('192.0.2.1', '2\x1b5'),
                tcp('192 0', '25'), tcp('\x7f', '25'), tcp('\u00e9', '25'), tcp('x' * 5000, '25'),
                {'PROTO': 'IPC', 'IPCREMOTEEUID': ''}, {'PROTO': 'IPC', 'IPCREMOTEPID': '7'}):
        is_equal(start_with(env), '', 'with %r' % env)


@test('the engine has the last word: its alert arrives before the network is shut down')
def _():
    path = temp_dir() + '/engine'
    engine = listening(path)
    engine.settimeout(20 * SLOW)
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'echo', 'ran'], server, env={'TLS_ENGINE': path})
    s, _ = engine.accept()
    s.settimeout(20 * SLOW)
    _, fds, _, _ = socket.recv_fds(s, 4096, 2)
    failed = b'X' + bytes([97]) + bytes(17) + b'for a reason'
    s.sendall(struct.pack('>IH', len(failed), 0) + failed)
    unread = bytearray(4)
    wait_for(lambda: fcntl.ioctl(s, termios.TIOCOUTQ, unread) == 0 and not any(unread), 'a reader')
    wait_for(lambda: state_of(c.pid) == 'S', 'it to wait for the end')
    os.write(fds[1], b'alert')
    s.close()
    for fd in fds:
        os.close(fd)
    is_equal(read_to_end(client), b'alert', 'what the client gets')
    dies(c, 97, 'tls-handshake: fatal: unable to start TLS: for a reason')


@test('a session of a resident engine is handed on as it should be: each call on it waits')
def _():
    path = temp_dir() + '/engine'
    engine = listening(path)
    engine.settimeout(20 * SLOW)
    client, server = tcp_pair()
    flags = ('import fcntl, os, sys; fd = int(os.environ["TLS_SESSIONFD"]);'
             'sys.exit(bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK))')
    c = Chain(['tls-handshake', *PYTHON, flags], server, env={'TLS_ENGINE': path})
    s, _ = engine.accept()
    s.settimeout(20 * SLOW)
    _, fds, _, _ = socket.recv_fds(s, 4096, 2)
    facts = b'F\0TLSv1.3\0\1cipher\0'
    s.sendall(struct.pack('>IH', len(facts), 0) + facts)
    is_equal(c.wait(), 0, 'non-blocking')
    s.close()
    for fd in fds:
        os.close(fd)


# Lines

def is_numbered(c, programs, more=()):
    """Every line is of one of these programs, with its own process number, once; the numbers."""
    pids = {}
    for line in c.stderr_raw().splitlines():
        m = re.fullmatch(r'(tls-[a-z-]+): pid ([1-9]\d*): (?!.*pid \d)(.*)', line)
        is_true(m and m[1] in programs, 'a line: ' + line)
        pids.setdefault(m[1], set()).add(int(m[2]))
    is_equal(sorted(pids), sorted(programs), 'who said something')
    return pids


@test('every line of every program has its process number')
def _():
    for name in 'tls-ctl-open', 'tls-await', 'tls-handshake', 'tls-io', 'tls-ctl-start':
        for argv in [name, '-x'], [name, 'nonesuch']:
            c = Chain(argv)
            is_true(c.wait() in (100, 126, 127), 'exit code')
            is_equal(is_numbered(c, [name]), {name: {c.pid}})
    client, server = tcp_pair()
    c = Chain(['tls-handshake', '-v2', 'tls-io', '-w', 'sh', '-c', 'exec cat'], server,
              env=server_env())
    peer = Peer(client).handshake()
    peer.shutdown()
    peer.recv_all()
    is_equal(c.wait(), 98)
    lines = [s for s in c.stderr_raw().splitlines() if not s.startswith('tls-engine')]
    is_equal([s.split(': ')[:3] for s in lines],
             [['tls-handshake', 'pid %d' % c.pid, 'info'], ['tls-io', 'pid %d' % c.pid, 'warning']])


@test('after a fork the number is that of the new process')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', '-w', 'nonesuch'], server, env=server_env())
    Peer(client).handshake().end_politely()
    is_equal(c.wait(), 127)
    pid = is_numbered(c, ['tls-io'])['tls-io']
    is_true(len(pid) == 1 and pid != {c.pid}, 'the number: %r, the parent is %d' % (pid, c.pid))


@test('a line keeps its number in the helpers of the tests unless it is well-formed, and one')
def _():
    untouched = ['tls-io: pid 0: x', 'tls-io: pid 01: x', 'tls-io: pid : x', 'tls-io: pid 12',
                 'tls-io: pid 12x: y', 'tls-io: pid -1: x', 'tls-io: pid  12: x',
                 'a tls-io: pid 12: x', 'tls-io: pid: 12: x']
    for text, wanted in (('tls-io: pid 12: fatal: x\n', 'tls-io: fatal: x\n'),
                         ('tls-io: pid 12: pid 13: fatal: x', 'tls-io: pid 13: fatal: x'),
                         *((s, s) for s in untouched)):
        is_equal(without_pid(text), wanted)


# A log that nobody reads

def unread():
    """A preexec after which 2 is a pipe without a reader, and SIGPIPE does what it does."""
    r, w = os.pipe()
    os.dup2(w, 2)
    os.close(r)
    os.close(w)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@test('a log that nobody reads: sessions are served, and exit codes are what they always are')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', '-v', '2', 'tls-io', '-w', 'sh', '-c', 'cat; kill -PIPE $$'],
              server, env=server_env(), preexec=unread)
    peer = Peer(client).handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 128 + signal.SIGPIPE, 'SIGPIPE is for the program what it was')
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', '-w', 'cat'], server, env=server_env(), preexec=unread)
    peer = Peer(client).handshake()
    peer.shutdown()
    peer.recv_all()
    is_equal(c.wait(), 98)
    for argv, code in ((['tls-await', '-x'], 100), (['tls-ctl-start', 'true'], 100),
                       (['tls-ctl-open', '', 'true'], 100), (['tls-handshake', '-c', 'true'], 100),
                       (['tls-io', 'true'], 100), (delayed(['nonesuch'], ['true']), 127)):
        is_equal(Chain(argv, preexec=unread).wait(), code, 'exit code of %r' % argv)


run()
