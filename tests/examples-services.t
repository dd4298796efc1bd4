#!/usr/bin/env python3
# ISC licence: see COPYING.
# The service directories: s6-svscan runs copies of them, real clients talk to them. s6-rc's, too.

import glob
import imaplib
import os
import poplib
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, need
from examples import EXAMPLES, SBIN, Daemon, free_port, port_is_open
from peer import plain_context
from pki import EXT, cert_hash, issue, pki
from proc import find_processes
from scratch import close_later, temp_dir
from tap import SLOW, Skip, is_equal, is_true, run, test, wait_for

HERE = '127.0.0.1'
WAIT = str(20000 * SLOW)  # ms
SERVICES = EXAMPLES + '/services'
MAIL = 'From: alice@example.org\nSubject: hi\n\nhello\n'
PROGRAMS = ['s6-svscan', 's6-svscanctl', 's6-svc', 's6-svwait', 's6-log', 's6-envdir',
            's6-setuidgid', 's6-ipcserver-socketbinder', 'execlineb', 'tcpserver']


def command(*argv, code=0, env=None):
    """Runs a program that ends by itself; its output."""
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=50 * SLOW, env=env)
    is_equal(p.returncode, code, 'exit code of %s, which says:\n%s' % (argv[0], p.stdout))
    return p.stdout


def write(path, text):
    with open(path, 'w') as f:
        f.write(text + '\n')


def script(path, text):
    write(path, text.strip('\n'))
    os.chmod(path, 0o755)


class Scan:
    """A scan directory with links to copies of examples, set up as README.md says. Their settings,
    the files in env and tls, are replaced by those of a test; nothing else is."""

    def __init__(self):
        need(*PROGRAMS)
        if os.geteuid():
            raise Skip('the services change their user, which takes root')
        self.dir = temp_dir()
        for name in 'services', 'scan', 'logs', 'bin':
            os.mkdir('%s/%s' % (self.dir, name))
        self.path = ':'.join([self.dir + '/bin', BIN, os.environ['PATH'] + SBIN])
        self.socket = self.dir + '/tls-engined.socket'
        self.ports, self.names = {}, []
        os.mkdir(self.dir + '/keys')
        command(SERVICES + '/renew', self.dir + '/keys', pki() + '/server.key',
                pki() + '/server.pem')

    def add(self, name, **settings):
        """A service of the examples; settings of its env, and of its tls where they are there."""
        d = '%s/services/%s' % (self.dir, name)
        command('cp', '-RL', '%s/%s' % (SERVICES, name), d)
        self.configure(name, d, d + '/log', settings)
        self.names.append(name)

    def configure(self, name, d, log, settings):
        logs = '%s/logs/%s' % (self.dir, name)
        os.mkdir(logs)
        shutil.chown(logs, 'nobody')
        write(log + '/env/DIR', logs)
        write(log + '/env/ACCOUNT', 'nobody')
        if os.path.exists(d + '/env/PORT'):
            self.ports[name] = free_port()
            settings = {'IP': HERE, 'PORT': self.ports[name], 'NAME': 'localhost', **settings}
        settings = {'ACCOUNT': 'nobody', 'SOCKET': self.socket, 'TLS_ENGINE': self.socket,
                    'KEYFILE': self.dir + '/keys/current/key.pem',
                    'CERTFILE': self.dir + '/keys/current/cert.pem', **settings}
        for path in glob.glob(d + '/env/*') + glob.glob(d + '/tls/*'):
            if os.path.basename(path) in settings:
                write(path, str(settings.pop(os.path.basename(path))))
        is_equal(set(settings) - {'ACCOUNT', 'SOCKET', 'TLS_ENGINE', 'KEYFILE', 'CERTFILE'}, set(),
                 'settings that %s does not have' % name)

    def start(self):
        self.scan()
        for name in self.names:
            os.symlink('%s/services/%s' % (self.dir, name), '%s/scan/%s' % (self.dir, name))
        command('s6-svscanctl', '-a', self.dir + '/scan')
        for name in self.names:
            d = '%s/scan/%s' % (self.dir, name)
            if os.path.exists(d + '/notification-fd'):
                wait_for(lambda: os.path.exists(d + '/supervise/status'), name)
                command('s6-svwait', '-U', '-t', WAIT, d)
        self.daemon.wait_port(*self.ports.values())
        return self

    def scan(self):
        env = {k: v for k, v in os.environ.items() if k.startswith(('ASAN_', 'UBSAN_'))}
        self.daemon = Daemon(['s6-svscan', self.dir + '/scan'], env={**env, 'PATH': self.path})
        wait_for(lambda: subprocess.run(['s6-svscanctl', '-a', self.dir + '/scan'],
                                        stderr=subprocess.DEVNULL).returncode == 0, 's6-svscan')

    def log(self, name):
        with open('%s/logs/%s/current' % (self.dir, name)) as f:
            return f.read()

    def wait_log(self, name, pattern):
        def found():
            try:
                return re.search(pattern, self.log(name), re.M)
            except FileNotFoundError:
                return None
        return wait_for(found, '%s in the log of %s' % (pattern, name))


