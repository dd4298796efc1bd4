# ISC licence: see COPYING.
"""The service directories of the examples in a scan directory of the test's, and their clients."""

import glob
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess

from chain import BIN, need, without_pid
from examples import EXAMPLES, SBIN, Daemon, free_port
from pki import pki
from scratch import close_later, temp_dir
from sockets import read_to_end
from tap import SLOW, Skip, is_equal, is_true, wait_for

LOOPBACK = '127.0.0.1'
SERVICE_WAIT = str(20000 * SLOW)  # ms
SERVICES = EXAMPLES + '/services'
SERVICE_MAIL = 'From: alice@example.org\nSubject: hi\n\nhello\n'
SERVICE_PROGRAMS = ['s6-svscan', 's6-svscanctl', 's6-svc', 's6-svwait', 's6-log', 's6-envdir',
                    's6-setuidgid', 's6-ipcserver-socketbinder', 'execlineb', 'tcpserver']


# The services

def run_command(*argv, code=0, env=None):
    """Runs a program that ends by itself; its output."""
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=50 * SLOW, env=env)
    is_equal(p.returncode, code, 'exit code of %s, which says:\n%s' % (argv[0], p.stdout))
    return p.stdout


def write_line(path, text):
    with open(path, 'w') as f:
        f.write(text + '\n')


def write_script(path, text):
    write_line(path, text.strip('\n'))
    os.chmod(path, 0o755)


def account_of(d):
    """As whom a service or its logger runs; None if it does not say."""
    try:
        with open(d + '/env/ACCOUNT') as f:
            return f.read().strip()
    except FileNotFoundError:
        return None


class Scan:
    """A scan directory with links to copies of examples, set up as README.md says. Their settings,
    the files in env and tls, are replaced by those of a test; nothing else is."""

    def __init__(self):
        need(*SERVICE_PROGRAMS)
        if os.geteuid():
            raise Skip('the services change their user, which takes root')
        self.dir = temp_dir()
        for name in 'services', 'scan', 'logs', 'bin':
            os.mkdir('%s/%s' % (self.dir, name))
        self.path = ':'.join([self.dir + '/bin', BIN, os.environ['PATH'] + SBIN])
        self.socket = self.dir + '/tls-engined.socket'
        self.ports, self.names = {}, []
        os.mkdir(self.dir + '/keys')
        run_command(SERVICES + '/renew', self.dir + '/keys', pki() + '/server.key',
                    pki() + '/server.pem')

    def add(self, name, **settings):
        """A service of the examples; settings of its env, and of its tls where they are there."""
        d = '%s/services/%s' % (self.dir, name)
        run_command('cp', '-RL', '%s/%s' % (SERVICES, name), d)
        self.configure(name, d, d + '/log', settings)
        self.names.append(name)

    def configure(self, name, d, log, settings):
        logs = '%s/logs/%s' % (self.dir, name)
        os.mkdir(logs)
        shutil.chown(logs, account_of(log))
        write_line(log + '/env/DIR', logs)
        if os.path.exists(d + '/env/PORT'):
            self.ports[name] = free_port()
            settings = {'IP': LOOPBACK, 'PORT': self.ports[name], 'NAME': 'localhost', **settings}
        if account_of(d) == 'qmaild':  # which Debian does not have
            settings = {'ACCOUNT': 'mail', **settings}
        settings = {'ACCOUNT': account_of(d), 'SOCKET': self.socket, 'TLS_ENGINE': self.socket,
                    'KEYFILE': self.dir + '/keys/current/key.pem',
                    'CERTFILE': self.dir + '/keys/current/cert.pem', **settings}
        for path in glob.glob(d + '/env/*') + glob.glob(d + '/tls/*'):
            if os.path.basename(path) in settings:
                write_line(path, str(settings.pop(os.path.basename(path))))
        is_equal(set(settings) - {'ACCOUNT', 'SOCKET', 'TLS_ENGINE', 'KEYFILE', 'CERTFILE'}, set(),
                 'settings that %s does not have' % name)

    def start(self):
        self.scan()
        for name in self.names:
            os.symlink('%s/services/%s' % (self.dir, name), '%s/scan/%s' % (self.dir, name))
        run_command('s6-svscanctl', '-a', self.dir + '/scan')
        for name in self.names:
            d = '%s/scan/%s' % (self.dir, name)
            if os.path.exists(d + '/notification-fd'):
                wait_for(lambda: os.path.exists(d + '/supervise/status'), name)
                run_command('s6-svwait', '-U', '-t', SERVICE_WAIT, d)
        self.daemon.wait_port(*self.ports.values())
        return self

    def scan(self):
        self.daemon = Daemon(['s6-svscan', self.dir + '/scan'], env={'PATH': self.path})
        wait_for(lambda: subprocess.run(['s6-svscanctl', '-a', self.dir + '/scan'],
                                        stderr=subprocess.DEVNULL).returncode == 0, 's6-svscan')

    def log(self, name):
        with open('%s/logs/%s/current' % (self.dir, name)) as f:
            return without_pid(f.read())

    def wait_log(self, name, pattern):
        def found():
            try:
                return re.search(pattern, self.log(name), re.M)
            except FileNotFoundError:
                return None
        return wait_for(found, '%s in the log of %s' % (pattern, name))


