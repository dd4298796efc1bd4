#!/usr/bin/env python3
# ISC licence: see COPYING.
# The servers and services of examples/README.md, set up by what is printed there.

import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from compiled import compiled
from examples import Daemon, is_done
from pages import shown
from pki import pki, pki_path, server_env
from private import Reader, private_machine, wait_listening
from privileges import as_root
from services import QMAIL_SMTPD, SERVICE_PROGRAMS
from tap import SLOW, is_equal, is_true, run, wait_for

PAGE = 'examples/README.md'
MAIL = 'Subject: hello\n\nOne line.\n'


def on_a_machine(name, *programs):
    """A test as root on a machine of its own, given who reads there."""
    def add(function):
        @as_root(name, limit=120)
        def _():
            need('openssl', 'execlineb', 's6-envdir', 'tcpserver', *programs)
            pki()
            with private_machine('mx.example.org'):
                function(Reader())
    return add


def last_line(text):
    """The text in two: its last command is for when the service is there."""
    last = re.findall(r'(?:.*\\\n)*.*\n', text)[-1]
    return text.removesuffix(last), last


# Servers

@on_a_machine('a STARTTLS server in sh')
def _(reader):
    text = shown(PAGE, 'cd starttls-server')
    for old, new in (('/path/to/key.pem', pki_path('server.key')),
                     ('/path/to/cert.pem', pki_path('server.pem')),
                     ('name.in.the.certificate', 'localhost')):
        is_true(old in text, old)
        text = text.replace(old, new)
    # The certificate of the test is not signed by itself.
    text = text.replace('CAFILE=' + pki_path('server.pem'), 'CAFILE=' + pki_path('ca.pem'))
    make, talk = last_line(text)
    Daemon(['sh', '-ec', make + 'wait'], env=reader.env, cwd=reader.dir)
    wait_listening(2525, '127.0.0.1')
    result = reader.types('cd starttls-server\n' + talk, [b'EHLO me', b'WHO', b'QUIT'])
    is_done(result)
    is_true(re.search(rb'^250 we talk TLSv1\.3 with TLS_', result.out, re.M), result)


@on_a_machine('smtp-front before an SMTP server without TLS (msmtpd is played)', 'perl')
def _(reader):
    for name, value in server_env().items():
        reader.has('smtp/tls/' + name, value + '\n')
    reader.has('msmtpd', QMAIL_SMTPD.lstrip('\n'), 0o755)
    reader.has('smtp/run', shown(PAGE, '#!/usr/bin/execlineb -P\ns6-envdir ./tls'), 0o755)
    Daemon([reader.dir + '/smtp/run'], env=reader.env, cwd=reader.dir + '/smtp')
    wait_listening(2525, '127.0.0.1')
    reader.has('message', MAIL)
    is_done(reader.types('mail/send-mandatory localhost 2525 me@example.com you@example.org '
                         '< message'))


@on_a_machine('an SMTP server and a client in C', 'tcpclient')
def _(reader):
    os.symlink(compiled('smtpd'), reader.dir + '/c/smtpd')
    os.symlink(compiled('smtpc'), reader.dir + '/c/smtpc')
    for name, value in server_env().items():
        reader.has('c/tls/' + name, value + '\n')
    reader.has('c/deliver', '#!/bin/sh\ncat > mail\necho "$RECIPIENTS" >> mail\n', 0o755)
    reader.has('c/run', shown(PAGE, '#!/usr/bin/execlineb -P\n# The network is on 0'), 0o755)
    send = shown(PAGE, '#!/usr/bin/execlineb -P\n# The network is on 6')
    for old, new in ('tcpclient mx.example.org 25', 'tcpclient 127.0.0.1 2525'), \
                    ('-k mx.example.org', '-k localhost'):
        is_true(old in send, old)
        send = send.replace(old, new)
    reader.has('c/send', send, 0o755)
    Daemon([reader.dir + '/c/run'], env=reader.env, cwd=reader.dir + '/c')
    wait_listening(2525, '127.0.0.1')
    is_done(reader.types('cd c\n./send', MAIL.encode()))
    with open(reader.dir + '/c/mail') as f:
        is_true(f.read().endswith(MAIL + 'you@example.org\n'), 'the mail')


# Services