def started(scan, name, more=''):
    """The service's log tells of a session."""
    scan.wait_log(name, r'tls-handshake: info: session started: TLSv1\.3 TLS_\S+' + more)


def verifying():
    return ssl.create_default_context(cafile=pki() + '/ca.pem')


def tls(port, name=HERE, cert=None):
    """A session whose server is verified; closed with the test."""
    context = verifying()
    if cert:
        context.load_cert_chain('%s/%s.pem' % (pki(), cert), '%s/%s.key' % (pki(), cert))
    s = socket.create_connection((HERE, port), timeout=30 * SLOW)
    close_later(s)
    s = context.wrap_socket(s, server_hostname=name)
    close_later(s)
    return s


def say(s, what):
    """Says it, and ends; the answer to its end."""
    with s:
        s.sendall(what)
        return read_to_end(s)


def get(port, name=HERE):
    """The page of a web server by HTTPS, verified."""
    answer = say(tls(port, name), b'GET / HTTP/1.0\r\n\r\n')
    is_true(re.match(rb'HTTP/1\.. 200 ', answer), answer)
    return answer.partition(b'\r\n\r\n')[2]


def read_to_end(s):
    got = b''
    while True:
        more = s.recv(65536)
        if not more:
            return got
        got += more


def web_root(scan):
    os.mkdir(scan.dir + '/www')
    write(scan.dir + '/www/index.html', 'a page')
    return scan.dir + '/www'


def starttls(scan, name):
    """Sends a mail by STARTTLS, the server verified."""
    with smtplib.SMTP(HERE, scan.ports[name], timeout=30 * SLOW) as client:
        client.ehlo()
        is_true(client.has_extn('starttls'), 'STARTTLS is offered')
        client.starttls(context=verifying())
        client.ehlo()
        is_true(not client.has_extn('starttls'), 'STARTTLS is not offered again')
        is_equal(client.sendmail('alice@example.org', ['bob@example.org'], MAIL), {})
    started(scan, name)


@test('smtp-mailfront: smtplib sends a mail by STARTTLS')
def _():
    need('smtpfront-echo')
    scan = Scan()
    scan.add('smtp-mailfront', SMTPD='smtpfront-echo starttls-ucspi accept')
    scan.start()
    starttls(scan, 'smtp-mailfront')


# Servers that Debian does not have are played, by programs that talk to TLS as these do.