def is_started(scan, name, more=''):
    """The service's log tells of a session."""
    scan.wait_log(name, r'tls-handshake: info: session started: TLSv1\.3 TLS_\S+' + more)


def web_root(scan):
    os.mkdir(scan.dir + '/www')
    write_line(scan.dir + '/www/index.html', 'a page')
    return scan.dir + '/www'


# SMTP servers for them, in Perl

# They read all that is there, as C programs do. check runs the arguments, which are a program like
# checkpassword and more, with what AUTH PLAIN tells on descriptor 3; its exit code.
SMTP_SERVER = r'''
#!/usr/bin/perl
use strict;
use MIME::Base64;
use POSIX ();
$^F = 20;
my $in = '';
sub line {
  while ($in !~ /\n/) { sysread STDIN, $in, 1024, length $in or exit 1 }
  $in =~ s/^(.*\n)//;
  return "$1";
}
sub say { syswrite STDOUT, "$_[0]\r\n" }
sub check {
  my ($user, $password) = (split /\0/, decode_base64($_[0]))[1, 2];
  pipe my $r, my $w or die;
  if (!fork) {
    POSIX::dup2(fileno $r, 3);
    POSIX::close(fileno $w) if fileno $w != 3;
    $ENV{AUTHUP_USER} = $user;
    exec @ARGV;
    exit 111;
  }
  close $r;
  syswrite $w, "$user\0$password\0\0";
  close $w;
  wait;
  return $? >> 8;
}
'''

# With UCSPITLS, as qmail-smtpd with Scott Gifford's patch: Y on SSLCTLFD, the reply read to its
# end, the new descriptors put on 0 and 1; what it has read by then it obeys afterwards. With
# arguments, as one with a patch for AUTH.
QMAIL_SMTPD = SMTP_SERVER + r'''
my $user;
say '220 localhost ESMTP';
while (1) {
  my $l = line;
  if ($l =~ /^ehlo/i) {
    say '250-localhost';
    say '250-STARTTLS' if exists $ENV{UCSPITLS};
    say '250-AUTH PLAIN' if @ARGV;
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
  } elsif ($l =~ /^auth plain (\S+)/i && @ARGV) {
    $user = !check($1);
    say $user ? '235 ok' : '535 authorization failed';
  } elsif ($l =~ /^mail/i && ($ENV{SMTPAUTH} // '') eq '!' && !$user) {
    say '530 authentication required';
  } elsif ($l =~ /^data/i) {
    say '354 go ahead';
    1 while line !~ /^\.\r?\n/;
    say '250 taken';
  } elsif ($l =~ /^quit/i) { say '221 bye'; exit }
  else { say '250 ok' }
}
'''


def with_smtpd(scan):
    need('perl')
    write_script(scan.dir + '/bin/qmail-smtpd', QMAIL_SMTPD)
    return scan.dir + '/bin/qmail-smtpd'


def smtpd_with_mail(scan):
    """mailfront's, which echoes; where there is none, the same that plays qmail-smtpd."""
    if shutil.which('smtpfront-echo', path=scan.path):
        return 'smtpfront-echo accept'
    return with_smtpd(scan)


