#!/usr/bin/env python3
# ISC licence: see COPYING.
# smtp-front, STARTTLS for an SMTP server that knows no TLS: a played server, msmtpd, mailfront.

import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from examples import EXAMPLES, example, is_refused
from pki import pki, server_env
from smtp import SmtpTalk, run_swaks
from tap import is_equal, is_true, run, test
from tcpserver import Server

RUN = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -l mx.example.org 127.0.0.1 0
tls-ctl-open
{
  s6-envdir ./tls
  tls-await
  tls-handshake -v 2
  tls-io
}
%s/smtp-front %s
'''

# Writes what it hears to ./heard. Its arguments: a greeting, the reply to EHLO, the exit code.
SMTPD = '#!' + sys.executable + ''' -IS
import os, sys
greeting, hello, code = (s.replace('|', '\\r\\n') for s in sys.argv[1:])
log = open('heard', 'ab', buffering=0)
log.write(b'started %s\\n' % (b'with channels' if 'SSLCTLFD' in os.environ else b''))
os.write(1, greeting.encode())
for line in open(0, 'rb', buffering=0):
    log.write(line)
    if line.startswith((b'EHLO', b'HELO')):
        os.write(1, hello.encode())
    elif line.startswith(b'BIG'):
        os.write(1, b'.' * (1 << 20) + b'\\r\\n')
    elif line.startswith(b'QUIT'):
        os.write(1, b'221 real bye\\r\\n')
        sys.exit(int(code))
    else:
        os.write(1, b'250 heard ' + line)