# An SMTP server. With UCSPITLS, as qmail-smtpd with Scott Gifford's patch: Y on SSLCTLFD, the reply
# read to its end, the new descriptors put on 0 and 1, all that was said before forgotten.
QMAIL_SMTPD = r'''
#!/usr/bin/perl
use strict;
my ($helo, $data);
sub line { my ($l, $c) = (''); while (sysread STDIN, $c, 1) { $l .= $c; last if $c eq "\n" } $l }
sub say { syswrite STDOUT, "$_[0]\r\n" }
say '220 localhost ESMTP';
while (my $l = line) {
  if ($l =~ /^ehlo/i) {
    $helo = 1;
    say '250-localhost';
    say '250-STARTTLS' if exists $ENV{UCSPITLS};
    say '250 PIPELINING';
  } elsif ($l =~ /^starttls/i && exists $ENV{UCSPITLS}) {
    say '220 ready';
    open my $ctl, '+<&=', $ENV{SSLCTLFD} or die;
    syswrite $ctl, 'Y' or die;
    my $reply = '';
    while (sysread $ctl, $reply, 4096, length $reply) { }
    $reply =~ /^SSL_PROTOCOL=.*\0\0$/s or die 'no reply';
    open STDIN, '<&=', $ENV{SSLREADFD} or die;
    open STDOUT, '>&=', $ENV{SSLWRITEFD} or die;
    delete $ENV{UCSPITLS};
    undef $helo;
  } elsif ($l =~ /^data/i) {
    say '354 go ahead';
    1 while line !~ /^\.\r?\n/;
    say '250 taken';
  } elsif ($l =~ /^quit/i) { say '221 bye'; exit }
  elsif (!$helo) { say '503 EHLO first' }
  else { say '250 ok' }
}
'''

# smtpd-starttls-proxy-io, less what SMTP clients may do wrong: the server is its parent, on pipes;
# it adds STARTTLS to the reply to EHLO; asks for TLS with Y, reads the reply to its end; then bytes
# only, by s6-ioconnect.
PROXY = r'''
#!/usr/bin/perl
use strict;
defined $ENV{$_} or exit 100 for qw(SSLCTLFD SSLREADFD SSLWRITEFD);
$^F = 20;
pipe my $sr, my $pw or die;
pipe my $pr, my $sw or die;
if (fork) {
  open STDIN, '<&', $sr or die;
  open STDOUT, '>&', $sw or die;
  close $_ for $sr, $sw, $pr, $pw;
  require POSIX;
  POSIX::close($ENV{$_}) for qw(SSLCTLFD SSLREADFD SSLWRITEFD);
  exec @ARGV;
  exit 127;
}
close $sr; close $sw;
sub line {
  my ($l, $c) = ('');
  while (sysread $_[0], $c, 1) { $l .= $c; last if $c eq "\n" }
  length $l or exit;
  $l
}
syswrite STDOUT, line $pr;
while (1) {
  my $l = line \*STDIN;
  if ($l =~ /^ehlo/i) {
    syswrite $pw, $l;
    my $answer = line $pr;
    syswrite STDOUT, $answer =~ s/^250 /250-/r;
    while ($answer =~ /^250-/) { $answer = line $pr; syswrite STDOUT, $answer =~ s/^250 /250-/r }
    syswrite STDOUT, "250 STARTTLS\r\n";
    next;
  } elsif ($l =~ /^starttls/i) {
    syswrite STDOUT, "220 Ready to start TLS\r\n";
    open my $ctl, '+<&=', $ENV{SSLCTLFD} or die;
    syswrite $ctl, 'Y';
    my $reply = '';
    while (sysread $ctl, $reply, 4096, length $reply) { }
    length $reply or exit 97;
    require POSIX;
    POSIX::dup2($ENV{SSLREADFD}, 0);
    POSIX::dup2($ENV{SSLWRITEFD}, 1);
    POSIX::close($ENV{$_}) for qw(SSLREADFD SSLWRITEFD);
  } else { syswrite $pw, $l; next unless $l =~ /^(mail|helo)/i }
  exec 's6-ioconnect', '-r', fileno $pr, '-w', fileno $pw;
}
'''


def with_smtpd(scan):
    need('perl')
    script(scan.dir + '/bin/qmail-smtpd', QMAIL_SMTPD)
    return scan.dir + '/bin/qmail-smtpd'


@test('smtp-qmail: smtplib sends a mail by STARTTLS (qmail-smtpd is played)')
def _():
    scan = Scan()
    scan.add('smtp-qmail', SMTPD=with_smtpd(scan))
    scan.start()
    starttls(scan, 'smtp-qmail')


@test('smtp-proxy: smtplib sends a mail by STARTTLS to a server that knows nothing of it')
def _():
    scan = Scan()
    scan.add('smtp-proxy', SMTPD=with_smtpd(scan))
    if not shutil.which('smtpd-starttls-proxy-io'):
        need('s6-ioconnect')
        script(scan.dir + '/bin/smtpd-starttls-proxy-io', PROXY)
    scan.start()
    starttls(scan, 'smtp-proxy')


