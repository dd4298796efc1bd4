#!/usr/bin/env python3
# ISC licence: see COPYING.
# UCSPI-TLS: what an application that speaks it sees, from its first plaintext byte to the end.

import os
import re
import shutil
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, PYTHON, Chain, block, delayed, dies, not_resident
from peer import TLS12, TLS13, Peer, Recorder, all_of
from pki import cert_hash, openssl, pki, server_env
from proc import state_of
from processes import orphan_exit_code, wait_process
from scratch import temp_dir
from sessions import ends_well, is_echoed
from sockets import read_to_end, tcp_pair
from tap import is_equal, is_true, run, test, wait_for
from ucspi import ECHO, FACTS, application, starttls

CHAIN = ('tls-await', 'tls-handshake', 'tls-io')


def serve(code, tlsside=CHAIN, options=(), env=None, **more):
    """tls-ctl-open { tlsside } with an application of that code; its client, and the chain."""
    client, server = tcp_pair()
    c = Chain(delayed(application(code), tlsside, options), server, env=server_env(**env or {}),
              **more)
    return client, c


def upgrade(client, **settings):
    """The client asks for TLS, and gets it."""
    starttls(client)
    return Peer(client, **settings).handshake()


# Asking for TLS

GREET_AND_TELL = 'greet(); write(w, ask(b"Y"))' + ECHO  # the reply goes to the client


@test('Y: the reply is all that is known, in the documented order, a null byte more, a close')
def _():
    client, c = serve(GREET_AND_TELL, ['tls-await', 'tls-handshake', '-Y', 'tls-io'],
                      env={'CAFILE': pki() + '/ca.pem', 'TLS_ALPN': 'imap,smtp'})
    peer = upgrade(client, name='example.org', alpn=['smtp'], cert='client', max=TLS12)
    dates = openssl('x509', '-in', pki() + '/client.pem', '-noout', '-dates').decode()
    start, end = (line.split('=')[1] for line in dates.splitlines())
    cipher, _, bits = peer.tls.cipher()
    wanted = b''.join(('%s=%s\0' % pair).encode() for pair in (
        ('SSL_PROTOCOL', 'TLSv1.2'),
        ('SSL_CIPHER', cipher),
        ('SSL_PEER_CERT_HASH', cert_hash('client')),
        ('SSL_TLS_SNI_SERVERNAME', 'example.org'),
        ('SSL_ALPN', 'smtp'),
        ('SSL_CIPHER_USEKEYSIZE', bits),
        ('SSL_SESSION_RESUMED', 'Initial'),
        ('SSL_PEER_CERT_SUBJECT', '/CN=client'),
        ('SSL_PEER_CERT_ISSUER', '/CN=Test ca'),
        ('SSL_PEER_CERT_NOTBEFORE', ssl.cert_time_to_seconds(start)),
        ('SSL_PEER_CERT_NOTAFTER', ssl.cert_time_to_seconds(end)),
        ('SSL_CIPHER_ALGKEYSIZE', bits),
        ('SSL_CLIENT_VERIFY', 'SUCCESS'),
        ('SSL_CLIENT_S_DN', '/CN=client'),
        ('SSL_CLIENT_S_DN_CN', 'client'))) + b'\0'
    is_equal(peer.recv(len(wanted)), wanted, 'reply')
    ends_well(peer, c)


@test('Y: what is not known is not in the reply, whatever the variables of the chain are')
def _():
    client, c = serve(GREET_AND_TELL, env={n: 'outer' for n in FACTS})
    peer = upgrade(client, max=TLS12)
    cipher, _, bits = peer.tls.cipher()
    wanted = ('SSL_PROTOCOL=TLSv1.2\0SSL_CIPHER=%s\0SSL_CIPHER_USEKEYSIZE=%d\0'
              'SSL_SESSION_RESUMED=Initial\0SSL_CIPHER_ALGKEYSIZE=%d\0'
              'SSL_CLIENT_VERIFY=NONE\0\0' % (cipher, bits, bits)).encode()
    is_equal(peer.recv(len(wanted)), wanted, 'reply')
    ends_well(peer, c)


