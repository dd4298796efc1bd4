#!/usr/bin/env python3
# ISC licence: see COPYING.
# The pages for those who come from other programs: every chain and every script in them runs, and
# does what the other program does, where that is installed.

import grp
import os
import pwd
import re
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, TOP, Chain, need
from examples import EXAMPLES, Talk, free_port, port_is_open
from peer import Peer
from pki import pki, server_env
from scratch import close_later, temp_dir
from sockets import tcp_pair
from tap import SLOW, Skip, diag, is_equal, is_true, run, test, wait_for

MAN = os.path.join(TOP, 'doc', 'man')
PAGES = sorted(name for name in os.listdir(MAN) if name.startswith('tls-from-'))
HERE = '127.0.0.1'


def page(name):
    with open(os.path.join(MAN, name), encoding='utf-8') as f:
        return f.read()


def blocks(name):
    """What the page shows literally."""
    shown = re.findall(r'^\.Bd -literal.*?\n(.*?)^\.Ed', page(name), re.M | re.S)
    return [s.replace('\\e', '\\').replace('\\&', '') for s in shown]


def chains(name):
    """Each chain of the page, under the comment that names the other program."""
    shown = [s[2:].split('\n', 1) for s in blocks(name) if s.startswith('# ')]
    return {theirs: chain for theirs, chain in shown}


def run_script(name):
    """The page's complete run script: before, after."""
    before, after = [s for s in blocks(name) if not s.startswith('# ')]
    return before, after


# Applications. They say their name, then send back what they get; a client says it all to stderr.

SERVER = '''#!/bin/sh
echo "I am ${0##*/}"
exec cat
'''

CLIENT = '''#!/bin/sh
echo "I am ${0##*/}" >&7
read -r line <&6
echo "got $line"
'''

UCSPI_TLS = '''#!/usr/bin/perl
open my $ctl, '+<&=', $ENV{SSLCTLFD} or die;
syswrite $ctl, 'Y';
my $reply = '';
1 while $reply !~ /\\0\\0$/ && sysread $ctl, $reply, 4096, length $reply;
$reply =~ /^SSL_PROTOCOL=/ or die 'no reply';
open my $in, '<&=', $ENV{SSLREADFD} or die;
open my $out, '>&=', $ENV{SSLWRITEFD} or die;
my ($name) = $0 =~ m,([^/]*)$,;
syswrite $out, "I am $name\\n";
'''

DELAYED = UCSPI_TLS + '''
while (sysread $in, my $bytes, 4096) { syswrite $out, $bytes }
'''

DELAYED_CLIENT = UCSPI_TLS + '''
my $line = <$in>;
print "got $line";
'''


def is_delayed(text):
    return bool(re.search('tls-ctl-open|s6-ucspitls|sslserver -n', text))


def install(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o755)


def contents(*names):
    text = ''
    for name in names:
        with open('%s/%s' % (pki(), name)) as f:
            text += f.read()
    return text


