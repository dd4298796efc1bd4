#!/usr/bin/env python3
# ISC licence: see COPYING.
# The house rules that a machine can check, by reading the tree: rooms, sizes, build files.

import ast
import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP
from tap import is_equal, is_true, run, test
from tree import targets

# What a file of a room may include, and link.
ROOMS = {
    'src/session': {'src/session'},
    'src/tlsctl': {'src/tlsctl'},
    'src/chain': {'src/chain', 'src/session', 'src/tlsctl'},
    'src/tls': {'src/tls', 'src/session'},
}


def sources(*dirs):
    """The text files below these directories, less what is built and what is data."""
    for base in dirs:
        for d, subdirs, names in os.walk(os.path.join(TOP, base)):
            subdirs[:] = [s for s in subdirs if s not in ('bin', 'corpus', '__pycache__')]
            for path in (os.path.join(d, name) for name in sorted(names)):
                with open(path, 'rb') as f:
                    if b'\0' not in f.read():
                        yield os.path.relpath(path, TOP)


def lines(path):
    """(number, line) of each line of a file."""
    with open(os.path.join(TOP, path)) as f:
        return list(enumerate(f.read().splitlines(), 1))


def matches(pattern, *dirs):
    """(path:line, match) of each line of the sources that matches."""
    for path in sources(*dirs):
        for number, line in lines(path):
            m = re.search(pattern, line)
            if m:
                yield '%s:%d' % (path, number), m


def includes(*dirs):
    """(path:line, file) of each #include."""
    for where, m in matches(r'^\s*#\s*include\s*[<"]([^>"]*)[>"]', *dirs):
        yield where, m[1]