@test('Y: the reply over TLS 1.3')
def _():
    client, c = serve(GREET_AND_TELL + 'write(w, b"that was all")')
    peer = upgrade(client, min=TLS13)
    got = peer.end_politely()[0].decode()
    wanted = ('SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=[A-Z0-9_-]+\0'
              'SSL_CIPHER_USEKEYSIZE=(128|256)\0SSL_SESSION_RESUMED=Initial\0'
              r'SSL_CIPHER_ALGKEYSIZE=\1\0SSL_CLIENT_VERIFY=NONE\0\0that was all')
    is_true(re.fullmatch(wanted, got), 'reply: %r' % got)
    is_equal(c.wait(), 0)


@test('y: there is no reply, only a close, and the session works')
def _():
    client, c = serve('greet(); write(w, b"<" + ask(b"y") + b">")' + ECHO)
    peer = upgrade(client)
    is_equal(peer.recv(2), b'<>', 'reply')
    is_echoed(peer)
    ends_well(peer, c)


@test('an application may close its control socket as soon as it has asked')
def _():
    for command in b'y', b'Y':
        client, c = serve('greet(); os.write(ctl, %r); os.close(ctl)' % command + ECHO)
        peer = upgrade(client)
        is_echoed(peer)
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(c.wait(), 0)


@test('an application may have left the network before it asks')
def _():
    client, c = serve('greet(); os.dup2(r, 0); os.dup2(w, 1); os.close(r); os.close(w);'
                      'ask(b"y"); r, w = 0, 1' + ECHO)
    peer = upgrade(client)
    is_echoed(peer)
    ends_well(peer, c)


@test('an application that keeps the network open sees the end of the session all the same')
def _():
    client, c = serve('greet(); ask(); write(w, b"<" + read_all(r) + b">")')
    peer = upgrade(client)
    peer.send(b'hello')
    is_equal(peer.end_politely(), (b'<hello>', 'close_notify'))
    is_equal(c.wait(), 0)


@test('a lot of data, both ways')
def _():
    client, c = serve('greet(); ask()' + ECHO)
    peer = upgrade(client)
    for _ in range(50):
        peer.send(bytes(40000))
        is_equal(len(peer.recv(40000)), 40000)
    ends_well(peer, c)


# Nothing in clear after the request for TLS

@test('what the application writes at once after its request is never in clear')
def _():
    for command in b'y', b'Y':
        client, c = serve('greet(); os.write(ctl, %r); write(w, b"the secret"); read_all(r)'
                          % command)
        starttls(client)
        record = Recorder(client)
        peer = Peer(record)
        # The application has written before TLS begins.
        wait_for(lambda: state_of(c.pid) == 'S', 'the application to wait for an answer')
        is_equal(peer.handshake().recv(10), b'the secret')
        is_equal(peer.end_politely(), (b'', 'close_notify'))
        is_equal(record.raw[0], 0x16, 'first byte after the request, a handshake record')
        is_true(b'secret' not in record.raw, 'in clear')
        is_equal(c.wait(), 0)


@test('nor is it, when the handshake fails')
def _():
    client, c = serve('''
greet()
os.write(ctl, b"y")
try:
    write(w, b"the secret")
except BrokenPipeError:
    pass  # the handshake has failed so soon
read_all(r)
''')
    starttls(client)
    client.sendall(b'this is no TLS')
    is_true(b'secret' not in read_to_end(client), 'in clear')
    client.close()
    is_equal(c.wait(), 0)


# Not asking

GO_ON = '''
write(1, b'plain ' + read_line(0))
'''


@test('the application that declines goes on in plaintext, and the TLS side ends with 0')
def _():
    for decline in 'os.close(ctl)', 'import socket; socket.socket(fileno=ctl).shutdown(1)':
        client, c = serve('greet(); %s; code = wait();' % decline + GO_ON + 'sys.exit(code)',
                          options=['-D'])
        starttls(client)
        client.sendall(b'text\n')
        is_equal(read_to_end(client), b'plain text\n')
        is_equal(c.wait(), 0, 'exit code of the TLS side')
        is_equal(c.stderr(), '')


