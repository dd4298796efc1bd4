#!/usr/bin/env python3
# ISC licence: see COPYING.
# tools/bench and tools/bench-page: a very short run, and the page of it.

import html.parser
import json
import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, need
from pki import pki
from scratch import temp_dir
from tap import Skip, is_equal, is_true, run, test

OURS = ['tls-chain', 'tls-chain, own engine', 'tls-chain, tls-engined']
VOID = {'meta', 'link', 'br', 'rect', 'path'}
_run = None


def bench(*args, **env):
    env = {**{k: v for k, v in os.environ.items() if k not in ('S6NET', 'MUSL')}, **env}
    return subprocess.run([TOP + '/tools/bench', *args], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding='utf-8')


def run_of_bench():
    """What a short run said, and the file with its figures."""
    global _run
    if os.environ.get('TEST_VALGRIND') or os.environ.get('TEST_SANITIZE'):
        raise Skip('measures nothing here')
    need('tcpserver', 's6-ipcserver-socketbinder', 's6-envdir', 'cc', 'openssl')
    if not _run:
        path = pki() + '/bench.json'
        p = bench('--quick', '-r', '1', '-n', '2', '-m', '1', '-t', '20', '-k', '2',
                  '--json', path, *OURS)
        is_equal(p.returncode, 0, 'exit code; said:\n' + p.stderr)
        is_equal(p.stderr, '')
        _run = p.stdout, path
    return _run


def figures():
    """{section: {contender: {head: median}}}"""
    with open(run_of_bench()[1], encoding='utf-8') as f:
        run = json.load(f)
    return {s['name']: {name: {head: figure['median'] for head, figure in row.items()}
                        for name, row in s['rows'].items()} for s in run['sections']}


@test('a short run ends well, and measures everything', 240)
def _():
    run_of_bench()
    found = figures()
    is_equal(sorted(found), ['bulk', 'delayed', 'held', 'names', 'plain', 'rate', 'session',
                             'stage', 'trips'])
    only = {'stage': OURS[:1], 'names': OURS[1:2]}
    for section, rows in found.items():
        contenders = [name for name in rows if not name.startswith('empty program')]
        is_equal(contenders, only.get(section, OURS), section)
        is_equal({len(row) for row in rows.values()}, {len(rows[contenders[0]])}, section)


@test('the figures are such as can be')
def _():
    found = figures()
    for name in OURS:
        for section, least, most in (
            ('session', 0.1, 1000),   # ms
            ('delayed', 0.1, 1000),
            ('rate', 0.1, 10000),     # a second
            ('bulk', 0.01, 10000),    # MB/s, s/GB
            ('trips', -1e5, 1e6),     # a second, and µs beside the noise of a session
            ('plain', 5, 20000),      # KB
            ('held', 50, 20000),
        ):
            for head, value in found[section][name].items():
                is_true(least < value < most, '%s, %s, %s: %s' % (section, name, head, value))
    for name, row in found['stage'].items():
        for head, value in row.items():
            is_true(-1e5 < value < 1e5, '%s, %s: %s µs' % (name, head, value))  # of few runs
    opened, own, resident = (found['plain'][name]['at 2 (KB)'] for name in OURS)
    is_true(own < opened and own < resident, 'an engine for all is counted')


@test('the table has a line for each contender, and names the cipher')
def _():
    text, _ = run_of_bench()
    rows = re.findall(r'^(tls-chain(?:, own engine|, tls-engined)?)  +-?\d', text, re.M)
    is_equal({name: rows.count(name) for name in OURS}, {OURS[0]: 8, OURS[1]: 8, OURS[2]: 7})
    is_true(text.endswith('\nTLSv1.3 TLS_AES_128_GCM_SHA256\n'), 'one cipher for all')


class Page(html.parser.HTMLParser):
    """Fails if an element is not ended where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        is_equal(self.open, [], 'elements that are not ended')

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == 'id':
                self.ids.append(value)
            elif name in ('href', 'src'):
                self.links.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        is_equal(tag, self.open and self.open.pop(), 'what ends')


def check_page(text):
    page = Page(text)
    is_equal(len(page.ids), len(set(page.ids)), 'ids are there once')
    is_true('script' not in page.tags, 'no script')
    for link in page.links:
        file, _, anchor = link.partition('#')
        is_true(not file or os.path.exists(os.path.join(TOP, 'doc', 'html', file)), link)
        is_true(not anchor or anchor in page.ids, link)
    return page


@test('tools/bench-page makes a page of it: well-formed, every link good, nothing of this machine')
def _():
    _, path = run_of_bench()
    p = subprocess.run([TOP + '/tools/bench-page', path], stdout=subprocess.PIPE, check=True)
    text = p.stdout.decode()
    page = check_page(text)
    is_equal(page.tags.count('svg'), 21, 'charts')
    is_equal(page.tags.count('table'), 10, 'tables')
    for name in TOP, os.uname().nodename, os.path.dirname(path):
        is_true(name not in text, 'not in it: ' + name)


@test('the page in doc/html is well-formed, too')
def _():
    with open(TOP + '/doc/html/benchmark.html', encoding='utf-8') as f:
        check_page(f.read())


@test('what fails is told in one line, and the run goes on')
def _():
    run_of_bench()
    d = temp_dir()
    os.symlink('/bin/false', d + '/stunnel')
    p = bench('--quick', '-n', '1', '-s', 'session', 'stunnel', 'tls-chain',
              PATH=d + ':' + os.environ['PATH'])
    is_equal(p.returncode, 0)
    is_true(re.fullmatch('bench: stunnel, session: .*\n', p.stderr), p.stderr)
    is_true(re.search('^tls-chain +[0-9.]+ ±[0-9]+%$', p.stdout, re.M), p.stdout)


@test('a wrong option or name is refused')
def _():
    for args in ['-s', 'nothing'], ['-n', '0'], ['--keys', 'dsa'], ['no-such-contender']:
        p = bench(*args)
        is_true(p.returncode and p.stderr, ' '.join(args))
        is_equal(p.stdout, '')
    p = bench('--quick', MUSL='--with-nonsense')
    is_true(p.returncode and re.fullmatch('bench: fatal: no stages with musl: .*\n', p.stderr),
            p.stderr)


run()
