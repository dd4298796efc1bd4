#!/usr/bin/env python3
# ISC licence: see COPYING.
# The resident engine: how it starts, what its processes may, signals, limits, who harms whom.

import hashlib
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, PYTHON, Chain, delayed, descriptors, need, not_under_valgrind
from peer import TLS12, TLS13, Peer, Recorder, plain_context
from pki import cert_hash, hashed_dir, pki, server_env
from privileges import as_root, has_nothing_of_root, is_confined
from proc import children_of, fds_of, state_of, status_of
from scratch import close_later, temp, temp_dir
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from ucspi import SETTINGS, STARTTLS_APP, starttls

FATAL = 'tls-handshake: fatal: unable to start TLS: '
LOADED = 'tls-engined: info: new settings loaded'
USAGE = 'tls-engined: usage: tls-engined ['
UID, GID = 60011, 60012  # nobody needs to have that name
DROP = {'TLS_UID': str(UID), 'TLS_GID': str(GID)}
CAT_8_9 = '''
import os
while True:
    data = os.read(8, 4096)
    if not data:
        break
    os.write(9, data)
'''  # an application whose network is where most others have none
OWN_NEEDED = 'the resident engine has no settings for this: give the chain an engine of its own'


# The engine

class Engine:
    """tls-engined with these settings and options. listener: what its descriptor 0 is, else it
    gets a socket of s6-ipcserver-socketbinder, at path. bound: what that is told."""

    def __init__(self, env, options=(), listener=None, notify=True, bound=(), **kw):
        self.dir = temp_dir()
        self.path = self.dir + '/engine'
        self._err = tempfile.TemporaryFile()
        argv = ['tls-engined', *options]
        pass_fds = kw.pop('pass_fds', ())
        if notify:
            r, w = os.pipe()
            self.notification = os.fdopen(r, 'rb', buffering=0)
            close_later(self.notification)
            argv[1:1] = ['-d', str(w)]
            pass_fds = [*pass_fds, w]
        if not listener:
            need('s6-ipcserver-socketbinder')
            argv[:0] = ['s6-ipcserver-socketbinder', *bound, self.path]
        environment = {k: v for k, v in os.environ.items()
                       if k.startswith(('ASAN_', 'UBSAN_', 'LSAN_'))}
        environment.update({'PATH': BIN + ':' + os.environ['PATH'], **env})
        self._p = subprocess.Popen(argv, env=environment, stdin=listener or subprocess.DEVNULL,
                                   stderr=self._err, stdout=self._err, pass_fds=pass_fds, **kw)
        self.pid = self._p.pid
        close_later(self, first=True)  # to end before its files go
        if notify:
            os.close(w)

    def ready(self):
        """Waits until it has said that it is ready; itself."""
        is_equal(self.notification.read(1), b'\n', 'readiness (stderr: %r)' % self.log())
        return self

    def log(self):
        size = os.fstat(self._err.fileno()).st_size
        return os.pread(self._err.fileno(), size, 0).decode(errors='replace').splitlines()

    def wait(self, seconds=30):
        return self._p.wait(seconds * SLOW)

    def poll(self):
        return self._p.poll()

    def signal(self, sig):
        self._p.send_signal(sig)

    def workers(self):
        return [pid for pid in children_of(self.pid) if is_alive(pid)]

    def worker(self):
        """Waits until it has one worker; the pid of that."""
        return wait_for(lambda: (lambda w: len(w) == 1 and w[0])(self.workers()), 'one worker')

    def sessions(self):
        """The processes that serve sessions, those included that wait to be reaped."""
        return [pid for worker in self.workers() for pid in children_of(worker)]

    def wait_sessions(self, n):
        return wait_for(lambda: (lambda s: len(s) == n and (s or [0]))(self.sessions()),
                        '%d sessions' % n)

    def close(self):
        if self._p.poll() is None:
            self._p.kill()
            self._p.wait()
        self._err.close()


def listening(backlog=5):
    """A listening socket of ours, which goes with the test, and its path."""
    path = temp_dir() + '/engine'
    listener = socket.socket(socket.AF_UNIX)
    close_later(listener)
    listener.bind(path)
    listener.listen(backlog)
    return listener, path


def engine(env=None, options=(), **kw):
    """An engine that is ready; the settings are a server's if they are not told."""
    return Engine(server_env() if env is None else env, options, **kw).ready()


def is_alive(pid):
    try:
        return state_of(pid) not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(*pids):
    wait_for(lambda: not any(map(is_alive, pids)), 'the end of %r' % (pids,))


def holds(pid):
    """The descriptors of a process that nobody but root may look at."""
    if os.getuid():
        raise Skip('not root: a confined process cannot be looked at')
    return fds_of(pid)


def wait_closed(*pids):
    """Waits until these workers do not listen any more."""
    def closed():
        try:
            return not any(is_alive(pid) and 0 in holds(pid) for pid in pids)
        except FileNotFoundError:
            return False
    wait_for(closed, 'the door to close')


# Sessions through it

def serve(e, prog=('cat',), options=(), io=(), env=None, **kw):
    """A client's socket and a chain that serves it through the engine."""
    client, server = tcp_pair()
    return client, Chain(['tls-handshake', *options, 'tls-io', *io, *prog], server,
                         env={'TLS_ENGINE': path_of(e), **(env or {})}, **kw)


def path_of(e):
    return e if isinstance(e, str) else e.path


def join(e, prog=('cat',), options=(), io=(), settings={}, **kw):
    """A client whose handshake is done, its session in use, and the chain."""
    client, c = serve(e, prog, options, io, **kw)
    peer = Peer(client, **settings).handshake()
    speaks(peer)
    return peer, c


def speaks(peer):
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello', 'what comes back')


def ends(peer, c, code=0):
    is_equal(peer.end_politely(), (b'', 'close_notify'), 'end of the session')
    peer.sock.close()
    is_equal(c.wait(), code, 'exit code')
    is_equal(c.stderr(), '', 'stderr of the chain')


