#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/qmail-remote: whatever ends it, or a stage of it, or keeps it waiting, no mail is
# bounced for that; when it has ended, nobody holds the pipe to qmail-rspawn.

import os
import signal
import socket
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from dns import PlayedDNS, mx, use_host
from examples import Played, as_user
from proc import find_processes
from qmail import NO_OFFER, OFFER, Home, mail_server, write_tool
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for

DIED = 'ZConnected to 127.0.0.1 but connection died. '


class Paused:
    """The part of a server that stops before its answer to that verb, until the test says go."""

    def __init__(self, verb, offer=OFFER):
        self._go = threading.Event()
        self._heard = threading.Event()
        self._verb, self._offer = verb, offer

    def __call__(self, talk):
        mail_server({'EHLO': self._offer, self._verb: None})(talk)
        self._heard.set()
        is_true(self._go.wait(30 * SLOW), 'the test goes on')

    def wait(self):
        is_true(self._heard.wait(20 * SLOW), 'the client has said ' + self._verb)

    def go(self):
        self._go.set()


def paused(verb, **how):
    """A delivery to a server that has stopped there: its part, qmail's home, the server."""
    part = Paused(verb, **how)
    server = Played(part)
    home = Home().via(server.port)
    home.start()
    part.wait()
    return part, home, server


# What it waits for

@test('a server that does not answer the connection: later, and the next one')
def _():
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(('127.0.0.1', 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # there is room for one
        port = full.getsockname()[1]
        got = Home(timeoutconnect='1').via(port).deliver()
    is_equal(got.reports(),
             ['Z127.0.0.1: no connection to 127.0.0.1 port %d in 1 s. (#4.4.1)\n' % port])


@test('one that is silent from then on: later; if it has the last dot, maybe a duplicate')
def _():
    for verb, offer, reports in (
            ('greeting', OFFER, ['Z127.0.0.1: it took longer than 2 s. (#4.4.1)\n']),
            ('EHLO', OFFER, ['Z127.0.0.1: it took longer than 2 s. (#4.4.1)\n']),
            ('MAIL', NO_OFFER, [DIED + '(#4.4.2)\nit took longer than 2 s. (#4.4.1)\n']),
            ('.', NO_OFFER,
             ['r', DIED + 'Possible duplicate! (#4.4.2)\nit took longer than 2 s. (#4.4.1)\n'])):
        part = Paused(verb, offer)
        server = Played(part)
        home = Home(timeoutconnect='1', timeoutremote='1').via(server.port)
        is_equal(home.deliver().reports(), reports)
        part.go()
        server.join()


@test('one that keeps the connection after QUIT is not waited for')
def _():
    for offer in OFFER, NO_OFFER:
        part = Paused('QUIT', offer)
        server = Played(part)
        got = Home().via(server.port).deliver()
        is_equal(got.letter, 'K')
        part.go()
        server.join()


@test('limits are read as qmail reads them; 0 is none')
def _():
    for connect, remote in ('0', '0'), ('0060', '1200 seconds'), ('9' * 30, '9' * 30), ('x', ''):
        server = Played(mail_server())
        got = Home(timeoutconnect=connect, timeoutremote=remote).via(server.port).deliver()
        is_equal(got.letter, 'K', got)
        server.join()


# What ends it

@test('a signal ends the session, and defers the mail: at any time')
def _():
    for verb, before, died in (('greeting', [], False), ('EHLO', [], False), ('MAIL', [], True),
                               ('DATA', ['r'], True)):
        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
            part, home, server = paused(verb)
            home.p.send_signal(number)
            got = home.end().is_well_formed()
            told = 'qmail-remote was told to end. (#4.3.0)\n'
            is_equal(got.reports(), before + [DIED + '(#4.4.2)\n' + told if died else 'Z' + told])
            part.go()
            server.join()
    part, home, server = paused('.')
    home.p.terminate()
    is_equal(home.end().is_well_formed().reports(),
             ['r', DIED + 'Possible duplicate! (#4.4.2)\n' + told])
    part.go()
    server.join()


@test('a stage that is killed defers the mail')
def _():
    for verb, offer, names in (
            ('MAIL', OFFER, ('qmail-remote-send', 'tls-io', 'tls-engine')),
            ('MAIL', NO_OFFER, ('qmail-remote-send',)),
            ('EHLO', OFFER, ('qmail-remote-begin',))):
        for name in names:
            part, home, server = paused(verb, offer=offer)
            for pid in wait_for(lambda: find_processes(name), name):
                os.kill(pid, signal.SIGKILL)
            got = home.end().is_well_formed()
            is_equal(got.letter, 'Z', name)
            part.go()
            server.join()


@test('a program that is killed, or fails, defers the mail, whichever it is', limit=120)
def _():
    zone = {'localhost': [mx(10, 'localhost')]}
    for name in ('awk', 'bash', 'cut', 'grep', 'head', 'host', 'mkfifo', 'mktemp', 'rm', 'sed',
                 'sh', 'tail', 'timeout', 'tls-handshake', 'tls-io', 'tr'):
        for end in 'kill -9 $$', 'exit 1', 'exit 2':
            server = Played(mail_server({'EHLO': OFFER}))
            home = Home(smtproutes='::%d' % server.port, timeoutconnect='%d' % SLOW)
            dns = PlayedDNS(zone)
            use_host(home, dns)
            write_tool(home.dir + '/bin/' + name, end + '\n')
            home.start(host='localhost', to=['a b@localhost'])
            got = home.end(tidy=name != 'rm')
            harmless = name in ('cut', 'grep', 'head', 'rm', 'tail')
            is_equal(got.letter, 'K' if harmless else 'Z', '%s: %s: %r' % (name, end, got))


@test('what is missing here defers the mail: programs, a home, room for files, a name')
def _():
    server = Played()
    for change, start, report in (
            ({}, {'env': {'QMAILHOME': '/nonexistent'}}, 'ZUnable to switch to home directory.'),
            ({}, {'env': {'TMPDIR': '/nonexistent'}}, 'ZNo temporary directory.'),
            ({'me': None}, {}, 'ZUnable to read control files: control/me.'),
            ({'smtproutes': None}, {'env': {'PATH': '/nonexistent'}}, '')):
        home = Home().via(server.port)
        home.control(**change)
        home.start(**start)
        got = home.end()
        is_equal((got.letter, got.said[:len(report)]), ('Z', report.encode()), got)
    is_equal(server.late(), 0)


@test('it needs no rights: as a user who owns nothing here')
def _():
    if os.getuid():
        raise Skip('it already is one')
    for offer in OFFER, NO_OFFER:
        server = Played(mail_server({'EHLO': offer}))
        home = Home(tlshosts='*' * (offer == OFFER)).via(server.port)
        write_tool(home.dir + '/bin/as-daemon',
                   'exec %s "$@"' % ' '.join(as_user('daemon', [home.remote])))
        home.remote = home.dir + '/bin/as-daemon'
        is_equal(home.deliver().letter, 'K')
        server.join()


run()