# smtpd-starttls-proxy-io: the server is its parent, on pipes. It adds STARTTLS to the reply to
# EHLO; asks for TLS with Y, reads the reply to its end; or at HELO and MAIL closes the control
# socket and passes on what it has read. Then bytes only, by s6-ioconnect.
STARTTLS_PROXY = SMTP_SERVER + r'''
defined $ENV{$_} or exit 100 for qw(SSLCTLFD SSLREADFD SSLWRITEFD);
pipe my $sr, my $pw or die;
pipe my $pr, my $sw or die;
if (fork) {
  open STDIN, '<&', $sr or die;
  open STDOUT, '>&', $sw or die;
  close $_ for $sr, $sw, $pr, $pw;
  POSIX::close($ENV{$_}) for qw(SSLCTLFD SSLREADFD SSLWRITEFD);
  exec @ARGV;
  exit 127;
}
close $sr; close $sw;
sub answer {
  my ($l, $c) = ('');
  while (sysread $pr, $c, 1) { $l .= $c; last if $c eq "\n" }
  length $l or exit;
  $l
}
syswrite STDOUT, answer;
while (1) {
  my $l = line;
  if ($l =~ /^ehlo/i) {
    syswrite $pw, $l;
    my $answer = answer;
    syswrite STDOUT, $answer =~ s/^250 /250-/r;
    while ($answer =~ /^250-/) { $answer = answer; syswrite STDOUT, $answer =~ s/^250 /250-/r }
    say '250 STARTTLS';
    next;
  } elsif ($l =~ /^starttls/i && length $in) {
    say '503 too much after STARTTLS';
    next;
  } elsif ($l =~ /^starttls/i) {
    say '220 Ready to start TLS';
    open my $ctl, '+<&=', $ENV{SSLCTLFD} or die;
    syswrite $ctl, 'Y';
    my $reply = '';
    while (sysread $ctl, $reply, 4096, length $reply) { }
    length $reply or exit 97;
    POSIX::dup2($ENV{SSLREADFD}, 0);
    POSIX::dup2($ENV{SSLWRITEFD}, 1);
    POSIX::close($ENV{$_}) for qw(SSLREADFD SSLWRITEFD);
  } elsif ($l =~ /^(mail|helo)/i) {
    syswrite $pw, $l . $in;
    POSIX::close($ENV{$_}) for qw(SSLCTLFD SSLREADFD SSLWRITEFD);
  } elsif ($l =~ /^(noop|rset|quit)/i) {
    syswrite $pw, $l;
    syswrite STDOUT, answer;
    next;
  } else {
    say '500 what?';
    next;
  }
  exec 's6-ioconnect', '-r', fileno $pr, '-w', fileno $pw;
}
'''


def add_starttls_proxy(scan):
    need('perl', 's6-ioconnect')
    if not shutil.which('smtpd-starttls-proxy-io'):
        write_script(scan.dir + '/bin/smtpd-starttls-proxy-io', STARTTLS_PROXY)


def password_checker(scan):
    """A CVM that knows alice and her password; its path."""
    need('cvm-pwfile')
    uid, gid = (run_command('id', option, 'mail').strip() for option in ('-u', '-g'))
    write_line(scan.dir + '/users', 'alice:secret:%s:%s::%s/home:/' % (uid, gid, scan.dir))
    cvm = scan.dir + '/bin/cvm'
    write_script(cvm, '#!/bin/sh\nCVM_PWFILE_PATH=%s/users exec cvm-pwfile' % scan.dir)
    return cvm


# Their clients

def verifying_context():
    return ssl.create_default_context(cafile=pki() + '/ca.pem')


def tls_to(port, name=LOOPBACK, cert=None):
    """A session whose server is verified; closed with the test."""
    context = verifying_context()
    if cert:
        context.load_cert_chain('%s/%s.pem' % (pki(), cert), '%s/%s.key' % (pki(), cert))
    s = socket.create_connection((LOOPBACK, port), timeout=30 * SLOW)
    close_later(s)
    s = context.wrap_socket(s, server_hostname=name)
    close_later(s)
    return s


def ask_to_end(s, what):
    """Says it, and ends; the answer to its end."""
    with s:
        s.sendall(what)
        return read_to_end(s)


def get_page(port, name=LOOPBACK):
    """The page of a web server by HTTPS, verified."""
    answer = ask_to_end(tls_to(port, name), b'GET / HTTP/1.0\r\n\r\n')
    is_true(re.match(rb'HTTP/1\.. 200 ', answer), answer)
    return answer.partition(b'\r\n\r\n')[2]


def mail_by_starttls(scan, name):
    """Sends a mail by STARTTLS, the server verified."""
    with smtplib.SMTP(LOOPBACK, scan.ports[name], timeout=30 * SLOW) as client:
        client.ehlo()
        is_true(client.has_extn('starttls'), 'STARTTLS is offered')
        client.starttls(context=verifying_context())
        client.ehlo()
        is_true(not client.has_extn('starttls'), 'STARTTLS is not offered again')
        is_equal(client.sendmail('alice@example.org', ['bob@example.org'], SERVICE_MAIL), {})
    is_started(scan, name)


def mail_by_smtps(scan):
    with smtplib.SMTP_SSL(LOOPBACK, scan.ports['smtps'], context=verifying_context(),
                          timeout=30 * SLOW) as client:
        is_equal(client.sendmail('alice@example.org', ['bob@example.org'], SERVICE_MAIL), {})
    is_started(scan, 'smtps')