def works(e, options=(), **settings):
    """A whole session through the engine; the certificate that it has shown."""
    peer, c = join(e, options=options, settings=settings)
    ends(peer, c)
    return certificate(peer)


def certificate(peer):
    return 'SHA256:' + hashlib.sha256(peer.tls.getpeercert(True)).hexdigest()


def refused(e, code, options=(), env=None, **settings):
    """Why a chain is not served: the one line that it writes. The client is hung up, even if
    somebody still holds the network."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, keep=True,
              env={'TLS_ENGINE': path_of(e), **(env or {})})
    is_equal(how_it_ends(Peer(client, **settings)), b'', 'what the client gets')
    client.close()
    server.close()
    return reason(c, code)


def how_it_ends(peer):
    """What comes after the handshake of a peer, if there is one, that the other side ends."""
    try:
        return peer.handshake().recv(1)
    except (ssl.SSLError, ConnectionError):
        return b''


def reason(c, code):
    is_equal(c.wait(), code, 'exit code (stderr: %r)' % c.stderr())
    text = c.stderr()
    is_true(text.startswith(FATAL) and text.find('\n') == len(text) - 1, 'one line: %r' % text)
    return text[len(FATAL):-1]


def client_of(e, options, prog=('sh', '-c', 'cat <&6 >&7'), env=None, io=('-w',)):
    """The server's end of a connection, and a chain of a client through the engine."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    client.setblocking(True)
    c = Chain(['tls-handshake', '-c', *options, 'tls-io', *io, *prog], client, client=True,
              env={'TLS_ENGINE': e.path, **(env or {})})
    return server, c


def client_works(e, options, **settings):
    """A whole session of a client; its server."""
    server, c = client_of(e, options)
    peer = Peer(server, client=False, **{'cert': 'server', **settings}).handshake()
    speaks(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0, 'exit code (stderr: %r)' % c.stderr())
    return peer, c


def client_refuses(e, options, code=97, **settings):
    """Why a client does not take the server."""
    server, c = client_of(e, options)
    how_it_ends(Peer(server, client=False, **{'cert': 'server', **settings}))
    server.close()
    return reason(c, code)


# How it starts

@test('under s6-ipcserver-socketbinder it serves each session in a process of its own')
def _():
    e = engine()
    is_equal(e.sessions(), [], 'sessions')
    one = join(e)
    first, = e.wait_sessions(1)
    two = join(e)
    is_equal(len(set(e.wait_sessions(2)) | {first, e.worker(), e.pid}), 4, 'processes')
    speaks(one[0])
    ends(*one)
    speaks(two[0])
    ends(*two)
    e.wait_sessions(0)
    is_equal(e.log(), [])


@test('the socket may come from anyone, and who comes before it is ready is served')
def _():
    listener, path = listening()
    client, c = serve(path)
    e = Engine(server_env(), listener=listener).ready()
    peer = Peer(client).handshake()
    speaks(peer)
    ends(peer, c)
    works(path)
    is_equal(e.log(), [])


@test('without -d it says nothing, and serves')
def _():
    listener, path = listening()
    e = Engine(server_env(), listener=listener, notify=False)
    works(path)
    is_equal(e.log(), [])


def fill(path):
    """Connections that nobody accepts, as many as the backlog takes."""
    waiting = []
    while True:
        s = socket.socket(socket.AF_UNIX)
        close_later(s)
        s.setblocking(False)
        try:
            s.connect(path)
        except BlockingIOError:
            return waiting
        waiting.append(s)


@test('a chain that finds the backlog full waits for room, as long as it has for the handshake')
def _():
    listener, path = listening(0)
    waiting = fill(path)
    is_equal(refused(path, 111, ['-K', '200']),
             'unable to connect to TLS_ENGINE: Resource temporarily unavailable')
    client, c = serve(path)
    wait_for(lambda: state_of(c.pid) == 'S', 'it to wait')
    for s in waiting:
        s.close()
    e = Engine(server_env(), listener=listener).ready()
    peer = Peer(client).handshake()
    speaks(peer)
    ends(peer, c)
    e.wait_sessions(0)


@test('readiness is told once, on a descriptor that is then closed')
def _():
    e = engine()
    is_equal(e.notification.read(), b'', 'all that comes after the first byte')
    e.signal(signal.SIGHUP)  # would fail with EPIPE, if it told that again
    works(e)


