#!/usr/bin/env python3
# ISC licence: see COPYING.
# What beginners get wrong, and what they are told: a table, a line for each mistake.

import os
import pty
import re
import shutil
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import Chain, need, not_resident
from peer import Peer
from pki import pki, server_env
from scratch import temp_dir
from services import write_script
from sockets import tcp_pair
from tap import is_equal, is_true, run, test

DELAYED = 'tls-ctl-open { %s } ./application'
STAGES = 'tls-await tls-handshake tls-io'
NOW = 'tls-handshake tls-io cat'
USAGE = 'usage: tls-handshake [ -c ] '
NONE = {'KEYFILE': None, 'CERTFILE': None}
UNABLE = 'tls-handshake: fatal: unable to start TLS: '

# What the client does.
LEAVES, SHAKES, TALKS = 'leaves', 'shakes hands', 'talks plaintext'

# What is wrong; the script; settings that differ, in which KEY and CERT are files and DIR is a
# directory; what the client does; the exit code; what the line says.
SERVERS = [
    # blocks
    ('a block without braces', 'tls-ctl-open %s ./application' % STAGES, {}, LEAVES, 100,
     'tls-ctl-open: fatal: unterminated block: { and } make one in execline only, not in sh'),
    ('a block typed in sh', ['tls-ctl-open', '{', *STAGES.split(), '}', './application'], {},
     LEAVES, 100,
     'tls-ctl-open: fatal: unterminated block: { and } make one in execline only, not in sh'),
    ('an empty block', DELAYED % '', {}, LEAVES, 100,
     'tls-ctl-open: fatal: empty block: tls-await, tls-handshake and tls-io go into it'),
    ('no application after the block', 'tls-ctl-open { %s }' % STAGES, {}, LEAVES, 100,
     'tls-ctl-open: fatal: no program after the block: the application goes there'),
    ('a stage of another suite', DELAYED % 'no-such-tlsd', {}, LEAVES, 127,
     'tls-ctl-open: fatal: unable to exec the TLS side no-such-tlsd: No such file or directory'),
    # stages forgotten, or in the wrong order
    ('tls-ctl-open forgotten', STAGES + ' ./application', {}, LEAVES, 100,
     'tls-await: fatal: TLS_CTLFD is not set: tls-await goes after tls-ctl-open'),
    ('tls-await forgotten', DELAYED % './asked tls-handshake tls-io', {}, LEAVES, None,
     "tls-handshake: fatal: the application's request has not been read: tls-handshake goes after "
     'tls-await'),
    ('tls-handshake forgotten', 'tls-io cat', {}, LEAVES, 100,
     'tls-io: fatal: TLS_SESSIONFD is not set: tls-io goes after tls-handshake'),
    ('tls-handshake forgotten in the block', DELAYED % 'tls-await tls-io', {}, LEAVES, None,
     'tls-io: fatal: TLS_SESSIONFD is not set: tls-io goes after tls-handshake'),
    ('tls-io forgotten in the block', DELAYED % 'tls-await tls-handshake', {}, LEAVES, None,
     'tls-handshake: fatal: no program: tls-io goes after tls-handshake'),
    ('nothing after tls-await', DELAYED % 'tls-await', {}, LEAVES, None,
     'tls-await: fatal: no program: tls-handshake goes after tls-await'),
    ('nothing after tls-handshake', 'tls-handshake', {}, LEAVES, 100,
     'tls-handshake: fatal: no program: tls-io goes after tls-handshake'),
    ('nothing after tls-io', 'tls-handshake tls-io', {}, SHAKES, 100,
     'tls-io: fatal: no program: the application goes after tls-io'),
    ('nothing after tls-peek', 'tls-peek', {}, LEAVES, 100,
     'tls-peek: fatal: no program: tls-handshake goes after tls-peek'),
    ('nothing after tls-engine-open', 'tls-engine-open', {}, LEAVES, 100,
     'tls-engine-open: fatal: no program: the UCSPI server goes after tls-engine-open'),
    ('tls-io before tls-handshake', 'tls-io tls-handshake cat', {}, LEAVES, 100,
     'tls-io: fatal: TLS_SESSIONFD is not set: tls-io goes after tls-handshake'),
    ('tls-await after tls-handshake', 'tls-handshake tls-await tls-io cat', {}, SHAKES, 100,
     'tls-await: fatal: TLS_SESSIONFD is set: tls-await goes before tls-handshake'),
    ('tls-peek after tls-handshake', 'tls-handshake tls-peek tls-io cat', {}, SHAKES, 100,
     'tls-peek: fatal: TLS_SESSIONFD is set: tls-peek goes before tls-handshake'),
    ('tls-ctl-open after tls-handshake', 'tls-handshake tls-ctl-open { tls-io } cat', {}, SHAKES,
     100, 'tls-ctl-open: fatal: a session has been started: tls-ctl-open goes before '
     'tls-handshake'),
    ('tls-handshake twice', 'tls-handshake tls-handshake tls-io cat', {}, SHAKES, 100,
     'tls-handshake: fatal: descriptor 0 is not a network: has tls-handshake run before? tls-io '
     'goes after it'),
    ('tls-ctl-start without tls-ctl-open', 'tls-ctl-start cat', {}, LEAVES, 100,
     'tls-ctl-start: fatal: SSLCTLFD is not set: tls-ctl-start goes after tls-ctl-open'),
    # options
    ('-c in a server', 'tls-handshake -c -k localhost tls-io cat', {}, LEAVES, 100,
     'tls-handshake: fatal: the network is on 0 and 1, not on 6 and 7: do not give -c'),
    ('-k without -c', 'tls-handshake -k localhost tls-io cat', {}, LEAVES, 100,
     'tls-handshake: fatal: -k, -n, -N and -O are for a client: give -c as well'),
    ('an option that is none', 'tls-handshake -x tls-io cat', {}, LEAVES, 100, USAGE),
    ('a time with a unit', 'tls-handshake -K 30s tls-io cat', {}, LEAVES, 100, USAGE),
    ('a program that is not there', 'tls-handshake tls-io no-such-program', {}, SHAKES, 127,
     'tls-io: fatal: unable to exec no-such-program: No such file or directory'),
    # settings
    ('no settings', NOW, NONE, LEAVES, 96, UNABLE + 'KEYFILE and CERTFILE are not set'),
    ('a misspelt name', NOW, {'KEYFILE': None, 'KEY_FILE': 'KEY'}, LEAVES, 96,
     UNABLE + 'CERTFILE is set, but KEYFILE is not'),
    ('a path that starts elsewhere', NOW, {'KEYFILE': 'ssl/key.pem'}, LEAVES, 96,
     UNABLE + 'unable to read KEYFILE ssl/key.pem: No such file or directory'),
    ('settings with CR LF', NOW, {'KEYFILE': 'KEY\r'}, LEAVES, 96,
     'No such file or directory: the path ends in CR, which is no line end here'),
    ('key and certificate in each other\'s place', NOW, {'KEYFILE': 'CERT', 'CERTFILE': 'KEY'},
     LEAVES, 96, '/server.pem: there is no private key in PEM in it'),
    ('a setting that is empty', NOW, {'CERTFILE': ''}, LEAVES, 96,
     UNABLE + 'CERTFILE is set to nothing: unset it, or give it a value'),
    ('TLS_UID without TLS_GID', NOW, {'TLS_UID': '65534'}, LEAVES, 96,
     UNABLE + 'TLS_UID is set, but TLS_GID is not'),
    ('a user by name', NOW, {'TLS_UID': 'nobody', 'TLS_GID': '65534'}, LEAVES, 96,
     UNABLE + 'TLS_UID must be a number: nobody'),
    ('root as the user', NOW, {'TLS_UID': '0', 'TLS_GID': '0'}, LEAVES, 96,
     UNABLE + "TLS_UID must not be root's: 0"),
    ('a version without its prefix', NOW, {'TLS_PROTOCOLS': '1.3'}, LEAVES, 96,
     UNABLE + 'unable to use TLS_PROTOCOLS 1.3: invalid value (known are tlsv1.2 and tlsv1.3)'),
    ('a group that is none', NOW, {'TLS_CURVES': 'P-255'}, LEAVES, 96,
     UNABLE + "unable to use TLS_CURVES P-255: "),
    ('client certificates without an authority', 'tls-handshake -y tls-io cat', {}, LEAVES, 96,
     UNABLE + 'neither CAFILE nor CADIR is set: nothing to verify client certificates with'),
    ('an authority that is a key', 'tls-handshake -y tls-io cat', {'CAFILE': 'KEY'}, LEAVES, 96,
     '/server.key: there is no certificate in PEM in it'),
    ('a directory without hashes', 'tls-handshake -y tls-io cat', {'CADIR': 'DIR'}, LEAVES, 96,
     ': no certificate in it is named by hash: run openssl rehash on it'),
    ('a URL for a name', NOW, {'KEYFILE:https://a.example': 'KEY',
                               'CERTFILE:https://a.example': 'CERT'}, LEAVES, 96,
     UNABLE + 'neither a host name nor *.domain: CERTFILE:https://a.example'),
    ('half a pair for a name', NOW, {'CERTFILE:a.example': 'CERT'}, LEAVES, 96,
     UNABLE + 'CERTFILE:a.example is set, but KEYFILE:a.example is not'),
    # engines
    ('an engine that does not run', NOW, {**NONE, 'TLS_ENGINE': '/nonexistent/engine'}, LEAVES, 111,
     'tls-handshake: fatal: unable to start TLS: unable to connect to TLS_ENGINE '
     '/nonexistent/engine: No such file or directory'),
    ('an engine, and settings besides', NOW, {'TLS_ENGINE': '/nonexistent/engine'}, LEAVES, 100,
     'tls-handshake: fatal: KEYFILE is set, but the engine at TLS_ENGINE has settings of its own: '
     'unset one of them'),
    ('settings after tls-engine-open', 'tls-engine-open env KEYFILE=/key.pem ' + NOW, {}, LEAVES,
     100, 'tls-handshake: fatal: KEYFILE is set, but the engine at TLS_ENGINEFD has settings of '
     'its own: unset one of them'),
    ('settings only after tls-engine-open', 'tls-engine-open env KEYFILE=/key.pem ' + NOW, NONE,
     LEAVES, 96, 'tls-engined: fatal: KEYFILE and CERTFILE are not set'),
    ('tls-engine-open twice', 'tls-engine-open tls-engine-open ' + NOW, {}, LEAVES, None,
     'tls-engine-open: fatal: TLS_ENGINEFD is set: an engine has been opened already'),
    ('two engines', 'tls-engine-open ' + NOW, {'TLS_ENGINE': '/run/engine'}, LEAVES, 100,
     'tls-engine-open: fatal: TLS_ENGINE is set: unset it, or do without tls-engine-open'),
    # peers
    ('a client that begins in plaintext', NOW, {}, TALKS, 97,
     UNABLE + "bytes came in plaintext before the client's TLS began"),
    ('the same before tls-peek', 'tls-peek ' + NOW, {}, TALKS, 97,
     'tls-peek: fatal: the peer does not speak TLS'),
]