'''

GREETING = '220-real server|220-of two more|220 lines|'
HELLO = '250-real|250-SIZE 99|250 8BITMIME|'
IN_TLS = b'250-real\r\n250-SIZE 99\r\n250 8BITMIME\r\n'
CLEAR = ['220 mx.example.org ESMTP', '250-mx.example.org', '250 STARTTLS']
GO_AHEAD = '220 Ready to start TLS'


class Front:
    """smtp-front before the played server, or another."""

    def __init__(self, *options, greeting=GREETING, hello=HELLO, code=0, server=None):
        need('perl')
        server = server or "./smtpd '%s' '%s' %d" % (greeting, hello, code)
        server = server.replace("'", '"')
        self.server = Server(RUN % (EXAMPLES, ' '.join([*options, server])), server_env(),
                             smtpd=SMTPD)
        os.chmod(self.server.dir + '/smtpd', 0o755)
        self.port = self.server.port

    def heard(self):
        """The lines that the server has heard, in all sessions; None if it was not started."""
        try:
            with open(self.server.dir + '/heard') as f:
                return f.read().split('\n')[:-1]
        except FileNotFoundError:
            return None

    def end(self, status, *codes):
        """The only session has ended: what tcpserver says of the front, the codes of the TLS side.
        """
        self.server.wait_log('tcpserver: end ')
        is_true(re.search(r'^tcpserver: end \d+ status %d$' % status,
                          '\n'.join(self.server.log()), re.M), self.server.log())
        self.server.wait_idle()
        is_equal(self.server.codes, list(codes), 'exit codes of engine and TLS side')
        self.server.chain.kill()


class Client(SmtpTalk):
    """A client that has been greeted, in plaintext or after start_tls()."""

    def __init__(self, front):
        super().__init__(front.server.connect())
        is_equal(self.answers(), [CLEAR[0]])

    def start_tls(self):
        is_equal(self.ask('EHLO clear.example'), ' / '.join(CLEAR[1:]))
        is_equal(self.ask('STARTTLS'), GO_AHEAD)
        return super().start_tls()


@test('in TLS the server greets nobody, hears what was said in TLS only, and its code is the end')
def _():
    for option in '-r', '':
        front = Front(option, code=3)
        client = Client(front).start_tls()
        client.send(b'EHLO tls.example\r\n')
        is_equal(client.recv(len(IN_TLS)), IN_TLS)
        is_equal(client.ask('MAIL FROM:<>'), '250 heard MAIL FROM:<>')
        client.send(b'QUIT\r\n')
        is_equal(client.rest(), b'221 real bye\r\n')
        front.end(3 << 8, 0, 0)
        is_equal(front.heard(), ['started ', 'EHLO tls.example', 'MAIL FROM:<>', 'QUIT'])


@test('with -r, in plaintext, all that needs the server is refused, and it is not even started')
def _():
    front = Front('-r')
    client = Client(front)
    refused = '530 Must issue a STARTTLS command first'
    for line in ('MAIL FROM:<a@example.org>', 'RCPT TO:<b@example.net>', 'DATA', 'VRFY root',
                 'AUTH PLAIN AGEAYg==', 'STARTTLSX', '', 'mail from:<>'):
        is_equal((line, client.ask(line)), (line, refused))
    for line, answer in (
            ('HELO me', '250 mx.example.org'), ('eHlO me', '250-mx.example.org / 250 STARTTLS'),
            ('NOOP', '250 OK'), ('noop with more', '250 OK'), ('Rset ', '250 OK'),
            ('EHLO', '501 say who you are'), ('STARTTLS now', '501 STARTTLS has no parameters'),
            ('QUIT', '221 mx.example.org closing')):
        is_equal((line, client.ask(line)), (line, answer))
    is_equal(client.rest(), b'')
    front.end(0, 0)
    is_equal(front.heard(), None)


@test('without -r, whoever goes on in plaintext is handed to the server, and has no channels')
def _():
    for hello in 'EHLO me.example', 'HELO me.example':
        front = Front(code=4)
        client = Client(front)
        client.ask('EHLO who.example')
        client.ask(hello)
        is_equal(client.ask('MAIL FROM:<>'), '250 heard MAIL FROM:<>')
        is_equal(client.ask('STARTTLS'), '250 heard STARTTLS')
        is_equal(client.ask('EHLO anew'), IN_TLS.decode()[:-2].replace('\r\n', ' / '))
        is_equal(client.ask('QUIT'), '221 real bye')
        is_equal(client.rest(), b'')
        front.end(4 << 8, 0)
        is_equal(front.heard(),
                 ['started ', hello, 'MAIL FROM:<>', 'STARTTLS', 'EHLO anew', 'QUIT'])


@test('without -r and without EHLO, the server hears the command alone, and judges')
def _():
    front = Front()
    is_equal(Client(front).ask('VRFY root'), '250 heard VRFY root')
    is_equal(front.heard(), ['started ', 'VRFY root'])


@test('what is injected behind STARTTLS is refused by the TLS side, the server hears nothing')
def _():
    def is_injection(front, client):
        is_equal(client.rest(), b'', 'answer')
        front.server.wait_log('unable to start TLS: bytes came in plaintext before')
        front.end(97 << 8, 97, 97)
        is_equal(front.heard(), None)

    for option in '-r', '':
        front = Front(option)
        client = Client(front)
        is_equal(client.ask('EHLO me'), ' / '.join(CLEAR[1:]))
        is_equal(client.ask('STARTTLS\r\nMAIL FROM:<injected@example.org>'), GO_AHEAD)
        is_injection(front, client)

        front = Front(option)
        client = Client(front)
        is_equal(client.ask('STARTTLS'), GO_AHEAD)
        client.send(b'MAIL FROM:<injected@example.org>\r\n')
        is_injection(front, client)


@test('a line that could be read in two ways ends the session: bare LF or CR, NUL, 513 bytes')
def _():
    closing = b'421 mx.example.org a line is too long, or does not end with CR LF, closing\r\n'
    front = Front('-r')
    for line in (b'NOOP\n', b'NO\rOP\r\n', b'NOOP\0\r\n', b'NOOP\r\r\n', b'NOOP ' + b'x' * 507,
                 b'STARTTLS\nMAIL FROM:<>\r\n'):
        client = Client(front)
        client.send(line)
        is_equal((line, client.recv(1 << 16)), (line, closing))
    client = Client(front)
    is_equal(client.ask('NOOP ' + 'x' * 505), '250 OK')


@test('a server that refuses in its greeting: that is the answer to what the client says next')
def _():
    for greeting in '554-no|554 service|', '421 not now|':
        wanted = greeting.rstrip('|').replace('|', ' / ')
        front = Front(greeting=greeting)
        client = Client(front).start_tls()
        is_equal(client.ask('EHLO tls.example'), wanted)
        is_equal(client.ask('QUIT'), '221 real bye')
        is_equal(client.rest(), b'')

        client = Client(front)
        client.ask('EHLO me')
        is_equal(client.ask('MAIL FROM:<>'), wanted)
        is_equal(client.ask('QUIT'), '221 real bye')
        is_equal(client.rest(), b'')
        is_equal(front.heard(), ['started ', 'QUIT'] * 2)

        # It hangs up after its refusal.
        front = Front(server="printf %%s '%s'" % greeting.replace('|', '\\r\\n'))
        client = Client(front).start_tls()
        is_equal(client.ask('EHLO tls.example'), wanted)
        is_equal(client.rest(), b'')


@test('a server that refuses EHLO: that is the answer to the command, which it never hears')
def _():
    front = Front(hello='550-go|550 away|')
    client = Client(front)
    client.ask('EHLO me')
    is_equal(client.ask('MAIL FROM:<>'), '550-go / 550 away')
    is_equal(client.ask('QUIT'), '221 real bye')
    is_equal(front.heard(), ['started ', 'EHLO me', 'QUIT'])


@test('a server that does not start, or does not greet: 421, a line in the log, an exit code')
def _():
    down = '421 mx.example.org service not available, closing'
    for server, code, why in (
            ('./no-such-smtpd', 127, 'unable to run ./no-such-smtpd: No such file or directory'),
            ("sh -c 'echo hello; exec sleep 1000'", 76, 'nonsense, instead of greeting'),
            ('./tls', 126, 'unable to run ./tls: Permission denied'),
            ('true', 76, 'true ends, or talks nonsense, instead of greeting'),
            ('false', 1, 'false ends, or talks nonsense, instead of greeting'),
            ("./smtpd 'hello|' '' 0", 76, 'nonsense, instead of greeting'),
            ("./smtpd '220-one|250 other|' '' 0", 76, 'nonsense, instead of greeting'),
            ("./smtpd '%s' '' 0" % ('220-more|' * 8000), 76, 'nonsense, instead of greeting')):
        front = Front(server=server)
        client = Client(front).start_tls()
        is_equal(client.ask('EHLO me'), down)
        is_equal(client.rest(), b'')
        front.server.wait_log('smtp-front: fatal: ')
        front.server.wait_log(why)
        front.end(code << 8, 0, 0)

        front = Front(server=server)
        client = Client(front)
        is_equal(client.ask('MAIL FROM:<>'), down)
        is_equal(client.rest(), b'')
        front.end(code << 8, 0)


@test('a megabyte each way at once, in TLS and in plaintext')
def _():
    front = Front()
    for client in Client(front).start_tls(), Client(front):
        client.ask('EHLO me')
        line = b'x' * 1022 + b'\r\n'
        client.send(b'BIG\r\n')
        for _ in range(1024):
            client.send(line)
        client.send(b'QUIT\r\n')
        got = client.rest()
        is_equal(got, b'.' * (1 << 20) + b'\r\n' + b''.join(
            [b'250 heard ' + line] * 1024) + b'221 real bye\r\n')


@test('a client that hangs up, at any point: nothing stays')
def _():
    front = Front()
    Client(front).sock.close()
    client = Client(front)
    client.send(b'NOO')
    client.sock.close()
    client = Client(front)
    is_equal(client.ask('MAIL FROM:<>'), '250 heard MAIL FROM:<>')
    client.sock.close()
    client = Client(front).start_tls()
    client.ask('EHLO me')
    client.peer.close_notify()
    client.sock.close()
    front.server.wait_log('tcpserver: end ', 4)
    front.server.wait_idle()


@test('a client that is idle longer than -t: 421, and the end')
def _():
    front = Front('-r', '-t', '1')
    is_equal(Client(front).rest(), b'421 mx.example.org you are idle, closing\r\n')
    front.end(0, 0)


@test('misused: usage, 100; without tls-ctl-open, 100 before it greets')
def _():
    usage = 'usage: smtp-front [ -r | -s ] [ -t seconds ] server...'
    for argv in [], ['-r'], ['-x', 'cat'], ['-t', 'soon', 'cat'], ['-t', '0', 'cat'], \
            ['-r', '-s', 'cat']:
        is_refused(example('smtp-front', *argv), 100, usage)
    is_refused(example('smtp-front', '-r', 'cat', '-x'), 100,
               'smtp-front: fatal: no channels for TLS: run it under tls-ctl-open')


# Debian's msmtpd: each mail goes to a command.

MAIL = ['From: alice@example.org', 'To: bob@example.net', 'Subject: hello', '', 'Through TLS.']


def msmtpd(*options):
    need('msmtpd')
    front = Front(*options, server="msmtpd --inetd '--command=./deliver %F --'")
    with open(front.server.dir + '/deliver', 'w') as f:
        f.write('#!/bin/sh\n{ echo "$@" ; cat ; } > mail.new && mv mail.new mail\n')
    os.chmod(f.name, 0o755)
    return front


def delivered(front):
    """The envelope, and the lines of the mail without the one that msmtpd has put before them."""
    with open(front.server.dir + '/mail') as f:
        envelope, mail = f.read().split('\n', 1)
    mail = re.sub(r'\AReceived: .*\n(?:\s.*\n)*', '', mail.replace('\r\n', '\n'))
    return envelope, mail.rstrip('\n').split('\n')


def send_by_swaks(front):
    """swaks sends the mail, verifying; without TLS it cannot. The codes that it gets in TLS."""
    argv = ['--from', 'alice@example.org', '--to', 'bob@example.net', '--data', '\n'.join(MAIL)]
    p = run_swaks(front.port, *argv)
    is_equal(p.returncode, 23, 'exit code of swaks without TLS (23: MAIL refused):\n' + p.stdout)
    is_true('\n<** 530 Must issue a STARTTLS command first\n' in p.stdout, p.stdout)
    tls = ['--tls', '--tls-verify', '--tls-ca-path', pki() + '/ca.pem']
    p = run_swaks(front.port, *argv, *tls)
    is_equal(p.returncode, 0, 'exit code of swaks, which says:\n' + p.stdout)
    is_equal(re.findall('^<-  (.*)$', p.stdout, re.M), CLEAR + [GO_AHEAD])
    return re.findall('^<~  (\\d+ )', p.stdout, re.M)


CODES = ['250 ', '250 ', '250 ', '354 ', '250 ', '221 ']  # EHLO, MAIL, RCPT, DATA, the dot, QUIT


@test('msmtpd behind it: swaks sends a mail by STARTTLS, verifying; not without')
def _():
    front = msmtpd('-r')
    is_equal(send_by_swaks(front), CODES)
    is_equal(delivered(front), ('alice@example.org -- bob@example.net', MAIL))


@test('mailfront behind it, without its own STARTTLS: swaks sends a mail by STARTTLS; not without')
def _():
    need('smtpfront-echo')
    is_equal(send_by_swaks(Front('-r', server='smtpfront-echo accept')), CODES)


@test('msmtpd behind it, without -r: a mail in plaintext, in one go')
def _():
    front = msmtpd()
    client = Client(front)
    client.ask('EHLO client.example')
    for line in 'MAIL FROM:<alice@example.org>', 'RCPT TO:<bob@example.net>':
        is_equal(client.ask(line), '250 Ok')
    is_equal(client.ask('DATA')[:3], '354')
    is_equal(client.ask('\r\n'.join(MAIL + ['.']))[:3], '250')
    is_equal(client.ask('QUIT')[:3], '221')
    is_equal(client.rest(), b'')
    is_equal(delivered(front), ('alice@example.org -- bob@example.net', MAIL))


@test('msmtpd behind it: openssl s_client, patient and verifying, is not greeted twice')
def _():
    front = msmtpd('-r')
    p = subprocess.Popen(
        ['openssl', 's_client', '-connect', '127.0.0.1:%d' % front.port, '-starttls', 'smtp',
         '-quiet', '-CAfile', pki() + '/ca.pem', '-verify_return_error', '-verify_hostname',
         'localhost'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = b''
    for line in b'EHLO client.example\r\n', b'QUIT\r\n':
        p.stdin.write(line)
        p.stdin.flush()
        said += p.stdout.readline()
    out = p.communicate()[0]
    is_equal((p.returncode, said, out), (0, b'250 localhost\r\n221 Bye\r\n', b''))


run()