def mailbox(scan):
    """Alice's mailbox, with a mail in it; the file with her password."""
    need('cvm-pwfile')
    for name in 'cur', 'new', 'tmp':
        os.makedirs('%s/home/Maildir/%s' % (scan.dir, name))
    write(scan.dir + '/home/Maildir/new/1.2.x', MAIL)
    command('chown', '-R', 'mail:mail', scan.dir + '/home')
    uid, gid = (command('id', option, 'mail').strip() for option in ('-u', '-g'))
    write(scan.dir + '/users', 'alice:secret:%s:%s::%s/home:/' % (uid, gid, scan.dir))
    cvm = scan.dir + '/bin/cvm'
    script(cvm, '#!/bin/sh\nCVM_PWFILE_PATH=%s/users exec cvm-pwfile' % scan.dir)
    return cvm


@test('imaps: imaplib logs in and reads a mail, and does not get in with a wrong password')
def _():
    need('imapfront-auth')
    if not os.path.exists('/usr/lib/dovecot/imap'):
        raise Skip('/usr/lib/dovecot/imap is not installed')
    scan = Scan()
    scan.add('imaps', CVM_SASL_PLAIN=mailbox(scan), MAIL='maildir:~/Maildir')
    scan.start()
    with imaplib.IMAP4_SSL(HERE, scan.ports['imaps'], ssl_context=verifying(),
                           timeout=30 * SLOW) as client:
        try:
            client.login('alice', 'wrong')
            is_true(False, 'a wrong password is refused')
        except imaplib.IMAP4.error:
            pass
        client.login('alice', 'secret')
        is_equal(client.select(), ('OK', [b'1']))
        is_true(client.fetch('1', '(BODY.PEEK[TEXT])')[1][0][1].startswith(b'hello'), 'the mail')
    started(scan, 'imaps')


@test('pop3s: poplib logs in and reads a mail, and does not get in with a wrong password')
def _():
    need('pop3front-auth')
    scan = Scan()
    scan.add('pop3s', CVM=mailbox(scan))
    scan.start()
    for password, wanted in ('wrong', False), ('secret', True):
        client = poplib.POP3_SSL(HERE, scan.ports['pop3s'], context=verifying(),
                                 timeout=30 * SLOW)
        client.user('alice')
        try:
            client.pass_(password)
            is_true(wanted, 'a wrong password is refused')
            is_true(b'hello' in client.retr(1)[1], 'the mail')
            client.quit()
        except poplib.error_proto:
            is_true(not wanted, 'the right password is taken')
            client.close()
    started(scan, 'pop3s')


@test('admin: who is admitted comes to the console; who is not, or shows nothing, does not')
def _():
    scan = Scan()
    os.mkdir(scan.dir + '/admitted')
    admitted = '%s/admitted/%s' % (scan.dir, cert_hash('client'))
    write(admitted, '')
    scan.add('admin', CAFILE=pki() + '/ca.pem', ADMITTED=scan.dir + '/admitted')
    scan.start()
    port = scan.ports['admin']

    def hello(cert):
        try:
            return say(tls(port, cert=cert), b'quit\n')
        except (ssl.SSLError, ConnectionError):
            return b''

    is_equal(hello('client'), b'hello /CN=client\n')
    is_equal(hello('client2'), b'')
    scan.wait_log('admin', 'admit-clients: fatal: client not admitted: ' + cert_hash('client2'))
    is_equal(hello(None), b'')
    scan.wait_log('admin', 'tls-handshake: fatal: unable to start TLS: ')
    os.unlink(admitted)
    is_equal(hello('client'), b'')


