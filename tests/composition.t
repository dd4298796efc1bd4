#!/usr/bin/env python3
# ISC licence: see COPYING.
# Composition: what execline scripts can put between the stages, and choose at run time.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, PYTHON, Chain, need, not_under_valgrind, script, unjoined
from peer import TLS12, TLS13, Peer, all_of
from pki import cert_hash, pki, server_env
from processes import engines
from scratch import temp, temp_dir
from sessions import ends_well, is_echoed
from sockets import read_line, read_to_end, tcp_pair
from tap import Skip, is_equal, is_true, run, test, wait_for
from ucspi import ECHO, application, starttls


def serve(text, *argv, env=None):
    """An execline script on a connection; its client, and the chain."""
    client, server = tcp_pair()
    c = Chain(script(text, *argv), server, env=server_env() if env is None else env)
    return client, c


def subject(peer):
    """The name in the certificate that a verified peer showed."""
    return peer.tls.getpeercert()['subject'][0][0][1]


def ended_without_a_byte(peer):
    """The peer sees the session end, and got nothing."""
    got, end = peer.recv_all()
    is_equal(got, b'', 'plaintext that the refused client got')
    is_true(end in ('eof', 'reset'), 'end: %s' % end)
    peer.sock.close()


# A stage between tls-await and tls-handshake

def cert_dir(d, name):
    """A directory for s6-envdir with the settings of one server."""
    os.mkdir('%s/%s' % (d, name))
    for variable, suffix in ('KEYFILE', 'key'), ('CERTFILE', 'pem'):
        with open('%s/%s/%s' % (d, name, variable), 'w') as f:
            print('%s/%s.%s' % (pki(), name, suffix), file=f)


@test('s6-envdir after tls-await: the certificate is the one that is there when TLS is asked for')
def _():
    need('s6-envdir')
    d = temp_dir()
    cert_dir(d, 'a')
    cert_dir(d, 'b')
    os.symlink('a', d + '/now')
    client, c = serve('''
        tls-ctl-open { tls-await s6-envdir %s/now tls-handshake tls-io }
        $@''' % d, *application('greet(); read_line(0); ask()' + ECHO), env={})
    starttls(client)  # the plaintext conversation is going on...
    os.remove(d + '/now')
    os.symlink('b', d + '/now')
    client.sendall(b'and only now\n')
    peer = Peer(client, verify=True).handshake()
    is_equal(subject(peer), 'b')
    ends_well(peer, c)


@test('a lookup after tls-await chooses the directory by what a program says')
def _():
    need('s6-envdir')
    d = temp_dir()
    cert_dir(d, 'a')
    cert_dir(d, 'b')
    choice = temp()
    client, c = serve('''
        tls-ctl-open
        {
          tls-await
          backtick -E name { cat %s }
          s6-envdir %s/${name}
          tls-handshake
          tls-io
        }
        $@''' % (choice, d), *application('greet(); ask()' + ECHO), env={})
    with open(choice, 'w') as f:
        print('b', file=f)
    starttls(client)
    peer = Peer(client, verify=True).handshake()
    is_equal(subject(peer), 'b')
    ends_well(peer, c)


@test('a stage after tls-await that refuses: no TLS, and the application sees the end')
def _():
    client, c = serve('tls-ctl-open { tls-await if { false } tls-handshake tls-io } $@',
                      *application('greet(); print(ask(), read_all(r), file=sys.stderr)'))
    starttls(client)
    is_equal(read_to_end(client), b'')
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), "b'' b''\n")


# A policy between tls-handshake and tls-io

IMMEDIATE_POLICY = '''
    tls-handshake -Y
    importas -D "" hash SSL_PEER_CERT_HASH
    if { eltest ${hash} = %s }
    tls-io
    $@'''
DELAYED_POLICY = '''
    tls-ctl-open
    {
      tls-await
      tls-handshake -Y
      importas -D "" hash SSL_PEER_CERT_HASH
      if { eltest ${hash} = %s }
      tls-io
    }
    $@'''


def trusting_env():
    return server_env(CAFILE=pki() + '/ca.pem')


def say_hello(client, cert, **settings):
    """A client that shows a certificate, or none, and sends its data at once."""
    peer = Peer(client, **dict(settings, cert=cert) if cert else settings).handshake()
    try:
        peer.send(b'hello')
    except (BrokenPipeError, ConnectionResetError):
        pass
    return peer


@test('immediate TLS: a policy admits a client by SSL_PEER_CERT_HASH')
def _():
    for version in TLS12, TLS13:
        client, c = serve(IMMEDIATE_POLICY % cert_hash('client'), 'cat', env=trusting_env())
        peer = say_hello(client, 'client', min=version, max=version)
        is_equal(peer.recv(5), b'hello')
        ends_well(peer, c)


