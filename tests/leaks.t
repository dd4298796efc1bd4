#!/usr/bin/env python3
# ISC licence: see COPYING.
# Leaks: which descriptors and variables each process holds in each phase, and no others.

import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed, not_resident, not_under_valgrind
from peer import Peer
from pki import hashed_dir, ocsp_response, pki, server_env
from proc import children, environ_of, fds_of, mode_of, state_of
from processes import engines, orphan_exit_code, wait_engine, wait_process
from scratch import temp_dir
from sockets import tcp_pair
from tap import is_equal, is_true, run, test, wait_for
from ucspi import APP_FDS, ECHO, FACTS, NETIDS, PLUMBING, application, starttls

# A stage that stops the chain until the test goes on; it holds nothing while it waits.
PAUSE = PYTHON + ['''
import os, sys
open(sys.argv[1]).close()
os.execvp(sys.argv[2], sys.argv[2:])
''']
PYTHON_NAME = os.path.basename(PYTHON[0])


def fifo():
    path = temp_dir() + '/fifo'
    os.mkfifo(path)
    return path


def go_on(path):
    with open(path, 'w'):
        pass


OWN = 'has descriptors and variables of its own'


# Descriptors

class Names:
    """Names for what descriptors are open on, as the test learns them."""

    def __init__(self, chain, server):
        self.names = {fds_of(chain.pid)[2]: 'stderr', server: 'network'}

    def learn(self, pid, fd, name):
        self.names[fds_of(pid)[int(fd)]] = name

    def held(self, pid):
        """What a process holds: 0, 1 and 2 with their numbers, the others without."""
        held = []
        for fd, link in fds_of(pid).items():
            name = self.names.get(link, 'socket' if link.startswith('socket:') else link)
            if link == name and is_engined(pid):
                name = 'to the worker'
            if link.startswith('pipe:'):
                name += ', writing end' if mode_of(pid, fd) == os.O_WRONLY else ', reading end'
            held.append('%d: %s' % (fd, name) if fd < 3 else name)
        return sorted(held)

    def holds(self, pid, *wanted):
        """Waits until a process holds just that."""
        wanted = sorted(wanted)

        def now():
            try:
                return self.held(pid) == wanted
            except FileNotFoundError:  # one was closed between two looks
                return False
        try:
            wait_for(now, 'descriptors', 5)
        except AssertionError:
            is_equal(self.held(pid), wanted, 'descriptors of %s' % name_of(pid))


def is_engined(pid):
    with open('/proc/%d/cmdline' % pid, 'rb') as f:
        return b'tls-engined' in f.read()


def name_of(pid):
    with open('/proc/%d/cmdline' % pid) as f:
        return os.path.basename(f.read().split('\0')[0])


def network_of(sock):
    """What a link to that socket looks like in /proc."""
    return os.readlink('/proc/self/fd/%d' % sock.fileno())


NETWORK = '0: network', '1: network', '2: stderr'
NOTHING = '0: /dev/null', '1: /dev/null', '2: stderr'
ENGINE = '0: socket', '1: stderr', '2: stderr', 'network', 'network'
if os.environ.get('TEST_RESIDENT'):
    ENGINE += ('to the worker, writing end',) * 2  # where a session says that it lingers, or ends
CHANNEL = 'socket'  # to the signer
APP_PIPES = 'to the application, reading end', 'from the application, writing end'
TLS_PIPES = 'to the application, writing end', 'from the application, reading end'
HEARS, TELLS = 'reason, reading end', 'reason, writing end'
PLAINTEXT = ('0: to the application, reading end', '1: from the application, writing end',
             '2: stderr')


def wait_stage(pid, name):
    """Waits until the chain has come to a program of that name, and that waits for something."""
    wait_for(lambda: name_of(pid) == name and state_of(pid) == 'S', '%s as %d' % (name, pid))


def delayed_chain(command, tlsside, options=(), env=None):
    """The client, the chain, the TLS side's pid, and names for what they hold."""
    not_under_valgrind(OWN)
    client, server = tcp_pair()
    network = network_of(server)
    c = Chain(delayed(application('greet(); ask(%r)' % command + ECHO), tlsside, options), server,
              env=server_env(**env or {}))
    names = Names(c, network)
    tls = wait_process('tls-await')
    wait_stage(tls, 'tls-await')
    wait_stage(c.pid, PYTHON_NAME)
    app = environ_of(c.pid)
    names.learn(c.pid, app['SSLREADFD'], 'to the application')
    names.learn(c.pid, app['SSLWRITEFD'], 'from the application')
    names.learn(c.pid, app['SSLREASONFD'], 'reason')
    return client, c, tls, names


