#!/usr/bin/env python3
# ISC licence: see COPYING.
# The service directories: s6-svscan runs copies of them, real clients talk to them.

import glob
import imaplib
import os
import poplib
import pwd
import re
import socket
import ssl
import stat
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from examples import EXAMPLES
from peer import plain_context
from pki import cert_hash, issue, issued, pki, server_env
from proc import comm_of, find_processes, status_of
from services import (LOOPBACK, SERVICES, SERVICE_MAIL, Scan, account_of, add_starttls_proxy,
                      ask_to_end, get_page, is_started, mail_by_starttls, password_checker,
                      run_command, smtpd_with_mail, tls_to, verifying_context, web_root, with_smtpd,
                      write_line, write_script)
from tap import SLOW, is_equal, is_true, run, test


@test('smtp-mailfront: smtplib sends a mail by STARTTLS')
def _():
    need('smtpfront-echo')
    scan = Scan()
    scan.add('smtp-mailfront', SMTPD='smtpfront-echo starttls-ucspi accept')
    scan.start()
    mail_by_starttls(scan, 'smtp-mailfront')


# Servers that Debian does not have are played, by programs that talk to TLS as these do.

@test('smtp-qmail: smtplib sends a mail by STARTTLS (qmail-smtpd is played)')
def _():
    scan = Scan()
    scan.add('smtp-qmail', SMTPD=with_smtpd(scan))
    scan.start()
    mail_by_starttls(scan, 'smtp-qmail')


@test('smtp-proxy: smtplib sends a mail by STARTTLS to a server that knows nothing of it')
def _():
    scan = Scan()
    scan.add('smtp-proxy', SMTPD=with_smtpd(scan))
    add_starttls_proxy(scan)
    scan.start()
    mail_by_starttls(scan, 'smtp-proxy')


def mailbox(scan):
    """Alice's mailbox, with a mail in it."""
    for name in 'cur', 'new', 'tmp':
        os.makedirs('%s/home/Maildir/%s' % (scan.dir, name))
    write_line(scan.dir + '/home/Maildir/new/1.2.x', SERVICE_MAIL)
    run_command('chown', '-R', 'mail:mail', scan.dir + '/home')


# In place of mailfront's, where there is none: it knows alice and her password, and becomes mail.
IMAPFRONT_AUTH = r'''#!/bin/sh
printf '* OK hello\r\n'
while read -r tag command user password
do
  case $command:$user:$password in
    CAPABILITY*) printf '* CAPABILITY IMAP4rev1\r\n%s OK done\r\n' "$tag" ;;
    LOGIN:*alice*:*secret*) break ;;
    *) printf '%s NO way\r\n' "$tag" ;;
  esac
done
cd "${0%/*/*}/home"
export HOME="$PWD" USER=alice IMAPLOGINTAG="$tag"
exec setpriv --reuid mail --regid mail --clear-groups "$@"
'''


def serves_imaps(scan, cvm=''):
    need('/usr/lib/dovecot/imap')
    mailbox(scan)
    scan.add('imaps', CVM_SASL_PLAIN=cvm, MAILDIR='Maildir')
    scan.start()
    with imaplib.IMAP4_SSL(LOOPBACK, scan.ports['imaps'], ssl_context=verifying_context(),
                           timeout=30 * SLOW) as client:
        try:
            client.login('alice', 'wrong')
            is_true(False, 'a wrong password is refused')
        except imaplib.IMAP4.error:
            pass
        client.login('alice', 'secret')
        is_equal(client.select(), ('OK', [b'1']))
        is_true(client.fetch('1', '(BODY.PEEK[TEXT])')[1][0][1].startswith(b'hello'), 'the mail')
    is_started(scan, 'imaps')


@test('imaps: imaplib logs in and reads a mail, and does not get in with a wrong password')
def _():
    need('imapfront-auth')
    scan = Scan()
    serves_imaps(scan, password_checker(scan))


@test('imaps: the same, of Dovecot only (imapfront-auth is played)')
def _():
    scan = Scan()
    write_script(scan.dir + '/bin/imapfront-auth', IMAPFRONT_AUTH)
    serves_imaps(scan)


