# ISC licence: see COPYING.
"""What is left of root in a process, and what it has given up."""

import os

from chain import BIN, is_unconfined
from proc import limit_of, status_of
from tap import Skip, is_equal, test


def as_root(name, **more):
    """A test that needs to be root; more, as for test."""
    def add(function):
        @test(name, **more)
        def _():
            if os.getuid():
                raise Skip('not root')
            function()
    return add


def has_no_capability(pid):
    status = status_of(pid)
    for name in 'CapInh', 'CapPrm', 'CapEff', 'CapAmb':
        is_equal(int(status[name], 16), 0, name)


def is_not_dumpable(pid):
    is_equal(limit_of(pid, 'Max core file size'), ['0', '0'], 'limit of core files')
    is_equal(os.stat('/proc/%d/environ' % pid).st_uid, 0, 'owner, which is root if not dumpable')


def is_confined(pid, forks=False, rooted=True):
    """It has given up what tls-chain-security(7) says; forks: but not to start processes; rooted:
    it could be given an empty root."""
    status = status_of(pid)
    is_equal(status['NoNewPrivs'], '1', 'no new privileges')
    is_equal(limit_of(pid, 'Max processes')[1] == '0', not forks, 'no processes')
    has_no_capability(pid)
    if not is_unconfined():
        is_equal(status['Seccomp'], '2', 'a filter of system calls')
        is_equal(has_empty_root(pid), rooted, 'an empty directory for a root')
    is_not_dumpable(pid)
    is_equal(os.stat('/proc/%d/cwd/.' % pid).st_ino, os.stat('/proc/%d/root/.' % pid).st_ino,
             'working directory')


def has_empty_root(pid):
    """Whether its root is the empty directory, which only root can look at."""
    return os.path.samefile('/proc/%d/root/.' % pid, BIN + '/empty')


def has_nothing_of_root(pid, uid, gid):
    """It is that user and group, and nothing else."""
    status = status_of(pid)
    is_equal(status['Uid'].split(), [str(uid)] * 4, 'real, effective, saved, fs uid')
    is_equal(status['Gid'].split(), [str(gid)] * 4, 'real, effective, saved, fs gid')
    is_equal(status['Groups'].split(), [], 'supplementary groups')
    has_no_capability(pid)


def all_can_run(path):
    """Whether a user who is not root can run this program."""
    path = os.path.realpath(path)
    while os.stat(path).st_mode & 1:
        if path == '/':
            return True
        path = os.path.dirname(path)
    return False
