# ISC licence: see COPYING.
"""Finding the processes of a test, and waiting for what becomes of them."""

import os
import time

from chain import is_unconfined
from proc import (SIGNER, comm_of, cpu_ticks, find_processes, is_alive, private_memory, state_of,
                  status_of)
from tap import SLOW, is_true, wait_for


def engines():
    """The pids of the processes below this test that serve a session."""
    if os.environ.get('TEST_RESIDENT'):  # where a session has another name than the rest
        return [p for p in find_processes('tls-engined') if comm_of(p) == 'tls-engine']
    return find_processes('tls-engine')


def wait_engine(n=1):
    """Waits until n engines run; their pids."""
    return wait_for(lambda: (lambda e: e if len(e) == n else None)(engines()), '%d engines' % n)


def confined_engine():
    """The pid of the engine, once it has given up what it does not need: it is about to read the
    network."""
    def ready():
        return [pid for pid in engines() if status_of(pid)['NoNewPrivs'] == '1'
                and (status_of(pid)['Seccomp'] == '2' or is_unconfined())
                and comm_of(pid) != SIGNER]  # which has the engine's name for a moment
    return wait_for(ready, 'an engine that is ready to read the network')[0]


def wait_process(name):
    """Waits until a process of that name runs; its pid."""
    return wait_for(lambda: find_processes(name), name)[0]


def wait_asleep(pid):
    """Waits until a process waits for something."""
    wait_for(lambda: state_of(pid) == 'S', 'process %d to sleep' % pid)


def wait_dead(*pids):
    """Waits until these have ended, reaped or not."""
    wait_for(lambda: not any(map(is_alive, pids)), 'the end of %r' % (pids,))


def orphan_exit_code(pid):
    """Waits for a process whose parent is gone, so that it is ours; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_idle(*pids, may_end=False):
    """As soon as nothing happens any more the processes use no CPU time."""
    def ticks():
        used = {}
        for pid in pids:
            try:
                used[pid] = cpu_ticks(pid)
            except (FileNotFoundError, ProcessLookupError):
                is_true(may_end, 'process %d is there' % pid)
        return used

    def quiet():
        before = ticks()
        time.sleep(0.25)  # there is no event to wait for
        return sum(now - before[pid] for pid, now in ticks().items()) <= 2
    wait_for(quiet, 'no more CPU time used')


def is_flat(pid, before):
    """The process is idle, and has not got more memory than it had, but for its four buffers,
    which are of a quarter of a MiB each, and a MiB."""
    is_idle(pid)
    now = private_memory(pid)
    if not os.environ.get('TEST_SANITIZE'):  # which keeps what is freed
        is_true(now < before + (2 * SLOW << 20), 'memory grew from %d to %d' % (before, now))
