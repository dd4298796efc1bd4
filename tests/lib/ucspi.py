# ISC licence: see COPYING.
"""Applications that speak UCSPI-TLS, and the variables of a chain."""

from chain import PYTHON
from sockets import read_line
from tap import is_equal

# Variables: what only the TLS side reads, the descriptors of the TLS side, what is known of a
# session, the application's descriptors.

SETTINGS = ['KEYFILE', 'CERTFILE', 'OCSPFILE', 'KEYFILE:a.example.org', 'CERTFILE:a.example.org',
            'OCSPFILE:a.example.org', 'CERTFILE:*.example.net', 'KEYFILE:*.example.net', 'CAFILE',
            'CADIR', 'CRLFILE', 'TLS_SNI', 'TLS_PROTOCOLS', 'TLS_CIPHERS', 'TLS_CURVES',
            'TLS_ALPN', 'TLS_UID', 'TLS_GID', 'TLS_ENGINE']
PLUMBING = ['TLS_CTLFD', 'TLS_PLAINRFD', 'TLS_PLAINWFD', 'TLS_REASONFD', 'TLS_SESSIONFD',
            'TLS_NETRFD', 'TLS_NETWFD']
FACTS = ['SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_PEER_CERT_HASH', 'SSL_TLS_SNI_SERVERNAME', 'SSL_ALPN',
         'SSL_CIPHER_USEKEYSIZE', 'SSL_SESSION_RESUMED', 'SSL_PEER_CERT_SUBJECT',
         'SSL_PEER_CERT_ISSUER', 'SSL_PEER_CERT_NOTBEFORE', 'SSL_PEER_CERT_NOTAFTER',
         'SSL_CIPHER_ALGKEYSIZE', 'SSL_CLIENT_VERIFY', 'SSL_CLIENT_S_DN', 'SSL_CLIENT_S_DN_CN',
         'SSL_CLIENT_S_DN_Email']
UCSPI_FDS = ['SSLCTLFD', 'SSLREADFD', 'SSLWRITEFD']
APP_FDS = UCSPI_FDS + ['SSLREASONFD']  # what tls-ctl-open gives to an application
NETIDS = ['TLS_NETID', 'SSLNETID']  # which socket is the network, for either side


# Applications. Each starts with these lines.

UCSPI_TLS = '''
import os, sys
ctl, r, w = (int(os.environ[n]) for n in ('SSLCTLFD', 'SSLREADFD', 'SSLWRITEFD'))

def read_line(fd):
    s = b''
    while not s.endswith(b'\\n'):
        c = os.read(fd, 1)
        if not c:
            break
        s += c
    return s

def read_all(fd):
    s = b''
    while True:
        more = os.read(fd, 4096)
        if not more:
            return s
        s += more

def write(fd, s):
    while s:
        s = s[os.write(fd, s):]

def greet(netr=0, netw=1):
    read_line(netr)
    write(netw, b'go ahead\\n')

def wait():
    return os.waitstatus_to_exitcode(os.wait()[1])

def ask(command=b'Y'):
    os.write(ctl, command)
    return read_all(ctl)
'''


def application(code):
    """An application of that Python code; it may use what is above."""
    return PYTHON + [UCSPI_TLS + code]

ECHO = '''
while True:
    s = os.read(r, 4096)
    if not s:
        break
    write(w, s)
'''

# An application that speaks UCSPI-TLS. It reads a line from the network, answers it, asks for TLS
# with Y. Then, with an encrypted channel: sends back what it gets. Without one: tries to go on in
# plaintext, and exits 10, or 20 if it could.
STARTTLS_APP = PYTHON + ['''
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


# Their client

def starttls(client):
    """Asks an application in plaintext for TLS; after it, TLS may begin."""
    client.sendall(b'STARTTLS\n')
    is_equal(read_line(client), b'go ahead\n', 'plaintext answer')
