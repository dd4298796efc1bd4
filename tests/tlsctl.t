#!/usr/bin/env python3
# ISC licence: see COPYING.
# libtlsctl: a program that is linked with it, under a TLS side that the test plays, or the chain.

import os
import re
import shutil
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, Chain, delayed, descriptors
from clients import start_client
from pages import page, shown_in
from peer import Peer
from pki import ca_env, pki, server_env
from proc import fds_of
from scratch import close_later, temp_dir
from sockets import read_line, read_to_end, tcp_pair, unix_pair
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for
from ucspi import UCSPI_FDS, application

APP = TOP + '/tests/unit/tlsctl-app'
FACTS = b'SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=AEAD-AES256-GCM-SHA384\0\0'
STARTED, REFUSED = 'TLS has started', 'TLS did not start'
NOT_OFFERED, MISPLACED = 'TLS is not offered', 'the network is not where TLS is wanted'
INJECTED, ERROR = 'bytes came in plaintext before TLS began', 'a system call failed'


class App:
    """The program, with the network on rfd and wfd. The test holds the other ends: net, ctl, and
    plain, the channel in place of the network, a socket for both directions."""

    def __init__(self, rfd=0, wfd=1, unread=0, size=8192, offered=True, gone=False, env=None,
                 fds=None, channels=(10, 11, 12)):
        self.net, network = tcp_pair()
        self.ctl, control = unix_pair()
        self.plain, channel = unix_pair()
        for s in self.net, self.ctl, self.plain:
            s.settimeout(30 * SLOW)
        self._report = temp_dir() + '/report'
        report = os.open(self._report, os.O_CREAT | os.O_WRONLY)
        table = {rfd: network.fileno(), wfd: network.fileno(), 20: report, **(fds or {})}
        table.update({n: network.fileno() for n, fd in table.items() if fd == 'network'})
        self._gone = gone
        if gone:
            self.ctl.close()
        numbers = {}
        if offered:
            table.update(zip(channels, [control.fileno(), channel.fileno(), channel.fileno()]))
            numbers = dict(zip(UCSPI_FDS, map(str, channels)))
        self.c = Chain([APP, *map(str, (rfd, wfd, unread, size, 20))], client=True,
                       preexec=descriptors(table), env={**numbers, **(env or {})})
        self.id = '%d:%d' % (os.fstat(network.fileno()).st_dev, os.fstat(network.fileno()).st_ino)
        os.close(report)
        for s in network, control, channel:
            s.close()

    def replies(self, data, command=b'Y'):
        is_equal(self.ctl.recv(10), command, 'command')
        self.ctl.sendall(data)
        self.ctl.close()

    def told(self):
        """What the program reports: whether TLS is offered, what became of it, and the rest."""
        def lines():
            with open(self._report) as f:
                return f.read().split('\n')
        wait_for(lambda: len(lines()) > 3 or self.c.poll() is not None, 'a report')
        offered, status, *more = lines()[:-1]
        is_equal(offered, 'offered %d' % (status != NOT_OFFERED and not self._gone))
        return [status, *more]

    def echoes(self, there, not_there):
        """The program reads and writes there; not_there is at its end, and got not a byte."""
        there.sendall(b'hello')
        there.shutdown(socket.SHUT_WR)
        is_equal(read_to_end(there), b'hello', 'echo')
        not_there.shutdown(socket.SHUT_WR)
        is_equal(read_to_end(not_there), b'', 'where it should not write')

    def is_cut(self, code):
        """Nothing went to the network, which is at its end, nor to the channel."""
        is_equal(read_to_end(self.net), b'', 'the network')
        is_equal(read_to_end(self.plain), b'', 'the channel')
        is_equal(self.c.wait(), code, 'exit code')


# What it does

@test('Y: TLS is where the network was, the facts are told, the variables are gone')
def _():
    for rfd, wfd in (0, 1), (6, 7), (7, 6), (30, 40):
        a = App(rfd, wfd)
        a.replies(FACTS)
        is_equal(a.told(), [STARTED, '', 'protocol TLSv1.3, -', 'SSL_PROTOCOL=TLSv1.3',
                            'SSL_CIPHER=AEAD-AES256-GCM-SHA384'])
        a.echoes(a.plain, a.net)
        is_equal(a.c.wait(), 0)