def is_listening(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


@test('nobody has to read what is told of readiness')
def _():
    r, w = os.pipe()
    os.close(r)
    e = Engine(server_env(), ['-d', str(w)], notify=False, pass_fds=[w])
    os.close(w)
    wait_for(lambda: is_listening(e.path), 'the socket')
    works(e)
    is_equal(e.poll(), None, 'exit code')


@test('the files are read before it is ready, and no more after that')
def _():
    d = temp_dir()
    for name in 'server.key', 'server.pem':
        shutil.copy('%s/%s' % (pki(), name), d)
    e = engine({'KEYFILE': d + '/server.key', 'CERTFILE': d + '/server.pem'})
    os.unlink(d + '/server.key')
    os.unlink(d + '/server.pem')
    for _ in range(2):
        is_equal(works(e), cert_hash('server'))


def bad_settings():
    """Settings that are none: what they are, the options, the exit code, what the line says."""
    none, garbage = '/nonexistent/file', temp(b'garbage\n')
    p = pki()
    ca = p + '/ca.pem'
    return [
        ({}, (), 96, 'KEYFILE and CERTFILE are not set'),
        (server_env(KEYFILE=None), (), 96, 'KEYFILE is not set, CERTFILE is'),
        (server_env(KEYFILE=none), (), 96, 'unable to read KEYFILE ' + none),
        (server_env(CERTFILE=none), (), 96, 'unable to read CERTFILE ' + none),
        (server_env(CERTFILE=garbage), (), 96, 'unable to use CERTFILE ' + garbage),
        (server_env(KEYFILE=garbage), (), 96, garbage),
        (server_env(KEYFILE=p + '/a.key'), (), 96, p + '/a.key'),
        (server_env(**{'CERTFILE:a': none, 'KEYFILE:a': none}), (), 96, none),
        (server_env(**{'CERTFILE:a': p + '/a.pem'}), (), 96, 'KEYFILE:a is not set'),
        (server_env(CAFILE=none), (), 96, 'unable to read CAFILE ' + none),
        (server_env(CAFILE=garbage), (), 96, garbage),
        (server_env(CADIR=none), (), 96, 'unable to open CADIR ' + none),
        (server_env(CAFILE=ca, CRLFILE=garbage), (), 96, 'unable to use CRLFILE ' + garbage),
        (server_env(OCSPFILE=garbage), (), 96, 'unable to use OCSPFILE ' + garbage),
        (server_env(TLS_SNI='maybe'), (), 96, 'TLS_SNI'),
        (server_env(TLS_PROTOCOLS='ssl'), (), 96, 'unable to use TLS_PROTOCOLS ssl'),
        (server_env(TLS_CIPHERS='ROT13'), (), 96, 'unable to use TLS_CIPHERS ROT13'),
        (server_env(TLS_UID='nobody', TLS_GID='0'), (), 111, 'unable to use TLS_UID'),
        (server_env(TLS_UID='60000'), (), 111, 'unable to use TLS_UID without TLS_GID'),
        ({'CAFILE': none}, ['-c'], 96, 'unable to read CAFILE ' + none),
        ({'CAFILE': ca, 'TLS_PROTOCOLS': 'ssl'}, ['-c'], 96, 'unable to use TLS_PROTOCOLS ssl'),
        (server_env(CAFILE=ca, KEYFILE=none), ['-c'], 96, 'unable to read KEYFILE ' + none),
        (server_env(CAFILE=ca, KEYFILE=None), ['-c'], 96, 'KEYFILE is not set, CERTFILE is'),
    ]


@test('settings that are none: one line that names them, no readiness, exit 96, or 111 for a user')
def _():
    for env, options, code, text in bad_settings():
        e = Engine(env, options)
        is_equal(e.notification.read(), b'', 'readiness with %r' % env)
        is_equal((e.wait(), len(e.log())), (code, 1), 'exit code, lines with %r' % env)
        line, = e.log()
        is_true(line.startswith('tls-engined: fatal: ') and text in line, '%r in %r' % (text, line))


@test('what a client cannot use is found as it starts, too')
def _():
    garbage, p = temp(b'garbage\n'), pki()
    ca = p + '/ca.pem'
    for env, text in (
            ({'CAFILE': garbage}, garbage),
            ({'CAFILE': ca, 'KEYFILE': p + '/a.key'}, 'CERTFILE is not set, KEYFILE is'),
            (server_env('a', CAFILE=ca, KEYFILE=p + '/b.key'), p + '/b.key'),
            (server_env('a', CAFILE=ca, KEYFILE=garbage), garbage)):
        e = Engine(env, ['-c'])
        is_equal(e.notification.read(), b'', 'readiness with %r' % env)
        is_equal((e.wait(), len(e.log())), (96, 1), 'exit code, lines with %r' % env)
        is_true(text in e.log()[0], '%r in %r' % (text, e.log()[0]))


@test('what is no option or no number is a usage error')
def _():
    for options in ['-x'], ['program'], ['-m', '0'], ['-m', 'x'], ['-m', ''], ['-t', '-1'], \
            ['-t', '5000000000'], ['-u', 'root'], ['-d', 'x'], ['-m']:
        e = Engine(server_env(), options, notify=False)
        is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines with %r' % options)
        is_true(e.log()[0].startswith(USAGE), e.log()[0])


@test('a descriptor of -d that is not open, or a 0 that nobody listens on: 100, and a line')
def _():
    ours, its = socket.socketpair()
    with ours, its, socket.socket(socket.AF_UNIX) as deaf, open('/dev/null') as null:
        deaf.bind(temp_dir() + '/engine')
        for given in deaf, its, null:
            e = Engine(server_env(), listener=given)
            is_equal(e.notification.read(), b'', 'readiness')
            is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines')
    e = Engine(server_env(), ['-d', '77'], notify=False)
    is_equal((e.wait(), len(e.log())), (100, 1), 'exit code, lines')


# What its processes hold and may

@test('keeper, worker and session hold what they need, whatever they were given', limit=20)
def _():
    if os.environ.get('TEST_VALGRIND'):
        raise Skip('valgrind has descriptors of its own')
    rfd, wfd = os.pipe()
    reader = os.fdopen(rfd, 'rb')
    close_later(reader)
    e = Engine(server_env(), pass_fds=[wfd]).ready()
    os.close(wfd)
    is_equal(reader.read(), b'', 'a pipe end that was in the way')
    listening = holds(e.pid)[0]
    peer, c = join(e)
    session, = e.wait_sessions(1)
    held = holds(session)
    is_true(listening not in held.values(), 'a session does not listen: %r' % held)
    is_equal(held[1], '/dev/null')
    is_equal(held[2], holds(e.pid)[2], 'stderr')
    links = sorted(v.split(':')[0] for fd, v in held.items() if fd != 2)
    # the session socket, the network twice, a pipe each way
    is_equal(links, ['/dev/null', 'pipe', 'pipe', 'socket', 'socket', 'socket'])
    is_equal(listening in holds(e.worker()).values(), True, 'the worker listens')
    before = holds(e.worker())
    ends(peer, c)
    e.wait_sessions(0)
    is_equal(holds(e.worker()), before, 'what the worker holds after the session')


class Files:
    """A directory that only root may read, with a key pair in it."""

    def __init__(self, name):
        self.dir = temp_dir()
        os.chmod(self.dir, 0o700)
        self.env = {'KEYFILE': self.dir + '/key', 'CERTFILE': self.dir + '/cert'}
        self.become(name)

    def become(self, name):
        shutil.copy('%s/%s.key' % (pki(), name), self.dir + '/key')
        shutil.copy('%s/%s.pem' % (pki(), name), self.dir + '/cert')

    def spoil(self):
        with open(self.dir + '/key', 'w') as f:
            f.write('garbage\n')


@as_root('worker and sessions are TLS_UID, without groups, confined; the keeper reads the files')
def _():
    def preexec():
        os.setgroups([0, 1, 2, 27, 60003])
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    files = Files('a')
    e = engine({**files.env, **DROP}, preexec_fn=preexec)
    for name in 'a', 'b':
        worker = e.worker()
        has_nothing_of_root(worker, UID, GID)
        is_confined(worker)
        peer, c = join(e)
        is_equal(certificate(peer), cert_hash(name))
        session, = e.wait_sessions(1)
        has_nothing_of_root(session, UID, GID)
        is_confined(session)
        ends(peer, c)
        is_equal(status_of(e.pid)['Uid'].split(), ['0'] * 4, 'the keeper')
        if name == 'a':
            files.become('b')
            e.signal(signal.SIGHUP)
            wait_dead(worker)
    is_equal(e.log(), [LOADED])


@as_root('without TLS_UID and TLS_GID they keep user and groups, and are confined as well')
def _():
    e = engine(preexec_fn=lambda: os.setgroups([1, 2]))
    peer, c = join(e)
    for pid in e.worker(), *e.wait_sessions(1):
        is_equal(status_of(pid)['Uid'].split(), ['0'] * 4)
        is_equal(status_of(pid)['Groups'].split(), ['1', '2'])
        is_confined(pid)
    ends(peer, c)


@as_root('a CADIR that TLS_UID cannot read, which is read as needed, is found as it starts')
def _():
    d = hashed_dir('ca')
    os.chmod(d, 0o700)
    e = Engine(server_env(CADIR=d, **DROP))
    is_equal(e.notification.read(), b'', 'readiness')
    is_equal(e.wait(), 111)
    is_equal(e.log(), ['tls-engined: fatal: unable to read CADIR as TLS_UID: Permission denied'])


# Signals

def load_anew(e, *old):
    """Orders it to, and waits until the old workers do not serve any more."""
    old = old or [e.worker()]
    e.signal(signal.SIGHUP)
    wait_closed(*old)


@test('SIGHUP: the next session has the new key pair, the one under way goes on')
def _():
    files = Files('a')
    e = engine(files.env)
    old = e.worker()
    peer, c = join(e)
    is_equal(certificate(peer), cert_hash('a'))
    files.become('b')
    load_anew(e)
    for _ in range(3):
        is_equal(works(e), cert_hash('b'))
    is_equal(len(e.workers()), 2, 'workers')
    speaks(peer)
    data = os.urandom(1 << 18)
    peer.send(data[:1 << 16])
    is_equal(peer.recv(1 << 16), data[:1 << 16])
    ends(peer, c)
    wait_dead(old)
    is_equal(len(e.workers()), 1, 'workers')
    is_equal((e.poll(), e.log()), (None, [LOADED]))


@test('SIGHUP with files that are none: a line that says so, the old settings go on')
def _():
    files = Files('a')
    e = engine(files.env)
    worker = e.worker()
    peer, c = join(e)
    for _ in range(2):
        files.spoil()
        before = len(e.log())
        e.signal(signal.SIGHUP)
        wait_for(lambda: len(e.log()) == before + 2, 'two lines')
        why, going_on = e.log()[before:]
        is_true(why.startswith('tls-engined: fatal: unable to use CERTFILE ' + files.dir), why)
        is_equal(going_on, 'tls-engined: warning: new settings not loaded: going on with the old '
                           'ones')
        is_equal(e.worker(), worker)
        is_equal(works(e), cert_hash('a'))
    speaks(peer)
    files.become('b')
    load_anew(e)
    is_equal(works(e), cert_hash('b'))
    ends(peer, c)


@test('SIGHUP many times: whatever is on the way, no session is refused, the last files count')
def _():
    files = Files('a')
    e = engine(files.env)
    peer, c = join(e)
    for i in range(40):
        files.become('ab'[i % 2])
        e.signal(signal.SIGHUP)
        if i % 10 == 9:
            works(e)
    files.become('wild')
    e.signal(signal.SIGHUP)
    wait_for(lambda: works(e) == cert_hash('wild'), 'the last files')
    wait_for(lambda: len(e.workers()) == 2, 'no workers but the first and the last')
    is_equal(works(e), cert_hash('wild'))
    speaks(peer)
    ends(peer, c)


def slow_file():
    """A CAFILE that takes long enough to be read for somebody to be stopped on the way."""
    with open(pki() + '/ca.pem') as f:
        return temp(f.read() * 1000)


@test('a SIGHUP while new settings are being read is not overtaken by those')
def _():
    files = Files('a')
    e = engine({**files.env, 'CAFILE': slow_file()})
    first = e.worker()
    files.become('b')
    e.signal(signal.SIGHUP)
    second = wait_for(lambda: set(e.workers()) - {first}, 'a new worker').pop()
    os.kill(second, signal.SIGSTOP)
    wait_for(lambda: state_of(second) == 'T', 'it to stop')
    files.become('wild')
    e.signal(signal.SIGHUP)
    wait_for(lambda: state_of(e.pid) == 'S' and int(status_of(e.pid)['ShdPnd'], 16) == 0,
             'the keeper to have the signal')
    if len(e.workers()) > 2:
        wait_for(lambda: works(e) == cert_hash('wild'), 'the third worker')
    os.kill(second, signal.SIGCONT)
    wait_for(lambda: works(e) == cert_hash('wild'), 'the last files')
    wait_for(lambda: len(e.workers()) == 1, 'one worker')
    is_equal(works(e), cert_hash('wild'))


@test('SIGTERM with no session: exit 0 at once')
def _():
    for options in [], ['-t', '60000']:
        e = engine(options=options)
        works(e)
        e.signal(signal.SIGTERM)
        is_equal((e.wait(), e.log()), (0, []))


@test('SIGTERM: no new session, those under way end in their time, exit 0 after the last')
def _():
    e = engine()
    worker = e.worker()
    peers = [join(e) for _ in range(2)]
    e.signal(signal.SIGTERM)
    wait_closed(worker)
    is_equal(refused(e, 111), 'unable to connect to TLS_ENGINE: Connection refused')
    e.signal(signal.SIGHUP)  # too late for anything but an end
    for peer, c in peers:
        is_equal(e.poll(), None, 'exit code')
        speaks(peer)
        ends(peer, c)
    is_equal((e.wait(), e.log()), (0, []))


@test('SIGTERM ends the workers of older settings with the last of their sessions, too')
def _():
    files = Files('a')
    e = engine(files.env)
    peer, c = join(e)
    files.become('b')
    load_anew(e)
    other = join(e)
    e.signal(signal.SIGTERM)
    speaks(peer)
    ends(*other)
    is_equal(e.poll(), None, 'exit code')
    speaks(peer)
    ends(peer, c)
    is_equal((e.wait(), e.log()), (0, [LOADED]))


@test('-t: sessions that take longer are cut after SIGTERM, and not before')
def _():
    limit = 1.0
    e = engine(options=['-t', str(int(limit * 1000))])
    peer, c = join(e, io=['-w'])
    session, = e.wait_sessions(1)
    start = time.monotonic()
    e.signal(signal.SIGTERM)
    speaks(peer)
    is_equal(e.wait(), 0)
    is_true(time.monotonic() - start >= limit, 'not before the limit')
    is_equal(peer.recv_all(), (b'', 'eof'), 'no close_notify for what was cut')
    is_equal(c.wait(), 98)
    wait_dead(session)


@test('-t: the limit counts from the first SIGTERM')
def _():
    e = engine(options=['-t', '2000'])
    peer, c = join(e)
    start = time.monotonic()
    while e.poll() is None:
        is_true(time.monotonic() - start < 15 * SLOW, 'it ends while orders come')
        e.signal(signal.SIGTERM)
        time.sleep(0.1)  # the pace of orders, not a wait for something
    is_equal(e.wait(), 0)


# Limits

@test('-m: beyond that many sessions a chain says why, the network is hung up; then there is room')
def _():
    e = engine(options=['-m', '2'])
    for _ in range(3):
        peers = [join(e) for _ in range(2)]
        for _ in range(3):
            is_equal(refused(e, 111), 'the resident engine serves all the sessions it may')
        for peer, _ in peers:
            speaks(peer)
        ends(*peers.pop())
        e.wait_sessions(1)
        peers.append(join(e))
        for peer, c in peers:
            ends(peer, c)
        e.wait_sessions(0)
    is_equal(e.log(), [])


@test('a refusal is heard, whoever is the first to speak')
def _():
    e = engine(options=['-m', '1'])
    peer, c = join(e)
    clients = [serve(e, ['echo', 'served']) for _ in range(30)]
    for client, chain_ in clients:
        is_equal(client.recv(1), b'', 'sent to the client')
        is_equal(reason(chain_, 111), 'the resident engine serves all the sessions it may')
    ends(peer, c)


@as_root('where no process can be had for a session, the chain says so')
def _():
    not_under_valgrind('ends a process whose fork fails')

    def preexec():
        resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    e = engine({**server_env(), **DROP, 'KEYFILE': Files('server').env['KEYFILE']},
               preexec_fn=preexec)
    peer, c = join(e)
    is_equal(refused(e, 111), 'the resident engine cannot fork')
    speaks(peer)
    ends(peer, c)
    e.wait_sessions(0)
    works(e)


@test('-u: nobody else is served')
def _():
    me = os.getuid()
    works(engine(options=['-u', str(me)]))
    e = engine(options=['-u', str(me + 1)])
    is_equal(refused(e, 111), 'the resident engine does not serve this user')
    is_equal(e.sessions(), [], 'sessions')


@as_root('-u: that user is served, though not root')
def _():
    need('setpriv')
    e = engine(options=['-u', str(UID)])
    os.chmod(e.path, 0o777)
    client, server = tcp_pair()
    path = os.path.realpath(BIN + '/tls-handshake')
    while path != '/':
        if not os.stat(path).st_mode & 1:
            raise Skip('only root can run the programs where they are')
        path = os.path.dirname(path)
    c = Chain(['setpriv', '--reuid=%d' % UID, '--clear-groups', 'tls-handshake', 'tls-io', 'cat'],
              server, env={'TLS_ENGINE': e.path})
    peer = Peer(client).handshake()
    speaks(peer)
    ends(peer, c)
    is_equal(refused(e, 111), 'the resident engine does not serve this user')


@test('who may connect is what the socket says')
def _():
    need('setpriv')
    if os.getuid():
        raise Skip('not root')
    e = engine(bound=['-a', '0700'])
    is_equal(os.stat(e.path).st_mode & 0o777, 0o700)
    with socket.socket(socket.AF_UNIX) as s:
        os.seteuid(UID)
        try:
            s.connect(e.path)
            raise AssertionError('connected')
        except PermissionError:
            pass
        finally:
            os.seteuid(0)
    works(e)


# Who harms whom

@test('a session that is killed is a failure of its own chain, and of nobody else, and is told')
def _():
    e = engine()
    told = []
    victim, its = join(e, io=['-w'])
    session, = e.wait_sessions(1)
    peer, c = join(e)
    for sig in signal.SIGKILL, signal.SIGABRT:
        os.kill(session, sig)
        is_equal(victim.recv_all(), (b'', 'eof'))
        victim.sock.close()
        is_equal(its.wait(), 98)
        e.wait_sessions(1)
        told.append('tls-engined: warning: session in process %d died of signal %d'
                    % (session, sig))
        speaks(peer)
        if sig == signal.SIGKILL:
            before = e.sessions()
            victim, its = join(e, io=['-w'])
            session, = set(e.wait_sessions(2)) - set(before)
    ends(peer, c)
    e.wait_sessions(0)
    works(e)
    is_equal((e.poll(), e.log()), (None, told))


@test('a session that is killed in the handshake: 98, and the network is hung up')
def _():
    e = engine()
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, keep=True, env={'TLS_ENGINE': e.path})
    session, = e.wait_sessions(1)
    os.kill(session, signal.SIGKILL)
    is_equal(client.recv(1), b'')
    server.close()
    is_equal(reason(c, 98), 'the engine is gone')


