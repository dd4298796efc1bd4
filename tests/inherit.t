#!/usr/bin/env python3
# ISC licence: see COPYING.
# What a chain may inherit: closed descriptors, odd signals, a full disk, few descriptors. It works
# all the same or says why not, keeps its messages out of the data, and hands on what it found.

import os
import re
import resource
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (NOT_JOINED, PYTHON, Chain, delayed, descriptors, dies, not_resident,
                   not_under_valgrind, script, tells_emfile, unjoined)
from peer import Peer, Recorder, all_of
from pki import server_env
from proc import fds_of
from processes import wait_engine
from scratch import temp
from sessions import is_echoed
from sockets import read_to_end, tcp_pair, unix_pair
from tap import is_equal, is_true, run, test, wait_for
from ucspi import ECHO, application, starttls

# Closed 0, 1 and 2. The network is on 8 and 9 here.

CLOSED = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
HANDSHAKE = ['tls-handshake', '-v', '2', '-6', '8', '-7', '9']

CAT = ['sh', '-c', 'exec cat <&8 >&9']

CLOSED_HERE = '''
def is_open(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False
closed = repr([fd for fd in (0, 1, 2) if not is_open(fd)]).encode()
'''

# A stage that appends what is closed there to a file, and goes on.
TELL = PYTHON + ['import os, sys' + CLOSED_HERE + '''
with open(sys.argv[1], 'ab') as f:
    f.write(closed + b'\\n')
if sys.argv[2:]:
    os.execvp(sys.argv[2], sys.argv[2:])
''']


def without(closed, argv, env=None):
    """A chain with the network on 8 and 9, and with these descriptors closed; its client."""
    client, server = tcp_pair()
    table = {8: server.fileno(), 9: server.fileno(), **{fd: None for fd in closed}}
    c = Chain(argv, client=True, env=server_env(**env or {}), preexec=descriptors(table))
    server.close()
    return Recorder(client), c


def lines_of(path):
    with open(path) as f:
        return f.read().splitlines()


def is_clean(record, c, closed, said=''):
    """Not a word of a message went where data goes, and all that was said is on stderr."""
    is_true(b'tls-' not in record.raw, 'a message in the raw data: %r' % record.raw)
    if 2 in closed:
        is_equal(c.stderr(), '')
    else:
        is_true(said in c.stderr(), 'on stderr: ' + c.stderr())


@test('with any of 0, 1 and 2 closed delayed TLS works, and each stage finds them closed, too')
def _():
    not_resident('does not get its stderr from the chain')
    not_under_valgrind('opens what is closed')
    for closed in CLOSED:
        told = temp()
        record, c = without(closed, delayed(
            application('greet(8, 9); ask()' + CLOSED_HERE + 'write(w, closed)' + ECHO),
            [*TELL, told, 'tls-await', *TELL, told, *HANDSHAKE, *TELL, told, 'tls-io',
             *TELL, told]))
        starttls(record)
        peer = Peer(record).handshake()
        wanted = repr(list(closed))
        is_equal(peer.recv(len(wanted)).decode(), wanted, 'closed in the application')
        is_echoed(peer)
        engine = fds_of(wait_engine()[0])
        is_equal(engine[1], engine[2], 'descriptor 1 of the engine')
        is_equal(engine[2].startswith('pipe'), 2 in closed, 'descriptor 2 of the engine is a pipe')
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)
        wait_for(lambda: len(lines_of(told)) == 4, 'the last stage')
        is_equal(lines_of(told), [wanted] * 4, 'closed in the TLS side')
        is_clean(record, c, closed, 'session started')


@test('with any of 0, 1 and 2 closed immediate TLS works, and each stage finds them closed, too')
def _():
    not_resident('does not get its stderr from the chain')
    not_under_valgrind('opens what is closed')
    for closed in CLOSED:
        for options in [], ['-w']:
            told = temp()
            record, c = without(closed, [
                *TELL, told, *HANDSHAKE, *TELL, told, 'tls-io', *options, *TELL, told,
                *CAT])
            peer = Peer(record).handshake()
            is_echoed(peer)
            is_equal(peer.end_politely(), (b'', 'close_notify'))
            is_equal(c.wait(), 0)
            is_equal(lines_of(told), [repr(list(closed))] * 3, 'closed in the chain')
            is_clean(record, c, closed, 'session started')