AS_CLIENT = 'tls-handshake -c -k localhost tls-io cat'
CA = {**NONE, 'CAFILE': 'CA'}

CLIENTS = [
    ('-c forgotten', NOW, {}, LEAVES, 100,
     'tls-handshake: fatal: the network is on 6 and 7, not on 0 and 1: give -c'),
    ('no name to verify', 'tls-handshake -c tls-io cat', CA, LEAVES, 100,
     'tls-handshake: fatal: no server name to verify: give -k name, or -n'),
    ('a name that the server does not have', 'tls-handshake -c -k example.com tls-io cat', CA,
     SHAKES, 97, UNABLE + "name `example.com' not present in server certificate"),
    ('an authority that did not sign it', AS_CLIENT, {**NONE, 'CAFILE': 'OTHER'}, SHAKES, 97,
     UNABLE + 'certificate verification failed: '),
    ('no certificate to show', 'tls-handshake -c -y -k localhost tls-io cat', CA, LEAVES, 96,
     UNABLE + 'KEYFILE and CERTFILE are not set: no certificate to show'),
    ('a server that greets in plaintext', AS_CLIENT, CA, TALKS, 97,
     UNABLE + 'the server sent bytes in plaintext before TLS began'),
    ('tls-ctl-start without -c', 'tls-ctl-open { tls-await -c %s } tls-ctl-start cat' % AS_CLIENT,
     CA, LEAVES, None, 'tls-ctl-start: fatal: the network is on 6 and 7, not on 0 and 1: give -c'),
]

