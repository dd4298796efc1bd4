#!/usr/bin/env python3
# ISC licence: see COPYING.
# Many sessions, one after the other and at once: all are served, and nothing is left of them.

import os
import sys
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from engined import holds_as_before, start_engine, works_through
from peer import plain_context
from pki import server_env
from privileges import as_root
from proc import children_of, comm_of, fds_of, private_memory
from tap import SLOW, is_equal, is_true, run, test, wait_for
from tcpserver import Server

IN_A_ROW = 1000 // SLOW
SOAK = int(os.environ.get('TEST_SOAK', 300 // SLOW))  # 10000 before a release
AT_ONCE = max(100 // SLOW, 10)

IMMEDIATE = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -c 200 -b 200 -l localhost 127.0.0.1 0
s6-envdir ./tls
tls-handshake
tls-io
cat
'''

DELAYED = '''#!/usr/bin/env -S execlineb -P
tcpserver -v1HR -c 200 -b 200 -l localhost 127.0.0.1 0
tls-ctl-open
{
  s6-envdir ./tls
  tls-await
  tls-handshake
  tls-io
}
%s -I -S ./app
''' % sys.executable

# Greets, asks for TLS once the client has, echoes what comes encrypted.
APP = '''
import os
ctl, r, w = (int(os.environ[v]) for v in ('SSLCTLFD', 'SSLREADFD', 'SSLWRITEFD'))
os.write(1, b'ready\\n')
if os.read(0, 100) != b'starttls\\n':
    os._exit(1)
os.write(1, b'go ahead\\n')
os.write(ctl, b'Y')
reply = b''
while more := os.read(ctl, 4096):
    reply += more
if not reply.startswith(b'SSL_PROTOCOL=TLSv1.'):
    os._exit(2)
while data := os.read(r, 4096):
    os.write(w, data)
'''


def exchange(tls):
    """What a session is for: bytes that nobody else has, and the same back."""
    sent = os.urandom(1000)
    tls.sendall(sent)
    got = b''
    while len(got) < len(sent):
        data = tls.recv(len(sent))
        is_true(data, 'the whole answer')
        got += data
    is_true(got == sent, 'the same bytes back')


def end(tls):
    """close_notify in both directions, no error in either."""
    tls.unwrap().close()


def check_all_ended(server, sessions, orphans, fds):
    """Every session and every orphan ended with 0; nothing is left but tcpserver as it was."""
    server.wait_idle()
    is_equal(server.codes, [0] * orphans, 'exit codes of orphans')
    server.wait_log('tcpserver: end ', sessions)
    ends = [s.split()[-1] for s in server.log() if s.startswith('tcpserver: end ')]
    is_equal(ends, ['0'] * sessions, 'exit codes of sessions')
    is_equal([s for s in server.log() if 'tls-' in s], [], 'complaints')
    is_equal(server.fds(), fds, 'descriptors of tcpserver')


@test('%d sessions in a row are served, and leave nothing' % IN_A_ROW, limit=180)
def _():
    server = Server(IMMEDIATE, server_env())
    fds = server.fds()
    context = plain_context()

    def session(_):
        tls = context.wrap_socket(server.connect())
        exchange(tls)
        end(tls)

    with ThreadPoolExecutor(2) as clients:
        for _ in clients.map(session, range(IN_A_ROW)):
            server.collect()
    check_all_ended(server, IN_A_ROW, orphans=IN_A_ROW, fds=fds)


@test('%d sessions at once are served, and leave nothing' % AT_ONCE)
def _():
    server = Server(IMMEDIATE, server_env())
    fds = server.fds()
    context = plain_context()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        sessions = list(clients.map(lambda _: context.wrap_socket(server.connect()),
                                    range(AT_ONCE)))
        is_equal(len(server.orphans()), AT_ONCE, 'engines')
        list(clients.map(exchange, sessions))
        is_equal(len(server.orphans()), AT_ONCE, 'engines after bytes have passed')
        list(clients.map(end, sessions))
    check_all_ended(server, AT_ONCE, orphans=AT_ONCE, fds=fds)


@test('%d delayed sessions at once, first all in plaintext, then all upgraded' % AT_ONCE)
def _():
    server = Server(DELAYED, server_env(), app=APP)
    fds = server.fds()
    context = plain_context()

    def greeted(_):
        sock = server.connect()
        is_equal(sock.recv(100), b'ready\n')
        return sock

    def upgraded(sock):
        sock.sendall(b'starttls\n')
        is_equal(sock.recv(100), b'go ahead\n')
        tls = context.wrap_socket(sock)
        exchange(tls)
        return tls

    with ThreadPoolExecutor(AT_ONCE) as clients:
        plain = list(clients.map(greeted, range(AT_ONCE)))
        is_equal(len(server.orphans()), AT_ONCE, 'TLS sides that wait')
        sessions = list(clients.map(upgraded, plain))
        wait_for(lambda: len(server.orphans()) == AT_ONCE, 'engines alone are left')
        is_equal(server.codes, [0] * AT_ONCE, 'exit codes of the TLS sides')
        list(clients.map(end, sessions))
    check_all_ended(server, AT_ONCE, orphans=2 * AT_ONCE, fds=fds)


@as_root('%d sessions through a resident engine: neither worker nor signer has grown' % SOAK,
         limit=max(120, SOAK // 5))
def _():
    e = start_engine()
    kept = e.worker(), *e.signers()
    for _ in range(50):  # until they have what they need
        works_through(e)
    e.wait_sessions(0)
    before = {pid: (fds_of(pid), private_memory(pid)) for pid in kept}
    for _ in range(SOAK):
        works_through(e)
    e.wait_sessions(0)
    for pid, (fds, memory) in before.items():
        holds_as_before(pid, fds)
        more = private_memory(pid) - memory
        if os.environ.get('TEST_SANITIZE'):  # which keeps what is freed
            continue
        is_true(more <= 64 << 10, 'memory of %s grew by %d' % (comm_of(pid), more))
    is_equal(sorted(children_of(kept[0])), sorted(kept[1:]), 'processes of the worker')


run()
