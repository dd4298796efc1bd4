#!/usr/bin/env python3
# ISC licence: see COPYING.
# A resident engine whose files change: it takes the new ones by itself, and nobody is turned away.

import os
import shutil
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain
from engined import LOADED, KeyFiles, client_works, shown_hash, start_engine, works_through
from peer import Peer, plain_context
from pki import cert_hash, hashed_dir, pki, server_env
from privileges import as_root
from proc import children_of, fds_of, find_processes, parent_of, private_memory
from scratch import temp, temp_dir
from sessions import is_echoed
from sockets import tcp_pair
from tap import is_equal, is_true, run, test, wait_for
from tcpserver import Server

GOING_ON = 'tls-engined: warning: new settings not loaded: going on with the old ones'
RENEWALS = int(os.environ.get('TEST_RENEWALS', 4))  # 200 before a release
SERVER = '''#!/usr/bin/env -S execlineb -P
s6-envdir ./tls
tls-engine-open
tcpserver -v1HR -c 200 -b 200 -l localhost 127.0.0.1 0
tls-handshake
tls-io
cat
'''


def comes_to(e, name, client=works_through):
    """Sessions, one after the other, until one is served with that certificate."""
    wait_for(lambda: client(e) == cert_hash(name), 'the certificate of ' + name)


def told(e):
    return [line for line in e.log() if line == LOADED or line == GOING_ON]


def shown_by(server):
    peer = Peer(server.connect()).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    return shown_hash(peer)


@test('a new pair is served without a signal, within a second; who is served goes on')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    is_equal(works_through(e), cert_hash('a'))
    files.become('b')
    comes_to(e, 'b')
    is_equal(told(e), [LOADED])
    files.become('a')
    comes_to(e, 'a')
    is_equal(told(e), [LOADED] * 2)


@test('so it is with an engine that was opened before the server')
def _():
    files = KeyFiles('a')
    server = Server(SERVER, files.env)
    is_equal(shown_by(server), cert_hash('a'))
    files.become('b')
    comes_to(server, 'b', shown_by)
    server.wait_log(LOADED)


@test('the first who comes after a while already gets what is new')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    last = []

    def has_waited():  # longer than what has been seen is taken to be true: no session in a second
        is_equal(works_through(e), cert_hash('a'))
        threading.Event().wait(1.1)
        files.become('b')
        last.append(works_through(e))
        return True
    wait_for(has_waited, 'it')
    is_equal(last, [cert_hash('b')])


@test('one file of two is new: that is told once, the old pair serves until the other is there')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    shutil.copy(pki() + '/b.key', files.env['KEYFILE'])
    wait_for(lambda: works_through(e) and GOING_ON in e.log(), 'a warning')
    for _ in range(2):
        threading.Event().wait(1.1)
        is_equal(works_through(e), cert_hash('a'))
    is_equal(told(e), [GOING_ON])
    is_true('the key is not that of the certificate' in e.log()[0], e.log())
    shutil.copy(pki() + '/b.pem', files.env['CERTFILE'])
    comes_to(e, 'b')
    is_equal(told(e), [GOING_ON, LOADED])


@test('a file that is gone and comes back, one that is replaced by another of the same size')
def _():
    files = KeyFiles('a')
    e = start_engine(files.env)
    os.rename(files.env['CERTFILE'], files.dir + '/away')
    wait_for(lambda: works_through(e) and GOING_ON in e.log(), 'a warning')
    os.rename(files.dir + '/away', files.env['CERTFILE'])
    wait_for(lambda: works_through(e) and LOADED in e.log(), 'it again')
    shutil.copy(files.env['CERTFILE'], files.dir + '/same')
    os.rename(files.dir + '/same', files.env['CERTFILE'])
    wait_for(lambda: works_through(e) and told(e) == [GOING_ON, LOADED, LOADED], 'the third')


@test('every kind of file is looked at, also of a name, and the directory of authorities')
def _():
    d = temp_dir()
    shutil.copy(pki() + '/ca.pem', d + '/ca')
    names = {'KEYFILE:b.example.org': 'b.key', 'CERTFILE:b.example.org': 'b.pem'}
    for variable, name in names.items():
        shutil.copy('%s/%s' % (pki(), name), '%s/%s' % (d, name))
    authorities = hashed_dir('ca')
    e = start_engine(server_env(CAFILE=d + '/ca', CADIR=authorities,
                                **{k: '%s/%s' % (d, v) for k, v in names.items()}))
    count = 0
    for path in (d + '/ca', d + '/b.key', d + '/b.pem', authorities):
        os.utime(path, ns=(1, 1))
        count += 1
        wait_for(lambda: works_through(e) and told(e) == [LOADED] * count, 'a load for ' + path)


@test('a client looks at its own, too')
def _():
    path = temp(open(pki() + '/ca.pem').read())
    e = start_engine({'CAFILE': path}, ['-c'])
    client_works(e, ['-k', 'localhost'])
    os.utime(path, ns=(1, 1))
    wait_for(lambda: client_works(e, ['-k', 'localhost']) and LOADED in e.log(), 'a load')


@as_root('nobody is turned away while a pair is renewed %d times; the keeper has not grown'
         % RENEWALS, limit=90 + 5 * RENEWALS)
def _():
    files = KeyFiles('a')
    server = Server(SERVER, files.env)
    keeper, = [pid for pid in find_processes('tls-engined') if parent_of(pid) == os.getpid()]
    shown_by(server)
    memory, fds = private_memory(keeper), fds_of(keeper)
    context = plain_context()
    done, served, failed = threading.Event(), [], []

    def clients():
        while not done.is_set():
            try:
                tls = context.wrap_socket(server.connect())
                tls.sendall(b'hello')
                is_equal(tls.recv(5), b'hello')
                tls.unwrap().close()
                served.append(1)
            except (OSError, AssertionError) as why:
                failed.append(why)
    threads = [threading.Thread(target=clients) for _ in range(20 if RENEWALS > 4 else 4)]
    for t in threads:
        t.start()
    try:
        for i in range(RENEWALS):
            for name in 'key', 'pem':  # one after the other, as it is in life
                file = 'KEYFILE' if name == 'key' else 'CERTFILE'
                shutil.copy('%s/%s.%s' % (pki(), 'ba'[i % 2], name), files.dir + '/new')
                os.rename(files.dir + '/new', files.env[file])
            server.wait_log(LOADED, i + 1)
    finally:
        done.set()
        for t in threads:
            t.join()
    is_equal(failed, [], 'clients that were turned away')
    wait_for(lambda: len(children_of(keeper)) == 1, 'one worker')
    is_equal(len(fds_of(keeper)), len(fds), 'descriptors of the keeper')
    is_true(private_memory(keeper) - memory <= 64 << 10, 'memory of the keeper')
    is_true(len(served) > 20, 'clients: %d' % len(served))


run()