@test('pop3s: poplib logs in and reads a mail, and does not get in with a wrong password')
def _():
    need('pop3front-auth')
    scan = Scan()
    mailbox(scan)
    scan.add('pop3s', CVM=password_checker(scan))
    scan.start()
    for password, wanted in ('wrong', False), ('secret', True):
        client = poplib.POP3_SSL(LOOPBACK, scan.ports['pop3s'], context=verifying_context(),
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
    is_started(scan, 'pop3s')


@test('admin: who is admitted comes to the console; who is not, or shows nothing, does not')
def _():
    scan = Scan()
    os.mkdir(scan.dir + '/admitted')
    admitted = '%s/admitted/%s' % (scan.dir, cert_hash('client'))
    write_line(admitted, '')
    scan.add('admin', CAFILE=pki() + '/ca.pem', ADMITTED=scan.dir + '/admitted')
    scan.start()
    port = scan.ports['admin']

    def hello(cert):
        try:
            return ask_to_end(tls_to(port, cert=cert), b'quit\n')
        except (ssl.SSLError, ConnectionError):
            return b''

    is_equal(hello('client'), b'hello /CN=client\n')
    held = tls_to(port, cert='client')
    is_equal(held.recv(100), b'hello /CN=client\n')
    users = {comm_of(pid): status_of(pid)['Uid'].split()[1]
             for name in ('console', 'tls-engined') for pid in find_processes(name)
             if comm_of(pid) in ('console', 'tls-engine')}
    is_equal(users, {'console': str(pwd.getpwnam('sys').pw_uid), 'tls-engine': '65534'})
    is_equal(ask_to_end(held, b'quit\n'), b'')
    is_equal(hello('client2'), b'')
    scan.wait_log('admin', 'admit-clients: fatal: client not admitted: ' + cert_hash('client2'))
    is_equal(hello(None), b'')
    scan.wait_log('admin', 'tls-handshake: fatal: unable to start TLS: ')
    os.unlink(admitted)
    is_equal(hello('client'), b'')


@test('two-names: each name has its certificate and its service; other names are refused')
def _():
    need('busybox')
    scan = Scan()
    settings = {}
    for name in 'www.example.org', 'mail.example.org':
        issue(pki(), name, 'subjectAltName=DNS:' + name)
        directory = '%s/ssl/%s' % (scan.dir, name)
        run_command(SERVICES + '/renew', directory, '%s/%s.key' % (pki(), name),
                    '%s/%s.pem' % (pki(), name))
        is_equal(stat.S_IMODE(os.stat(directory).st_mode), 0o700, 'mode of what renew has made')
        for setting in 'KEYFILE:' + name, 'CERTFILE:' + name:
            with open('%s/two-names/tls/%s' % (SERVICES, setting)) as f:
                path = f.read().strip()
            settings[setting] = path.replace('/etc/ssl/tls-chain/' + name, directory)
    scan.add('two-names', ROOT=web_root(scan), SMTPD=smtpd_with_mail(scan), **settings)
    scan.start()
    port = scan.ports['two-names']
    is_equal(get_page(port, 'www.example.org'), b'a page\n')
    is_true(ask_to_end(tls_to(port, 'mail.example.org'), b'QUIT\r\n') in (
        b'220 localhost mailfront ESMTP\r\n221 2.0.0 Good bye.\r\n',
        b'220 localhost ESMTP\r\n221 bye\r\n'), 'an SMTP server answers')
    is_started(scan, 'two-names', ', server name mail.example.org$')
    context = plain_context()
    for name in 'example.org', None:
        with socket.create_connection((LOOPBACK, port), timeout=30 * SLOW) as s:
            try:
                with context.wrap_socket(s, server_hostname=name) as s:
                    is_equal(s.recv(1), b'')
            except (ssl.SSLError, ConnectionError):
                pass


@test('two-names: the application is not run as the engine')
def _():
    scan = Scan()
    name = 'mail.example.org'
    settings = {}
    for served in name, 'www.example.org':
        pair = server_env(issued(served, 'subjectAltName=DNS:' + served))
        settings.update({'%s:%s' % (kind, served): path for kind, path in pair.items()})
    scan.add('two-names', SMTPD='id -u', **settings)
    scan.start()
    is_equal(ask_to_end(tls_to(scan.ports['two-names'], name), b''),
             b'%d\n' % pwd.getpwnam('www-data').pw_uid)


# All of them

def user_id(name):
    """The number of a user; the name, if Debian does not have it."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return name


@test('no application, and no logger, runs as the engine, as the other, or as root')
def _():
    for d in glob.glob(SERVICES + '/*/') + [EXAMPLES + '/s6-rc/%s/' % name
                                            for name in ('smtp', 'smtps', 'https', 'tls-engined')]:
        log = d + 'log' if os.path.exists(d + 'log') else d[:-1] + '-log'
        users = [0, 65534, user_id(account_of(log))]
        if account_of(d):
            users.append(user_id(account_of(d)))
        is_equal(len(set(users)), len(users), '%s: %r' % (d, users))
        for path in glob.glob(d + '*/TLS_UID') + glob.glob(d + '*/TLS_GID'):
            with open(path) as f:
                is_equal(f.read(), '65534\n', path)


@test('every key pair in the settings is where renew puts one')
def _():
    paths = glob.glob(EXAMPLES + '/s*/*/*/KEYFILE*') + glob.glob(EXAMPLES + '/s*/*/*/CERTFILE*')
    is_true(len(paths) > 10, paths)
    for path in paths:
        file = 'key' if os.path.basename(path).startswith('KEY') else 'cert'
        with open(path) as f:
            wanted = r'/etc/ssl/tls-chain(/[a-z.]+)?/current/%s\.pem\n' % file
            is_true(re.fullmatch(wanted, f.read()), path)


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
