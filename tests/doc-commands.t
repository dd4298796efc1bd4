#!/usr/bin/env python3
# ISC licence: see COPYING.
# What the pages tell to type at a shell: typed as it is printed, where the hosts that it names are.

import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, Chain, need, not_unconfined, not_under_valgrind
from examples import Daemon, Played, is_done
from pages import shown
from peer import Peer
from pki import cert_hash, issued, openssl, pki_path, server_env
from private import ELSEWHERE, Reader, private_machine, wait_listening
from privileges import as_root
from processes import confined_engine
from sockets import tcp_pair
from tap import Skip, is_equal, is_true, run, test, wait_for

HOSTS = ['%s.example.org' % name for name in ('imap', 'mail', 'mx', 'mx1', 'mx2', 'www', 'console')]
HOSTS.append('smtp.example.com')
ADDRESSES = ['127.0.0.1', ELSEWHERE]
EXAMPLES_PAGE = 'examples/README.md'
MESSAGE = 'Subject: hello\n\nOne line.\n'


def cert():
    """A certificate for all that the pages talk to."""
    names = ['DNS:' + name for name in HOSTS] + ['IP:' + address for address in ADDRESSES]
    return issued('hosts', 'subjectAltName=' + ','.join(names), subject='/CN=mx.example.org')


def of_pki(name):
    with open(pki_path(name)) as f:
        return f.read()


def in_the_world(name, **more):
    """A test as root on a machine of its own, given who reads there."""
    def add(function):
        @as_root(name, **more)
        def _():
            cert()
            with private_machine(*HOSTS):
                function(Reader())
    return add


def instead(text, old, new):
    """The text with what cannot be meant as it is replaced."""
    is_true(old in text, '%r is in %r' % (old, text))
    return text.replace(old, new)


# Servers: up to TLS, and in it.

def in_tls(session, **settings):
    def play(talk):
        talk.start_tls(cert=cert(), **settings)
        session(talk)
    return play


def by_smtp(session):
    def play(talk):
        talk.say('220 hi\r\n')
        talk.hear(r'EHLO \S+')
        talk.say('250 STARTTLS\r\n')
        talk.hear('STARTTLS')
        talk.say('220 go ahead\r\n')
        in_tls(session)(talk)
    return play


def by_imap(session):
    def play(talk):
        talk.say('* OK hi\r\n')
        talk.hear('a STARTTLS')
        talk.say('a OK go ahead\r\n')
        in_tls(session)(talk)
    return play


def hangs_up(talk):
    """Nothing is said: the certificate was all that was wanted."""
    is_equal(talk.peer.recv_all()[0], b'')


def imap(talk):
    for line in iter(talk.line, ''):
        tag, command = line.split()[:2]
        talk.say('%s OK %s done\r\n' % (tag, command))
        if command == 'LOGOUT':
            return talk.end()


def smtp(talk):
    """Takes one mail."""
    answers = {'EHLO': '250 hi', 'DATA': '354 go on', 'QUIT': '221 bye'}
    for line in iter(talk.line, ''):
        command = line.split()[0].upper()
        talk.say(answers.get(command, '250 ok') + '\r\n')
        if command == 'DATA':
            talk.until('\r\n\\.\r\n')
            talk.say('250 taken\r\n')
        if command == 'QUIT':
            return talk.end()


def greeted(talk):
    talk.say('220 hi\r\n')
    smtp(talk)


def says_hello(talk):
    talk.say('hello\n')
    talk.end()


# A session

LOGOUT = b'b LOGOUT\r\n'


@in_the_world('starttls-connect: an IMAP session, typed and piped')
def _(reader):
    server = Played(*[by_imap(imap)] * 4, port=143)
    for text in (shown('starttls-connect.1', 'starttls-connect imap'),
                 shown(EXAMPLES_PAGE, 'starttls-connect imap'),
                 shown('starttls-connect.1', 'printf'), shown(EXAMPLES_PAGE, 'printf')):
        result = reader.types(text, LOGOUT)
        is_done(result)
        is_equal((result.out.splitlines()[-1], result.err), (b'b OK LOGOUT done', ''), text)
    server.join()
    server = Played(by_imap(imap), host=ELSEWHERE, port=143)
    reader.has('our-ca.pem', of_pki('ca.pem'))
    text = shown(EXAMPLES_PAGE, 'CAFILE=./our-ca.pem starttls-connect')
    is_done(reader.types(text, LOGOUT, CAFILE='/nonexistent'))
    server.join()


