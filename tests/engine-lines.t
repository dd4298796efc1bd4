#!/usr/bin/env python3
# ISC licence: see COPYING.
# No end of an engine is a silence that is not meant: one line, of which process and of which peer.

import os
import re
import signal
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, NOT_JOINED, Chain, need, not_resident
from engined import Engine, how_it_ends, start_engine
from peer import TLS12, Peer, client_hello
from pki import server_env
from privileges import as_root
from processes import engines, wait_dead, wait_engine
from sockets import read_to_end, tcp_pair
from tap import Skip, is_equal, is_true, run, test, wait_for
from wire import JOIN, OwnEngine, start_text

INVALID = 'fatal: invalid %s on the session socket'
ADDRESS = b'192.0.2.1'


# Sessions that nobody joins

STARTED = 'tls-handshake: info: session started: '

for verbosity, wanted in ('0', []), ('1', [NOT_JOINED]), ('2', [STARTED, NOT_JOINED]):
    @test('a session that nobody joins, -v %s: %d lines of the engine'
          % (verbosity, wanted.count(NOT_JOINED)))
    def _(verbosity=verbosity, wanted=wanted):
        for last in ['true'], ['sh', '-c', 'exit 1'], ['/nonexistent']:
            client, server = tcp_pair()
            c = Chain(['tls-handshake', '-v', verbosity, *last], server, env=server_env())
            is_equal(how_it_ends(Peer(client)), b'')
            c.wait()
            wait_for(lambda: not engines(), 'the end of the engine')
            lines = [line for line in c.stderr().splitlines(True)
                     if not line.startswith('tls-handshake: fatal: unable to exec')]
            is_equal([line[:len(start)] for line, start in zip(lines, wanted)], wanted)
            is_equal(len(lines), len(wanted), 'lines: %r' % lines)


@test('a chain that ends before the handshake has: a line with -v 2, none below')
def _():
    for verbosity in 0, 1, 2:
        e = OwnEngine(verbosity=verbosity)
        e.client.sendall(client_hello()[:50])
        e.chain.close()
        is_equal(e.process.wait(), 0)
        is_equal(e.lines(), ['info: session abandoned: the chain has ended before the handshake '
                             'has'] * (verbosity == 2))


# What is no JOIN

BAD_JOINS = {
    'garbage': (b'garbage', 0, 'message'),
    'START once more': (start_text(), 2, 'message'),
    'FACTS': (b'F\0TLSv1.3\0\1x\0', 0, 'message'),
    'a JOIN of one byte more': (JOIN + b'\0', 2, 'JOIN'),
    'a JOIN of one byte less': (JOIN[:-1], 2, 'JOIN'),
    'a JOIN with a byte that is neither 0 nor 1': (b'J\2' + JOIN[2:], 2, 'JOIN'),
    'a JOIN with too long a limit': (JOIN[:4] + b'\xff' * 4, 2, 'JOIN'),
    'a JOIN with no descriptor': (JOIN, 0, 'message'),
    'a JOIN with one descriptor': (JOIN, 1, 'message'),
    'a JOIN with three descriptors': (JOIN, 3, 'message'),
}

for what, (text, n, told) in BAD_JOINS.items():
    @test('%s: the network is shut down for every copy of it, one line, 100' % what)
    def _(text=text, n=n, told=told):
        e = OwnEngine(keep=True)
        peer = Peer(e.client).handshake()
        e.facts()
        with open('/dev/null', 'r+b', buffering=0) as null:
            e.send(text, [null.fileno()] * n)
            is_equal(peer.recv_all(), (b'', 'eof'))
            try:
                e.server.send(b'plaintext')
                raise AssertionError('the network is open')
            except BrokenPipeError:
                pass
        is_equal(read_to_end(e.chain, ConnectionError), b'', 'what the chain hears')
        is_equal((e.process.wait(), e.lines()), (100, [INVALID % told]))


# Where there is nothing to write to

@as_root('without /dev/null tls-engine serves, also with 2 closed')
def _():
    need('unshare', 'mount')
    hidden = ['unshare', '-m', 'sh', '-c']
    hide = 'mount -t tmpfs none /dev && test ! -e /dev/null'
    if subprocess.call([*hidden, hide], stderr=subprocess.DEVNULL):
        raise Skip('/dev/null cannot be hidden')
    for closing in '', '2>&-', '>&-', '>&- 2>&-':
        e = OwnEngine(command=[*hidden, '%s && exec %s/tls-engine %s' % (hide, BIN, closing)],
                      verbosity=2)
        peer = Peer(e.client).handshake()
        e.facts()
        app = e.join()
        app.send(b'hello')
        is_equal(peer.recv(5), b'hello')
        app.close()
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(e.process.wait(), 0)
        told = [] if '2>' in closing else ['info: session ended: 0 bytes received, 5 sent, closed '
                                           'by both sides']
        is_equal(e.lines(), told, closing)


@test('with 2 closed, and with 1 and 2, tls-engine writes nothing into the network')
def _():
    for closing in '2>&-', '>&- 2>&-':
        e = OwnEngine(command=['sh', '-c', 'exec tls-engine ' + closing], verbosity=2)
        e.client.sendall(client_hello(max=TLS12, ciphers='AES128-SHA'))
        e.client.shutdown(1)
        got = read_to_end(e.client)
        is_equal((got[:1], len(got)), (b'\x15', 7), 'an alert and nothing else')
        is_equal(e.refusal()[0], 97)
        is_equal((e.process.wait(), e.lines()), (97, []))


