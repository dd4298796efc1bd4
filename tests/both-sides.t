#!/usr/bin/env python3
# ISC licence: see COPYING.
# Our client against our server: delayed and immediate, every size, both directions, cut or whole.

import itertools
import os
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, block
from clients import start_client
from pki import ca_env, cert_hash, pki, server_env
from proc import environ_of
from processes import wait_engine
from relay import sample_data, sha256
from scratch import temp
from sockets import tcp_pair
from tap import SLOW, is_equal, run, test, wait_for

PROTOCOLS = {'TLSv1.2': 'tlsv1.2', 'TLSv1.3': 'tlsv1.3'}
SIZES = 0, 1, 16383, 16384, 16385, 32768, 65536, 1 << 20
HUGE = 64 << 20 if SLOW == 1 else 4 << 20
HELLO = b'hello, world\n'

# The application of either side, on 6 and 7: what it finds in the environment goes to the file $1,
# what is in the file $2 to the other side, the hash of all that comes from there to the file $3.
APP = '''env >"$1"
sha256sum <&6 >"$3" 6<&- 7>&- & cat "$2" >&7 6<&-; exec 6<&- 7>&-; wait $!'''
SERVER_HAS_6_AND_7 = 'exec 6<&0 7>&1 </dev/null >/dev/null\n'

# A delayed one is $0 of this, which starts TLS for it. Where both are, they talk before that.
START_SERVER = 'exec tls-ctl-start sh -c "$0" sh "$@"'
START_CLIENT = 'exec tls-ctl-start -c sh -c "$0" sh "$@"'
TALK_SERVER = 'echo 220 hello; read line; test "$line" = STARTTLS || exit 1; echo 220 go ahead\n'
TALK_CLIENT = 'read line <&6; test "$line" = "220 hello" || exit 1; echo STARTTLS >&7\n' \
    'read line <&6; test "$line" = "220 go ahead" || exit 1\n'


class Side:
    """What one side sends, and what becomes of it there."""

    def __init__(self, sent, received):
        self._facts, self._file, self._hash = temp(), temp(sent), temp()
        self.args = [self._facts, self._file, self._hash]
        self._received = received

    def facts(self):
        with open(self._facts) as f:
            lines = f.read().splitlines()
        return dict(line.split('=', 1) for line in lines if line.startswith('SSL_'))

    def has_told(self):
        return os.path.getsize(self._facts)

    def check(self, what):
        with open(self._hash) as f:
            is_equal(f.read().split()[:1], [sha256(self._received)], 'hash of %s' % what)


def orphans():
    """Waits for all processes that are left of the chains; their exit codes."""
    codes = []
    while True:
        try:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
        except ChildProcessError:
            return sorted(codes)


def chain_of(wait, tls, starter, app):
    """A chain whose application is a shell script and its arguments; with a starter it is a
    delayed one."""
    if starter:
        return ['tls-ctl-open', *block([*wait, *tls]), 'sh', '-c', starter, *app]
    return [*tls, 'sh', '-c', app[0], 'sh', *app[1:]]


class Both:
    """A server and a client of it, and one session to its end. delayed: the server, the client."""

    def __init__(self, up=HELLO, down=HELLO, protocol='TLSv1.3', delayed=(False, False),
                 cert=False, server_io=(), server_app=APP, client_app=APP):
        self.server, self.client = Side(down, up), Side(up, down)
        shows = ['-y'] if cert else []
        talk = all(delayed)
        client, server = tcp_pair()
        self.s = Chain(chain_of(
            ['tls-await'], ['tls-handshake', *shows, 'tls-io', *server_io],
            delayed[0] and talk * TALK_SERVER + START_SERVER,
            [SERVER_HAS_6_AND_7 + server_app, *self.server.args],
        ), server, env=server_env(CAFILE=pki() + '/ca.pem'))
        self.c = start_client(chain_of(
            ['tls-await', '-c'], ['tls-handshake', '-c', '-k', 'localhost', *shows, 'tls-io', '-w'],
            delayed[1] and talk * TALK_CLIENT + START_CLIENT,
            [client_app, *self.client.args],
        ), client, ca_env(TLS_PROTOCOLS=PROTOCOLS[protocol],
                          **(server_env('client') if cert else {})))

    def end(self):
        """Waits for all of it to end; the exit codes of server and client, and all others."""
        server, client = self.s.wait(60), self.c.wait(60)
        self.s.dismiss_engine()
        self.c.dismiss_engine()
        return server, client, orphans()

    def is_whole(self, what='session'):
        """Every process ends well, in silence; both sides have got exactly what was sent."""
        server, client, others = self.end()
        is_equal((server, client, set(others)), (0, 0, {0}), 'exit codes of %s' % what)
        is_equal(self.s.stderr() + self.c.stderr(), '', 'stderr')
        self.server.check('what the server got, %s' % what)
        self.client.check('what the client got, %s' % what)


