#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-handshake: its options, its errors, what it hands on.

import os
import re
import socket
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (Chain, dies, dies_of_usage, dies_unjoined, dies_without_program, not_resident,
                   not_under_valgrind, tells_emfile, unjoined)
from peer import TLS12, Peer, all_of, client_hello
from pki import cert_hash, pki, server_env
from proc import fds_of
from processes import engines, wait_dead, wait_engine
from scratch import temp
from sessions import is_echoed
from sockets import read_to_end, tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import FACTS


def handshake(options=(), prog=('tls-io', 'cat'), env=None, keep=False):
    """A chain that begins with tls-handshake; the client's socket, the server's, the chain."""
    client, server = tcp_pair()
    c = Chain(['tls-handshake', *options, *prog], server, env=server_env(**env or {}), keep=keep)
    return client, server, c


def is_echo(peer):
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello', 'echo')
    is_equal(peer.end_politely(), (b'', 'close_notify'))


@test('a bad option, a number that is none, no program: 100, and the usage')
def _():
    for argv in (['-x', 'true'], ['-K'], ['-K', 'x', 'true'],
                 ['-K', '', 'true'], ['-K', '-1', 'true'], ['-K', '4294967296', 'true'],
                 ['-v', 'x', 'true'], ['-v', '', 'true'], ['-v', '-1', 'true'],
                 ['-6', 'x', 'true'], ['-6', '-1', 'true'], ['-7', 'x', 'true'],
                 ['-7', '', 'true'], ['-C', 'x', 'true'],
                 ['-k', '', 'true'], ['-k', 'x' * 256, 'true']):
        dies_of_usage(Chain(['tls-handshake', *argv]))
    for argv in [], ['-Y'], ['-K', '1000'], ['-C', '77'], ['-O'], ['-c', '-k', 'localhost']:
        dies_without_program(Chain(['tls-handshake', *argv]))


@test('a client without a name, and without -n or -N: 100, and what to give')
def _():
    dies(Chain(['tls-handshake', '-c', 'echo', 'ran']), 100,
         'tls-handshake: fatal: no server name to verify: give -k name, or -n')


@test('descriptors that are not open: 100, one line')
def _():
    for options, fd in (['-6', '77'], 77), (['-7', '77'], 77), (['-6', '77', '-7', '78'], 77), \
            (['-c', '-n'], 6):
        c = Chain(['tls-handshake', *options, 'echo', 'ran'])
        dies(c, 100, 'tls-handshake: fatal: unable to use descriptor %d as the network: '
             'Bad file descriptor' % fd)
    c = Chain(['tls-handshake', '-C', '77', 'echo', 'ran'])
    dies(c, 100, 'tls-handshake: fatal: unable to use the descriptor of -C: Bad file descriptor')


# What it hands on

@test('the next program finds the session, the network\'s numbers, and /dev/null in its place')
def _():
    client, _, c = handshake(prog=['sh', '-c', '''
echo $TLS_NETRFD $TLS_NETWFD `readlink /proc/$$/fd/0 /proc/$$/fd/1` >&2
readlink /proc/$$/fd/$TLS_SESSIONFD >&2'''])
    is_equal(Peer(client).handshake().recv_all(), (b'', 'eof'))
    is_equal(c.wait(), 0)
    is_equal(re.sub(r'socket:\[\d+\]', 'a socket', unjoined(c)),
             '0 1 /dev/null /dev/null\na socket\n')


FACTS_THERE = ['sh', '-c', 'env | grep ^SSL_ | sort >&2']


@test('a fact that is not known is unset, whatever was inherited')
def _():
    client, _, c = handshake(prog=FACTS_THERE, env={n: 'outer' for n in FACTS})
    peer = Peer(client, max=TLS12).handshake()
    is_equal(c.wait(), 0)
    cipher, _, bits = peer.tls.cipher()
    is_equal(unjoined(c).splitlines(),
             ['SSL_CIPHER=' + cipher, 'SSL_CIPHER_ALGKEYSIZE=%d' % bits,
              'SSL_CIPHER_USEKEYSIZE=%d' % bits, 'SSL_CLIENT_VERIFY=NONE',
              'SSL_PROTOCOL=TLSv1.2', 'SSL_SESSION_RESUMED=Initial'])


@test('a program that cannot be run: 127 or 126, and the peer gets nothing but the end')
def _():
    for prog, code, reason in (('nonesuch', 127, 'No such file or directory'),
                               (temp(b'not executable'), 126, 'Permission denied')):
        client, _, c = handshake(prog=[prog])
        is_equal(Peer(client).handshake().recv_all(), (b'', 'eof'))
        dies_unjoined(c, code, 'tls-handshake: fatal: unable to exec %s: %s' % (prog, reason))


# -6, -7

ELSEWHERE = 'redirfd -r 0 /dev/null redirfd -w 1 /dev/null '


@test('-6 and -7: a server with its network elsewhere')
def _():
    client, server = tcp_pair()
    c = Chain('fdmove -c 8 0 fdmove -c 9 1 ' + ELSEWHERE + '''
        tls-handshake -6 8 -7 9 tls-io fdmove 0 8 fdmove 1 9 cat''', server, env=server_env())
    is_echo(Peer(client).handshake())
    is_equal(c.wait(), 0)


