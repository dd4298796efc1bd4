#!/usr/bin/env python3
# ISC licence: see COPYING.
# An application that writes and exits at once, its input read or not: nothing of it is lost.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from peer import VERSIONS, Peer, records_of
from relay import Background, is_same, sample_data, serve_app
from scratch import temp
from tap import SLOW, is_equal, run, test

SHORT, LONG = b'bye\n', sample_data(300000)  # the latter fits into no pipe


def sessions(times, content, meet, app=('cat', '%s'), **kw):
    """That many sessions with an application that writes content and exits, a few at a time;
    meet is what the client does in each."""
    argv = [arg.replace('%s', temp(content)) for arg in app]
    while times > 0:
        batch = [serve_app(argv, **kw) for _ in range(min(times, 10))]
        for i, (sock, c) in enumerate(batch):
            version = VERSIONS[i % 2][1]
            peer = Peer(sock, min=version, max=version).handshake()
            got, end = meet(peer, c)
            is_same(got, content, 'what the client got')
            is_equal(end, 'close_notify', 'how it ended for the client')
            peer.end_politely()
            is_equal(c.wait(), 0, 'exit code')
            is_equal(c.stderr(), '', 'stderr')
        times -= len(batch)


def reads_at_once(peer, c):
    return peer.recv_all()


def reads_once_the_application_is_gone(peer, c):
    is_equal(c.wait(), 0)
    return peer.recv_all()


def sends_first(peer, c):
    """What the application never reads."""
    peer.send(sample_data(100000))
    return peer.recv_all()


def sends_all_the_time(peer, c):
    sender = Background(peer.sock.sendall, records_of(peer, sample_data(3000000)))
    result = peer.recv_all()
    sender.finish()
    return result


def times(n):
    """Fewer where everything is slow."""
    return max(n // SLOW, 10)


@test('500 times 4 bytes', 120)
def _():
    sessions(times(250), SHORT, reads_at_once)
    sessions(times(250), SHORT, reads_once_the_application_is_gone)


@test('100 times 300 kB', 120)
def _():
    sessions(times(100), LONG, reads_at_once)


@test('after STARTTLS: 100 times 4 bytes, 20 times 300 kB')
def _():
    sessions(times(50), SHORT, reads_at_once, delayed=True)
    sessions(times(50), SHORT, reads_once_the_application_is_gone, delayed=True)
    sessions(times(20), LONG, reads_at_once, delayed=True)


# The application reads one byte, so that it knows that there are more, and leaves the rest.

UNREAD = ['sh', '-c', 'head -c 1 >/dev/null; exec cat "%s"']


@test('100 times 4 bytes, with 100 kB of the client unread')
def _():
    sessions(times(100), SHORT, sends_first, UNREAD)


@test('100 times 300 kB, with 100 kB of the client unread')
def _():
    sessions(times(100), LONG, sends_first, UNREAD)


@test('20 times 300 kB, to a client that goes on sending all the time')
def _():
    sessions(times(20), LONG, sends_all_the_time, UNREAD)


@test('after STARTTLS: 20 times 300 kB, with 100 kB of the client unread')
def _():
    sessions(times(20), LONG, sends_first, UNREAD, delayed=True)


@test('a client that reads slowly gets all of it long after the application is gone')
def _():
    for delayed in False, True:
        sock, c = serve_app(['cat', temp(LONG)], delayed=delayed)
        peer = Peer(sock).handshake()
        is_equal(c.wait(), 0)
        got = b''
        while not peer.end:
            got += peer.recv(1000)
        is_same(got, LONG, 'what the client got')
        is_equal(peer.end, 'close_notify')


@test('a client that got everything and just closes has not cut anything off: tls-io -w gives 7')
def _():
    for _ in range(times(50)):
        sock, c = serve_app(['sh', '-c', 'echo bye; exit 7'], io=['-w'])
        peer = Peer(sock).handshake()
        is_equal(peer.recv_all(), (b'bye\n', 'close_notify'))
        peer.sock.close()
        is_equal(c.wait(), 7)
        is_equal(c.stderr(), '')


run()
