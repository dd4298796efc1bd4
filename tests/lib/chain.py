# ISC licence: see COPYING.
"""Chains under test.

    client, server = tcp_pair()                  # a connection on 127.0.0.1
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
    ...
    is_equal(c.wait(), 0)
"""

import fcntl
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from scratch import close_later, temp_dir
from tap import SLOW, Skip, after_each, is_equal, is_true, wait_for

TOP = os.path.normpath(os.path.abspath(__file__) + '/../../..')
BIN = os.path.join(TOP, 'tests', 'bin')
PYTHON = [sys.executable, '-I', '-S', '-c']  # for an application in a line or two
FATAL = 'tls-handshake: fatal: unable to start TLS: '
NOT_JOINED = ('tls-engine: warning: session not joined: a stage refused it, '
              'or tls-io is missing\n')

_chains = []


@after_each
def kill_chains():
    """After each test, ends what still runs; what it said."""
    said = '\n'.join('stderr of %s:\n%s' % (c.argv[0], c.stderr()) for c in _chains)
    for c in _chains:
        c.kill()
    _chains.clear()
    return said


# What a test needs

# Debian's packages with programs that have other names.
PACKAGES = {
    'smtpfront-echo': 'mailfront', 'imapfront-auth': 'mailfront', 'pop3front-auth': 'mailfront',
    'cvm-pwfile': 'cvm', 'msmtpd': 'msmtp-mta', 'psql': 'postgresql-client',
    'ldns-keygen': 'ldnsutils', 'ldns-signzone': 'ldnsutils', 'host': 'bind9-host',
    's6-rc-compile': 's6-rc', 'setpriv': 'util-linux', 'dovecot': 'dovecot-core',
    '/usr/lib/dovecot/imap': 'dovecot-imapd', '/usr/lib/dovecot/imap-login': 'dovecot-imapd',
    '/usr/lib/dovecot/pop3-login': 'dovecot-pop3d',
    '/usr/lib/dovecot/managesieve-login': 'dovecot-managesieved',
}


def need(*programs):
    for p in programs:
        if not shutil.which(p, path=os.environ['PATH'] + ':/usr/sbin:/sbin'):
            raise Skip('%s is not installed' % PACKAGES.get(p, p))


def not_resident(why):
    """Skips a test that cannot be had with a resident engine."""
    if os.environ.get('TEST_RESIDENT'):
        raise Skip('a resident engine ' + why)


@functools.cache
def is_unconfined():
    """Whether the engine was built without empty root and filter."""
    with open(TOP + '/config.mak') as f:
        return '-DUNCONFINED' in f.read()


def not_unconfined(why):
    """Skips a test that such an engine cannot pass."""
    if is_unconfined():
        raise Skip('an engine built for debugging ' + why)


def not_under_valgrind(why):
    if os.environ.get('TEST_VALGRIND'):
        raise Skip('valgrind ' + why)


