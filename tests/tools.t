#!/usr/bin/env python3
# ISC licence: see COPYING.
# tools/packages, tools/check, tools/bare-root and .ci/run: what they do, and what they say to bad
# input. Packages of the tests' own are installed, into a copy of the system; a root is made of a
# few programs of this one.

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, need
from scratch import temp_dir
from tap import Skip, is_equal, is_true, run, test, wait_for
from tree import clone, private_system, repository, sh

NOBODY = 65534
ENV = {'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin', 'HOME': '/nonexistent'}
PACKAGES = TOP + '/tools/packages'


def tool(*argv, env=(), **kw):
    """Runs a tool; its exit code, what it writes to standard output and to standard error."""
    p = subprocess.run(argv, env={**ENV, **dict(env)}, text=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    return p.returncode, p.stdout, p.stderr


def refuses(code, says, *argv, **kw):
    """The tool exits with code, and says one line on standard error that begins so."""
    got, out, err = tool(*argv, **kw)
    is_equal((got, out, err.count('\n')), (code, '', 1), '%r, which says %s' % (argv[1:], err))
    name = os.path.relpath(argv[0], os.path.dirname(os.path.dirname(argv[0])))
    is_true(err.startswith('%s: fatal: %s' % (name, says)), err)


# tools/packages

UNIT = '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n'
INIT = '''#!/bin/sh
### BEGIN INIT INFO
# Provides: %s
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
# Short-Description: test
### END INIT INFO
'''
# As Debian's, but that invoke-rc.d may ask for a runlevel before it asks the policy.
POSTINST = '''#!/bin/sh -e
deb-systemd-helper enable %s.service %s-unit.service
update-rc.d %s defaults
[ -x /usr/sbin/policy-rc.d ] && code=0 || code=104
[ $code != 0 ] || /usr/sbin/policy-rc.d %s start || code=$?
[ $code = 101 ] || touch /var/started-%s
'''


def make_deb(repo, name, fields='', postinst=None):
    """A package in repo: with a daemon that its postinst enables and starts, like Debian's."""
    d = temp_dir()
    for path, mode, text in (
        ('DEBIAN/control', 0o644, 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: tests '
                                  '<tests@example.org>\nDescription: test\n%s' % (name, fields)),
        ('DEBIAN/postinst', 0o755, postinst or POSTINST % ((name,) * 5)),
        ('lib/systemd/system/%s.service' % name, 0o644, UNIT),
        ('lib/systemd/system/%s-unit.service' % name, 0o644, UNIT),  # without an init script
        ('etc/init.d/' + name, 0o755, INIT % name),
    ):
        os.makedirs(os.path.dirname('%s/%s' % (d, path)), exist_ok=True)
        with open('%s/%s' % (d, path), 'w') as f:
            f.write(text)
        os.chmod(f.name, mode)
    sh('/', 'dpkg-deb', '--root-owner-group', '-b', d, '%s/%s_1_all.deb' % (repo, name))


def starts_at_boot(name):
    """The links by which the service starts with the system."""
    return (glob.glob('/etc/systemd/system/*/%s*.service' % name)
            + glob.glob('/etc/rc?.d/S*' + name))


class DebianSystem:
    """In a private system: apt's only source is a repository of four packages, without lists; one
    of these, tc-old, is installed and enabled."""
    def __enter__(self):
        need('apt-get', 'dpkg-deb', 'update-rc.d',
             'deb-systemd-helper')
        repo = temp_dir()
        make_deb(repo, 'tc-old')
        make_deb(repo, 'tc-new')
        make_deb(repo, 'tc-other', 'Conflicts: tc-old\n')
        make_deb(repo, 'tc-broken', postinst='#!/bin/sh\necho does not work\nexit 1\n')
        with open(repo + '/Packages', 'w') as f:
            for deb in sorted(glob.glob(repo + '/*.deb')):
                f.write(sh('/', 'dpkg-deb', '-f', deb) + 'Filename: ./%s\nSize: %d\nSHA256: %s\n\n'
                        % (os.path.basename(deb), os.path.getsize(deb),
                           sh('/', 'sha256sum', deb).split()[0]))
        self.system = private_system()
        self.system.__enter__()
        for path in ['/etc/apt/sources.list', *glob.glob('/etc/apt/sources.list.d/*')]:
            if os.path.exists(path):
                os.unlink(path)
        with open('/etc/apt/sources.list', 'w') as f:
            f.write('deb [trusted=yes] file:%s ./\n' % repo)
        shutil.rmtree('/var/lib/apt/lists')
        self.repo = repo
        sh('/', 'dpkg', '-i', repo + '/tc-old_1_all.deb')
        return self

    def __exit__(self, *what):
        return self.system.__exit__(*what)


def has(name):
    return tool('dpkg-query', '-W', '-f', '${db:Status-Status}', name)[1] == 'installed'


@test('packages: bad input gets one line, exit code 100')
def _():
    refuses(100, 'usage: tools/packages', PACKAGES)
    for name in '', '-y', 'Gcc', 'a b', '|', 'a|', '|a', 'a||b', 'a/b', 'a;b':
        refuses(100, 'not the name of a Debian package: ' + name, PACKAGES, 'dpkg', name)


@test('packages: what is there, or has an alternative there, costs nothing, also a user')
def _():
    need('dpkg-query', 'apt-get')
    user = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []} if os.getuid() == 0 else {}
    is_equal(tool(PACKAGES, 'dpkg', 'tc-none|dpkg', 'dpkg|tc-none', **user), (0, '', ''))


