# ISC licence: see COPYING.
"""qmail-rspawn, as far as qmail-remote sees it, and SMTP servers that a test plays for it."""

import os
import re
import shutil
import signal
import ssl
import subprocess

from chain import BIN, TOP
from examples import Played
from pki import pki
from scratch import temp, temp_dir
from tap import SLOW, is_equal, is_true

FROM = 'alice@example.org'
TO = 'bob@example.net'
LETTER = b'From: alice@example.org\nTo: bob@example.net\n\nhi\n'


# What qmail-rspawn does

def verdict(status, said):
    """What qmail-rspawn tells qmail-send of a delivery to one recipient, from how qmail-remote has
    ended and what it has said: K, Z or D, and the text."""
    if os.WIFSIGNALED(status):
        return 'Z', 'crashed'
    code = os.WEXITSTATUS(status)
    if code:
        return 'Z' if code == 111 else 'D', 'exit code %d' % code
    if not said:
        return 'Z', 'no output'
    reports = [r.decode('latin-1') for r in said.split(b'\0')[:-1]]
    found = [r[:1] for r in reports if r[:1] in ('K', 'Z', 'D')]
    letter = found[0] if found else 'D'
    own = {'s': 'Z', 'h': 'D'}.get(chr(said[0]), letter)
    text = reports[0][1:] if reports else ''
    order = 'DZK'
    if order.index(letter) <= order.index(own) and reports[1:] and reports[1][:1] in order:
        text += reports[1][1:]
    return own, text


class Delivery:
    """How qmail-remote has ended, and what it has said."""

    def __init__(self, status, said):
        self.status, self.said = status, said
        self.letter, self.text = verdict(status, said)

    def __repr__(self):
        return '%s, %r' % (self.letter, self.said)

    def is_well_formed(self):
        """It exits 0, and reports of recipients come first, then one of the mail; all printable."""
        is_equal(self.status, 0, 'status of qmail-remote, which says %r' % self.said)
        is_true(re.fullmatch(rb'(r\0|[hs][ -~\n]+\n\0)*[KZD][ -~\n]+\n\0', self.said),
                'reports: %r' % self.said)
        is_true(len(self.said) < 10000, 'its length: %d' % len(self.said))
        return self

    def reports(self):
        return [r.decode() for r in self.said.split(b'\0')[:-1]]


def signals_of_rspawn():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:  # nohup ignores the first
        signal.signal(number, signal.SIG_DFL)


class Home:
    """qmail's home, with these control files in it; remote is what is run as qmail-remote."""

    remote = TOP + '/examples/mail/qmail-remote'

    def __init__(self, **control):
        self.dir = temp_dir()
        self.environment = {
            'PATH': ':'.join([self.dir + '/bin', BIN, os.environ['PATH']]), 'QMAILHOME': self.dir,
            'TMPDIR': self.dir + '/tmp', 'CAFILE': pki() + '/ca.pem',
            **{k: v for k, v in os.environ.items() if k.startswith(('ASAN_', 'UBSAN_'))}}
        for name in 'control', 'queue', 'queue/mess', 'bin', 'tmp':
            os.mkdir(self.dir + '/' + name)
        os.chmod(self.dir + '/tmp', 0o1777)
        self.control(**{'me': 'client.example.org', **control})

    def control(self, **files):
        """Writes these; removes those that are None."""
        for name, text in files.items():
            path = '%s/control/%s' % (self.dir, name)
            if text is None:
                os.unlink(path)
            else:
                with open(path, 'w') as f:
                    f.write(text + '\n')

    def via(self, port, host='127.0.0.1', **control):
        """All mail goes to that host and port."""
        self.control(smtproutes=':%s:%d' % (host, port), **control)
        return self

    def start(self, to=(TO,), sender=FROM, letter=LETTER, host='example.net', env=None, stdin=None):
        """Runs it as qmail-rspawn does: the message on 0, one pipe on 1 and 2, SIGPIPE ignored, in
        queue/mess."""
        stdin = os.open(temp(letter), os.O_RDONLY) if stdin is None else stdin
        self.p = subprocess.Popen(
            [self.remote, host, sender, *to], stdin=stdin, env={**self.environment, **(env or {})},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.dir + '/queue/mess',
            preexec_fn=signals_of_rspawn)
        os.close(stdin)
        return self.p

    def end(self, seconds=50, tidy=True):
        """Waits for it. When it has ended, nobody holds the pipe; tidy: no file is left behind."""
        p = self.p
        try:
            _, status = wait_status(p, seconds * SLOW)
        finally:
            if p.returncode is None:
                p.kill()
                p.wait()
        os.set_blocking(p.stdout.fileno(), False)
        said = b''
        with p.stdout:
            while True:
                data = os.read(p.stdout.fileno(), 65536)  # raises if it is not at its end
                if not data:
                    break
                said += data
        is_true(not tidy or not os.listdir(self.dir + '/tmp'), 'no file is left behind')
        return Delivery(status, said)

    def deliver(self, **how):
        self.start(**how)
        return self.end().is_well_formed()