def start_message(version=1, role=0, name=b''):
    return b'S' + bytes([version, role, 0, 0, 0, 1]) + name


def message(text, fds=None, n=0):
    """A unixmessage: its length and the number of its descriptors, and then itself."""
    return struct.pack('>IH', len(text), n if fds is None else len(fds)) + text


@test('garbage on the socket harms nobody and leaves nothing')
def _():
    e = engine()
    worker = e.worker()
    peer, c = join(e)
    held = holds(worker)
    null = [os.open('/dev/null', os.O_RDWR) for _ in range(200)]
    ours, its = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)  # or a refusal would wait for a peer that says nothing
    two = [its.fileno()] * 2
    noise = random.Random(4)

    def talk(data, fds=()):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30 * SLOW)
            s.connect(e.path)
            try:
                if fds:
                    socket.send_fds(s, [data], fds)
                else:
                    s.sendall(data)
                if data:
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(4096):
                        pass
            except (BrokenPipeError, ConnectionResetError):
                pass
    try:
        for data, fds in (
                (message(start_message(version=2), two), two),       # a version to come
                (message(start_message(version=0), two), two),
                (message(start_message(role=7), two), two),
                (message(start_message(role=1), two), two),          # a role it has not
                (message(start_message(name=b'a\0b'), two), two),
                (message(b'', two), two),
                (message(start_message()), ()),                      # no descriptors
                (message(start_message(), two), ()),                 # nor those that it promises
                (message(start_message(), two), two[:1]),
                (message(start_message(), null[:200]), null[:200]),  # many
                (message(start_message(), two), null[:200]),
                (message(b'J' + bytes(7), two), two),                # out of turn
                (message(start_message()[:5], two), two),
                (message(start_message(), null[:2]), null[:2]),      # no network
                (struct.pack('>IH', 0xffffffff, 0xffff) + b'x', ()),
                (b'GET / HTTP/1.0\r\n\r\n', ()),
                (b'\0', ()),
                (b'', ()),                                           # hangs up at once
                *((noise.randbytes(noise.randrange(1, 9000)), ()) for _ in range(20)),
                *((noise.randbytes(noise.randrange(1, 9000)), null[:noise.randrange(1, 200)])
                  for _ in range(10))):
            talk(data, fds)
    finally:
        for fd in null:
            os.close(fd)
        ours.close()
        its.close()
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(e.path)
    e.wait_sessions(2)
    speaks(peer)
    works(e)
    silent.close()
    e.wait_sessions(1)
    is_equal(e.worker(), worker)
    is_equal(holds(worker), held, 'descriptors of the worker')
    for line in e.log():
        is_true(line.startswith('tls-engine: fatal: '), line)
    ends(peer, c)