@test('packages: lists are fetched, what apt has is installed, what it has not is said', limit=120)
def _():
    with DebianSystem():
        code, out, err = tool(PACKAGES, 'dpkg', 'tc-none', 'tc-no|tc-new|tc-broken', 'tc-a|tc-b')
        is_equal((code, err), (0, ''), 'said:\n' + err)
        lines = out.splitlines()
        is_equal(lines[0], 'not in this Debian: tc-none tc-a|tc-b')
        is_true(re.fullmatch(r'installing 1 packages?: \d+ MB to download, \d+ MB on disk, '
                             r'about \d+ (seconds|minutes?)', lines[1]), lines[1])
        is_equal((len(lines), has('tc-new'), has('tc-broken')), (2, True, False))
        is_equal(tool(PACKAGES, 'tc-none', 'tc-new'),
                 (0, 'not in this Debian: tc-none\n', ''), 'the second time')


@test('packages: a new daemon is neither started nor enabled; one that was there still is',
      limit=120)
def _():
    with DebianSystem() as system:
        if not starts_at_boot('tc-old'):
            raise Skip('a package enables no service here')
        for path in glob.glob('/usr/sbin/policy-rc.d') + glob.glob('/var/started-*'):
            os.unlink(path)
        before = starts_at_boot('tc-old')
        is_equal(tool(PACKAGES, 'tc-old', 'tc-new')[0], 0, 'exit code')
        is_true(has('tc-new'), 'tc-new is installed')
        is_equal((starts_at_boot('tc-new'), glob.glob('/var/started-*')), ([], []), 'enabled')
        is_equal(starts_at_boot('tc-old'), before, 'links of tc-old')
        is_equal(os.path.exists('/usr/sbin/policy-rc.d'), False, 'policy-rc.d')
        # nor by an upgrade
        sh('/', 'dpkg', '-i', system.repo + '/tc-new_1_all.deb')
        is_equal(glob.glob('/etc/systemd/system/*/tc-new*.service'), [], 'enabled by an upgrade')


@test('packages: what would remove a package is left out, the rest is installed', limit=120)
def _():
    with DebianSystem():
        code, out, err = tool(PACKAGES, 'tc-other', 'tc-new')
        is_equal((code, err), (0, ''), 'said:\n' + err)
        is_true('would have to remove' in out and 'tc-other\n' in out, out)
        is_equal((has('tc-old'), has('tc-new'), has('tc-other')), (True, True, False))


@test("packages: if apt-get fails, what it said is shown, and nothing is left in TMPDIR",
      limit=120)
def _():
    with DebianSystem():
        d = temp_dir()
        code, out, err = tool(PACKAGES, 'tc-broken', env={'TMPDIR': d})
        is_equal(code, 111, 'exit code')
        is_true('does not work' in err, err)
        is_equal(err.splitlines()[-1], 'tools/packages: fatal: apt-get cannot install them')
        is_equal(os.listdir(d), [], 'left')
    with DebianSystem() as system:
        os.unlink(system.repo + '/Packages')
        code, out, err = tool(PACKAGES, 'tc-new')
        is_equal((code, out), (111, ''))
        is_equal(err.splitlines()[-1], 'tools/packages: fatal: apt-get update failed')


