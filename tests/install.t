#!/usr/bin/env python3
# ISC licence: see COPYING.
# configure and make, in copies of the tree: install, uninstall, clean, static or not, warnings.

import fnmatch
import functools
import glob
import os
import re
import shutil
import stat
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, Chain, need, not_resident
from peer import Peer
from pki import server_env
from processes import wait_engine
from scratch import temp, temp_dir
from sessions import is_echoed
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, test
from tree import targets

NO_PATH_OF_OURS = '/usr/bin:/bin'


# Trees

def clone():
    """A copy of the tree as a clone has it, without what .gitignore names; its path."""
    with open(TOP + '/.gitignore') as f:
        ignored = ['.git', *(s.strip().rstrip('/') for s in f)]

    def ignore(directory, names):
        here = directory[len(TOP):]
        return [name for name in names for pattern in ignored
                if fnmatch.fnmatch('%s/%s' % (here, name) if '/' in pattern else name, pattern)]
    d = temp_dir() + '/tls-chain'
    shutil.copytree(TOP, d, symlinks=True, ignore=ignore)
    return d


def files(d):
    """All that is not a directory below d: a dictionary from its relative path to its path."""
    found = {}
    for base, _, names in os.walk(d):
        for path in (os.path.join(base, name) for name in names):
            found[os.path.relpath(path, d)] = path
    return found


def modes(d):
    return {name: stat.S_IMODE(os.stat(path).st_mode) for name, path in files(d).items()}


def contents(d):
    found = {}
    for name, path in files(d).items():
        with open(path, 'rb') as f:
            found[name] = f.read()
    return found


LIBRARY = ['include/tlsctl.h', 'lib/libtlsctl.a', 'lib/pkgconfig/tlsctl.pc']
PROGRAMS = targets('BIN_TARGETS')
RESIDENT = targets('ENGINE_TARGETS')
ENGINES = targets('LIBEXEC_TARGETS')
COMMANDS = targets('COMMANDS')
PARTS = targets('PARTS')


# Commands

def sh(d, *argv, fails=False, **kw):
    """Runs a command in d, with a clean environment; what it writes to stdout and stderr."""
    if os.environ.get('TEST_VALGRIND') or os.environ.get('TEST_SANITIZE'):
        raise Skip('builds programs of its own')
    p = subprocess.run(argv, cwd=d, env={'PATH': os.environ['PATH'], 'LC_ALL': 'C'}, text=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       **kw)
    is_equal(p.returncode != 0, fails, 'failure of %r, which says:\n%s%s' % (
        argv, p.stdout, p.stderr))
    return p.stdout, p.stderr


def configured(variable):
    """A value from the config.mak that the programs under test were built with."""
    with open(TOP + '/config.mak') as f:
        return re.search(r'^%s :=(.*)$' % variable, f.read(), re.M)[1].strip()


