#!/usr/bin/env python3
# ISC licence: see COPYING.
# The network in the hands of a chain: no byte in plaintext once TLS was asked for, wherever it is.

import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed, descriptors, dies, dies_unjoined, script
from peer import Peer, Recorder
from pki import server_env
from scratch import temp
from sockets import read_to_end, tcp_pair, unix_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for
from ucspi import ECHO, UCSPI_FDS, application, starttls


def on(net, numbers, argv, env=None, more=None):
    """A chain with a socket on these numbers, 0 and 1 /dev/null where they are not among them."""
    null = os.open('/dev/null', os.O_RDWR)
    table = {0: null, 1: null, **{n: net.fileno() for n in numbers}, **(more or {})}
    c = Chain(argv, client=True, env=env, preexec=descriptors(table))
    os.close(null)
    net.close()
    return c


def cannot_go_on(server):
    """A copy of the network that someone else holds is of no use any more."""
    try:
        server.send(b'plain')
        raise AssertionError('the application could go on in plaintext')
    except BrokenPipeError:
        pass


# The network on 2 as well, as xinetd, inetd, nc -e and StandardInput=socket give it

ON_2 = PYTHON + ['''
import os, sys
os.write(2, b"a line on 2\\n")
os.execvp(sys.argv[1], sys.argv[1:])
''']


def echoes(peer, c):
    """A session that works, to its end."""
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)


@test('the network on 2, too: what is written there is not among the records; immediate TLS')
def _():
    for numbers, options, end in (((0, 1, 2), [], ['cat']),
                                  ((2, 8, 9), ['-6', '8', '-7', '9'],
                                   ['sh', '-c', 'cat <&8 >&9'])):
        client, server = tcp_pair()
        c = on(server, numbers, ['tls-handshake', '-v', '2', *options, *ON_2, 'tls-io', *ON_2,
                                 *end], env=server_env())
        record = Recorder(client)
        echoes(Peer(record).handshake(), c)
        is_true(b'a line' not in record.raw and b'tls-' not in record.raw, 'plaintext')


@test('the network on 2, too: nor in a client')
def _():
    client, server = tcp_pair()
    server.settimeout(20 * SLOW)
    c = on(client, (2, 6, 7), ['tls-handshake', '-c', '-N', '-v', '2', *ON_2, 'tls-io',
                               'sh', '-c', 'cat <&6 >&7'])
    record = Recorder(server)
    echoes(Peer(record, client=False, cert='server').handshake(), c)
    is_true(b'a line' not in record.raw and b'tls-' not in record.raw, 'plaintext')


@test('the network on 2, too: nor in delayed TLS, by either side')
def _():
    client, server = tcp_pair()
    app = application('greet(); ask(); os.write(2, b"a line on 2\\n")' + ECHO)
    c = on(server, (0, 1, 2), delayed(app, ['tls-await', *ON_2, 'tls-handshake', '-v', '2', *ON_2,
                                            'tls-io', *ON_2, 'true']), env=server_env())
    record = Recorder(client)
    starttls(record)
    echoes(Peer(record).handshake(), c)
    is_true(b'a line' not in record.raw and b'tls-' not in record.raw, 'plaintext')


@test('the network on 2, too: nor by tls-await or tls-ctl-start, whoever has started them')
def _():
    for argv in ['tls-await', '-x'], ['tls-ctl-start', '-x'], ['tls-handshake', '-x'], \
            ['tls-ctl-open', '-x']:
        client, server = tcp_pair()
        is_equal(on(server, (0, 1, 2), argv).wait(), 100)
        is_equal(read_to_end(client), b'', 'what %r writes to the network' % argv)
        client.close()


@test('the network on 2, too: nor does tls-await, whose application may go on in plaintext')
def _():
    client, server = tcp_pair()
    app, tls = unix_pair()
    c = on(server, (0, 1, 2), ['tls-await', '-t', '1', 'true'], more={10: tls.fileno()},
           env={'TLS_CTLFD': '10'})
    tls.close()
    is_equal(c.wait(), 97)
    is_equal(read_to_end(client), b'', 'what it writes to the network')


@test('2 on another socket than the network is left alone, and so is a log that 1 is on, too')
def _():
    for numbers, options in ((0, 1), []), ((6, 7), ['-c']):
        client, server = tcp_pair()
        log, ours = unix_pair()
        more = {2: ours.fileno()} if 0 in numbers else {1: ours.fileno(), 2: ours.fileno()}
        c = on(server, numbers, ['tls-handshake', *options, '-x'], more=more)
        ours.close()
        is_equal(c.wait(), 100)
        is_true(read_to_end(log).startswith(b'tls-handshake: pid %d: usage: ' % c.pid), 'the line')
        client.close()