@test('packages: one line to a user if something is missing', limit=120)
def _():
    with DebianSystem():
        user = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []}
        refuses(111, 'only root can install what is missing: tc-new', PACKAGES, 'tc-new', **user)
        sh('/', 'apt-get', 'update')
        refuses(111, 'only root can install what is missing: tc-new', PACKAGES, 'tc-new', **user)
        is_equal(tool(PACKAGES, 'tc-none', **user), (0, 'not in this Debian: tc-none\n', ''))


# tools/check

@test('check: bad input gets one line, exit code 100, before anything is done')
def _():
    check = TOP + '/tools/check'
    refuses(100, '--configure needs its options', check, '--configure')
    refuses(100, '--asan or --valgrind, not both', check, '--asan', '--valgrind')
    refuses(100, 'usage: tools/check ', check, '--nonsense')
    for name in 'nonsense', 'tests/nonsense.t', '', 'lib/tap', '../tests/tools':
        refuses(100, 'no such test: ' + name, check, 'tools', name)


# tools/bare-root

STUB = '''#!/bin/sh -e
# stands for debootstrap: makes a root with some programs of this system
echo "$@" > "$STUB_LOG"
for root ; do case $root in /*/root) break ;; esac ; done
mkdir -p "$root/etc/apt/apt.conf.d" "$root/usr/bin" "$root/usr/src" "$root/dev" "$root/proc"
ln -s usr/bin "$root/bin"
for name in sh env sleep cat ; do
  path=$(command -v $name)
  cp -L "$path" "$root/usr/bin/$name"
  ldd "$path" | grep -o '/[^ ]*' | while read -r lib ; do
    mkdir -p "$root${lib%/*}"
    cp -L "$lib" "$root$lib"
  done
done
[ -z "$STUB_HANGS" ] || { echo hangs >> "$STUB_LOG" ; sleep 1000 ; }
'''


class BareRoot:
    """A clone with tools/bare-root, a mirror that has the release foo, a stub of debootstrap."""
    def __init__(self):
        if os.getuid():
            raise Skip('not root')
        need('apt-get', 'git', 'unshare', 'setpriv', 'ldd', 'dpkg')
        if tool('unshare', '--mount', '--pid', '--fork', 'true')[0]:
            raise Skip('no namespaces')
        self.clone = clone(repository())
        self.argv = [self.clone + '/tools/bare-root']
        d = temp_dir()
        os.makedirs(d + '/mirror/dists/foo')
        with open(d + '/mirror/dists/foo/InRelease', 'w') as f:
            f.write('Label: tests\nCodename: foo\n')
        with open(d + '/debootstrap', 'w') as f:
            f.write(STUB)
        os.chmod(f.name, 0o755)
        self.mirror = 'file://%s/mirror' % d
        self.log = d + '/log'
        self.tmp = temp_dir()
        self.env = {**ENV, 'PATH': d + ':' + ENV['PATH'], 'TMPDIR': self.tmp, 'STUB_LOG': self.log}

    def run(self, *command, **kw):
        return tool(*self.argv, '-m', self.mirror, 'foo', *command, env=self.env, **kw)

    def start(self, *command, **env):
        def as_at_login():  # not as nohup, or a shell in the background, has set them
            for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
        return subprocess.Popen([*self.argv, '-m', self.mirror, 'foo', *command],
                                env={**self.env, **env}, text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                preexec_fn=as_at_login)


@test('bare-root: bad input gets one line, and leaves nothing')
def _():
    b = BareRoot()
    script = b.argv[0]

    def refuse(code, says, *args, **kw):
        refuses(code, says, script, *args, env=b.env, **kw)
        is_equal(os.listdir(b.tmp), [], 'left')
    for args in (), ('foo',), ('-x', 'foo', 'true'), ('-a',), ('-m', b.mirror, 'foo'):
        refuse(100, 'usage: tools/bare-root ', *args)
    for name in '', '../foo', 'Foo', 'foo bar', '1':
        refuse(100, 'not the name of a release: ' + name, name, 'true')
    refuse(100, 'not the name of an architecture: a b', '-a', 'a b', 'foo', 'true')
    refuse(111, 'the kernel runs no nonsense: apt-get install qemu-user-static', '-a', 'nonsense',
           'foo', 'true')
    for url in 'nonsense', '/nonsense', 'http://a b/':
        refuse(100, 'not the URL of a mirror: ' + url, '-m', url, 'foo', 'true')
    refuse(100, 'no release bar at %s: Failed to fetch ' % b.mirror, '-m', b.mirror, 'bar', 'true')
    refuse(111, 'only root can make a root', 'foo', 'true', user=NOBODY, group=NOBODY,
           extra_groups=[])
    open(b.clone + '/new', 'w').close()
    refuse(100, 'not all is committed', '-m', b.mirror, 'foo', 'true')


