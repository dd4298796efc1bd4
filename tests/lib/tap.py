# ISC licence: see COPYING.
"""TAP for tests of processes.

    from tap import is_equal, run, test

    @test('what is promised')
    def _():
        is_equal(1 + 1, 2, 'sum')

    run()

A test passes if its function returns, fails if it raises, is skipped if it raises Skip. It has a
time limit. Whatever process it leaves behind, of any generation, is a failure of that test and is
killed: this process is a subreaper, so every orphan becomes its child.
"""

import ctypes
import os
import signal
import sys
import time
import traceback

from proc import children, comm_of

PR_SET_CHILD_SUBREAPER = 36

# Under valgrind everything takes its time.
SLOW = 20 if os.environ.get('TEST_VALGRIND') else 4 if os.environ.get('TEST_SANITIZE') else 1

_tests = []
_after_each = []
_at_end = []


class Skip(Exception):
    """The test cannot be run here; the text says why."""


class TimeOut(BaseException):
    """Not an Exception: a test that expects exceptions does not catch it."""


def test(name, limit=60):
    def add(function):
        _tests.append((name, function, limit))
        return function
    return add


def after_each(function):
    """Has it called after each test, before those that were named so earlier. What it returns is
    shown if the test has failed."""
    _after_each.insert(0, function)
    return function


def at_end(function):
    """Has it called after all tests."""
    _at_end.append(function)
    return function


def diag(text, to=None):
    for line in str(text).splitlines():
        print('# ' + line, file=to, flush=True)


def is_equal(got, wanted, what='value'):
    if got != wanted:
        raise AssertionError('%s: got %.2000r, wanted %.2000r' % (what, got, wanted))


def is_true(condition, what):
    if not condition:
        raise AssertionError(what)


def wait_for(predicate, what, seconds=20):
    """Waits until predicate() is true, and returns what it returned."""
    end = time.monotonic() + seconds * SLOW
    pause = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError('waited in vain: ' + what)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _leftover(seconds):
    """Waits for the children to end by themselves; returns the names of those that do not."""
    end = time.monotonic() + seconds * SLOW
    while True:
        _reap()
        left = children()
        if not left or time.monotonic() > end:
            break
        time.sleep(0.005)
    names = ['%s (%d)' % (comm_of(pid) or '?', pid) for pid in left]
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
        _reap()
        left = children()
    return names


def _on_alarm(signum, frame):
    raise TimeOut()


def _clean_up():
    return '\n'.join(filter(None, [function() for function in _after_each]))


def _run_one(function, limit):
    """What went wrong, None if nothing did; and what there is to show then."""
    signal.alarm(int(limit * SLOW))
    try:
        function()
        result = None
    except Skip as e:
        result = e
    except TimeOut:
        result = 'took longer than %d s\n' % (limit * SLOW) + traceback.format_exc()
    except BaseException:
        result = traceback.format_exc()
    finally:
        signal.alarm(0)
    said = _clean_up()
    if isinstance(result, Skip):
        return result, said
    left = _leftover(10 if result is None else 0)
    if left and result is None:
        result = 'processes left behind: ' + ', '.join(left)
    return result, said


def run():
    """Runs the tests whose names contain the first argument, or all; exits."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    wanted = [t for t in _tests if len(sys.argv) < 2 or sys.argv[1] in t[0]]
    failed = 0
    print('1..%d' % len(wanted), flush=True)
    for number, (name, function, limit) in enumerate(wanted, 1):
        start = time.monotonic()
        result, said = _run_one(function, limit)
        took = time.monotonic() - start
        if isinstance(result, Skip):
            print('ok %d - %s # SKIP %s' % (number, name, result), flush=True)
        else:
            print('%s %d - %s' % ('not ok' if result else 'ok', number, name), flush=True)
            if result:
                diag(result, sys.stderr)  # which prove always shows
                diag(said, sys.stderr)
                failed += 1
        if took > 5:
            diag('took %.1f s' % took)
    for function in _at_end:
        function()
    sys.exit(1 if failed else 0)
