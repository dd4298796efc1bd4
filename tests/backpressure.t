#!/usr/bin/env python3
# ISC licence: see COPYING.
# A reader that stops stops the writer: bounded memory, no CPU time, and tls-io -t ends it.

import fcntl
import os
import select
import signal
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from peer import VERSIONS, records_of
from proc import is_alive, private_memory
from processes import engines, is_flat, is_idle, wait_engine
from relay import (Background, Session, fails, is_same, join_app, output_breaks, sample_data,
                   write_all)
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for

MIB, GIB = 1 << 20, 1 << 30

# What pipes, buffers and sockets hold between two who do not read is below this.
IN_BETWEEN = 32 * MIB

IDLE = 'tls-engine: warning: session failed: relay: idle for too long\n'


def written(pid):
    """The bytes that a process has written."""
    with open('/proc/%d/io' % pid) as f:
        return int(dict(line.split(': ') for line in f)['wchar'])


def wait_stopped(pid):
    """Waits until a process writes no more; returns how much it wrote."""
    last = -1
    while written(pid) != last:
        last = written(pid)
        time.sleep(0.2 * min(SLOW, 10))  # there is no event to wait for
    return last


def send_until_stopped(sock, raw):
    """Sends until nothing more is taken; returns how much was."""
    sent = 0
    while select.select([], [sock], [], 0.2)[1]:
        sent += sock.send(raw[sent:sent + 65536], socket.MSG_DONTWAIT)
    return sent


def write_for_ever(f):
    while True:
        f.write(bytes(65536))


@test('a client that never reads stops an application that writes 1 GiB, and memory stays flat')
def _():
    for delayed in False, True:
        for _, version in VERSIONS:
            peer, c = join_app(['head', '-c', str(GIB), '/dev/zero'], version, delayed=delayed)
            engine, = wait_engine()
            before = private_memory(engine)
            is_true(0 < wait_stopped(c.pid) < IN_BETWEEN, 'the application is stopped')
            is_flat(engine, before)
            is_same(peer.recv(IN_BETWEEN), bytes(IN_BETWEEN), 'what the client then reads')
            wait_for(lambda: written(c.pid) > IN_BETWEEN, 'the application goes on')
            wait_stopped(c.pid)
            is_flat(engine, before)
            peer.reset()
            is_equal(c.wait(), -signal.SIGPIPE, 'end of the application')
            wait_for(lambda: not is_alive(engine), 'end of the engine')


@test('an application that never reads stops the client, and memory stays flat')
def _():
    for delayed in False, True:
        for _, version in VERSIONS:
            s = Session(version, delayed=delayed)
            before = private_memory(s.engine)
            raw = records_of(s.peer, sample_data(IN_BETWEEN))
            sent = send_until_stopped(s.peer.sock, raw)
            is_true(0 < sent < IN_BETWEEN, 'the client is stopped')
            is_flat(s.engine, before)
            rest = Background(s.peer.sock.sendall, raw[sent:])
            is_same(s.read(IN_BETWEEN), sample_data(IN_BETWEEN), 'what the application then reads')
            rest.finish()
            is_flat(s.engine, before)


@test('both stopped, then each reads: nothing is lost, memory stays flat')
def _():
    for _, version in VERSIONS:
        s = Session(version)
        before = private_memory(s.engine)
        raw = records_of(s.peer, sample_data(IN_BETWEEN))
        writer = Background(write_all, s.output, sample_data(IN_BETWEEN))
        sent = send_until_stopped(s.peer.sock, raw)
        is_true(0 < sent < IN_BETWEEN, 'the client is stopped')
        is_flat(s.engine, before)
        rest = Background(s.peer.sock.sendall, raw[sent:])
        is_same(s.read(IN_BETWEEN), sample_data(IN_BETWEEN), 'what the application reads')
        is_flat(s.engine, before)
        is_same(s.peer.recv(IN_BETWEEN), sample_data(IN_BETWEEN), 'what the client reads')
        rest.finish()
        writer.finish()
        is_flat(s.engine, before)