@test('y, where no facts are wanted: one byte is said, and nothing waited for')
def _():
    for size in -1, 0:
        a = App(size=size)
        is_equal(a.ctl.recv(10), b'y')
        is_equal(a.told(), [STARTED, ''])
        is_equal(a.ctl.recv(10), b'', 'what else is said')
        a.echoes(a.plain, a.net)
        is_equal(a.c.wait(), 0)


@test('of a reply only the facts are kept')
def _():
    a = App()
    a.replies(b'PATH=/evil\0SSL_CERT_FILE=/evil\0SSL_PROTOCOL=x\0SSL_CERT_DIR=/evil\0SSL_A\0'
              b'LD_PRELOAD=/evil\0SSL_B=\0\0')
    is_equal(a.told(), [STARTED, '', 'protocol x, -', 'SSL_PROTOCOL=x', 'SSL_B='])
    a.echoes(a.plain, a.net)
    a = App()
    a.replies(b'\0')
    is_equal(a.told(), [STARTED, '', 'protocol -, -'])


@test('no copy of the network is left on 0, 1, 2, 6 and 7; other files there stay')
def _():
    a = App(0, 1, fds={2: 'network', 6: 'network', 7: 'network'})
    a.replies(FACTS)
    is_equal(a.told()[0], STARTED)
    is_true(a.id.split(':')[1] not in ''.join(fds_of(a.c.pid).values()), fds_of(a.c.pid))
    is_equal([fds_of(a.c.pid)[n] for n in (2, 6, 7)], ['/dev/null'] * 3)
    a.echoes(a.plain, a.net)


@test('the numbers of the descriptors may be any, two equal ones among them')
def _():
    for channels in (6, 7, 8), (8, 6, 7), (10, 11, 11), (10, 6, 6), (2, 7, 7):
        a = App(channels=channels)
        a.replies(FACTS)
        is_equal(a.told()[0], STARTED)
        a.echoes(a.plain, a.net)
        is_equal(a.c.wait(), 0)
    a = App(rfd=5, wfd=5, channels=(10, 11, 11))
    a.replies(FACTS)
    is_equal(a.told()[0], STARTED)
    a.echoes(a.plain, a.net)


# When there is no TLS

@test('a TLS side that has gone before it is asked offers nothing; asked all the same, it refuses')
def _():
    a = App(gone=True)
    is_equal(a.told(), [REFUSED, '', ''])
    a.is_cut(4)


@test('TLS that is not offered: nothing has been done, plaintext may go on')
def _():
    for env in ({}, {'SSLCTLFD': '5', 'SSLREADFD': '5'},
                {'SSLCTLFD': '0', 'SSLREADFD': '0', 'SSLWRITEFD': '99'},
                {'SSLCTLFD': '0', 'SSLREADFD': '', 'SSLWRITEFD': '0'},
                {'SSLCTLFD': '0', 'SSLREADFD': '0x0', 'SSLWRITEFD': '0'},
                {'SSLCTLFD': '-1', 'SSLREADFD': ' 0', 'SSLWRITEFD': '99999999999999999999'}):
        a = App(offered=False, env=env)
        is_equal(a.told()[:2], [NOT_OFFERED, ''])
        a.net.sendall(b'plain')
        a.net.shutdown(socket.SHUT_WR)
        is_equal(read_to_end(a.net), b'plain')
        is_equal(a.c.wait(), 1)


@test('bytes that have been read and not used: nothing is asked, the connection is shut')
def _():
    for unread in 1, 4096:
        a = App(unread=unread)
        is_equal(a.told(), [INJECTED, '', ''])
        is_equal(a.ctl.recv(10), b'', 'what was asked')
        a.is_cut(3)


@test('a network that is elsewhere: nothing is asked, the connection is shut')
def _():
    for rfd, wfd, there in (0, 1, {6: 'network'}), (6, 7, {0: 'network'}):
        null = open('/dev/null', 'r+b')
        close_later(null)
        a = App(30, 31)  # a connection to know the name of
        with a.net:
            table = {rfd: null.fileno(), wfd: null.fileno()}
            b = App(rfd, wfd, fds={**table, **there}, env={'SSLNETID': a.id})
            is_equal(b.told(), [MISPLACED, '', ''])
            is_equal(b.ctl.recv(10), b'', 'what was asked')
            is_equal(b.c.wait(), 2)


