#!/usr/bin/env python3
# ISC licence: see COPYING.
# TLS records of every kind: tiny, in pieces, empty, KeyUpdate, alerts, corrupt, cut.

import os
import re
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import is_libressl
from forger import (ALERT, CLOSE_NOTIFY, HANDSHAKE, INTERNAL_ERROR, KEY_UPDATE,
                    KEY_UPDATE_REQUESTED, TEXT, USER_CANCELED, Forger)
from peer import TLS12, TLS13, VERSIONS, Peer, records_of
from proc import private_memory
from processes import is_flat, is_idle
from relay import (Background, Session, is_same, join_app, output_breaks, sample_data, sha256,
                   write_all)
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for

CUT = 'session truncated: the peer ended without close_notify'


def for_each_version(name):
    """@test for both, the version as the argument."""
    def add(function):
        for version_name, version in VERSIONS:
            test('%s: %s' % (version_name, name))(lambda version=version: function(version))
        return function
    return add


def ends_well(s, client_says_it=True):
    """Nothing was wrong so far: both sides can end as always."""
    s.output.close()
    is_equal(s.peer.recv_all(), (b'', 'close_notify'), 'end for the client')
    if client_says_it:
        s.peer.forge((ALERT, CLOSE_NOTIFY))
        is_equal(s.input.read(1), b'', 'end of file for the application')
    s.peer.shutdown()
    s.wait_gone()
    is_equal(s.chain.stderr(), '')


# Sizes

@for_each_version('20000 records of one byte each, and what they say')
def _(version):
    peer, c = join_app(['sha256sum'], version)
    peer.send(sample_data(20000), record=1)
    peer.close_notify()
    is_equal(peer.recv_all(), (sha256(sample_data(20000)).encode() + b'  -\n', 'close_notify'))
    is_equal(c.wait(), 0)


@for_each_version('an application that writes one byte at a time gets each through at once')
def _(version):
    s = Session(version)
    for i in range(1000):
        s.output.write(b'%c' % (i % 256))
        is_equal(s.peer.recv(1), b'%c' % (i % 256))


@for_each_version('records that come in pieces of any size')
def _(version):
    for piece in 1, 5, 1000, 16389:
        s = Session(version)
        raw = records_of(s.peer, sample_data(40000))
        for i in range(0, len(raw), piece):
            s.peer.sock.sendall(raw[i:i + piece])
        is_same(s.read(40000), sample_data(40000), 'pieces of %d' % piece)


@for_each_version('empty records mean nothing')
def _(version):
    s = Session(version, client=Forger)
    for text in b'one', b'two':
        s.peer.forge((TEXT, b''), (TEXT, text), *[(TEXT, b'')] * 10)
        is_equal(s.read(3), text)
    is_idle(s.engine)
    ends_well(s)


@for_each_version('a flood of empty records is borne or refused, and costs nothing when it is over')
def _(version):
    s = Session(version, client=Forger)
    s.peer.forge(*[(TEXT, b'')] * 5000, (TEXT, b'after'))
    s.peer.shutdown()
    is_true(s.read(5) in (b'', b'after'), 'what comes after it is delivered or not')
    s.output.close()
    s.wait_gone()
    is_equal(s.chain.stderr().count('\n'), 1, 'lines')


# KeyUpdate and renegotiation

@test('no session ticket is sent: nobody could use it')
def _():
    s = Session(TLS13)
    s.output.write(b'x')
    raw = s.peer.sock.recv(65536)
    # one record: its header, a byte, its type, the tag
    is_equal((len(raw), raw[:3]), (5 + 1 + 1 + 16, b'\x17\3\3'))


def splice(source, target):
    while more := source.recv(65536):
        target.sendall(more)
    target.shutdown(socket.SHUT_WR)