@test('with any of 0, 1 and 2 closed a handshake that fails is told to no one else')
def _():
    for closed in CLOSED:
        for argv in ([*HANDSHAKE, 'tls-io', 'true'],
                     delayed(application('os.write(ctl, b"y"); read_all(r)'),
                             ['tls-await', *HANDSHAKE, 'tls-io'])):
            record, c = without(closed, argv)
            record.sendall(b'this is no TLS')
            read_to_end(record)
            record.close()
            is_equal(c.wait(), 97 if argv[0] == 'tls-handshake' else 0)
            is_clean(record, c, closed, 'tls-handshake: fatal: unable to start TLS: ')


@test('with any of 0, 1 and 2 closed every other death is told to no one else')
def _():
    not_resident('says so in words of its own: see engined.t')
    for closed in CLOSED:
        for argv, code, said in (
                (['tls-ctl-open'], 100, 'usage'),
                (['tls-ctl-open', '', 'true'], 100, 'empty block'),
                (delayed(['true'], ['nonesuch']), 127, 'unable to exec the TLS side nonesuch'),
                (delayed(['nonesuch'], ['true']), 127, 'unable to exec nonesuch'),
                (['tls-await', 'true'], 100, 'TLS_CTLFD is not set'),
                ([*HANDSHAKE, '-y', 'true'], 96, 'neither CAFILE nor CADIR'),
                (['tls-handshake'], 100, 'no program'),
                (['tls-io', 'true'], 100, 'TLS_SESSIONFD is not set')):
            record, c = without(closed, argv)
            read_to_end(record)
            record.close()
            is_equal(c.wait(), code, 'exit code of %r without %r' % (argv, closed))
            is_clean(record, c, closed, said)


@test('with any of 0, 1 and 2 closed no message of tls-await gets into the control socket')
def _():
    for closed in CLOSED:
        app, tls = unix_pair()
        c = Chain(['tls-await', 'true'], client=True, env={'TLS_CTLFD': '20'},
                  preexec=descriptors({20: tls.fileno(), **{fd: None for fd in closed}}))
        tls.close()
        app.send(b'no')
        is_equal(c.wait(), 100)
        is_equal(app.recv(100), b'', 'on the control socket')


@test('with 2 closed, what is said at the end of a session is not in the data, either')
def _():
    not_resident('does not get its stderr from the chain')
    for options, end in (([], Peer.end_politely), (['-w', '-J'], Peer.shutdown),
                         (['-w'], Peer.shutdown)):
        record, c = without((2,), [*HANDSHAKE, 'tls-io', *options, *CAT])
        peer = Peer(record).handshake()
        is_echoed(peer)
        end(peer)
        is_equal(peer.recv_all()[0], b'', 'plaintext')
        is_equal(c.wait(), 98 if end == Peer.shutdown else 0)
        is_clean(record, c, (2,))


@test('with 0 or 1 closed where the network should be: 100, one line')
def _():
    not_under_valgrind('opens what is closed')
    for closed in 0, 1:
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'true'], server, env=server_env(),
                  preexec=lambda: os.close(closed))
        dies(c, 100, 'tls-handshake: fatal: unable to use descriptor %d as the network: '
             'Bad file descriptor' % closed)


@test('with 2 closed, so it is in the program of tls-ctl-start, which has the session on 0 and 1')
def _():
    not_under_valgrind('opens what is closed')
    client, server = tcp_pair()
    told = temp()
    c = Chain(delayed(['tls-ctl-start', *TELL, told, 'cat']), server, env=server_env(),
              preexec=lambda: os.close(2))
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(lines_of(told), ['[2]'])


# Signals

SIGNALS = [signal.SIGPIPE, signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP,
           signal.SIGINT, signal.SIGUSR1]
STATUS = ['grep', '-E', '^Sig(Blk|Ign):', '/proc/self/status']
STATUS_ON_STDERR = script('fdmove -c 1 2 $@', *STATUS)  # a shell would change SIGCHLD


def ignore():
    for s in SIGNALS:
        signal.signal(s, signal.SIG_IGN)


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def ignore_and_block():
    ignore()
    block()