@test('1 and 2 on one pipe, without a network on 0: what is said there is heard')
def _():
    for argv in ['tls-await', '-x'], ['tls-ctl-start', '-x'], ['tls-handshake', '-x'], \
            ['tls-ctl-open', '-x']:
        r, w = os.pipe()
        null = os.open('/dev/null', os.O_RDWR)
        c = Chain(argv, client=True, preexec=descriptors({0: null, 1: w, 2: w}))
        os.close(null)
        os.close(w)
        is_equal(c.wait(), 100)
        is_true(os.read(r, 1000).startswith(b'%s: pid ' % argv[0].encode()), 'a line')
        os.close(r)


class TwoSockets:
    """What a peer uses of a socket, over two: one for each direction."""

    def __init__(self, to_chain, from_chain):
        self.sendall, self.shutdown = to_chain.sendall, to_chain.shutdown
        self.recv = from_chain.recv


@test('a network of two sockets: the one that is written is looked for on 2 as well')
def _():
    (far_r, r), (far_w, w) = unix_pair(), unix_pair()
    c = on(r, (0,), ['tls-handshake', '-v', '2', *ON_2, 'tls-io', *ON_2, 'cat'],
           env=server_env(), more={1: w.fileno(), 2: w.fileno()})
    w.close()
    record = Recorder(TwoSockets(far_r, far_w))
    echoes(Peer(record).handshake(), c)
    is_true(b'a line' not in record.raw and b'tls-' not in record.raw, 'plaintext')


@test('after the handshake no copy of the network is left on 0, 1, 2, 6 and 7')
def _():
    client, server = tcp_pair()
    told = temp()
    c = on(server, (0, 1, 2, 6, 7, 8, 9), ['tls-handshake', '-6', '8', '-7', '9', 'sh', '-c',
                                           'x=$(readlink /proc/$$/fd/[01267]); echo $x >' + told],
           env=server_env())
    Peer(client).handshake()
    is_equal(c.wait(), 0)
    with open(told) as f:
        is_equal(f.read().split(), ['/dev/null'] * 5)


# The network is elsewhere

GIVE_C = 'the network is on 6 and 7, not on 0 and 1: give -c'
LEAVE_C = 'the network is on 0 and 1, not on 6 and 7: do not give -c'
SECRET = ['sh', '-c', 'echo password >&7; echo password']


@test('tls-ctl-start without -c in a client: 100, it asks for nothing, and nothing is run')
def _():
    for more in {}, {0: None}, 'a socket on 0 and 1':
        client, server = tcp_pair()
        log, ours = unix_pair()
        c = on(client, (6, 7), delayed(['tls-ctl-start', *SECRET],
                                       ['tls-await', '-c', 'echo', 'asked']),
               more={0: ours.fileno(), 1: ours.fileno()} if isinstance(more, str) else more)
        ours.close()
        dies(c, 100, 'tls-ctl-start: fatal: ' + GIVE_C)
        is_equal(read_to_end(server), b'', 'in plaintext')
        server.close()


@test('tls-ctl-start with -c in a server: likewise')
def _():
    client, server = tcp_pair()
    c = on(server, (0, 1), delayed(['tls-ctl-start', '-c', *SECRET], ['tls-await', 'echo', 'no']))
    dies(c, 100, 'tls-ctl-start: fatal: ' + LEAVE_C)
    is_equal(read_to_end(client), b'', 'in plaintext')


@test('a stray socket on 6 alone, or a pipe on 0, is not taken for the network')
def _():
    other, stray = unix_pair()
    client, server = tcp_pair()
    network = os.fstat(server.fileno())
    c = on(server, (0, 1), delayed(['sh', '-c', 'echo ${SSLNETID-unset} >&2'], ['true']),
           more={6: stray.fileno()})
    is_equal((c.wait(), c.stderr()), (0, '%d:%d\n' % (network.st_dev, network.st_ino)))
    r, w = os.pipe()
    c = Chain(delayed(['sh', '-c', 'echo ${SSLNETID-unset} >&2'], ['true']), client=True,
              preexec=descriptors({0: r}))
    os.close(r)
    os.close(w)
    is_equal((c.wait(), c.stderr()), (0, 'unset\n'))


@test('tls-ctl-start where the network has been moved to is none: 100')
def _():
    client, server = tcp_pair()
    c = on(server, (0, 1), delayed(script('fdmove 5 0 fdmove 8 1 $@', 'tls-ctl-start', *SECRET),
                                   ['tls-await', 'echo', 'asked']))
    is_equal(c.wait(), 100)
    is_equal(c.stderr(), 'tls-ctl-start: fatal: the network is not on 0 and 1\n')


