#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: SIGHUP and SIGTERM.

import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from engined import (LOADED, KeyFiles, join_through, refused_by, shown_hash, slow_file,
                     start_engine, wait_deaf, works_through)
from pki import cert_hash
from proc import state_of, status_of
from processes import wait_dead
from sessions import ends_well, is_echoed
from tap import SLOW, is_equal, is_true, run, test, wait_for


def load_anew(e, *old):
    """Orders it to, and waits until the old workers do not serve any more."""
    old = old or [e.worker()]
    e.signal(signal.SIGHUP)
    wait_deaf(*old)


@test('SIGHUP: the next session has the new key pair, the one under way goes on')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    old = e.worker()
    peer, c = join_through(e)
    is_equal(shown_hash(peer), cert_hash('a'))
    files.become('b')
    load_anew(e)
    for _ in range(3):
        is_equal(works_through(e), cert_hash('b'))
    is_equal(len(e.workers()), 2, 'workers')
    is_echoed(peer)
    data = os.urandom(1 << 18)
    peer.send(data[:1 << 16])
    is_equal(peer.recv(1 << 16), data[:1 << 16])
    ends_well(peer, c)
    wait_dead(old)
    is_equal(len(e.workers()), 1, 'workers')
    is_equal((e.poll(), e.log()), (None, [LOADED]))


@test('SIGHUP with files that are none: a line that says so, the old settings go on')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    worker = e.worker()
    peer, c = join_through(e)
    for _ in range(2):
        files.spoil()
        before = len(e.log())
        e.signal(signal.SIGHUP)
        wait_for(lambda: len(e.log()) == before + 2, 'two lines')
        why, going_on = e.log()[before:]
        is_true(why.startswith('tls-engined: fatal: unable to use KEYFILE ' + files.dir), why)
        is_equal(going_on, 'tls-engined: warning: new settings not loaded: going on with the old '
                           'ones')
        is_equal(e.worker(), worker)
        is_equal(works_through(e), cert_hash('a'))
    is_echoed(peer)
    files.become('b')
    load_anew(e)
    is_equal(works_through(e), cert_hash('b'))
    ends_well(peer, c)


@test('SIGHUP many times: whatever is on the way, no session is refused, the last files count')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    peer, c = join_through(e)
    for i in range(40):
        files.become('ab'[i % 2])
        e.signal(signal.SIGHUP)
        if i % 10 == 9:
            works_through(e)
    files.become('wild')
    e.signal(signal.SIGHUP)
    wait_for(lambda: works_through(e) == cert_hash('wild'), 'the last files')
    wait_for(lambda: len(e.workers()) == 2, 'no workers but the first and the last')
    is_equal(works_through(e), cert_hash('wild'))
    is_echoed(peer)
    ends_well(peer, c)


@test('a SIGHUP while new settings are being read is not overtaken by those')
def _():
    files = KeyFiles('a')
    e = start_engine({**files.env, 'CAFILE': slow_file()})
    first = e.worker()
    files.become('b')
    e.signal(signal.SIGHUP)
    second = wait_for(lambda: set(e.workers()) - {first}, 'a new worker').pop()
    os.kill(second, signal.SIGSTOP)
    wait_for(lambda: state_of(second) == 'T', 'it to stop')
    files.become('wild')
    e.signal(signal.SIGHUP)
    wait_for(lambda: state_of(e.pid) == 'S' and int(status_of(e.pid)['ShdPnd'], 16) == 0,
             'the keeper to have the signal')
    if len(e.workers()) > 2:
        wait_for(lambda: works_through(e) == cert_hash('wild'), 'the third worker')
    os.kill(second, signal.SIGCONT)
    wait_for(lambda: works_through(e) == cert_hash('wild'), 'the last files')
    wait_for(lambda: len(e.workers()) == 1, 'one worker')
    is_equal(works_through(e), cert_hash('wild'))


@test('SIGTERM with no session: exit 0 at once')
def _():
    for options in [], ['-t', '60000']:
        e = start_engine(options=options)
        works_through(e)
        e.signal(signal.SIGTERM)
        is_equal((e.wait(), e.log()), (0, []))


@test('SIGTERM: no new session, those under way end in their time, exit 0 after the last')
def _():
    e = start_engine()
    worker = e.worker()
    peers = [join_through(e) for _ in range(2)]
    e.signal(signal.SIGTERM)
    wait_deaf(worker)
    is_equal(refused_by(e, 111),
             'unable to connect to TLS_ENGINE %s: Connection refused' % e.path)
    e.signal(signal.SIGHUP)  # too late for anything but an end
    for peer, c in peers:
        is_equal(e.poll(), None, 'exit code')
        is_echoed(peer)
        ends_well(peer, c)
    is_equal((e.wait(), e.log()), (0, []))


@test('SIGTERM ends the workers of older settings with the last of their sessions, too')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    peer, c = join_through(e)
    files.become('b')
    load_anew(e)
    other = join_through(e)
    e.signal(signal.SIGTERM)
    is_echoed(peer)
    ends_well(*other)
    is_equal(e.poll(), None, 'exit code')
    is_echoed(peer)
    ends_well(peer, c)
    is_equal((e.wait(), e.log()), (0, [LOADED]))


@test('-t: sessions that take longer are cut after SIGTERM, and not before')
def _():
    limit = 1.0
    e = start_engine(options=['-t', str(int(limit * 1000))])
    peer, c = join_through(e, io=['-w'])
    session, = e.wait_sessions(1)
    start = time.monotonic()
    e.signal(signal.SIGTERM)
    is_echoed(peer)
    is_equal(e.wait(), 0)
    is_true(time.monotonic() - start >= limit, 'not before the limit')
    is_equal(peer.recv_all(), (b'', 'eof'), 'no close_notify for what was cut')
    is_equal(c.wait(), 98)
    wait_dead(session)


@test('-t: the limit counts from the first SIGTERM')
def _():
    e = start_engine(options=['-t', '2000'])
    peer, c = join_through(e)
    start = time.monotonic()
    while e.poll() is None:
        is_true(time.monotonic() - start < 15 * SLOW, 'it ends while orders come')
        e.signal(signal.SIGTERM)
        time.sleep(0.1)  # the pace of orders, not a wait for something
    is_equal(e.wait(), 0)


run()
