#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: loads that do not end well, or not at once.

import os
import select
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from engined import (LOADED, Engine, KeyFiles, join_through, shown_hash, slow_file, start_engine,
                     works_through)
from pki import cert_hash, server_env
from proc import state_of
from processes import wait_asleep, wait_dead
from sessions import ends_well, is_echoed
from tap import is_equal, is_true, run, test, wait_for

GOING_ON = 'tls-engined: warning: new settings not loaded: going on with the old ones'
ALL_BUSY = ('tls-engined: warning: all workers still have sessions: '
            'the new settings are loaded when one has ended')
WORKERS = 16


def stopped_loading(e, *others):
    """A worker that is stopped before it is ready; None if it was ready sooner."""
    pid = wait_for(lambda: set(e.workers()) - set(others), 'a worker').pop()
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state_of(pid) == 'T', 'it to stop')
    wait_asleep(e.pid)
    is_ready = LOADED in e.log() if others else select.select([e.notification], [], [], 0)[0]
    return None if is_ready else pid


def until_stopped(start):
    """Calls start until there is such a worker: how long a load takes is not ours to know."""
    return wait_for(start, 'a worker that is stopped before it is ready')


@test('SIGHUP, and a FIFO in the place of KEYFILE: the old settings go on, and it is told')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    worker = e.worker()
    peer, c = join_through(e)
    os.unlink(files.env['KEYFILE'])
    os.mkfifo(files.env['KEYFILE'])
    for held in False, True:  # without a writer and with one
        writer = os.open(files.env['KEYFILE'], os.O_RDWR) if held else None
        before = len(e.log())
        e.signal(signal.SIGHUP)
        wait_for(lambda: len(e.log()) == before + 2, 'two lines')
        is_equal(e.log()[before:], [
            'tls-engined: fatal: unable to use KEYFILE %s: not a regular file'
            % files.env['KEYFILE'], GOING_ON])
        is_equal(e.worker(), worker)
        is_equal(works_through(e), cert_hash('a'))
        if held:
            os.close(writer)
    is_echoed(peer)
    os.unlink(files.env['KEYFILE'])
    files.become('b')
    e.signal(signal.SIGHUP)
    wait_for(lambda: LOADED in e.log(), 'the new settings')
    is_equal(works_through(e), cert_hash('b'))
    ends_well(peer, c)
    wait_dead(worker)


@test('SIGTERM while the first worker loads, and is stuck: the end at once, exit 0, no readiness')
def _():
    def start():
        e = Engine(server_env(CAFILE=slow_file()))
        worker = stopped_loading(e)
        if not worker:
            e.close()
        return worker and (e, worker)
    e, worker = until_stopped(start)
    e.signal(signal.SIGTERM)
    is_equal((e.wait(), e.log()), (0, []))
    is_equal(e.notification.read(), b'', 'readiness')
    wait_dead(worker)


def reloading(session):
    """An engine whose second worker is stuck as it loads; the first has a session or none."""
    def start():
        files = KeyFiles('a')
        e = start_engine({**files.env, 'CAFILE': slow_file()})
        first = e.worker()
        pair = join_through(e) if session else None
        files.become('b')
        e.signal(signal.SIGHUP)
        second = stopped_loading(e, first)
        if not second:
            if pair:
                ends_well(*pair)
            e.close()
        return second and (e, second, pair)
    return until_stopped(start)


@test('SIGTERM while a later worker loads, and is stuck: the end at once, exit 0')
def _():
    e, second, _ = reloading(session=False)
    e.signal(signal.SIGTERM)
    is_equal((e.wait(), e.log()), (0, []))
    wait_dead(second)


@test('SIGTERM while a later worker loads, and is stuck: the first ends its sessions in their time')
def _():
    e, second, (peer, c) = reloading(session=True)
    e.signal(signal.SIGTERM)
    wait_dead(second)
    is_echoed(peer)
    is_equal(e.poll(), None, 'exit code')
    ends_well(peer, c)
    is_equal((e.wait(), e.log()), (0, []))


@test('a worker that is killed as it loads: the old settings go on, and it is told')
def _():
    e, second, (peer, c) = reloading(session=True)
    os.kill(second, signal.SIGKILL)
    wait_for(e.log, 'a line')
    is_equal(e.log(), [GOING_ON])
    is_equal(works_through(e), cert_hash('a'))
    is_echoed(peer)
    e.signal(signal.SIGHUP)
    wait_for(lambda: LOADED in e.log(), 'the new settings')
    is_equal(works_through(e), cert_hash('b'))
    ends_well(peer, c)


@test('-t is for SIGTERM only: SIGHUP cuts no session')
def _():
    options = ['-t', '100']
    e = start_engine(options=options)
    peer, c = join_through(e)
    e.signal(signal.SIGHUP)
    wait_for(lambda: LOADED in e.log(), 'the new settings')
    other = start_engine(options=options)
    cut, its = join_through(other)
    other.signal(signal.SIGTERM)
    is_equal(other.wait(), 0)  # by now that time is over for both
    is_equal(cut.recv_all(), (b'', 'eof'))
    is_echoed(peer)
    ends_well(peer, c)


@test('SIGHUP while %d workers have sessions: told once, and served when one of them has ended'
      % WORKERS)
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    sessions = []
    for i in range(WORKERS):
        sessions.append(join_through(e))
        if i < WORKERS - 1:
            e.signal(signal.SIGHUP)
            wait_for(lambda: len(e.log()) == i + 1, 'new settings')
    is_equal(len(e.workers()), WORKERS, 'workers')
    files.become('b')
    for _ in range(3):
        e.signal(signal.SIGHUP)
    wait_for(lambda: len(e.log()) > WORKERS - 1, 'a line')
    is_equal(works_through(e), cert_hash('a'))
    is_equal(e.log(), [LOADED] * (WORKERS - 1) + [ALL_BUSY])
    ends_well(*sessions.pop(WORKERS // 2))
    wait_for(lambda: len(e.log()) > WORKERS, 'the new settings')
    is_equal(e.log()[WORKERS:], [LOADED])
    is_equal(works_through(e), cert_hash('b'))
    is_equal(shown_hash(sessions[0][0]), cert_hash('a'))
    files.become('wild')  # the newest is busy with nobody; none of the others has ended
    e.signal(signal.SIGHUP)
    wait_for(lambda: len(e.log()) > WORKERS + 1, 'a line')
    is_equal(e.log()[WORKERS + 1:], [ALL_BUSY])
    for peer, c in sessions:
        is_echoed(peer)
        ends_well(peer, c)
    wait_for(lambda: len(e.workers()) == 1, 'one worker')
    is_equal(works_through(e), cert_hash('wild'))
    is_true(e.poll() is None, 'it runs')


run()