@test('tls-ctl-start leaves no copy of the network on 6 and 7 to its program')
def _():
    client, server = tcp_pair()
    c = on(client, (6, 7), delayed(script('fdmove -c 0 6 fdmove -c 1 7 $@', 'tls-ctl-start',
                                          'sh', '-c', 'echo password >&7; cat'),
                                   ['tls-await', '-c', 'tls-handshake', '-c', '-N', 'tls-io']))
    server.settimeout(20 * SLOW)
    record = Recorder(server)
    echoes(Peer(record, client=False, cert='server').handshake(), c)
    is_true(b'password' not in record.raw, 'plaintext')


@test('a UCSPI-TLS that does not tell of the network: 6 and 7 are found all the same')
def _():
    client, server = tcp_pair()
    ctl, ours = unix_pair()
    c = on(client, (6, 7), ['tls-ctl-start', *SECRET], more={10: ours.fileno()},
           env={'SSLCTLFD': '10', 'SSLREADFD': '10', 'SSLWRITEFD': '10'})
    ours.close()
    dies(c, 100, 'tls-ctl-start: fatal: ' + GIVE_C)
    is_equal(read_to_end(server), b'', 'in plaintext')
    is_equal(ctl.recv(1), b'', 'what was asked')


@test('tls-handshake without -c in a client, or with it in a server: 100, and what to do')
def _():
    client, server = tcp_pair()
    dies(on(client, (6, 7), ['tls-handshake', 'echo', 'ran'], env=server_env()), 100,
         'tls-handshake: fatal: ' + GIVE_C)
    for numbers, options, line in ((6, 7), [], GIVE_C), ((0, 1), ['-c', '-N'], LEAVE_C):
        client, server = tcp_pair()
        app = application('write(%d, b"ready"); ask("Y".encode()); os._exit(0)' % numbers[1])
        null = os.open('/dev/null', os.O_RDWR)
        c = on(server, numbers, delayed(app, ['tls-await', *options[:1], 'tls-handshake', '-v0',
                                              *options, 'echo', 'ran']),
               env=server_env(), more={} if 6 in numbers else {6: null, 7: null})
        os.close(null)
        is_equal(read_to_end(client), b'ready', 'the network is shut down where it is')
        client.close()
        is_equal(c.wait(), 0)
        wait_for(c.stderr, 'the line')
        is_equal(c.stderr(), 'tls-handshake: fatal: %s\n' % line)


@test('a terminal, a file or /dev/null is no network: 100; a pipe is one')
def _():
    master, terminal = os.openpty()
    file = os.open(temp(), os.O_RDWR)
    null = os.open('/dev/null', os.O_RDWR)
    neither = 'tls-handshake: fatal: descriptor %d is not a network: neither socket nor pipe'
    for fd, line in ((terminal, 'tls-handshake: fatal: descriptor %d is a terminal, not a network'),
                     (file, neither), (null, neither)):
        for numbers, options in ((0, 1), []), ((6, 7), ['-cN', '-v0']):
            c = Chain(['tls-handshake', *options, 'echo', 'ran'], client=True,
                      preexec=descriptors({n: fd for n in numbers}))
            dies(c, 100, line % numbers[0])
    for fd in master, terminal, file, null:
        os.close(fd)
    r, w = os.pipe()
    os.write(w, b'EHLO\r\n')
    c = Chain(['tls-handshake', 'echo', 'ran'], client=True, env=server_env(),
              preexec=descriptors({0: r, 1: w}))
    is_equal(c.wait(), 97)
    os.close(r)
    os.close(w)


# The order of the stages, where FAILURES does not have it

@test('tls-ctl-open or tls-handshake after tls-handshake: 100, and which goes where')
def _():
    for second, line in (
            (delayed(['cat'], ['tls-await', 'tls-io']),
             'tls-ctl-open: fatal: a session has been started: '
             'tls-ctl-open goes before tls-handshake'),
            (['tls-handshake', 'cat'], 'tls-handshake: fatal: descriptor 0 is not a network: '
             'has tls-handshake run before? tls-io goes after it')):
        client, server = tcp_pair()
        c = on(server, (0, 1), ['tls-handshake', *second], env=server_env())
        is_equal(Peer(client).handshake().recv_all(), (b'', 'eof'))
        dies_unjoined(c, 100, line)


# After the application has asked, nobody who fails leaves the network open for plaintext

