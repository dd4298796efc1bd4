# ISC licence: see COPYING.
"""A TLS peer that makes its records itself: empty ones, any alert, KeyUpdate, whatever is wrong.

    peer = Forger(client, TLS13).handshake()
    peer.forge((TEXT, b'hello'), (TEXT, b''), (ALERT, CLOSE_NOTIFY))
    is_equal(peer.recv_all(), (b'', 'close_notify'))

After the handshake it sends by forge() alone; what it receives goes through the library as usual.
The cipher is AES-256-GCM, with SHA-384.
"""

import _ssl
import ctypes
import hmac
import socket

from peer import TLS13, Peer, plain_context
from scratch import temp
from tap import Skip, is_equal

_crypto = ctypes.CDLL(_ssl.__file__)
_crypto.EVP_CIPHER_CTX_new.restype = _crypto.EVP_aes_256_gcm.restype = ctypes.c_void_p
_crypto.EVP_EncryptInit_ex.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p] * 2
_crypto.EVP_EncryptUpdate.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p, ctypes.c_int]
_crypto.EVP_EncryptFinal_ex.argtypes = [ctypes.c_void_p] * 3
_crypto.EVP_CIPHER_CTX_ctrl.argtypes = [ctypes.c_void_p] + [ctypes.c_int] * 2 + [ctypes.c_void_p]
_crypto.EVP_CIPHER_CTX_free.argtypes = [ctypes.c_void_p]

ALERT, HANDSHAKE, TEXT = 21, 22, 23
CLOSE_NOTIFY, USER_CANCELED, INTERNAL_ERROR = b'\1\0', b'\1\x5a', b'\2\x50'
HELLO_REQUEST = b'\0\0\0\0'
KEY_UPDATE, KEY_UPDATE_REQUESTED = b'\x18\0\0\1\0', b'\x18\0\0\1\1'


def _hmac(key, data):
    return hmac.digest(key, data, 'sha384')


def _prf(secret, label, seed, n):
    """RFC 5246, 5."""
    out, a = b'', label + seed
    while len(out) < n:
        a = _hmac(secret, a)
        out += _hmac(secret, a + label + seed)
    return out[:n]


def _expand(secret, label, n):
    """HKDF-Expand-Label with an empty context (RFC 8446, 7.1), for n up to the hash's length."""
    label = b'tls13 ' + label
    info = n.to_bytes(2, 'big') + bytes([len(label)]) + label + b'\0'
    return _hmac(secret, info + b'\1')[:n]


def _gcm(key, nonce, aad, text):
    """Encrypts with the libcrypto of this Python; returns the text and the tag after it."""
    context = _crypto.EVP_CIPHER_CTX_new()
    sealed, tag, n = (ctypes.create_string_buffer(size) for size in (len(text), 16, 4))
    is_equal([
        _crypto.EVP_EncryptInit_ex(context, _crypto.EVP_aes_256_gcm(), None, key, nonce),
        _crypto.EVP_EncryptUpdate(context, None, n, aad, len(aad)),
        _crypto.EVP_EncryptUpdate(context, sealed, n, text, len(text)),
        _crypto.EVP_EncryptFinal_ex(context, None, n),
        _crypto.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, tag),  # EVP_CTRL_AEAD_GET_TAG
    ], [1] * 5, 'AES-256-GCM')
    _crypto.EVP_CIPHER_CTX_free(context)
    return sealed.raw + tag.raw


class Forger(Peer):
    """A client, or with client=False a server."""

    def __init__(self, sock, version, client=True):
        self._version, self._client = version, client
        self._server_random = b''
        self._keylog = temp()
        context = plain_context(client, min=version, max=version, cert=None if client else 'server',
                                ciphers='ECDHE-ECDSA-AES256-GCM-SHA384')
        context.keylog_filename = self._keylog
        if not client:
            context.num_tickets = 0  # each would be a record
        super().__init__(sock, client=client, context=context)

    def _fill(self):
        if self._client and not self._server_random:
            self._server_random = self.sock.recv(43, socket.MSG_PEEK)[11:]  # of the ServerHello
        return super()._fill()

    def flush(self):
        data = self.pending_records()
        if not self._client and not self._server_random:
            self._server_random = data[11:43]
        if data:
            self.sock.sendall(data)

    def handshake(self):
        super().handshake()
        if 'CHACHA20' in self.tls.cipher()[0]:  # what a libtls without assembler likes best
            raise Skip('this makes records with AES only')
        is_equal(self.tls.cipher()[0].replace('-', '_')[-14:], '256_GCM_SHA384', 'cipher')
        with open(self._keylog) as f:
            log = {line.split()[0]: line.split()[1:] for line in f}
        if self._version == TLS13:
            who = 'CLIENT' if self._client else 'SERVER'
            self._use(bytes.fromhex(log[who + '_TRAFFIC_SECRET_0'][1]))
        else:
            client_random, master = map(bytes.fromhex, log['CLIENT_RANDOM'])
            block = _prf(master, b'key expansion', self._server_random + client_random, 72)
            keys, ivs = (block[:32], block[32:64]), (block[64:68], block[68:])
            self._key, self._iv, self._sequence = keys[not self._client], ivs[not self._client], 1
        return self

    def _use(self, secret):
        self._secret, self._sequence = secret, 0
        self._key, self._iv = _expand(secret, b'key', 32), _expand(secret, b'iv', 12)

    def update_key(self):
        """The next keys of TLS 1.3, as they are after a KeyUpdate."""
        self._use(_expand(self._secret, b'traffic upd', 48))

    def seal(self, *messages):
        """Records, each from its type and its content."""
        sealed = b''
        for kind, content in messages:
            sequence = self._sequence.to_bytes(8, 'big')
            self._sequence += 1
            if self._version == TLS13:
                content += bytes([kind])
                head = b'\x17\3\3' + (len(content) + 16).to_bytes(2, 'big')
                nonce = bytes(a ^ b for a, b in zip(self._iv, bytes(4) + sequence))
                sealed += head + _gcm(self._key, nonce, head, content)
            else:
                head = bytes([kind]) + b'\3\3' + (len(content) + 24).to_bytes(2, 'big') + sequence
                aad = sequence + head[:3] + len(content).to_bytes(2, 'big')
                sealed += head + _gcm(self._key, self._iv + sequence, aad, content)
        return sealed

    def forge(self, *messages):
        """Sends them."""
        self.sock.sendall(self.seal(*messages))
