#!/usr/bin/env python3
# ISC licence: see COPYING.
# tls-ctl-open: its options, its errors, and what it gives to either side.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import PYTHON, Chain, delayed, dies, dies_of_usage
from proc import children
from processes import orphan_exit_code
from scratch import temp
from tap import is_equal, is_true, run, test
from ucspi import APP_FDS, FACTS, NETIDS, PLUMBING, SETTINGS, application

# A TLS side that tells what comes on the control socket and through the pipe, and answers both.
TLS_SIDE = PYTHON + ['''
import os
ctl, r, w = (int(os.environ[n]) for n in ('TLS_CTLFD', 'TLS_PLAINRFD', 'TLS_PLAINWFD'))
os.write(ctl, b'<' + os.read(ctl, 100) + b'>')
os.write(w, b'[' + os.read(r, 100) + b']')
''']


def variables_of(argv):
    """The variables that a program like env has written."""
    c = Chain(argv, env={n: 'outer' for n in SETTINGS + PLUMBING + FACTS + APP_FDS + NETIDS})
    is_equal(c.wait(), 0, 'exit code')
    return dict(line.split('=', 1) for line in c.stderr().splitlines())


@test('an unknown option, or nothing at all: 100, and the usage')
def _():
    for argv in [], ['-x'], ['-x', ' tls-await', '', 'true']:
        dies_of_usage(Chain(['tls-ctl-open', *argv]))


@test('a block that is empty, or has no end, or has no program after it: 100, and which it is')
def _():
    for argv, reason in (
            (['', 'echo', 'ran'], 'empty block: tls-await, tls-handshake and tls-io go into it'),
            ([' tls-await', ' -r', 'echo', 'ran'],
             'unterminated block: { and } make one in execline only, not in sh'),
            ([' tls-await', ''], 'no program after the block: the application goes there')):
        for options in [], ['-D'], ['-Z']:
            dies(Chain(['tls-ctl-open', *options, *argv]), 100, 'tls-ctl-open: fatal: ' + reason)


@test('a TLS side that cannot be run: 127 or 126 at once, and the application is not run')
def _():
    for options in [], ['-D']:
        dies(Chain(delayed(['echo', 'ran'], ['nonesuch', 'tls-io'], options)), 127,
             'tls-ctl-open: fatal: unable to exec the TLS side nonesuch: '
             'No such file or directory')
        f = temp(b'not executable')
        dies(Chain(delayed(['echo', 'ran'], [f], options)), 126,
             'tls-ctl-open: fatal: unable to exec the TLS side %s: Permission denied' % f)


@test('an application that cannot be run: 127 or 126, and the TLS side ends with 0')
def _():
    for prog, code, reason in (('nonesuch', 127, 'No such file or directory'),
                               (temp(b'not executable'), 126, 'Permission denied')):
        c = Chain(delayed([prog], ['tls-await', 'echo', 'the TLS side went on']))
        dies(c, code, 'tls-ctl-open: fatal: unable to exec %s: %s' % (prog, reason))
        is_equal([orphan_exit_code(pid) for pid in children()], [0], 'exit codes of the TLS side')
        is_true('went on' not in c.stderr(), 'the TLS side waited for the application')


@test('a byte on SSLCTLFD and data on SSLWRITEFD reach the TLS side, and its answers come back')
def _():
    c = Chain(delayed(application('''
os.write(ctl, b'Y')
print(os.read(ctl, 100), flush=True)
os.write(w, b'hello')
print(os.read(r, 100), flush=True)
print(read_all(ctl), read_all(r))
'''), TLS_SIDE))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), "b'<Y>'\nb'[hello]'\nb'' b''\n", 'what the application got')


@test('the application sees the end of all three channels when the TLS side dies')
def _():
    for options in [], ['-D']:
        c = Chain(delayed(application('''
print(read_all(ctl), read_all(r))
try:
    os.write(w, b'x')
except BrokenPipeError:
    print('broken pipe')
'''), ['sh', '-c', 'kill -9 $$'], options))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), "b'' b''\nbroken pipe\n", 'what the application saw')


