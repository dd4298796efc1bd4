#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-await: the commands of UCSPI-TLS, its options, its errors.

import os
import signal
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, descriptors, dies, dies_of_usage, dies_without_program
from processes import wait_asleep
from scratch import temp
from sockets import read_to_end, tcp_pair, unix_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for


def await_on_socket(prog, options=(), net=None, keep=False):
    """tls-await with one end of a control socket; the other end, and the chain."""
    app, tls = unix_pair()
    c = Chain(['tls-await', *options, *prog], net, env={'TLS_CTLFD': str(tls.fileno())},
              pass_fds=[tls.fileno()], keep=keep)
    c.fd = tls.fileno()
    tls.close()
    app.settimeout(20 * SLOW)
    return app, c


SAY = ['sh', '-c', 'echo "$@" "${TLS_CTLFD-unset}"', 'say', 'next:']


@test('an unknown option, a limit that is no number, no program: 100, and the usage')
def _():
    for argv in (['-x', 'true'], ['-t'], ['-t', 'x', 'true'], ['-t', '', 'true'],
                 ['-t', '-1', 'true'], ['-t', '1s', 'true'], ['-t', '4294967296', 'true']):
        dies_of_usage(Chain(['tls-await', *argv]))
    for argv in [], ['-t', '100'], ['-r'], ['-c']:
        dies_without_program(Chain(['tls-await', *argv]))


@test('TLS_CTLFD that is missing, no number, or not open: 100, one line')
def _():
    dies(Chain(['tls-await', 'echo', 'ran']), 100,
         'tls-await: fatal: TLS_CTLFD is not set: tls-await goes after tls-ctl-open')
    dies(Chain(['tls-await', 'echo', 'ran'], env={'TLS_CTLFD': ''}), 100,
         'tls-await: fatal: TLS_CTLFD is set, but empty')
    for bad in 'x', '-1', '3x', ' 3', '2147483648', '99999999999999999999':
        dies(Chain(['tls-await', 'echo', 'ran'], env={'TLS_CTLFD': bad}), 100,
             'tls-await: fatal: TLS_CTLFD is not a number')
    dies(Chain(['tls-await', 'echo', 'ran'], env={'TLS_CTLFD': '77'}), 100,
         'tls-await: fatal: unable to use TLS_CTLFD=77: Bad file descriptor')


@test('y: closes the control socket, unsets TLS_CTLFD and runs the program')
def _():
    app, c = await_on_socket(['sh', '-c', 'echo ${TLS_CTLFD-unset}; exec sleep 1000'])
    app.send(b'y')
    is_equal(app.recv(1), b'', 'the application sees the end, while the program runs')
    wait_for(c.stderr, 'the program')
    is_equal(c.stderr(), 'unset\n', 'TLS_CTLFD')
    is_true(c.poll() is None, 'the program runs')


@test('Y: hands the control socket on and runs the program')
def _():
    app, c = await_on_socket(PYTHON + ['import os; fd = int(os.environ["TLS_CTLFD"]);'
                                       'os.write(fd, b"%d" % fd)'])
    app.send(b'Y')
    is_equal(app.recv(100), b'%d' % c.fd, 'what the program wrote to the control socket')
    is_equal(app.recv(1), b'', 'end')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


@test('a program that cannot be run: 127 or 126, and the application sees the end')
def _():
    for command in b'y', b'Y':
        app, c = await_on_socket(['nonesuch'])
        app.send(command)
        dies(c, 127, 'tls-await: fatal: unable to exec nonesuch: No such file or directory')
        is_equal(app.recv(1), b'', 'end')
        f = temp(b'not executable')
        app, c = await_on_socket([f])
        app.send(command)
        dies(c, 126, 'tls-await: fatal: unable to exec %s: Permission denied' % f)


@test('end of file: the application declined, exit 0, silently')
def _():
    for options in [], ['-t', '60000']:
        app, c = await_on_socket(SAY, options)
        app.close()
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')


@test('the application that ends its sending side only has declined, too')
def _():
    app, c = await_on_socket(SAY)
    app.shutdown(socket.SHUT_WR)
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), '')


@test('anything else, or more than one byte: 100, one line, and the program is not run')
def _():
    for said in b'\0', b'x', b'z', b'\n', b'\xff', b'yy', b'YY', b'yY', b'y\n', b'Y\0', b'Y' * 5000:
        app, c = await_on_socket(SAY)
        app.send(said)
        dies(c, 100, 'tls-await: fatal: invalid command on the control socket')


@test('two bytes in two writes are two bytes')
def _():
    app, tls = unix_pair()
    app.send(b'Y')
    app.send(b'Y')
    c = Chain(['tls-await', *SAY], env={'TLS_CTLFD': str(tls.fileno())}, pass_fds=[tls.fileno()])
    dies(c, 100, 'tls-await: fatal: invalid command on the control socket')


@test('-t: gives up after that long, 97, one line; the application can go on in plaintext')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-t', '50'], server, keep=True)
    dies(c, 97, 'tls-await: fatal: timed out: the application did not ask for TLS')
    is_equal(app.recv(1), b'', 'the control socket ends')
    server.sendall(b'plain')
    is_equal(client.recv(5), b'plain')
    client.sendall(b'text')
    is_equal(server.recv(4), b'text')


