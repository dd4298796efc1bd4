#!/usr/bin/env python3
# ISC licence: see COPYING.
# Every order in which the ends of a session can close: what is on its way arrives, all are told.

import itertools
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from forger import ALERT, CLOSE_NOTIFY, TEXT, Forger
from peer import VERSIONS, Peer, records_of
from processes import is_idle
from relay import Background, Session, fails, is_same, join_app, output_breaks, sample_data
from scratch import temp
from tap import is_equal, is_true, run, test, wait_for

CUT = 'tls-engine: warning: session truncated: the peer ended without close_notify\n'
DATA = sample_data(1 << 20)  # more than fits into the pipes and the engine together


def client_ends(s, way, raw):
    """The client's direction ends, after these records."""
    s.peer.sock.sendall(raw)
    if 'FIN' in way:
        s.peer.shutdown()


def output_ends(s, in_flight=b''):
    """The application closes its output, after what is in flight."""
    send_output(s, in_flight)
    s.output.close()


def send_output(s, in_flight):
    for i in range(0, len(in_flight), 65536):
        is_equal(s.output.write(in_flight[i:i + 65536]), len(in_flight[i:i + 65536]))


def close(s, step, way, still_open):
    """Closes one end while DATA are on their way in each direction that is still open."""
    jobs = []
    up, down = 'client' in still_open, 'output' in still_open
    if step == 'client':
        raw = records_of(s.peer, DATA, close_notify='close_notify' in way)
        jobs.append(Background(client_ends, s, way, raw))
    elif up:
        jobs.append(Background(s.peer.sock.sendall, records_of(s.peer, DATA)))
    if step == 'output':
        jobs.append(Background(output_ends, s, DATA))
    elif down:
        jobs.append(Background(send_output, s, DATA))
    if step == 'input':
        s.input.close()
    elif up and 'input' in still_open:
        is_same(s.read(len(DATA)), DATA, 'what the application reads')
    if down:
        is_same(s.peer.recv(len(DATA)), DATA, 'what the client gets')
    for job in jobs:
        job.finish()


def everyone_is_told(s, step, still_open):
    if step == 'client' and 'input' in still_open:
        is_equal(s.input.read(1), b'', 'end of file for the application')
    if step == 'output':
        is_equal(s.peer.recv_all(), (b'', 'close_notify'), 'end for the client')
        is_equal(s.peer.sock.recv(1), b'', 'end of the TCP stream for the client')


def is_heard(order, way):
    """Whether it matters, and is told, that the client ends without close_notify."""
    return way == 'FIN' and order.index('client') < order.index('input')


def closes_in_order(order, way, **kw):
    s = Session(**kw)
    still_open = set(order)
    for step in order:
        close(s, step, way, still_open)
        still_open.remove(step)
        everyone_is_told(s, step, still_open)
    s.wait_gone()  # also where the client keeps its socket: both have said their last word
    is_equal(s.chain.stderr(), CUT if is_heard(order, way) else '')


NAMES = {
    'client': "the client's direction, by %s",
    'output': "the application's output",
    'input': "the application's input",
}

for order in itertools.permutations(NAMES):
    for way in 'close_notify', 'FIN', 'close_notify and FIN':
        for version_name, version in VERSIONS:
            name = ', '.join(NAMES[step] for step in order) % way

            @test('%s: these close in order: %s' % (version_name, name))
            def _(order=order, way=way, version=version):
                closes_in_order(order, way, version=version)


# The client's socket goes away, at any point of any order.

def goes_away(s, how):
    if how == 'reset':
        s.peer.reset()
    else:
        s.peer.sock.close()


def client_goes_after(closed, how, way='close_notify'):
    s = Session()
    still_open = set(NAMES)
    for step in closed:
        close(s, step, way, still_open)
        still_open.remove(step)
    goes_away(s, how)
    if 'input' in still_open:
        is_equal(s.input.read(1), b'', 'end of file for the application')
    if 'output' in still_open:
        wait_for(lambda: output_breaks(s), 'a broken pipe for the application')
    s.wait_gone()
    told = s.chain.stderr()
    is_true(told.count('\n') <= 1, 'at most one line: ' + told)
    if 'client' in still_open and len(still_open) > 1:
        is_true(told.startswith('tls-engine: warning: session '), 'the cut is told: ' + told)


for how in 'close', 'reset':
    for n in range(len(NAMES)):
        for closed in itertools.permutations(NAMES, n):
            after = ', then '.join(NAMES[step] for step in closed).replace('%s', 'close_notify')

            @test("the client's socket goes away (%s) after: %s" % (how, after or 'nothing'))
            def _(closed=closed, how=how):
                client_goes_after(closed, how)


@test('delayed TLS: the same in each order')
def _():
    for order in itertools.permutations(NAMES):
        for way in 'close_notify', 'FIN':
            closes_in_order(order, way, delayed=True)


@test('whatever has closed, the engine uses no CPU time while nothing happens')
def _():
    ends = ['', 'client', 'output', 'input', 'client output', 'client input', 'output input',
            'input client', 'input output', 'output client']
    sessions = [(Session(version), closed.split(), way) for _, version in VERSIONS
                for closed in ends
                for way in (('close_notify', 'FIN') if 'client' in closed else ('close_notify',))]
    for s, closed, way in sessions:
        still_open = set(NAMES)
        for step in closed:
            close(s, step, way, still_open)
            still_open.remove(step)
            everyone_is_told(s, step, still_open)
    # One whose application is gone ends by itself after a time.
    is_idle(*(s.engine for s, _, _ in sessions if not s.is_gone()), may_end=True)


