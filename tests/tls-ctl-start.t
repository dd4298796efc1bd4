#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-ctl-start: the application's side of UCSPI-TLS. The TLS side is played by the test.

import itertools
import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (BIN, PYTHON, Chain, delayed, descriptors, dies, dies_of_usage,
                   dies_without_program, not_under_valgrind)
from peer import TLS12, Peer
from pki import server_env
from proc import fds_of, state_of
from processes import wait_asleep
from scratch import close_later, temp
from sockets import read_line, read_to_end, tcp_pair, unix_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import FACTS, UCSPI_FDS, starttls

REPLY = b'SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=AEAD-AES256-GCM-SHA384\0\0'
INHERITED = {int(fd) for fd in os.listdir('/proc/self/fd')
             if os.path.exists('/proc/self/fd/' + fd) and os.get_inheritable(int(fd))} - {0, 1, 2}
GONE = 'tls-ctl-start: fatal: TLS did not start: see what the TLS side logged'


ECHO = '''
import os
while s := os.read(%d, 4096):
    os.write(%d, s)
'''


class TLSSide:
    """What a TLS side holds: ctl, and the pipes to the application: input, which the application
    reads, and output, which it writes. The application is c, on descriptors of these numbers."""

    def __init__(self, *argv, ctl=10, r=11, w=12, env=None, fds={}):
        self.ctl, control = unix_pair()
        self.ctl.settimeout(30 * SLOW)
        read, self.input = pipe()
        self.output, write = pipe()
        table = {**fds, ctl: control.fileno(), r: read.fileno(), w: write.fileno()}
        numbers = {'SSLCTLFD': str(ctl), 'SSLREADFD': str(r), 'SSLWRITEFD': str(w)}
        env = {k: v for k, v in {**numbers, **(env or {})}.items() if v is not None}
        self.c = Chain(['tls-ctl-start', *argv], client=True, preexec=descriptors(table), env=env)
        for f in control, read, write:
            f.close()

    def is_joined(self, code=0):
        """The application, an echo, is on the pipes, and ends with its input."""
        self.input.write(b'hello')
        is_equal(self.output.read(5), b'hello', 'echo')
        self.input.close()
        is_equal(self.output.read(), b'', 'the end')
        is_equal(self.c.wait(), code, 'exit code')
        is_equal(self.c.stderr(), '', 'stderr')

    def reply(self, data, then_close=True):
        is_equal(self.ctl.recv(10), b'Y', 'command')
        self.ctl.sendall(data)
        if then_close:
            self.ctl.close()


def pipe():
    """The two ends of a pipe, as files that go with the test."""
    r, w = os.pipe()
    files = open(r, 'rb', buffering=0), open(w, 'wb', buffering=0)
    close_later(*files)
    return files


def environment(reply=REPLY, options=(), env=None):
    """What the program finds in the environment, less PATH."""
    t = TLSSide(*options, 'env', '-0', env=env)
    if '-y' not in options:
        t.reply(reply)
    found = dict(v.split('=', 1) for v in t.output.readall().decode().split('\0') if v)
    is_equal(t.c.wait(), 0)
    path = found.pop('PATH')  # before it is what a wrapper has put there: that of valgrind is one
    if os.environ.get('TEST_VALGRIND'):  # which leaves this empty
        is_equal(found.pop('LD_PRELOAD'), '')
    is_true(path.endswith(BIN + ':' + os.environ['PATH']), 'PATH: ' + path)
    return {k: v for k, v in found.items() if not k.startswith(('ASAN_', 'UBSAN_', 'TEST_'))}


# What it does

@test('asks with Y, waits for the reply, and becomes the program, on 0 and 1')
def _():
    t = TLSSide('cat')
    pid = t.c.pid
    is_equal(t.ctl.recv(10), b'Y')
    wait_asleep(pid)
    is_equal(program_of(pid), 'tls-ctl-start', 'without a reply')
    t.ctl.sendall(REPLY)
    wait_for(lambda: program_of(pid) == 'cat', 'the program')
    t.is_joined()