@in_the_world('starttls-connect: an SMTP session by a program')
def _(reader):
    server = Played(by_smtp(smtp), port=25)
    result = reader.types(shown(EXAMPLES_PAGE, "starttls-connect smtp mx.example.org sh -c"))
    is_done(result)
    is_equal(result.out, b'221 bye\r\n')
    server.join()


@in_the_world('README.md: a session, and a certificate')
def _(reader):
    servers = Played(by_imap(imap), port=143), Played(by_smtp(hangs_up), port=25)
    result = reader.types(shown('README.md', 'starttls-connect imap'), LOGOUT)
    is_done(result)
    is_equal(result.out.splitlines()[0], b'b OK LOGOUT done')
    is_true(result.out.endswith(b'verified    yes, for mx.example.org\n'), result)
    for server in servers:
        server.join()


@in_the_world('tls-connect: a session')
def _(reader):
    server = Played(*[in_tls(imap)] * 3, port=993)
    for text in (shown('tls-connect.1', 'tls-connect imap'),
                 shown(EXAMPLES_PAGE, 'tls-connect imap.example.org 993\n'),
                 shown(EXAMPLES_PAGE, 'tls-connect imap.example.org 993 ./interactive')):
        result = reader.types(text, LOGOUT)
        is_done(result)
        is_equal((result.out, result.err), (b'b OK LOGOUT done\r\n', ''), text)
    server.join()


# A chain of the reader's own. prog... is one that says hello.

PROG = "sh -c 'echo QUIT >&7 && read line <&6 && echo \"$line\"'"


@in_the_world('starttls-dial, tcpclient: a chain after it')
def _(reader):
    server = Played(*[by_smtp(smtp)] * 3, port=25)
    dialled = shown(EXAMPLES_PAGE, "starttls-dial smtp mx.example.org '' tls-handshake")
    # which asks the DNS only
    called = instead(shown(EXAMPLES_PAGE, 'tcpclient mx.example.org 25 starttls/smtp'),
                     'tcpclient mx.example.org', 'tcpclient 127.0.0.1')
    delayed = instead(shown(EXAMPLES_PAGE, 'tcpclient mx.example.org 25\ntls-ctl-open'),
                      'tcpclient mx.example.org', 'tcpclient 127.0.0.1')
    reader.has('delayed', '#!/bin/execlineb -P\n'
               + instead(delayed, 'prog...', PROG.replace('"', r'\"').replace("'", '"')), 0o755)
    for text in instead(dialled, 'prog...', PROG), instead(called, 'prog...', PROG), './delayed':
        result = reader.types(text)
        is_done(result)
        is_equal(result.out.strip(), b'221 bye', text)
    server.join()


def who(talk):
    """Says who has come, and waits for nothing."""
    talk.say('hello %s\n' % talk.peer.tls.getpeercert()['subject'][0][0][1])
    talk.end()


@in_the_world('starttls-dial: a server that wants to see a certificate')
def _(reader):
    for file, source in ('key.pem', 'client.key'), ('cert.pem', 'client.pem'):
        reader.has(file, of_pki(source))
    server = Played(*[in_tls(who, verify=True)] * 2, port=4433)
    for text, env in ((shown('starttls-dial.1', 'KEYFILE=./key.pem'), {}),
                      (shown(EXAMPLES_PAGE, 'starttls-dial tls console.example.org 4433'),
                       {'KEYFILE': './key.pem', 'CERTFILE': './cert.pem'})):
        result = reader.types(text, **env)
        is_done(result)
        is_equal(result.out, b'hello client\n')
    server.join()