def neither():
    pass


def each_disposition():
    """What to do in the child before the exec, and what a program then finds."""
    for prepare in neither, ignore, block, ignore_and_block:
        c = Chain(STATUS, preexec=prepare)
        is_equal(c.wait(), 0)
        yield prepare, c.stderr()


@test('ignored and blocked signals: tls-ctl-open hands on to either side what it found')
def _():
    for prepare, status in each_disposition():
        for options in [], ['-D']:
            c = Chain(delayed(STATUS, ['tls-await', 'true'], options), preexec=prepare)
            is_equal(c.wait(), 0)
            is_equal(c.stderr(), status, 'the application, after %s' % prepare.__name__)
            c = Chain(delayed(application('read_all(r)'), STATUS, options), preexec=prepare)
            is_equal(c.wait(), 0)
            is_equal(c.stderr(), status, 'the TLS side, after %s' % prepare.__name__)


@test('ignored and blocked signals: so does tls-await')
def _():
    for prepare, status in each_disposition():
        for command in b'y', b'Y':
            app, tls = unix_pair()
            c = Chain(['tls-await', '-t', '60000', *STATUS], env={'TLS_CTLFD': str(tls.fileno())},
                      pass_fds=[tls.fileno()], preexec=prepare)
            app.send(command)
            is_equal(c.wait(), 0)
            is_equal(c.stderr(), status, 'after %s' % prepare.__name__)


def session(argv, prepare):
    client, server = tcp_pair()
    c = Chain(argv, server, env=server_env(), preexec=prepare)
    return client, c


@test('ignored and blocked signals: so does tls-handshake, and the session begins')
def _():
    for prepare, status in each_disposition():
        client, c = session(['tls-handshake', *STATUS_ON_STDERR], prepare)
        Peer(client).handshake()
        is_equal(c.wait(), 0)
        is_equal(unjoined(c), status, 'after %s' % prepare.__name__)


@test('ignored and blocked signals: so does tls-io, and the session ends well')
def _():
    for prepare, status in each_disposition():
        for options in [], ['-w']:
            client, c = session(['tls-handshake', 'tls-io', *options, *STATUS], prepare)
            is_equal(all_of(Peer(client).handshake()), (status.encode(), 'close_notify'))
            is_equal(c.wait(), 0)
            is_equal(c.stderr(), '')


@test('ignored and blocked signals: so does tls-io after tls-ctl-open')
def _():
    for prepare, status in each_disposition():
        for options in [], ['-w']:
            client, c = session(delayed(
                application('greet(); ask()' + ECHO),
                ['tls-await', 'tls-handshake', 'tls-io', *options, *STATUS_ON_STDERR]), prepare)
            starttls(client)
            peer = Peer(client).handshake()
            is_echoed(peer)
            is_equal(peer.end_politely(), (b'', 'close_notify'))
            is_equal(c.wait(), 0)
            wait_for(lambda: c.stderr().count('\n') == 2, 'the TLS side')
            is_equal(c.stderr(), status, 'after %s' % prepare.__name__)


@test('ignored and blocked signals: so does tls-ctl-start')
def _():
    for prepare, status in each_disposition():
        client, c = session(delayed(['tls-ctl-start', *STATUS]), prepare)
        is_equal(all_of(Peer(client).handshake()), (status.encode(), 'close_notify'))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')


@test('ignored and blocked signals: exit codes are what they always are')
def _():
    for prepare in ignore, block, ignore_and_block:
        client, c = session(['tls-handshake', 'tls-io', '-w', 'sh', '-c', 'exit 7'], prepare)
        is_equal(all_of(Peer(client).handshake()), (b'', 'close_notify'))
        is_equal(c.wait(), 7, 'tls-io -w')
        for options in [], ['-D']:
            c = Chain(delayed(['true'], ['nonesuch'], options), preexec=prepare)
            is_equal(c.wait(), 127, 'tls-ctl-open')