@test('the application that exits without a word has declined: the TLS side ends with 0')
def _():
    client, c = serve(GO_ON)
    pid = wait_process('tls-await')
    client.sendall(b'text\n')
    is_equal(read_to_end(client), b'plain text\n')
    is_equal(c.wait(), 0)
    is_equal(orphan_exit_code(pid), 0, 'exit code of the TLS side')
    is_equal(c.stderr(), '')


@test('garbage or two bytes are fatal: 100, the end on all three, and no plaintext any more')
def _():
    for said in b'x', b'yy', b'YY', b'\0':
        client, c = serve('''
os.write(ctl, %r)
code = wait()
seen = [read_all(ctl), read_all(r)]
try:
    write(1, b'plain')
except BrokenPipeError:
    sys.exit(code if seen == [b'', b''] else 1)
''' % said, options=['-D'])
        is_equal(read_to_end(client), b'', 'what the client gets')
        dies(c, 100, 'tls-await: fatal: invalid command on the control socket')


# -t and -r

AWAIT_REQUIRED = ['tls-await', '-r', 'tls-handshake', 'tls-io']
TRY_PLAINTEXT = '''
import errno
seen = [os.read(0, 1)]
try:
    os.write(1, b'plain')
except OSError as e:
    seen.append(errno.errorcode[e.errno])
print(*seen, code, file=sys.stderr)
'''


@test('tls-await -r: an application that declines cannot go on in plaintext')
def _():
    client, c = serve('greet(); os.close(ctl);'
                      'code = wait()' + TRY_PLAINTEXT,
                      AWAIT_REQUIRED, ['-D'])
    starttls(client)
    is_equal(read_to_end(client), b'', 'in plaintext')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'tls-await: fatal: TLS is required: the application declined it\n'
                         "b'' EPIPE 97\n", 'what the application saw, and the code')


@test('tls-await -r: an application that exits without TLS leaves the client with the end')
def _():
    client, c = serve('greet()', AWAIT_REQUIRED)
    starttls(client)
    is_equal(read_to_end(client), b'')
    is_equal(c.wait(), 0)


@test('tls-await -r: an application that asks is served')
def _():
    client, c = serve('greet(); ask()' + ECHO, AWAIT_REQUIRED)
    peer = upgrade(client)
    is_echoed(peer)
    ends_well(peer, c)


AWAIT_LIMITED = ['tls-await', '-t', '100', 'tls-handshake', 'tls-io']
TIMED_OUT = 'tls-await: fatal: timed out: the application did not ask for TLS\n'


@test('tls-await -t: the offer ends after that long, and plaintext goes on')
def _():
    client, c = serve('code = wait();'
                      'print(read_all(ctl), code, file=sys.stderr);' + GO_ON, AWAIT_LIMITED, ['-D'])
    client.sendall(b'text\n')
    is_equal(read_to_end(client), b'plain text\n')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), TIMED_OUT + "b'' 97\n", 'what the application saw, and the code')


@test('tls-await -t -r: after that long there is no plaintext any more')
def _():
    client, c = serve('code = wait()' + TRY_PLAINTEXT,
                      ['tls-await', '-r', *AWAIT_LIMITED[1:]], ['-D'])
    is_equal(read_to_end(client), b'', 'in plaintext')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), TIMED_OUT + "b'' EPIPE 97\n", 'what the application saw, and the code')


# When TLS cannot be had

@test('a handshake that fails: no reply, the end on both pipes, and no plaintext any more')
def _():
    for command in b'y', b'Y':
        client, c = serve('greet(); reply = ask(%r); code = wait();'
                          'print(reply, read_all(r), file=sys.stderr)' % command + TRY_PLAINTEXT,
                          options=['-D'])
        starttls(client)
        client.sendall(b'EHLO example.org\r\n')
        is_true(b'plain' not in read_to_end(client), 'in plaintext')
        client.close()
        is_equal(c.wait(), 0)
        is_equal(c.stderr(),
                 'tls-handshake: fatal: unable to start TLS: bytes came in plaintext before the '
                 "client's TLS began\nb'' b''\nb'' EPIPE 97\n")


