# ISC licence: see COPYING.
"""Connections, and how to read them."""

import select
import socket
import time

from scratch import close_later
from tap import SLOW


def tcp_pair():
    """Two ends of a TCP connection on the loopback interface: the client's, the server's."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.settimeout(30 * SLOW)
    close_later(client, server)
    return client, server


def unix_pair():
    """A socket pair that goes with the test."""
    pair = socket.socketpair()
    close_later(*pair)
    return pair


def read_line(source):
    """The next line, or what there is of it at the end."""
    s = b''
    while not s.endswith(b'\n'):
        c = source.recv(1)
        if not c:
            break
        s += c
    return s


def read_to_end(source, *ends):
    """All that comes up to the end. source: a socket, or what else has a recv. ends: exceptions
    that are an end as well."""
    got = b''
    try:
        while data := source.recv(65536):
            got += data
    except ends:
        pass
    return got


def drip(sock, data, pause=0.1):
    """Sends a byte at a time until the other side ends it; how long that took, in seconds."""
    start = time.monotonic()
    for byte in data:
        try:
            sock.send(bytes([byte]))
        except OSError:
            break
        if select.select([sock], [], [], pause)[0]:
            break
    return time.monotonic() - start
