#!/usr/bin/env python3
# ISC licence: see COPYING.
# The services for submission: no AUTH and no mail without TLS, for smtplib and swaks; and what the
# applications that speak UCSPI-TLS make of commands that somebody has put behind STARTTLS.

import base64
import os
import pwd
import re
import smtplib
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from pages import shown
from peer import Peer
from pki import pki
from scratch import close_later
from services import (LOOPBACK, SERVICE_MAIL, SMTP_SERVER, Scan, add_starttls_proxy, is_started,
                      run_command, verifying_context, with_smtpd, write_script)
from sockets import read_line, read_to_end
from tap import SLOW, is_equal, is_true, run, test

AUTH = 'AUTH PLAIN ' + base64.b64encode(b'\0alice\0secret').decode()
MAIL = 'MAIL FROM:<alice@example.org>'


# What Debian does not have, played

# acceptutils' authup: it drops what it has read when TLS starts; reads the reply up to \0\0, keeps
# the facts in its first half; takes the exit codes 1, 2 and 111 for a wrong password.
AUTHUP = SMTP_SERVER + r'''
my $tls;
my $level = delete $ENV{UCSPITLS} // '-';
shift eq 'smtp' or exit 1;
sub start_tls {
  open my $ctl, '+<&=', $ENV{SSLCTLFD} or die;
  syswrite $ctl, 'Y' or die;
  POSIX::dup2($ENV{SSLREADFD}, 0);
  POSIX::dup2($ENV{SSLWRITEFD}, 1);
  POSIX::close($ENV{$_}) for qw(SSLREADFD SSLWRITEFD);
  my $reply = '';
  while ($reply !~ /\0\0\z/) { sysread $ctl, $reply, 1024, length $reply or die 'no reply' }
  my $half = substr $reply, 0, length($reply) / 2;
  $ENV{$1} = $2 while $half =~ /([^=\0]+)=([^\0]*)\0/g;
  $in = '';
  $tls = 1;
}
say '220 localhost ESMTP';
while (1) {
  my $l = line;
  if ($l =~ /^ehlo/i) {
    say '250-localhost';
    say '250-STARTTLS' if $level ne '-' && !$tls;
    say '250-AUTH LOGIN PLAIN';
    say '250 PIPELINING';
  } elsif ($l =~ /^starttls/i) {
    if ($level eq '-' || $tls) { say '502 unimplemented' }
    else { say '220 Ready to start TLS'; start_tls }
  } elsif ($l =~ /^auth/i && $level eq '!' && !$tls) { say '530 Must start TLS first' }
  elsif ($l =~ /^auth plain (\S+)/i) {
    my $code = check($1);
    exit $code if !grep { $code == $_ } 1, 2, 111;
    say '535 authorization failed';
  } elsif ($l =~ /^auth/i) { say '504 auth type unimplemented' }
  elsif ($l =~ /^(helo|noop)/i) { say '250 ok' }
  elsif ($l =~ /^quit/i) { say '221 bye'; exit }
  else { say '530 authentication required' }
}
'''

CHECKPASSWORD = r'''
#!/usr/bin/perl
open my $f, '<&=', 3 or exit 2;
my $said = join '', <$f>;
close $f;
print STDERR "checkpassword: asked, user $<\n";
$said =~ /^alice\0secret\0/ or exit 1;
if (!$<) {
  my ($uid, $gid) = (getpwnam 'mail')[2, 3];
  $( = $gid;
  $) = "$gid $gid";
  ($<, $>) = ($uid, $uid);
}
exec @ARGV;
exit 111;
'''

CHECKNOTROOT = '''
#!/bin/sh
[ "$(id -u)" != 0 ] || exit 1
exec "$@"
'''

