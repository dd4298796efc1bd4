#!/usr/bin/env python3
# ISC licence: see COPYING.
# The scripts in the pages: each runs, and does what the page says.

import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, need
from examples import EXAMPLES, free_port, port_is_open, sanitizers
from pages import PAGES, page, shown_in
from peer import Peer
from pki import cert_hash, openssl, pki, server_env
from scratch import temp_dir
from sockets import tcp_pair
from tap import SLOW, is_equal, run, test, wait_for


# Each is on a connection of the test in place of a UCSPI server's.

def scripts(name):
    """The execline scripts in a page."""
    return [s for s in shown_in(name) if s.startswith(('#!/usr/bin/execlineb', 'tls-ctl-open\n'))]


# In place of every application: uses UCSPI-TLS if it is there, and says its name.
APPLICATION = '''#!%s -IS
import os, sys
out = 1
if 'SSLCTLFD' in os.environ:
    ctl, out = int(os.environ['SSLCTLFD']), int(os.environ['SSLWRITEFD'])
    os.write(ctl, b'Y')
    while os.read(ctl, 4096):
        pass
os.write(out, b'I am ' + os.path.basename(sys.argv[0]).encode())
''' % sys.executable


def install(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o755)


def run_script(text, net, env, client=False):
    """Runs a script of a page in a directory that has what it needs; the chain, the directory."""
    need('execlineb', 's6-envdir')
    d = temp_dir()
    text = text.replace('/etc/tls-chain/smtps/', './')
    for line in r'#!.*', r'fdmove -c 2 1', r' *tcpserver .*', r' *tcpclient .*':
        text = re.sub('^%s\n' % line, '', text, flags=re.M)
    if text.rstrip().endswith('}'):
        text += 'smtpd\n'  # only a block is shown
    install(d + '/bin/s6-setuidgid', '#!/bin/sh\nshift\nexec "$@"\n')
    for program in re.findall(r'^([a-z-]+)(?: \S+)*\n*\Z', text, re.M):
        if program not in ('cat', 'mv'):
            install(d + '/bin/' + program, APPLICATION)
    for program in re.findall(r'^(?:.*\{ )?\./(\w+)(?: \})?$', text, re.M):
        install(d + '/' + program, APPLICATION)
    below = {'TCPLOCALIP': '/127.0.0.1', 'TLS_HELLO_SERVERNAME': '/news.example.org'}
    tls = d + '/tls%s/' % ''.join(name for variable, name in below.items() if variable in text)
    for name, value in env.items():
        install(tls + name, value)
    install(d + '/allowed', cert_hash('client') + '\n')
    argv = ['execlineb', '-Ps1', '-c', text, 'localhost'] if client else ['execlineb', '-Pc', text]
    c = Chain(argv, net, client=client, preexec=lambda: os.chdir(d),
              path=':'.join([d + '/bin', BIN, os.environ['PATH']]),
              env={'TCPLOCALIP': '127.0.0.1', **(env if client else {})})
    return c, d


SERVERS = [
    # page, script, what the client hears
    ('README.md', 0, b'I am smtpfront-qmail'),
    ('tls-chain.7', 0, b'I am qmail-smtpd'), ('tls-chain.7', 1, b'I am qmail-smtpd'),
    ('tls-chain-services.7', 0, b'I am qmail-smtpd'),
    ('tls-chain-services.7', 1, b'I am qmail-smtpd'),
    ('tls-engine-open.1', 0, b'I am smtpfront-qmail'),
    ('tls-engine-open.1', 1, b'I am publicfile'),
    ('tls-peek.1', 0, b'I am publicfile'),
    ('tls-peek.1', 1, b'I am publicfile'),
    ('tls-ctl-open.1', 0, b'I am smtpfront-echo'), ('tls-ctl-open.1', 1, b'I am smtpfront-echo'),
    ('tls-await.1', 0, b'I am smtpfront-qmail'),
    ('tls-await.1', 1, b'I am smtpd'),
    ('tls-ctl-start.1', 0, b'words'),
    ('tls-handshake.1', 0, b'I am publicfile'),
    ('tls-handshake.1', 1, b'I am console'), ('tls-handshake.1', 2, b'I am console'),
    ('tls-handshake.1', 3, b'I am news'),
    ('tls-io.1', 0, b'words'),
    ('tls-io.1', 2, b'I am smtpd'),
]