APPLICATION = '''#!%s -IS
import os
os.write(int(os.environ['SSLCTLFD']), b'Y')
os.read(int(os.environ['SSLCTLFD']), 1)
''' % sys.executable

# A stage that waits until the application has asked, and takes nothing.
ASKED = '''#!%s -IS
import os, select, sys
select.select([int(os.environ['TLS_CTLFD'])], [], [])
os.execvp(sys.argv[1], sys.argv[1:])
''' % sys.executable


def settings(changes):
    files = {'KEY': pki() + '/server.key', 'CERT': pki() + '/server.pem', 'DIR': temp_dir(),
             'CA': pki() + '/ca.pem', 'OTHER': pki() + '/otherca.pem'}
    shutil.copy(pki() + '/ca.pem', files['DIR'])
    env = {**server_env(), **changes}
    return {name: re.sub('^(%s)(?=' % '|'.join(files) + r'\r?$)', lambda m: files[m[1]], value)
            for name, value in env.items() if value is not None}


def play(other, does, is_client):
    """What the other side does, until all is over."""
    if does is TALKS:
        other.sendall(b'EHLO client.example\r\n' if is_client else b'220 server.example\r\n')
    if does is not LEAVES:
        try:
            peer = Peer(other, client=is_client, **({} if is_client else {'cert': 'server'}))
            if does is SHAKES:
                peer.handshake()
            peer.recv_all()
        except (ssl.SSLError, OSError):
            pass
    other.close()