def public_names(path):
    """The names that a module defines for others: what it imports is not among them."""
    with open(os.path.join(TOP, path)) as f:
        for node in ast.parse(f.read()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                names = [n.id for n in ast.walk(node)
                         if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            else:
                names = []
            yield from (name for name in names if not name.startswith('_'))


def none(found):
    found = list(found)
    is_true(not found, 'found:\n' + '\n'.join(found))


@test('package/deps.mak is what tools/gen-deps.sh makes')
def _():
    made = subprocess.run(['tools/gen-deps.sh'], cwd=TOP, check=True, stdout=subprocess.PIPE)
    made = made.stdout.decode().splitlines()
    there = [line for _, line in lines('package/deps.mak')]
    none('package/deps.mak:%d: %s' % (n, line) for n, line in lines('package/deps.mak')
         if line not in made)
    none('not in package/deps.mak: ' + line for line in made if line not in there)
    is_equal(there, made, 'package/deps.mak')


@test('src/chain, src/session and src/tlsctl never include a header of a TLS library')
def _():
    none('%s: %s' % (where, name)
         for where, name in includes('src/chain', 'src/session', 'src/tlsctl')
         if re.match(r'tls\.h$|openssl/', name))


@test('no room of src includes a file of a room that it must not know')
def _():
    for room, may in ROOMS.items():
        files = {'%s/%s' % (known, name) for known in may for name in os.listdir(TOP + '/' + known)}
        none('%s: %s' % (where, name) for where, m in matches(r'^\s*#\s*include\s*"(.*)"', room)
             for name in [m[1]] if os.path.normpath('%s/%s' % (room, name)) not in files)


# The floors of src/tls: what each may call is below it.

FLOORS = [
    'failure text file inherit crash pem buf pipe',
    'filter',
    'confine_linux confine_openbsd confine_other',
    'confine',
    'key',
    'signer hooks',
    'network',
    'config keypairs tickets trust settings',
    'connection rehearse',
    'facts relay door watch places',
    'serve',
    'worker',
    'keeper',
    'tls-engine tls-engined',
]
KNOWS_TLS = 'config keypairs tickets trust settings connection rehearse facts relay'.split()


def calls():
    """{file: the files of src/tls whose functions it calls}, from the objects as built."""
    defined, wanted = {}, {}
    for name in sorted(os.listdir(TOP + '/src/tls')):
        if name.endswith('.o'):
            symbols = subprocess.run(['nm', '-P', 'src/tls/' + name], cwd=TOP, check=True,
                                     stdout=subprocess.PIPE).stdout.decode()
            for symbol, kind in re.findall(r'^(\S+) (\S)', symbols, re.M):
                if kind in 'TDBR':
                    defined.setdefault(symbol, name[:-2])
                if kind == 'U':
                    wanted.setdefault(name[:-2], set()).add(symbol)
    return {name: {defined[s] for s in wanted.get(name, ()) if s in defined and s != 'main'}
            for name in (n[:-2] for n in os.listdir(TOP + '/src/tls') if n.endswith('.c'))}


@test('src/tls is built in floors: no file calls one above it, nor one that calls it')
def _():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    graph = calls()
    is_equal(sorted(floor), sorted(graph), 'files of src/tls')
    is_true('network' in graph['relay'], 'the graph has arrows')
    none('%s calls %s' % (name, other) for name in graph for other in graph[name]
         if floor[other] > floor[name])
    order = [n for names in FLOORS for n in names.split()]
    left = dict(graph)
    while leaves := [name for name in left if not (left[name] - {name}) & set(left)]:
        for name in leaves:
            del left[name]
    is_equal(sorted(left, key=order.index), [], 'files that call each other in a circle')


@test('tls.h is included by the floors between the network and the session only')
def _():
    included = {}
    for where, name in includes('src/tls'):
        included.setdefault(os.path.basename(where.split(':')[0]), set()).add(name)

    def reaches_tls(path):
        return any(n == 'tls.h' or reaches_tls(n) for n in included.get(path, ()))
    none(path for path in included if 'tls.h' in included[path]
         and path.split('.')[0] not in KNOWS_TLS)
    none(name for names in FLOORS[:FLOORS.index('network') + 1] for name in names.split()
         if reaches_tls(name + '.c'))
    is_true(reaches_tls('relay.c'), 'the relay knows it')


@test('no program is linked from a room that it must not know; a chainloader from no TLS library')
def _():
    for number, line in lines('package/deps-build'):
        where = 'package/deps-build:%d' % number
        m = re.match(r'(src/\w+)/[\w-]+: *(.*?) *\|(.*)', line)
        if not m:
            continue
        room, objects, libs = m[1], m[2].split(), m[3].split()
        none('%s: %s' % (where, o) for o in objects
             if os.path.dirname(os.path.normpath('%s/%s' % (room, o))) not in ROOMS[room])
        is_true(room == 'src/tls' or 'TLS' not in libs, where + ': TLS')


@test('the chainloaders, as built, hold nothing of a TLS library')
def _():
    for name in targets('BIN_TARGETS'):
        dynamic = subprocess.run(['readelf', '-dW', name], cwd=TOP, check=True,
                                 stdout=subprocess.PIPE).stdout.decode()
        none('%s: %s' % (name, s) for s in re.findall(r'NEEDED.*\[(.*)\]', dynamic)
             if re.match('lib(tls|ssl|crypto)', s))
        with open('%s/%s' % (TOP, name), 'rb') as f:
            none('%s: %s' % (name, s) for s in re.findall(b'OpenSSL|LibreSSL', f.read()))


# The rooms whose names have been looked through so far.
NAMED_ROOMS = ['src/chain', 'src/session', 'src/tls', 'src/tlsctl']


@test('the name of a function is there once, and has two words to search for')
def _():
    found = {}
    for path in sources(*NAMED_ROOMS):
        if not path.endswith('.c'):
            continue
        for number, line in lines(path):
            # a definition begins in the first column, and the next line is its body
            m = re.match(r'(?!return|else)[a-z][\w ]*[ *](\w+)\([^;]*$', line)
            if m and m[1] != 'main':
                found.setdefault(m[1], []).append('%s:%d' % (path, number))
    is_true('chain_exec' in found and len(found) > 50, 'functions: %d' % len(found))
    none('%s: %s' % (where[0], name) for name, where in found.items() if '_' not in name)
    # a file for each system has the same functions
    none('%s: %s, too' % (where[1], name) for name, where in found.items()
         if len({re.sub(r'_(linux|openbsd|other)$', '', w.split('.')[0]) for w in where}) > 1)


@test('every main is under 70 lines')
def _():
    mains = 0
    for path in sources('src'):
        begin = 0
        for number, line in lines(path):
            if re.match(r'int main\b', line):
                begin = number
            elif begin and line == '}':
                length = number - begin + 1
                is_true(length < 70, '%s:%d: %d lines' % (path, begin, length))
                mains += 1
                begin = 0
    is_true(mains > len(targets('BIN_TARGETS')), 'a main in each chainloader, and in the engine')


@test('no file in src is longer than 400 lines')
def _():
    none('%s:%d' % (path, len(lines(path))) for path in sources('src') if len(lines(path)) > 400)


@test('no file in tests is longer than 500 lines')
def _():
    none('%s:%d' % (path, len(lines(path))) for path in sources('tests') if len(lines(path)) > 500)


@test('no two modules of helpers define the same name')
def _():
    found = {}
    for path in sources('tests/lib'):
        for name in public_names(path):
            found.setdefault(name, []).append(path)
    is_true(len(found) > 100, 'names in tests/lib: %d' % len(found))
    none('%s: %s' % (name, ' '.join(paths)) for name, paths in found.items() if len(paths) > 1)


@test('nothing in tests imports all names of a module')
def _():
    none(where for where, _ in matches(r'^\s*from +\S+ +import +\(? *\*', 'tests'))


@test('CONTRIBUTING tells of each module of helpers')
def _():
    with open(TOP + '/CONTRIBUTING') as f:
        index = re.search(r'^Helpers for tests$.*?\n\n\n', f.read(), re.M | re.S)[0]
    told = re.findall(r'^    (\w+)  ', index, re.M)
    is_equal(told, sorted(told), 'in order')
    is_equal(set(told), {os.path.basename(path)[:-3] for path in sources('tests/lib')}, 'modules')


@test('no line is over 100 columns')
def _():
    none(where for where, _ in matches(r'.{101}', 'src', 'tests', 'tools'))


@test('nothing in src uses stdio')
def _():
    none(where for where, name in includes('src') if name == 'stdio.h')
    none(where for where, _ in matches(r'printf\s*\(', 'src'))


@test('every source file has the licence line')
def _():
    none(path + ':1' for path in sources('src', 'tests', 'tools')
         if not any('ISC licence: see COPYING.' in line for _, line in lines(path)[:5]))


@test('the commands of README.md are there, and .ci/run')
def _():
    with open(TOP + '/README.md') as f:
        section = re.search(r'^## Two commands$(.*?)^## ', f.read(), re.M | re.S)[1]
    commands = re.findall(r'^ {4}(\S+)', section, re.M)
    is_equal(len(commands), 2, 'two commands')
    none(name for name in [*commands, '.ci/run'] if not os.access('%s/%s' % (TOP, name), os.X_OK))


@test('tools/demo takes no arguments but --help: usage in one line, 100')
def _():
    demo = TOP + '/tools/demo'
    for argv in ['-x'], ['--help', 'me'], ['']:
        p = subprocess.run([demo, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        is_equal((p.returncode, p.stdout, p.stderr), (100, '', 'usage: tools/demo [ --help ]\n'))
    p = subprocess.run([demo, '--help'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    is_equal((p.returncode, p.stderr), (0, ''))
    is_true(p.stdout.startswith('usage: tools/demo'), p.stdout)


run()