# One end at a time, more closely.

@test("an answer that takes its time after the client's half-close is delivered")
def _():
    for how in 'close_notify', 'FIN':
        sessions = [Session(version) for _, version in VERSIONS]
        for s in sessions:
            client_ends(s, how, records_of(s.peer, b'question', close_notify=how == 'close_notify'))
            is_equal(s.read(100), b'question')
        is_idle(*(s.engine for s in sessions))
        for s in sessions:
            s.output.write(b'answer')
            s.output.close()
            is_equal(s.peer.recv_all(), (b'answer', 'close_notify'))


@test('an application that closes its reading side at once still gets its output delivered')
def _():
    for delayed in False, True:
        app = ['sh', '-c', 'exec <&-; exec cat "$0"', temp(DATA)]
        peer, c = join_app(app, delayed=delayed)
        peer.send(DATA)  # and nobody reads it
        got, end = peer.end_politely()
        is_same(got, DATA, 'output')
        is_equal(end, 'close_notify')
        is_equal(c.wait(), 0)


@test('what an application does not read any more does not hold up its client')
def _():
    for version_name, version in VERSIONS:
        s = Session(version)
        sender = Background(s.peer.send, bytes(32 << 20))  # more than fits on the way
        is_idle(s.engine)
        s.input.close()
        sender.finish()
        s.output.write(b'bye')
        s.output.close()
        is_equal(s.peer.recv_all(), (b'bye', 'close_notify'), version_name)


@test('what an application reads long after it closed its output is all there')
def _():
    for _, version in VERSIONS:
        s = Session(version)
        sender = Background(s.peer.sock.sendall, records_of(s.peer, DATA, close_notify=True))
        s.output.close()
        is_equal(s.peer.recv_all(), (b'', 'close_notify'))
        is_same(s.read(len(DATA) + 1), DATA, 'input')
        sender.finish()


@test('a client that says close_notify and leaves, not waiting for ours, is no failure')
def _():
    for _, version in VERSIONS:
        for goes in Peer.reset, lambda peer: peer.sock.close():
            s = Session(version, client=Forger, io=['-w'], code=7)
            s.peer.forge((TEXT, b'all'), (ALERT, CLOSE_NOTIFY))
            is_equal(s.read(100), b'all')
            goes(s.peer)
            s.output.close()
            is_equal(s.chain.wait(), 7)
            is_equal(s.chain.stderr(), '')


@test('an application that reads hears of an end without close_notify a moment later')
def _():
    """It may be about to go, and then it is no failure."""
    s = Session()
    start = time.monotonic()
    s.peer.shutdown()
    is_equal(s.input.read(1), b'', 'end of file')
    is_true(time.monotonic() - start >= 0.1, 'it has a moment')


@test('records that come after the close_notify of a client do not reach the application')
def _():
    for _, version in VERSIONS:
        s = Session(version, client=Forger)
        s.peer.forge((TEXT, b'before'), (ALERT, CLOSE_NOTIFY), (TEXT, b'after'))
        is_equal(s.read(100), b'before')
        s.output.write(b'answer')
        s.output.close()
        is_equal(s.peer.recv_all(), (b'answer', 'close_notify'))
        s.peer.shutdown()
        s.wait_gone()
        is_equal(s.chain.stderr(), '')


@test('-s: the client sees the end of the stream, and no close_notify')
def _():
    for io, end in ([], 'close_notify'), (['-S'], 'close_notify'), (['-s'], 'eof'):
        for _, version in VERSIONS:
            s = Session(version, io=io)
            s.output.write(b'all')
            s.output.close()
            is_equal(s.peer.recv_all(), (b'all', end), ' '.join(io))


@test('-J: a client that ends without close_notify is an error at once, after its data')
def _():
    for _, version in VERSIONS:
        s = Session(version, io=['-J'])
        s.peer.send(b'cut off')
        s.peer.shutdown()
        is_equal(s.read(100), b'cut off')
        wait_for(lambda: output_breaks(s), 'a broken pipe for the application')
        s.wait_gone()
        is_equal(s.chain.stderr(), 'tls-engine: warning: session failed: '
                 'read from network: the peer ended without close_notify\n')


@test('-J: a client is not told by close_notify that an output that was cut is complete')
def _():
    for _, version in VERSIONS:
        s = Session(version, io=['-J'])
        sender = Background(send_output, s, DATA * 16)
        s.peer.recv(1)
        s.peer.shutdown()
        got, end = s.peer.recv_all()
        is_true(len(got) < 16 * len(DATA), 'the output is cut')
        is_true(end in ('eof', 'reset'), 'how it ended for the client: ' + end)
        fails(sender, BrokenPipeError)


@test('-J: a client that ends with close_notify is none')
def _():
    for io in [], ['-J'], ['-j']:
        for _, version in VERSIONS:
            s = Session(version, io=io)
            s.peer.close_notify()
            is_equal(s.read(1), b'')
            s.output.write(b'answer')
            s.output.close()
            is_equal(s.peer.end_politely(), (b'answer', 'close_notify'))
            s.wait_gone()
            is_equal(s.chain.stderr(), '')


run()
