#!/usr/bin/env python3
# ISC licence: see COPYING.
# The documentation: well-formed, current, and true of the programs; its examples run.

import html.parser
import os
import re
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, TOP, Chain, need, without_pid
from peer import Peer
from pki import cert_hash, openssl, pki, server_env
from scratch import temp_dir
from sockets import tcp_pair
from tap import SLOW, is_equal, is_true, run, test, wait_for

MAN = os.path.join(TOP, 'doc', 'man')
HTML = os.path.join(TOP, 'doc', 'html')
PAGES = sorted(os.listdir(MAN))


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as f:
        return f.read()


def page(name):
    return read('doc', 'man', name)


def targets(variable):
    return re.search(r'^%s := (.*)$' % variable, read('package', 'targets.mak'), re.M)[1].split()


def programs():
    """(name, page, source) of each program that users run."""
    return ([(p, p + '.1', 'src/chain/%s.c' % p) for p in targets('BIN_TARGETS')]
            + [(p, p + '.8', 'src/tls/%s.c' % p) for p in targets('ENGINE_TARGETS')])


def section(text, name):
    return re.search(r'^\.Sh %s\n(.*?)(?=^\.Sh |\Z)' % name, text, re.M | re.S)[1]


# Form

@test('mandoc finds nothing to say against any page')
def _():
    need('mandoc')
    # There, so that pages that refer to each other are found; not what it says of its database.
    said = subprocess.run(['mandoc', '-T', 'lint', *PAGES], cwd=MAN, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout
    is_equal(said, '')


@test('nor does groff, which man uses')
def _():
    for page in PAGES:
        # groff 1.22 takes it; to those after it the width ends there.
        is_equal(re.findall(r"^\.Bl -column .*'.*", read('doc', 'man', page), re.M), [], page)
    need('groff')
    for page in PAGES:
        said = subprocess.run(['groff', '-mdoc', '-ww', '-Tutf8', '-z', page], cwd=MAN,
                              stderr=subprocess.PIPE, text=True).stderr
        is_equal(said, '')


@test('doc/html is what tools/doc.sh makes of the pages')
def _():
    need('mandoc')
    d = temp_dir()
    subprocess.run([os.path.join(TOP, 'tools', 'doc.sh'), d], check=True,
                   env={**os.environ, 'LC_ALL': 'C.UTF-8', 'TZ': 'Asia/Tokyo'})
    is_equal(sorted(os.listdir(HTML)), sorted([*os.listdir(d), 'benchmark.html']), 'files')
    for name in os.listdir(d):
        with open(os.path.join(d, name), encoding='utf-8') as f:
            is_true(f.read() == read('doc', 'html', name), '%s is not current: make doc' % name)


class Links(html.parser.HTMLParser):
    def __init__(self, name):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(read('doc', 'html', name))

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        is_true(tag != 'script', 'a page without scripts')
        if 'id' in a:
            is_true(a['id'] not in self.ids, 'id %s is there once' % a['id'])
            self.ids.add(a['id'])
        self.links.add(a.get('href') or a.get('src'))


@test('every link in doc/html leads somewhere')
def _():
    pages = {name: Links(name) for name in os.listdir(HTML) if name.endswith('.html')}
    is_equal(len(pages), len(PAGES) + 2, 'pages, the index, the benchmark')
    for name, p in pages.items():
        for link in p.links - {None}:
            if re.match('https?://', link):
                continue
            what = '%s leads to %s' % (name, link)
            to, _, fragment = link.partition('#')
            is_true(os.path.exists(os.path.join(HTML, to or name)), what)
            is_true(not fragment or fragment in pages[to or name].ids, what)


# Truth

@test('every program has a page, and the overview tells of it')
def _():
    wanted = [p for _, p, _ in programs()] + [p + '.8' for p in targets('LIBEXEC_TARGETS')]
    is_equal(sorted(p for p in PAGES if not p.endswith('.7')), sorted(wanted), 'pages of programs')
    for p in PAGES:
        is_true('.Xr %s %s' % tuple(p.rsplit('.', 1)) in page('tls-chain.7') or p == 'tls-chain.7',
                'the overview leads to ' + p)


def usage_of_page(name, its_page):
    """The synopsis of a page, in the form of a usage line."""
    words, macro = [name], ''
    for line in section(page(its_page), 'SYNOPSIS').splitlines():
        line = line.removeprefix('.').split()
        optional = line[0] == 'Op'
        words += ['['] * optional
        for word in line[optional:]:
            if word in ('Nm', 'Fl', 'Ar', 'No'):
                macro = word
            else:
                words.append('-' + word if macro == 'Fl' and word != '|' else word)
        words += [']'] * optional
    return ' '.join(words)


@test('every usage line is the synopsis of the page')
def _():
    env = {k: v for k, v in os.environ.items() if k != 'TLS_PLAINRFD'}
    for name, its_page, _ in programs():
        p = subprocess.run([os.path.join(BIN, name), '-_'], stdin=subprocess.DEVNULL, env=env,
                           stderr=subprocess.PIPE, text=True)
        is_equal(p.returncode, 100, name)
        is_equal(without_pid(p.stderr), '%s: usage: %s\n' % (name, usage_of_page(name, its_page)))


@test('every option in the code is described in the page, and no other')
def _():
    for name, its_page, source in programs():
        options = re.search(r'subgetopt_r\([^"]*"([^"]*)"', read(source))[1]
        described = re.findall(r'^\.It Fl (\w)( Ar \w+)?$', page(its_page), re.M)
        is_equal(sorted(o + ':' * bool(a) for o, a in described),
                 sorted(re.findall(r'\w:?', options)), name)


def variables_described():
    described = set()
    for line in re.findall(r'^\.It Ev (.*)$', page('tls-chain-environment.7'), re.M):
        described |= {re.sub(':.*', ':', word) for word in line.split() if word != ','}
    return described


@test('every variable that the programs read, set or remove is described, and no other')
def _():
    arrays = re.findall(r'^static char const \*const \w+\[\] =\s*\{(.*?)\};',
                        read('src', 'chain', 'chain_env.c'), re.M | re.S)
    known = set(re.findall(r'"([A-Z_]+:?)"', ' '.join(arrays)))
    known |= set(re.findall(r'= "(SSL_\w+)"', read('src', 'session', 'session_facts.c')))
    known |= set(re.findall(r'"(\w+REMOTE\w+|PROTO)"', read('src', 'chain', 'chain_peer.c')))
    is_true({'KEYFILE', 'SSLCTLFD', 'TLS_CTLFD', 'SSL_CIPHER'} <= known, 'the lists are read')
    is_equal(sorted(variables_described()), sorted(known))
    for room in 'chain', 'tls':
        for name in os.listdir(os.path.join(TOP, 'src', room)):
            if name.endswith('.c'):
                used = set(re.findall(r'getenv\("(\w+)"\)', read('src', room, name)))
                is_equal(used - known, set(), 'what %s reads and chain_env.c does not know' % name)


@test('every exit code is described')
def _():
    codes = set(re.findall(r'^  EXIT_\w+ = (\d+),', read('src', 'session', 'session.h'), re.M))
    described = set(re.findall(r'^\.It (\d+)$', page('tls-chain-environment.7'), re.M))
    is_equal(described, codes | {'0', '126', '127'})


@test('the default ciphers are those of the page')
def _():
    code = re.search(r'default_ciphers\[\] =\n(.*?);', read('src', 'tls', 'settings.c'), re.S)[1]
    ciphers = ''.join(re.findall('"(.*)"', code))
    shown = re.search(r'^\.It Ev TLS_CIPHERS$.*?^\.Bd -literal\n(.*?)^\.Ed', page(
        'tls-chain-environment.7'), re.M | re.S)[1]
    is_equal(shown.replace('\n', ''), ciphers)


@test('the default curves are those of the page')
def _():
    code = re.search(r'#define HYBRID "(.*)"\n.* default_curves\[\] = HYBRID "(.*)";',
                     read('src', 'tls', 'settings.c'))
    shown = re.search(r'^\.It Ev TLS_CURVES$.*?^\.It', page('tls-chain-environment.7'), re.M | re.S)
    lists = re.findall(r'^\.Li (.*,P-384) ', shown[0], re.M)
    is_equal(lists, [code[1] + code[2], code[2].lstrip(',')])


@test('the limits and the messages in tls-engined(8) are those of the code')
def _():
    text = page('tls-engined.8')
    code = ''.join(read('src', room, name) for room in ('chain', 'tls')
                   for name in os.listdir(os.path.join(TOP, 'src', room)) if name.endswith('.c'))
    is_true('The default is %s.' % re.search(r'\.max = (\d+)', code)[1] in text, '-m')
    is_true('at most %s workers' % re.search(r'WORKERS = (\d+)', code)[1] in text, 'workers')
    is_true('%s seconds' % re.search(r'START_SECONDS = (\d+)', code)[1] in text, 'START')
    messages = [m for p in (text, page('tls-engine-open.1'))
                for m in re.findall(r'^\.It (.*)$', section(p, 'DIAGNOSTICS'), re.M)]
    is_true(len(messages) > 14, 'messages')
    names = r' ?\b(?:VARIABLE|KEYFILE|PATH|REASON|PID|NUMBER|TLS_ENGINE|TLS_ENGINEFD)\b:? ?'
    for message in messages:
        head = r'^tls-engined?: \w+: (unable to )?|^unable to start TLS: |: Connection.*'
        message = re.sub(head, '', message)
        for part in re.split(names, message):
            is_true(part in code, '%r is in the code' % part)


def wire_example(who):
    """The messages of that side in the example of tls-session(7)."""
    text = section(page('tls-session.7'), 'EXAMPLES')
    found = []
    for name, dump in re.findall(r'^(chain|engine) ((?: .*\n)*? .*\n)(?! )', text, re.M):
        lines = (re.match(r'(?:\s+[0-9a-f]{2}(?!\S))+', line)[0] for line in dump.splitlines())
        if name == who:
            found.append(bytes.fromhex(''.join(lines)))
    return found


@test('the example of tls-session(7) is what an engine takes and gives')
def _():
    client, server = tcp_pair()
    ours, its = socket.socketpair()
    with ours, its:
        engine = Chain(['tls-engine'], its, env=server_env())
        ours.settimeout(30 * SLOW)
        start, join = wire_example('chain')
        facts, joined, ended = wire_example('engine')
        socket.send_fds(ours, [start], [server.fileno(), server.fileno()])
        server.close()
        peer = Peer(client).handshake()
        is_equal(ours.recv(len(facts), socket.MSG_WAITALL), facts, 'FACTS')
        (app_r, its_w), (its_r, app_w) = os.pipe(), os.pipe()
        socket.send_fds(ours, [join], [its_r, its_w])
        os.close(its_r)
        os.close(its_w)
        is_equal(ours.recv(len(joined), socket.MSG_WAITALL), joined, 'JOINED')
        os.write(app_w, b'hello')
        os.close(app_w)
        peer.send(b'abc')
        is_equal(peer.end_politely(), (b'hello', 'close_notify'))
        is_equal(os.read(app_r, 10), b'abc')
        os.close(app_r)
        is_equal(ours.recv(len(ended), socket.MSG_WAITALL), ended, 'ENDED')
        is_equal(ours.recv(1), b'')
        is_equal(engine.wait(), 0)


@test('the limits in tls-session(7) are those of the code')
def _():
    text = page('tls-session.7')
    header = read('src', 'session', 'session.h')
    limit = dict(re.findall(r'^#define SESSION_(\w+) (\d+)', header, re.M))
    is_true('This is version %s.' % limit['VERSION'] in text, 'version')
    is_true('between 1 and %s.' % limit['MAX'] in text, 'length of a message')
    for what in 'NAME_MAX', 'PEER_MAX', 'TEXT_MAX', 'FACT_MAX':
        is_true('.It 0-%s Ta' % limit[what] in text, what)
    for name, letter in re.findall(r"SESSION_(\w+) = '(\w)'", header):
        is_true(re.search(r'^\.Ss %s$.*?^\.It 1 Ta Sq Li %s$' % (name, letter), text, re.M | re.S),
                'the letter of ' + name)
    names = re.findall(r'"(SSL_\w+)"', read('src', 'session', 'session_facts.c'))
    is_equal(re.findall(r'^\.It (\d+) Ta Ev (\w+)$', text, re.M),
             [(str(i), name) for i, name in enumerate(names)], 'numbers of facts')


# Examples: each script of the pages, on a connection of the test in place of a UCSPI server's.

def scripts(name):
    """The execline scripts in a page, as they are shown."""
    shown = re.findall(r'^\.Bd -literal.*?\n(.*?)^\.Ed', page(name), re.M | re.S)
    shown = [s.replace('\\e', '\\').replace('\\&', '') for s in shown]
    return [s for s in shown if s.startswith(('#!/usr/bin/execlineb', 'tls-ctl-open\n'))]


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
    tls = d + ('/tls/127.0.0.1/' if 'TCPLOCALIP' in text else '/tls/')
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
    ('tls-chain.7', 0, b'I am qmail-smtpd'), ('tls-chain.7', 1, b'I am qmail-smtpd'),
    ('tls-engine-open.1', 0, b'I am smtpfront-qmail'),
    ('tls-engine-open.1', 1, b'I am publicfile'),
    ('tls-ctl-open.1', 0, b'I am smtpfront-echo'), ('tls-ctl-open.1', 1, b'I am smtpfront-echo'),
    ('tls-await.1', 0, b'I am smtpfront-echo'),
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
    shown = [(name, i) for name in PAGES for i in range(len(scripts(name)))]
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