# The idle limit.

LIMIT = ['-t', str(300 * SLOW)]


def ends_idle(engine, c):
    """The engine goes without anything that the client does, and says why."""
    wait_for(lambda: not is_alive(engine), 'the end of the engine', 10)
    is_equal(c.stderr(), IDLE)


@test('tls-io -t ends a session in which nothing happens')
def _():
    s = Session(io=LIMIT)
    is_equal(s.input.read(1), b'', 'end of file for the application')
    wait_for(lambda: output_breaks(s), 'a broken pipe for the application')
    is_equal(s.peer.recv(1), b'', 'end for the client')
    s.peer.sock.close()
    ends_idle(s.engine, s.chain)


@test('tls-io -t ends a session whose client, application or both do not read')
def _():
    to_client, to_app, both = sessions = [Session(io=LIMIT) for _ in range(3)]
    writers = [Background(write_for_ever, s.output) for s in (to_client, both)]
    for s in to_app, both:
        Background(s.peer.sock.sendall, records_of(s.peer, sample_data(16 * MIB)))
    for writer in writers:
        fails(writer, BrokenPipeError)
    for s in to_app, both:
        wait_for(lambda: output_breaks(s), 'a broken pipe for the application')
        is_true(len(s.read(16 * MIB)) < 16 * MIB, 'the input of the application is cut')
    for s in sessions:
        ends_idle(s.engine, s.chain)
    got, end = to_client.peer.recv_all()
    is_true(end in ('eof', 'reset'), 'no close_notify for the client, but ' + end)


@test('tls-io -t: an application that is killed while the client does not read leaves no engine')
def _():
    left = []
    for delayed in False, True:
        before = engines()
        peer, c = join_app(['head', '-c', str(GIB), '/dev/zero'], io=['-t', str(1000 * SLOW)],
                           delayed=delayed, sndbuf=65536, rcvbuf=65536)
        left.append((*set(engines()) - set(before), c, peer))
        wait_stopped(c.pid)
        c.kill()
    for engine, c, _ in left:
        ends_idle(engine, c)


@test('tls-io -t does not end a session that is slow, in one direction only')
def _():
    up, down = (Session(io=['-t', str(1000 * SLOW)]) for _ in range(2))
    for _ in range(15):
        time.sleep(0.1 * SLOW)
        up.peer.send(b'x')
        is_equal(up.input.read(9), b'x')
        down.output.write(b'y')
        is_equal(down.peer.recv(1), b'y')
    for s in up, down:
        s.output.close()
        is_equal(s.peer.end_politely(), (b'', 'close_notify'))
        s.wait_gone()
        is_equal(s.chain.stderr(), '')


def pipe_sizes(s):
    """Of the application's input and of its output."""
    return [fcntl.fcntl(f, fcntl.F_GETPIPE_SZ) for f in (s.input, s.output)]


@test('a pipe that was found full is made larger, one of small messages is not')
def _():
    s = Session(sndbuf=65536, rcvbuf=65536)
    data = sample_data(MIB)
    s.peer.send(b'x')
    is_equal(s.read(1), b'x')
    s.output.write(b'y')
    is_equal(s.peer.recv(1), b'y')
    small = pipe_sizes(s)
    if max(small) >= 262144:
        raise Skip('pipes are large here')
    for write, read in (s.peer.send, s.read), (lambda data: write_all(s.output, data), s.peer.recv):
        is_equal(pipe_sizes(s)[1], small[1])
        writer = Background(write, data)
        is_idle(s.engine)
        is_same(read(MIB), data, 'what arrives')
        writer.finish()
    is_true(small[0] < pipe_sizes(s)[0] and small[1] < pipe_sizes(s)[1],
            '%r became %r' % (small, pipe_sizes(s)))


run()
