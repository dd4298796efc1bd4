#!/usr/bin/env python3
# ISC licence: see COPYING.
# The relay matrix: every size, each way and both at once, arrives byte for byte.

import fcntl
import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from peer import VERSIONS, records_of
from relay import Background, Session, is_same, join_app, sample_data, sha256
from scratch import temp
from tap import SLOW, Skip, is_equal, is_true, run, test

KIB, MIB = 1 << 10, 1 << 20

# A record is of 16384 bytes at most, a pipe of 65536.
SIZES = [0, 1, 16383, 16384, 16385, 32768, 65535, 65536, 65537, MIB, 64 * MIB]


def up(n, **kw):
    """The client sends n bytes; they arrive though it neither goes on nor ends."""
    peer, c = join_app(['sh', '-c', 'head -c "$0" | sha256sum', str(n)], **kw)
    peer.send(sample_data(n))
    is_equal(peer.recv_all(), (sha256(sample_data(n)).encode() + b'  -\n', 'close_notify'))
    return c


def down(n, **kw):
    """The application sends n bytes and exits."""
    peer, c = join_app(['cat', temp(sample_data(n))], **kw)
    got, end = peer.recv_all()
    is_same(got, sample_data(n), 'what the client got')
    is_equal(end, 'close_notify')
    peer.end_politely()
    return c


def both(n, **kw):
    """Both send n bytes at the same time, and each ends its direction."""
    app = ['sh', '-c', 'cat "$0" & exec sha256sum >"$1"', temp(sample_data(n)), result := temp()]
    peer, c = join_app(app, **kw)
    sender = Background(peer.sock.sendall, records_of(peer, sample_data(n), close_notify=True))
    got, end = peer.recv_all()
    is_same(got, sample_data(n), 'what the client got')
    is_equal(end, 'close_notify')
    sender.finish()
    peer.shutdown()
    is_equal(c.wait(), 0)
    with open(result) as f:
        is_equal(f.read(64), sha256(sample_data(n)), 'what the application got')
    return c


def relays(way, n, **kw):
    if n > MIB and os.environ.get('TEST_VALGRIND'):
        raise Skip('too slow under valgrind')
    c = way(n, **kw)
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


WAYS = {
    up: '%d bytes from the client to the application',
    down: '%d bytes from the application to the client',
    both: '%d bytes both ways at once',
}

for version_name, version in VERSIONS:
    for way, name in WAYS.items():
        for n in SIZES:
            @test('%s: %s' % (version_name, name % n))
            def _(way=way, n=n, version=version):
                relays(way, n, version=version)

for way, name in WAYS.items():
    @test('after STARTTLS, of each size: ' + name.replace('%d ', ''))
    def _(way=way):
        for n in SIZES[:-1]:
            relays(way, n, delayed=True)


@test('each of many full records is answered before the next is sent')
def _():
    for _, version in VERSIONS:
        peer, c = join_app(['cat'], version)
        for i in range(100):
            n = 16384 * (i % 5 + 1)
            peer.send(sample_data(n))
            is_same(peer.recv(n), sample_data(n), 'answer %d' % i)
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)


@test('through little pipes and socket buffers everything arrives, both ways at once')
def _():
    for _, version in VERSIONS:
        s = Session(version, sndbuf=8192)
        s.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        for f in s.input, s.output:
            fcntl.fcntl(f, fcntl.F_SETPIPE_SZ, 4096)
        sender = Background(s.peer.sock.sendall,
                            records_of(s.peer, sample_data(MIB), close_notify=True))
        writer = Background(write_and_close, s.output, sample_data(MIB))
        reader = Background(lambda: is_same(s.read(2 * MIB), sample_data(MIB),
                                            'what the application got'))
        got, end = s.peer.recv_all()
        is_same(got, sample_data(MIB), 'what the client got')
        is_equal(end, 'close_notify')
        for job in sender, writer, reader:
            job.finish()


def write_and_close(f, content):
    with f:
        for i in range(0, len(content), 65536):
            f.write(content[i:i + 65536])


@test('a slow direction does not hold up the other one')
def _():
    s = Session()
    s.peer.sock.settimeout(0.2)
    try:
        s.peer.send(sample_data(64 * MIB))  # until nothing more fits: the application does not read
        is_true(False, 'the client is stopped')
    except TimeoutError:
        s.peer.sock.settimeout(20 * SLOW)
    writer = Background(write_and_close, s.output, sample_data(MIB))
    got, end = s.peer.recv_all()
    is_same(got, sample_data(MIB), 'what the client got')
    is_equal(end, 'close_notify')
    writer.finish()


run()