def ends(peer, c):
    """The session ends well, and of its processes none is left to be taken for one of the next."""
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    wait_for(lambda: not engines(), 'the engine to end')


def only_processes(*pids):
    is_equal(sorted(children()), sorted(pids), 'processes')


@test('delayed TLS: the descriptors of application, TLS side and engine, phase by phase')
def _():
    for command in b'y', b'Y':
        for options in [], ['-D']:
            pause = fifo()
            tlsside = ['tls-await', 'tls-handshake', *PAUSE, pause, 'tls-io', 'cat', pause]
            client, c, tls, names = delayed_chain(command, tlsside, options)
            control = ['socket'] if command == b'Y' else []

            # The plaintext phase.
            names.holds(c.pid, *NETWORK, 'socket', *APP_PIPES, HEARS)
            names.holds(tls, *NETWORK, 'socket', *TLS_PIPES, TELLS)
            is_equal(engines(), [], 'engines')

            # The application has asked, the client is silent.
            starttls(client)
            engine = wait_engine()[0]
            wait_stage(tls, 'tls-handshake')
            names.holds(c.pid, *NETWORK, 'socket', *APP_PIPES, HEARS)
            names.holds(tls, *NETWORK, 'socket', *control, *TLS_PIPES, TELLS)
            names.holds(engine, *ENGINE, CHANNEL)

            # The handshake is over, the session not joined.
            peer = Peer(client).handshake()
            wait_stage(tls, PYTHON_NAME)
            names.holds(c.pid, *NETWORK, 'socket', *APP_PIPES, HEARS)
            names.holds(tls, *NOTHING, 'socket', *control, *TLS_PIPES, TELLS)
            names.holds(engine, *ENGINE)

            # The session is joined; what follows tls-io has no part in it.
            go_on(pause)
            wait_stage(tls, 'cat')
            names.holds(c.pid, *NETWORK, 'socket', *APP_PIPES, HEARS)
            names.holds(tls, *NOTHING)
            names.holds(engine, *ENGINE, *TLS_PIPES)

            go_on(pause)
            ends(peer, c)


@test('delayed TLS, tls-io -w: what stays for the end of the session holds no part of it')
def _():
    not_resident('is one more child of this test')
    client, c, tls, names = delayed_chain(b'Y', ['tls-await', 'tls-handshake', 'tls-io', '-w'])
    starttls(client)
    peer = Peer(client).handshake()
    engine = wait_engine()[0]
    names.holds(engine, *ENGINE, *TLS_PIPES)
    names.holds(tls, *NOTHING, 'socket')
    names.holds(c.pid, *NETWORK, 'socket', *APP_PIPES, HEARS)
    only_processes(c.pid, tls, engine)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(orphan_exit_code(tls), 0)
    is_equal(c.wait(), 0)


@test('tls-ctl-start: its program holds the plaintext on 0 and 1, and nothing of the network')
def _():
    not_under_valgrind(OWN)
    client, server = tcp_pair()
    network = network_of(server)
    c = Chain(delayed(['tls-ctl-start', 'cat'], ['tls-await', 'tls-handshake', 'tls-io', '-w']),
              server, env=dict(base_env(), **{n: 'outer' for n in FACTS + APP_FDS}))
    names = Names(c, network)
    peer = Peer(client, name='a.example.org', alpn=['smtp']).handshake()
    wait_stage(c.pid, 'cat')
    names.learn(c.pid, 0, 'to the application')
    names.learn(c.pid, 1, 'from the application')
    names.holds(c.pid, *PLAINTEXT)
    names.holds(wait_engine()[0], *ENGINE, *TLS_PIPES)
    has_variables(c.pid, without_settings(base_env()), KNOWN)
    ends(peer, c)


def immediate_chain(argv, **more):
    not_under_valgrind(OWN)
    client, server = tcp_pair()
    network = network_of(server)
    c = Chain(argv, server, env=server_env(), **more)
    return client, c, Names(c, network)