@test('who connects and says nothing is no session for long, chains that wait are')
def _():
    e = engine(options=['-m', '2'])
    client, c = serve(e, options=['-K', '0'])
    client.sendall(b'\x16')
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(30 * SLOW)
        silent.connect(e.path)
        e.wait_sessions(2)
        refused(e, 111)
        is_equal(silent.recv(1), b'', 'what it gets')
    e.wait_sessions(1)
    works(e)
    is_equal(c.poll(), None, 'exit code of the chain that waits')
    client.close()
    is_equal(reason(c, 97), 'the peer closed the connection')


@test('a keeper that is killed leaves no worker; sessions go on, and the last one is the end')
def _():
    e = engine()
    worker = e.worker()
    e.signal(signal.SIGKILL)
    wait_dead(worker)
    e = engine()
    worker = e.worker()
    peer, c = join(e)
    e.signal(signal.SIGKILL)
    wait_closed(worker)
    is_equal(refused(e, 111), 'unable to connect to TLS_ENGINE: Connection refused')
    speaks(peer)
    ends(peer, c)
    wait_dead(worker)


@test('a worker that is killed: the keeper exits 111 and says so, sessions go on')
def _():
    e = engine()
    peer, c = join(e)
    session, = e.wait_sessions(1)
    os.kill(e.worker(), signal.SIGKILL)
    is_equal(e.wait(), 111)
    is_equal(e.log(), ['tls-engined: fatal: the worker died'])
    speaks(peer)
    ends(peer, c)
    wait_dead(session)