# An application that asks with %s, waits for the end of the TLS side, and then tries to go on in
# plaintext on %d: 10, or 20 if it could; 30 with a reply.
STAYS = '''
try:
    if ask(b'%s'):
        os._exit(30)
except OSError:
    pass
read_all(r)
try:
    write(%d, b'plaintext')
except OSError:
    os._exit(10)
os._exit(20)
'''

# A stage that waits until the application has asked, and leaves the request where it is.
ASKED = PYTHON + ['''
import os, select, sys
select.select([int(os.environ["TLS_CTLFD"])], [], [])
os.execvp(sys.argv[1], sys.argv[1:])
''']

FAILURES = {
    'tls-await cannot run its program': (['tls-await', 'nonesuch'], {}),
    'tls-handshake has an unknown option': (['tls-await', 'tls-handshake', '-x', 'tls-io'], {}),
    'tls-handshake has an option that is none': (
        ['tls-await', 'tls-handshake', '-K', 'x', 'true'], {}),
    'tls-handshake has no program': (['tls-await', 'tls-handshake'], {}),
    'tls-handshake has no name for a server': (['tls-await', 'tls-handshake', '-c', 'true'], {}),
    'tls-handshake has an option for a client': (['tls-await', 'tls-handshake', '-O', 'true'], {}),
    'the descriptor of -C is closed': (['tls-await', 'tls-handshake', '-C', '77', 'true'], {}),
    'the network is said to be where it is not': (
        ['tls-await', 'tls-handshake', '-6', '77', '-7', '78', 'true'], {}),
    'the session fails, with -v 0': (
        ['tls-await', 'tls-handshake', '-v0', 'true'], {'TLS_ENGINE': '/nonesuch'}),
    'TLS_ENGINE is empty': (['tls-await', 'tls-handshake', 'true'], {'TLS_ENGINE': ''}),
    'TLS_ENGINE is not there': (
        ['tls-await', 'tls-handshake', 'true'], {'TLS_ENGINE': '/nonesuch'}),
    'tls-handshake is missing': (['tls-await', 'tls-io'], {}),
    'tls-io has an unknown option': (['tls-await', 'tls-io', '-x'], {}),
    'tls-await has an unknown option': (['tls-await', '-x', 'true'], {}),
    'tls-await has run before': (['tls-await', 'tls-await', 'true'], {}),
    'tls-await is missing': ([*ASKED, 'tls-handshake', 'true'], {}),
}

for what, (tlsside, env) in FAILURES.items():
    @test('the network is shut down if %s' % what)
    def _(tlsside=tlsside, env=env):
        for numbers in (0, 1), (6, 7):
            for command in 'Y', 'y':
                if tlsside == ['tls-await', 'tls-await', 'true'] and command == 'Y':
                    continue  # the second one waits for a second request
                client, server = tcp_pair()
                # the application holds it, too, until it has tried
                c = on(server, numbers, delayed(application(STAYS % (command, numbers[1])),
                                                tlsside), env=env)
                code = c.wait()
                is_equal(code, 10, 'with %s on %r: %s' % (command, numbers, c.stderr()))
                silent = '-v0' in tlsside and numbers == (0, 1)  # else the network is not there
                is_equal(len(c.stderr().splitlines()), not silent, 'lines: ' + c.stderr())
                is_equal(read_to_end(client), b'', 'what the client gets')
                client.close()



@test('two sockets for the network: both are shut down')
def _():
    (far_r, r), (far_w, w) = unix_pair(), unix_pair()
    c = Chain(['tls-handshake', '-x'], client=True,
              preexec=descriptors({0: r.fileno(), 1: w.fileno()}))
    is_equal(c.wait(), 100)
    cannot_go_on(r)
    cannot_go_on(w)


@test('tls-await that cannot read the control socket: 111, and the network is shut down')
def _():
    client, server = tcp_pair()
    out = os.open(temp(), os.O_WRONLY)
    c = Chain(['tls-await', 'true'], server, keep=True, env={'TLS_CTLFD': str(out)},
              pass_fds=[out])
    os.close(out)
    dies(c, 111, 'tls-await: fatal: unable to read from the control socket: Bad file descriptor')
    cannot_go_on(server)


@test('an application that tls-ctl-start has asked for in vain cannot go on in plaintext, either')
def _():
    for is_deaf in False, True:
        client, server = tcp_pair()
        ctl, ours = unix_pair()
        if is_deaf:
            ctl.close()
        c = Chain(['tls-ctl-start', 'echo', 'ran'], server, keep=True, pass_fds=[ours.fileno()],
                  env={n: str(ours.fileno()) for n in UCSPI_FDS})
        ours.close()
        ctl.close()
        is_equal(c.wait(), 97)
        cannot_go_on(server)


run()