@test('SSLNETID is where it should be: one of the two will do')
def _():
    net, network = tcp_pair()
    close_later(net, network)
    st = os.fstat(network.fileno())
    name = '%d:%d' % (st.st_dev, st.st_ino)
    for n in 0, 1:
        a = App(fds={n: network.fileno()}, env={'SSLNETID': name})
        a.replies(FACTS)
        is_equal(a.told()[0], STARTED)
    for bad in '', name + ':', name[:-1], '0:0', 'x' + name:
        is_equal(App(fds={0: network.fileno()}, env={'SSLNETID': bad}).told()[0], MISPLACED)


@test('one number for both directions of the network, two channels: EINVAL, nothing is asked')
def _():
    a = App(rfd=5, wfd=5)
    is_equal(a.told(), [ERROR, 'Invalid argument', ''])
    is_equal(a.ctl.recv(10), b'', 'what was asked')
    a.is_cut(5)


@test('a reply that ends too early, or never comes: refused, the connection is shut')
def _():
    for said in b'', b'S', FACTS[:-1], FACTS[:-2]:
        a = App()
        a.replies(said)
        is_equal(a.told(), [REFUSED, '', ''])
        a.is_cut(4)
    a = App()
    is_equal(a.ctl.recv(1, socket.MSG_PEEK), b'Y')
    a.ctl.close()  # with the request unread: a reset
    is_equal(a.told(), [REFUSED, '', ''])
    a.is_cut(4)


@test('what comes on SSLREASONFD is the reason, fit to be shown; only when TLS is refused')
def _():
    for said, reason in ((b'', ''), (b'certificate has expired\n', 'certificate has expired'),
                         (b'\x1b[2J\r\nx\x7f', '?[2J??x?'), (b'x' * 9000, 'x' * 8191)):
        for replies, wanted in (b'', [REFUSED, '', reason]), (FACTS, [STARTED, '']):
            r, w = os.pipe()
            a = App(fds={13: r}, env={'SSLREASONFD': '13'})
            os.write(w, said)
            os.close(r)
            os.close(w)
            a.replies(replies)
            is_equal(a.told()[:len(wanted)], wanted)
            is_true(13 not in fds_of(a.c.pid), 'it is closed')


@test('a reply for which there is no room: EMSGSIZE, the connection is shut')
def _():
    for size in 1, len(FACTS) - 1, 20:
        a = App(size=size)
        a.replies(FACTS)
        is_equal(a.told(), [ERROR, 'Message too long', ''])
        a.is_cut(5)
    a = App(size=len(FACTS))
    a.replies(FACTS)
    is_equal(a.told()[0], STARTED)


@test('a network of pipes, which cannot be shut, is left as well')
def _():
    r, w = os.pipe()
    a = App(fds={0: r, 1: w})
    os.close(w)
    a.replies(b'')
    is_equal(a.told()[:2], [REFUSED, ''])
    is_equal(a.c.wait(), 4)
    with open(r, 'rb') as f:
        is_equal(f.read(), b'', 'what went out')


# With the chain as the TLS side

def app_in_chain(tlsside, rfd, wfd, sock, client=False, env=None):
    """The program in a chain; its report goes to standard error."""
    argv = delayed([APP, str(rfd), str(wfd), '0', '8192', '2'], tlsside)
    return start_client(argv, sock, env=env) if client else Chain(argv, sock, env=env)


@test('with the chain: a server\'s session; what the client has to say')
def _():
    client, server = tcp_pair()
    c = app_in_chain(['tls-await', 'tls-handshake', 'tls-io'], 0, 1, server, env=server_env())
    peer = Peer(client).handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_true('\nTLS has started\n\nprotocol TLSv1.3, -\n' in '\n' + c.stderr(), c.stderr())


