#!/usr/bin/env python3
# ISC licence: see COPYING.
# A session that is held: once nothing moves it keeps neither the memory of a bulk transfer nor the
# plaintext that has passed.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, not_under_valgrind
from peer import VERSIONS, Peer
from pki import server_env
from privileges import as_root
from proc import memory_of, private_memory
from processes import confined_engine, is_idle
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import Skip, is_true, run, test, wait_for

BULK = 4 << 20
MARK = b'this was said in confidence. '
RECORD = 20 << 10  # what libssl keeps of the last record each way, and a page
LIBSSL = 128 << 10  # its buffers, as far as they are new; ours are a MiB


def held(version):
    """A session of an echo, the chain, and the pid of its engine."""
    if os.environ.get('TEST_SANITIZE'):
        raise Skip('AddressSanitizer has memory of its own, and keeps what is freed')
    not_under_valgrind('has memory of its own')
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
    engine = confined_engine()
    peer = Peer(client, min=version, max=version).handshake()
    is_echoed(peer)
    return peer, c, engine


def echo(peer, data):
    """Sends it all while it comes back; that it is the same."""
    got = bytearray()
    for i in range(0, len(data), 1 << 16):
        piece = data[i:i + (1 << 16)]
        peer.send(piece)
        got += peer.recv(len(piece))
    is_true(bytes(got) == data, 'what comes back')


for what, version in VERSIONS:
    @test('%s: after 4 MB each way it has the memory of a fresh one again' % what)
    def _(version=version):
        peer, c, engine = held(version)
        is_idle(engine)
        fresh = private_memory(engine)
        echo(peer, os.urandom(BULK))
        is_true(private_memory(engine) > fresh + LIBSSL, 'it has used more')
        wait_for(lambda: private_memory(engine) <= fresh + LIBSSL, 'memory given back')
        echo(peer, os.urandom(BULK))
        wait_for(lambda: private_memory(engine) <= fresh + LIBSSL, 'again')
        ends_well(peer, c)


@as_root('a second later the plaintext is gone from its buffers')
def _():
    peer, c, engine = held(VERSIONS[1][1])
    said = MARK * (BULK // len(MARK))

    def confided():
        return memory_of(engine).count(MARK) * len(MARK)
    wait_for(lambda: echo(peer, said) or confided() > 3 * RECORD, 'it to be there')
    wait_for(lambda: confided() <= 2 * RECORD, 'it to be gone')
    ends_well(peer, c)


run()
