#!/usr/bin/env python3
# ISC licence: see COPYING.
# Who holds a private key: the signer, which has no network, and nobody else. The memory of every
# process is read, in every phase of a session.

import base64
import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, is_libressl, not_resident
from clients import CLIENT_ECHO, HERE, serve_client, start_client
from engined import start_engine
from peer import TLS12, TLS13, Peer
from pki import ca_env, issued, openssl, pki_path, server_env
from privileges import as_root
from proc import SIGNER, all_pids, comm_of, fds_of, find_processes, is_below, memory_of
from processes import confined_engine, wait_dead
from scratch import temp
from sessions import ends_well, is_echoed
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, wait_for

KINDS = {
    'EC P-256': ('server', None),
    'EC P-384': ('p384', ('ec', '-pkeyopt', 'ec_paramgen_curve:P-384')),
    'EC P-521': ('p521', ('ec', '-pkeyopt', 'ec_paramgen_curve:P-521')),
    'RSA': ('rsa', None),
}
if not is_libressl():  # which has no such certificates in TLS
    KINDS['RSA-PSS'] = ('pss', ('rsa-pss', '-pkeyopt', 'rsa_keygen_bits:2048'))


def need_own_memory():
    if os.environ.get('TEST_VALGRIND') or os.environ.get('TEST_SANITIZE'):
        raise Skip('the tool keeps copies of what a process reads, and what it frees')


def key_name(kind):
    name, how = KINDS[kind]
    return issued(name, key=how) if how else name


def numbers(text, names):
    """The numbers of those names that openssl pkey -text shows, as bytes, largest digit first."""
    for name in names:
        found = re.search(r'^%s:.*\n((?: +[0-9a-f:]+\n)+)' % name, text, re.M)
        if found:
            yield bytes.fromhex(re.sub('[^0-9a-f]', '', found[1])).lstrip(b'\0')


def pem_lines(path, private):
    """The lines of a key in PEM that have something of its private numbers in them."""
    with open(path) as f:
        lines = [line for line in f.read().splitlines() if '-----' not in line]
    der = base64.b64decode(''.join(lines))
    for n in private:
        start = der.index(n)
        for i, line in enumerate(lines):
            if min(start + len(n), 48 * i + 48) - max(start, 48 * i) >= 12:
                yield line.encode()


def secrets(path):
    """What is of the key in a file and must not be in a memory: its private numbers, the digits
    in either order, which are all that DER has beside the public ones; the lines of its PEM."""
    text = openssl('pkey', '-in', path, '-noout', '-text').decode()
    private = list(numbers(text, ['priv', 'privateExponent', 'prime1', 'prime2', 'exponent1',
                                  'exponent2', 'coefficient']))
    is_true(private, 'private numbers in ' + text)
    return [s for n in private for s in (n, n[::-1])] + list(pem_lines(path, private))


def holders(path, but=()):
    """The names of the processes below this one that have something of the key in memory."""
    found = {}
    wanted = secrets(path)
    for pid in all_pids():
        if pid == os.getpid() or pid in but:
            continue
        try:
            if is_below(pid, os.getpid()):
                memory = memory_of(pid)
                if any(s in memory for s in wanted):
                    found[pid] = comm_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def has_network(pid, client):
    """Whether a process has the socket at the other end of client."""
    local, remote = client.getpeername(), client.getsockname()
    with open('/proc/net/tcp') as f:
        rows = [line.split() for line in f.readlines()[1:]]
    inode, = [row[9] for row in rows if row[1].endswith(':%04X' % local[1])
              and row[2].endswith(':%04X' % remote[1])]
    return 'socket:[%s]' % inode in fds_of(pid).values()


def only_signer_holds(path, client=None, n=1):
    found = holders(path)
    is_equal(list(found.values()), [SIGNER] * n, 'who holds the key')
    for pid in found:
        is_true(client is None or not has_network(pid, client), 'the signer has no network')


@as_root('an engine of the chain\'s own: the signer holds the key until it has signed, then nobody')
def _():
    not_resident('is looked at by name')
    need_own_memory()
    for kind in KINDS:
        name = key_name(kind)
        path = pki_path(name + '.key')
        for version in TLS12, TLS13:
            client, server = tcp_pair()
            c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env(name))
            confined_engine()
            wait_for(lambda: find_processes(SIGNER), 'a signer')
            only_signer_holds(path, client)
            signer, = find_processes(SIGNER)
            peer = Peer(client, min=version, max=version).handshake()
            is_echoed(peer)
            wait_dead(signer)
            is_equal(holders(path), {}, 'who holds a key of kind %s after the handshake' % kind)
            ends_well(peer, c)


@as_root('a resident engine: its signer holds the key, no worker and no session does')
def _():
    need_own_memory()
    for kind in KINDS:
        name = key_name(kind)
        path = pki_path(name + '.key')
        e = start_engine(server_env(name))
        only_signer_holds(path)
        for version in TLS12, TLS13:
            client, server = tcp_pair()
            c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env={'TLS_ENGINE': e.path})
            e.wait_sessions(1)
            only_signer_holds(path, client)
            peer = Peer(client, min=version, max=version).handshake()
            is_echoed(peer)
            only_signer_holds(path, client)
            ends_well(peer, c)
        e.close()


@as_root('a client with a certificate: the same, by an engine of its own and a resident one')
def _():
    not_resident('is looked at by name')
    need_own_memory()
    path = pki_path('client.key')
    pair = {'CERTFILE': pki_path('client.pem'), 'KEYFILE': path}
    e = start_engine(ca_env(**pair), ['-c'])
    for version in TLS12, TLS13:
        for env in ca_env(**pair), {'TLS_ENGINE': e.path}:
            own = 'TLS_ENGINE' not in env
            client, server = tcp_pair()
            c = start_client(['tls-handshake', '-c', '-y', *HERE, 'tls-io', '-w', *CLIENT_ECHO],
                             client, env)
            if own:
                confined_engine()
                wait_for(lambda: len(find_processes(SIGNER)) == 2, 'its signer')
            else:
                e.wait_sessions(1)
            only_signer_holds(path, server, 2 if own else 1)
            peer = serve_client(server, verify=True, min=version, max=version)
            is_echoed(peer)
            wait_for(lambda: len(find_processes(SIGNER)) == 1, 'the end of its signer')
            only_signer_holds(path, server)
            ends_well(peer, c)


@as_root('what was read of a KEYFILE is wiped: the signer has the key, but not the file')
def _():
    need_own_memory()
    note = 'a line that belongs to no key\n'
    with open(pki_path('server.key')) as f:
        key = f.read()
    for before, after in (2000, 0), (0, 2000):
        path = temp(before * note + key + after * note)
        e = start_engine(server_env(KEYFILE=path))
        memory = memory_of(e.signers()[0])
        is_true(any(s in memory for s in secrets(pki_path('server.key'))), 'it has the key')
        left = memory.count(note.encode())
        is_true(left < 10, '%d lines of it are left' % left)  # libcrypto reads it line by line
        e.close()


run()