@test('the TLS side sees the end of all three channels when the application dies')
def _():
    out = temp()
    c = Chain(delayed(['true'], PYTHON + ['''
import os, sys
ctl, r, w = (int(os.environ[n]) for n in ('TLS_CTLFD', 'TLS_PLAINRFD', 'TLS_PLAINWFD'))
seen = [os.read(ctl, 1), os.read(r, 1)]
try:
    os.write(w, b'x')
except BrokenPipeError:
    seen.append('broken pipe')
with open(sys.argv[1], 'w') as f:
    print(*seen, file=f)
''', out]))
    is_equal(c.wait(), 0)
    is_equal([orphan_exit_code(pid) for pid in children()], [0], 'exit codes of the TLS side')
    with open(out) as f:
        is_equal(f.read(), "b'' b'' broken pipe\n", 'what the TLS side saw')


@test('the application keeps the pid')
def _():
    for options in [], ['-D']:
        c = Chain(delayed(['sh', '-c', 'echo $$'], ['tls-await', 'true'], options))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '%d\n' % c.pid, 'pid of the application')


WAIT_FOR_ALL = '''
os.write(ctl, b'Y')
ended = 0
try:
    while True:
        os.wait()
        ended += 1
except ChildProcessError:
    print(ended, 'children')
'''


@test('an application that waits for all its children finds none; with -D it finds the TLS side')
def _():
    for options, found in ([], '0 children\n'), (['-D'], '1 children\n'):
        c = Chain(delayed(application(WAIT_FOR_ALL), ['tls-await', 'true'], options))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), found, 'children found with %r' % options)


@test('the application gets the numbers of its descriptors, and no setting of the TLS side')
def _():
    found = variables_of(delayed(['env'], ['tls-await', 'true']))
    for n in APP_FDS:
        is_true(found.pop(n).isdigit(), n + ' is a number')
    is_equal([n for n in found if n in SETTINGS + PLUMBING + FACTS + NETIDS], [], 'variables left')
    is_true('PATH' in found, 'other variables are left alone')


@test('-Z leaves the settings of the TLS side to the application, and no more than them')
def _():
    for options in ['-Z'], ['-ZD'], ['-Z', '-D']:
        found = variables_of(delayed(['env'], ['tls-await', 'true'], options))
        is_equal({n: v for n, v in found.items() if n in SETTINGS + PLUMBING + FACTS + NETIDS},
                 {n: 'outer' for n in SETTINGS}, 'variables left')
        for n in APP_FDS:
            is_true(found[n].isdigit(), n + ' is a number')


@test('only variables of that very name are taken away')
def _():
    others = ['KEYFILES', 'XKEYFILE', 'KEYFIL', 'CERTFILE_A', 'CAFILE:x', 'TLS_UIDS', 'TLS_U',
              'SSL_PROTOCOLS', 'SSLCTLFDS', 'TLS_', 'SSL']
    c = Chain(delayed(['env'], ['tls-await', 'true']), env={n: 'mine' for n in others})
    is_equal(c.wait(), 0)
    found = [line.split('=')[0] for line in c.stderr().splitlines()]
    is_equal([n for n in others if n not in found], [], 'taken away')


@test('the TLS side gets the numbers of its descriptors and the settings, not the other side\'s')
def _():
    # Each program on the TLS side sees the same environment; the first is as good as any.
    found = variables_of(delayed(application('read_all(r)'), ['env']))
    for n in 'TLS_CTLFD', 'TLS_PLAINRFD', 'TLS_PLAINWFD':
        is_true(found[n].isdigit(), n + ' is a number')
    is_equal([n for n in found if n in APP_FDS + NETIDS + PLUMBING[4:]], [],
             'variables of others')
    is_equal([n for n in SETTINGS if found.get(n) != 'outer'], [], 'settings lost')


run()