@test('bare-root: without debootstrap it says how to have it')
def _():
    b = BareRoot()
    d = temp_dir()
    for name in ('sh', 'dirname', 'id', 'apt-get', 'git'):
        os.symlink(shutil.which(name), d + '/' + name)
    script = b.clone + '/tools/bare-root'
    with open(script) as f:
        text = f.read()
    with open(script, 'w') as f:
        f.write(text.replace('PATH=$PATH:/usr/sbin:/sbin\n', ''))
    refuses(111, 'debootstrap is missing: apt-get install debootstrap', script, 'foo', 'true',
            env={'PATH': d})


@test('bare-root: the command runs in a clone, with its input, output and exit code')
def _():
    b = BareRoot()
    with open(b.clone + '/.git/HEAD') as f:
        head = f.read()
    p = b.start('sh', '-c', 'cat; pwd; cat .git/HEAD tools/bare-root; echo "$A $HOME $0"; exit 3',
                'a  b', A='1')
    out = p.communicate('input\n')[0]
    with open(b.argv[0]) as f:
        is_equal(out, 'input\n/usr/src/tls-chain\n%s%s /root a  b\n' % (head, f.read()))
    is_equal((p.returncode, os.listdir(b.tmp)), (3, []), 'exit code, what is left')
    with open(b.log) as f:
        is_true(re.match(r'--variant=minbase --arch=\S+ foo /\S+ file:', f.read()), 'debootstrap')
    is_equal(b.run('sh', '-c', 'kill -TERM $$')[0], 143, 'of a signal')
    is_equal(b.run('nonsense')[0], 127, 'of no command')


@test('bare-root: the root has its own /proc and /dev, and nothing of that is mounted outside')
def _():
    b = BareRoot()
    p = b.start('sh', '-c', 'echo /proc/[0-9]*; echo x > /dev/null; for f in tty pts/ptmx shm fd/0 '
                'random; do [ -e /dev/$f ] && echo $f; done; cat')
    is_true(1 <= len(p.stdout.readline().split()) <= 4, 'processes')
    is_equal([p.stdout.readline() for _ in range(5)],
             ['tty\n', 'pts/ptmx\n', 'shm\n', 'fd/0\n', 'random\n'])
    with open('/proc/self/mountinfo') as f:
        is_true(b.tmp not in f.read(), 'no mount is seen outside')
    p.communicate()
    is_equal((p.returncode, os.listdir(b.tmp)), (0, []))


def processes_with(text):
    found = []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            with open(path) as f:
                found += [path] * (text in f.read())
        except OSError:
            pass
    return found


@test('bare-root: a signal ends all that is in the root, and removes it')
def _():
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL:
        b = BareRoot()
        mark = '1000.%d%d' % (os.getpid(), number)
        p = b.start('sh', '-c', "trap '' TERM INT HUP; (sleep %s & ); echo up; sleep %s; echo never"
                    % (mark, mark))
        is_equal(p.stdout.readline(), 'up\n')
        wait_for(lambda: len(processes_with('sleep\0' + mark)) == 2, 'both')
        p.send_signal(number)
        is_equal(p.communicate()[0], '', 'more output')
        if number == signal.SIGKILL:
            wait_for(lambda: not processes_with(mark), 'the end of the processes')
        else:
            is_equal((p.returncode, os.listdir(b.tmp)), (128 + number, []), number)
        is_equal(processes_with(mark), [], 'processes')


@test('bare-root: a signal while the root is made')
def _():
    b = BareRoot()
    p = b.start('true', STUB_HANGS='1')
    wait_for(lambda: os.path.exists(b.log) and 'hangs' in open(b.log).read(), 'the stub')
    p.send_signal(signal.SIGTERM)
    p.communicate()
    is_equal((p.returncode, os.listdir(b.tmp)), (143, []))


run()
