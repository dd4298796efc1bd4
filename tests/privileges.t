#!/usr/bin/env python3
# ISC licence: see COPYING.
# What the engine may still do when it begins to read the network: TLS_UID, TLS_GID, and the rest.

import os
import resource
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, need, not_resident, reason
from peer import Peer, client_hello
from pki import openssl, pki, server_env
from privileges import all_can_run, as_root, has_nothing_of_root, is_confined
from proc import status_of
from processes import confined_engine
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed, server_facts
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, test

UID, GID = 60001, 60002  # nobody needs to have that name
DROP = {'TLS_UID': str(UID), 'TLS_GID': str(GID)}


def start(env, preexec=None, command=()):
    """A chain, no byte sent to it yet; its engine's pid; the client."""
    client, server = tcp_pair()
    c = Chain([*command, 'tls-handshake', 'tls-io', 'cat'], server, env=env, preexec=preexec)
    return c, confined_engine(), client


def finish(c, client, **settings):
    """The session works."""
    peer = Peer(client, **settings).handshake()
    is_echoed(peer)
    ends_well(peer, c)


def may_dump():
    """Allows core dumps, where that can be allowed."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@as_root('with TLS_UID and TLS_GID the engine is that user before it reads the network')
def _():
    def preexec():
        os.setgroups([0, 1, 2, 27, 60003])
        may_dump()
    c, pid, client = start(server_env(**DROP), preexec)
    has_nothing_of_root(pid, UID, GID)
    is_confined(pid)
    finish(c, client)


@as_root('the engine stays that user in the session')
def _():
    c, pid, client = start(server_env(**DROP))
    peer = Peer(client).handshake()
    is_echoed(peer)
    has_nothing_of_root(pid, UID, GID)
    is_confined(pid)
    peer.end_politely()
    is_equal(c.wait(), 0)


@as_root('without TLS_UID and TLS_GID the engine keeps user and group, and is confined as well')
def _():
    not_resident('does not get its user and groups from the chain')
    def preexec():
        os.setgroups([1, 2])
        may_dump()
    c, pid, client = start(server_env(), preexec)
    is_equal(status_of(pid)['Uid'].split(), ['0'] * 4)
    is_equal(status_of(pid)['Groups'].split(), [])
    is_confined(pid)
    finish(c, client)


@as_root('the application is not that user, and knows nothing of it')
def _():
    client, server = tcp_pair()
    c = Chain('tls-handshake tls-io foreground { id -u } foreground { id -g } '
              'importas -u -D none uid TLS_UID importas -u -D none gid TLS_GID echo $uid $gid',
              server, env=server_env(**DROP))
    peer = Peer(client).handshake()
    is_equal(peer.recv_all(), (b'0\n0\nnone none\n', 'close_notify'))
    is_equal(c.wait(), 0)


@test('TLS_UID must not be root\'s: a script that means it leaves it out')
def _():
    is_equal(undropped(server_env(TLS_UID='0', TLS_GID='0'), code=96),
             "TLS_UID must not be root's: 0")


# An engine of another user than root, as its /proc tells whether it can be dumped or traced.


def as_user(*more):
    """The start of a command as another user."""
    need('setpriv')
    if not all_can_run(BIN + '/tls-handshake') or not all_can_run(BIN + '/tls-engine'):
        raise Skip('only root can run the programs where they are')
    return ['setpriv', '--reuid=%d' % UID, '--regid=%d' % GID, *(more or ['--clear-groups'])]


def readable_env(**more):
    """A key pair that everybody can read."""
    def copy(name):
        with open(pki() + '/' + name, 'rb') as f:
            return temp(f.read())
    return server_env(KEYFILE=copy('server.key'), CERTFILE=copy('server.pem'), **more)


@as_root('an engine started by a user cannot be dumped or traced by that user')
def _():
    not_resident('does not get its user and groups from the chain')
    c, pid, client = start(readable_env(), may_dump, as_user())
    is_equal(status_of(pid)['Uid'].split(), [str(UID)] * 4)
    is_confined(pid, rooted=False)
    finish(c, client)


@as_root('a user may name itself in TLS_UID and TLS_GID')
def _():
    c, pid, client = start(readable_env(**DROP), None, as_user())
    is_confined(pid, rooted=bool(os.environ.get('TEST_RESIDENT')))  # which root has started
    finish(c, client)


def undropped(env, command=(), code=111, options=()):
    """Why the privileges cannot be dropped; not one byte goes to the client."""
    client, server = tcp_pair()
    c = Chain([*command, 'tls-handshake', *options, '-6', '0', '-7', '1', 'tls-io', 'echo',
               'served'], server, env=env)
    if not options:
        client.sendall(client_hello())
    is_equal(client.recv(1), b'', 'sent to the client')
    client.close()
    return reason(c, code)


@as_root('a user cannot name another one, and is not served as what it is')
def _():
    not_resident('does not get its user and groups from the chain')
    for uid, gid in (UID + 1, GID), (UID, GID + 1):
        why = undropped(readable_env(TLS_UID=str(uid), TLS_GID=str(gid)), as_user())
        is_true(why.endswith('Operation not permitted'), why)


@as_root('root that may not change user or groups does not serve as root')
def _():
    not_resident('does not get its user and groups from the chain')
    need('setpriv')
    for lacking in 'setuid', 'setgid':
        why = undropped(server_env(**DROP), ['setpriv', '--inh-caps=-all',
                                             '--bounding-set=-' + lacking])
        is_true(why.startswith('unable to ') and why.endswith('Operation not permitted'), why)


# What only root can read.


def secret(d, name):
    """A copy of a file of the PKI that only root can read."""
    path = os.path.join(d, name)
    shutil.copy(pki() + '/' + name, path)
    os.chmod(path, 0o600)
    return path


def secret_dir():
    d = temp_dir()
    os.chmod(d, 0o700)
    return d


@as_root('files that only root can read are read before root is given up')
def _():
    d = secret_dir()
    env = server_env(KEYFILE=secret(d, 'server.key'), CERTFILE=secret(d, 'server.pem'),
                     CAFILE=secret(d, 'ca.pem'), CRLFILE=secret(d, 'crl.pem'), **DROP)
    env['KEYFILE:a.example.org'] = secret(d, 'a.key')
    env['CERTFILE:a.example.org'] = secret(d, 'a.pem')
    for name in None, 'a.example.org':
        f, peer = server_facts(env, ['-y'], cert='client', name=name)
        is_equal(f['SSL_PEER_CERT_SUBJECT'], '/CN=client')


def secret_cadir():
    d = secret_dir()
    secret(d, 'ca.pem')
    openssl('rehash', d)
    return d


@as_root('a CADIR that only root can read is read before root is given up')
def _():
    for more in {}, {'CAFILE': secret(secret_dir(), 'otherca.pem')}:
        f, peer = server_facts(server_env(CADIR=secret_cadir(), **DROP, **more), ['-y'],
                               cert='client')
        is_equal(f['SSL_PEER_CERT_SUBJECT'], '/CN=client')


@as_root('a CADIR that only root can read is an error for a client, which reads it as needed')
def _():
    why = undropped({'CADIR': secret_cadir(), **DROP}, options=['-c', '-n'])
    is_equal(why, 'unable to read CADIR as TLS_UID: Permission denied')


# Values that are none.


@test('TLS_UID and TLS_GID are set both or none')
def _():
    for one, other in ('TLS_UID', 'TLS_GID'), ('TLS_GID', 'TLS_UID'):
        is_equal(undropped(server_env(**{one: '60000'}), code=96),
                 '%s is set, but %s is not' % (one, other))


for value in 'nobody', '', '-1', '+1', ' 1', '1 ', '0x1', '4294967295', '4294967296', '1' * 30:
    @test('%r is no user and no group' % value)
    def _(value=value):
        for name in 'TLS_UID', 'TLS_GID':
            is_equal(undropped(server_env(**{**DROP, name: value}), code=96),
                     name + (' must be a number: ' + value if value else
                             ' is set to nothing: unset it, or give it a value'))


run()
