# ISC licence: see COPYING.
"""A client chain and the server that it talks to.

    server, c = connect(['-k', 'localhost'])    # the socket of a server to be, and the chain
    peer = Peer(server, client=False, cert='server').handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')            # the program of the chain is an echo
"""

import os

from chain import *
from extra_ucspi import descriptors
from tap import *

FATAL = 'tls-handshake: fatal: unable to start TLS: '
ECHO = ['sh', '-c', 'cat <&6 >&7']


def ca_env(**more):
    """Variables for a client that trusts the test CA; more of them, None to leave one out."""
    env = dict({'CAFILE': pki() + '/ca.pem'}, **more)
    return {k: v for k, v in env.items() if v is not None}


def connect(options, prog=('tls-io', *ECHO), env=None, fds={}, **more):
    """tls-handshake -c with these options; the server's end of its connection, and the chain. fds:
    more descriptors for it, by their numbers there."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    fds = dict({6: client.fileno(), 7: client.fileno()}, **fds)
    c = Chain(['tls-handshake', '-c', *options, *prog], env=ca_env() if env is None else env,
              client=True, preexec=descriptors(fds), **more)
    client.close()
    return server, c