class Host:
    """The reader's machine with a scan directory."""

    def __init__(self, reader):
        self.reader = reader
        # Where there is no mailfront, and there would be no qmail behind it.
        reader.has('smtpfront-qmail', QMAIL_SMTPD.lstrip('\n'), 0o755)
        self.scan = Daemon(['sh', '-ec', shown(PAGE, 'mkdir -p /run/service') + 'wait'],
                           env=reader.env, cwd=reader.dir)
        wait_for(lambda: reader.types('s6-svscanctl -a /run/service').code == 0, 's6-svscan')
        make, self.look = last_line(shown(PAGE, 'mkdir -p /etc/s6\n'))
        is_done(reader.types(make))
        wait_listening(25)
        # What is only about this service.
        self.another = '\n'.join(line for line in make.splitlines() if re.search(
            'smtp|svscanctl', line) and 'NAME' not in line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.types('s6-svscanctl -t /run/service')
        self.scan.p.wait(20 * SLOW)

    def shows(self, text, **env):
        """The certificate that it shows is verified."""
        result = self.reader.types(text, **env)
        is_done(result)
        is_true(b'verified    yes, for ' in result.out, result)

    def sets_up(self, name, port):
        """Another one, in the same way."""
        text = self.another.replace('smtp-mailfront', name).replace('s6/smtp', 's6/' + name)
        is_done(self.reader.types(text))
        wait_listening(port)


def key_pair(reader, name, host):
    is_done(reader.types('openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes '
                         '-subj /CN=%s -addext subjectAltName=DNS:%s -keyout %s.key -out %s.pem'
                         % (host, host, name, name)))


@on_a_machine('a service is set up, shows its certificate, and another one after it',
              *SERVICE_PROGRAMS)
def _(reader):
    with Host(reader) as host:
        host.shows(host.look)
        key_pair(reader, 'newer', 'mx.example.org')
        is_done(reader.types(shown(PAGE, 'services/renew /etc/ssl/tls-chain newer.key')))
        new = host.look.replace('new.pem', 'newer.pem')
        wait_for(lambda: b'verified    yes, ' in reader.types(new).out, 'the new certificate')


@on_a_machine('services/both is set up in the same way', 'busybox', *SERVICE_PROGRAMS)
def _(reader):
    with Host(reader) as host:
        host.sets_up('both', 443)
        with open(reader.dir + '/README.md') as f:
            command = re.search('`(starttls-cert -k mx.example.org tls .*?)`', f.read())[1]
        host.shows('CAFILE=new.pem ' + command)


@on_a_machine('services/admin: an authority, a client that it signs, which is admitted',
              *SERVICE_PROGRAMS)
def _(reader):
    with Host(reader) as host:
        make, ask = last_line(shown(PAGE, "openssl req -x509 -newkey ec -pkeyopt "
                                    "ec_paramgen_curve:P-256 -nodes -days 3650"))
        is_done(reader.types(make))
        host.sets_up('admin', 4433)
        setting = re.search('^export .*\n', make, re.M)[0]
        result = reader.types(setting + ask)
        is_done(result)
        is_true(result.out.startswith(b'hello /CN=alice\nFilesystem '), result)
        os.unlink('/etc/tls-chain/admitted/' + os.listdir('/etc/tls-chain/admitted')[0])
        is_equal(reader.types(setting + ask).out, b'')


@on_a_machine('services/two-names: a key pair for each', 'busybox', *SERVICE_PROGRAMS)
def _(reader):
    with Host(reader) as host:
        for name in 'www', 'mail':
            key_pair(reader, name, name + '.example.org')
        is_done(reader.types(shown(PAGE, 'services/renew /etc/ssl/tls-chain/www.example.org')))
        host.sets_up('two-names', 443)
        for name in 'www', 'mail':
            host.shows('starttls-cert -k %s.example.org tls 127.0.0.1 443' % name,
                       CAFILE='./%s.pem' % name)


@on_a_machine('services/acme: a challenge is put up, and taken away')
def _(reader):
    os.mkdir('/var/lib/acme')
    put, take = shown(PAGE, 'services/acme/challenge').splitlines()
    for command, wanted in (put, ['www.example.org.key', 'www.example.org.pem']), (take, []):
        is_done(reader.types(command, name='www.example.org', keyauthorization='a.b'))
        is_equal(sorted(os.listdir('/var/lib/acme')), wanted)


@on_a_machine('s6-rc: the definitions are compiled, and brought up', 's6-rc-compile', 'busybox',
              *SERVICE_PROGRAMS)
def _(reader):
    with Host(reader) as host:
        is_done(reader.types('rm /run/service/smtp && s6-svscanctl -an /run/service'))
        for name in 'tls-engined', 'smtp', 'smtps', 'https':
            is_done(reader.types('mkdir /var/log/%s && chown daemon /var/log/%s' % (name, name)))
        is_done(reader.types(shown(PAGE, 'mkdir -p /etc/s6-rc').replace(
            's6-rc -u', 's6-rc -t %d -u' % (20000 * SLOW))))
        wait_listening(443)
        host.shows('starttls-cert -k mx.example.org tls 127.0.0.1 443', CAFILE='./new.pem')


run()
