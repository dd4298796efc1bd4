#!/usr/bin/env python3
# ISC licence: see COPYING.
# How long an engine lives when its application or its peer does not: the table of
# tls-chain-security(7), SESSIONS AND TIME. Sessions that have to wait for a limit wait together.

import os
import socket
import struct
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, not_resident
from engined import join_through, refused_by, start_engine
from peer import TLS12, TLS13
from pki import server_env
from privileges import as_root
from processes import wait_asleep
from relay import Background, Session, is_same, join_app, sample_data
from sessions import ends_well
from tap import SLOW, is_equal, is_true, run, test, wait_for

STOPPED = 'tls-engine: warning: session failed: relay: the peer stopped reading\n'


def is_quick(since, what, seconds=3):
    took = time.monotonic() - since
    is_true(took < seconds * SLOW, '%s, but after %.1f s' % (what, took))


def join_in_turn(e, prog=('cat',)):
    """A session, as soon as there is a place: the engine hears of an acknowledgement later than
    the client has what it acknowledges."""
    def attempt():
        try:
            return join_through(e, prog)
        except ConnectionError:
            return None
    return wait_for(attempt, 'a place')


@test('a client that has said close_notify and keeps its socket holds nothing')
def _():
    for version in TLS12, TLS13:
        s = Session(version)
        start = time.monotonic()
        s.output.close()
        is_equal(s.peer.recv_all(), (b'', 'close_notify'))
        s.peer.close_notify()
        s.input.close()
        s.wait_gone()
        is_quick(start, 'gone')
        is_equal(s.chain.stderr(), '')