def program_of(pid):
    """Which of the two it is; None in between."""
    with open('/proc/%d/cmdline' % pid, 'rb') as f:
        names = {os.path.basename(a) for a in f.read().split(b'\0')}
    return next((name for name in ('tls-ctl-start', 'cat') if name.encode() in names), None)


@test('-c: the program of a client has it on 6 and 7')
def _():
    t = TLSSide('-c', 'sh', '-c', 'cat <&6 >&7')
    t.reply(REPLY)
    t.is_joined()


@test('-y: asks with y, and waits for nothing')
def _():
    for options, prog in (['-y'], ['cat']), (['-cy'], ['sh', '-c', 'cat <&6 >&7']):
        t = TLSSide(*options, *prog)
        is_equal(t.ctl.recv(10), b'y')
        t.is_joined()


@test('says nothing but that one byte, and closes the control socket')
def _():
    for options in [], ['-y']:
        t = TLSSide(*options, 'cat')
        is_equal(t.ctl.recv(10), b'y' if options else b'Y')
        if not options:
            t.ctl.sendall(REPLY)
        is_equal(t.ctl.recv(10), b'', 'what else it says')
        t.is_joined()


@test('the program and its arguments are handed on as they are')
def _():
    t = TLSSide('printf', '%s,', '-y', '', 'a b', '-c')
    t.reply(REPLY)
    is_equal(t.output.readall(), b'-y,,a b,-c,')
    is_equal(t.c.wait(), 0)


# The reply

@test('the variables of the reply, and nothing of UCSPI-TLS, are in the environment')
def _():
    is_equal(environment(), {'SSL_PROTOCOL': 'TLSv1.3', 'SSL_CIPHER': 'AEAD-AES256-GCM-SHA384'})
    many = {'SSL_N%d' % i: '=' * i for i in range(100)}
    is_equal(environment(''.join('%s=%s\0' % v for v in many.items()).encode() + b'\0'), many)


@test('what is there already stays, but for UCSPI-TLS and for what is known of an outer session')
def _():
    outer = {n: 'outer' for n in FACTS}
    mine = {'UCSPITLS': '', 'TCPREMOTEIP': '192.0.2.1', 'SSL_OTHER': 'x', 'A': 'b=c'}
    is_equal(environment(env={**outer, **mine}),
             {**mine, 'SSL_PROTOCOL': 'TLSv1.3', 'SSL_CIPHER': 'AEAD-AES256-GCM-SHA384'})
    is_equal(environment(options=['-y'], env={**outer, **mine}), mine)


@test('a reply without any variable will do')
def _():
    is_equal(environment(b'\0'), {})


@test('the reply may come in pieces, and its end need not be a close')
def _():
    t = TLSSide('env')
    is_equal(t.ctl.recv(10), b'Y')
    for i in range(len(REPLY) - 1):
        t.ctl.send(REPLY[i:i + 1])
        wait_for(lambda: state_of(t.c.pid) == 'S', 'it to read that')
    is_equal(program_of(t.c.pid), 'tls-ctl-start')
    t.ctl.send(REPLY[-1:])
    is_true(b'SSL_CIPHER=AEAD-AES256-GCM-SHA384\n' in t.output.readall(), 'the last variable')
    is_equal(t.c.wait(), 0)


@test('nothing else of a reply: no other variable can be set or unset')
def _():
    hostile = [b'LD_PRELOAD=/evil.so', b'PATH=/evil', b'IFS=x', b'ENV=/evil', b'BASH_ENV=/evil',
               b'HOME=/evil', b'SSLCTLFD=5', b'SSLREADFD=5', b'ssl_cipher=x', b' SSL_X=x', b'=x',
               b'A', b'PATH', b'KEEP', b'SSL', b'SSL_KEEP', b'SSL_', b'LD_PRELOAD', b'\n',
               b'SSL_CERT_FILE=/evil.pem', b'SSL_CERT_DIR=/evil', b'SSLKEYLOGFILE=/evil',
               b'TLS_SESSIONFD=0', b'KEYFILE=/evil']
    kept = {'KEEP': '1', 'SSL_KEEP': '2', 'HOME': '/root'}
    facts = {'SSL_PROTOCOL': 'TLSv1.3', 'SSL_CIPHER': 'AEAD-AES256-GCM-SHA384'}
    for line in hostile:
        is_equal(environment(line + b'\0' + REPLY, env=kept), {**kept, **facts}, 'first %r' % line)
    is_equal(environment(REPLY[:-1] + b'\0'.join(hostile) + b'\0\0', env=kept), {**kept, **facts})


