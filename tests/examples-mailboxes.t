#!/usr/bin/env python3
# ISC licence: see COPYING.
# starttls-connect and starttls-cert with Dovecot: IMAP, POP3, ManageSieve.

import base64
import os
import pwd
import re
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from examples import SBIN, Daemon, example, free_port, is_done
from pki import cert_hash, pki
from scratch import temp, temp_dir
from services import run_command
from tap import is_equal, is_true, run, test

CONF = '''
{version}
base_dir = {dir}/run
state_dir = {dir}/state
log_path = /dev/stderr
listen = 127.0.0.1
protocols = imap pop3 sieve
ssl = required
first_valid_uid = 1
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service managesieve-login {{
  inet_listener sieve {{
    port = {sieve}
  }}
}}
service stats {{
  chroot =
}}
'''
# What Dovecot 2.4 has other words for.
CONF_23 = CONF.replace('{version}\n', '') + '''
ssl_cert = <{pki}/server.pem
ssl_key = <{pki}/server.key
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={dir}/home
}}
mail_location = maildir:{dir}/home/mail
'''
CONF_24 = CONF.replace('{version}', '''dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0''') + '''
ssl_server_cert_file = {pki}/server.pem
ssl_server_key_file = {pki}/server.key
passdb static {{
  password = secret
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {uid}
    home = {dir}/home
  }}
}}
mail_driver = maildir
mail_path = {dir}/home/mail
'''

MAIL = b'Subject: hello\n\nOne line.\n'


class Dovecot:
    """Dovecot, all of it in a temporary directory, with one mail for everyone."""

    def __init__(self):
        need('dovecot', *('/usr/lib/dovecot/%s-login' % s for s in ('imap', 'pop3', 'managesieve')))
        d = temp_dir()
        nobody = pwd.getpwnam('nobody').pw_uid
        os.makedirs(d + '/home/mail/new')
        with open(d + '/home/mail/new/1.1.example', 'wb') as f:
            f.write(MAIL)
        for path, _, files in os.walk(d + '/home'):
            for name in '', *files:
                shutil.chown('%s/%s' % (path, name), nobody, nobody)
        self.imap, self.imaps, self.pop3, self.sieve = ports = [free_port() for _ in range(4)]
        program = shutil.which('dovecot', path=os.environ['PATH'] + SBIN)
        version = run_command(program, '--version')
        conf = CONF_23 if version.startswith('2.3.') else CONF_24
        conf = temp(conf.format(dir=d, pki=pki(), uid=nobody, imap=self.imap, imaps=self.imaps,
                                pop3=self.pop3, sieve=self.sieve))
        self.daemon = Daemon(['dovecot', '-F', '-c', conf])
        self.daemon.wait_port(*ports)


def talk(proto, port, *lines):
    """The lines that the server says in TLS to these."""
    result = example('starttls-connect', proto, '127.0.0.1', port,
                     input=''.join(line + '\r\n' for line in lines).encode())
    is_done(result)
    is_equal(result.err, '')
    return result.out.decode().split('\r\n')


def is_in_order(wanted, lines):
    """Lines that begin like that are among those, in that order."""
    rest = iter(lines)
    for start in wanted:
        is_true(any(line.startswith(start) for line in rest), '%r in %r' % (start, lines))


@test('IMAP by STARTTLS, verified: log in, read a mail')
def _():
    said = talk('imap', Dovecot().imap, 'b LOGIN user secret', 'c EXAMINE INBOX',
                'd FETCH 1 BODY[TEXT]', 'e LOGOUT')
    is_in_order(['b OK', '* 1 EXISTS', 'c OK', '* 1 FETCH (BODY[TEXT] {11}', 'One line.', 'd OK',
                 '* BYE', 'e OK'], said)


@test('POP3 by STLS, verified: log in, read a mail')
def _():
    said = talk('pop3', Dovecot().pop3, 'USER user', 'PASS secret', 'RETR 1', 'QUIT')
    is_equal([s[:3] if s.startswith('+OK') else s for s in said],
             ['+OK', '+OK', '+OK', 'Subject: hello', '', 'One line.', '.', '+OK', ''])


@test('ManageSieve by STARTTLS, verified: log in, put a script, list it')
def _():
    login = 'AUTHENTICATE "PLAIN" "%s"' % base64.b64encode(b'\0user\0secret').decode()
    said = talk('sieve', Dovecot().sieve, login, 'PUTSCRIPT "mine" {5+}', 'keep;',
                'LISTSCRIPTS', 'LOGOUT')
    is_in_order(['"IMPLEMENTATION"', 'OK', 'OK "Logged in', 'OK "PUTSCRIPT', '"mine"', 'OK', 'OK'],
                said)


@test('IMAP in TLS from the first byte: tls-connect; a program on 6 and 7')
def _():
    imaps = Dovecot().imaps
    # A program that talks and listens in turn, as programs do, not all at once.
    client = r'''
        read -r greeting <&6
        printf 'b LOGIN user secret\r\n' >&7
        while read -r line <&6 && [ "${line#b }" = "$line" ] ; do : ; done
        printf 'c LOGOUT\r\n' >&7
        cat <&6 >/dev/null
        echo "$greeting" "$line" "$SSL_TLS_SNI_SERVERNAME"
    '''
    result = example('tls-connect', '-k', 'localhost', '127.0.0.1', imaps, 'sh', '-c', client)
    is_done(result)
    is_true(re.match(r'\* OK .*\r b OK .*\r localhost\n\Z', result.out.decode()), result)
    is_done(example('tls-connect', '-k', 'example.com', '127.0.0.1', imaps, 'true'), 97)
    is_done(example('tls-connect', '-N', '-k', 'example.com', '127.0.0.1', imaps, 'true'))


@test('starttls-cert and starttls-chain, of each of them')
def _():
    dovecot = Dovecot()
    for service in (['imap', dovecot.imap], ['pop3', dovecot.pop3], ['sieve', dovecot.sieve],
                    ['tls', dovecot.imaps]):
        proto, port = service
        result = example('starttls-cert', proto, '127.0.0.1', port)
        is_done(result)
        is_equal(result.err, '')
        is_true('hash        %s\n' % cert_hash('server') in result.out.decode(), result)
        is_true(result.out.endswith(b'verified    yes, for 127.0.0.1\n'), result)
        result = example('starttls-chain', proto, '127.0.0.1', port)
        is_done(result)
        with open(pki() + '/server.pem', 'rb') as f:
            is_equal(result.out, f.read(), 'the chain in PEM')


run()
