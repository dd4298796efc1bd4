#!/usr/bin/env python3
# ISC licence: see COPYING.
# Each process of a chain is killed in each phase: the others see an end, and nobody stays.

import os
import signal
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed
from peer import Peer, client_hello
from pki import server_env
from proc import find_processes, status_of
from processes import confined_engine
from scratch import temp_dir
from sessions import is_echoed
from sockets import tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import STARTTLS_APP, starttls

LIMIT = 1000 * SLOW  # ms, for the handshake, where only that ends it

# A stage that waits for a line in the fifo, and then goes on.
POLICY = '#!/bin/sh\nread line <"$GATE"\nexec "$@"\n'

# An application for immediate TLS: sends back what it gets.
ECHO = PYTHON + ['''
import os
try:
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        while data:
            data = data[os.write(1, data):]
except OSError:
    os._exit(11)
''']


class Scene:
    """A chain in one of its phases, a client, and the pids of those who play."""

    def __init__(self, phase, is_delayed, limit):
        self.is_delayed = is_delayed
        self.gate = os.path.join(temp_dir(), 'gate')
        policy = os.path.join(os.path.dirname(self.gate), 'policy')
        os.mkfifo(self.gate)
        with open(policy, 'w') as f:
            f.write(POLICY)
        os.chmod(policy, 0o755)
        between = [policy] if phase == 'between' else []
        tls = ['tls-handshake', '-K', str(limit), *between, 'tls-io', '-w']
        argv = delayed(STARTTLS_APP, ['tls-await', *tls]) if is_delayed else [*tls, *ECHO]
        self.client, server = tcp_pair()
        self.chain = Chain(argv, server, env=server_env(GATE=self.gate))
        self.peer = Peer(self.client)
        self.pid = {}
        getattr(self, phase)()

    def find(self, name):
        self.pid[name] = wait_for(lambda: find_processes(name), name)[0]

    # How each phase is reached.

    def plain(self):
        self.find('tls-await')
        self.pid['application'] = self.chain.pid

    def waiting(self):
        if self.is_delayed:
            self.plain()
            starttls(self.client)
        self.find('tls-handshake')
        self.pid['tls-engine'] = confined_engine()

    def middle(self):
        self.waiting()
        self.client.sendall(client_hello())
        is_equal(self.client.recv(1), b'\x16')

    def between(self):
        self.waiting()
        self.peer.handshake()
        self.find('policy')

    def idle(self):
        self.waiting()
        self.peer.handshake()
        is_echoed(self.peer)
        self.find('tls-io')
        self.pid['application'] = self.chain.pid if self.is_delayed else child_of(self.chain.pid)

    def busy(self):
        self.idle()
        self.client.setblocking(False)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        data = bytes(16384)
        try:
            while True:
                self.peer.send(data)
        except BlockingIOError:
            pass
        self.client.settimeout(30 * SLOW)

    # What can be done then.

    def kill(self, name):
        os.kill(self.pid[name], signal.SIGKILL)

    def open_gate(self):
        os.close(os.open(self.gate, os.O_WRONLY))

    def end_by_client(self, phase):
        """The session lives, until the client ends it."""
        if phase == 'idle':
            self.peer.send(b'more')
            is_equal(self.peer.recv(4), b'more')
            is_equal(self.peer.end_politely(), (b'', 'close_notify'))
        else:
            is_true(self.client.recv(1), 'something comes')
        self.client.close()

    def end_for_client(self):
        """Whatever comes, it ends."""
        try:
            while self.client.recv(65536):
                pass
        except ConnectionError:
            pass
        self.client.close()


def child_of(pid):
    return [p for p in map(int, filter(str.isdigit, os.listdir('/proc')))
            if is_child(p, pid)][0]


def is_child(pid, parent):
    try:
        return status_of(pid)['PPid'] == str(parent)
    except (FileNotFoundError, ProcessLookupError):
        return False


# For each phase: who is killed, and the exit codes of the chain that may follow. Delayed, the chain
# is the application: 10 and 20 tell that it got no reply (20: the network was still open, as
# nobody who is killed can shut it), 0 and 11 that it saw the end of a session. Immediate, it is
# the TLS side.

KILLED = [-signal.SIGKILL]

PHASES = {
    'plain': 'nobody has asked for TLS yet',
    'waiting': 'the engine waits for the ClientHello',
    'middle': 'the client owes the end of the handshake',
    'between': 'a policy is at work before tls-io',
    'idle': 'the session is idle',
    'busy': 'the session is busy both ways',
}

DELAYED = {
    'plain': {'tls-await': [20], 'application': KILLED},
    'waiting': {'tls-handshake': [10, 20], 'tls-engine': [10], 'application': KILLED},
    'middle': {'tls-handshake': [10, 20], 'tls-engine': [10], 'application': KILLED},
    'between': {'policy': [10, 20], 'tls-engine': [0, 11], 'application': KILLED},
    'idle': {'tls-io': [0], 'tls-engine': [0, 11], 'application': KILLED},
    'busy': {'tls-io': [0, 11], 'tls-engine': [0, 11], 'application': KILLED},
}

IMMEDIATE = {
    'waiting': {'tls-handshake': KILLED, 'tls-engine': [98]},
    'middle': {'tls-handshake': KILLED, 'tls-engine': [98]},
    'between': {'policy': KILLED, 'tls-engine': [98]},
    'idle': {'tls-io': KILLED, 'tls-engine': [98], 'application': [137]},
    'busy': {'tls-io': KILLED, 'tls-engine': [98], 'application': [137, 98]},
}


def play(phase, victim, is_delayed, codes):
    only_time_ends_it = victim == 'application' and phase in ('waiting', 'middle')
    s = Scene(phase, is_delayed, LIMIT if only_time_ends_it else 30000)
    s.kill(victim)
    if victim == 'tls-await':
        starttls(s.client)
    if phase == 'between' and victim != 'policy':
        s.open_gate()
    if victim == 'tls-io':
        s.end_by_client(phase)
    elif victim == 'application' and phase == 'idle':
        is_equal(s.peer.end_politely(), (b'', 'close_notify'))
    else:
        s.end_for_client()
    code = s.chain.wait()
    is_true(code in codes, 'exit code %d, one of %r: %s' % (code, codes, s.chain.stderr()))


for kind, cases in ('delayed', DELAYED), ('immediate', IMMEDIATE):
    for phase in cases:
        for victim, codes in cases[phase].items():
            @test('%s TLS: %s is killed while %s' % (kind, victim, PHASES[phase]))
            def _(phase=phase, victim=victim, is_delayed=kind == 'delayed', codes=codes):
                play(phase, victim, is_delayed, codes)


run()
