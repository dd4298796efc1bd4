# ISC licence: see COPYING.
"""Clones of this tree, commands in a clean environment, a copy of the system to change."""

import contextlib
import ctypes
import os
import re
import subprocess
import tempfile

from chain import TOP, need
from scratch import temp_dir
from tap import Skip, is_equal

CLONE_NEWNS = 0x20000
MTIME = 1700000000
GIT = {'GIT_CONFIG_NOSYSTEM': '1', 'GIT_CONFIG_GLOBAL': '/dev/null',
       **{'GIT_%s_%s' % (who, what): value for who in ('AUTHOR', 'COMMITTER') for what, value in
          (('NAME', 'tests'), ('EMAIL', 'tests@example.org'), ('DATE', '%d +0300' % MTIME))}}


def sh(d, *argv, env=(), fails=False, **kw):
    """Runs a command in d, with a clean environment; what it writes."""
    clean = {'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin', 'LC_ALL': 'C',
             'HOME': '/nonexistent', 'TMPDIR': tempfile.gettempdir()}
    p = subprocess.run(argv, cwd=d, env={**clean, **dict(env)}, text=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       **kw)
    is_equal(p.returncode != 0, fails, 'failure of %r, which says:\n%s' % (argv, p.stdout[-5000:]))
    return p.stdout


def targets(name):
    """A list of package/targets.mak."""
    with open(TOP + '/package/targets.mak') as f:
        first, *more = re.findall(r'^%s *[:+]= *(.+)$' % name, f.read(), re.M)
    return ' '.join([first, *more]).split()


def info(name):
    """A value of package/info."""
    with open(TOP + '/package/info') as f:
        return re.search(r'^%s=(.*)$' % name, f.read(), re.M)[1]


def repository():
    """A new repository with all of this tree that is not ignored, in one commit; its path."""
    need('git', 'gzip')
    d = temp_dir() + '/repository'
    sh(TOP, 'git', 'init', '-q', d, env=GIT)
    git = ['git', '--git-dir=%s/.git' % d, '--work-tree=' + TOP]
    sh(TOP, *git, 'add', '-A', env=GIT)
    sh(TOP, *git, 'commit', '-q', '-m', 'all', env=GIT)
    return d


def clone(repo, **kw):
    d = temp_dir() + '/clone'
    sh('/', 'git', 'clone', '-q', repo, d, env=GIT, **kw)
    return d


@contextlib.contextmanager
def private_system():
    """For as long as this lasts, /etc, /usr and /var are a copy that only this process and its
    children see, and that is gone afterwards. What is changed in it is below the directory that
    this gives: etc, usr, var."""
    if os.getuid():
        raise Skip('not root')
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open('/proc/self/ns/mnt', os.O_RDONLY)
    root, here = os.open('/', os.O_RDONLY | os.O_DIRECTORY), os.getcwd()
    top = temp_dir()
    if libc.unshare(CLONE_NEWNS):
        os.close(outside)
        os.close(root)
        raise Skip('no mount namespace: ' + os.strerror(ctypes.get_errno()))

    def mount(*argv):
        p = subprocess.run(['mount', *argv], stderr=subprocess.PIPE, text=True)
        if p.returncode:
            raise Skip(p.stderr.strip())
    try:
        mount('--make-rprivate', '/')
        mount('-t', 'tmpfs', 'tls-chain-test', top)
        for d in 'etc', 'usr', 'var':
            upper, work = '%s/%s' % (top, d), '%s/%s.work' % (top, d)
            os.mkdir(upper)
            os.mkdir(work)
            mount('-t', 'overlay', '-o', 'lowerdir=/%s,upperdir=%s,workdir=%s' % (d, upper, work),
                  'tls-chain-test', '/' + d)
        yield top
    finally:
        is_equal(libc.setns(outside, CLONE_NEWNS), 0, 'setns')
        os.close(outside)
        os.fchdir(root)  # which setns has changed, in a chroot
        os.close(root)
        os.chroot('.')
        os.chdir(here)
