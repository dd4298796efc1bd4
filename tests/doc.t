#!/usr/bin/env python3
# ISC licence: see COPYING.
# The documentation: well-formed, current, and true of the programs.

import html.parser
import os
import re
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, TOP, Chain, need, without_pid
from pages import PAGES, page
from peer import Peer
from pki import server_env
from scratch import temp_dir
from sockets import tcp_pair
from tap import SLOW, Skip, is_equal, is_true, run, test
from tree import targets

MAN = os.path.join(TOP, 'doc', 'man')
HTML = os.path.join(TOP, 'doc', 'html')


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as f:
        return f.read()


def programs():
    """(name, page, source) of each program that users run."""
    return ([(p, p + '.1', 'src/chain/%s.c' % p) for p in targets('BIN_TARGETS')]
            + [(p, p + '.8', 'src/tls/%s.c' % p) for p in targets('ENGINE_TARGETS')])


def commands():
    """(name, page, source) of each script that users run."""
    return [(p, p + '.1', 'examples/' + p) for p in targets('COMMANDS')]


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
    need('mandoc', 'cmark-gfm')
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
    is_equal(len(pages), len(PAGES) + 3, 'pages, the index, the examples, the benchmark')
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
    wanted = ([p for _, p, _ in programs() + commands()]
              + [p + '.8' for p in targets('LIBEXEC_TARGETS')])
    is_equal(sorted(p for p in PAGES if not p.endswith(('.3', '.7'))), sorted(wanted),
             'pages of programs')
    for p in PAGES:
        link = r'^\.(It )?Xr %s %s\b' % tuple(map(re.escape, p.rsplit('.', 1)))
        is_true(re.search(link, page('tls-chain.7'), re.M) or p == 'tls-chain.7',
                'the overview leads to ' + p)


def usage_of_page(name, its_page):
    """The synopsis of a page, in the form of a usage line."""
    words, macro = [name], ''
    for line in section(page(its_page), 'SYNOPSIS').splitlines():
        line = line.removeprefix('.').split()
        optional = line[0] == 'Op'
        words += ['['] * optional
        for word in line[optional:]:
            if word == 'Op':
                words.append('[')
                optional += 1
            elif word in ('Nm', 'Fl', 'Ar', 'No'):
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
    for name, its_page, source in commands():
        said = subprocess.run([TOP + '/' + source, '-h'], stdout=subprocess.PIPE, text=True).stdout
        is_equal(said, 'usage: %s\n' % usage_of_page(name, its_page))


@test('every option in the code is described in the page, and no other')
def _():
    for name, its_page, source in programs() + commands():
        options = re.search(r'subgetopt_r\([^"]*"([^"]*)"|getopts (\S*) opt|$', read(source))
        options = (options[1] or options[2] or '').removesuffix('hV')
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
        if 'CHACHA20' in peer.tls.cipher()[0]:
            raise Skip('this libtls prefers another cipher than the example has')
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


run()
