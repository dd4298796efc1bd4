# ISC licence: see COPYING.
"""A client chain and the server that it talks to.

    server, c = connect_client(['-k', 'localhost'])    # the socket of a server to be, and the chain
    peer = serve_client(server, cert='server')
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')                   # the program of the chain is an echo

    client_facts(['-k', 'localhost'])['SSL_PROTOCOL']  # what the program of a client finds
    client_refusal(['-k', 'wrong.example'])            # why a client does not take the server
"""

import socket
import ssl
import subprocess

from chain import Chain, descriptors, reason
from peer import Peer
from pki import ca_env
from scratch import close_later
from sockets import tcp_pair
from tap import SLOW, is_equal, is_true

HERE = ['-k', 'localhost']
CLIENT_ECHO = ['sh', '-c', 'cat <&6 >&7']


def start_client(argv, client, env=None, fds={}, **more):
    """A chain with this end of a connection on 6 and 7, and more descriptors, by their numbers
    there. Trusts the test CA, if env does not say otherwise."""
    client.setblocking(True)  # a timeout would make it non-blocking for the chain, too
    fds = {6: client.fileno(), 7: client.fileno(), **fds}
    c = Chain(argv, env=ca_env() if env is None else env, client=True, preexec=descriptors(fds),
              **more)
    client.close()
    return c


def connect_client(options, prog=('tls-io', '-w', *CLIENT_ECHO), **more):
    """tls-handshake -c with these options; the server's end of its connection, and the chain."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    return server, start_client(['tls-handshake', '-c', *options, *prog], client, **more)


def serve_client(sock, **settings):
    """The server at this end of a connection, its handshake done; the settings are a Peer's."""
    return Peer(sock, client=False, **dict({'cert': 'server'}, **settings)).handshake()


def client_facts(options, env=None, wrapper=(), **settings):
    """The environment of the program of a client that has taken the server. All that the chain
    has written to stderr is in it as the variable stderr."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    c = start_client([*wrapper, 'tls-handshake', '-c', *options, 'tls-io', '-w', 'sh', '-c',
                      'env -0 >&7'],
                     client, env)
    data, end = serve_client(server, **settings).end_politely()
    is_equal(end, 'close_notify', 'end of the session')
    is_equal(c.wait(), 0, 'exit code')
    return dict((v.split('=', 1) for v in data.decode().split('\0') if v), stderr=c.stderr())


def client_refusal(options, env=None, code=97, wrapper=(), **settings):
    """Why a client does not take the server: the one line that it writes. Its program is not run,
    and the server gets not one byte from it."""
    client, server = tcp_pair()
    server.settimeout(30 * SLOW)
    c = start_client([*wrapper, 'tls-handshake', '-c', *options, 'tls-io', 'echo', 'ran'], client,
                     env)
    try:
        got = serve_client(server, **settings).recv_all()
    except (ssl.SSLError, ConnectionError):
        got = b'', 'eof'
    server.close()
    is_equal(got, (b'', 'eof'), 'what the server gets')
    return reason(c, code)


class OpensslServer:
    """openssl s_server with these options, for one connection: sends each line back reversed."""

    def __init__(self, *options):
        self._p = subprocess.Popen(
            ['openssl', 's_server', '-accept', '127.0.0.1:0', '-naccept', '1', '-rev', *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        close_later(self)
        while not (line := self._p.stdout.readline()).startswith('ACCEPT '):
            is_true(line, 's_server listens')
        self._port = int(line.split(':')[1])

    def connect(self):
        return socket.create_connection(('127.0.0.1', self._port))

    def close(self):
        self._p.kill()
        self._p.wait()
        self._p.stdout.close()
