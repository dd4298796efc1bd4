#!/usr/bin/env python3
# ISC licence: see COPYING.
# starttls-connect, tls-connect, starttls-cert: openssl s_server, vsftpd, PostgreSQL, Prosody.

import glob
import os
import re
import shutil
import struct
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, need
from examples import EXAMPLES, Daemon, Played, as_user, example, free_port, is_done
from pages import shown
from pki import cert_hash, pki
from scratch import temp, temp_dir
from tap import Skip, is_equal, is_true, run, test, wait_for


def is_certified(proto, port):
    """starttls-cert verifies the server's certificate."""
    result = example('starttls-cert', proto, '127.0.0.1', port, env={'XMPP_TO': 'example.org'})
    is_done(result)
    is_equal(result.err, '')
    is_true('hash        %s\n' % cert_hash('server') in result.out.decode(), result)
    is_true(result.out.endswith(b'verified    yes, for 127.0.0.1\n'), result)


# openssl s_server: -rev sends each line back, its characters in reverse order.

def s_server(*options):
    """Its port."""
    server = Daemon(['openssl', 's_server', '-accept', '127.0.0.1:0', '-key', pki() + '/server.key',
                     '-cert', pki() + '/server.pem', '-rev', *options])
    accept = r'ACCEPT 127\.0\.0\.1:(\d+)\n'
    return int(wait_for(lambda: re.findall(accept, server.log()), 'port')[0])


@test('openssl s_server by tls-connect, verified, TLS 1.2 and 1.3')
def _():
    for version in '-tls1_2', '-tls1_3':
        port = s_server(version)
        result = example('tls-connect', '127.0.0.1', port, 'sh', '-c',
                         'echo stressed >&7; read -r line <&6; echo "$line $SSL_PROTOCOL"')
        is_done(result)
        said = 'desserts TLSv1.%s\n' % version[-1]
        is_equal((result.out.decode(), result.err), (said, ''))
        is_certified('tls', port)


@test('openssl s_server behind an SMTP server\'s go-ahead, by starttls-connect')
def _():
    port = s_server()

    def play(talk):
        talk.say('220 hi\r\n')
        talk.hear(r'EHLO \S+')
        talk.say('250 STARTTLS\r\n')
        talk.hear('STARTTLS')
        talk.say('220 go ahead\r\n')
        talk.hand_on(port)

    server = Played(play, play)
    result = example('starttls-connect', 'smtp', '127.0.0.1', server.port, 'sh', '-c',
                     'echo stressed >&7; head -n 1 <&6')
    is_done(result)
    is_equal((result.out, result.err), (b'desserts\n', ''))
    is_certified('smtp', server.port)
    server.join()


# vsftpd

VSFTPD = '''
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
anon_root={dir}
ftp_username=daemon
nopriv_user=nobody
secure_chroot_dir={dir}/empty
seccomp_sandbox=NO
isolate_network=NO
xferlog_enable=NO
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
rsa_cert_file={pki}/rsa.pem
rsa_private_key_file={pki}/rsa.key
'''


@test('vsftpd by AUTH TLS, verified: log in, list a directory; its rude end is told')
def _():
    need('vsftpd')
    d = temp_dir()
    os.mkdir(d + '/empty')
    with open(d + '/a file of 12', 'w') as f:
        f.write('hello world\n')
    port = free_port()
    Daemon(['vsftpd', temp(VSFTPD.format(dir=d, port=port, pki=pki()))]).wait_port(port)
    result = example('starttls-connect', 'ftp', '127.0.0.1', port,
                     input=b'USER anonymous\r\nPASS me@\r\nSIZE a file of 12\r\nSTAT .\r\nQUIT\r\n')
    is_done(result, 98)
    is_true('session truncated: the peer ended without close_notify' in result.err, result)
    said = result.out.decode().split('\r\n')
    is_equal([s for s in said if re.match(r'\d\d\d ', s)], [
        '331 Please specify the password.', '230 Login successful.', '213 12',
        '213 End of status', '221 Goodbye.'])
    is_true(any(s.endswith('a file of 12') for s in said), said)
    result = example('starttls-cert', 'ftp', '127.0.0.1', port)
    is_done(result)
    is_true(cert_hash('rsa') in result.out.decode(), result)


# PostgreSQL

