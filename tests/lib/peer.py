# ISC licence: see COPYING.
"""A peer of the chain under test that speaks TLS, with every byte under control.

    client, server = tcp_pair()
    peer = Peer(client)                          # a TLS client
    peer.handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    peer.close_notify()
    is_equal(peer.recv_all(), (b'', 'close_notify'))
"""

import socket
import ssl
import types

from pki import pki

TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3
VERSIONS = (('TLS 1.2', TLS12), ('TLS 1.3', TLS13))


def plain_context(client=True, **settings):
    """An ssl.SSLContext that accepts anything; settings: min, max (TLSVersion), ciphers, alpn,
    cert (a name of the PKI), verify (True: against the CA)."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_REQUIRED if settings.get('verify') else ssl.CERT_NONE
    if settings.get('verify'):
        c.load_verify_locations(pki() + '/ca.pem')
    if settings.get('min'):
        c.minimum_version = settings['min']
    if settings.get('max'):
        c.maximum_version = settings['max']
    if settings.get('ciphers'):
        c.set_ciphers(settings['ciphers'])
    if settings.get('alpn'):
        c.set_alpn_protocols(settings['alpn'])
    if settings.get('cert'):
        c.load_cert_chain('%s/%s.pem' % (pki(), settings['cert']),
                          '%s/%s.key' % (pki(), settings['cert']))
    return c


class Peer:
    """A TLS peer over a socket, TLS in memory: what is sent and when is up to the test."""

    def __init__(self, sock, name=None, client=True, context=None, **settings):
        self.sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        context = context or plain_context(client, **settings)
        self.tls = context.wrap_bio(self._in, self._out, server_side=not client,
                                    server_hostname=name)
        self._early = b''  # decrypted before our own end, which would have lost it
        self.end = None  # how the peer's direction ended: close_notify, eof, reset

    def flush(self):
        """Sends the records that TLS has ready."""
        data = self._out.read()
        if data:
            self.sock.sendall(data)

    def pending_records(self):
        """Takes the records that TLS has ready, without sending them."""
        return self._out.read()

    def _fill(self):
        try:
            data = self.sock.recv(262144)
        except ConnectionResetError:
            self.end = 'reset'
            return False
        if not data:
            self.end = 'eof'
            return False
        self._in.write(data)
        return True

    def handshake(self):
        """Raises ssl.SSLError for an alert, ConnectionError if the other side is gone."""
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                if not self._fill():
                    raise ConnectionError(self.end)
            except ssl.SSLError:
                self.flush()
                raise

    def next_flight(self):
        """The records of the handshake that TLS has ready, without sending them."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.pending_records()

    def send(self, data, record=None):
        """Sends it all; record: the size of the TLS records to cut it into."""
        size = record or 16384
        view = memoryview(data)
        for i in range(0, len(view), size):
            self.tls.write(view[i:i + size])
            if not record or self._out.pending > 60000:
                self.flush()
        self.flush()

    def recv(self, n):
        """Exactly n bytes, fewer at the end; self.end tells how it ended."""
        got = bytearray(self._early[:n])
        self._early = self._early[n:]
        while len(got) < n and not self.end:
            try:
                data = self.tls.read(min(n - len(got), 262144))
                if not data:
                    self.end = 'close_notify'
                got += data
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLZeroReturnError:
                self.end = 'close_notify'
        return bytes(got)

    def recv_all(self):
        """All up to the end, and how it ended."""
        return self.recv(1 << 62), self.end

    def close_notify(self):
        """Ends our direction: close_notify, but no end of the TCP stream yet."""
        try:
            while not self.end:  # what is in memory: unwrap reads, too, and drops it
                data = self.tls.read(262144)
                if not data:
                    self.end = 'close_notify'
                self._early += data
        except ssl.SSLZeroReturnError:
            self.end = 'close_notify'
        except ssl.SSLWantReadError:
            pass
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        self.flush()

    def shutdown(self):
        """Ends our direction of the TCP stream."""
        self.sock.shutdown(socket.SHUT_WR)

    def end_politely(self):
        """close_notify and a shutdown, then all that comes up to the end."""
        self.close_notify()
        self.shutdown()
        return self.recv_all()

    def reset(self):
        """Ends everything with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        self.sock.close()


def alert_of(peer):
    """The name of the alert that answers the handshake of this peer, or how it ended without."""
    try:
        peer.handshake()
        got = peer.recv_all()
    except ssl.SSLError as e:
        return e.reason
    except ConnectionError as e:
        return str(e)
    raise AssertionError('no alert, but %r' % (got,))


def client_hello(**settings):
    """The bytes of a ClientHello."""
    return Peer(None, **settings).next_flight()


def all_of(peer):
    """What a program that ends by itself says, and how that ended; then the peer ends, too."""
    got = peer.recv_all()
    peer.end_politely()
    return got


class Recorder:
    """A socket that remembers what came in."""

    def __init__(self, sock):
        self.sock, self.raw = sock, b''

    def recv(self, n):
        data = self.sock.recv(n)
        self.raw += data
        return data

    def __getattr__(self, name):
        return getattr(self.sock, name)


def records_of(peer, data, close_notify=False):
    """The TLS records for data; they have to be sent in order, and before anything else."""
    collected = []
    sock, peer.sock = peer.sock, types.SimpleNamespace(sendall=collected.append)
    peer.send(data)
    if close_notify:
        peer.close_notify()
    peer.sock = sock
    return b''.join(collected)
