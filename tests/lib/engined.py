# ISC licence: see COPYING.
"""A resident engine under test, and sessions through it.

    e = start_engine()              # tls-engined with the settings of a server, ready
    peer, c = join_through(e)       # a client, handshake done, and the chain that serves it
    ends_well(peer, c)
    works_through(e)                # all of that
"""

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile

from chain import BIN, Chain, need, reason, without_debugging, without_pid
from peer import Peer
from pki import pki, server_env
from proc import SIGNER, children_of, comm_of, fds_of, is_alive
from scratch import close_later, temp, temp_dir
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, wait_for

LOADED = 'tls-engined: info: new settings loaded'
ENGINE_UID, ENGINE_GID = 60011, 60012  # nobody needs to have that name
CHANNELS_AHEAD = 16  # to the signer
DROP = {'TLS_UID': str(ENGINE_UID), 'TLS_GID': str(ENGINE_GID)}


# The engine

class Engine:
    """tls-engined with these settings and options. listener: what its descriptor 0 is, else it
    gets a socket of s6-ipcserver-socketbinder, at path. bound: what that is told. as_user: whose
    the engine is, by number."""

    def __init__(self, env, options=(), listener=None, notify=True, bound=(), as_user=None,
                 **kw):
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
        if as_user:
            need('setpriv')
            argv[:0] = ['setpriv', '--reuid=%d' % as_user, '--regid=%d' % as_user, '--clear-groups']
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
        """The lines so far, each without its process number."""
        return without_pid(self.log_raw()).splitlines()

    def log_raw(self):
        """The same as it was written."""
        size = os.fstat(self._err.fileno()).st_size
        return without_debugging(os.pread(self._err.fileno(), size, 0).decode(errors='replace'))

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
        return [pid for worker in self.workers() for pid in children_of(worker)
                if comm_of(pid) != SIGNER]

    def signers(self):
        return [pid for worker in self.workers() for pid in children_of(worker)
                if comm_of(pid) == SIGNER]

    def wait_sessions(self, n):
        return wait_for(lambda: (lambda s: len(s) == n and (s or [0]))(self.sessions()),
                        '%d sessions' % n)

    def close(self):
        if self._p.poll() is None:
            self._p.kill()
            self._p.wait()
        self._err.close()


def listening_socket(backlog=5):
    """A listening socket of ours, which goes with the test, and its path."""
    path = temp_dir() + '/engine'
    listener = socket.socket(socket.AF_UNIX)
    close_later(listener)
    listener.bind(path)
    listener.listen(backlog)
    return listener, path


def start_engine(env=None, options=(), **kw):
    """An engine that is ready; the settings are a server's if they are not told."""
    return Engine(server_env() if env is None else env, options, **kw).ready()


def fds_held(pid):
    """The descriptors of a process that nobody but root may look at."""
    if os.getuid():
        raise Skip('not root: a confined process cannot be looked at')
    return fds_of(pid)


def holds_as_before(pid, before):
    """A worker, or its signer, holds what it held, but for the channels that are made ahead."""
    now = fds_held(pid)
    is_true(abs(len(now) - len(before)) < CHANNELS_AHEAD, 'descriptors: %r, %r' % (before, now))
    others = [{fd: what for fd, what in held.items() if not what.startswith('socket:')}
              for held in (now, before)]
    is_equal(*others, 'descriptors of process %d' % pid)


def wait_deaf(*pids):
    """Waits until these workers do not listen any more."""
    def closed():
        try:
            return not any(is_alive(pid) and 0 in fds_held(pid) for pid in pids)
        except FileNotFoundError:
            return False
    wait_for(closed, 'the door to close')


# Its files

class KeyFiles:
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


def slow_file():
    """A CAFILE that takes long enough to be read for somebody to be stopped on the way."""
    with open(pki() + '/ca.pem') as f:
        return temp(f.read() * 1000)


# Sessions through it

def serve_through(e, prog=('cat',), options=(), io=(), env=None, **kw):
    """A client's socket and a chain that serves it through the engine."""
    client, server = tcp_pair()
    return client, Chain(['tls-handshake', *options, 'tls-io', *io, *prog], server,
                         env={'TLS_ENGINE': engine_path(e), **(env or {})}, **kw)


def engine_path(e):
    return e if isinstance(e, str) else e.path


def join_through(e, prog=('cat',), options=(), io=(), settings={}, **kw):
    """A client whose handshake is done, its session in use, and the chain."""
    client, c = serve_through(e, prog, options, io, **kw)
    peer = Peer(client, **settings).handshake()
    is_echoed(peer)
    return peer, c


def works_through(e, options=(), **settings):
    """A whole session through the engine; the certificate that it has shown."""
    peer, c = join_through(e, options=options, settings=settings)
    ends_well(peer, c)
    return shown_hash(peer)


def shown_hash(peer):
    return 'SHA256:' + hashlib.sha256(peer.tls.getpeercert(True)).hexdigest()


def refused_by(e, code, options=(), env=None, **settings):
    """Why a chain is not served: the one line that it writes. The client is hung up, even if
    somebody still holds the network."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, keep=True,
              env={'TLS_ENGINE': engine_path(e), **(env or {})})
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


def client_through(e, options, prog=('sh', '-c', 'cat <&6 >&7'), env=None, io=('-w',)):
    """The server's end of a connection, and a chain of a client through the engine."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    client.setblocking(True)
    c = Chain(['tls-handshake', '-c', *options, 'tls-io', *io, *prog], client, client=True,
              env={'TLS_ENGINE': e.path, **(env or {})})
    return server, c


def client_works(e, options, **settings):
    """A whole session of a client; its server."""
    server, c = client_through(e, options)
    peer = Peer(server, client=False, **{'cert': 'server', **settings}).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0, 'exit code (stderr: %r)' % c.stderr())
    return peer, c


def client_refuses(e, options, code=97, **settings):
    """Why a client does not take the server."""
    server, c = client_through(e, options)
    how_it_ends(Peer(server, client=False, **{'cert': 'server', **settings}))
    server.close()
    return reason(c, code)


def facts_through(e, options=(), env=None, **settings):
    """The environment of an application behind the engine."""
    client, c = serve_through(e, ['env', '-0'], options, env=env)
    peer = Peer(client, **settings).handshake()
    data, end = peer.recv_all()
    peer.close_notify()
    client.close()
    is_equal((c.wait(), end), (0, 'close_notify'))
    return dict(v.split('=', 1) for v in data.decode().split('\0') if v), c