@test('a worker that is killed before it is ready: the keeper does not end in silence')
def _():
    e = Engine(server_env(CAFILE=slow_file()))
    os.kill(wait_for(e.workers, 'a worker')[0], signal.SIGKILL)
    is_equal(e.notification.read(), b'', 'readiness')
    is_true(e.wait() > 0, 'exit code')
    is_equal(len(e.log()), 1, 'lines on stderr')


@test('100 sessions at once', limit=120)
def _():
    e = engine()
    n = 100 if SLOW == 1 else 20
    clients = [serve(e) for _ in range(n)]
    peers = [(Peer(client).handshake(), c) for client, c in clients]
    e.wait_sessions(n)
    for i, (peer, _) in enumerate(peers):
        peer.send(b'%099d\n' % i)
    for i, (peer, _) in enumerate(peers):
        is_equal(peer.recv(100), b'%099d\n' % i)
    for peer, c in peers:
        ends(peer, c)
    e.wait_sessions(0)
    is_equal(e.log(), [])


@test('a chain with any of 0, 1 and 2 closed: no message gets into the session, nor into the data')
def _():
    e = engine(server_env(CAFILE=pki() + '/ca.pem'))
    for closed in (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2):
        for options in ['-v', '2'], ['-v', '2', '-y']:
            client, server = tcp_pair()
            table = {8: server.fileno(), 9: server.fileno(), **{fd: None for fd in closed}}
            c = Chain(['tls-handshake', '-6', '8', '-7', '9', *options, 'tls-io',
                       *PYTHON, CAT_8_9], client=True, preexec=descriptors(table),
                      env={'TLS_ENGINE': e.path})
            server.close()
            wire = Recorder(client)
            peer = Peer(wire)
            if options[2:]:
                is_equal(how_it_ends(peer), b'')
            else:
                peer.handshake()
                speaks(peer)
                is_equal(peer.end_politely(), (b'', 'close_notify'))
            client.close()
            is_equal(c.wait(), 97 if options[2:] else 0, 'exit code with %r closed' % (closed,))
            is_equal('tls-handshake: ' in c.stderr(), 2 not in closed, c.stderr())
            is_true(b'tls-' not in wire.raw, 'a message in the data: %r' % wire.raw)
    e.wait_sessions(0)
    for line in e.log():
        is_true(line.startswith('tls-engine: info: session ended: 5 bytes received, 5 sent'), line)