CLIENTS = [('tls-handshake.1', 4), ('tls-io.1', 1)]

ENGINE, ITS_SERVER = ('tls-engined.8', 0), ('tls-engined.8', 1)


@test('every script in the pages is one that is tried here')
def _():
    shown = [(name, i) for name in [*PAGES, 'README.md'] for i in range(len(scripts(name)))]
    is_equal(sorted(shown), sorted([s[:2] for s in SERVERS] + CLIENTS + [ENGINE, ITS_SERVER]))


def server_script(name, number, wanted):
    @test('%s, script %d: serves a client' % (name, number + 1))
    def _():
        text = scripts(name)[number]
        client, server = tcp_pair()
        env = server_env(CAFILE=pki() + '/ca.pem')
        if 'SSL_TLS_SNI_SERVERNAME' in text:
            env['TLS_SNI'] = 'require'
            for key in 'chat', 'news':
                env['KEYFILE:%s.example.org' % key] = env['KEYFILE']
                env['CERTFILE:%s.example.org' % key] = env['CERTFILE']
        c, _ = run_script(text, server, env)
        if 'read line' in text:
            client.sendall(b'STARTTLS\n')
            is_equal(client.recv(100), b'go ahead\n')
        peer = Peer(client, name='news.example.org', cert='client').handshake()
        if wanted == b'words':
            peer.send(wanted)
        is_equal(peer.end_politely(), (wanted, 'close_notify'))
        is_equal(c.wait(), 0)


for script in SERVERS:
    server_script(*script)


@test('tls-chain.7: the first service, as it is printed, and both looks at it')
def _():
    need('tcpserver', 's6-envdir', 'openssl')
    make, look = [text for text in shown_in('tls-chain.7')
                  if text.startswith(('apt-get ', 'export CAFILE'))]
    d, port = temp_dir(), str(free_port())
    env = {**sanitizers(), 'PATH': ':'.join([BIN, EXAMPLES, os.environ['PATH']])}

    def shell(script, **kw):
        return subprocess.Popen(['sh', '-e', '-c', script.replace('4433', port)], env=env,
                                cwd=d, **kw)
    server = shell(make.partition('\n')[2] + 'wait\n', stdin=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: port_is_open(int(port)), 'the service')
        p = shell('cd hello\n' + look, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                  stderr=subprocess.PIPE, text=True)
        out, err = p.communicate(timeout=50 * SLOW)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    is_equal((p.returncode, out.splitlines()[-2:]),
             (0, ['verified    yes, for localhost', 'you said hello']), err)


@test('tls-handshake.1: the policies refuse who is not listed, and what is no client certificate')
def _():
    for number, name in (1, 'client2'), (2, 'server'):
        client, server = tcp_pair()
        c, _ = run_script(scripts('tls-handshake.1')[number], server,
                          server_env(CAFILE=pki() + '/ca.pem'))
        is_equal(Peer(client, cert=name).handshake().recv_all(), (b'', 'eof'))
        is_equal(c.wait(), 1)


@test('tls-handshake.1: the hash of a certificate is what a session tells of it')
def _():
    command = re.search(r'^(openssl x509 .*?)^\.Ed', page('tls-handshake.1'), re.M | re.S)[1]
    p = subprocess.run(['sh', '-c', command], cwd=pki(), stdout=subprocess.PIPE, text=True)
    is_equal(p.stdout, cert_hash('client') + '\n')


@test('tls-handshake.1: the client asks for a page and shows it')
def _():
    client, server = tcp_pair()
    c, _ = run_script(scripts('tls-handshake.1')[4], client, {'CAFILE': pki() + '/ca.pem'}, True)
    peer = Peer(server, client=False, cert='server').handshake()
    request = b'GET / HTTP/1.0\r\n\r\n'
    is_equal(peer.recv(len(request)), request)
    peer.send(b'a page')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'a page')