MODES = {True: 'delayed', False: 'immediate'}
COMBINATIONS = list(itertools.product((True, False), repeat=2))


def combination(delayed):
    def check():
        for protocol, cert in itertools.product(PROTOCOLS, (True, False)):
            b = Both(protocol=protocol, delayed=delayed, cert=cert)
            b.is_whole('%s, certificate %s' % (protocol, cert))
            server, client = b.server.facts(), b.client.facts()
            cipher = {name: client[name] for name in (
                'SSL_PROTOCOL', 'SSL_CIPHER', 'SSL_CIPHER_USEKEYSIZE', 'SSL_CIPHER_ALGKEYSIZE',
                'SSL_SESSION_RESUMED', 'SSL_TLS_SNI_SERVERNAME')}
            is_equal((cipher['SSL_PROTOCOL'], cipher['SSL_TLS_SNI_SERVERNAME']),
                     (protocol, 'localhost'))
            is_equal({n: server[n] for n in server if '_PEER_' not in n and '_CLIENT_' not in n},
                     cipher, 'both agree')
            is_equal(client['SSL_PEER_CERT_HASH'], cert_hash('server'))
            is_equal(server.get('SSL_PEER_CERT_HASH'), cert_hash('client') if cert else None)
    return check


for delayed in COMBINATIONS:
    test('server %s, client %s: TLS 1.2 and 1.3, with and without client certificate'
         % (MODES[delayed[0]], MODES[delayed[1]]))(combination(delayed))


def matrix(protocol, delayed):
    def check():
        for size in SIZES:
            s = sample_data(size)
            for up, down, way in (s, b'', 'up'), (b'', s, 'down'), (s, s, 'up and down'):
                Both(up, down, protocol, (delayed, delayed)).is_whole('%d bytes %s' % (size, way))
    return check


for protocol, delayed in itertools.product(PROTOCOLS, (True, False)):
    test('%s, both %s: 0 to 1048576 bytes up, down, both at once'
         % (protocol, MODES[delayed]))(matrix(protocol, delayed))


@test('%d MiB up, down, both at once' % (HUGE >> 20))
def _():
    s = sample_data(HUGE)
    for protocol, up, down in (('TLSv1.2', s, b''), ('TLSv1.3', b'', s), ('TLSv1.3', s, s)):
        Both(up, down, protocol).is_whole('%d bytes up, %d down' % (len(up), len(down)))


@test('a server that ends without close_notify: all has arrived, but the client has 98')
def _():
    for delayed in COMBINATIONS:
        b = Both(HELLO, sample_data(100000), delayed=delayed, server_io=['-s'])
        server, client, others = b.end()
        is_equal((server, max(client, *others)), (0, 98), 'exit codes, delayed: %r' % (delayed,))
        is_equal(client, 0 if delayed[1] else 98, 'exit code of the client')
        b.client.check('what the client got')


# Applications that do not end before the session does. The first says when it has all.
GETS = 'head -c 100000 <&6 >"$3"; echo >"$1"; cat <&6 >>"$3"'
SENDS = 'cat "$2" >&7; cat <&6'


def engine_of(server):
    """The pid of one of the two engines, by what it finds in the environment."""
    return [pid for pid in wait_engine(2) if ('KEYFILE' in environ_of(pid)) == server][0]


@test('a server whose engine dies in the middle: the client has 98')
def _():
    for delayed in COMBINATIONS:
        b = Both(b'', sample_data(100000), delayed=delayed, server_app=SENDS, client_app=GETS)
        wait_for(b.client.has_told, 'the data')
        os.kill(engine_of(server=True), signal.SIGKILL)
        server, client, others = b.end()
        is_equal(client, 0 if delayed[1] else 98, 'exit code of the client')
        is_equal(max(client, *others), 98)


@test('a client whose engine dies in the middle: the server has 98')
def _():
    for delayed in COMBINATIONS:
        b = Both(sample_data(100000), b'', delayed=delayed, server_app=GETS, client_app=SENDS,
                 server_io=['-w'])
        wait_for(b.server.has_told, 'the data')
        os.kill(engine_of(server=False), signal.SIGKILL)
        server, client, others = b.end()
        is_equal(server, 0 if delayed[0] else 98, 'exit code of the server')
        is_equal(max(server, *others), 98)


run()