@test('the chain tells the reason: a name that is wrong, a client that shows no certificate')
def _():
    client, server = tcp_pair()
    c = app_in_chain(['tls-await', '-c', 'tls-handshake', '-c', '-k', 'example.com', 'tls-io'],
                     6, 7, client, client=True, env=ca_env())
    try:
        Peer(server, client=False, cert='server').handshake()
        read_to_end(server)
    except OSError:
        pass
    server.close()
    is_equal(c.wait(), 4)
    is_true(re.search(r"^%s\n\nname `example.com' not present in server certificate" % REFUSED,
                      c.stderr(), re.M), c.stderr())

    client, server = tcp_pair()
    c = app_in_chain(['tls-await', 'tls-handshake', '-y', 'tls-io'], 0, 1, server,
                     env=server_env(CAFILE=pki() + '/ca.pem'))
    try:
        Peer(client).handshake().recv(1)
    except OSError:
        pass
    client.close()
    is_equal(c.wait(), 4)
    is_true(re.search(r'^%s\n\nhandshake failed: .*certificate' % REFUSED, c.stderr(), re.M),
            c.stderr())


@test('the chain tells nothing of its own settings, and nothing to whom reads for variables')
def _():
    client, server = tcp_pair()
    c = app_in_chain(['tls-await', 'tls-handshake', 'tls-io'], 0, 1, server,
                     env=server_env(CERTFILE='/nonesuch'))
    is_equal(read_to_end(client), b'')
    is_equal(c.wait(), 4)
    is_true(re.search(r'^%s\n\n\n' % REFUSED, c.stderr(), re.M), c.stderr())

    client, server = tcp_pair()
    told = application('greet(); print(ask(), file=sys.stderr)')
    c = Chain(delayed(told), server, env=server_env())
    client.sendall(b'STARTTLS\n')
    is_equal(read_line(client), b'go ahead\n')
    client.sendall(b'no TLS at all\n')
    read_to_end(client)
    client.close()
    c.wait()
    wait_for(lambda: "b''\n" in c.stderr(), 'the empty reply')


# As its users build it

def compiles(cc, path, *options):
    """A compiler has nothing to say on a file in C99 and POSIX."""
    p = subprocess.run(
        [cc, '-std=c99', '-D_POSIX_C_SOURCE=200809L', '-pedantic', '-Wall', '-Wextra', '-Wshadow',
         '-Wconversion', '-Werror', '-O2', *options, '-c', '-o', temp_dir() + '/x.o', path],
        stderr=subprocess.PIPE, text=True)
    is_equal((p.returncode, p.stderr), (0, ''), cc)


def compilers():
    found = [cc for cc in ('cc', 'gcc', 'clang') if shutil.which(cc)]
    if not found:
        raise Skip('no compiler is installed')
    return found


@test('the two files compile as C99 and POSIX, without a warning')
def _():
    for cc in compilers():
        compiles(cc, TOP + '/src/tlsctl/tlsctl.c')


EXAMPLE = '''
#include <unistd.h>
#include <tlsctl.h>
void log_line(char const *, char const *);
void forget_helo_and_envelope(void);
void starttls(size_t n, char const **);
void starttls(size_t n, char const **protocol)
{
%s
}
'''


@test('the example of the page compiles; the page has the functions and the words of the header')
def _():
    [example] = [block for block in shown_in('tlsctl.3') if 'TLSCTL_SIZE' in block]
    path = temp_dir() + '/example.c'
    with open(path, 'w') as f:
        f.write(EXAMPLE % example.replace('protocol =', '*protocol ='))
    for cc in compilers():
        compiles(cc, path, '-I', TOP + '/src/tlsctl', '-Wno-unused-result')
    with open(TOP + '/src/tlsctl/tlsctl.h') as f:
        header = f.read()
    text = page('tlsctl.3')
    words = set(re.findall(r'\bTLSCTL_[A-Z_]+\b', header)) - {'TLSCTL_H'}
    is_equal(set(re.findall(r'\bTLSCTL_[A-Z_]+\b', text)), words, 'words')
    is_equal(re.findall(r'^extern .*?(tlsctl_\w+)\(', header, re.M),
             re.findall(r'^\.Fn (\w+)', text.split('.Sh DESCRIPTION')[0], re.M), 'functions')


run()