@test('tls-io.1: the client keeps a whole file, and no file that was cut')
def _():
    for end, wanted in ('end_politely', ['list']), ('shutdown', ['list.new']):
        client, server = tcp_pair()
        c, d = run_script(scripts('tls-io.1')[1], client, {'CAFILE': pki() + '/ca.pem'}, True)
        peer = Peer(server, client=False, cert='server').handshake()
        peer.send(b'a file')
        getattr(peer, end)()
        c.wait()
        is_equal([name for name in os.listdir(d) if name.startswith('list')], wanted)


class Service:
    """The service of tls-engined(8), in a directory of the test."""

    def __init__(self):
        need('execlineb', 's6-envdir', 's6-supervise', 's6-svok', 's6-svstat', 's6-svwait',
             's6-ipcserver-socketbinder')
        self.dir = temp_dir()
        install(self.dir + '/run', self.here(scripts(ENGINE[0])[ENGINE[1]]))
        install(self.dir + '/notification-fd', '3\n')
        user = str(os.getuid() or 65534)
        for name, value in {'KEYFILE': self.dir + '/key', 'CERTFILE': self.dir + '/cert',
                            'TLS_UID': user, 'TLS_GID': str(os.getgid() or 65534)}.items():
            install(self.dir + '/env/' + name, value)
        self.renew('server')
        self.supervisor = Chain(['s6-supervise', self.dir])
        wait_for(lambda: not subprocess.call(['s6-svok', self.dir]), 's6-supervise')
        self.command('svwait')

    def here(self, text):
        text = text.replace('/run/tls-engined/socket', self.dir + '/socket')
        text = text.replace('-t 5000', '-t %d' % (30000 * SLOW))  # a busy machine
        return text.replace('/run/service/tls-engined', self.dir)

    def command(self, *words):
        """Runs the command of the page that begins so."""
        command = re.search(r'^s6-%s .*$' % ' '.join(words), page('tls-engined.8'), re.M)[0]
        is_equal(subprocess.call(self.here(command).split()), 0, command)

    def renew(self, name):
        for suffix, file in ('pem', 'cert'), ('key', 'key'):
            with open('%s/%s.%s' % (pki(), name, suffix)) as f:
                install(self.dir + '/' + file, f.read())

    def pid(self):
        """The engine's, if it is ready."""
        said = subprocess.check_output(['s6-svstat', '-o', 'ready,pid', self.dir], text=True)
        return said.split()[1] if said.startswith('true') else None

    def serve(self):
        """Serves a client through the server's script; the certificate and the version used."""
        client, server = tcp_pair()
        c, _ = run_script(self.here(scripts(ITS_SERVER[0])[ITS_SERVER[1]]), server, {})
        peer = Peer(client).handshake()
        found = peer.tls.getpeercert(True), peer.tls.version()
        is_equal(peer.end_politely(), (b'I am smtpfront-qmail', 'close_notify'))
        is_equal(c.wait(), 0)
        return found


def certificate(name):
    return openssl('x509', '-in', '%s/%s.pem' % (pki(), name), '-outform', 'DER')


@test('tls-engined.8: the service is up, serves the server, takes a new certificate, restarts')
def _():
    service = Service()
    is_equal(service.serve(), (certificate('server'), 'TLSv1.3'))
    is_equal(os.stat(service.dir + '/socket').st_mode & 0o777, 0o600, 'mode of the socket')
    service.renew('a')
    service.command('svc', '-h')
    wait_for(lambda: service.serve()[0] == certificate('a'), 'the new certificate')
    old = service.pid()
    install(service.dir + '/env/TLS_PROTOCOLS', 'tlsv1.2')
    service.command('svc', '-r')
    wait_for(lambda: service.pid() not in (None, old), 'the service to be ready again')
    is_equal(service.serve(), (certificate('a'), 'TLSv1.2'))
    subprocess.check_call(['s6-svc', '-dx', service.dir])
    is_equal(service.supervisor.wait(), 0)


run()