@test('immediate TLS: the descriptors of the chain and of the engine, phase by phase')
def _():
    not_resident('is one more child of this test')
    pause = fifo()
    client, c, names = immediate_chain(['tls-handshake', *PAUSE, pause, 'tls-io', 'cat'])

    # The client is silent.
    engine = wait_engine()[0]
    names.holds(c.pid, *NETWORK, 'socket')
    names.holds(engine, *ENGINE, CHANNEL)

    # The handshake is over.
    peer = Peer(client).handshake()
    wait_stage(c.pid, PYTHON_NAME)
    names.holds(c.pid, *NOTHING, 'socket')
    names.holds(engine, *ENGINE)

    # The session is joined.
    go_on(pause)
    wait_stage(c.pid, 'cat')
    names.learn(c.pid, 0, 'to the application')
    names.learn(c.pid, 1, 'from the application')
    names.holds(c.pid, *PLAINTEXT)
    names.holds(engine, *ENGINE, *TLS_PIPES)
    only_processes(c.pid, engine)

    ends(peer, c)


@test('immediate TLS, tls-io -w: what waits holds the session socket, and its child the plaintext')
def _():
    client, c, names = immediate_chain(['tls-handshake', 'tls-io', '-w', 'cat'])
    peer = Peer(client).handshake()
    app = wait_process('cat')
    names.learn(app, 0, 'to the application')
    names.learn(app, 1, 'from the application')
    names.holds(app, *PLAINTEXT)
    names.holds(c.pid, '2: stderr', 'socket')
    names.holds(wait_engine()[0], *ENGINE, *TLS_PIPES)
    ends(peer, c)


@test('a pipe end that leaks into the chain does not stay in the engine and hide an end of file')
def _():
    rfd, wfd = os.pipe()
    reader = os.fdopen(rfd, 'rb')
    cat_without_it = PYTHON + ['import os; os.close(%d); os.execvp("cat", ["cat"])' % wfd]
    client, c, names = immediate_chain(['tls-handshake', 'tls-io', *cat_without_it], pass_fds=[wfd])
    os.close(wfd)
    peer = Peer(client).handshake()
    is_equal(reader.read(), b'', 'the end of file')
    reader.close()
    wait_stage(c.pid, 'cat')
    names.learn(c.pid, 0, 'to the application')
    names.learn(c.pid, 1, 'from the application')
    names.holds(wait_engine()[0], *ENGINE, *TLS_PIPES)
    ends(peer, c)


@test('-C: the descriptor for the peer\'s certificates is left to nobody')
def _():
    rfd, wfd = os.pipe()
    reader = os.fdopen(rfd, 'rb')
    client, c, names = immediate_chain(['tls-handshake', '-C', str(wfd), 'tls-io', 'cat'],
                                       pass_fds=[wfd])
    os.close(wfd)
    peer = Peer(client).handshake()
    is_equal(reader.read(), b'', 'the certificates of a client that shows none, and the end')
    reader.close()
    ends(peer, c)


# Variables

USER = {} if os.getuid() else {'TLS_UID': '65534', 'TLS_GID': '65534'}


def base_env():
    """What a chain is started with: every setting, and a variable that is nobody's business."""
    p = pki()
    return server_env(**{
        'KEYFILE:a.example.org': p + '/a.key', 'CERTFILE:a.example.org': p + '/a.pem',
        'KEYFILE:*.wild.example.org': p + '/wild.key',
        'CERTFILE:*.wild.example.org': p + '/wild.pem',
        'CAFILE': p + '/ca.pem', 'CADIR': hashed_dir('ca'), 'CRLFILE': p + '/crl.pem',
        'OCSPFILE:a.example.org': ocsp_response('a'), 'TLS_PROTOCOLS': 'tlsv1.2',
        'TLS_CIPHERS': 'ECDHE-ECDSA-AES128-GCM-SHA256', 'TLS_CURVES': 'P-256:P-384',
        'TLS_ALPN': 'smtp', 'OTHER': 'kept', **USER})


KNOWN = {
    'SSL_PROTOCOL': 'TLSv1.2', 'SSL_CIPHER': 'ECDHE-ECDSA-AES128-GCM-SHA256', 'SSL_ALPN': 'smtp',
    'SSL_TLS_SNI_SERVERNAME': 'a.example.org', 'SSL_CIPHER_USEKEYSIZE': '128',
    'SSL_SESSION_RESUMED': 'Initial', 'SSL_CIPHER_ALGKEYSIZE': '128', 'SSL_CLIENT_VERIFY': 'NONE',
}
# Of an outer chain: to be replaced, or gone.
OUTER = {n: 'outer' for n in PLUMBING + FACTS + APP_FDS + NETIDS}