class SClient:
    """openssl s_client as the client, with its one-letter commands."""

    def __init__(self, sock, version):
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            listener.listen(1)
            address = '127.0.0.1:%d' % listener.getsockname()[1]
            self._p = subprocess.Popen(
                ['openssl', 's_client', '-connect', address,
                 '-tls1_2' if version == TLS12 else '-tls1_3'],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
            mine, _ = listener.accept()
        Background(splice, mine, sock)
        Background(splice, sock, mine)

    def handshake(self):
        self.expect('Verify return code')
        return self

    def expect(self, text):
        """Reads what it says until that has come."""
        said = ''
        while text not in said:
            more = self._p.stdout.read(65536).decode()
            is_true(more, '%s expected: %s' % (text, said))
            said += more

    def type(self, line):
        self._p.stdin.write(line.encode() + b'\n')

    def close(self):
        """Ends its input, whereupon it says close_notify and leaves."""
        self._p.stdin.close()
        self._p.wait(20 * SLOW)


@test('TLS 1.3: openssl s_client changes its keys, with and without a request to us')
def _():
    s = Session(TLS13, client=SClient)
    for i in range(10):
        for command in 'K', 'k':
            s.peer.type(command)
            s.peer.expect('KEYUPDATE')
            s.output.write(b'from the application %d\n' % i)  # it waits for this before it types
            s.peer.expect('from the application %d\n' % i)
            s.peer.type('from the client')
            is_equal(s.read(16), b'from the client\n')
    s.peer.close()
    is_equal(s.input.read(1), b'', 'end of file for the application')
    s.output.close()
    s.wait_gone()
    is_equal(s.chain.stderr(), '')


def update_keys(peer, requested=True):
    peer.forge((HANDSHAKE, KEY_UPDATE_REQUESTED if requested else KEY_UPDATE))
    peer.update_key()


@test('TLS 1.3: what follows a KeyUpdate in the same segment does not wait for the next one')
def _():
    s = Session(TLS13, client=Forger)
    for message in KEY_UPDATE, KEY_UPDATE_REQUESTED:
        raw = s.peer.seal((HANDSHAKE, message))
        s.peer.update_key()
        s.peer.sock.sendall(raw + s.peer.seal((TEXT, b'after')))
        is_equal(s.read(5), b'after')
    ends_well(s)


@test('TLS 1.3: KeyUpdates with a request during a download do not disturb it')
def _():
    s = Session(TLS13, client=Forger)
    content = sample_data(32 << 20)
    writer = Background(write_all, s.output, content)
    got = b''
    while len(got) < len(content):
        update_keys(s.peer)
        s.peer.forge((TEXT, b'x'))
        got += s.peer.recv(1 << 20)
    writer.finish()
    is_same(got, content, 'the download')
    is_equal(s.read(32), b'x' * 32, 'the upload')
    ends_well(s)


@test('TLS 1.3: a flood of KeyUpdates from a client that does not read: no CPU time, no memory')
def _():
    if is_libressl():
        raise Skip('LibreSSL ends a session with so many messages in a row')
    s = Session(TLS13, client=Forger)
    before = private_memory(s.engine)
    content = sample_data(64 << 20)
    writer = Background(write_all, s.output, content)
    for _ in range(4000):
        update_keys(s.peer)
    is_flat(s.engine, before)
    is_same(s.peer.recv(len(content)), content, 'the download in the end')
    writer.finish()
    s.peer.forge((TEXT, b'x'))
    is_equal(s.read(1), b'x', 'the upload')
    ends_well(s)


@test('TLS 1.3: a KeyUpdate with a request after our close_notify does no harm')
def _():
    if is_libressl():
        raise Skip('LibreSSL cannot answer it any more, and ends the session')
    s = Session(TLS13, client=Forger)
    s.output.close()
    is_equal(s.peer.recv_all(), (b'', 'close_notify'))
    for _ in range(3):
        update_keys(s.peer)
        s.peer.forge((TEXT, b'still here'))
        is_equal(s.read(10), b'still here')
    ends_well(s)


@test('TLS 1.2: openssl s_client tries to renegotiate: the session ends with a line')
def _():
    s = Session(TLS12, client=SClient)
    s.peer.type('R')
    s.peer.expect('RENEGOTIATING')
    is_equal(s.input.read(1), b'', 'end of file for the application')
    s.output.close()
    s.wait_gone()
    is_true(re.fullmatch('tls-engine: warning: session (failed: decrypt: .*|truncated: .*)\n',
                         s.chain.stderr()), 'stderr: ' + s.chain.stderr())


@test('TLS 1.2: a client that insists on renegotiation costs nothing')
def _():
    s = Session(TLS12, client=Forger)
    hello = b'\1\0\0\x29\3\3' + bytes(32) + b'\0\0\2\xc0\x2c\1\0'
    s.peer.forge(*[(HANDSHAKE, hello)] * 100)
    is_idle(s.engine)
    s.peer.reset()
    is_equal(s.input.read(1), b'', 'end of file for the application')
    s.output.close()
    s.wait_gone()


# What is no valid record

def flipped(at):
    """One byte of a record changed; more than enough follows, should it be of the length."""
    def make(peer):
        raw = bytearray(peer.seal((TEXT, b'evil')))
        raw[at] ^= 0xff
        return bytes(raw) + peer.seal((TEXT, sample_data(16384)), (TEXT, sample_data(16384)),
                                      (TEXT, sample_data(16384)), (TEXT, sample_data(16384)))
    return make


def twice(peer):
    """A record of before once more."""
    return peer.first


def left_out(peer):
    peer.seal((TEXT, b'evil'))
    return peer.seal((TEXT, b'after'))


def swapped(peer):
    one, two = peer.seal((TEXT, b'evil')), peer.seal((TEXT, b'after'))
    return two + one


def unencrypted(peer):
    return b'\x17\3\3\0\4evil'


def unencrypted_alert(peer):
    return b'\x15\3\3\0\2\2\x28'


def plaintext(peer):
    return b'QUIT\r\n' * 4000


def too_long(peer):
    return peer.seal((TEXT, sample_data(16385)))


def unknown_type(peer):
    return peer.seal((99, b'evil'))


def unknown_handshake_message(peer):
    return peer.seal((HANDSHAKE, b'\x63\0\0\4evil'))


def change_cipher_spec(peer):
    return b'\x14\3\3\0\1\1'


def is_failed(s, told='decrypt: '):
    """The session ended by the fault of the peer, and both sides know."""
    wait_for(lambda: output_breaks(s), 'a broken pipe for the application')
    try:
        is_true(s.peer.recv_all()[1] != 'close_notify', 'the client is not told a normal end')
    except ssl.SSLError as e:
        is_true('ALERT' in str(e).upper(), 'an alert for the client: %s' % e)
    s.peer.sock.close()
    s.wait_gone()
    is_true(re.fullmatch('tls-engine: warning: session failed: %s.*\n' % re.escape(told),
                         s.chain.stderr()), 'stderr: ' + s.chain.stderr())


def is_refused(version, make):
    s = Session(version, client=Forger)
    s.peer.first = s.peer.seal((TEXT, b'before'))
    s.peer.sock.sendall(s.peer.first)
    is_equal(s.read(6), b'before', 'what came before it')
    try:
        s.peer.sock.sendall(make(s.peer))
        s.peer.forge((TEXT, b'after'))
    except ConnectionError:  # we have hung up by then
        pass
    is_equal(s.read(100), b'', 'what came after it')
    is_failed(s)


for at, where in enumerate(['type', 'version', 'version', 'length', 'length', 'body', 'body']):
    @for_each_version('a record with one bit pattern wrong in byte %d, its %s' % (at, where))
    def _(version, at=at):
        is_refused(version, flipped(at))

for make in (flipped(-1), twice, left_out, swapped, unencrypted, unencrypted_alert, plaintext,
             too_long, unknown_type, unknown_handshake_message, change_cipher_spec):
    @for_each_version('not a valid record: ' + make.__name__)
    def _(version, make=make):
        is_refused(version, make)


# Alerts

@for_each_version('a fatal alert of the client ends the session, what came before it is delivered')
def _(version):
    s = Session(version, client=Forger)
    s.peer.forge((TEXT, b'before'), (ALERT, INTERNAL_ERROR))
    is_equal(s.read(100), b'before')
    is_failed(s)


@for_each_version('a warning of the client is nothing')
def _(version):
    s = Session(version, client=Forger)
    s.peer.forge((TEXT, b'before'), (ALERT, USER_CANCELED), (TEXT, b', after'))
    is_equal(s.read(13), b'before, after')
    ends_well(s)


# Cuts

def half_a_record(peer):
    peer.sock.sendall(peer.seal((TEXT, b'half'))[:-1])
    peer.shutdown()


@for_each_version('a stream that ends in mid-record: whole ones are delivered, and it is told')
def _(version):
    for strict, told in ([], CUT), (['-J'], 'session failed: read from network: '
                                    'the peer ended without close_notify'):
        s = Session(version, client=Forger, io=strict)
        s.peer.forge((TEXT, sample_data(16384)), (TEXT, b'before'))
        half_a_record(s.peer)
        is_same(s.read(17000), sample_data(16384) + b'before', 'what the application got')
        if not strict:
            s.output.write(b'answer')
            s.output.close()
            is_equal(s.peer.recv_all(), (b'answer', 'close_notify'))
        s.wait_gone()
        is_equal(s.chain.stderr(), 'tls-engine: warning: %s\n' % told)


@for_each_version('a cut leaves the application the time to read what came before it')
def _(version):
    s = Session(version)
    raw = records_of(s.peer, sample_data(2 << 20))
    sender = Background(s.peer.sock.sendall, raw)
    is_same(s.read(1 << 20), sample_data(1 << 20), 'the first half')
    sender.finish()
    s.peer.shutdown()
    is_same(s.read(2 << 20), sample_data(2 << 20)[1 << 20:], 'the second half')
    s.output.close()
    s.wait_gone()
    is_equal(s.chain.stderr(), 'tls-engine: warning: %s\n' % CUT)


# What is told

def polite(peer):
    peer.forge((ALERT, CLOSE_NOTIFY))
    peer.shutdown()


def alert(peer):
    peer.forge((ALERT, INTERNAL_ERROR))
    peer.sock.close()


def corrupt(peer):
    peer.sock.sendall(flipped(-1)(peer))
    peer.shutdown()


ENDS = [
    # how the client ends, code of tls-io -w, the engine's last word, and its warning
    (polite, 7, 'closed by both sides', ''),
    (Peer.shutdown, 98, 'truncated by the peer', CUT),
    (half_a_record, 98, 'truncated by the peer', CUT),
    (Peer.reset, 98, '(truncated by the peer|failed)', 'session (truncated|failed): .*'),
    (alert, 98, 'failed', 'session failed: decrypt: .*'),
    (corrupt, 98, 'failed', 'session failed: decrypt: .*'),
]

for end, code, _, warning in ENDS:
    @for_each_version('tls-io -w gives %d, client: %s' % (code, end.__name__))
    def _(version, end=end, code=code, warning=warning):
        peer, c = join_app(['sh', '-c', 'echo ready; cat >/dev/null; exit 7'], version,
                           client=Forger, io=['-w'])
        is_equal(peer.recv(6), b'ready\n')
        end(peer)
        is_equal(c.wait(), code)
        is_true(re.search(warning.replace('cut', 'truncated'), c.stderr()), 'stderr: ' + c.stderr())

for verbosity in '0', '1', '2':
    @test('what is told with -v ' + verbosity)
    def _(verbosity=verbosity):
        for end, _, word, warning in ENDS:
            s = Session(client=Forger, verbosity=verbosity)
            s.peer.forge((TEXT, b'before'))
            is_equal(s.read(6), b'before')
            end(s.peer)
            is_equal(s.input.read(1), b'')
            s.output.close()
            s.peer.sock.close()
            s.wait_gone()
            lines = s.chain.stderr().splitlines()
            if verbosity == '2':
                matches(lines.pop(0), 'tls-handshake: info: session started: .*')
                matches(lines.pop(0), 'tls-engine: info: session ended: '
                        '6 bytes received, 0 sent, %s' % word)
            if verbosity != '0' and warning:
                matches(lines.pop(0), 'tls-engine: warning: ' + warning)
            is_equal(lines, [], end.__name__)


def matches(line, pattern):
    is_true(re.fullmatch(pattern, line), '%s: %s' % (pattern, line))


run()
