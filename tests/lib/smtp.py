# ISC licence: see COPYING.
"""SMTP clients: one that the test plays, line by line, in plaintext and in TLS; swaks."""

import subprocess

from chain import need
from peer import Peer
from sockets import read_line, read_to_end
from tap import SLOW, is_equal, is_true


class SmtpTalk:
    """A client on a connection, in plaintext, or after start_tls()."""

    def __init__(self, sock):
        self.sock = sock
        self.peer = None

    def send(self, data):
        (self.peer.send if self.peer else self.sock.sendall)(data)

    def recv(self, n):
        return (self.peer or self.sock).recv(n)

    def answers(self):
        """The lines of the next answer."""
        lines = []
        while not lines or lines[-1][3:4] == '-':
            line = read_line(self)
            is_true(line.endswith(b'\r\n'), 'the session goes on after %r %r' % (lines, line))
            lines.append(line.decode()[:-2])
        return lines

    def ask(self, line):
        """Sends a line; all that is answered, in one string."""
        self.send(line.encode() + b'\r\n')
        return ' / '.join(self.answers())

    def start_tls(self):
        """TLS, with the server verified; its go-ahead has been read."""
        self.peer = Peer(self.sock, verify=True).handshake()
        return self

    def rest(self):
        """All up to the end, which in TLS is a polite one."""
        if self.peer:
            data, end = self.peer.recv_all()
            is_equal(end, 'close_notify', 'the end, after %r' % data)
        else:
            data = read_to_end(self.sock)
        self.sock.close()
        return data


def run_swaks(port, *options):
    """swaks, as client.example; how it has ended, all that it says being its stdout."""
    need('swaks')
    return subprocess.run(
        ['swaks', '--server', '127.0.0.1', '--port', str(port), '--ehlo', 'client.example',
         '--timeout', '%ds' % (30 * SLOW), *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
