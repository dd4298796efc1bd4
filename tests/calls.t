#!/usr/bin/env python3
# ISC licence: see COPYING.
# The filter of system calls, tried call by call from within: src/tls/filter.c, tests/unit/calls.c.

import os
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, not_under_valgrind
from tap import Skip, is_equal, run, test

SIGNER, SESSION, WORKER = '0', '1', '2'
NOT_THERE = [
    'open', 'create', 'stat', 'unlink', 'socket', 'connect', 'bind', 'execve', 'ptrace',
    'process_vm_readv', 'kill', 'tgkill', 'setuid', 'chroot', 'fork', 'bpf', 'io_uring_setup',
    'mprotect to executable', 'mmap of executable', 'ioctl of a terminal',
    'fcntl for signals',
]
# What a worker needs for its sessions, and each of them loses.
WORKERS = {'kill', 'fork'}


def tried(stage):
    """{call: what became of it} under the filter of a stage."""
    p = subprocess.run([TOP + '/tests/unit/calls', stage], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    if 'this system has none' in p.stderr:
        raise Skip('no filter of system calls here')
    is_equal((p.returncode, p.stderr), (0, ''))
    lines = [line.rpartition(' is ' if line.endswith('is not there') else ' ')
             for line in p.stdout.splitlines()]
    return {name: what for name, _, what in lines}


for stage, name in (SIGNER, 'a signer'), (SESSION, 'a session, or an engine'), (WORKER, 'a worker'):
    @test('the filter of %s: calls that it has no use for are not there, bytes can be moved' % name)
    def _(stage=stage):
        not_under_valgrind('has its own way with system calls')
        got = tried(stage)
        more = WORKERS if stage == WORKER else set()
        is_equal({call for call in NOT_THERE if got.get(call) != 'not there'}, more)
        is_equal((got['send'], got['recv']), ('works', 'works'))


run()
