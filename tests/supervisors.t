#!/usr/bin/env python3
# ISC licence: see COPYING.
# The page on where to run it: its units, lines and scripts, under what they are for.

import os
import re
import shutil
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, need
from examples import SBIN, Daemon, free_port
from pages import shown, shown_in
from peer import Peer
from pki import server_env
from privileges import as_root
from proc import find_processes, is_alive
from scratch import close_later, temp_dir
from services import write_line, write_script
from sessions import is_echoed
from tap import SLOW, Skip, is_equal, run, test, wait_for

PAGE = 'tls-chain-services.7'
PATH = BIN + ':' + os.environ['PATH'] + SBIN
BIG = 1 << 20


class Place:
    """A directory in place of /etc/tls-chain/smtps, with its tls and a script of the page, in which
    another program stands for qmail-smtpd, and a free port for 465."""

    def __init__(self, name, begin, app='cat', **changes):
        need('execlineb', 's6-envdir')
        self.dir, self.port = temp_dir(), free_port()
        os.mkdir(self.dir + '/tls')
        for setting, value in server_env().items():
            write_line('%s/tls/%s' % (self.dir, setting), value)
        text = self.fit(shown(PAGE, begin))
        for old, new in {'s6-setuidgid qmaild\n': '', 'chpst -u qmaild ': '',
                         'qmail-smtpd': app, **changes}.items():
            text = text.replace(old, new)
        self.script = '%s/%s' % (self.dir, name)
        write_script(self.script, text)

    def fit(self, text):
        """The text, for this place."""
        for old, new in (('/etc/tls-chain/smtps', self.dir), ('465', str(self.port)),
                         ('mail.example.org 0 ', 'localhost 127.0.0.1 ')):
            text = text.replace(old, new)
        return text

    def daemon(self, *argv, env=()):
        return Daemon(argv, env={'PATH': PATH, **dict(env)}, cwd=self.dir)

    def connect(self):
        s = socket.create_connection(('127.0.0.1', self.port), timeout=30 * SLOW)
        close_later(s)
        return s

    def serves(self, count=2):
        for _ in range(count):
            peer = Peer(self.connect()).handshake()
            is_echoed(peer)
            is_equal(peer.end_politely(), (b'', 'close_notify'))
            peer.sock.close()


# How scripts of the page begin.
RUN_SH = '#!/bin/sh\nexec 2>&1'
RUN = '#!/usr/bin/execlineb -P\nfdmove'
SESSION = '#!/usr/bin/execlineb -P\ns6-envdir /etc'


@test('runit: the script in sh, under runsv')
def _():
    need('runsv', 'chpst', 'tcpserver')
    place = Place('run', RUN_SH)
    place.daemon('runsv', place.dir).wait_port(place.port)
    place.serves()
    subprocess.run(['sv', 'force-stop', place.dir], env={'PATH': PATH}, check=True,
                   stdout=subprocess.DEVNULL)


def units(place):
    """Writes all units of the page, for that place; their paths by name."""
    d, found = temp_dir(), {}
    for text in shown_in(PAGE):
        m = re.match(r'# /etc/systemd/system/(\S+)\n', text)
        if m:
            found[m[1]] = '%s/%s' % (d, m[1])
            write_line(found[m[1]], place.fit(text))
    return found


