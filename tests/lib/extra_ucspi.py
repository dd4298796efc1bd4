# ISC licence: see COPYING.
"""Applications that speak UCSPI-TLS, and what else the tests of the chainloaders share."""

import fcntl
import os
import socket

from chain import PYTHON, find_processes, is_equal, is_true, wait_for, _open_files
from tap import Skip


# Chains

def block(argv):
    """A block, as execlineb hands it to a program."""
    return [' ' + a for a in argv] + ['']


def script(text, *argv):
    """An execline script; $@ in it is argv."""
    return ['execlineb', '-S0', '-c', text, *argv]


def delayed(application, tlsside=('tls-await', 'tls-handshake', 'tls-io'), options=()):
    """tls-ctl-open { tlsside } application"""
    return ['tls-ctl-open', *options, *block(tlsside), *application]


def dies(c, code, line):
    """The chain exits with that code, having written that line to stderr and nothing else."""
    is_equal(c.wait(), code, 'exit code')
    is_equal(c.stderr().splitlines(), [line], 'stderr')


def dies_of_usage(c):
    """The chain exits 100 with the usage of its program."""
    program = os.path.basename(c.argv[0])
    is_equal(c.wait(), 100, 'exit code of %r' % c.argv)
    lines = c.stderr().splitlines()
    is_equal(len(lines), 1, 'lines on stderr of %r' % c.argv)
    is_true(lines[0].startswith('%s: usage: %s [' % (program, program)), 'usage: ' + lines[0])


def not_under_valgrind(why):
    if os.environ.get('TEST_VALGRIND'):
        raise Skip('valgrind ' + why)


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


def exit_code(pid):
    """Waits for a process whose parent is gone, so that it is ours; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_process(name):
    """Waits until a process of that name runs; its pid."""
    return wait_for(lambda: find_processes(name), name)[0]


def wait_asleep(pid):
    """Waits until a process waits for something."""
    wait_for(lambda: state_of(pid) == 'S', 'process %d to sleep' % pid)


def state_of(pid):
    with open('/proc/%d/stat' % pid) as f:
        return f.read().rpartition(')')[2].split()[0]


def wait_gone(pid):
    """Waits until a process has ended, reaped or not."""
    def gone():
        try:
            return state_of(pid) in 'ZX'
        except (FileNotFoundError, ProcessLookupError):
            return True
    wait_for(gone, 'the end of %d' % pid)


# Variables: what only the TLS side reads, the descriptors of the TLS side, what is known of a
# session, the application's descriptors.

SETTINGS = ['KEYFILE', 'CERTFILE', 'OCSPFILE', 'KEYFILE:a.example.org', 'CERTFILE:a.example.org',
            'OCSPFILE:a.example.org', 'CERTFILE:*.example.net', 'KEYFILE:*.example.net', 'CAFILE',
            'CADIR', 'CRLFILE', 'TLS_SNI', 'TLS_PROTOCOLS', 'TLS_CIPHERS', 'TLS_CURVES',
            'TLS_ALPN', 'TLS_UID', 'TLS_GID', 'TLS_ENGINE']
PLUMBING = ['TLS_CTLFD', 'TLS_PLAINRFD', 'TLS_PLAINWFD', 'TLS_SESSIONFD', 'TLS_NETRFD',
            'TLS_NETWFD']
FACTS = ['SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_TLS_SNI_SERVERNAME', 'SSL_ALPN',
         'SSL_CIPHER_USEKEYSIZE', 'SSL_SESSION_RESUMED', 'SSL_PEER_CERT_HASH',
         'SSL_PEER_CERT_SUBJECT', 'SSL_PEER_CERT_ISSUER', 'SSL_PEER_CERT_NOTBEFORE',
         'SSL_PEER_CERT_NOTAFTER']
UCSPI = ['SSLCTLFD', 'SSLREADFD', 'SSLWRITEFD']


# Applications. Each starts with these lines.

UCSPI_TLS = '''
import os, sys
ctl, r, w = (int(os.environ[n]) for n in ('SSLCTLFD', 'SSLREADFD', 'SSLWRITEFD'))

def read_line(fd):
    s = b''
    while not s.endswith(b'\\n'):
        c = os.read(fd, 1)
        if not c:
            break
        s += c
    return s

def read_all(fd):
    s = b''
    while True:
        more = os.read(fd, 4096)
        if not more:
            return s
        s += more

def write(fd, s):
    while s:
        s = s[os.write(fd, s):]

def greet(netr=0, netw=1):
    read_line(netr)
    write(netw, b'go ahead\\n')

def wait():
    return os.waitstatus_to_exitcode(os.wait()[1])

def ask(command=b'Y'):
    os.write(ctl, command)
    return read_all(ctl)
'''


def application(code):
    """An application of that Python code; it may use what is above."""
    return PYTHON + [UCSPI_TLS + code]


ECHO = '''
while True:
    s = os.read(r, 4096)
    if not s:
        break
    write(w, s)
'''


# Clients

class Recorder:
    """A socket that remembers what came in."""

    def __init__(self, sock):
        self.sock, self.raw = sock, b''

    def recv(self, n):
        data = self.sock.recv(n)
        self.raw += data
        return data

    def __getattr__(self, name):
        return getattr(self.sock, name)


def starttls(client):
    """The client's side of greet()."""
    client.sendall(b'starttls\n')
    is_equal(read_line(client), b'go ahead\n', 'plaintext answer')


def read_line(sock):
    s = b''
    while not s.endswith(b'\n'):
        c = sock.recv(1)
        if not c:
            break
        s += c
    return s


def read_all(sock):
    """All that comes up to the end, in plaintext."""
    s = b''
    while True:
        more = sock.recv(65536)
        if not more:
            return s
        s += more


def all_of(peer):
    """What a program that ends by itself says, and how that ended; then the peer ends, too."""
    got = peer.recv_all()
    peer.end_politely()
    return got


def unix_pair():
    """A socket pair that goes with the test."""
    pair = socket.socketpair()
    _open_files.extend(pair)
    return pair
