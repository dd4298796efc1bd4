# ISC licence: see COPYING.
"""Sessions for the tests of the relay.

    peer, c = join_app(['cat'])            # a client, handshake done, and the chain serving it
    peer, c = join_app(['cat'], delayed=True)  # the same by tls-ctl-open; cat upgrades at once

    s = Session()                          # the application's descriptors are in the test's hands
    s.output.write(b'hello')               # what the application writes
    is_equal(s.peer.recv(5), b'hello')     # what the client gets
    s.peer.send(b'world')
    is_equal(s.input.read(5), b'world')    # what the application reads
"""

import hashlib
import random
import socket
import threading

from chain import PYTHON, Chain
from peer import TLS13, Peer
from pki import server_env
from proc import is_alive
from processes import engines
from scratch import close_later
from sockets import tcp_pair
from tap import SLOW, is_equal, is_true, wait_for

# An application that speaks UCSPI-TLS and asks for TLS before anything else.
UPGRADE = '''
  importas -i sslctl SSLCTLFD importas -i sslread SSLREADFD importas -i sslwrite SSLWRITEFD
  foreground { fdmove 1 $sslctl printf y } fdclose $sslctl fdmove 0 $sslread fdmove 1 $sslwrite
'''

# An application that gives its descriptors 0 and 1 away over the socket it is told, and exits.
GIVE = 'import socket, sys; ' \
    'socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [0, 1]); sys.exit(%d)'


# An application that ends also if nobody takes a byte of it: its pipe holds all that it writes.
FILL_PIPE = ['head', '-c', '60000', '/dev/zero']


def quoted(argv):
    return ' '.join('"%s"' % a.replace('\\', '\\\\').replace('"', '\\"') for a in argv)


def serve_app(app, delayed=False, verbosity='1', io=(), env=None, sndbuf=None, rcvbuf=None, **kw):
    """A chain that serves one connection to app; the client's end of that, and the chain.
    sndbuf, rcvbuf: the sizes of the socket buffers on the way to the client."""
    client, server = tcp_pair()
    if sndbuf:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    if rcvbuf:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    tls = ['tls-handshake', '-v', verbosity, 'tls-io', *io]
    argv = [*tls, *app]
    if delayed:
        argv = 'tls-ctl-open { tls-await %s } %s %s' % (quoted(tls), UPGRADE, quoted(app))
    return client, Chain(argv, server, env=server_env(**(env or {})), **kw)


def join_app(app, version=TLS13, client=None, **kw):
    """client: makes a peer from the socket and the version, a Peer if it is not given."""
    sock, c = serve_app(app, **kw)
    peer = client(sock, version) if client else Peer(sock, min=version, max=version)
    return peer.handshake(), c


class Session:
    """A client and an application that a chain has joined, both in the test's hands: peer is the
    client, input is where the application reads, output is where it writes. code: what the
    application exits with, once it has handed over."""

    def __init__(self, version=TLS13, code=0, io=(), **kw):
        mine, its = socket.socketpair()
        before = engines()
        with mine, its:
            self.peer, self.chain = join_app([*PYTHON, GIVE % code, str(its.fileno())], version,
                                             io=io, pass_fds=[its.fileno()], **kw)
            self.engine, = set(engines()) - set(before)
            fds = socket.recv_fds(mine, 1, 2)[1]
        self.input = open(fds[0], 'rb', buffering=0)
        self.output = open(fds[1], 'wb', buffering=0)
        close_later(self.input, self.output)
        if '-w' not in io:
            is_equal(self.chain.wait(), code, 'exit code')

    def read(self, n):
        """What the application reads: n bytes, fewer at the end of file."""
        got = bytearray()
        while len(got) < n:
            data = self.input.read(min(n - len(got), 1 << 20))
            if not data:
                break
            got += data
        return bytes(got)

    def is_gone(self):
        return not is_alive(self.engine)

    def wait_gone(self, seconds=20):
        wait_for(self.is_gone, 'the end of the engine', seconds)


def output_breaks(s):
    """Whether the application is told, as it writes, that nobody reads."""
    try:
        s.output.write(b'x')
    except BrokenPipeError:
        return True
    return False


def write_all(f, content):
    for i in range(0, len(content), 65536):
        f.write(content[i:i + 65536])


# Data

_sample = b''


def sample_data(n):
    """n bytes that look random and are the same every time."""
    global _sample
    if len(_sample) < n:
        _sample = random.Random(1).randbytes(n + -n % 4)  # so that a longer one begins with it
    return _sample[:n]


def sha256(s):
    return hashlib.sha256(s).hexdigest()


def is_same(got, wanted, what):
    """Byte-exact; says of data that differ how long they are and their hashes."""
    is_equal((len(got), sha256(got)), (len(wanted), sha256(wanted)), what)


# What goes on at the same time

class Background(threading.Thread):
    """Calls a function while the test goes on. finish() waits for its end, and raises what it
    raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._call = lambda: function(*args)
        self._exception = None
        self.start()

    def run(self):
        try:
            self._call()
        except Exception as e:
            self._exception = e

    def finish(self):
        self.join(30 * SLOW)
        is_true(not self.is_alive(), 'it does not end')
        if self._exception:
            raise self._exception


def fails(job, kind):
    """Waits for a Background job that has to end by this exception."""
    try:
        job.finish()
    except kind:
        return
    raise AssertionError('it does not fail by ' + kind.__name__)
