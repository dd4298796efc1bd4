# ISC licence: see COPYING.
"""One session of a server, and what became of it: the facts, the refusal, the alert."""

import socket

from chain import Chain, reason
from peer import Peer, alert_of
from sockets import tcp_pair
from tap import is_equal


def server_facts(env, options=(), **settings):
    """The environment of an application behind tls-handshake, once a client with these settings
    has got in; and the client."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'env', '-0'], server, env=env)
    peer = Peer(client, **settings).handshake()
    data, end = peer.recv_all()
    is_equal(end, 'close_notify', 'end of the session')
    peer.close_notify()
    client.close()
    is_equal(c.wait(), 0, 'exit code')
    is_equal(c.stderr(), '', 'stderr')
    return dict(v.split('=', 1) for v in data.decode().split('\0') if v), peer


def server_refusal(env, options=(), code=96):
    """Why tls-handshake refuses these settings. The client must not get one byte."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    client.shutdown(socket.SHUT_WR)
    is_equal(client.recv(1), b'', 'sent to the client')
    client.close()
    return reason(c, code)


def turned_away(env, options=(), **settings):
    """How the server ends it with a client of these settings: the alert, the line of the chain."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    name = alert_of(Peer(client, **settings))
    client.close()
    return name, reason(c)


def is_echoed(peer):
    """The session works: what the peer says comes back."""
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello', 'what comes back')


def ends_well(peer, c, code=0):
    """Both sides end properly, the chain with that code and without a word."""
    is_equal(peer.end_politely(), (b'', 'close_notify'), 'end of the session')
    is_equal(c.wait(), code, 'exit code')
    is_equal(c.stderr(), '', 'stderr of the chain')
    peer.sock.close()
