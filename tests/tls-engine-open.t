#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-engine-open: an engine that is opened before the server, and handed on as a descriptor.

import os
import signal
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (BIN, PYTHON, Chain, delayed, dies, dies_of_usage, dies_without_program, need,
                   reason)
from clients import HERE, serve_client, start_client
from engined import DROP, ENGINE_GID, ENGINE_UID, how_it_ends, wait_deaf
from peer import Peer
from pki import ca_env, pki, server_env
from privileges import all_can_run, as_root, has_nothing_of_root, is_confined
from proc import SIGNER, children_of, comm_of, find_processes, is_alive, state_of
from processes import wait_dead
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, test, wait_for
from tcpserver import Server

OPENED = ['tls-engine-open', 'tls-handshake', 'tls-io']
FACTS = PYTHON + ['''
import os, stat
sockets = [fd for fd in range(3, 100) if os.path.exists("/proc/self/fd/%d" % fd)
           and stat.S_ISSOCK(os.stat("/proc/self/fd/%d" % fd).st_mode)]
os.write(1, repr((dict(os.environ), sockets)).encode())
''']  # an application's environment, and the sockets it holds beyond those it knows of
SETTINGS = 'KEYFILE', 'CERTFILE', 'TLS_UID', 'TLS_ENGINEFD', 'TLS_ENGINE'

SERVER = '''#!/usr/bin/env -S execlineb -P
s6-envdir ./tls
tls-engine-open %s
tcpserver -v1HR -c 200 -b 200 -l localhost 127.0.0.1 0
tls-handshake
tls-io
cat
'''


def keepers():
    """The keepers of engines: those whose parent is none of them."""
    found = [pid for pid in find_processes('tls-engined') if comm_of(pid) != 'tls-engine']
    return [pid for pid in found if not any(pid in children_of(p) for p in found)]


def keeper():
    return wait_for(lambda: len(keepers()) == 1 and keepers(), 'one engine')[0]


def worker_of(pid):
    return wait_for(lambda: len(children_of(pid)) == 1 and children_of(pid), 'one worker')[0]


def no_engine():
    """Waits until no engine is left."""
    wait_for(lambda: not [p for p in find_processes('tls-engined') if is_alive(p)],
             'the engine to end')


def opened(env=None, options=(), prog=('cat',), **kw):
    """A client's socket, and a chain that opens an engine for its one session."""
    client, server = tcp_pair()
    return client, Chain(['tls-engine-open', *options, 'tls-handshake', 'tls-io', *prog], server,
                         env=server_env() if env is None else env, **kw)


def told(env=None, options=(), argv=None):
    """What an application finds: its environment, sockets that it should not have."""
    client, server = tcp_pair()
    c = Chain(argv or ['tls-engine-open', *options, 'tls-handshake', 'tls-io', *FACTS], server,
              env=server_env() if env is None else env)
    if argv is None:
        peer = Peer(client).handshake()
        data, end = peer.recv_all()
        is_equal(end, 'close_notify')
        peer.close_notify()
    else:
        data = b''
        while more := client.recv(65536):
            data += more
    client.close()
    is_equal((c.wait(), c.stderr()), (0, ''), 'exit code, stderr')
    no_engine()
    return eval(data.decode())


def one_session(server):
    peer = Peer(server.connect()).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))


# A session, and what each gets to know

@test('a session goes through it; then it ends, and leaves nothing')
def _():
    client, c = opened()
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)
    no_engine()


@test('the application gets neither settings nor the way to the engine; the facts it gets')
def _():
    env, sockets = told(server_env(TLS_ALPN='smtp'))
    is_equal([k for k in env if k in SETTINGS or k == 'TLS_ALPN'], [])
    is_equal(sockets, [])
    is_true(env['SSL_PROTOCOL'].startswith('TLSv1'), 'facts')


@test('so it is in delayed TLS, whether it asks for TLS or not; a TLS side that waits has it')
def _():
    env, sockets = told(argv=['tls-engine-open', *delayed(FACTS)])
    is_equal([k for k in env if k in SETTINGS], [])
    is_equal(sockets, [int(env['SSLCTLFD'])])


@test('-Z leaves prog the settings, and not more')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-engine-open', '-Z', *FACTS], server, env=server_env())
    data = b''
    while more := client.recv(65536):
        data += more
    env, sockets = eval(data.decode())
    is_equal((c.wait(), env['KEYFILE']), (0, server_env()['KEYFILE']))
    is_equal(sockets, [int(env['TLS_ENGINEFD'])])
    no_engine()


@test('prog has no child that it does not know, and 6 and 7 are left to a client')
def _():
    program = PYTHON + ['''
import os
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print(os.environ["TLS_ENGINEFD"], *[fd for fd in (6, 7) if os.path.exists("/dev/fd/%d" % fd)])
''']
    fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(2)]
    for closed in (), (0,), (0, 1):  # then the first descriptors there are, are low
        c = Chain(['tls-engine-open', *program], env=server_env(),
                  preexec=lambda: [os.close(fd) for fd in closed if fd not in (1, 2)])
        is_equal(c.wait(), 0)
        is_true(int(c.stderr().split()[0]) > 7 and len(c.stderr().split()) == 1, c.stderr())
    for fd in fds:
        os.close(fd)