@test('five such clients leave all places of a resident engine free, and their sessions end')
def _():
    not_resident('is what this test starts')
    e = start_engine(options=['-m', '5'])
    ended = []
    for _ in range(20):
        peer, c = join_through(e)
        peer.close_notify()
        is_equal(peer.recv_all(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)
        ended.append(peer)  # its socket stays open
    e.wait_sessions(0)


class Talker:
    """A client that says a word now and then after the application has ended."""

    def __init__(self):
        self._s = Session()
        self._s.output.close()
        is_equal(self._s.peer.recv_all(), (b'', 'close_notify'))
        self._s.input.close()
        self._is_done = threading.Event()
        self._job = Background(self._talk)

    def _talk(self):
        while not self._is_done.wait(0.5):
            self._s.peer.sock.sendall(b'x')

    def is_heard(self):
        """So far nobody has hung up."""
        is_true(not self._s.is_gone(), 'its engine is there')
        self._is_done.set()
        self._job.finish()
        self._s.peer.reset()
        self._s.wait_gone()


@test('a client that says nothing at the end has five seconds, and its place is free at once; '
      'one that says something has more')
def _():
    not_resident('is what this test starts')
    talker = Talker()
    e = start_engine(options=['-m', '1'])
    peer, c = join_through(e, ['head', '-c', '5'])
    start = time.monotonic()
    is_equal(peer.recv_all(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    second, c = join_in_turn(e)  # the only place
    is_quick(start, 'served')
    is_equal(second.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    e.wait_sessions(0)
    took = time.monotonic() - start
    is_true(4 < took < 15 * SLOW, 'the silent one is let go after %.1f s' % took)
    talker.is_heard()


@test('those that only wait for their peer have as many places again, and -m counts on after them')
def _():
    not_resident('is what this test starts')
    e = start_engine(options=['-m', '1'])
    full = 'the resident engine is at its limit of sessions (-m)'
    silent = []
    for _ in range(2):
        peer, c = join_in_turn(e, ['head', '-c', '5'])
        is_equal(peer.recv_all(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)
        silent.append(peer)
    is_equal(refused_by(e, 111), full)  # both wait, and there are no more than two places
    for peer in silent:
        peer.sock.close()
    e.wait_sessions(0)
    peer, c = join_through(e)
    is_equal(refused_by(e, 111), full)
    ends_well(peer, c)


@test('tls-io -w does not wait for a peer that keeps its socket')
def _():
    for end in 'close_notify', 'silence':
        peer, c = join_app(['true'], io=['-w'])
        start = time.monotonic()
        is_equal(peer.recv_all(), (b'', 'close_notify'))
        if end == 'close_notify':
            peer.close_notify()
        is_equal(c.wait(), 0, end)
        is_quick(start, 'exits')


def slow_reader(peer, n, says_after):
    """Reads n bytes at about 20 kB/s, and says one word on the way."""
    got = bytearray()
    start = time.monotonic()
    said = False
    while len(got) < n:
        got += peer.recv(min(20000, n - len(got)))
        if not said and time.monotonic() - start > says_after:
            peer.send(b'word')
            said = True
        pause = len(got) / 20000 - (time.monotonic() - start)
        if len(got) < n and pause > 0:
            time.sleep(min(pause, 1))
        if peer.end:
            break
    return bytes(got), said


@test('an application that is gone: who takes its bytes slowly gets them all, who stops does not',
      limit=120)
def _():
    """A slow reader that says a word after more than 30 s; three that stop reading, with the
    application's ends closed in each order; and one that sends without an end, and reads
    nothing: it keeps nothing alive."""
    buffers = {'sndbuf': 65536, 'rcvbuf': 8192}
    data = sample_data(900000)
    slow = Session(**buffers)
    stopped = [Session(**buffers) for _ in range(3)]
    talker = Session(**buffers)

    def write_slow():
        slow.output.write(data)
        slow.output.close()

    def talk():
        try:
            while True:
                talker.peer.send(b'x' * 1000)
                time.sleep(0.05)
        except OSError:
            pass

    writer = Background(write_slow)
    for s, n in zip(stopped, (100000, 250000, 400000)):
        os.set_blocking(s.output.fileno(), False)
        try:
            for at in range(0, n, 65536):
                s.output.write(data[at:at + 65536])
        except BlockingIOError:
            pass
    talker.output.write(data[:100000])
    start = time.monotonic()
    stopped[0].output.close(), stopped[0].input.close()
    stopped[1].input.close(), stopped[1].output.close()
    stopped[2].output.close(), stopped[2].input.close()
    talker.output.close(), talker.input.close()
    talking = Background(talk)
    slow.input.close()
    got, said = slow_reader(slow.peer, len(data), 33)
    writer.finish()
    is_true(said, 'the word was said')
    is_same(got, data, 'what the slow reader got')
    is_equal(slow.peer.recv_all(), (b'', 'close_notify'))
    slow.peer.close_notify()
    for s in [*stopped, talker]:
        s.wait_gone(30)
        is_equal(s.chain.stderr(), STOPPED)
    is_true(time.monotonic() - start > 30, 'the limit is not missed')
    talking.finish()
    slow.wait_gone()
    is_equal(slow.chain.stderr(), '')


def fill(s):
    """Writes for the application until nothing on the way to the peer takes more."""
    os.set_blocking(s.output.fileno(), False)
    while True:
        wait_asleep(s.engine)
        if s.output.write(bytes(65536)) is None:
            return


@test('what the peer does not take is told by tls-io -w: 98, in our buffer or in the system\'s')
def _():
    for sndbuf in 400000, 4608:
        s = Session(io=['-w'], sndbuf=sndbuf, rcvbuf=4096)
        fill(s)
        s.output.close()
        s.input.close()
        s.peer.reset()
        is_equal(s.chain.wait(), 98)
        is_equal(s.chain.stderr(), 'tls-io: warning: session failed: the peer did not take '
                 'everything: Connection reset by peer\n')


@as_root('an engine that lingers does not read without an end')
def _():
    """A network that is never empty, from who commands an engine by hand."""
    start = b'S\2\0\0\0\0\1\0'  # version 2, a server, verbosity 1, no name, no peer
    ours, its = socket.socketpair()
    engine = Chain(['tls-engine'], its, env=server_env())
    with ours, open('/dev/zero', 'rb') as zero, open('/dev/null', 'wb') as null:
        socket.send_fds(ours, [struct.pack('>IH', len(start), 2) + start],
                        [zero.fileno(), null.fileno()])
        is_true(b'bytes came in plaintext' in ours.recv(4096), 'the session is refused')
        read = [0]

        def is_over():
            try:
                with open('/proc/%d/io' % engine.pid) as f:
                    read.append(int(f.readline().split()[1]))
            except (FileNotFoundError, ProcessLookupError):
                pass
            return engine.poll() is not None
        wait_for(is_over, 'the end of the engine')
    is_equal(engine.wait(), 97)
    is_true(0 < max(read) < 100 << 20, 'it reads %d bytes' % max(read))


run()