# With the rules of our control/fixsmtpio, below authup: the greeting becomes the reply to AUTH.
FIXSMTPIO = r'''
#!/usr/bin/perl
use strict;
print STDERR "fixsmtpio: $ENV{AUTHUP_USER}, user $<, $ENV{SSL_PROTOCOL}, ",
  exists $ENV{UCSPITLS} ? '' : 'no ', "UCSPITLS\n";
$^F = 20;
pipe my $sr, my $pw or die;
pipe my $pr, my $sw or die;
if (!fork) {
  open STDIN, '<&', $sr or die;
  open STDOUT, '>&', $sw or die;
  close $_ for $sr, $sw, $pr, $pw;
  exec @ARGV;
  exit 127;
}
close $sr; close $sw;
my ($l, $c) = ('');
while (sysread $pr, $c, 1) { $l .= $c; last if $c eq "\n" }
syswrite STDOUT, $l =~ s/^220 .*?(?=\r)/235 ok/r;
exec 's6-ioconnect', '-r', fileno $pr, '-w', fileno $pw;
'''


def serves_acceptutils():
    need('perl', 's6-ioconnect')
    scan = Scan()
    for name, text in (('authup', AUTHUP), ('checkpassword', CHECKPASSWORD),
                       ('checknotroot', CHECKNOTROOT), ('fixsmtpio', FIXSMTPIO)):
        write_script('%s/bin/%s' % (scan.dir, name), text)
    scan.add('submission-acceptutils', CHECKPASSWORD='checkpassword', SMTPD=with_smtpd(scan))
    return scan.start()


def serves_mailfront():
    need('smtpfront-echo', 'cvm-pwfile')
    scan = Scan()
    path = scan.dir + '/submission.passwd'
    text = shown('examples/README.md', 'install -m 640').replace('/etc/submission.passwd', path)
    run_command('sh', '-ec', text.replace('passwd -6', 'passwd -6 secret'))
    scan.add('submission-mailfront', CVM_PWFILE_PATH=path, SMTPD=(
        'smtpfront-echo cvm-authenticate check-fqdn accept starttls-ucspi +require-auth'))
    return scan.start()


def serves_proxy(**settings):
    scan = Scan()
    add_starttls_proxy(scan)
    write_script(scan.dir + '/bin/checkpassword', CHECKPASSWORD)
    scan.add('submission-proxy', **settings,
             SMTPD=with_smtpd(scan) + ' %s/bin/checkpassword /bin/true' % scan.dir)
    return scan.start()


# Clients

def reply(s):
    """The lines of the next reply, less their ends; what there is, at the end."""
    lines = []
    while not lines or lines[-1][3:4] == '-':
        lines.append(read_line(s).decode().rstrip('\r\n'))
    return lines


def greeted(scan):
    """A connection in plaintext that has been greeted, and has said EHLO; the reply."""
    s = socket.create_connection((LOOPBACK, scan.ports[scan.names[0]]), timeout=30 * SLOW)
    close_later(s, first=True)  # else the service waits for it when it is stopped
    is_equal(reply(s)[0][:4], '220 ')
    return s, ask(s, 'EHLO client.example')


def ask(s, *lines):
    """Says it, all in one segment; the reply to the first line."""
    s.sendall(''.join(line + '\r\n' for line in lines).encode())
    return reply(s)


def code(s, line):
    return ask(s, line)[-1][:3]


def refuses_plaintext(scan, auth='530', offers_auth=False):
    """Everything that submits is refused before TLS, with these codes; AUTH is offered or not."""
    s, hello = greeted(scan)
    is_true(any('STARTTLS' in line for line in hello), hello)
    is_equal(any('AUTH' in line for line in hello), offers_auth, 'AUTH is offered')
    for _ in range(2):
        is_equal([code(s, line) for line in (AUTH, 'AUTH LOGIN', MAIL)], [auth, auth, '530'])
        is_true(code(s, 'RCPT TO:<bob@example.org>') in ('503', '530'), 'RCPT is refused')
        is_true(code(s, 'DATA') in ('503', '530'), 'DATA is refused')
        is_equal(code(s, 'HELO client.example'), '250')
    is_equal(code(s, 'QUIT'), '221')
    return hello


def submits_by_smtplib(scan):
    """After STARTTLS, the server verified: no mail before AUTH, no AUTH with a wrong password."""
    name = scan.names[0]
    with smtplib.SMTP(LOOPBACK, scan.ports[name], timeout=30 * SLOW) as client:
        client.starttls(context=verifying_context())
        client.ehlo()
        is_equal((client.has_extn('starttls'), client.has_extn('auth')), (False, True))
        is_equal(client.mail('alice@example.org')[0], 530)
        try:
            client.login('alice', 'wrong')
            raise AssertionError('a wrong password is taken')
        except smtplib.SMTPAuthenticationError:
            pass
        is_equal(client.mail('alice@example.org')[0], 530)
        is_equal(client.login('alice', 'secret')[0], 235)
        is_equal(client.sendmail('alice@example.org', ['bob@example.org'], SERVICE_MAIL), {})
    is_started(scan, name)


