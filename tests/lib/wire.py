# ISC licence: see COPYING.
"""tls-engine with the session socket in the test's hands, as tls-session(7) has it.

    e = OwnEngine(server_env(), peer=b'192.0.2.1')   # START is sent
    peer = Peer(e.client).handshake()
    e.facts()[0]                                     # SSL_PROTOCOL, as FACTS has it
    app = e.join()                                   # a socket whose other end is the session's
"""

import os
import socket
import struct

from chain import Chain
from pki import server_env
from scratch import close_later
from sockets import read_to_end, tcp_pair, unix_pair
from tap import is_equal

JOIN = b'J\1\0\0' + bytes(4)


def start_text(version=2, role=0, name=b'', peer=b'', verbosity=1, peercert=0, verify=0):
    """The body of START."""
    return b'S' + bytes([version, role, peercert, verify, 0, verbosity]) + name + b'\0' + peer


def framed(text, fds=None, n=0):
    """A unixmessage: its length and the number of its descriptors, and then itself."""
    return struct.pack('>IH', len(text), n if fds is None else len(fds)) + text


class OwnEngine:
    """tls-engine that has had its START; client is the other end of the network. net: that, and
    what START hands over, in place of a TCP connection. command: how to start it. The rest is a
    Chain's, and what start_text takes."""

    def __init__(self, env=None, net=None, command=('tls-engine',), preexec=None, keep=False,
                 **start):
        client, server = tcp_pair()
        self.client, fds = net or (client, [server.fileno()] * 2)
        self.server = server
        self.chain, its = unix_pair()
        self.process = Chain(list(command), its, env=server_env() if env is None else env,
                             preexec=preexec)
        socket.send_fds(self.chain, [framed(start_text(**start), fds)], fds)
        if not keep:
            server.close()
        self.pid = self.process.pid

    def receive(self):
        """The next message; empty if there is none any more."""
        head = self.chain.recv(6, socket.MSG_WAITALL)
        return self.chain.recv(struct.unpack('>IH', head)[0], socket.MSG_WAITALL) if head else b''

    def facts(self):
        """FACTS, as a dictionary from the number of a fact to its value."""
        text = self.receive()
        is_equal(text[:1], b'F', 'FACTS: %r' % text)
        found, text = {}, text[1:]
        while text:
            value, _, rest = text[1:].partition(b'\0')
            found[text[0]], text = value, rest
        return found

    def join(self):
        """Joins the session to a socket, whose other end is the answer."""
        mine, its = unix_pair()
        self.send(JOIN, [its.fileno()] * 2)
        is_equal(self.receive(), b'K', 'JOINED')
        its.close()
        return mine

    def send(self, text, fds=()):
        if fds:
            socket.send_fds(self.chain, [framed(text, fds)], fds)
        else:
            self.chain.sendall(framed(text))

    def lines(self):
        """What it has written, each line without its process number, which is its own."""
        found = []
        for line in self.process.stderr_raw().splitlines():
            head = 'tls-engine: pid %d: ' % self.pid
            is_equal(line[:len(head)], head, 'the beginning of a line')
            found.append(line[len(head):])
        return found

    def failed(self):
        """The code and the reason of FAILED."""
        text = self.receive()
        is_equal((text[:1], len(text) > 19), (b'X', True), 'FAILED: %r' % text)
        return text[1], text[19:].decode()

    def refusal(self):
        """The same, once it has ended."""
        told = self.failed()
        is_equal(read_to_end(self.chain), b'', 'what comes after it')
        return told


class Pipes:
    """A network of two pipes, as a socket for a Peer. fds are the other ends, which the chain
    reads from and writes to."""

    def __init__(self):
        (r, self._w), (self._r, w) = os.pipe(), os.pipe()
        self.fds = [r, w]
        self._open = {r, w, self._r, self._w}
        close_later(self)

    def recv(self, n):
        return os.read(self._r, n)

    def sendall(self, data):
        while data:
            data = data[os.write(self._w, data):]

    def shutdown(self, how=None):
        self._close(self._w)

    def _close(self, fd):
        if fd in self._open:
            os.close(fd)
            self._open.remove(fd)

    def close(self):
        for fd in list(self._open):
            self._close(fd)
