#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-engine-open before each kind of server that lets a descriptor pass, but for tcpserver.

import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, need
from examples import free_port
from peer import Peer
from pki import server_env
from proc import find_processes, is_alive
from scratch import close_later, temp_dir
from sessions import is_echoed
from tap import SLOW, is_equal, run, test, wait_for

CHAIN = ['tls-handshake', 'tls-io', 'cat']


def serves(argv, family, address, count=3):
    """Sessions with the server of argv, behind an engine that is opened; then that ends with it."""
    c = Chain(['tls-engine-open', *argv], env=server_env())

    def connect():
        s = socket.socket(family)
        s.settimeout(30 * SLOW)
        try:
            s.connect(address)
        except OSError:
            s.close()
            is_equal(c.poll(), None, 'exit code of %s: %s' % (argv[0], c.stderr()))
            return None
        close_later(s)
        return s
    for _ in range(count):
        peer = Peer(wait_for(connect, 'a server')).handshake()
        is_echoed(peer)
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        peer.sock.close()
    c.kill()
    wait_for(lambda: not [p for p in find_processes('tls-engined') if is_alive(p)],
             'the engine to end')
    is_equal([s for s in c.stderr().splitlines() if s.startswith('tls-')], [], 'complaints')


@test('s6-ipcserver: on a Unix socket')
def _():
    need('s6-ipcserver')
    path = temp_dir() + '/socket'
    serves(['s6-ipcserver', path, *CHAIN], socket.AF_UNIX, path)


def tcp_server(name, *options):
    @test('%s: on a TCP port' % name)
    def _():
        need(name)
        port = free_port()
        serves([name, *options, '127.0.0.1', str(port), *CHAIN], socket.AF_INET,
               ('127.0.0.1', port))


tcp_server('s6-tcpserver')
tcp_server('tcpsvd', '-lh')


@test('socat: a process for each connection')
def _():
    need('socat')
    port = free_port()
    serves(['socat', 'TCP-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr' % port,
            'EXEC:"%s",nofork' % ' '.join(CHAIN)], socket.AF_INET, ('127.0.0.1', port))


run()