@test('immediate TLS: it refuses another, who gets not one byte, and the program is not run')
def _():
    for version in TLS12, TLS13:
        for cert in 'client2', None:
            client, c = serve(IMMEDIATE_POLICY % cert_hash('client'), 'sh', '-c',
                              'echo ran; echo ran >&2', env=trusting_env())
            ended_without_a_byte(say_hello(client, cert, min=version, max=version))
            is_equal(c.wait(), 1)
            is_equal(unjoined(c), '')
            wait_for(lambda: not engines(), 'the engine to end')


@test('delayed TLS: a policy admits a client by SSL_PEER_CERT_HASH')
def _():
    client, c = serve(DELAYED_POLICY % cert_hash('client'), *application('greet(); ask()' + ECHO),
                      env=trusting_env())
    starttls(client)
    peer = say_hello(client, 'client')
    is_equal(peer.recv(5), b'hello')
    ends_well(peer, c)


@test('delayed TLS: it refuses another; not one byte passes, either way')
def _():
    for cert in 'client2', None:
        for command in b'y', b'Y':
            client, c = serve(DELAYED_POLICY % cert_hash('client'), *application('''
greet()
os.write(ctl, %r)
write(w, b'early')
print(read_all(ctl), read_all(r), file=sys.stderr)
''' % command), env=trusting_env())
            starttls(client)
            ended_without_a_byte(say_hello(client, cert))
            is_equal(c.wait(), 0)
            is_equal(unjoined(c), "b'' b''\n", 'reply and data that the application got')


@test('a policy may look at any fact: one that admits TLS 1.3 only')
def _():
    text = '''
        tls-handshake
        importas -i protocol SSL_PROTOCOL
        ifelse -n { eltest ${protocol} = TLSv1.3 }
        {
          foreground { fdmove -c 1 2 echo too old: ${protocol} }
          exit 3
        }
        tls-io cat'''
    client, c = serve(text)
    peer = say_hello(client, None, min=TLS13)
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    client, c = serve(text)
    ended_without_a_byte(say_hello(client, None, max=TLS12))
    is_equal(c.wait(), 3)
    is_equal(unjoined(c), 'too old: TLSv1.2\n')


# Routing

def hears(client, **settings):
    """What the program at the other end says first."""
    peer = Peer(client, **settings).handshake()
    said = all_of(peer)
    is_equal(said[1], 'close_notify', 'end')
    return said[0]


@test('routing by server name: case runs one program or another')
def _():
    text = r'''
        tls-handshake
        importas -D "" name SSL_TLS_SNI_SERVERNAME
        case -- ${name}
        {
          a\\.example\\.org { tls-io echo this is a }
          ".*\\.example\\.net" { tls-io echo a net: ${name} }
        }
        tls-io echo any other
    '''
    for name, said in (('a.example.org', b'this is a\n'), ('A.Example.Org', b'this is a\n'),
                       ('www.example.net', b'a net: www.example.net\n'),
                       ('xa.example.org', b'any other\n'), (None, b'any other\n')):
        client, c = serve(text)
        is_equal(hears(client, name=name), said, 'server name %s' % name)
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')


@test('routing by ALPN: case runs one program or another')
def _():
    text = '''
        tls-handshake
        importas -D none protocol SSL_ALPN
        case -- ${protocol}
        {
          imap { tls-io echo "* OK" }
          smtp { tls-io echo "220 ready" }
        }
        tls-io echo none of them
    '''
    for alpn, said in (['imap'], b'* OK\n'), (['smtp'], b'220 ready\n'), (None, b'none of them\n'):
        client, c = serve(text, env=server_env(TLS_ALPN='smtp,imap'))
        is_equal(hears(client, alpn=alpn), said, 'ALPN %s' % alpn)
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')


@test('routing by server name together with the certificate for that name')
def _():
    text = r'''
        tls-handshake
        importas -i name SSL_TLS_SNI_SERVERNAME
        case -- ${name}
        {
          a\\.example\\.org { tls-io echo program a }
          b\\.example\\.org { tls-io echo program b }
        }
        exit 1
    '''
    env = {'TLS_SNI': 'require'}
    for name in 'a', 'b':
        for variable, suffix in ('KEYFILE', 'key'), ('CERTFILE', 'pem'):
            env['%s:%s.example.org' % (variable, name)] = '%s/%s.%s' % (pki(), name, suffix)
    for name in 'a', 'b':
        client, c = serve(text, env=env)
        peer = Peer(client, name=name + '.example.org', verify=True).handshake()
        is_equal(subject(peer), name)
        is_equal(all_of(peer), (b'program %s\n' % name.encode(), 'close_notify'))
        is_equal(c.wait(), 0)


# A fresh application after TLS