@test('SIGCHLD that is ignored is no hindrance, and is for prog as it was')
def _():
    shown = PYTHON + ['import signal; print(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)']
    c = Chain(['tls-engine-open', *shown], env=server_env(),
              preexec=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    is_equal((c.wait(), c.stderr()), (0, 'True\n'))
    no_engine()


# What it refuses

@test('settings that are wrong: one line, 96, and prog is not run')
def _():
    ran = temp_dir() + '/ran'
    for env, line in (
            ({}, 'KEYFILE and CERTFILE are not set'),
            (server_env(KEYFILE='/nowhere'),
             'unable to read KEYFILE /nowhere: No such file or directory'),
            (server_env(TLS_PROTOCOLS='ssl3'), 'unable to use TLS_PROTOCOLS ssl3: '),
            (server_env(CAFILE='/dev/null'), 'unable to use CAFILE /dev/null: ')):
        c = Chain(['tls-engine-open', 'touch', ran], env=env)
        is_equal(c.wait(), 96, 'exit code (stderr: %r)' % c.stderr())
        is_true(c.stderr().startswith('tls-engined: fatal: ' + line)
                and c.stderr().count('\n') == 1, c.stderr())
    is_true(not os.path.exists(ran), 'prog was not run')
    no_engine()


@test('the usage is told, of numbers that are none as well')
def _():
    for argv in (['-x', 'true'], ['-m', '0', 'true'], ['-m', 'many', 'true'],
                 ['-t', '-1', 'true']):
        dies_of_usage(Chain(['tls-engine-open', *argv], env=server_env()))
    for argv in [], ['-m', '1']:
        dies_without_program(Chain(['tls-engine-open', *argv], env=server_env()))


@test('a prog that is not there: 127, and the engine ends')
def _():
    dies(Chain(['tls-engine-open', '/nowhere'], env=server_env()), 127,
         'tls-engine-open: fatal: unable to exec /nowhere: No such file or directory')
    no_engine()


@test('two engines, and one with settings beside it, are refused in clear words')
def _():
    said = 'tls-engine-open: fatal: '
    dies(Chain(['tls-engine-open', 'true'], env=server_env(TLS_ENGINE='/x')), 100,
         said + 'TLS_ENGINE is set: unset it, or do without tls-engine-open')
    dies(Chain(['tls-engine-open', 'tls-engine-open', 'true'], env=server_env()), 100,
         said + 'TLS_ENGINEFD is set: an engine has been opened already')
    dies(Chain(['tls-engine-open', 'true'], env=server_env(TLS_ENGINEFD='')), 100,
         said + 'TLS_ENGINEFD is set, but empty')
    said = 'tls-handshake: fatal: '
    for more, options, line in (
            ({'TLS_ENGINE': '/x'}, (),
             'TLS_ENGINE and TLS_ENGINEFD are set, and name two engines: unset one of them'),
            ({'CERTFILE': '/x'}, (),
             'CERTFILE is set, but the engine at TLS_ENGINEFD has settings of its own: '
             'unset one of them')):
        client, server = tcp_pair()
        argv = ['tls-engine-open', 'env', *('%s=%s' % v for v in more.items()), *OPENED[1:], 'cat']
        c = Chain(argv, server, env=server_env())
        is_equal(client.recv(1), b'', 'the network is shut')
        dies(c, 100, said + line)
        client.close()


@test('a TLS_ENGINEFD that leads to no engine is told of, and nothing gets to the network')
def _():
    said = 'tls-handshake: fatal: '
    no_door = (said + 'the descriptor of TLS_ENGINEFD is not that of tls-engine-open: '
               'has a program in between closed it?')
    for value, line in (('', said + 'TLS_ENGINEFD is set, but empty'),
                        ('x', said + 'TLS_ENGINEFD is not a number'),
                        ('99', said + 'unable to use TLS_ENGINEFD=99: Bad file descriptor'),
                        ('0', no_door), ('2', no_door)):
        client, server = tcp_pair()
        c = Chain(OPENED[1:] + ['cat'], server, env={'TLS_ENGINEFD': value})
        is_equal(client.recv(1), b'', 'the network is shut')
        dies(c, 100, line)
        client.close()


@test('an application whose TLS_ENGINEFD is a stale number keeps its descriptor of that number')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(['sh', '-c', 'echo ${TLS_ENGINEFD-unset} >&2; echo there']), server,
              env=server_env(TLS_ENGINEFD='1'))
    is_equal(client.recv(100), b'there\n')
    is_equal((c.wait(), c.stderr()), (0, 'unset\n'))


# Under a server

@test('under tcpserver: one engine for all sessions, which go on when the server has ended')
def _():
    server = Server(SERVER % '', server_env())
    one = keeper()
    peers = [Peer(server.connect()).handshake() for _ in range(20)]
    for peer in peers:
        is_echoed(peer)
    is_equal(keeper(), one)
    is_equal(len([p for p in children_of(worker_of(one)) if comm_of(p) != SIGNER]), 20, 'sessions')
    server.chain.kill()
    is_true(is_alive(one), 'the engine goes on')
    for peer in peers:
        is_echoed(peer)
        is_equal(peer.end_politely(), (b'', 'close_notify'))
    no_engine()
    is_equal([s for s in server.log() if 'tls-' in s], [], 'complaints')