def compiler_finds(name):
    """Where the compiler finds a library by itself, or just the name."""
    return subprocess.run([*configured('CC').split(), '-print-file-name=' + name], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def same_libraries():
    """Options for configure, to use the compiler and the libraries of the programs under test."""
    dirs = []
    for word in ' '.join(map(configured, ['LIB_SKALIBS', 'LIB_EXECLINE', 'LIB_TLS'])).split():
        if word.startswith('-L'):
            dirs.append(word[2:])
        elif word.startswith('/') and compiler_finds(os.path.basename(word)) != word:
            dirs.append(os.path.dirname(word))
    dirs = list(dict.fromkeys(dirs))
    # Those under test may be static; what is built here looks for shared ones there, too.
    flags = [configured('LDFLAGS'), *('-Wl,-rpath,' + d for d in dirs)]
    return [*('%s=%s' % (v, configured(v)) for v in ('CC', 'CPPFLAGS')),
            'LDFLAGS=' + ' '.join(flags), *('--with-lib=' + d for d in dirs)]


def configure(d, *options, first=(), **kw):
    return sh(d, './configure', *first, *same_libraries(), *options, **kw)


def make(d, *argv, **kw):
    return sh(d, 'make', '-s', '-j', '2', *argv, **kw)


def has_interpreter(path):
    """Whether a program needs the dynamic linker: it is not static then."""
    return 'INTERP' in sh('/', 'readelf', '-lW', path)[0]


def serves(bindir, libexecdir):
    """A chain of installed programs works by absolute path, with the engine of libexecdir."""
    not_resident('is not what is looked for here')
    client, server = tcp_pair()
    c = Chain([bindir + '/tls-handshake', bindir + '/tls-io', 'cat'], server, env=server_env(),
              path=NO_PATH_OF_OURS)
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal([os.readlink('/proc/%d/exe' % pid) for pid in wait_engine()],
             [libexecdir + '/tls-engine'], 'the engine')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal((c.wait(), c.stderr()), (0, ''))


# make install

@test('make install: programs in bin, engine in libexec, and they work; make uninstall: all gone')
def _():
    d, prefix = clone(), temp_dir()
    configure(d, '--prefix=' + prefix)
    make(d)
    make(d, 'install')
    installed = modes(prefix)
    is_equal({name: mode for name, mode in installed.items() if not name.startswith('share/')},
             {**{'bin/' + name: 0o755 for name in PROGRAMS + RESIDENT + COMMANDS},
              **{'libexec/tls-chain/' + name: 0o755 for name in ENGINES + PARTS},
              **dict.fromkeys(['libexec/tls-chain/starttls/lib', *LIBRARY], 0o644)}, 'installed')
    serves(prefix + '/bin', prefix + '/libexec/tls-chain')
    make(d, 'uninstall')
    is_equal(list(files(prefix)), [], 'left')
    is_equal([base for base, _, _ in os.walk(prefix) if base.endswith('/tls-chain')], [],
             'directories of our own left')


@test('make uninstall leaves what others put into the same directories')
def _():
    d, prefix = clone(), temp_dir()
    names = ['bin', 'libexec', 'man', 'doc']
    configure(d, *('--%sdir=%s/%s' % (name, prefix, name) for name in names))
    make(d, 'install')
    for name in names:
        open('%s/%s/of-another' % (prefix, name), 'w').close()
    make(d, 'uninstall')
    is_equal(sorted(files(prefix)), sorted(name + '/of-another' for name in names), 'left')


@test('make install with DESTDIR: the same below it, and nothing else is touched')
def _():
    d, prefix, stage = clone(), temp_dir(), temp_dir()
    configure(d, '--prefix=' + prefix)
    make(d, 'install')
    make(d, 'install', 'DESTDIR=' + stage)
    is_equal(modes(stage + prefix), modes(prefix), 'installed below DESTDIR')
    is_equal(len(files(stage)), len(files(prefix)), 'number of files installed below DESTDIR')
    is_true(contents(stage + prefix) == contents(prefix), 'the same files')
    make(d, 'uninstall')
    is_equal(files(prefix), {}, 'left')
    is_true(files(stage), 'what is below DESTDIR')
    make(d, 'uninstall', 'DESTDIR=' + stage)
    is_equal(files(stage), {}, 'left below DESTDIR')


@test('make install: --bindir and --libexecdir; everybody may use it, also with umask 077')
def _():
    d, prefix = clone(), temp_dir()
    configure(d, '--prefix=/nonexistent', '--bindir=%s/a/b' % prefix, '--libexecdir=%s/e' % prefix,
              '--mandir=%s/m' % prefix, '--docdir=%s/d' % prefix, '--libdir=%s/l' % prefix,
              '--includedir=%s/i' % prefix)
    make(d, 'install', preexec_fn=lambda: os.umask(0o077))
    is_equal(sorted(name for name in files(prefix) if name[0] in 'aeil'),
             sorted(['a/b/' + name for name in PROGRAMS + RESIDENT + COMMANDS]
                    + ['e/' + name for name in ENGINES + PARTS]
                    + [name.replace('nclude', '').replace('lib/', 'l/') for name in LIBRARY]),
             'installed')
    for base, subdirs, names in os.walk(prefix):
        for path in (os.path.join(base, name) for name in subdirs + names):
            is_equal(os.stat(path).st_mode & 0o044, 0o044, 'mode of ' + path)
    serves(prefix + '/a/b', prefix + '/e')


def paths(top):
    """The paths of all files and links below it."""
    return sorted(os.path.relpath(os.path.join(d, name), top)
                  for d, _, names in os.walk(top) for name in names)


@test('make install: pages in --mandir, HTML pages and examples in --docdir')
def _():
    d, prefix = clone(), temp_dir()
    configure(d, '--prefix=' + prefix)
    make(d, 'install')
    pages = files(d + '/doc/man')
    is_true(pages, 'manual pages')
    is_equal({name: mode for name, mode in modes(prefix).items() if name.startswith('share/man/')},
             {'share/man/man%s/%s' % (page[-1], page): 0o644 for page in pages}, 'installed')
    for name, source in ('html', '/doc/html'), ('examples', '/examples'):
        is_equal(paths(prefix + '/share/doc/tls-chain/' + name), paths(d + source), name)


# make clean

@test('make clean leaves config.mak alone, make distclean leaves the tree as it was', limit=180)
def _():
    d = clone()
    fresh = contents(d)
    is_true('config.mak' not in fresh and not [name for name in fresh if name.endswith('.o')],
            'nothing built in the copy')
    configure(d)
    with_config = [*fresh, 'config.mak']
    is_equal(sorted(files(d)), sorted(with_config), 'after configure')
    make(d, 'check-programs')
    make(d, 'clean')
    is_equal(sorted(files(d)), sorted(with_config), 'after make clean')
    make(d, 'check-programs')
    make(d, 'distclean')
    is_equal(sorted(files(d)), sorted(fresh), 'after make distclean')
    is_true(contents(d) == fresh, 'the same files')
    make(d, 'distclean')
    is_equal(make(d, fails=True)[1].splitlines()[0], 'run ./configure first')


# Static or not

def need_static(*libraries):
    missing = [name for name in libraries if compiler_finds(name) == name]
    if missing:
        raise Skip('no ' + ', '.join(missing))


def defined_in(library):
    """The functions that a static library gives to others."""
    p = subprocess.run(['nm', '-gP', compiler_finds(library)], check=True, stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, text=True)
    return set(re.findall('^(\\w+) T ', p.stdout, re.M))


def builds(option, dynamic):
    """With this option, these programs need the dynamic linker; they work."""
    d, prefix = clone(), temp_dir()
    configure(d, '--prefix=' + prefix, *option)
    make(d, 'install')
    is_equal([name for name in PROGRAMS + RESIDENT + ENGINES
              if has_interpreter(d + '/' + name)], dynamic,
             'programs that are not static')
    serves(prefix + '/bin', prefix + '/libexec/tls-chain')


@test('by default the chainloaders are static, the engine is not')
def _():
    need_static('libc.a')
    builds([], dynamic=RESIDENT + ENGINES)


@test('--enable-static: all are static')
def _():
    need_static('libc.a', 'libtls.a', 'libssl.a', 'libcrypto.a')
    both = defined_in('libtls.a') & defined_in('libssl.a')
    if both:
        raise Skip('libtls.a and libssl.a both define ' + ', '.join(sorted(both)))
    builds(['--enable-static'], dynamic=[])


@test('--disable-static: none is static')
def _():
    builds(['--disable-static'], dynamic=PROGRAMS + RESIDENT + ENGINES)


# configure

@test('configure --help mentions each option, and every option that it mentions is one')
def _():
    d = clone()
    fresh = files(d)
    text, errors = sh(d, './configure', '--help')
    is_equal(errors, '')
    is_equal(files(d), fresh, 'files after --help')
    with open(d + '/configure') as f:
        known = re.findall(r'(?<=[ |])--[a-z-]+(?=[=)|])', re.search(
            r'^for arg.*?^done', f.read(), re.M | re.S)[0])
    is_true({'--prefix', '--enable-static'} < set(known), 'options of configure: %r' % known)
    is_equal(set(re.findall(r'(?<!\S)--[a-z-]+', text)), set(known) - {'--help'}, 'options')


def is_refused(line, *options, **kw):
    """configure dies, with a line that begins so and nothing else on stderr; makes nothing."""
    d = clone()
    errors = configure(d, *options, fails=True, **kw)[1]
    is_true(errors.startswith('configure: fatal: ' + line) and errors.find('\n') == len(errors) - 1,
            'one line: %r' % errors)
    is_true(not os.path.exists(d + '/config.mak'), 'no config.mak')
    return errors


@test('configure: an unknown option is an error')
def _():
    is_refused('unknown option: --enable-magic', '--enable-magic')
    is_refused('unknown option: prefix', 'prefix')


@test('configure: skalibs, libtls or the compiler missing is one clear line')
def _():
    is_refused("skalibs' sysdeps not found: install skalibs-dev, or give --with-sysdeps",
               '--with-sysdeps=/nonexistent')
    is_refused('/nonexistent/cc does not compile', 'CC=/nonexistent/cc')
    line = is_refused('libtls with tls_accept_cbs does not link',
                      compiler_without('-ltls|*/libtls.a', 'ld: cannot find it'))
    is_true('cannot find' in line, 'the reason, as the compiler tells it: ' + line)


def compiler_without(argument, reason):
    """CC for configure: the compiler under test, but it refuses an argument, a pattern of sh."""
    return 'CC=sh ' + temp("""for arg ; do
  case $arg in %s) echo '%s' >&2 ; exit 1 ;; esac
done
exec %s "$@"
""" % (argument, reason, configured('CC')))


@functools.lru_cache(maxsize=None)
def sysdeps(*options):
    """Where configure finds skalibs' sysdeps."""
    out = configure(clone(), *options)[0]
    return os.path.realpath(re.search(r"^skalibs' sysdeps: (.*)$", out, re.M)[1])


@test("configure finds skalibs' sysdeps beside its archive, as clang needs that tells no multiarch")
def _():
    is_equal(sysdeps(compiler_without('-print-multiarch', 'unsupported option')), sysdeps())


def prefix_with(include={}, lib={}):
    """Options for a directory with these headers and libraries, to come before all others."""
    d = temp_dir()
    for name, content in [('include/' + k, v) for k, v in include.items()] + [
            ('lib/' + k, v) for k, v in lib.items()]:
        os.makedirs(os.path.dirname('%s/%s' % (d, name)), exist_ok=True)
        with open('%s/%s' % (d, name), 'wb') as f:
            f.write(content)
    return ['--with-sysdeps=' + sysdeps(), *('--with-%s=%s/%s' % (kind, d, kind)
            for kind in ('include', 'lib') if os.path.exists('%s/%s' % (d, kind)))]


def archive(name):
    with open(configured('LIB_' + name), 'rb') as f:
        return f.read()


@test('configure: --with-include or --with-lib forgotten is one clear line')
def _():
    is_refused('no usable headers of skalibs and execline: ', '--without-engine',
               first=prefix_with({'execline/execline.h': b'#error none\n'}))
    other = {'skalibs/config.h': b'#define SKALIBS_VERSION "0.1"\n'}
    skalibs = {'libskarnet.a': archive('SKALIBS')}
    with_both = prefix_with(other, skalibs)
    for options in prefix_with(other), [o for o in with_both if '--with-include=' not in o]:
        line = is_refused('/', '--without-engine', first=options)
        is_true('libskarnet.a is skalibs ' in line and ' 0.1' in line and
                line.endswith(': give both --with-include and --with-lib\n'), line)
    is_refused('no usable tls.h: ', first=prefix_with({'tls.h': b'#error none\n'}))


@test('configure: an archive for another libc, or that does something else, is one clear line')
def _():
    named = [o[11:] for o in same_libraries() if o.startswith('--with-lib=')]
    if not any(os.path.exists(d + '/libskarnet.a') for d in named):
        is_refused('libskarnet.a not found: ', # of glibc, for musl-gcc
                   compiler_without('-lskarnet', 'the linker does not look there'))
    empty = b'!<arch>\n'
    is_refused('these archives do not link, are they for another libc? ', '--without-engine',
               first=prefix_with(lib={'libskarnet.a': empty}))
    d = temp_dir()
    with open(d + '/el.c', 'w') as f:
        f.write('int el_semicolon(char const **argv) { return !argv; }\n')
    sh(d, *configured('CC').split(), '-c', 'el.c')
    sh(d, 'ar', 'rc', 'libexecline.a', 'el.o')
    is_refused('a program with skalibs and execline fails: ', '--without-engine',
               first=['--with-lib=' + d, '--with-sysdeps=' + sysdeps()])


@test('configure: tls.h of one TLS library and libtls of another is one clear line')
def _():
    if configured('WITHOUT_ENGINE'):
        raise Skip('no libtls')
    line = is_refused('/', first=prefix_with({
        'tls.h': b'#include_next <tls.h>\n',
        'openssl/opensslv.h': b'#define OPENSSL_VERSION_TEXT "AnotherSSL 1"\n',
        'openssl/x509.h': b'void X509_free(void *);\n'}))
    is_true('/tls.h is not of the libtls found, which has ' in line, line)


@test('configure: a shared libtls that tls-engine would not find is told')
def _():
    if configured('WITHOUT_ENGINE'):
        raise Skip('no libtls')
    d = temp_dir()
    with open(d + '/tls.c', 'w') as f:
        f.write('int tls_init(void) { return 0; } int tls_accept_cbs(void) { return 0; }\n')
    sh(d, *configured('CC').split(), '-shared', '-fPIC', '-o', 'libtls.so',
       '-Wl,-soname,libtls-of-the-test.so', 'tls.c')
    os.symlink('libtls.so', d + '/libtls-of-the-test.so')
    told = 'libtls: not where tls-engine will look for it: give LDFLAGS=-Wl,-rpath,DIR\n'
    for rpath, expected in ('', True), ('-Wl,-rpath,' + d, False):
        out = configure(clone(), 'LDFLAGS=' + rpath, first=['--with-lib=' + d])[0]
        is_equal(told in out, expected, out)


@test('configure: _FORTIFY_SOURCE, but not where it cannot be or somebody else has decided',
      limit=180)
def _():
    def levels(*options):
        d = clone()
        configure(d, *options)
        with open(d + '/config.mak') as f:
            return re.findall('-D_FORTIFY_SOURCE=.', f.read())
    cc = configured('CC').split()
    if '_FORTIFY_SOURCE' in sh('/', *cc, '-O2', '-dM', '-E', '-x', 'c', '/dev/null')[0]:
        raise Skip('the compiler does that')
    is_true(levels() in (['-D_FORTIFY_SOURCE=3'], ['-D_FORTIFY_SOURCE=2']), levels())
    flags = configured('CPPFLAGS') + ' -D_FORTIFY_SOURCE=1'
    is_equal(levels('CPPFLAGS=' + flags), ['-D_FORTIFY_SOURCE=1'])
    for flags in '-O0', '-U_FORTIFY_SOURCE':
        is_equal(levels('CFLAGS=' + flags), [], flags)
    # shared: not every system has the sanitizer's runtime as an archive that links
    is_equal(levels('CFLAGS=-O1 -fsanitize=undefined', '--disable-static'), [], 'a sanitizer')


# Warnings

def compiles_cleanly(cc, flags, target):
    """The variables of the config.mak that it is compiled with."""
    need(cc)
    if configured('CC').split()[0] not in ('cc', 'gcc', 'clang'):
        raise Skip('the libraries are for ' + configured('CC'))
    d = clone()
    configure(d, 'CC=' + cc, 'CFLAGS=' + flags)
    is_equal(make(d, target)[1], '', 'warnings')
    with open(d + '/config.mak') as f:
        return dict(re.findall('^(.*) := (.*)$', f.read(), re.M))


@functools.lru_cache(maxsize=None)
def flags_for_strict_c99(cc):
    flags = compiles_cleanly(cc, '-std=c99', 'all')
    paths = ['-D%s=""' % name for name in ('TLS_ENGINE_PATH', 'TLS_ENGINED_PATH', 'EMPTY_DIR')]
    return [*paths, *flags['CPPFLAGS'].split(),
            *flags['CFLAGS'].split()]


@test('gcc -Wall -Wextra has no warning')
def _():
    compiles_cleanly('gcc', '-Wall -Wextra', 'check-programs')


@test('clang -Wall -Wextra has no warning')
def _():
    compiles_cleanly('clang', '-Wall -Wextra', 'check-programs')


for cc in 'gcc', 'clang':
    # What configure chooses for the first does for all. 2x is what 23 is to gcc 12, too.
    for std in 'c99', 'gnu99', 'c11', 'c17', 'gnu17', 'c2x', 'gnu2x':
        @test('%s -std=%s has no warning' % (cc, std))
        def _(cc=cc, std=std):
            is_equal(sh(TOP, cc, *flags_for_strict_c99(cc), '-std=' + std, '-fsyntax-only',
                        *glob.glob(TOP + '/src/*/*.c')), ('', ''), std)


run()