@test('ignored and blocked signals: limits are kept all the same')
def _():
    for prepare in ignore, block, ignore_and_block:
        client, c = session(['tls-handshake', '-K', '50', 'true'], prepare)
        is_equal(read_to_end(client), b'')
        client.close()
        dies(c, 97, 'tls-handshake: fatal: unable to start TLS: the handshake timed out')
        app, tls = unix_pair()
        c = Chain(['tls-await', '-t', '50', 'true'], env={'TLS_CTLFD': str(tls.fileno())},
                  pass_fds=[tls.fileno()], preexec=prepare)
        dies(c, 97, 'tls-await: fatal: timed out: the application did not ask for TLS')
        client, c = session(['tls-handshake', '-v0', 'tls-io', '-w', '-t50', 'cat'], prepare)
        peer = Peer(client).handshake()
        is_equal(peer.recv_all(), (b'', 'eof'))
        client.close()
        dies(c, 98, 'tls-io: warning: session failed: relay: idle for too long')


# A full disk behind stderr

def full():
    os.dup2(os.open('/dev/full', os.O_WRONLY), 2)


@test('a full disk behind stderr: sessions are served')
def _():
    client, c = session(['tls-handshake', '-v', '2', 'tls-io', 'cat'], full)
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    client, c = session(delayed(application('greet(); ask()' + ECHO),
                                ['tls-await', 'tls-handshake', '-v', '2', 'tls-io']), full)
    starttls(client)
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('a full disk behind stderr: exit codes are what they always are, and no message is elsewhere')
def _():
    for argv, code in (
            (['tls-ctl-open'], 100), (['tls-ctl-open', '', 'true'], 100),
            (delayed(['true'], ['nonesuch']), 127), (delayed(['nonesuch'], ['true']), 127),
            (['tls-await', 'true'], 100), (['tls-await'], 100),
            (['tls-handshake'], 100), (['tls-handshake', '-c', 'true'], 100),
            (['tls-handshake', '-y', 'true'], 96), (['tls-handshake', '-K', '50', 'true'], 97),
            (['tls-io', 'true'], 100), (['tls-ctl-start'], 100), (['tls-ctl-start', 'true'], 100),
            (delayed(['tls-ctl-start', 'true'], ['true']), 97)):
        client, c = session(argv, full)
        is_equal(read_to_end(client), b'', 'what %r wrote to the network' % argv)
        client.close()
        is_equal(c.wait(), code, 'exit code of %r' % argv)
    client, c = session(['tls-handshake', 'tls-io', '-w', 'cat'], full)
    peer = Peer(client).handshake()
    peer.shutdown()
    is_equal(peer.recv_all(), (b'', 'close_notify'))
    is_equal(c.wait(), 98, 'exit code of a session that was cut')


# Few descriptors

def works_or_says_why_not(start, limit, upgrade):
    """Runs a chain, by start, that may have so many descriptors. Returns whether it worked."""
    client, c = start(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    record = Recorder(client)
    peer = Peer(record)
    try:
        upgrade(record)
        peer.handshake()
        peer.send(b'hello')
        got = peer.recv(5)
        peer.end_politely()
    except (OSError, AssertionError):
        got = b''
    client.close()
    code = c.wait()
    is_true(b'tls-' not in record.raw, 'a message in the data: %r' % record.raw)
    if got == b'hello':
        is_equal((code, c.stderr()), (0, ''), 'with %d descriptors' % limit)
        return True
    is_equal(got, b'', 'data with %d descriptors' % limit)
    is_equal(code, 111, 'exit code with %d descriptors' % limit)
    said = c.stderr().replace(NOT_JOINED, '')
    is_true(re.match('tls-[a-z-]+: fatal: ', said) and tells_emfile(said),
            'with %d descriptors: %s' % (limit, c.stderr()))
    return False


def check_limits(start, upgrade):
    not_under_valgrind('needs descriptors of its own')
    worked = [works_or_says_why_not(start, limit, upgrade) for limit in range(4, 17)]
    is_equal(worked, sorted(worked), 'works with so many and more')
    is_equal((worked[0], worked[-1]), (False, True), 'the least and the most')


@test('few descriptors: immediate TLS works, or says why not and exits 111')
def _():
    check_limits(lambda limit: session(['tls-handshake', 'tls-io', 'cat'], limit),
                 lambda record: None)


@test('few descriptors: delayed TLS works, or says why not and exits 111')
def _():
    app = application('greet(); ask()' + ECHO)
    check_limits(lambda limit: session(delayed(app), limit), starttls)


run()
