# ISC licence: see COPYING.
"""ClientHellos, written byte by byte.

    records(client_hello(name='a.example', alpn=[b'h2']))   # as a client sends it
"""

import struct

SNI, ALPN_EXTENSION, VERSIONS_EXTENSION = 0, 16, 43


def vector(size, data):
    """Data behind its length, a number of so many bytes."""
    return len(data).to_bytes(size, 'big') + data


def extension(kind, data):
    return struct.pack('>H', kind) + vector(2, data)


def sni(name, kind=0):
    return extension(SNI, vector(2, bytes([kind]) + vector(2, name)))


def alpn(*names):
    return extension(ALPN_EXTENSION, vector(2, b''.join(vector(1, n) for n in names)))


def versions(*numbers):
    return extension(VERSIONS_EXTENSION, vector(1, b''.join(struct.pack('>H', n) for n in numbers)))


def client_hello_of(*extensions, legacy=0x303, session=b'', ciphers=b'\x13\x01', compressions=b'\0',
                    none=False, more=b''):
    """The message; none: without a place for extensions."""
    body = (struct.pack('>H', legacy) + bytes(range(32)) + vector(1, session) + vector(2, ciphers)
            + vector(1, compressions) + (b'' if none else vector(2, b''.join(extensions))) + more)
    return b'\x01' + vector(3, body)


def records(message, size=16384, version=0x301):
    """The message in records of so many bytes."""
    return b''.join(b'\x16' + struct.pack('>H', version) + vector(2, message[i:i + size])
                    for i in range(0, len(message), size))