# What a chain gives for a session

def ask(e, options=(), env=None, **settings):
    """The environment of an application behind the engine."""
    client, c = serve(e, ['env', '-0'], options, env=env)
    peer = Peer(client, **settings).handshake()
    data, end = peer.recv_all()
    peer.close_notify()
    client.close()
    is_equal((c.wait(), end), (0, 'close_notify'))
    return dict(v.split('=', 1) for v in data.decode().split('\0') if v), c


@test('a server: -Y and -y, each for its own session')
def _():
    e = engine(server_env(CAFILE=pki() + '/ca.pem', CRLFILE=pki() + '/crl.pem'))
    for options, cert, wanted in (
            ([], 'client', None), (['-Y'], 'client', 'client'), (['-Y'], None, None),
            (['-y'], 'client2', 'client2'), ([], None, None)):
        f, _ = ask(e, options, cert=cert)
        is_equal(f.get('SSL_PEER_CERT_HASH'), wanted and cert_hash(wanted), '%r' % options)
    refused(e, 97, ['-y'])
    for option in '-Y', '-y':
        for cert in 'revoked', 'serveronly':
            refused(e, 97, [option], cert=cert)
    f, _ = ask(e, [], cert='revoked')
    is_equal(f.get('SSL_PEER_CERT_HASH'), None)


@test('a server: -C, -K, -v and the options of tls-io, each for its own session')
def _():
    e = engine(server_env(CAFILE=pki() + '/ca.pem'))
    out = temp()
    with open(out, 'wb') as f:
        client, c = serve(e, ['true'], ['-y', '-C', str(f.fileno())], pass_fds=[f.fileno()])
    Peer(client, cert='client').handshake().recv_all()
    client.close()
    is_equal(c.wait(), 0)
    with open(out) as got, open(pki() + '/client.pem') as wanted:
        is_equal(got.read(), wanted.read(), 'certificates of the peer')

    client, c = serve(e, options=['-K', '200'])
    is_equal(client.recv(1), b'')
    is_equal(reason(c, 97), 'the handshake timed out')

    client, c = serve(e, options=['-v', '0', '-K', '200'])
    is_equal((client.recv(1), c.wait(), c.stderr()), (b'', 97, ''))

    _, c = ask(e, ['-v', '2'])
    is_true(c.stderr().startswith('tls-handshake: info: session started: TLSv1.3'), c.stderr())
    wait_for(e.log, 'the end of the session in the log of the engine')
    is_true(e.log()[0].startswith('tls-engine: info: session ended: 0 bytes received'), e.log()[0])

    client, c = serve(e, io=['-s', '-w'])
    peer = Peer(client).handshake()
    speaks(peer)
    is_equal(peer.end_politely(), (b'', 'eof'), '-s')
    is_equal(c.wait(), 0)


@test('a server: several key pairs, by the name that the client sends')
def _():
    p = pki()
    more = {'%sFILE:%s' % (k, name): '%s/%s.%s' % (p, f, x)
            for name, f in (('a.example.org', 'a'), ('b.example.org', 'b'),
                            ('*.wild.example.org', 'wild'))
            for k, x in (('KEY', 'key'), ('CERT', 'pem'))}
    pairs = {'a.example.org': 'a', 'b.example.org': 'b', 'x.wild.example.org': 'wild'}
    e = engine(server_env(**more))
    for name, pair in {**pairs, 'other.example.org': 'server', None: 'server'}.items():
        is_equal(works(e, name=name), cert_hash(pair), 'for %s' % name)

    for env in server_env(TLS_SNI='require', **more), {'TLS_SNI': 'require', **more}:
        e = engine(env)
        for name, pair in pairs.items():
            for version in TLS12, TLS13:
                is_equal(works(e, name=name, min=version, max=version), cert_hash(pair))
        for name in 'other.example.org', None:
            is_equal(refused(e, 97, name=name), 'the client named no known server')


def client_env(**more):
    return {'CAFILE': pki() + '/ca.pem', **more}


@test('a client: -k, -n, -N and -O, each for its own session')
def _():
    e = engine(client_env(), ['-c'])
    for name in 'localhost', 'example.org', '127.0.0.1', 'x.example.net':
        client_works(e, ['-k', name])
    why = client_refuses(e, ['-k', 'wrong.example'])
    is_true("wrong.example' not present in server certificate" in why, why)
    client_works(e, ['-n'], cert='a')
    client_works(e, ['-k', 'a.example.org'], cert='a')
    stranger = 'otherca'
    is_true('certificate' in client_refuses(e, ['-n'], cert=stranger), '-n')
    _, c = client_works(e, ['-N'], cert=stranger)
    is_equal(c.stderr(), 'tls-handshake: warning: -N: anyone may answer as the server, nothing is '
                         'verified\n')
    is_true('certificate' in client_refuses(e, ['-n'], cert=stranger), '-n after -N')
    is_true(client_refuses(e, ['-O', '-k', 'localhost']), '-O')
    client_works(e, ['-k', 'localhost'])
    is_true('neither a host name nor an IP address' in client_refuses(e, ['-k', '*.org'], 96), '-k')