def postgres():
    """A new PostgreSQL; its port."""
    found = sorted(glob.glob('/usr/lib/postgresql/*/bin'))
    if not found:
        raise Skip('postgres is not installed')
    d = temp_dir()
    port = free_port()
    os.mkdir(d + '/db')
    for name in 'server.key', 'server.pem':
        shutil.copy(pki() + '/' + name, d)
        os.chmod(d + '/' + name, 0o600)
        shutil.chown(d + '/' + name, 'postgres')
    shutil.chown(d + '/db', 'postgres')
    subprocess.run(as_user('postgres', [found[-1] + '/initdb', '-A', 'trust', '-E', 'UTF8', '-N',
                                        '--locale=C', '--no-instructions', d + '/db']),
                   check=True, stdout=subprocess.DEVNULL, cwd='/')
    with open(d + '/db/pg_hba.conf', 'w') as f:
        f.write('hostssl all all 127.0.0.1/32 trust\n')
    settings = {'listen_addresses': '127.0.0.1', 'port': port, 'unix_socket_directories': '',
                'fsync': 'off', 'ssl': 'on', 'ssl_cert_file': d + '/server.pem',
                'ssl_key_file': d + '/server.key', 'shared_buffers': '1MB'}
    options = [s for pair in settings.items() for s in ('-c', '%s=%s' % pair)]
    server = Daemon(as_user('postgres', [found[-1] + '/postgres', '-D', d + '/db', *options]),
                    cwd='/').wait_port(port)
    wait_for(lambda: 'ready to accept connections' in server.log(), 'PostgreSQL')
    return port


@test('PostgreSQL by SSLRequest, verified: a query; psql, which does no TLS, through a tunnel')
def _():
    port = postgres()

    def message(kind, *parts):
        body = b''.join(part + b'\0' for part in parts)
        return kind + struct.pack('>i', len(body) + 4) + body

    start = b'\0\3\0\0' + b'user\0postgres\0database\0postgres\0\0'
    start = struct.pack('>i', len(start) + 4) + start
    result = example('starttls-connect', 'postgres', '127.0.0.1', port,
                     input=start + message(b'Q', b"select 6 * 7, ssl from pg_stat_ssl")
                     + message(b'X'))
    is_done(result)
    row = b'\0\2' + struct.pack('>i', 2) + b'42' + struct.pack('>i', 1) + b't'
    is_true(b'D' + struct.pack('>i', len(row) + 4) + row in result.out, result)
    is_certified('postgres', port)

    need('psql')
    for text in (shown('examples/README.md', 'tcpserver -HRl0 127.0.0.1 5433'),
                 shown('starttls-connect.1', 'tcpserver -HRl0 127.0.0.1 5433')):
        here = free_port()
        text = text.replace('5433', str(here)).replace('db.example.org', '127.0.0.1 %d' % port)
        tunnel, psql = text.split(' &\n')
        env = {'PATH': '%s:%s:%s' % (BIN, EXAMPLES, os.environ['PATH'])}
        Daemon(['sh', '-c', 'exec ' + tunnel],
               env={'CAFILE': pki() + '/ca.pem', **env}).wait_port(here)
        result = example('sh', '-c', psql.rstrip() + ' -At', env={'PGUSER': 'postgres', **env},
                         input=b'select n, ssl from generate_series(1, 100000) n, pg_stat_ssl s '
                               b'where s.pid = pg_backend_pid();\n')
        is_done(result)
        is_equal(result.out, b''.join(b'%d|t\n' % n for n in range(1, 100001)))



# Prosody

PROSODY = '''
run_as_root = true
data_path = "{dir}"
pidfile = "{dir}/pid"
log = {{ {{ levels = {{ "warn" }}, to = "console" }} }}
modules_enabled = {{ "saslauth", "tls" }}
modules_disabled = {{ "s2s" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_require_encryption = true
ssl = {{ key = "{pki}/server.key", certificate = "{pki}/server.pem" }}
VirtualHost "example.org"
  authentication = "anonymous"
'''


@test('Prosody by STARTTLS, verified: log in')
def _():
    need('prosody')
    port = free_port()
    d = temp_dir()
    conf = temp(PROSODY.format(dir=d, port=port, pki=pki()), suffix='.lua')
    Daemon(['prosody', '-F', '--config', conf]).wait_port(port)
    stream = ("<stream:stream to='example.org' version='1.0' xmlns='jabber:client' "
              "xmlns:stream='http://etherx.jabber.org/streams'>")
    login = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"
    result = example('starttls-connect', '-k', 'example.org', 'xmpp', '127.0.0.1', port,
                     input=(stream + login + stream + '</stream:stream>').encode())
    is_done(result)
    is_equal(result.err, '')
    is_true(re.search(r"<mechanism>ANONYMOUS</mechanism>.*<success .*<bind .*</stream:stream>",
                      result.out.decode(), re.S), result)
    is_certified('xmpp', port)


run()