@test('-t: sessions that go on when the server has ended have that long')
def _():
    server = Server(SERVER % '-t 500', server_env())
    peer = Peer(server.connect()).handshake()
    is_echoed(peer)
    server.chain.kill()
    no_engine()
    is_equal(peer.recv_all()[0], b'')


@test('-m: at the limit a chain says so; then there is room')
def _():
    server = Server(SERVER % '-m 1', server_env())
    peer = Peer(server.connect()).handshake()
    how_it_ends(Peer(server.connect()))
    server.wait_log('the resident engine is at its limit of sessions (-m)')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    wait_for(lambda: how_it_starts(server), 'room')


def how_it_starts(server):
    """Whether a session can be had now."""
    peer = Peer(server.connect())
    try:
        peer.handshake()
    except OSError:
        return False
    return peer.end_politely() == (b'', 'close_notify')


@test('the engine is killed: sessions go on, chains that want one say that it is gone: 111')
def _():
    server = Server(SERVER % '', server_env())
    peer = Peer(server.connect()).handshake()
    pid = keeper()
    worker = worker_of(pid)
    os.kill(pid, signal.SIGKILL)
    wait_deaf(worker)
    how_it_ends(Peer(server.connect()))
    server.wait_log('tls-handshake: fatal: unable to start TLS: unable to reach the engine at '
                    'TLS_ENGINEFD: Broken pipe')
    server.wait_log(' status %d' % (111 << 8))
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    wait_dead(worker)


@test('the worker is killed: another one takes its place, and no session is refused')
def _():
    server = Server(SERVER % '', server_env())
    peer = Peer(server.connect()).handshake()
    worker = worker_of(keeper())
    os.kill(worker, signal.SIGKILL)
    wait_dead(worker)
    one_session(server)
    is_true(worker_of(keeper()) != worker, 'another worker')
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    server.wait_log('tls-engined: warning: the worker exited unexpectedly: starting another one')


@test('an engine that does not come to take a session is waited for, as long as -K says')
def _():
    server = Server((SERVER % '').replace('tls-handshake', 'tls-handshake -K 1500'), server_env())
    one_session(server)
    worker = worker_of(keeper())
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: state_of(worker) == 'T', 'it to stop')
    is_equal(how_it_ends(Peer(server.connect())), b'')
    server.wait_log('unable to start TLS: the handshake timed out')
    sock = server.connect()
    os.kill(worker, signal.SIGCONT)
    is_echoed(Peer(sock).handshake())


# Clients

@test('-c: one engine for the clients of a loop')
def _():
    need('tcpclient')
    listener = socket.create_server(('127.0.0.1', 0))
    port = listener.getsockname()[1]
    loop = ('for i in 1 2 3; do tcpclient -RHl0 127.0.0.1 %d tls-handshake -c -k localhost '
            'tls-io -w sh -c "echo hello >&7; cat <&6"; done' % port)
    c = Chain(['tls-engine-open', '-c', 'sh', '-c', loop], env=ca_env())
    for _ in range(3):
        sock, _ = listener.accept()
        peer = serve_client(sock)
        is_equal(peer.recv(6), b'hello\n')
        is_equal(len(keepers()), 1, 'engines')
        peer.send(b'there\n')
        peer.close_notify()
        sock.close()
    listener.close()
    is_equal(c.wait(), 0, 'exit code (stderr: %r)' % c.stderr())
    is_equal(c.stderr(), 'there\n' * 3)
    no_engine()


@test('the engine of one role refuses the other: 96')
def _():
    client, server = tcp_pair()
    c = start_client(['tls-engine-open', 'tls-handshake', '-c', *HERE, 'tls-io', 'true'], client,
                     env=server_env())
    server.close()
    is_equal(reason(c, 96), 'the resident engine has no settings for this: '
             'give the chain an engine of its own')


# Who it is

@as_root('with TLS_UID and TLS_GID its processes are confined; prog stays who it was')
def _():
    client, c = opened(server_env(**DROP), prog=['sh', '-c', 'id -u >&2; cat'])
    peer = Peer(client).handshake()
    is_echoed(peer)
    worker = worker_of(keeper())
    has_nothing_of_root(worker, ENGINE_UID, ENGINE_GID)
    is_confined(worker, forks=True)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal((c.wait(), c.stderr()), (0, '0\n'))


@as_root('somebody who is not root can have one')
def _():
    need('setpriv')
    if not all_can_run(BIN + '/tls-engined'):
        raise Skip('others cannot run what was built here')
    client, server = tcp_pair()
    c = Chain(['setpriv', '--reuid=60011', '--regid=60012', '--clear-groups', *OPENED, 'cat'],
              server, env={'KEYFILE': temp(open(pki() + '/server.key').read()),
                           'CERTFILE': temp(open(pki() + '/server.pem').read())})
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)


run()