@test('a reply that ends too early: 97, and the program is not run')
def _():
    for said in (b'', b'S', b'SSL_PROTOCOL=TLSv1.3', b'SSL_PROTOCOL=TLSv1.3\0', REPLY[:-2],
                 REPLY[:-1]):
        t = TLSSide('echo', 'ran')
        t.reply(said)
        is_equal(t.output.readall(), b'', 'what the program writes')
        dies(t.c, 97, GONE)


@test('a TLS side that goes away without reading the request: 97, and the program is not run')
def _():
    t = TLSSide('echo', 'ran')
    is_equal(t.ctl.recv(1, socket.MSG_PEEK), b'Y')
    t.ctl.close()
    is_equal(t.output.readall(), b'', 'what the program writes')
    dies(t.c, 97, GONE)


@test('a TLS side that is gone when it is asked: 97, and the program is not run')
def _():
    for options in [], ['-y']:
        ours, gone = unix_pair()
        gone.close()
        r, w = pipe()
        numbers = {'SSLCTLFD': '10', 'SSLREADFD': '11', 'SSLWRITEFD': '12'}
        c = Chain(['tls-ctl-start', *options, 'echo', 'ran'], client=True, env=numbers,
                  preexec=descriptors({10: ours.fileno(), 11: r.fileno(), 12: w.fileno()}))
        dies(c, 97, GONE)


@test('a reply that is too long: 111, and the program is not run; one of 60,000 bytes is not')
def _():
    t = TLSSide('echo', 'ran')
    is_equal(t.ctl.recv(10), b'Y')
    try:
        for _ in range(10000):  # more than the socket holds
            t.ctl.sendall(b'SSL_X=' + b'x' * 993 + b'\0')
        raise AssertionError('it reads for ever')
    except (BrokenPipeError, ConnectionResetError):
        pass
    is_equal(t.output.readall(), b'', 'what the program writes')
    dies(t.c, 111, 'tls-ctl-start: fatal: unable to start TLS: Message too long')
    is_equal(environment(b'SSL_X=' + b'x' * 60000 + b'\0\0'), {'SSL_X': 'x' * 60000})


# Descriptors

@test('the program holds 0, 1, 2, in a client 6 and 7 as well, and what was inherited')
def _():
    not_under_valgrind('leaves its log open')
    for more in {}, {33: 2}:
        for options, r in ([], 0), (['-c'], 6):
            t = TLSSide(*options, *PYTHON, ECHO % (r, r + 1), fds=more)
            t.reply(REPLY)
            wanted = {0, 1, 2, r, r + 1, *more}
            wait_for(lambda: set(fds_of(t.c.pid)) - INHERITED == wanted, 'only %r' % wanted)
            t.is_joined()


@test('the numbers of the descriptors may be any, also those that they shall have')
def _():
    not_under_valgrind('is started by a script, which is on 0 and 1 itself')
    for numbers in itertools.permutations([0, 1, 5], 3):
        t = TLSSide('cat', **dict(zip(('ctl', 'r', 'w'), numbers)))
        t.reply(REPLY)
        t.is_joined()
    for numbers in itertools.permutations([5, 6, 7], 3):
        t = TLSSide('-c', 'sh', '-c', 'cat <&6 >&7', **dict(zip(('ctl', 'r', 'w'), numbers)))
        t.reply(REPLY)
        t.is_joined()