@test('-t: a request in time is heard; -t 0 is no limit')
def _():
    for ms in '60000', '2147483647', '0':
        app, c = await_on_socket(SAY, ['-t', ms])
        app.send(b'y')
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), 'next: unset\n')


def cannot_go_on(client, server):
    """A copy of the network that someone else holds is of no use any more."""
    is_equal(server.recv(1, socket.MSG_DONTWAIT), b'', 'what the application reads')
    is_equal(client.recv(1), b'', 'what the client sees')
    try:
        server.send(b'plain')
        raise AssertionError('the application could go on in plaintext')
    except BrokenPipeError:
        pass


DECLINED = 'tls-await: fatal: TLS is required: the application declined it'
TIMED_OUT = 'tls-await: fatal: timed out: the application did not ask for TLS'


@test('-r: the application that declines finds the network shut down, 97')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r'], server, keep=True)
    app.close()
    dies(c, 97, DECLINED)
    cannot_go_on(client, server)


@test('-r -t: when time runs out the network is shut down, 97')
def _():
    for options in ['-r', '-t', '50'], ['-t50', '-r']:
        client, server = tcp_pair()
        app, c = await_on_socket(SAY, options, server, keep=True)
        dies(c, 97, TIMED_OUT)
        cannot_go_on(client, server)


# What -r cannot do: an application that goes on in plaintext has not declined.

def exchange(client, server):
    """A word from each side to the other."""
    for sender, receiver in (client, server), (server, client):
        sender.sendall(b'plain')
        is_equal(receiver.recv(5), b'plain')


@test('-r: one that goes on in plaintext with its control socket open is not hindered, to its end')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r'], server, keep=True)
    for _ in range(3):
        exchange(client, server)
        wait_asleep(c.pid)
    app.close()
    dies(c, 97, DECLINED)
    cannot_go_on(client, server)


@test('-r: the application has not declined while one of its processes has the control socket')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r'], server, keep=True)
    other = app.dup()
    app.close()
    wait_asleep(c.pid)
    exchange(client, server)
    other.close()
    dies(c, 97, DECLINED)
    cannot_go_on(client, server)


@test('-r -t: one that goes on in plaintext can do so until then, and is cut off in the middle')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r', '-t', '500'], server, keep=True)
    exchange(client, server)
    try:
        while c.poll() is None:
            exchange(client, server)
    except (OSError, AssertionError):
        pass
    dies(c, 97, TIMED_OUT)
    is_equal(read_to_end(server, ConnectionResetError), b'', 'what the application reads')
    is_equal(read_to_end(client, ConnectionResetError), b'', 'what the client sees')


@test('-r: what the application has said before it declines arrives')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r'], server, keep=True)
    server.sendall(b'221 bye')
    app.close()
    dies(c, 97, DECLINED)
    is_equal(read_to_end(client), b'221 bye')


@test('-r: a command that is none shuts the network down, too')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(SAY, ['-r'], server, keep=True)
    app.send(b'no')
    dies(c, 100, 'tls-await: fatal: invalid command on the control socket')
    cannot_go_on(client, server)


@test('-r: a request for TLS leaves the network alone')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(['sh', '-c', 'echo hello'], ['-r'], server)
    app.send(b'y')
    is_equal(read_to_end(client), b'hello\n')
    is_equal(c.wait(), 0)


@test('the network is 0 and 1; with -c 6 and 7; the other two are left alone')
def _():
    for options, shut, left in (['-r'], 0, 6), (['-c', '-r'], 6, 0):
        app, tls = unix_pair()
        net = {0: unix_pair(), 6: unix_pair()}
        here = {n: net[n][1].fileno() for n in net}
        c = Chain(['tls-await', *options, *SAY], client=True, env={'TLS_CTLFD': '20'},
                  preexec=descriptors({0: here[0], 1: here[0], 6: here[6], 7: here[6],
                                       20: tls.fileno()}))
        tls.close()
        app.close()
        dies(c, 97, DECLINED)
        cannot_go_on(*net[shut])
        net[left][1].send(b'plain')
        is_equal(net[left][0].recv(5), b'plain', 'over the descriptors left alone')


@test('it never reads the network')
def _():
    client, server = tcp_pair()
    app, c = await_on_socket(['head', '-c', '9'], net=server)
    client.sendall(b'too ')
    wait_asleep(c.pid)
    client.sendall(b'early')
    app.send(b'y')
    is_equal(read_to_end(client), b'too early', 'what the program finds there')
    is_equal(c.wait(), 0)


@test('it goes on waiting after it was stopped and continued')
def _():
    app, c = await_on_socket(SAY, ['-t', '60000'])
    wait_asleep(c.pid)
    os.kill(c.pid, signal.SIGSTOP)
    os.waitpid(c.pid, os.WUNTRACED)
    os.kill(c.pid, signal.SIGCONT)
    app.send(b'y')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'next: unset\n')


run()
