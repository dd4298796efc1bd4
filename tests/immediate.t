#!/usr/bin/env python3
# ISC licence: see COPYING.
# Immediate TLS: tls-handshake tls-io app.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain
from peer import Peer
from pki import server_env
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import is_equal, run, test


@test('an application behind tls-handshake and tls-io talks to a TLS client')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
    peer = Peer(client).handshake()
    is_echoed(peer)
    ends_well(peer, c)


@test('the application keeps the pid of the chain')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io getpid pid importas -i pid pid echo $pid', server,
              env=server_env())
    is_equal(Peer(client).handshake().recv_all(), (b'%d\n' % c.pid, 'close_notify'))


run()