def submits_by_swaks(scan):
    """swaks gets its mail in by TLS and AUTH, and not with less."""
    need('swaks')
    argv = ['swaks', '--server', LOOPBACK, '--port', str(scan.ports[scan.names[0]]), '--ehlo',
            'client.example', '--timeout', '%ds' % (30 * SLOW), '--from', 'alice@example.org',
            '--to', 'bob@example.org', '--data', SERVICE_MAIL]
    tls = ['--tls', '--tls-verify', '--tls-ca-path', pki() + '/ca.pem']
    auth = ['--auth', 'PLAIN', '--auth-user', 'alice', '--auth-password']
    for options, wanted in ((tls + auth + ['secret'], 0), (tls + auth + ['wrong'], 28), (tls, 23),
                            (auth + ['secret'], 28), ([], 23)):
        p = subprocess.run(argv + options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True)
        is_equal(p.returncode, wanted, 'exit code with %s, which says:\n%s' % (options, p.stdout))


def inject(scan, *lines):
    """STARTTLS, and lines behind it in the same segment: the code of the reply in plaintext, and
    those of all replies in TLS, in which only QUIT is said; None if there is no TLS."""
    s, _ = greeted(scan)
    first = ask(s, 'STARTTLS', *lines)[-1][:3]
    if first != '220':
        return first, None
    try:
        peer = Peer(s).handshake()
    except (ssl.SSLError, ConnectionError):
        s.close()
        return first, None
    peer.send(b'QUIT\r\n')
    data, end = peer.recv_all()
    is_equal(end, 'close_notify')
    return first, [line[:3] for line in data.decode().splitlines()]


INJECTED = ['EHLO injected.example', 'MAIL FROM:<injected@example.org>']
FOUND = "unable to start TLS: bytes came in plaintext before the client's TLS began"


# acceptutils

@test('acceptutils (played): in plaintext AUTH is offered and refused, and mail is refused')
def _():
    refuses_plaintext(serves_acceptutils(), offers_auth=True)


@test('acceptutils (played): smtplib, in TLS; the server runs as the user, and knows of the TLS')
def _():
    scan = serves_acceptutils()
    submits_by_smtplib(scan)
    scan.wait_log('submission-acceptutils', r'checkpassword: asked, user 0$')
    scan.wait_log('submission-acceptutils', r'fixsmtpio: alice, user %d, TLSv1\.3, no UCSPITLS$' %
                  pwd.getpwnam('mail').pw_uid)


@test('acceptutils (played): swaks')
def _():
    submits_by_swaks(serves_acceptutils())


@test('acceptutils (played): what is injected is dropped')
def _():
    is_equal(inject(serves_acceptutils(), *INJECTED), ('220', ['221']))


@test('acceptutils: the rules in control are six fields each; no capability is authup\'s own')
def _():
    scan = Scan()
    scan.add('submission-acceptutils')
    control = scan.dir + '/services/submission-acceptutils/control'
    with open(control + '/fixsmtpio') as f:
        rules = [line.rstrip('\n').split(':', 5) for line in f]
    is_equal({len(rule) for rule in rules}, {6})
    is_true(all(rule[1] and rule[3] for rule in rules), 'each has an event and a pattern')
    is_equal([rule[5][:4] for rule in rules if rule[:2] == ['AUTHUP_USER', 'greeting']][0], '235 ')
    with open(control + '/smtpcapabilities') as f:
        is_equal(f.read(), 'PIPELINING\n8BITMIME\n')


# mailfront

@test('mailfront: in plaintext AUTH is neither offered nor known, and mail is refused')
def _():
    refuses_plaintext(serves_mailfront(), auth='500')


@test('mailfront: smtplib, in TLS')
def _():
    submits_by_smtplib(serves_mailfront())


