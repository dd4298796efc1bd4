# ISC licence: see COPYING.
"""One session of a server, and what became of it: the facts, the refusal, the alert."""

import select
import socket
import ssl
import time

from chain import Chain, PYTHON, Peer, engines, tcp_pair
from tap import is_equal, is_true, wait_for

FATAL = 'tls-handshake: fatal: unable to start TLS: '


def facts(env, options=(), **settings):
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


def reason(c, code=97):
    """The reason that a failed handshake gives on its one line; its exit code is as told."""
    is_equal(c.wait(), code, 'exit code (stderr: %r)' % c.stderr())
    text = c.stderr()
    is_true(text.startswith(FATAL) and text.find('\n') == len(text) - 1, 'one line: %r' % text)
    return text[len(FATAL):-1]


def refusal(env, options=(), code=96):
    """Why tls-handshake refuses these settings. The client must not get one byte."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    client.shutdown(socket.SHUT_WR)
    is_equal(client.recv(1), b'', 'sent to the client')
    client.close()
    return reason(c, code)


def alert(peer):
    """The name of the alert that answers the handshake of this peer, or how it ended without."""
    try:
        peer.handshake()
        got = peer.recv_all()
    except ssl.SSLError as e:
        return e.reason
    except ConnectionError as e:
        return str(e)
    raise AssertionError('no alert, but %r' % (got,))


def turned_away(env, options=(), **settings):
    """How the server ends it with a client of these settings: the alert, the line of the chain."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, 'tls-io', 'echo', 'served'], server, env=env)
    name = alert(Peer(client, **settings))
    client.close()
    return name, reason(c)


def hello(**settings):
    """The bytes of a ClientHello."""
    peer = Peer(None, **settings)
    try:
        peer.tls.do_handshake()
    except ssl.SSLWantReadError:
        return peer.pending_records()


def rest(sock):
    """All that comes up to the end."""
    got = b''
    while True:
        data = sock.recv(65536)
        if not data:
            return got
        got += data


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


# An application that speaks UCSPI-TLS. It reads a line from the network, answers it, asks for TLS
# with Y. Then, with an encrypted channel: sends back what it gets. Without one: tries to go on in
# plaintext, and exits 10, or 20 if it could.
STARTTLS = PYTHON + ['''
import os
ctl, r, w = (int(os.environ[v]) for v in ("SSLCTLFD", "SSLREADFD", "SSLWRITEFD"))
line = b""
while not line.endswith(b"\\n"):
    byte = os.read(0, 1)
    if not byte:
        os._exit(0)
    line += byte
os.write(1, b"go ahead\\n")
reply = b""
try:
    os.write(ctl, b"Y")
    while True:
        some = os.read(ctl, 4096)
        if not some:
            break
        reply += some
except OSError:
    pass
if not reply:
    try:
        os.write(1, b"plaintext")
    except OSError:
        os._exit(10)
    os._exit(20)
try:
    while True:
        data = os.read(r, 65536)
        if not data:
            break
        while data:
            data = data[os.write(w, data):]
except OSError:
    os._exit(11)
''']


def starttls(sock):
    """The client's side of STARTTLS: after it, TLS may begin."""
    sock.sendall(b'STARTTLS\n')
    with sock.makefile('rb', buffering=0) as f:
        is_equal(f.readline(), b'go ahead\n')


def delayed(tls_side, app):
    """The arguments of tls-ctl-open { tls_side... } app..."""
    return ['tls-ctl-open', *[' ' + word for word in tls_side], '', *app]


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    with open('/proc/%d/status' % pid) as f:
        lines = (line.partition(':') for line in f)
        return {name: value.strip() for name, _, value in lines}


def confined_engine():
    """The pid of the engine, once it has given up what it does not need: it is about to read the
    network."""
    def ready():
        return [pid for pid in engines() if status_of(pid)['NoNewPrivs'] == '1']
    return wait_for(ready, 'an engine that is ready to read the network')[0]