@test('two-names: each name has its certificate and its service; other names are refused')
def _():
    need('busybox', 'smtpfront-echo')
    scan = Scan()
    settings = {}
    for name in 'www.example.org', 'mail.example.org':
        issue(pki(), name, 'subjectAltName=DNS:' + name)
        settings['KEYFILE:' + name] = '%s/%s.key' % (pki(), name)
        settings['CERTFILE:' + name] = '%s/%s.pem' % (pki(), name)
    scan.add('two-names', ROOT=web_root(scan), SMTPD='smtpfront-echo accept', **settings)
    scan.start()
    port = scan.ports['two-names']
    is_equal(get(port, 'www.example.org'), b'a page\n')
    is_equal(say(tls(port, 'mail.example.org'), b'QUIT\r\n'),
             b'220 localhost mailfront ESMTP\r\n221 2.0.0 Good bye.\r\n')
    started(scan, 'two-names', ', server name mail.example.org$')
    context = plain_context()
    for name in 'example.org', None:
        with socket.create_connection((HERE, port), timeout=30 * SLOW) as s:
            try:
                with context.wrap_socket(s, server_hostname=name) as s:
                    is_equal(s.recv(1), b'')
            except (ssl.SSLError, ConnectionError):
                pass


# The resident engine

def resident_services():
    need('busybox', 'smtpfront-echo')
    scan = Scan()
    scan.add('tls-engined')
    scan.add('smtps', SMTPD='smtpfront-echo accept')
    scan.add('https', ROOT=web_root(scan))
    return scan.start()


def serial_of(scan, name='https'):
    """The serial number of the certificate that a service shows."""
    with tls(scan.ports[name]) as s:
        return s.getpeercert()['serialNumber']


def send_by_smtps(scan):
    with smtplib.SMTP_SSL(HERE, scan.ports['smtps'], context=verifying(),
                          timeout=30 * SLOW) as client:
        is_equal(client.sendmail('alice@example.org', ['bob@example.org'], MAIL), {})
    started(scan, 'smtps')


@test('smtps and https, by the resident engine: smtplib sends a mail, curl fetches a page')
def _():
    scan = resident_services()
    send_by_smtps(scan)
    is_equal(get(scan.ports['https']), b'a page\n')
    need('curl')
    url = 'https://%s:%d/' % (HERE, scan.ports['https'])
    env = {k: v for k, v in os.environ.items() if 'proxy' not in k.lower()}
    is_equal(command('curl', '-sS', '--cacert', pki() + '/ca.pem', url, env=env), 'a page\n')
    # The services hold no key, and neither does their engine hold root.
    is_equal(os.listdir(scan.dir + '/scan/https/tls'), ['TLS_ENGINE'])
    uids = set()
    for pid in find_processes('tls-engined'):
        with open('/proc/%d/status' % pid) as f:
            uids.add(int(re.search(r'^Uid:\s+(\d+)', f.read(), re.M)[1]))
    is_equal(uids, {0, 65534}, 'the keeper, who reads the files, and the worker')


@test('renew: new sessions get the new certificate, one that is open goes on, a bad one is not put')
def _():
    scan = resident_services()
    engined = scan.dir + '/scan/tls-engined'
    renew = [SERVICES + '/renew', scan.dir + '/keys']
    first, link = serial_of(scan), os.readlink(scan.dir + '/keys/current')
    held = smtplib.SMTP_SSL(HERE, scan.ports['smtps'], context=verifying(), timeout=30 * SLOW)
    issue(pki(), 'renewed', EXT['server'])
    out = command(*renew, pki() + '/renewed.key', pki() + '/renewed.pem', engined)
    is_true(re.fullmatch(r'\S+/keys/current is now \S+, and was %s\n' % link, out), out)
    wait_for(lambda: serial_of(scan) != first, 'the new certificate')
    second = serial_of(scan)
    is_equal(held.noop()[0], 250, 'what a session of before says')
    held.quit()

    # A certificate of another key, and one that is over: nothing changes, by renew or otherwise.
    issue(pki(), 'over', EXT['server'], days='0')
    current = os.readlink(scan.dir + '/keys/current')
    for key, cert, why in ('server', 'renewed', 'is not a certificate of'), \
                          ('over', 'over', 'is no certificate, or over'):
        pair = '%s/%s.key' % (pki(), key), '%s/%s.pem' % (pki(), cert)
        out = command(*renew, *pair, engined, code=1)
        is_true(re.search(r'^renew: fatal: .*%s' % why, out, re.M), out)
    is_equal(os.readlink(scan.dir + '/keys/current'), current)
    write('%s/keys/%s/cert.pem' % (scan.dir, current), 'nonsense')
    command('s6-svc', '-h', engined)
    scan.wait_log('tls-engined', 'new settings not loaded: going on with the old ones$')
    is_equal(serial_of(scan), second)