@test('-6 or -7 alone: the other one is where it always is')
def _():
    for script in ('fdmove -c 8 0 redirfd -r 0 /dev/null tls-handshake -6 8 tls-io fdmove 0 8 cat',
                   'fdmove -c 9 1 redirfd -w 1 /dev/null tls-handshake -7 9 tls-io fdmove 1 9 cat'):
        client, server = tcp_pair()
        c = Chain(script, server, env=server_env())
        is_echo(Peer(client).handshake())
        is_equal(c.wait(), 0)


@test('-c: the network of a client is on 6 and 7, and there its program finds the plaintext')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', '-c', '-k', 'localhost', 'tls-io', 'sh', '-c', 'cat <&6 >&7'],
              client, env={'CAFILE': pki() + '/ca.pem'}, client=True)
    server.settimeout(20 * SLOW)
    is_echo(Peer(server, client=False, cert='server').handshake())
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


# -K

TIMED_OUT = 'tls-handshake: fatal: unable to start TLS: the handshake timed out'


@test('-K: a client that says nothing is left after that long, 97')
def _():
    client, _, c = handshake(['-K', '100'], ['echo', 'ran'])
    is_equal(read_to_end(client), b'', 'what the client gets')
    client.close()
    dies(c, 97, TIMED_OUT)


@test('-K: a client that stops half-way is left, too')
def _():
    client, _, c = handshake(['-K', '100'], ['echo', 'ran'])
    client.sendall(client_hello()[:-1])
    is_equal(read_to_end(client), b'', 'what the client gets')
    client.close()
    dies(c, 97, TIMED_OUT)


@test('-K: counts for the handshake only; -K 0 is no limit')
def _():
    for limit in '1000', '0':
        client, _, c = handshake(['-K', str(int(limit) * SLOW)])
        peer = Peer(client).handshake()
        if limit != '0':
            wait_for(lambda: time_of(c.pid) > SLOW + 0.1, 'the limit to pass')
        is_echo(peer)
        is_equal(c.wait(), 0)


def time_of(pid):
    """How long a process has existed, in seconds."""
    with open('/proc/%d/stat' % pid) as f, open('/proc/uptime') as up:
        ticks = int(f.read().rpartition(')')[2].split()[19])
        return float(up.read().split()[0]) - ticks / os.sysconf('SC_CLK_TCK')


# -v

def failure(client):
    """Makes a handshake fail."""
    client.sendall(b'EHLO example.org\r\n')
    read_to_end(client)
    client.close()


@test('-v 0: a failure is silent; 1, the default, writes one line; 2 no more than that')
def _():
    line = ('tls-handshake: fatal: unable to start TLS: '
            'bytes came in plaintext before the client\'s TLS began\n')
    for options, said in ((['-v', '0'], ''), ([], line), (['-v1'], line), (['-v', '2'], line),
                          (['-v9'], line)):
        client, _, c = handshake(options, ['echo', 'ran'])
        failure(client)
        is_equal(c.wait(), 97)
        is_equal(c.stderr(), said, 'stderr with %r' % options)


@test('-v 2: a line when the session starts and one when it ends; below that there is none')
def _():
    for options in ['-v2'], ['-v', '7']:
        client, _, c = handshake(options)
        peer = Peer(client, max=TLS12).handshake()
        started = 'tls-handshake: info: session started: TLSv1.2 %s\n' % peer.tls.cipher()[0]
        is_echo(peer)
        is_equal(c.wait(), 0)
        wait_for(lambda: c.stderr().count('\n') == 2, 'two lines')
        is_equal(c.stderr(), started + 'tls-engine: info: session ended: 5 bytes received, 5 sent, '
                                       'closed by both sides\n')
    for options in ['-v0'], ['-v1'], []:
        client, _, c = handshake(options)
        is_echo(Peer(client).handshake())
        is_equal(c.wait(), 0)
        wait_for(lambda: not engines(), 'the engine to end')
        is_equal(c.stderr(), '')


@test('-v 2: the line at the start has the server\'s name and the peer\'s certificate')
def _():
    client, _, c = handshake(['-v', '2', '-y'], env={'CAFILE': pki() + '/ca.pem'})
    peer = Peer(client, name='Example.ORG', cert='client', max=TLS12).handshake()
    wait_for(c.stderr, 'the line')
    is_equal(c.stderr(), 'tls-handshake: info: session started: TLSv1.2 %s, '
             'server name example.org, peer %s\n' % (peer.tls.cipher()[0], cert_hash('client')))
    is_echo(peer)
    is_equal(c.wait(), 0)


CUT = 'tls-engine: warning: session truncated: the peer ended without close_notify\n'


