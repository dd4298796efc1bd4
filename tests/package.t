#!/usr/bin/env python3
# ISC licence: see COPYING.
# What is handed out: the tarball of make dist, the Debian package, the recipe for Alpine.

import glob
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, need
from pages import shown
from scratch import temp_dir
from tap import Skip, is_equal, is_true, run, test
from tree import GIT, MTIME, clone, info, private_system, repository, sh, targets

NOBODY = 65534


NAME = 'tls-chain-' + info('version')


EMPTY = '/usr/libexec/tls-chain/empty'


def all_targets():
    """The programs that are installed for users, and tls-engine."""
    return {name for kind in ('BIN_TARGETS', 'ENGINE_TARGETS', 'LIBEXEC_TARGETS', 'COMMANDS')
            for name in targets(kind)}


def installed(name):
    """Where a program of the packages is."""
    return ('/usr/libexec/tls-chain/' if name == 'tls-engine' else '/usr/bin/') + name


def parts():
    """Where that is which the commands share."""
    return {'/usr/libexec/tls-chain/' + name for name in targets('PARTS')}


def library(libdir):
    """Where the files for programs in C are."""
    return {'/usr/include/tlsctl.h', libdir + '/libtlsctl.a', libdir + '/pkgconfig/tlsctl.pc'}


def builds_programs():
    if os.environ.get('TEST_VALGRIND') or os.environ.get('TEST_SANITIZE'):
        raise Skip('builds programs of its own')


# The tarball

def dist(d, env=(), **kw):
    """Runs make dist there; the bytes of the tarball."""
    sh(d, 'make', '-s', 'dist', env={**GIT, **dict(env)}, **kw)
    with open('%s/%s.tar.gz' % (d, NAME), 'rb') as f:
        return f.read()


def tarball(repo):
    """Unpacks the tarball of a clone; its directory and its members."""
    d = clone(repo)
    dist(d)
    with tarfile.open('%s/%s.tar.gz' % (d, NAME)) as tar:
        members = tar.getmembers()
    to = temp_dir()
    sh(to, 'tar', '-xf', '%s/%s.tar.gz' % (d, NAME))
    return to + '/' + NAME, members


@test('make dist: the same bytes twice, also of another clone, user, time, umask, time zone')
def _():
    repo = repository()
    d = clone(repo)
    first = dist(d)
    is_true(len(first) > 10000, 'a tarball')
    is_equal(first[3:8], bytes(5), 'flags and time in the header of gzip')
    is_true(dist(d) == first, 'the same bytes the second time')
    other = clone(repo, preexec_fn=lambda: os.umask(0o077))
    user = {}
    if os.getuid() == 0:
        sh(other, 'chown', '-R', str(NOBODY), '.')
        os.chmod(os.path.dirname(other), 0o777)
        user = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []}
    for base, subdirs, names in os.walk(other):
        for path in (os.path.join(base, name) for name in subdirs + names):
            os.utime(path, (1, 1), follow_symlinks=False)
    again = dist(other, env={'TZ': 'Asia/Tokyo', 'GZIP': '-1'}, umask=0o077, **user)
    is_true(again == first, 'the same bytes of the other clone')