class Room:
    """A directory that has what the scripts want, and their addresses, paths and users replaced by
    what there is."""

    def __init__(self, text, client=False):
        need('execlineb', 's6-envdir', 's6-setuidgid', 'tcpserver', 'tcpclient')
        if os.geteuid():
            raise Skip('the scripts change their user, which takes root')
        self.dir = d = temp_dir()
        nobody = pwd.getpwnam('nobody')
        group = grp.getgrgid(nobody.pw_gid).gr_name
        self.listen, self.connect = free_port(), None
        for file, names in {'ssl/www.pem': ['server.key', 'server.pem'], 'ssl/ca.pem': ['ca.pem'],
                            'ssl/www.key': ['server.key']}.items():
            install('%s/%s' % (d, file), contents(*names))
        settings = server_env(CAFILE=pki() + '/ca.pem')
        for key, value in settings.items():
            install('%s/tls/%s' % (d, key), value + '\n')
        own = re.search('s6-envdir|export', text)  # settings of its own, which have to do
        self.env = {} if own else settings
        os.symlink(EXAMPLES + '/starttls', d + '/starttls')
        install(d + '/tcp.smtp', ':allow\n')
        subprocess.run('tcprules tcp.smtp.cdb tmp < tcp.smtp', shell=True, cwd=d, check=True)
        if re.search(r'^(tcpclient|s6-tlsclient)|tlswrapper-tcp|connect =', text, re.M):
            self.listener = socket.create_server((HERE, 0))
            self.listener.settimeout(20 * SLOW)
            close_later(self.listener)
            self.connect = self.listener.getsockname()[1]
        app = (CLIENT, SERVER, DELAYED_CLIENT, DELAYED)[2 * is_delayed(text) + (not client)]
        for name in 'prog', 'httpd', 'qmail-smtpd', 'smtpd-starttls-proxy-io':
            install('%s/bin/%s' % (d, name), app)
        for old, new in [
                (r'((?:tcpserver|s6-tlsserver|sslserver)(?: .*?)? )(0|[\d.]{7,}) \d+',
                 r'\g<1>%s %d' % (HERE, self.listen)),
                (r'((?:tcpclient|s6-tlsclient|tlswrapper-tcp) (?:.*? )?)(example.org|127\S+) \d+',
                 r'\g<1>%s %s' % (HERE, self.connect)),
                (r'(accept = )\S+:\d+', r'\g<1>%s:%d' % (HERE, self.listen)),
                (r'(connect = )\S+:\d+', r'\g<1>%s:%s' % (HERE, self.connect)),
                ('/etc/ssl/', d + '/ssl/'), ('/etc/(?=tcp.smtp)', d + '/'),
                ('/usr/bin/(?=httpd)', d + '/bin/'), (r'(?<=setgid = )\S+', group),
                (r'(uidgid |-u |setuid = )[a-z-]+', r'\g<1>nobody'),
                (r'^#!.*\n', ''), (r'(prog|smtpd)\.\.\.', r'prog')]:
            text = re.sub(old, new, text, flags=re.M)
        self.text = text

    def start(self, net=None, client=False):
        argv = ['execlineb', '-Pc', self.text]
        if self.text.startswith('foreground = yes'):
            install(self.dir + '/conf', self.text)
            argv = ['stunnel4', self.dir + '/conf']
        path = ':'.join([self.dir + '/bin', BIN, os.environ['PATH']])
        return Chain(argv, net, env=self.env, client=client, path=path,
                     preexec=lambda: os.chdir(self.dir))

    def call(self):
        """A connection to the port on which the script listens."""
        wait_for(lambda: port_is_open(self.listen), 'a server')
        sock = socket.create_connection((HERE, self.listen), timeout=30 * SLOW)
        close_later(sock)
        return sock

    def accept(self):
        """The connection that the script makes."""
        sock, _ = self.listener.accept()
        sock.settimeout(30 * SLOW)
        close_later(sock)
        return sock


def serves(text, name, cert=None):
    """A client of TLS hears the application's name, and itself."""
    room = Room(text)
    if re.search('tcpserver|s6-tlsserver|sslserver|accept =', text):
        chain, net = room.start(), room.call()
    else:
        net, server = tcp_pair()
        chain = room.start(server)
    peer = Peer(net, cert=cert).handshake()
    peer.send(b'hello\n')
    wanted = b'I am %s\nhello\n' % name.encode()
    is_equal(peer.recv(len(wanted)), wanted, 'heard from\n%s' % room.text)
    try:
        peer.end_politely()
    except OSError:
        peer.end = 'reset'  # not ours
    return peer.end


def refuses(text):
    """A client without a certificate hears nothing."""
    net, server = tcp_pair()
    Room(text).start(server)
    try:
        is_equal(Peer(net).handshake().recv(1), b'')
    except (ssl.SSLError, ConnectionError):
        pass
    net.close()


def asks(text):
    """A client of ours, or theirs, talks to a server that it verifies."""
    room = Room(text, client=True)
    if room.connect:
        chain = room.start(client=True)
        net = room.accept()
    else:
        net, client = tcp_pair()
        chain = room.start(client, client=True)
    peer = Peer(net, client=False, cert='server').handshake()
    is_equal(peer.recv(10), b'I am prog\n', 'heard from\n%s' % room.text)
    peer.send(b'hello\n')
    is_equal(chain.wait(), 0, 'exit code')
    net.close()
    is_true('got hello\n' in chain.stderr(), chain.stderr())


# What others run that might not come with them.
PARTS = {'s6-tlsclient': ['s6-tcpclient'], 's6-tlsserver': ['s6-tcpserver']}


def is_there(program):
    """Whether one of the others can be run."""
    try:
        need(program, *PARTS.get(program, []))
        return True
    except Skip:
        diag('not installed, so not compared: ' + program)
        return False