@test('mailfront: swaks')
def _():
    submits_by_swaks(serves_mailfront())


@test('mailfront: what is injected is dropped, with a 500')
def _():
    is_equal(inject(serves_mailfront(), *INJECTED), ('220', ['500', '221']))


@test('mailfront: AUTH in plaintext is in the log, with the password')
def _():
    scan = serves_mailfront()
    s, _ = greeted(scan)
    is_equal(code(s, AUTH), '500')
    scan.wait_log('submission-mailfront', re.escape(AUTH))


# A server that knows AUTH, and not TLS

@test('proxy: in plaintext nothing is offered but STARTTLS, and the server is not run')
def _():
    scan = serves_proxy()
    is_equal(refuses_plaintext(scan), ['250-localhost', '250 STARTTLS'])
    scan.wait_log('submission-proxy', 'tls-await: fatal: TLS is required: the application declined')
    is_true('checkpassword' not in scan.log('submission-proxy'), 'no password is checked')


@test('proxy: smtplib, in TLS')
def _():
    submits_by_smtplib(serves_proxy())


@test('proxy: swaks')
def _():
    submits_by_swaks(serves_proxy())


@test('proxy: what is injected is refused by the TLS side')
def _():
    scan = serves_proxy()
    is_equal(inject(scan, *INJECTED), ('220', None))
    scan.wait_log('submission-proxy', FOUND)


@test('proxy: smtpd-starttls-proxy-io in its place: smtplib, in TLS; what is injected gets 503')
def _():
    scan = serves_proxy(PROXY='smtpd-starttls-proxy-io')
    submits_by_smtplib(scan)
    is_equal(inject(scan, *INJECTED), ('503', None))


@test('proxy: smtpd-starttls-proxy-io offers AUTH in plaintext; at HELO and MAIL the end comes')
def _():
    scan = serves_proxy(PROXY='smtpd-starttls-proxy-io')
    for last in 'HELO client.example', MAIL:
        s, hello = greeted(scan)
        is_true('250-AUTH PLAIN' in hello, hello)
        is_equal(code(s, AUTH), '500')
        s.sendall(last.encode() + b'\r\n')
        read_to_end(s, ConnectionResetError)
    scan.wait_log('submission-proxy', 'tls-await: fatal: TLS is required: the application declined')
    is_true('checkpassword' not in scan.log('submission-proxy'), 'no password is checked')


@test('proxy: smtpd-starttls-proxy-io: what came in one segment with HELO gets to the server')
def _():
    scan = serves_proxy(PROXY='smtpd-starttls-proxy-io')
    s, _ = greeted(scan)
    s.sendall(('HELO client.example\r\n%s\r\n' % AUTH).encode())
    read_to_end(s, ConnectionResetError)
    scan.wait_log('submission-proxy', 'checkpassword: asked')


# What smtp-qmail says of Gifford's patch

def serves_qmail():
    scan = Scan()
    scan.add('smtp-qmail', SMTPD=with_smtpd(scan))
    return scan.start()


@test('qmail with Gifford\'s patch (played): what is in the segment of STARTTLS is obeyed in TLS')
def _():
    is_equal(inject(serves_qmail()), ('220', ['221']))
    is_equal(inject(serves_qmail(), *INJECTED), ('220', ['250'] * 3 + ['221']))


@test('qmail with Gifford\'s patch (played): what comes later is refused by the TLS side')
def _():
    scan = serves_qmail()
    s, _ = greeted(scan)
    is_equal(code(s, 'STARTTLS'), '220')
    s.sendall(b'MAIL FROM:<injected@example.org>\r\n')
    is_equal(read_to_end(s, ConnectionResetError), b'')
    s.close()
    scan.wait_log('smtp-qmail', FOUND)


@test('qmail with Gifford\'s patch (played): it takes mail in plaintext, whatever UCSPITLS says')
def _():
    scan = Scan()
    scan.add('smtp-qmail', SMTPD='export UCSPITLS ! ' + with_smtpd(scan))
    s, hello = greeted(scan.start())
    is_true('250-STARTTLS' in hello, hello)
    is_equal([code(s, line) for line in (MAIL, 'RCPT TO:<bob@example.org>')], ['250', '250'])


run()