@test('a session that was cut: silent with -v 0, a warning with 1, the counts as well with 2')
def _():
    for verbosity, said in (('0', ''), ('1', CUT), ('2', 'tls-engine: info: session ended: '
                            '5 bytes received, 5 sent, truncated by the peer\n' + CUT)):
        client, _, c = handshake(['-v', verbosity])
        peer = Peer(client).handshake()
        is_echoed(peer)
        peer.shutdown()
        is_equal(peer.recv_all(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)
        wait_for(lambda: not engines(), 'the engine to end')
        lines = [s for s in c.stderr().splitlines(True) if 'session started' not in s]
        is_equal(''.join(lines), said, 'stderr with -v ' + verbosity)


# -Y, -y

HASH = ['sh', '-c', 'echo peer: ${SSL_PEER_CERT_HASH-none}']


def peer_of(options, cert):
    client, _, c = handshake(options, ['tls-io', *HASH], env={'CAFILE': pki() + '/ca.pem'})
    settings = {'cert': cert} if cert else {}
    peer = Peer(client, max=TLS12, **settings).handshake()
    got = all_of(peer)[0].decode()
    is_equal(c.wait(), 0)
    return got


@test('without -Y and -y no certificate is asked for')
def _():
    is_equal(peer_of([], 'client'), 'peer: none\n')


@test('-Y: a client may show a certificate, or not')
def _():
    is_equal(peer_of(['-Y'], 'client'), 'peer: %s\n' % cert_hash('client'))
    is_equal(peer_of(['-Y'], None), 'peer: none\n')


@test('-y: a client that shows a good certificate is let in')
def _():
    is_equal(peer_of(['-y'], 'client'), 'peer: %s\n' % cert_hash('client'))


@test('-y: a client without a certificate is refused, 97, and the program is not run')
def _():
    client, _, c = handshake(['-y'], ['echo', 'ran'], env={'CAFILE': pki() + '/ca.pem'})
    try:
        Peer(client, max=TLS12).handshake()
        raise AssertionError('it was let in')
    except ssl.SSLError as e:
        is_true('alert' in str(e).lower(), 'an alert: %s' % e)
    client.close()
    is_equal(c.wait(), 97)
    lines = c.stderr().splitlines()
    is_equal(len(lines), 1, 'lines on stderr')
    is_true(lines[0].startswith('tls-handshake: fatal: unable to start TLS: '), lines[0])


@test('-Y and -y: the last one counts')
def _():
    is_equal(peer_of(['-y', '-Y'], None), 'peer: none\n')


@test('-Y or -y with nothing to verify a certificate with: 96')
def _():
    not_resident('says so in words of its own: see engined.t')
    for option in '-Y', '-y':
        client, _, c = handshake([option], ['echo', 'ran'])
        is_equal(read_to_end(client), b'')
        client.close()
        dies(c, 96, 'tls-handshake: fatal: unable to start TLS: neither CAFILE nor CADIR is set: '
                    'nothing to verify client certificates with')


# Whoever else holds the network

def cannot_go_on(server):
    is_equal(server.recv(1, socket.MSG_DONTWAIT), b'', 'what the application reads')
    try:
        server.send(b'plain')
        raise AssertionError('the application could go on in plaintext')
    except BrokenPipeError:
        pass


@test('a handshake that fails shuts the network down for every copy of it')
def _():
    client, server, c = handshake(prog=['echo', 'ran'], keep=True)
    client.sendall(b'EHLO example.org\r\n')
    client.close()
    is_equal(c.wait(), 97)
    cannot_go_on(server)


@test('so does one that times out')
def _():
    client, server, c = handshake(['-K', '50'], ['echo', 'ran'], keep=True)
    is_equal(c.wait(), 97)
    is_equal(client.recv(1), b'')
    cannot_go_on(server)


@test('so does a setting that is bad')
def _():
    client, server, c = handshake(prog=['echo', 'ran'], keep=True, env={'KEYFILE': '/nonesuch'})
    client.close()
    dies(c, 96, 'tls-handshake: fatal: unable to start TLS: unable to read KEYFILE /nonesuch: '
                'No such file or directory')
    cannot_go_on(server)


@test('so does a handshake that cannot even begin: 111')
def _():
    not_resident('leaves a chain with need of fewer descriptors')
    not_under_valgrind('needs descriptors of its own')
    client, server = tcp_pair()
    c = Chain(['sh', '-c', 'ulimit -n 4; exec tls-handshake echo ran'], server, env=server_env(),
              keep=True)
    is_equal(c.wait(), 111)
    is_true(re.match('tls-handshake: fatal: .*session socket: ', c.stderr()) and
            tells_emfile(c.stderr()), c.stderr())
    cannot_go_on(server)


@test('so does the death of tls-handshake in the middle of it')
def _():
    client, server, c = handshake(prog=['echo', 'ran'], keep=True)
    network = fds_of(os.getpid())[server.fileno()]
    engine = wait_engine()[0]
    # It has inherited the network, too, until it has /dev/null on 1.
    wait_for(lambda: (lambda fds: fds.get(1) == fds.get(2) and network in fds.values())(
        fds_of(engine)), 'the engine to have been given the network')
    c.kill()
    is_equal(read_to_end(client), b'', 'what the client gets')
    wait_dead(engine)
    cannot_go_on(server)


run()
