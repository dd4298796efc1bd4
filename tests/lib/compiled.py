# ISC licence: see COPYING.
"""The examples in C, compiled as a user would do it: the server, running; a TLS side for either."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import types

from chain import TOP, Chain, descriptors, need
from examples import EXAMPLES
from pki import server_env
from smtp import SmtpTalk
from sockets import tcp_pair, unix_pair
from tap import SLOW, at_end, is_equal
from tcpserver import Server

FLAGS = ['-std=c99', '-pedantic', '-Wall', '-Wextra', '-O2']
SANITIZE = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all']

_dir = None


def compiler():
    """The one that the library has been built by, as ./configure has it."""
    with open(TOP + '/config.mak') as f:
        return next(line.split()[2] for line in f if line.startswith('CC := '))


def compile_c(program, *sources, cc=None, library=TOP + '/libtlsctl.a'):
    """Compiles it against the header and the library of this tree; what the compiler says."""
    cc = cc or compiler()
    need(cc)
    sanitize = SANITIZE if os.environ.get('TEST_SANITIZE') else []
    p = subprocess.run([cc, *FLAGS, *sanitize, '-I' + TOP + '/src/tlsctl', '-o', program, *sources,
                        library], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    is_equal(p.returncode, 0, 'exit code of %s, which says:\n%s' % (cc, p.stdout))
    return p.stdout


def example_sources(name):
    return ['%s/c/%s.c' % (EXAMPLES, file) for file in (name, 'lines')]


def compiled(name):
    """The path of the program, which is compiled when it is first asked for."""
    global _dir
    if not _dir:
        _dir = tempfile.mkdtemp(prefix='tls-chain-c.')
        os.chmod(_dir, 0o755)
    path = '%s/%s' % (_dir, name)
    if not os.path.exists(path):
        compile_c(path, *example_sources(name))
    return path


@at_end
def remove_compiled():
    if _dir:
        shutil.rmtree(_dir)


# The server

DELAYED = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -l mx.example.org 127.0.0.1 0
tls-ctl-open
{
  s6-envdir ./tls
  tls-await
  tls-handshake -v 2
  tls-io
}
%s
'''

# Keeps a mail and all that it has been given, in a file; exits N for code-N@..., is killed for
# killed@...
DELIVER = '#!' + sys.executable + ''' -IS
import json, os, signal, sys, time
def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False
to = os.environ['RECIPIENTS']
found = {'mail': os.read(0, 1 << 24).decode('latin-1'), 'env': dict(os.environ),
         'fds': [fd for fd in range(100) if is_open(fd)]}
if to.startswith('code-'):
    sys.exit(int(to[5:].partition('@')[0]))
if to.startswith('killed'):
    os.kill(os.getpid(), signal.SIGKILL)
print('this must not get to the client')
name = '%d' % time.monotonic_ns()
with open(name, 'w') as f:
    json.dump(found, f)
os.rename(name, name + '.mail')
'''

SENDER, RCPT = 'MAIL FROM:<alice@example.org>', 'RCPT TO:<bob@example.net>'
CODES = ['250 2.1.0 OK', '250 2.1.5 OK', '354 go on, to a line with a dot alone']
TAKEN = '250 2.0.0 the mail has been taken'
NO_LINE = '521 5.5.2 mx.example.org a line does not end with CR LF, closing'
IDLE = '421 4.4.2 mx.example.org you are idle, closing'
GREETING = '220 mx.example.org ESMTP'
GO_AHEAD = '220 2.0.0 ready to start TLS'
CAPABILITIES = ['250-PIPELINING', '250-8BITMIME', '250-ENHANCEDSTATUSCODES', '250 SIZE 50000000']
IN_CLEAR = ['250-mx.example.org', '250-STARTTLS', *CAPABILITIES]
IN_TLS = ['250-mx.example.org', *CAPABILITIES]


def stuffed(*lines):
    """A mail up to its dot, but for the end of that line."""
    return ''.join('.' * s.startswith('.') + s + '\r\n' for s in lines) + '.'


def hand_in(talk, *lines, to=RCPT):
    """Goes on with a mail of these lines; the answer to its dot."""
    is_equal([talk.ask(line) for line in (SENDER, to, 'DATA')], CODES)
    return talk.ask(stuffed(*lines))


class SmtpServer(Server):
    """examples/c/smtpd with these options under that run script."""

    def __init__(self, *options, run=DELAYED, **settings):
        command = ' '.join([compiled('smtpd'), *options, './deliver'])
        super().__init__(run % command, server_env(**settings), deliver=DELIVER)
        os.chmod(self.dir + '/deliver', 0o755)

    def talk(self):
        """A client that has been greeted."""
        talk = SmtpTalk(self.connect())
        is_equal(talk.answers(), [GREETING])
        return talk

    def talk_in_tls(self):
        """One that has started TLS and said nothing yet in it."""
        talk = self.talk()
        is_equal(talk.ask('EHLO clear.example'), ' / '.join(IN_CLEAR))
        is_equal(talk.ask('STARTTLS'), GO_AHEAD)
        return talk.start_tls()

    def mails(self):
        """What has been handed on: text, with the lines of its Received before it; env; fds."""
        found = []
        for name in sorted(name for name in os.listdir(self.dir) if name.endswith('.mail')):
            with open('%s/%s' % (self.dir, name)) as f:
                mail = json.load(f)
            lines = mail['mail'].split('\n')
            found.append(types.SimpleNamespace(
                received=lines[:3], text='\n'.join(lines[3:]), env=mail['env'], fds=mail['fds']))
        return found

    def ends(self, status, *codes):
        """The only session has ended: the code of smtpd, those of the TLS side. Ends the server."""
        self.wait_log('tcpserver: end ')
        [line] = [s for s in self.log() if s.startswith('tcpserver: end ')]
        is_equal(line.split()[-1], str(status << 8), 'status of smtpd, log: %r' % self.log())
        self.wait_idle()
        is_equal(self.codes, list(codes), 'exit codes of engine and TLS side')
        self.chain.kill()


# A TLS side that the test plays

class PlayedSide:
    """The TLS side of a program whose network is at these descriptors; net is the other end of
    that. ctl is what it asks on, plain what TLS would carry, at its descriptors r and w; reason
    is why TLS is refused."""

    def __init__(self, argv, network, r=11, w=11, stdin=os.devnull, reason=b''):
        self.net, socket = tcp_pair()
        socket.setblocking(True)  # which a timeout takes away
        self.ctl, control = unix_pair()
        self.plain, both = unix_pair()
        why, ours = unix_pair()
        ours.sendall(reason)
        for end in self.ctl, self.plain:
            end.settimeout(30 * SLOW)
        table = {10: control, 13: why, r: both, w: both, **dict.fromkeys(network, socket)}
        with open(stdin) as f:
            table.setdefault(0, f)
            self.c = Chain(argv, client=True, env={
                'SSLCTLFD': '10', 'SSLREADFD': str(r), 'SSLWRITEFD': str(w), 'SSLREASONFD': '13'},
                preexec=descriptors({n: end.fileno() for n, end in table.items()}))
        for end in socket, control, both, why, ours:
            end.close()

    def reply(self, data):
        """It asks with Y; that is the answer."""
        is_equal(self.ctl.recv(10), b'Y', 'what it asks')
        self.ctl.sendall(data)
        self.ctl.close()