@test('a setting that is bad is told when the application asks, and the code is 96')
def _():
    client, c = serve('greet(); reply = ask(); code = wait();'
                      'print(reply, read_all(r), code, file=sys.stderr)', options=['-D'],
                      env={'CERTFILE': '/nonesuch'})
    starttls(client)
    is_equal(read_to_end(client), b'')
    client.close()
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'tls-handshake: fatal: unable to start TLS: unable to read CERTFILE '
                         "/nonesuch: No such file or directory\nb'' b'' 96\n")


@test('a TLS side that cannot be started is told before the application is run')
def _():
    client, c = serve('write(1, b"ran")', ['nonesuch', *CHAIN])
    is_equal(read_to_end(client), b'', 'what the client gets')
    dies(c, 127, 'tls-ctl-open: fatal: unable to exec the TLS side nonesuch: '
                 'No such file or directory')


# Where the programs come from

def echo_through(argv, path):
    client, server = tcp_pair()
    c = Chain(argv, server, env=server_env(), path=path)
    peer = Peer(client)
    if 'tls-ctl-open' in argv[0]:
        starttls(client)
    peer.handshake().send(b'hello')
    is_equal(peer.recv(5), b'hello')
    ends_well(peer, c)


@test('the engine is not looked for in PATH, which may lack it')
def _():
    not_resident('is named by its socket')
    cat = shutil.which('cat')
    echo_through([BIN + '/tls-handshake', BIN + '/tls-io', cat], '/nonexistent')
    echo_through([BIN + '/tls-ctl-open', *block([BIN + '/' + p for p in CHAIN]),
                  *application('greet(); ask()' + ECHO)], '/nonexistent')


@test('the engine is not looked for in PATH, which may have another')
def _():
    d = temp_dir()
    with open(d + '/tls-engine', 'w') as f:
        f.write('#!/bin/sh\necho the wrong one >&2\n')
    os.chmod(d + '/tls-engine', 0o755)
    path = d + ':' + BIN + ':' + os.environ['PATH']
    echo_through(['tls-handshake', 'tls-io', 'cat'], path)
    echo_through(delayed(application('greet(); ask()' + ECHO)), path)


# Processes

@test('the application keeps the pid, and all that happens around it leaves it no children')
def _():
    client, c = serve('''
greet()
ask()
try:
    os.wait()
except ChildProcessError:
    write(w, b'%d has no children' % os.getpid())
''')
    is_equal(upgrade(client).recv_all(), (b'%d has no children' % c.pid, 'close_notify'))
    is_equal(c.wait(), 0)


@test('with -D the TLS side is a child, and the engine is none')
def _():
    client, c = serve('''
greet()
ask()
os.wait()
try:
    os.wait()
except ChildProcessError:
    write(w, b'one child')
''', options=['-D'])
    is_equal(upgrade(client).recv_all(), (b'one child', 'close_notify'))
    is_equal(c.wait(), 0)


@test('in immediate TLS the engine is no child of the program either')
def _():
    client, server = tcp_pair()
    c = Chain(['tls-handshake', 'tls-io', *PYTHON, '''
import os
try:
    os.wait()
except ChildProcessError:
    print('no children')
'''], server, env=server_env())
    is_equal(Peer(client).handshake().recv_all(), (b'no children\n', 'close_notify'))
    is_equal(c.wait(), 0)


@test('the TLS side outlives the application\'s exit until all has been delivered')
def _():
    client, c = serve('greet(); ask(); write(w, bytes(60000))')
    peer = upgrade(client)
    is_equal(c.wait(), 0)
    is_equal(all_of(peer), (bytes(60000), 'close_notify'))


run()