@test('a program that is new after TLS: the application execs it, and what it knew is gone')
def _():
    # It believed a line of the plaintext phase. Its successor begins with nothing.
    fresh = PYTHON + ['import os; os.write(1, b"220 as new, pid %d\\n" % os.getpid());'
                      'os.write(1, b"got " + os.read(0, 100))']
    client, c = serve('''
        tls-ctl-open { tls-await tls-handshake tls-io }
        $@''', *application('''
state = read_line(0) + read_line(0)
write(1, b'go ahead\\n')
ask()
os.dup2(r, 0)
os.dup2(w, 1)
os.closerange(3, 100)
os.execv(sys.argv[1], sys.argv[1:])
'''), *fresh)
    client.sendall(b'injected: mail from <evil>\n')
    starttls(client)
    peer = Peer(client).handshake()
    wanted = b'220 as new, pid %d\n' % c.pid
    is_equal(peer.recv(len(wanted)), wanted, 'what the client hears first')
    peer.send(b'hello')
    is_equal(peer.end_politely(), (b'got hello', 'close_notify'))
    is_equal(c.wait(), 0)


# Reads the request and asks for TLS; the program that follows finds the session on 0 and 1.
EXECLINE_APPLICATION = ' foreground { sh -c "read line; echo go ahead" } tls-ctl-start '


@test('a program that is new after TLS: an application in execline, without a line of code')
def _():
    client, c = serve('tls-ctl-open { tls-await tls-handshake tls-io }'
                      + EXECLINE_APPLICATION + 'sh -c "echo $SSL_PROTOCOL; cat"')
    starttls(client)
    peer = Peer(client, min=TLS13).handshake()
    peer.send(b'hello')
    is_equal(peer.recv(13), b'TLSv1.3\nhello')
    ends_well(peer, c)


@test('a program that is new after TLS: tls-io runs it, on pipes of its own, if it joins no others')
def _():
    out = temp()
    client, c = serve('''
        tls-ctl-open
        {
          tls-await
          tls-handshake
          unexport TLS_PLAINRFD unexport TLS_PLAINWFD
          tls-io
          cat
        }
        $@ ''' + out, *application('''
greet()
write(w, b'plaintext state')
os.write(ctl, b'y')
with open(sys.argv[1], 'w') as f:
    print(read_all(r), file=f)
'''))
    starttls(client)
    peer = Peer(client).handshake()
    is_echoed(peer)
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    with open(out) as f:
        is_equal(f.read(), "b''\n", 'what the old application gets from the session')


@test('commands that a client sends together with its request never reach the new program')
def _():
    # In the same segment: they are still in the socket when TLS should begin, and end it.
    client, c = serve('''
        tls-ctl-open { tls-await tls-handshake tls-io }
        $@''', *application('greet(); ask(b"y"); print(read_all(r), file=sys.stderr)'))
    client.sendall(b'starttls\ninjected\n')
    is_equal(read_line(client), b'go ahead\n')
    is_true(not read_to_end(client).startswith(b'\x16'), 'no TLS begins')
    client.close()
    is_equal(c.wait(), 0)
    is_equal(sorted(c.stderr().splitlines()),
             ["b''", 'tls-handshake: fatal: unable to start TLS: bytes came in plaintext before '
                     "the client's TLS began"])


# A change of user

@test('between any two stages the user may change')
def _():
    if os.getuid():
        raise Skip('not root')
    need('s6-applyuidgid')
    not_under_valgrind('may write its report as one user only')
    change = ' s6-applyuidgid -u 65534 -g 65534 -G "" '
    if Chain(change + 'test -x %s/tls-io' % BIN).wait():
        raise Skip('this directory is for one user only')
    for text in ('tls-handshake %s tls-io id -u', 'tls-handshake tls-io %s id -u'):
        client, c = serve(text % change)
        is_equal(all_of(Peer(client).handshake()), (b'65534\n', 'close_notify'))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')
    for text in ('tls-ctl-open { tls-await tls-handshake tls-io } %s',
                 'tls-ctl-open { tls-await tls-handshake %s tls-io } %s'):
        client, c = serve(text.replace('%s', change) + EXECLINE_APPLICATION + 'id -u')
        starttls(client)
        is_equal(all_of(Peer(client).handshake()), (b'65534\n', 'close_notify'))
        is_equal(c.wait(), 0)
        is_equal(c.stderr(), '')


# A log line

@test('a line of log between two stages, of what is known of the session')
def _():
    client, c = serve('''
        tls-handshake
        importas -i protocol SSL_PROTOCOL
        importas -D "no name" name SSL_TLS_SNI_SERVERNAME
        foreground { fdmove -c 1 2 echo ${name} over ${protocol} }
        tls-io cat''')
    peer = say_hello(client, None, name='example.org', min=TLS13)
    is_equal(peer.recv(5), b'hello')
    is_equal(peer.end_politely(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
    is_equal(c.stderr(), 'example.org over TLSv1.3\n')


run()
