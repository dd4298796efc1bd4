#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-io: its options, its errors, its exit codes.

import os
import select
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (PYTHON, Chain, delayed, dies, dies_of_usage, dies_without_program, not_resident,
                   not_under_valgrind)
from peer import Peer, all_of
from pki import pki, server_env
from proc import children, children_of
from processes import engines, orphan_exit_code, wait_engine, wait_process
from relay import FILL_PIPE, join_app
from scratch import temp, temp_dir
from sessions import is_echoed
from sockets import read_to_end, tcp_pair, unix_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from ucspi import ECHO, PLUMBING, SETTINGS, application, starttls


def session(io, app=('cat',), env=None, preexec=None, **settings):
    """An immediate session through tls-io with these options; the peer, and the chain."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', *io, *app], server, env=server_env(**env or {}),
              preexec=preexec)
    return Peer(client, **settings).handshake(), c


# tls-io alone, with a socket that this test answers in place of an engine

def io_on_socket(argv=('echo', 'ran'), **env):
    engine, ours = unix_pair()
    engine.settimeout(20 * SLOW)
    env = dict({'TLS_SESSIONFD': str(ours.fileno()), 'TLS_NETRFD': '0', 'TLS_NETWFD': '1'}, **env)
    c = Chain(['tls-io', *argv], pass_fds=[ours.fileno()],
              env={n: v for n, v in env.items() if v is not None})
    ours.close()
    return engine, c


@test('an unknown option, a limit that is no number, no program: 100, and the usage')
def _():
    for argv in (['-x', 'true'], ['-t'], ['-t', 'x', 'true'], ['-t', '-5', 'true'],
                 ['-t', '', 'true'], ['-t', '4294967296', 'true']):
        dies_of_usage(Chain(['tls-io', *argv]))
    for argv in [], ['-S']:
        dies_without_program(Chain(['tls-io', *argv]))


@test('a variable that is missing, no number, or not open: 100, one line')
def _():
    for n in 'TLS_SESSIONFD', 'TLS_NETRFD', 'TLS_NETWFD':
        _, c = io_on_socket(**{n: None})
        dies(c, 100, 'tls-io: fatal: %s is not set: tls-io goes after tls-handshake' % n)
    _, c = io_on_socket(TLS_PLAINRFD='0')
    dies(c, 100, 'tls-io: fatal: TLS_PLAINWFD is not set: tls-io goes after tls-ctl-open')
    for n in 'TLS_SESSIONFD', 'TLS_NETRFD', 'TLS_NETWFD', 'TLS_PLAINRFD', 'TLS_CTLFD':
        for bad in 'x', '-1', '1x', '99999999999':
            _, c = io_on_socket(**{n: bad})
            dies(c, 100, 'tls-io: fatal: %s is not a number' % n)
        _, c = io_on_socket(**{n: ''})
        dies(c, 100, 'tls-io: fatal: %s is set, but empty' % n)
        _, c = io_on_socket(**{n: '77'})
        dies(c, 100, 'tls-io: fatal: unable to use %s=77: Bad file descriptor' % n)
    _, c = io_on_socket(TLS_PLAINRFD='0', TLS_PLAINWFD='77')
    dies(c, 100, 'tls-io: fatal: unable to use TLS_PLAINWFD=77: Bad file descriptor')


@test('one descriptor for both directions cannot be replaced by two pipes: 100')
def _():
    _, c = io_on_socket(TLS_NETWFD='0')
    dies(c, 100, 'tls-io: fatal: the program needs two network descriptors')


@test('an engine that is gone, before or after it was asked: 98, and the program is not run')
def _():
    engine, c = io_on_socket()
    engine.recv(100)
    engine.close()
    dies(c, 98, 'tls-io: fatal: the engine exited unexpectedly')
    engine, ours = unix_pair()
    engine.close()
    c = Chain(['tls-io', 'echo', 'ran'], pass_fds=[ours.fileno()],
              env={'TLS_SESSIONFD': str(ours.fileno()), 'TLS_NETRFD': '0', 'TLS_NETWFD': '1'})
    dies(c, 98, 'tls-io: fatal: the engine exited unexpectedly')


@test('an engine that talks nonsense: 98, and the program is not run')
def _():
    for said in (b'\0\0\0\1\0\0?', b'\0\0\0\0\0\0', b'GET / HTTP/1.0\r\n\r\n',
                 b'\0\0\x10\1\0\0' + bytes(4097)):
        engine, c = io_on_socket()
        engine.recv(100)
        engine.send(said)
        dies(c, 98, 'tls-io: fatal: malformed message from the engine')


@test('an application that does not take the reply: 111; its session is joined all the same')
def _():
    app, ctl = unix_pair()
    app.close()
    engine, ours = unix_pair()
    c = Chain(['tls-io', 'echo', 'ran'], pass_fds=[ours.fileno(), ctl.fileno()],
              env={'TLS_SESSIONFD': str(ours.fileno()), 'TLS_CTLFD': str(ctl.fileno()),
                   'TLS_NETRFD': '0', 'TLS_NETWFD': '1', 'SSL_PROTOCOL': 'x'})
    ours.close()
    engine.settimeout(20 * SLOW)
    is_equal(engine.recv(100)[6:7], b'J', 'what the engine gets')
    engine.send(b'\0\0\0\1\0\0K')
    dies(c, 111, 'tls-io: fatal: unable to reply to the application: Broken pipe')


# Sessions

@test('the program finds pipes in place of the network')
def _():
    peer, c = session([], ['sh', '-c', 'readlink /proc/$$/fd/0 /proc/$$/fd/1'])
    links = peer.recv_all()[0].decode().split()
    is_equal([link.split(':')[0] for link in links], ['pipe', 'pipe'], 'descriptors 0 and 1')
    is_true(links[0] != links[1], 'a pipe for each direction')


@test('a program that cannot be run: 127 or 126, and the peer sees a proper end')
def _():
    for prog, code, reason in (('nonesuch', 127, 'No such file or directory'),
                               (temp(b'not executable'), 126, 'Permission denied')):
        peer, c = session([], [prog])
        dies(c, code, 'tls-io: fatal: unable to exec %s: %s' % (prog, reason))
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        peer, c = session(['-w'], [prog])
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        dies(c, code, 'tls-io: fatal: unable to exec %s: %s' % (prog, reason))


@test('-S, the default, sends close_notify at the end, -s does not; the last one counts')
def _():
    for options, end in (([], 'close_notify'), (['-S'], 'close_notify'), (['-s'], 'eof'),
                         (['-S', '-s'], 'eof'), (['-sS'], 'close_notify')):
        peer, c = session(options, ['echo', 'hello'])
        is_equal(peer.recv_all(), (b'hello\n', end), 'end with %r' % options)
        is_equal(c.wait(), 0)


REPLY_AT_END = ['sh', '-c', 'cat; echo the end']


@test('-j, the default: a peer that ends without close_notify is answered, with a warning')
def _():
    for options in [], ['-j'], ['-J', '-j']:
        peer, c = session(options, REPLY_AT_END)
        peer.send(b'hello\n')
        peer.shutdown()
        is_equal(peer.recv_all(), (b'hello\nthe end\n', 'close_notify'))
        is_equal(c.wait(), 0)
        wait_for(c.stderr, 'the warning')
        is_equal(c.stderr(),
                 'tls-engine: warning: session truncated: the peer ended without close_notify\n')


@test('-J: a peer that ends without close_notify is an error at once')
def _():
    for options in ['-J'], ['-jJ']:
        # The program would wait for ever, if the session did not end under it.
        peer, c = session(options, PYTHON + ['import select; p = select.poll();'
                                             'p.register(1, 0); p.poll()'])
        peer.shutdown()
        is_equal(peer.recv_all(), (b'', 'eof'))  # a close_notify would say that this was all
        is_equal(c.wait(), 0)
        wait_for(c.stderr, 'the warning')
        is_equal(c.stderr(), 'tls-engine: warning: session failed: read from network: '
                             'the peer ended without close_notify\n')


@test('-J: a peer that ends properly is none')
def _():
    peer, c = session(['-J', '-w'], REPLY_AT_END)
    peer.send(b'hello\n')
    is_equal(peer.end_politely(), (b'hello\nthe end\n', 'close_notify'))
    dies_silently(c, 0)


def dies_silently(c, code):
    is_equal(c.wait(), code, 'exit code')
    is_equal(c.stderr(), '', 'stderr')


@test('-t: a session in which no byte moves for so long is ended')
def _():
    peer, c = session(['-t', '100'])
    is_equal(peer.recv_all(), (b'', 'eof'))
    peer.sock.close()
    is_equal(c.wait(), 0, 'exit code of the program, which saw the end of its input')
    wait_for(c.stderr, 'the warning')
    is_equal(c.stderr(), 'tls-engine: warning: session failed: relay: idle for too long\n')


@test('-t: a session that lasts longer but is never idle for so long is not')
def _():
    limit, longest = 0.5 * SLOW, 0
    peer, c = session(['-w', '-t', '%d' % (limit * 1000)])
    start = last = time.monotonic()
    while last - start < 1.5 * limit:
        peer.send(b'.')
        is_equal(peer.recv(1), b'.')
        select.select([peer.sock], [], [], limit / 20)
        longest = max(longest, time.monotonic() - last)
        last = time.monotonic()
        if longest > limit / 2:
            raise Skip('the machine is too busy')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    dies_silently(c, 0)


@test('-t 0 is no limit')
def _():
    peer, c = session(['-w', '-t', '0'])
    peer.send(b'.')
    is_equal(peer.recv(1), b'.')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    dies_silently(c, 0)


# -w

@test('-w: exits with the code of the program, once the session has ended, too')
def _():
    for command, code in ('exit 0', 0), ('exit 7', 7), ('kill -9 $$', 128 + 9):
        peer, c = session(['-w'], ['sh', '-c', 'echo hello; ' + command])
        is_equal(peer.recv_all(), (b'hello\n', 'close_notify'))
        dies_silently(c, code)  # the client has all of it, whenever it says its own last word
        is_equal(peer.end_politely(), (b'', 'close_notify'))


@test('-w: waits for the program, when the session ends before it')
def _():
    go = temp_dir() + '/go'
    peer, c = session(['-w'], ['sh', '-c', 'exec 0<&- 1>&-; until test -e %s; do sleep 0.01; done;'
                               'exit 3' % go])
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    wait_for(lambda: not engines(), 'the engine to end')
    is_true(c.poll() is None, 'waits for the program')
    open(go, 'w').close()
    dies_silently(c, 3)


@test('-w: 98 for a session that was cut, whatever the program says')
def _():
    for code in '0', '7':
        peer, c = session(['-w'], ['sh', '-c', 'cat; exit ' + code])
        is_echoed(peer)
        peer.shutdown()
        is_equal(c.wait(), 98)
        is_equal(c.stderr(),
                 'tls-io: warning: session truncated: the peer ended without close_notify\n')


@test('-w: 98 for a session that failed, and why')
def _():
    peer, c = session(['-w', '-t', '50'])
    is_equal(peer.recv_all(), (b'', 'eof'))
    peer.sock.close()
    dies(c, 98, 'tls-io: warning: session failed: relay: idle for too long')
    peer, c = session(['-w'])
    peer.sock.sendall(b'\x17\3\3\0\x20' + bytes(32))  # a record that nobody has encrypted
    read_to_end(peer.sock)
    peer.sock.close()
    is_equal(c.wait(), 98)
    is_true('tls-io: warning: session failed: decrypt: ' in c.stderr(), c.stderr())


@test('-w: 98 if the engine dies')
def _():
    not_resident('tells of it in its log, which is here that of the chain: see engined.t')
    peer, c = session(['-w'])
    is_echoed(peer)
    os.kill(wait_engine()[0], signal.SIGKILL)
    dies(c, 98, 'tls-io: fatal: the engine exited unexpectedly')


@test('-w: 98 if the peer resets the connection')
def _():
    peer, c = session(['-w'])
    is_echoed(peer)
    peer.reset()
    is_equal(c.wait(), 98)
    is_true('tls-io: warning: session ' in c.stderr(), c.stderr())


@test('-w: the program is a child of tls-io; without -w it is in its place')
def _():
    for options in [], ['-w']:
        peer, c = session(options, ['sh', '-c', 'echo $$ $PPID'])
        pid, parent = map(int, peer.recv_all()[0].split())
        is_equal(parent if options else pid, c.pid, 'with %r' % options)
        peer.end_politely()
        is_equal(c.wait(), 0)


# A program that says so and ends with 3 when it gets one of these signals.
ON_SIGNAL = PYTHON + ['''
import os, signal, sys
def said(n, frame):
    os.write(1, b"got %d\\n" % n)
    os._exit(3)
for n in map(int, sys.argv[1:]):
    signal.signal(n, said)
os.write(1, b"ready\\n")
while True:
    signal.pause()
''']
PASSED = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]


def as_ever():
    """A preexec: the shell that has started the tests may ignore some of them."""
    for n in PASSED:
        signal.signal(n, signal.SIG_DFL)


@test('-w: TERM, HUP, INT and QUIT reach the program, and tls-io ends as it ends')
def _():
    for n in PASSED:
        peer, c = session(['-w'], [*ON_SIGNAL, *(str(int(s)) for s in PASSED)],
                          preexec=as_ever)
        is_equal(peer.recv(6), b'ready\n')
        os.kill(c.pid, n)
        is_equal(peer.end_politely(), (b'got %d\n' % n, 'close_notify'))
        dies_silently(c, 3)
        peer, c = session(['-w'], ON_SIGNAL, preexec=as_ever)
        is_equal(peer.recv(6), b'ready\n')
        os.kill(c.pid, n)
        peer.end_politely()
        is_equal(c.wait(), 128 + n)


@test('-w: so does one that comes before the program runs, and one that it ignores ends nothing')
def _():
    not_under_valgrind('keeps a signal that is pending to itself')
    client, server = tcp_pair()
    block = ('import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);'
             'os.kill(os.getpid(), signal.SIGTERM); os.execvp(sys.argv[1], sys.argv[1:])')
    c = Chain(['tls-handshake', *PYTHON, block, 'tls-io', '-w', *PYTHON,
               'import signal; print(signal.SIGTERM in signal.sigpending())'], server,
              env=server_env())
    is_equal(Peer(client).handshake().end_politely(), (b'True\n', 'close_notify'))
    dies_silently(c, 0)
    peer, c = session(['-w'], ['sh', '-c', 'trap "" TERM; echo ready; exec cat'])
    is_equal(peer.recv(6), b'ready\n')
    os.kill(c.pid, signal.SIGTERM)
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    dies_silently(c, 0)


@test('-w: without a program, or after its end, a signal ends tls-io')
def _():
    peer, c = join_app(FILL_PIPE, io=['-w'], sndbuf=4608, rcvbuf=4096)
    is_equal(peer.recv(1), b'\0')  # and takes no more
    wait_for(lambda: not children_of(c.pid), 'the end of the program')
    os.kill(c.pid, signal.SIGTERM)
    is_equal(c.wait(), -signal.SIGTERM)


# The environment

ENV = {'CERTFILE:x': pki() + '/a.pem', 'KEYFILE:x': pki() + '/a.key', 'CAFILE': '/a', 'CADIR': '/b',
       'CRLFILE': '/c', 'TLS_PROTOCOLS': 'tlsv1.2:tlsv1.3', 'TLS_ALPN': 'smtp',
       'TLS_CURVES': 'P-256', 'TLS_CIPHERS': 'ECDHE-ECDSA-AES128-GCM-SHA256', 'TLS_UID': '65534',
       'TLS_GID': '65534'}


@test('the program gets the facts, no setting of the TLS side and no descriptor of it')
def _():
    for options in [], ['-w']:
        found = variables_with(options)
        is_equal([n for n in found if n in SETTINGS + PLUMBING or ':' in n], [], 'variables left')
        is_true('SSL_PROTOCOL' in found and 'SSL_CIPHER' in found, 'facts')


@test('-Z leaves the settings of the TLS side to the program, and no descriptor of it')
def _():
    for options in ['-Z'], ['-Zw']:
        found = variables_with(options)
        settings = server_env(**ENV)
        is_equal({n: found.get(n) for n in settings}, settings, 'settings')
        is_equal([n for n in found if n in PLUMBING], [], 'descriptors')


def variables_with(options):
    peer, c = session(options, ['env'], env=ENV)
    text = all_of(peer)[0].decode()
    is_equal(c.wait(), 0)
    return dict(line.split('=', 1) for line in text.splitlines())


# After tls-ctl-open

def delayed_session(io, code=ECHO):
    """The application asks with y, then runs code; the peer, and the chain."""
    client, server = tcp_pair()
    c = Chain(delayed(application('greet(); ask(b"y")' + code),
                      ['tls-await', 'tls-handshake', *io]), server, env=server_env())
    starttls(client)
    return Peer(client).handshake(), c


@test('after tls-ctl-open: without a program tls-io exits 0 as soon as the session is joined')
def _():
    not_resident('is one more child of this test')
    peer, c = delayed_session(['tls-io'])
    is_echoed(peer)
    engine = wait_engine()[0]
    pids = wait_for(lambda: (lambda p: p if len(p) == 1 else None)(
        [p for p in children() if p not in (c.pid, engine)]), 'the TLS side')
    is_equal(orphan_exit_code(pids[0]), 0)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    dies_silently(c, 0)


@test('after tls-ctl-open: a program is run once the session is joined')
def _():
    out = temp()
    tell = ['sh', '-c', 'echo $SSL_PROTOCOL $KEYFILE $TLS_SESSIONFD >' + out]
    peer, c = delayed_session(['tls-io', *tell])
    is_echoed(peer)
    wait_for(lambda: os.path.getsize(out), 'the program')
    with open(out) as f:
        is_equal(f.read(), 'TLSv1.3\n', 'what it finds in the environment')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    dies_silently(c, 0)


@test('after tls-ctl-open, -w: tls-io stays for the end, and tells it by its code')
def _():
    for end, code in (Peer.end_politely, 0), (Peer.shutdown, 98):
        peer, c = delayed_session(['tls-io', '-w'])
        pid = wait_process('tls-io')
        is_echoed(peer)
        end(peer)
        is_equal(orphan_exit_code(pid), code)
        is_equal(c.wait(), 0)


@test('after tls-ctl-open, -w with a program: the code is that of the program')
def _():
    peer, c = delayed_session(['tls-io', '-w', 'sh', '-c', 'exit 5'])
    pid = wait_process('tls-io')
    peer.end_politely()
    is_equal(orphan_exit_code(pid), 5)
    dies_silently(c, 0)


run()