def wait_status(p, seconds):
    """The status of a process as wait(2) has it."""
    code = p.wait(seconds)
    return p.pid, -code if code < 0 else code << 8


def remote_with(**policy):
    """qmail-remote in a copy of the examples that has other policies: a script for each name."""
    d = temp_dir()
    shutil.copytree(TOP + '/examples/mail', d + '/mail')
    shutil.copytree(TOP + '/examples/starttls', d + '/starttls')
    shutil.copy(TOP + '/examples/starttls-dial', d)
    os.mkdir(d + '/policy')
    for name, text in policy.items():
        write_tool('%s/policy/%s' % (d, name.replace('_', '-')), text)
    return d + '/mail/qmail-remote'


def write_tool(path, text):
    with open(path, 'w') as f:
        f.write('#!/bin/sh\n' + text)
    os.chmod(path, 0o755)


def taken_by(replies=None, home=None, server=None, **how):
    """A delivery to a server that is played with these replies: the delivery, and the talk."""
    server = server or Played(mail_server(replies))
    got = (home or Home()).via(server.port).deliver(**how)
    server.join()
    return got, server.talks[-1]


# The server

OFFER = '250-mx.example.net\r\n250-SIZE\r\n250-STARTTLS\r\n250 8BITMIME'
NO_OFFER = '250-mx.example.net\r\n250-SIZE\r\n250 8BITMIME'


def mail_server(replies=None, **settings):
    """The part of an SMTP server: a reply to each verb, to "greeting", and to "." for a message; a
    list of them for one after the other; None hangs up. It offers STARTTLS and takes all mail,
    where replies does not say otherwise. The lines that it hears are in talk.heard, those in TLS
    with a * in front; the message, as it was sent, is in talk.message."""
    replies = {'greeting': '220 mx.example.net', 'STARTTLS': '220 go ahead', 'DATA': '354 go on',
               'QUIT': '221 bye', **(replies or {})}

    def play(talk):
        talk.heard, talk.message = [], None
        again = {k: list(v) for k, v in replies.items() if isinstance(v, list)}

        def answer(verb):
            default = (NO_OFFER if talk.peer else OFFER) if verb == 'EHLO' else '250 ok'
            reply = replies.get(verb, default)
            if verb in again:
                reply = again[verb].pop(0)
            if reply is not None:
                talk.say(reply + '\r\n')
            return reply

        going = answer('greeting')
        while going:
            line = talk.line()
            if not line.endswith('\r\n'):
                return
            line = line[:-2]
            talk.heard.append('*' * bool(talk.peer) + line)
            verb = line.split(' ')[0]
            going = answer(verb)
            if verb == 'STARTTLS' and going and going.startswith('220'):
                talk.start_tls(**settings)
            elif verb == 'DATA' and going and going.startswith('354'):
                talk.message = hear_message(talk)
                going = re.search(rb'^\.\r\n\Z', talk.message, re.M) and answer('.')
            elif verb == 'QUIT':  # nobody reads on
                return
    return play


def lenient(part):
    """The same part, for a client that may end TLS in the middle."""
    def play(talk):
        try:
            part(talk)
        except (ssl.SSLError, ConnectionError):
            pass
    return play


def hear_message(talk):
    """All up to the last dot, or to the end."""
    got = b''
    while not got.endswith(b'\r\n.\r\n') and got != b'.\r\n':
        data = talk.recv(1)
        if not data:
            break
        got += data
    return got