def told(argv, changes, does=LEAVES, in_client=False, net=None):
    """The exit code, and the lines."""
    need('execlineb')
    not_resident('these are settings of the chain')
    d = temp_dir()
    write_script(d + '/application', APPLICATION)
    write_script(d + '/asked', ASKED)
    other = None
    if not net:
        other, net = tcp_pair()
    c = Chain(argv, net, env=settings(changes), client=in_client, preexec=lambda: os.chdir(d))
    if other:
        play(other, does, is_client=not in_client)
    return c.wait(), c.stderr().splitlines()


def is_told(found, code, words):
    lines = [s for s in found[1] if words in s]
    is_equal(len(lines), 1, 'lines, of all that is said: %r' % (found,))
    is_true(code in (None, found[0]), 'exit code: %s' % found[0])


def mistake(in_client, what, script, changes, does, code, words):
    @test('%s: %s' % ('client' if in_client else 'server', what))
    def _():
        is_told(told(script, changes, does, in_client), code, words)


for row in SERVERS:
    mistake(False, *row)
for row in CLIENTS:
    mistake(True, *row)


@test('server: at a terminal, from a file, from nowhere')
def _():
    ours, its = pty.openpty()
    with os.fdopen(ours, 'wb'), os.fdopen(its, 'r+b', 0) as terminal:
        is_told(told(NOW, {}, net=terminal), 100,
                'tls-handshake: fatal: descriptor 0 is a terminal, not a network')
    with open(temp_dir() + '/file', 'w+b') as file:
        is_told(told(NOW, {}, net=file), 100, 'tls-handshake: fatal: descriptor 0 is not a '
                'network: neither socket nor pipe')
    is_told(told('fdclose 0 ' + NOW, {}), 100, 'tls-handshake: fatal: unable to use descriptor 0 '
            'as the network: Bad file descriptor')


run()