@test('systemd: its units are such as systemd takes')
def _():
    need('systemd-analyze')
    place = Place('session', SESSION)
    shutil.copy(place.script, place.dir + '/run')
    paths = units(place)
    is_equal(sorted(paths), ['smtps.service', 'smtps.socket', 'smtps@.service',
                             'tls-engined.service', 'tls-engined.socket'])
    os.rename(paths['smtps@.service'], paths['smtps@.service'].replace('@', '@1'))
    names = [p.replace('@', '@1') for p in paths.values()]
    p = subprocess.run(['systemd-analyze', 'verify', '--man=no', *names], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    said = [line for line in p.stdout.splitlines() if place.dir in line or 'tls' in line]
    is_equal(said, [], 'what systemd-analyze says')


def activate(place, *options, program, listen):
    need('systemd-socket-activate')
    return place.daemon('systemd-socket-activate', '-l', listen, '--inetd', *options, *program)


@test('systemd: a unit for each connection; with -w it ends when all has been delivered')
def _():
    place = Place('session', SESSION,
                  app='sh -c "head -c %d /dev/zero ; exit 3"' % BIG)
    activate(place, '--accept', program=[place.script],
             listen='127.0.0.1:%d' % place.port).wait_port(place.port)
    peer = Peer(place.connect()).handshake()
    wait_for(lambda: find_processes('tls-io'), 'tls-io to wait')
    data, how = peer.recv_all()
    is_equal((len(data), how), (BIG, 'close_notify'))
    peer.sock.close()
    wait_for(lambda: not find_processes('tls-io'), 'the end of the unit')
    # It has told the end of its session, and may take a moment for its own.
    wait_for(lambda: not [p for p in find_processes('tls-engine') if is_alive(p)],
             'the end of the engine')


@test('systemd: tls-engined takes its door as standard input')
def _():
    need('s6-envdir')
    place = Place('session', SESSION)
    door = place.dir + '/door'
    command = re.search(r'^ExecStart=/usr/bin/(s6-envdir .*)$',
                        shown(PAGE, '# /etc/systemd/system/tls-engined.service'), re.M)[1]
    command = command.replace('/etc/tls-chain/tls', place.dir + '/tls').split()
    activate(place, program=[shutil.which('s6-envdir'), *command[1:]], listen=door)
    wait_for(lambda: os.path.exists(door), 'the door')
    write_script(place.script, 'tls-handshake tls-io cat'.join(['#!/bin/sh\nexec ', '\n']))
    server = place.daemon('tcpserver', '-HRl0', '127.0.0.1', str(place.port), place.script,
                          env={'TLS_ENGINE': door})
    server.wait_port(place.port)
    place.serves()


def inetd_session():
    """They hand on a PATH of their own."""
    return Place('session', SESSION, **{'tls-io -w': 'tls-io',
                                        's6-envdir ': 'export PATH "%s"\ns6-envdir ' % PATH})


@as_root('inetd: a line of inetd.conf')
def _():
    need('inetd')
    place = inetd_session()
    line = place.fit(shown(PAGE, '465 stream')).strip()
    write_line(place.dir + '/inetd.conf', '127.0.0.1:' + line)
    place.daemon('inetd', '-i', place.dir + '/inetd.conf').wait_port(place.port)
    place.serves()


@as_root('xinetd: a file of xinetd.d')
def _():
    need('xinetd')
    place = inetd_session()
    write_line(place.dir + '/conf', place.fit(shown(PAGE, 'service smtps')).replace(
        '{\n', '{\n  bind = 127.0.0.1\n'))
    place.daemon('xinetd', '-dontfork', '-f', place.dir + '/conf', '-pidfile',
                 place.dir + '/pid').wait_port(place.port)
    place.serves()


@test('a container: with an init the limit of tcpserver holds')
def _():
    need('tini', 'unshare', 'tcpserver')
    alone = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']
    if subprocess.run([*alone, 'true'], stderr=subprocess.DEVNULL).returncode:
        raise Skip('no process may be number 1 here')
    place = Place('run', RUN, **{'tcpserver ': 'tcpserver -c 1 '})
    init, argv = re.fullmatch(r'(tini --) (\S+)\n', shown(PAGE, 'tini'))[1].split(), [place.script]
    place.daemon(*alone, *init, *argv).wait_port(place.port)
    for _ in range(3):
        place.serves(1)  # orphans come and go
    first = Peer(place.connect()).handshake()
    is_echoed(first)
    second = place.connect()
    second.settimeout(0.5)
    hello = Peer(second)
    try:
        hello.handshake()
        raise AssertionError('a second session beside the only one that may be')
    except TimeoutError:
        pass
    is_equal(first.end_politely(), (b'', 'close_notify'))
    first.sock.close()
    second.settimeout(30 * SLOW)
    hello.handshake()
    is_echoed(hello)


run()