@test('one socket may be for both directions, under one number or two')
def _():
    not_under_valgrind('is started by a script, which is on 0 and 1 itself')
    for options, prog in ([], ['cat']), (['-c'], ['sh', '-c', 'cat <&6 >&7']):
        for r, w in (11, 11), (11, 12), (0, 0), (1, 1), (1, 0), (6, 6), (7, 7), (7, 6), (6, 1):
            for ctl in {10, 0, 1, 6, 7} - {r, w}:
                ours, control = unix_pair()
                plain, theirs = unix_pair()
                table = {ctl: control.fileno(), r: theirs.fileno(), w: theirs.fileno()}
                c = Chain(['tls-ctl-start', *options, *prog], client=True,
                          preexec=descriptors(table),
                          env={'SSLCTLFD': str(ctl), 'SSLREADFD': str(r), 'SSLWRITEFD': str(w)})
                control.close()
                theirs.close()
                is_equal(ours.recv(10), b'Y')
                ours.sendall(REPLY)
                plain.sendall(b'hello')
                plain.shutdown(socket.SHUT_WR)
                is_equal(read_to_end(plain), b'hello', 'with %r on %r' % (options, (ctl, r, w)))
                is_equal(c.wait(), 0)
                ours.close()
                plain.close()


@test('0, 1 and 2 may be closed, and stay so but for those that the session is on')
def _():
    not_under_valgrind('is started by a script')
    for closed in {0}, {1}, {2}, {0, 1}, {0, 1, 2}:
        for options, r in ([], 0), (['-c'], 6):
            t = TLSSide(*options, *PYTHON, ECHO % (r, r + 1), fds=dict.fromkeys(closed))
            t.reply(REPLY)
            wanted = {0, 1, 2} - closed | {r, r + 1}
            wait_for(lambda: set(fds_of(t.c.pid)) - INHERITED == wanted, 'only %r' % wanted)
            t.is_joined()


# Errors

@test('a bad option or no program: 100, and the usage')
def _():
    for argv in ['-x', 'true'], ['-Y', 'true']:
        dies_of_usage(Chain(['tls-ctl-start', *argv]))
    for argv in [], ['-y'], ['-c']:
        dies_without_program(Chain(['tls-ctl-start', *argv]))


@test('a variable that is missing, no number, or not open: 100, nothing is asked, nothing is run')
def _():
    for n in UCSPI_FDS:
        for bad, reason in (
                (None, '%s is not set: tls-ctl-start goes after tls-ctl-open' % n),
                ('', '%s is set, but empty' % n), ('x', '%s is not a number' % n),
                ('-1', '%s is not a number' % n), ('99999999999', '%s is not a number' % n),
                ('77', 'unable to use %s=77: Bad file descriptor' % n)):
            t = TLSSide('echo', 'ran', env={n: bad})
            dies(t.c, 100, 'tls-ctl-start: fatal: ' + reason)
            is_equal(t.ctl.recv(10), b'', 'what was asked')


@test('a program that cannot be run: 127 or 126')
def _():
    for prog, code, reason in (('nonesuch', 127, 'No such file or directory'),
                               (temp(b'not executable'), 126, 'Permission denied')):
        t = TLSSide(prog)
        t.reply(REPLY)
        dies(t.c, code, 'tls-ctl-start: fatal: unable to exec %s: %s' % (prog, reason))


# With a TLS side that is one

@test('a shell script becomes an application that speaks UCSPI-TLS')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(['sh', '-c', 'echo hello; read line; echo go ahead; exec tls-ctl-start '
                       'sh -c \'read line; echo "$line over $SSL_PROTOCOL"\'']),
              server, env=server_env())
    is_equal(read_line(client), b'hello\n')
    starttls(client)
    peer = Peer(client, max=TLS12).handshake()
    peer.send(b'mail\n')
    is_equal(peer.end_politely(), (b'mail over TLSv1.2\n', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


@test('a TLS side that fails: 97 after its own line, and the program is not run')
def _():
    client, server = tcp_pair()
    c = Chain(delayed(['sh', '-c', 'echo hello; exec tls-ctl-start echo ran']), server,
              env=server_env(CERTFILE='/nonesuch'))
    is_equal(read_to_end(client), b'hello\n')
    client.close()
    is_equal(c.wait(), 97)
    is_equal(sorted(c.stderr().splitlines()),
             [GONE, 'tls-handshake: fatal: unable to start TLS: '
              'unable to read CERTFILE /nonesuch: No such file or directory'])


run()