@in_the_world('tls-engine-open: clients of one engine')
def _(reader):
    text = shown('tls-engine-open.1', 'tls-engine-open -c')
    server = Played(in_tls(says_hello), in_tls(says_hello), host='0.0.0.0', port=465)
    result = reader.types(instead(text, 'mx1.example.org mx2.example.org', ' '.join(ADDRESSES)))
    is_done(result)
    is_equal(result.out, b'hello\nhello\n')
    server.join()


# A certificate

@in_the_world('starttls-cert: what the page shows is what it prints')
def _(reader):
    command, _, output = shown('starttls-cert.1', '$ starttls-cert').partition('\n')
    server = Played(by_smtp(hangs_up), by_smtp(hangs_up), port=25)
    for text in command.removeprefix('$ '), shown(EXAMPLES_PAGE, 'starttls-cert smtp'):
        result = reader.types(text)
        is_done(result)
        said = result.out.decode().splitlines()
        is_equal([line[:12] for line in said], [line[:12] for line in output.splitlines()])
        is_equal((said[0], said[-1]), (output.splitlines()[0], output.splitlines()[-1]))
    server.join()


@in_the_world('starttls-cert: a list each morning')
def _(reader):
    cron = re.fullmatch(r'0 6 \* \* \*  (.*)\n', shown('starttls-cert.1', '0 6 * * *'))[1]
    with open('/etc/certificates-to-watch', 'w') as f:
        f.write(shown('starttls-cert.1', '# what our users see'))
    servers = [Played(by_smtp(hangs_up), port=25), Played(by_smtp(hangs_up), port=587),
               Played(by_imap(hangs_up), port=143)]
    result = reader.types(cron)
    is_equal(result.code, 111)
    is_equal(result.out.decode().split(':')[0], 'bad      -  tls www.example.org 443')
    for server in servers:
        server.join()


@in_the_world('starttls-chain: piped into openssl')
def _(reader):
    server = Played(by_smtp(hangs_up), by_smtp(hangs_up), port=25)
    for text in (shown('starttls-chain.1', 'starttls-chain smtp'),
                 shown(EXAMPLES_PAGE, 'starttls-chain smtp')):
        result = reader.types(text)
        is_done(result)
        is_true('DNS:console.example.org' in result.out.decode(), result)
        is_equal(result.err, '')
    server.join()


# Policies

@in_the_world('the policies of a client')
def _(reader):
    server = Played(*[by_imap(imap)] * 3, port=143)
    pin = shown(EXAMPLES_PAGE, "starttls-dial imap imap.example.org '' tls-handshake -c -N -k "
                'imap.example.org policy/pin')
    is_done(reader.types(instead(pin, 'SHA256:...', cert_hash(cert())), LOGOUT))
    tofu = shown(EXAMPLES_PAGE, "starttls-dial imap imap.example.org '' tls-handshake -c -N -k "
                 'imap.example.org policy/tofu')
    for said in True, False:
        result = reader.types(tofu, LOGOUT)
        is_done(result)
        is_equal('tofu: info: first use: ./imap.trusted' in result.err, said)
    server.join()
    server = Played(in_tls(hangs_up), port=993)
    result = reader.types(shown(EXAMPLES_PAGE, 'starttls-dial tls imap.example.org 993'))
    is_done(result)
    is_true(cert_hash(cert()) in result.out.decode(), result)
    server.join()


@in_the_world('the policy of a server')
def _(reader):
    for name, value in server_env(CAFILE=pki_path('ca.pem')).items():
        reader.has('tls/' + name, value + '\n')
    reader.has('clients/' + cert_hash('client'), '')
    text = instead(shown(EXAMPLES_PAGE, 'tcpserver 0 4433'), 'prog...', 'echo welcome')
    Daemon(['sh', '-c', 'exec ' + text], env=reader.env, cwd=reader.dir)
    wait_listening(4433)
    for name, out in ('client', b'welcome\n'), ('client2', b''):
        result = reader.types('starttls-dial tls 127.0.0.1 4433 tls-handshake -c -y -k localhost '
                              'tls-io sh -c "cat <&6"', **server_env(name))
        is_equal(result.out, out)


# Mail

