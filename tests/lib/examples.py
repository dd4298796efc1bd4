# ISC licence: see COPYING.
"""Running the examples, and servers for them to talk to."""

import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback

from chain import BIN, TOP, need, without_pid
from peer import Peer
from pki import pki
from scratch import close_later, temp
from sockets import read_line, read_to_end
from tap import SLOW, Skip, is_equal, is_true, wait_for

EXAMPLES = TOP + '/examples'
SBIN = ':/usr/sbin:/sbin:/usr/lib/postfix/sbin'


def sanitizers():
    """The variables that tell sanitizers what to do."""
    return {k: v for k, v in os.environ.items() if k.startswith(('ASAN_', 'UBSAN_'))}


# The examples

class Result:
    """What a program has written, and how it has ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return 'exit code %d\nstdout:\n%.2000s\nstderr:\n%.2000s' % (
            self.code, self.out.decode(errors='replace'), self.err)


def say_in_turn(p, stdin, out, commands):
    """Says each SMTP command to a process when it has answered the one before, in the file out."""
    for command in commands:
        seen = os.fstat(out.fileno()).st_size
        os.write(stdin, command + b'\r\n')
        wait_for(lambda: p.poll() is not None
                 or re.search(rb'^\d{3} .*\r\n\Z', os.pread(out.fileno(), 1 << 20, seen), re.M),
                 'an answer to %r' % command)


def example(*argv, input=b'', env=None, cwd=None):
    """Runs an example, by its name, and waits for its end. input: bytes, or a file's path, or a
    list of SMTP commands, which a patient client says one after the other."""
    need('tcpclient', 's6-ioconnect')
    environment = {'PATH': BIN + ':' + os.environ['PATH'], 'CAFILE': pki() + '/ca.pem',
                   **sanitizers(), **(env or {})}
    argv = [EXAMPLES + '/' + argv[0] if os.path.exists(EXAMPLES + '/' + argv[0]) else argv[0],
            *map(str, argv[1:])]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        patient = isinstance(input, list)
        if patient:
            stdin, commands = os.pipe()
        else:
            stdin = os.open(input if isinstance(input, str) else temp(input), os.O_RDONLY)
        p = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err, env=environment, cwd=cwd,
                             preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
        try:
            if patient:
                say_in_turn(p, commands, out, input)
                os.close(commands)
            p.wait(50 * SLOW)
        except BaseException:
            p.kill()
            p.wait()
            raise
        os.close(stdin)
        out.seek(0)
        err.seek(0)
        return Result(p.returncode, out.read(),
                      without_pid(err.read().decode(errors='replace')))


def is_done(result, code=0):
    """It has ended with that code."""
    is_true(result.code == code, 'wanted exit code %d, but %r' % (code, result))


def is_refused(result, code, *lines):
    """It has ended with that code, these lines on stderr, and nothing on stdout."""
    is_equal((result.code, result.err.splitlines(), result.out), (code, list(lines), b''))


# Servers in a process of their own

def free_port():
    """A port that nobody listens on, and that the kernel gives to nobody who does not ask."""
    with open('/proc/sys/net/ipv4/ip_local_port_range') as f:
        end = int(f.read().split()[0])
    while True:
        port = random.randrange(5000, end)
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                return port
            except OSError:
                pass


class Daemon:
    """A server that stays in the foreground, until the test is over. log() is its output, on 0,
    too, where vsftpd puts it."""

    def __init__(self, argv, env=None, cwd=None):
        program = shutil.which(argv[0], path=os.environ['PATH'] + SBIN)
        if not program:
            raise Skip('%s is not installed' % argv[0])
        self._log = tempfile.TemporaryFile()
        self.p = subprocess.Popen(
            [program, *argv[1:]], stdin=self._log, stdout=self._log, stderr=self._log,
            env={'PATH': os.environ['PATH'] + SBIN, **sanitizers(), **(env or {})}, cwd=cwd,
            start_new_session=True)
        close_later(self, first=True)  # to be stopped before its files are removed

    def log(self):
        return without_pid(os.pread(self._log.fileno(), 1 << 20, 0).decode(errors='replace'))

    def wait_port(self, *ports):
        """Waits until it listens on all these."""
        for port in ports:
            wait_for(lambda: self.p.poll() is not None or port_is_open(port), 'port %d' % port)
        is_equal(self.p.poll(), None, 'exit code of the server, which says:\n' + self.log())
        return self

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(5 * SLOW)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.p.wait()
        self._log.close()


def port_is_open(port, host='127.0.0.1'):
    """Whether somebody listens on just that."""
    wanted = '%08X:%04X' % (int.from_bytes(socket.inet_aton(host), sys.byteorder), port)
    with open('/proc/net/tcp') as f:
        return any(line.split()[1] == wanted and line.split()[3] == '0A' for line in f)


def as_user(user, argv):
    """The arguments that run a program as a user of the system."""
    return ['setpriv', '--reuid', user, '--regid', user, '--clear-groups', *argv]


# Servers that a test plays itself

class Played:
    """A server in a thread: play(talk) for each connection, one after the other, with a Talk.

    After the test of the client, join() raises what the player raised, and tells the connections.
    """

    def __init__(self, *plays, host='127.0.0.1', port=0):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self._listener.settimeout(20 * SLOW)
        self.port = self._listener.getsockname()[1]
        self.talks = []
        self._error = None
        self._thread = threading.Thread(target=self._run, args=[plays], daemon=True)
        self._thread.start()
        close_later(self)

    def _run(self, plays):
        try:
            for play in plays:
                sock, _ = self._listener.accept()
                with sock:
                    sock.settimeout(20 * SLOW)
                    talk = Talk(sock)
                    self.talks.append(talk)
                    play(talk)
        except BaseException:
            self._error = traceback.format_exc()

    def join(self):
        self._thread.join(30 * SLOW)
        if self._error:
            raise AssertionError('the server that the test plays:\n' + self._error)
        is_true(not self._thread.is_alive(), 'all connections were made')

    def late(self):
        """How many more connections clients have made than there was a part for."""
        self._listener.settimeout(0)
        n = 0
        try:
            while True:
                self._listener.accept()[0].close()
                n += 1
        except BlockingIOError:
            return n

    def close(self):
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits for a client ends
        self._listener.close()
        self._thread.join(30 * SLOW)


class Talk:
    """The server's side of a connection. said is all that the client has said in plaintext."""

    def __init__(self, sock):
        self.sock = sock
        self.said = b''
        self.peer = None

    def say(self, text):
        data = text.encode() if isinstance(text, str) else text
        if self.peer:
            self.peer.send(data)
        else:
            self.sock.sendall(data)

    def recv(self, n):
        if self.peer:
            return self.peer.recv(n)
        data = self.sock.recv(n)
        self.said += data
        return data

    def line(self):
        """The next line; what there is, at the end."""
        return read_line(self).decode()

    def hear(self, pattern):
        """The next line matches the pattern."""
        line = self.line()
        is_true(re.fullmatch(pattern + '\r\n', line), 'client says %r, not %s' % (line, pattern))

    def until(self, pattern):
        """What comes next matches the pattern."""
        got = b''
        while not re.search(pattern + r'\Z', got.decode()):
            got += self.exactly(1)

    def exactly(self, n):
        """That many bytes."""
        got = b''
        while len(got) < n:
            data = self.recv(n - len(got))
            is_true(data, 'the client goes on after %r' % got)
            got += data
        return got

    def rest(self):
        """All up to the end."""
        return read_to_end(self, ConnectionResetError)

    def start_tls(self, cert='server', **settings):
        self.peer = Peer(self.sock, client=False, cert=cert, **settings).handshake()

    def hand_on(self, port):
        """From here on, the client talks to another server; until both have ended."""
        with socket.create_connection(('127.0.0.1', port)) as other:
            ends = {self.sock: other, other: self.sock}
            while ends:
                for source in select.select(list(ends), [], [])[0]:
                    try:
                        data = source.recv(65536)
                        ends[source].sendall(data)
                        if not data:
                            ends.pop(source).shutdown(socket.SHUT_WR)
                    except OSError:
                        return

    def reset(self):
        """Ends it all with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        self.sock.close()

    def end(self):
        """Ends TLS politely; what the client still said."""
        return self.peer.end_politely()


# What they do in a session that a policy may refuse

SAY_HELLO = ['sh', '-c', 'echo hello >&7; cat <&6']


def greets(cert='server'):
    """A server with this certificate that gets a line, answers it, and ends."""
    def play(talk):
        talk.start_tls(cert=cert)
        is_equal(talk.line(), 'hello\n')
        talk.say('hello from %s\n' % cert)
        is_equal(talk.end(), (b'', 'close_notify'))
    return play


def gets_nothing(cert='server'):
    """A server whose session ends before a byte has passed."""
    def play(talk):
        talk.start_tls(cert=cert)
        is_equal(talk.peer.recv_all(), (b'', 'eof'), 'what the client says in TLS')
    return play