@functools.cache
def libressl_version():
    """That of the LibreSSL that the engine stands on, such as (4, 3); None for LibreTLS."""
    engine = os.path.realpath(BIN + '/tls-engine')
    out = subprocess.run(['ldd', engine], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    for path in [engine, *(word for word in out.decode().split() if word.startswith('/'))]:
        with open(path, 'rb') as f:
            found = re.search(rb'LibreSSL (\d+)\.(\d+)\.\d', f.read())
        if found:
            return int(found[1]), int(found[2])
    return None


def is_libressl():
    """Whether the engine stands on LibreSSL, not on OpenSSL by LibreTLS."""
    return libressl_version() is not None


# Chains

def resident(argv, env, err):
    """Under TEST_RESIDENT: takes the settings out of env and gives them to a resident engine, of
    which env then tells: by a path, or, if it is "opened", by a descriptor. Returns its process and
    that descriptor; None where the chain is to have its own: if it has no settings, or bad ones,
    which a resident engine does not start with."""
    settings = {k: env[k] for k in env
                if k in ('KEYFILE', 'CERTFILE', 'OCSPFILE', 'CAFILE', 'CADIR', 'CRLFILE')
                or k.startswith(('KEYFILE:', 'CERTFILE:', 'OCSPFILE:', 'TLS_'))}
    script = ' '.join(' '.join(argv).split())
    client = 'tls-handshake -c' in script
    if 'tls-handshake' not in script or not (client or 'CERTFILE' in settings) \
            or 'TLS_ENGINE' in env or 'tls-engine-open' in script:
        return None, None
    is_opened = os.environ['TEST_RESIDENT'] == 'opened'
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = temp_dir() + '/engine'
    bound = [] if is_opened else ['s6-ipcserver-socketbinder', path]
    r, w = os.pipe()
    with ours, its:
        p = subprocess.Popen([*bound, 'tls-engined', '-d', str(w)] + ['-c'] * client,
                             env={**env, **settings}, pass_fds=[w], stderr=err, stdin=its)
        fd = fcntl.fcntl(ours, fcntl.F_DUPFD, 200) if is_opened else None
    os.close(w)
    ready = os.read(r, 1)
    os.close(r)
    if not ready:
        p.wait()
        err.seek(0)
        err.truncate()
        if is_opened:
            os.close(fd)
        return None, None
    for k in settings:
        del env[k]
    env['TLS_ENGINEFD' if is_opened else 'TLS_ENGINE'] = str(fd) if is_opened else path
    return p, fd


class Chain:
    """A process that is a chain, with the network on 0 and 1 (client: on 6 and 7).

    argv is a list, or a string that is an execline script. The caller's copy of the network is
    closed, unless keep is true. stderr() is what it and all after it wrote there.
    """

    def __init__(self, argv, net=None, env=None, client=False, keep=False, pass_fds=(),
                 preexec=None, path=None):
        if isinstance(argv, str):
            argv = ['execlineb', '-Pc', argv]
        self.argv = argv
        self._err = tempfile.TemporaryFile()
        close_later(self._err)
        environment = {'PATH': path or BIN + ':' + os.environ['PATH']}
        for k in os.environ:
            if k.startswith(('ASAN_', 'UBSAN_', 'TEST_', 'LSAN_')):
                environment[k] = os.environ[k]
        environment.update(env or {})
        self._engined, door = None, None
        if os.environ.get('TEST_RESIDENT'):
            self._engined, door = resident(argv, environment, self._err)
        if door:
            pass_fds = [*pass_fds, door]

        def prepare():
            if client and net is not None:
                fd = fcntl.fcntl(net.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)
                os.dup2(fd, 6, inheritable=True)
                os.dup2(fd, 7, inheritable=True)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if preexec:
                preexec()
        stdio = None if net is None or client else net
        self._p = subprocess.Popen(
            argv, env=environment, stderr=self._err, preexec_fn=prepare,
            stdin=stdio or subprocess.DEVNULL, stdout=stdio or self._err,
            close_fds=not client, pass_fds=() if client else pass_fds)
        self.pid = self._p.pid
        if door:
            os.close(door)
        _chains.append(self)
        if net is not None and not keep:
            net.close()

    def wait(self, seconds=30):
        """The exit code; negative for a signal."""
        return self._p.wait(seconds * SLOW)

    def poll(self):
        return self._p.poll()

    def dismiss_engine(self):
        """Orders a resident engine, if it has one, to end with the session."""
        if self._engined:
            self._engined.terminate()

    def kill(self):
        if self._engined:
            self._engined.kill()
            self._engined.wait()
            self._engined = None
        if self._p.returncode is None:
            self._p.kill()
            self._p.wait()

    def stderr(self):
        """What is on stderr so far (and on stdout, where that is not the network), each line of
        ours without its process number."""
        return without_pid(self.stderr_raw())

    def stderr_raw(self):
        """The same as it was written."""
        size = os.fstat(self._err.fileno()).st_size
        return without_debugging(os.pread(self._err.fileno(), size, 0).decode(errors='replace'))


def without_debugging(text):
    """Text less what an engine says at each start that was built for debugging."""
    if not is_unconfined():
        return text
    line = r'^tls-[a-z]+: (?:.*: )?warning: built for debugging: .*\n'
    return re.sub(line, '', text, flags=re.M)


def without_pid(text):
    """Text less the one process number after the name of our program that begins a line, or comes
    after the time that s6-log has put there; and less what without_debugging takes away."""
    time = r'(?:@[0-9a-f]+ |[0-9-]+ [0-9:.]+ +)?'
    number = r'^(' + time + r'tls-[a-z-]+): pid [1-9][0-9]*(?=: )'
    return re.sub(number, r'\1', without_debugging(text), flags=re.M)


def descriptors(table):
    """A preexec that makes each key of table a copy of its value, or closed if that is None. For
    a Chain with client=True, which closes no others."""
    def prepare():
        high = {n: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
                for n, fd in table.items() if fd is not None}
        for n, fd in high.items():
            os.dup2(fd, n, inheritable=True)
        for n in table:
            if n not in high:
                os.close(n)
    return prepare


# How they are written

def block(argv):
    """A block, as execlineb hands it to a program."""
    return [' ' + a for a in argv] + ['']


def script(text, *argv):
    """An execline script; $@ in it is argv."""
    return ['execlineb', '-S0', '-c', text, *argv]


def delayed(application, tlsside=('tls-await', 'tls-handshake', 'tls-io'), options=()):
    """tls-ctl-open { tlsside } application"""
    return ['tls-ctl-open', *options, *block(tlsside), *application]


def at_most(n):
    """The start of a command with a limit of descriptors."""
    return ['sh', '-c', 'ulimit -n %d; exec "$@"' % n, 'sh']


# How they end

def dies(c, code, line):
    """The chain exits with that code, having written that line to stderr and nothing else."""
    is_equal(c.wait(), code, 'exit code')
    is_equal(c.stderr().splitlines(), [line], 'stderr')


def unjoined(c):
    """What is on stderr less the line of an engine whose session was refused: waits for that."""
    wait_for(lambda: NOT_JOINED in c.stderr(), 'the engine to say that nobody joined the session')
    return c.stderr().replace(NOT_JOINED, '')


def dies_unjoined(c, code, line):
    """As dies, with the handshake done before, so that the engine has its word, too."""
    is_equal(c.wait(), code, 'exit code')
    is_equal(unjoined(c).splitlines(), [line], 'stderr')


def _dies_by(c, pattern):
    is_equal(c.wait(), 100, 'exit code of %r' % c.argv)
    pattern = pattern.replace('PROGRAM', re.escape(os.path.basename(c.argv[0])))
    is_true(re.fullmatch(pattern + '\n', c.stderr()), '%r: %s' % (c.argv, c.stderr()))


def dies_of_usage(c):
    """The chain exits 100 with the usage of its program."""
    _dies_by(c, r'PROGRAM: usage: PROGRAM \[.*')


def dies_without_program(c):
    """The chain exits 100, and says what comes after its program."""
    _dies_by(c, 'PROGRAM: fatal: no program: .* goes after PROGRAM')


def tells_emfile(line):
    """Whether it is one line that ends as the libc has it, glibc or musl: too few descriptors."""
    words = ': Too many open files\n', ': No file descriptors available\n'
    return line.endswith(words) and line.count('\n') == 1


def reason(c, code=97):
    """The reason that a failed handshake gives on its one line; its exit code is as told."""
    is_equal(c.wait(), code, 'exit code (stderr: %r)' % c.stderr())
    text = c.stderr()
    is_true(text.startswith(FATAL) and text.find('\n') == len(text) - 1, 'one line: %r' % text)
    return text[len(FATAL):-1]
