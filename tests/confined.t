#!/usr/bin/env python3
# ISC licence: see COPYING.
# What each kind of process has given up when the network may be read, and what becomes of the
# others when the signer is gone.

import os
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, not_resident, not_unconfined, reason
from clients import HERE, client_facts, connect_client, serve_client
from engined import DROP, start_engine, join_through, serve_through, works_through
from engined import ENGINE_GID, ENGINE_UID, KeyFiles, client_through, how_it_ends
from peer import TLS12, Peer
from pki import ca_env, hashed_dir, pki_path, server_env
from privileges import as_root, has_empty_root, has_nothing_of_root, is_confined, is_not_dumpable
from proc import SIGNER, fds_of, find_processes, is_alive, status_of
from processes import confined_engine, wait_dead
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed, server_facts
from sockets import tcp_pair
from tap import is_equal, is_true, run, test, wait_for

GONE = 'the signer is gone'
MUTE = 'the signer does not answer'


def own_session(**env):
    """A chain whose engine waits for the ClientHello: the client's socket, the chain, the pids of
    the engine and its signer."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env(**env))
    engine = confined_engine()
    signer, = wait_for(lambda: find_processes(SIGNER), 'a signer')
    return client, c, engine, signer


# Confined

@as_root('an engine of the chain\'s own and its signer: confined, as TLS_UID and as root')
def _():
    not_resident('is asked in engined.t')
    for env in DROP, {}:
        client, c, engine, signer = own_session(**env)
        for pid in engine, signer:
            is_confined(pid)
            is_equal(status_of(pid)['Groups'].split(), [])
            if env:
                has_nothing_of_root(pid, ENGINE_UID, ENGINE_GID)
        peer = Peer(client).handshake()
        is_echoed(peer)
        is_confined(engine)
        wait_dead(signer)
        ends_well(peer, c)


@as_root('the signer of a resident engine: confined, as TLS_UID and as root')
def _():
    for env in DROP, {}:
        e = start_engine(server_env(**env))
        signer, = e.signers()
        is_confined(signer)
        is_equal(status_of(signer)['Groups'].split(), [])
        if env:
            has_nothing_of_root(signer, ENGINE_UID, ENGINE_GID)
        works_through(e)
        e.close()


@as_root('the keeper is not dumpable, also where it is not root')
def _():
    e = start_engine()
    is_not_dumpable(e.pid)
    e.close()
    files = KeyFiles('server')
    for path in files.env.values():
        os.chmod(path, 0o644)
    os.chmod(files.dir, 0o755)
    os.chmod(BIN, 0o755)
    e = start_engine({**server_env(), **files.env}, as_user=ENGINE_UID)
    is_equal(status_of(e.pid)['Uid'].split(), [str(ENGINE_UID)] * 4)
    is_not_dumpable(e.pid)
    is_confined(e.signers()[0], rooted=False)
    works_through(e)


@as_root('a client that reads a directory of certificates as needed: those files, and no others')
def _():
    not_unconfined('may open what it likes')
    facts = client_facts(HERE, {'CADIR': hashed_dir('ca')})
    is_true(facts['SSL_PROTOCOL'], 'it has verified the server')
    server, c = connect_client(HERE, env={'CADIR': hashed_dir('ca'), **DROP})
    engine = confined_engine()
    is_equal(status_of(engine)['Seccomp'], '2')
    is_true(not has_empty_root(engine), 'or it would find no certificate')
    peer = serve_client(server)
    is_echoed(peer)
    ends_well(peer, c)


@as_root('a resident client with a certificate that reads such a directory: no session has more')
def _():
    pair = {'CERTFILE': pki_path('client.pem'), 'KEYFILE': pki_path('client.key')}
    e = start_engine({'CADIR': hashed_dir('ca'), **pair}, ['-c'])
    is_confined(e.signers()[0])
    for options in HERE, [*HERE, '-y']:
        server, c = client_through(e, options)
        peer = serve_client(server, verify='-y' in options)
        is_echoed(peer)
        session, = e.wait_sessions(1)
        is_equal([link for link in fds_of(session).values() if 'landlock' in link], [])
        ends_well(peer, c)
        e.wait_sessions(0)


@test('what libcrypto and libc would read or load by the environment is not')
def _():
    """The configuration would end a session in TLS 1.2; of trust: client-trust.t."""
    config = temp('openssl_conf = init\n[init]\nssl_conf = ssl\nproviders = none\n[none]\n'
                  'default = off\n[off]\nactivate = 0\n[ssl]\nsystem_default = new\n[new]\n'
                  'MinProtocol = TLSv1.3\nCipherString = NONE\n')
    env = {'OPENSSL_CONF': config, 'OPENSSL_MODULES': temp_dir(), 'OPENSSL_ENGINES': temp_dir(),
           'OPENSSL_CONF_INCLUDE': temp_dir(), 'SSL_CERT_FILE': pki_path('ca.pem'),
           'SSL_CERT_DIR': hashed_dir('ca')}
    f, peer = server_facts(server_env(**env), max=TLS12)
    is_equal(f['SSL_PROTOCOL'], 'TLSv1.2')
    facts = client_facts(HERE, ca_env(**env), max=TLS12)
    is_equal(facts['SSL_PROTOCOL'], 'TLSv1.2')


# The signer is gone

@test('the signer of an own engine is killed before it has signed: 97, and a line that says so')
def _():
    not_resident('has another signer')
    client, c, engine, signer = own_session()
    os.kill(signer, signal.SIGKILL)
    wait_dead(signer)
    is_equal(how_it_ends(Peer(client)), b'', 'what the client gets')
    is_equal(reason(c), GONE)
    wait_dead(engine, signer)


@test('the signer of an own engine stops: 97 after ten seconds, and a line that says so', limit=90)
def _():
    not_resident('has another signer')
    client, c, engine, signer = own_session()
    os.kill(signer, signal.SIGSTOP)
    is_equal(how_it_ends(Peer(client)), b'', 'what the client gets')
    is_equal(reason(c), MUTE)
    os.kill(signer, signal.SIGCONT)
    wait_dead(engine, signer)


@test('an engine that is killed takes its signer with it; so does a client that goes')
def _():
    not_resident('has another signer')
    client, c, engine, signer = own_session()
    os.kill(engine, signal.SIGKILL)
    wait_dead(engine, signer)
    is_equal(c.wait(), 98)
    client, c, engine, signer = own_session()
    client.close()
    wait_dead(engine, signer)
    is_equal(c.wait(), 97)


@test('a resident engine whose signer is killed gets another worker; sessions go on')
def _():
    e = start_engine()
    peer, c = join_through(e)
    signer, = e.signers()
    os.kill(signer, signal.SIGKILL)
    said = ['tls-engined: fatal: the signer exited unexpectedly',
            'tls-engined: warning: the worker exited unexpectedly: starting another one']
    wait_for(lambda: e.log() == said, 'both lines')  # who comes before that gets no signature
    works_through(e)
    is_equal(e.log(), said)
    is_echoed(peer)
    ends_well(peer, c)


@test('the signer of a resident engine stops: new sessions fail, the others and later ones do not',
      limit=90)
def _():
    e = start_engine()
    peer, c = join_through(e)
    signer, = e.signers()
    os.kill(signer, signal.SIGSTOP)
    client, refused = serve_through(e)
    is_equal(how_it_ends(Peer(client)), b'', 'what the client gets')
    is_equal(reason(refused), MUTE)
    os.kill(signer, signal.SIGCONT)
    is_echoed(peer)
    ends_well(peer, c)
    works_through(e)


@test('a worker or a keeper that is killed: the signer ends, at the latest with the last session')
def _():
    for who in 'worker', 'keeper':
        e = start_engine()
        peer, c = join_through(e)
        client, waiting = serve_through(e)
        worker, signer = e.worker(), e.signers()[0]
        e.wait_sessions(2)
        os.kill(worker if who == 'worker' else e.pid, signal.SIGKILL)
        second = Peer(client).handshake()  # has its channel
        is_echoed(second)
        ends_well(second, waiting)
        ends_well(peer, c)
        wait_dead(worker, signer)


@test('new settings have a new signer, the old one ends with the sessions of its worker')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    peer, c = join_through(e)
    old, = e.signers()
    files.become('b')
    e.signal(signal.SIGHUP)
    wait_for(lambda: len(e.signers()) == 2, 'a second signer')
    is_equal(is_alive(old), True)
    ends_well(peer, c)
    wait_dead(old)
    works_through(e)
    is_equal(len(e.signers()), 1)


run()