@test('a service, its logger and the engine are killed or restarted, and serve again')
def _():
    scan = resident_services()
    is_equal(get(scan.ports['https']), b'a page\n')
    for name in 'https', 'https/log', 'tls-engined':
        d = '%s/scan/%s' % (scan.dir, name)
        pid = command('s6-svstat', '-o', 'pid', d)
        command('s6-svc', '-k' if name == 'tls-engined' else '-r', d)
        wait_for(lambda: command('s6-svstat', '-o', 'pid', d) not in (pid, '-1\n'), 'a new ' + name)
        if name == 'tls-engined':
            wait_for(lambda: command('s6-svstat', '-o', 'ready', d) == 'true\n', 'an engine')
        wait_for(lambda: port_is_open(scan.ports['https']), 'a server')
        is_equal(get(scan.ports['https']), b'a page\n')


# The definitions for s6-rc

class Rc(Scan):
    """The definitions, compiled, and brought up in a scan directory."""

    def __init__(self):
        need('s6-rc-compile')
        super().__init__()
        source = self.dir + '/source'
        command('cp', '-RL', EXAMPLES + '/s6-rc', source)
        web_root(self)
        for name in 'tls-engined', 'smtp', 'smtps', 'https':
            settings = {}
            if name == 'https':
                settings['ROOT'] = self.dir + '/www'
            if name.startswith('smtp'):
                settings['SMTPD'] = 'smtpfront-echo accept' + ' starttls-ucspi' * (name == 'smtp')
            d = '%s/%s' % (source, name)
            self.configure(name, d, d + '-log', settings)
        command('s6-rc-compile', self.dir + '/compiled', source)

    def start(self):
        self.scan()
        self.live = self.dir + '/live'
        command('s6-rc-init', '-c', self.dir + '/compiled', '-l', self.live, self.dir + '/scan')
        self.change('-u')
        self.daemon.wait_port(*self.ports.values())
        return self

    def change(self, direction):
        command('s6-rc', '-l', self.live, '-t', WAIT, direction, 'change', 'tls-services')


@test('s6-rc-compile takes the definitions; all services depend on the engine')
def _():
    need('s6-rc-compile')
    compiled = temp_dir() + '/compiled'
    command('s6-rc-compile', compiled, EXAMPLES + '/s6-rc')
    for name in 'smtp', 'smtps', 'https':
        needs = command('s6-rc-db', '-c', compiled, 'all-dependencies', name).split()
        is_true('tls-engined' in needs, '%s depends on %r' % (name, needs))


@test('s6-rc brings them up, engine first, and real clients talk to each')
def _():
    need('smtpfront-echo', 'busybox')
    scan = Rc().start()
    starttls(scan, 'smtp')
    send_by_smtps(scan)
    is_equal(get(scan.ports['https']), b'a page\n')
    command('s6-rc', '-l', scan.live, '-t', WAIT, '-d', 'change', 'tls-engined')
    is_true(not any(map(port_is_open, scan.ports.values())), 'without the engine none is up')


@test('the services of README.md are those that there are')
def _():
    with open(EXAMPLES + '/README.md') as f:
        text = f.read()
    for kind in 'services', 's6-rc':
        there = {os.path.basename(d.rstrip('/')) for d in glob.glob('%s/%s/*/' % (EXAMPLES, kind))}
        told = set(re.findall(r'\]\(%s/([\w-]+)/?\)' % kind, text)) - {'logger', 'renew'}
        is_equal(told, {d for d in there if not d.endswith('-log')}, kind)


# What the run scripts have in common is the same in all, and each says what it is.

@test('every run script begins alike')
def _():
    for path in sorted(glob.glob(EXAMPLES + '/s*/*/run')):
        with open(path) as f:
            lines = f.read().splitlines()
        if path.split('/')[-2].endswith('-log'):
            continue
        is_equal(lines[0], '#!/usr/bin/env -S execlineb -P', path)
        is_true(lines[1].startswith('# '), path + ' says what it is')
        is_true(all(len(line) <= 100 for line in lines), path + ' has no line over 100 columns')


run()