# Killed

SIGNALS = [signal.SIGABRT, signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU]
if not os.environ.get('TEST_SANITIZE'):  # which takes these for its own
    SIGNALS += [signal.SIGSEGV, signal.SIGBUS]

for peer_address in b'', ADDRESS:
    @test('an engine of its own that a signal kills says so%s'
          % (', and whose it was' if peer_address else ''))
    def _(address=peer_address):
        for sig in SIGNALS:
            e = OwnEngine(peer=address)
            Peer(e.client).handshake()
            e.facts()
            os.kill(e.pid, sig)
            is_equal(e.process.wait(), 128 + sig)
            is_equal(e.lines(), ['%sfatal: killed by signal %d'
                                 % ('192.0.2.1: ' if address else '', sig)])


@test('an engine that is killed in a session: its own line, and tls-io -w exits 98')
def _():
    not_resident('is told of by its worker: engined-limits.t')
    for sig in SIGNALS:
        client, server = tcp_pair()
        c = Chain(['tls-handshake', 'tls-io', '-w', 'cat'], server, env=server_env())
        Peer(client).handshake()
        engine, = wait_engine()
        os.kill(engine, sig)
        is_equal(c.wait(), 98)
        wait_dead(engine)
        is_true('tls-engine: pid %d: fatal: killed by signal %d\n' % (engine, sig)
                in c.stderr_raw(), c.stderr_raw())


# Which process, which peer

def ended(e, peer):
    """Ends a session that nothing was wrong with so far."""
    e.facts()
    e.join().close()
    peer.end_politely()
    is_equal(e.process.wait(), 0)


@test('each line of tls-engine has its process number, and the peer that START names')
def _():
    for address in b'192.0.2.1', b'2001:db8::1', b'x' * 63, b'@\xc3\xa4 (local)':
        told = address.decode() + ': '
        e = OwnEngine(peer=address, verbosity=2)
        ended(e, Peer(e.client).handshake())
        is_equal(e.lines(), [told + 'info: session ended: 0 bytes received, 0 sent, closed by both '
                             'sides'])
        e = OwnEngine(peer=address)
        Peer(e.client).handshake()
        e.facts()
        e.chain.close()
        is_equal(e.process.wait(), 0)
        is_equal(e.lines(), [told + NOT_JOINED[len('tls-engine: '):-1]])
        e = OwnEngine(peer=address)
        Peer(e.client).handshake()
        e.facts()
        e.send(b'garbage')
        is_equal(e.process.wait(), 100)
        is_equal(e.lines(), [told + INVALID % 'message'])


@test('a peer in START with a control character does not get into a line as it is')
def _():
    e = OwnEngine(peer=b'a\nb\x1b[2J\x7f', verbosity=2)
    ended(e, Peer(e.client).handshake())
    line, = e.lines()
    is_equal(line.partition(': info')[0], 'a?b?[2J?')


@test('a peer in START that is too long: 100, and the network is shut down')
def _():
    e = OwnEngine(peer=b'x' * 64, keep=True)
    is_equal(e.client.recv(1), b'', 'sent to the client')
    is_equal((e.process.wait(), e.lines()), (100, ['fatal: invalid START on the session socket']))


@test('each line of tls-engined has the number of the process that writes it')
def _():
    e = start_engine()
    own = r'tls-engined: pid %d: '
    worker = e.worker()
    e.signal(signal.SIGHUP)
    wait_for(e.log, 'a line')
    is_true(re.fullmatch(own % e.pid + 'info: new settings loaded\n', e.log_raw()), e.log_raw())
    wait_dead(worker)

    before = len(e.log_raw())
    worker = e.worker()
    client, server = tcp_pair()
    c = Chain(['tls-handshake', '-v', '2', 'tls-io', 'true'], server, env={'TLS_ENGINE': e.path})
    session, = e.wait_sessions(1)
    Peer(client).handshake().end_politely()
    c.wait()
    wait_dead(session)
    line = e.log_raw()[before:]
    is_true(line.startswith('tls-engine: pid %d: info: session ended' % session), line)

    before = len(e.log_raw())
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'true'], server, env={'TLS_ENGINE': e.path})
    session, = e.wait_sessions(1)
    os.kill(session, signal.SIGKILL)
    wait_for(lambda: len(e.log_raw()) > before, 'a line')
    is_equal(e.log_raw()[before:], 'tls-engined: pid %d: warning: the session in process %d was '
             'killed by signal 9\n' % (worker, session))
    client.close()
    c.wait()

    before = len(e.log_raw())
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(e.log_raw()) > before, 'a line')
    is_equal(e.log_raw()[before:], own % e.pid + 'warning: the worker exited unexpectedly: '
             'starting another one\n')


@test('so has the line of a worker that cannot load')
def _():
    e = Engine(server_env(OCSPFILE='/nonexistent'))
    is_equal(e.wait(), 96)
    number = re.fullmatch('tls-engined: pid ([0-9]+): fatal: unable to read OCSPFILE /nonexistent: '
                          'No such file or directory\n', e.log_raw())
    is_true(number and int(number[1]) != e.pid, e.log_raw())


run()