def has_variables(pid, *wanted, numbers=()):
    """A process has these variables, in those of numbers a number, or DEV:INO, and no others."""
    found = {n: v for n, v in environ_of(pid).items()
             if n not in ('PATH', 'LC_CTYPE')  # Python sets the latter
             and not n.startswith(('TEST_', 'ASAN_', 'UBSAN_', 'LSAN_'))}
    for n in numbers:
        pattern = r'\d+:\d+' if n in NETIDS else r'\d+'
        is_true(re.fullmatch(pattern, found.get(n, '')), '%s=%s is a number' % (n, found.get(n)))
        del found[n]
    is_equal(found, {n: v for d in wanted for n, v in d.items()}, 'variables of ' + name_of(pid))


def without_settings(env):
    return {n: v for n, v in env.items() if n == 'OTHER'}


TLS_FDS = ['TLS_PLAINRFD', 'TLS_PLAINWFD', 'TLS_REASONFD', 'TLS_NETID']
SESSION_FDS = ['TLS_SESSIONFD', 'TLS_NETRFD', 'TLS_NETWFD']


@test('delayed TLS: the variables of application, TLS side and engine, phase by phase')
def _():
    not_resident('leaves a chain without settings: see engined.t')
    base = base_env()
    for command in b'y', b'Y':
        for options in [], ['-Z']:
            pause = fifo()
            client, c, tls, _ = delayed_chain(
                command, ['tls-await', 'tls-handshake', *PAUSE, pause, 'tls-io', 'cat', pause],
                options, env=dict(base, **OUTER))
            outer_facts = {n: 'outer' for n in FACTS}
            control = ['TLS_CTLFD'] if command == b'Y' else []

            # The application: the same from beginning to end.
            has_variables(c.pid, base if options else without_settings(base),
                          numbers=[*APP_FDS, 'SSLNETID'])

            # The TLS side: waiting; in the handshake; between; after it.
            has_variables(tls, base, outer_facts, numbers=['TLS_CTLFD', *TLS_FDS])
            starttls(client)
            engine = wait_engine()[0]
            wait_stage(tls, 'tls-handshake')
            has_variables(tls, base, outer_facts, numbers=control + TLS_FDS)
            peer = Peer(client, name='a.example.org', alpn=['smtp']).handshake()
            wait_stage(tls, PYTHON_NAME)
            has_variables(tls, base, KNOWN, numbers=control + TLS_FDS + SESSION_FDS)
            go_on(pause)
            wait_stage(tls, 'cat')
            has_variables(tls, without_settings(base), KNOWN)

            # The engine: the settings, nothing that is of this chain.
            has_variables(engine, base)

            go_on(pause)
            ends(peer, c)


@test('immediate TLS: the variables of the chain, the program and the engine, phase by phase')
def _():
    not_resident('leaves a chain without settings: see engined.t')
    not_under_valgrind(OWN)
    base = base_env()
    outer_facts = {n: 'outer' for n in FACTS}
    for options in [], ['-Z'], ['-w']:
        pause = fifo()
        client, server = tcp_pair()
        c = Chain(['tls-handshake', *PAUSE, pause, 'tls-io', *options, 'cat'], server,
                  env=dict(base, **outer_facts))
        engine = wait_engine()[0]
        has_variables(c.pid, base, outer_facts)
        peer = Peer(client, name='a.example.org', alpn=['smtp']).handshake()
        wait_stage(c.pid, PYTHON_NAME)
        has_variables(c.pid, base, KNOWN, numbers=SESSION_FDS)
        go_on(pause)
        app = c.pid if options != ['-w'] else wait_process('cat')
        wait_stage(app, 'cat')
        has_variables(app, base if options == ['-Z'] else without_settings(base), KNOWN)
        has_variables(engine, base)
        ends(peer, c)


@test('no path of a key is anywhere in what the application can see of itself')
def _():
    client, c, _, _ = delayed_chain(b'Y', ['tls-await', 'tls-handshake', 'tls-io'], env=base_env())
    starttls(client)
    peer = Peer(client).handshake()
    for f in 'environ', 'cmdline':
        with open('/proc/%d/%s' % (c.pid, f), 'rb') as f:
            is_true(pki().encode() not in f.read(), 'in ' + f.name)
    ends(peer, c)


run()