@test('the tarball: what git tracks and nothing else, names in order, one time, owner root')
def _():
    repo = repository()
    tracked = sh(repo, 'git', 'ls-files', env=GIT).splitlines()
    members = tarball(repo)[1]
    names = [m.name for m in members]
    is_equal({m.name for m in members if not m.isdir()}, {NAME + '/' + t for t in tracked}, 'files')
    is_equal([n for n in names if re.search(r'\.(o|a|deb|pyc|gz)$|/config\.mak$', n)], [], 'built')
    is_equal([n for n in names if n.split('/', 1)[-1] in all_targets()], [], 'built')
    plain = [m.name + '/' * m.isdir() for m in members]
    is_equal(plain, sorted(plain), 'order')
    is_equal({(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members},
             {(MTIME, 0, 0, 'root', 'root')}, 'time and owner')
    is_equal({oct(m.mode) for m in members if m.isfile()}, {'0o644', '0o755'}, 'modes')


@test('make dist says that it needs a clone, and that all is to be committed')
def _():
    repo = repository()
    d = tarball(repo)[0]
    said = sh(d, 'make', 'dist', fails=True)
    is_true('tools/dist: fatal: this is no clone' in said, said)
    d = clone(repo)
    open(d + '/src/new.c', 'w').close()
    said = sh(d, 'make', 'dist', env=GIT, fails=True)
    is_true('tools/dist: fatal: not all is committed' in said, said)
    is_equal(glob.glob(d + '/*.tar*'), [], 'tarballs')


# The package

_built = None


def build():
    """Builds the package, in a directory that stays until the last test; that directory."""
    global _built
    builds_programs()
    need('dpkg-buildpackage', 'dh', 'dpkg-checkbuilddeps')
    if not _built:
        d = tarball(repository())[0]
        p = subprocess.run(['dpkg-checkbuilddeps'], cwd=d, stderr=subprocess.PIPE, text=True)
        if p.returncode:
            raise Skip(p.stderr.strip())
        log = sh(d, *shown('INSTALL', 'dpkg-buildpackage').split())
        is_true(re.search(r'^All tests successful', log, re.M), 'tests of the build:\n' + log)
        # dpkg's own tell what else it would like to be installed
        is_equal(re.findall(r'^(?!dpkg-).*warning.*$', log, re.M), [], 'warnings')
        keep = tempfile.TemporaryDirectory(prefix='tls-chain-test.')
        os.chmod(keep.name, 0o755)
        for path in glob.glob(os.path.dirname(d) + '/*.*'):
            shutil.move(path, keep.name)
        _built = keep
    return _built.name


def deb(name='tls-chain'):
    return glob.glob('%s/%s_*.deb' % (build(), name))[0]


@test('dpkg-buildpackage builds the package, with tests, and without a warning', limit=300)
def _():
    is_equal(sh('/', 'dpkg', '-f', deb(), 'Version'), info('version') + '\n', 'version')


@test('lintian finds no error', limit=120)
def _():
    need('lintian')
    # It leaves files in TMPDIR.
    said = sh('/', 'lintian', '--allow-root', '--fail-on', 'none',
              *glob.glob(build() + '/*.changes'), env={'TMPDIR': temp_dir()})
    is_equal(re.findall(r'^E:.*$', said, re.M), [], 'errors')


def new_files(d):
    """The files below d, one of private_system's directories: not those that tell of a removal,
    and not the links that runit makes for its own services whenever dpkg has done something."""
    return [path for base, subdirs, names in os.walk(d)
            for path in (os.path.join(base, name) for name in subdirs + names)
            if not re.match(r'(/runit|/sv)/', path[len(d):])
            if os.path.islink(path) or os.path.isfile(path)
            or os.path.isdir(path) and 'tls-chain' in path[len(d):]]


@test('the package: installed, used, its pages found; removed and purged, nothing is left',
      limit=300)
def _():
    path = deb()
    need('dpkg', 'man', 'mount')
    if subprocess.run(['dpkg', '-s', 'tls-chain'], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode == 0:
        raise Skip('tls-chain is installed already')
    with private_system() as changes:
        sh('/', 'dpkg', '--path-include=*', '-i', path, deb('libtlsctl-dev'))
        files = sh('/', 'dpkg', '-L', 'tls-chain').splitlines()
        is_equal({f for f in files if re.match(r'/usr/(bin|libexec/tls-chain)/', f)
                  and (f == EMPTY or not os.path.isdir(f))},
                 {EMPTY, *map(installed, all_targets()), *parts()}, 'programs')
        is_equal(stat.S_IMODE(os.stat(EMPTY).st_mode), 0o555, 'mode of the empty directory')
        is_true(len(new_files(changes + '/usr')) > len(all_targets()), 'files are seen as new')
        for page in glob.glob(TOP + '/doc/man/*'):
            name, section = os.path.basename(page).split('.')
            is_equal(sh('/', 'man', '-w', section, name),
                     '/usr/share/man/man%s/%s.%s.gz\n' % (section, name, section), 'page')
        is_equal(sh('/', TOP + '/debian/tests/session').splitlines(),
                 ['STARTTLS: you said hello with TLSv1.3',
                  'TLS at once: you said hello with TLSv1.3'], 'sessions')
        is_equal({f for f in sh('/', 'dpkg', '-L', 'libtlsctl-dev').splitlines()
                  if re.search(r'tlsctl\.(h|a|pc)$', f)},
                 library('/usr/lib/' + sh('/', 'gcc', '-print-multiarch').strip()), 'the library')
        sh('/', 'dpkg', '-r', 'tls-chain', 'libtlsctl-dev')
        sh('/', 'dpkg', '-P', 'tls-chain', 'libtlsctl-dev')
        sh('/', 'dpkg', '-s', 'tls-chain', fails=True)
        is_equal(new_files(changes + '/usr') + new_files(changes + '/etc'), [], 'left')
        is_equal([f for f in new_files(changes + '/var') if 'tls-' in f[len(changes):]], [], 'left')


# What the recipes say of the version, the programs, the home page

def read(path):
    with open('%s/%s' % (TOP, path)) as f:
        return f.read()


def field(path, pattern):
    return re.findall(pattern, read(path), re.M)


@test('debian/changelog and NEWS begin with the version of package/info')
def _():
    is_equal(field('debian/changelog', r'^tls-chain \((.*?)\)')[0], info('version'), 'changelog')
    is_equal(field('NEWS', r'^(\d[\d.]*)')[0], info('version'), 'NEWS')


def packages(begin):
    """Those that a line of INSTALL installs."""
    return set(re.sub('#.*', '', shown('INSTALL', begin)).replace('\\\n', '').split()[2:])


@test('INSTALL: the packages to build, to use and to test with are those of the recipes')
def _():
    checked = re.search(r'^tools/packages ((?:.*\\\n)*.*)$', read('tools/check'), re.M)[1].split()
    for begin in ('apt-get install gcc make', 'apt-get install ucspi-tcp openssl',
                  'apt-get install libcmocka-dev perl'):
        is_equal(packages(begin) - set(checked), set(), begin)
    wanted = re.search(r'^Build-Depends:\n((?: .*\n)+)', read('debian/control'), re.M)[1]
    wanted = {re.match(r' ([a-z0-9-]+)', line)[1] for line in wanted.splitlines()}
    is_equal(packages('apt-get install build-essential debhelper'),
             {name.removesuffix('-compat') for name in wanted} | {'build-essential'})
    is_true('tls-chain_%s_' % info('version') in read('INSTALL'), 'version')


@test('APKBUILD: sh can read it; version, home page and programs are those of the tree')
def _():
    apkbuild = 'package/alpine/APKBUILD'
    sh(TOP, 'sh', '-n', apkbuild)
    show = '. ./%s; echo "$pkgname $pkgver $url"; echo $_programs' % apkbuild
    first, programs = sh(TOP, 'sh', '-c', show).splitlines()
    is_equal(first, 'tls-chain %s %s' % (info('version'), info('homepage')), 'name, version, url')
    is_equal(set(programs.split()), set(map(installed, all_targets())), 'programs')


@test("the tarball: configured, built and installed as APKBUILD has it, with what is here",
      limit=300)
def _():
    builds_programs()
    d, root = tarball(repository())[0], temp_dir()
    if subprocess.run(['./configure'], cwd=d, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode:
        raise Skip('the libraries are not where the compiler looks')
    sh(d, 'sh', '-ec', '. package/alpine/APKBUILD; build; package', env={'pkgdir': root})
    names = [os.path.join(base, name)[len(root):] for base, _, names in os.walk(root)
             for name in names]
    is_equal({n for n in names if not n.startswith('/usr/share/')},
             {*map(installed, all_targets()), *parts(), *library('/usr/lib')}, 'installed')
    links_with_library(root)


def links_with_library(root):
    """A program in C finds the library that is installed below root by pkg-config."""
    need('pkg-config')
    with open(root + '/smtpd.c', 'w') as f:
        f.write('#include <tlsctl.h>\nint main(void) { return tlsctl_offered(); }\n')
    env = {'PKG_CONFIG_PATH': root + '/usr/lib/pkgconfig', 'PKG_CONFIG_SYSROOT_DIR': root}
    is_equal(sh(root, 'pkg-config', '--modversion', 'tlsctl', env=env), info('version') + '\n')
    sh(root, 'sh', '-ec', shown('tlsctl.3', 'cc -o smtpd smtpd.c') + './smtpd', env=env)
    sh(root + '/usr/share/doc/tls-chain/examples/c', 'sh', '-ec',
       shown('examples/README.md', 'cc -o smtpd smtpd.c'), env=env)


run()