@in_the_world('mail: all three ways to send one')
def _(reader):
    reader.has('message', MESSAGE)
    servers = Played(by_smtp(smtp), by_smtp(smtp), port=25), Played(in_tls(greeted), port=465)
    for text in (shown(EXAMPLES_PAGE, 'mail/send-mandatory'),
                 shown(EXAMPLES_PAGE, 'mail/send-opportunistic'),
                 shown(EXAMPLES_PAGE, 'starttls-dial tls smtp.example.com')):
        is_done(reader.types(text))
    for server in servers:
        server.join()


# What else is to be typed

@test('tls-chain-environment.7: a key')
def _():
    reader = Reader()
    is_done(reader.types(shown('tls-chain-environment.7', 'openssl ecparam')))
    is_true(b'ASN1 OID: prime256v1' in openssl('ec', '-in', reader.dir + '/www.key', '-text',
                                               '-noout'), 'a key')


@in_the_world('tls-chain-security.7: the group that was agreed on')
def _(reader):
    if tuple(map(int, openssl('version').split()[1].split(b'.')[:2])) < (3, 5):
        raise Skip('openssl does not tell')
    text = shown('tls-chain-security.7', 'openssl s_client')
    server = Daemon(['tcpserver', '-HRl0', '127.0.0.1', '443', 'tls-handshake', 'tls-io', 'cat'],
                    env={**reader.env, **server_env()})
    server.wait_port(443)
    is_true(re.match(rb'(Negotiated TLS1.3 group|Peer Temp Key): ', reader.types(text).out), text)


@test('tls-engine.8: where it is, and what it links')
def _():
    not_under_valgrind('has scripts in the place of programs')
    need('strings')
    text = shown('tls-engine.8', 'strings -a')
    path = os.path.realpath(Reader().types(text.splitlines()[0]).out.strip())
    is_true(os.path.samefile(path, BIN + '/tls-engine'), path)
    result = Reader().types(instead(text, '/usr/local/libexec/tls-chain/tls-engine', path.decode()))
    if 'not a dynamic executable' in result.err:
        raise Skip('the engine is static')
    is_done(result)
    is_true(b'libc' in result.out, result)


@as_root('tls-engine.8: what a process has left')
def _():
    need('pgrep')
    not_unconfined('has no empty root and no filter')
    client, server = tcp_pair()
    chain = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
    peer = Peer(client).handshake()
    confined_engine()
    text = shown('tls-engine.8', 'pid=$(pgrep')

    def is_shown():
        out = Reader().types(text).out.decode()
        return re.search(r'^CapEff:\t0+$', out, re.M) and re.search('^Seccomp:\t2$', out, re.M) \
            and out.splitlines()[-1].endswith('/empty')
    wait_for(is_shown, 'an engine that has nothing')
    peer.end_politely()
    is_equal(chain.wait(), 0)


@test('tls-chain-design.7: system calls that fail')
def _():
    need('strace')
    not_under_valgrind('is not to be traced')
    result = Reader().types(shown('tls-chain-design.7', 'strace -f'))
    is_equal(result.code, 100)
    is_true('tls-handshake: fatal: ' in result.err, result)


@test('lines of scripts: Exim is told the address; standard error is a file')
def _():
    need('execlineb')
    reader = Reader()
    reader.has('exim', '#!/bin/sh\necho "$*"\n', 0o755)
    reader.has('exim.run', '#!/bin/execlineb -P\n'
               + shown('tls-chain-services.7', 'importas -i ip'), 0o755)
    result = reader.types('TCPREMOTEIP=192.0.2.9 ./exim.run')
    is_equal(result.out, b'-bs -oMa 192.0.2.9\n', result)
    for text, log in ((shown('tls-chain-services.7', 'redirfd'), '/var/log/smtps.log'),
                      (shown('tls-ctl-open.1', 'redirfd'), '/var/log/smtp.log')):
        reader.has('run', '#!/bin/execlineb -P\n' + instead(text, log, './log') + 'tls-io\n', 0o755)
        is_equal(reader.types('./run').err, '')
    with open(reader.dir + '/log') as f:
        is_equal(len(re.findall('tls-io: .*fatal: ', f.read())), 2)


run()