def program_of(text):
    """The other program that a script of theirs runs."""
    return re.search(r'^(s6-(?!env|setuid)[\w-]+|sslserver|sslclient|tlswrapper)', text, re.M)[1]


def scenario(text, cert=None):
    first = program_of(text) if re.match('s6-|ssl|tlswrapper', text) else text
    if re.search(r'tlsc|tls-handshake -c|tlsclient|sslclient|ucspitlsc', first):
        asks(text)
    else:
        serves(text, 'smtpd-starttls-proxy-io' if 'proxy-io' in text else 'prog', cert)


def compare(name, theirs, chain):
    @test('%s: %s' % (name, theirs))
    def _():
        cert = 'client' if ' -a ' in theirs else None
        scenario(chain, cert)
        if cert:
            refuses(chain)
        if is_there(program_of(theirs)) and '-smtp' not in theirs:
            scenario(theirs, cert)


# stunnel's services are tunnels: what goes in at one end comes out at the other.

def both_ways(one, other):
    one.sendall(b'from one')
    is_equal(other.recv(8), b'from one')
    other.sendall(b'from other')
    is_equal(one.recv(10), b'from other')


class Tls:
    """A Peer in the manner of a socket."""

    def __init__(self, sock, **settings):
        self.peer = Peer(sock, **settings).handshake()
        self.sendall, self.recv = self.peer.send, self.peer.recv


def tunnel(theirs, text):
    listening = 'tcpserver' in text or 'accept' in text
    room = Room(text if listening else 'tcpserver -HRl0 0.0.0.0 443\n' + text)
    room.start()
    outside = room.call()
    if 'client = yes' not in theirs:
        outside = Tls(outside)
        return both_ways(outside, room.accept())
    inside = room.accept()
    if 'protocol = smtp' in theirs:
        talk = Talk(inside)
        talk.say('220 hi\r\n')
        talk.hear(r'EHLO \S+')
        talk.say('250 STARTTLS\r\n')
        talk.hear('STARTTLS')
        talk.say('220 go ahead\r\n')
    both_ways(outside, Tls(inside, client=False, cert='server'))


def stunnel_conf(theirs):
    return '\n'.join(['foreground = yes', 'pid =', '[service]', *theirs.split(', '),
                      'cert = /etc/ssl/www.pem', ''])


def compare_tunnel(name, theirs, chain):
    @test('%s: %s' % (name, theirs))
    def _():
        need('s6-ioconnect')
        tunnel(theirs, chain)
        if 'stunnel' not in name:
            if is_there(program_of(theirs)):
                tunnel(theirs, theirs)
        elif is_there('stunnel4') and 'protocol' not in theirs:
            tunnel(theirs, stunnel_conf(theirs))


for name in PAGES:
    for theirs, chain in chains(name).items():
        if 'stunnel' in name or 'tlswrapper-tcp' in theirs:
            compare_tunnel(name, theirs, chain)
        else:
            compare(name, theirs, chain)


def compare_scripts(name):
    @test('%s: the run script, before and after' % name)
    def _():
        before, after = run_script(name)
        app = after.split()[-1].split('/')[-1]
        is_equal(serves(after, app), 'close_notify')
        if is_there('stunnel4' if 'stunnel' in name else program_of(before)):
            serves(before, app)


for name in PAGES:
    compare_scripts(name)


@test('every program of the TLS half of s6-networking has its chain')
def _():
    is_equal([theirs.split()[0] for theirs in chains('tls-from-s6-networking.7')],
             ['s6-tlsd', 's6-tlsc', 's6-ucspitlsd', 's6-ucspitlsc', 's6-tlsserver',
              's6-tlsclient'])


@test('every option of ours in a table is one that the program has')
def _():
    found = 0
    for name in PAGES:
        for row in re.findall(r'^\.It .* Ta (.*)$', page(name), re.M):
            for program, options in re.findall(r'(tls-(?:handshake|io|ctl-open))([^;,]*)', row):
                has = set(re.findall(r'^\.It Fl (\w)', page(program + '.1'), re.M))
                for option in re.findall(r'(?:Fl | -)(\w)\b', options):
                    found += 1
                    is_true(option in has, '%s: %s -%s' % (name, program, option))
    is_true(found > 40, 'options found: %d' % found)


run()