@test('a client: -y shows a certificate, for its own session')
def _():
    e = engine(server_env('client', CAFILE=pki() + '/ca.pem'), ['-c'])
    context = plain_context(client=False, cert='server')
    context.load_verify_locations(pki() + '/ca.pem')
    context.verify_mode = ssl.CERT_OPTIONAL
    for options, cert in ([], None), (['-y'], 'client'), ([], None):
        peer, _ = client_works(e, ['-k', 'localhost', *options], context=context)
        der = peer.tls.getpeercert(True)
        is_equal(der and certificate(peer), cert and cert_hash(cert), '%r' % options)


@test('what the engine has no settings for: the chain needs one of its own, and is told')
def _():
    server, client = engine(), engine(client_env(), ['-c'])
    for option in '-y', '-Y':
        is_equal(refused(server, 96, [option]), OWN_NEEDED)
    is_equal(refused(client, 96), OWN_NEEDED)
    is_equal(client_refuses(server, ['-n'], 96), OWN_NEEDED)
    is_equal(client_refuses(client, ['-n', '-y'], 96), OWN_NEEDED)
    works(server)
    client_works(client, ['-n'])


# The chain's side

@test('TLS_ENGINE and a setting of an own engine: 100, and a line that names the setting')
def _():
    e = engine()
    for name in SETTINGS:
        if name == 'TLS_ENGINE':
            continue
        client, c = serve(e, ['echo', 'served'], env={name: 'value'})
        is_equal((client.recv(1), c.wait()), (b'', 100), 'with ' + name)
        is_equal(c.stderr(), 'tls-handshake: fatal: %s is set, but the engine at TLS_ENGINE has '
                             'settings of its own: unset one of them\n' % name)
    is_equal(e.sessions(), [])


@test('TLS_ENGINE and a setting of an own engine: who holds the network cannot go on in plaintext')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'echo', 'served'], server, keep=True,
              env=server_env(TLS_ENGINE='/nonexistent'))
    is_equal(c.wait(), 100)
    try:
        server.send(b'x')
        raise AssertionError('sent in plaintext')
    except BrokenPipeError:
        pass
    is_equal(client.recv(1), b'')


@test('TLS_ENGINE that names no engine: 111, and a line that says why')
def _():
    d = temp_dir()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(d + '/nobody')
    for path, why in ((d + '/none', 'No such file or directory'),
                      (d + '/nobody', 'Connection refused'), (temp(), 'Connection refused'),
                      (d + '/' + 'x' * 200, None), ('', None)):
        got = refused(path, 111)
        start = 'unable to connect to TLS_ENGINE: '
        is_true(got.startswith(start), got)
        is_true(not why or got == start + why, got)


@test('an engine that hangs up at once, or says nothing: 98, or 97 when time is out')
def _():
    listener, path = listening()
    client, c = serve(path)
    conn, _ = listener.accept()
    conn.recv(4096)  # it has spoken
    conn.close()
    is_equal(client.recv(1), b'')
    is_equal(reason(c, 98), 'the engine is gone')
    is_equal(refused(path, 97, ['-K', '200']), 'the handshake timed out')


@test('delayed TLS: the application knows nothing of the engine')
def _():
    e = engine()
    for prog in STARTTLS_APP, ['sh', '-c', 'test -z "$TLS_ENGINE" && exec "$@"', 'sh',
                               *STARTTLS_APP]:
        client, server = tcp_pair()
        c = Chain(delayed(prog, ['tls-await', 'tls-handshake', 'tls-io']), server,
                  env={'TLS_ENGINE': e.path})
        is_equal(e.sessions(), [], 'sessions in the plaintext phase')
        starttls(client)
        peer = Peer(client).handshake()
        speaks(peer)
        e.wait_sessions(1)
        ends(peer, c)
        e.wait_sessions(0)
    is_equal(e.log(), [])


@test('delayed TLS: without an engine the application cannot go on in plaintext')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(STARTTLS_APP, ['tls-await', 'tls-handshake', 'tls-io']), server,
              env={'TLS_ENGINE': temp_dir() + '/none'})
    starttls(client)
    is_equal(client.recv(1), b'')
    is_equal(c.wait(), 10)


# The rehearsal

@test('what a worker rehearses is not to be seen')
def _():
    p = pki()
    named = {'KEYFILE:a.example.org': p + '/a.key', 'CERTFILE:a.example.org': p + '/a.pem'}
    for env, options, good, bad in (
            ({'TLS_SNI': 'require', **named}, [], {'name': 'a.example.org'}, {}),
            (server_env(TLS_PROTOCOLS='tlsv1.2'), [], {'max': TLS12}, {'min': TLS13}),
            (server_env(TLS_PROTOCOLS='tlsv1.3'), [], {'min': TLS13}, {'max': TLS12}),
            (server_env(CAFILE=p + '/ca.pem'), ['-y'], {'cert': 'client'}, {}),
            (server_env(TLS_ALPN='smtp'), [], {'alpn': ['smtp']}, None),
            (server_env('rsa', TLS_CIPHERS='ECDHE-RSA-AES256-GCM-SHA384'), [], {},
             {'max': TLS12, 'ciphers': 'ECDHE-RSA-AES128-GCM-SHA256'})):
        e = engine(env)
        own, _ = own_facts(env, options, **good)
        for _ in range(2):
            f, _ = ask(e, options, **good)
            is_equal({n: f[n] for n in f if n.startswith('SSL_')}, own, 'facts with %r' % env)
            if bad is not None:
                is_equal(refused(e, 97, options, **bad), own_refusal(env, options, **bad))
        is_equal(e.log(), [])


def own_facts(env, options, **settings):
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'env', '-0'], server, env=env)
    peer = Peer(client, **settings).handshake()
    data, _ = peer.recv_all()
    peer.close_notify()
    client.close()
    is_equal(c.wait(), 0)
    found = dict(v.split('=', 1) for v in data.decode().split('\0') if v)
    return {n: found[n] for n in found if n.startswith('SSL_')}, c


def own_refusal(env, options, **settings):
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    how_it_ends(Peer(client, **settings))
    client.close()
    return reason(c, 97)


run()
