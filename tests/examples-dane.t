#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/policy/dane and dane-match: real sessions, records from a real name server, and others.

import hashlib
import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN
from dnssec import Dns, tlsa
from examples import (EXAMPLES, SAY_HELLO, Played, Result, example, gets_nothing, greets, is_done,
                      is_refused)
from pages import shown
from pki import bundle, cert_hash, issued, issued_between, pki, pki_path
from postfix import Postfix
from scratch import temp_dir
from tap import is_equal, is_true, run, test

HOST = 'mx.signed'
NAMED = 'subjectAltName=DNS:' + HOST
AUTHORITY = 'basicConstraints=critical,CA:TRUE'
NO_MATCH = 'the certificates of mx.signed do not match its TLSA records'
EMPTY = hashlib.sha256().hexdigest()
OTHER_KIND = 'mx.signed has TLSA records for port 25, but none that can be used'


def named():
    """A certificate for the host, by the CA."""
    return issued('dane', NAMED)


def sent(*certs):
    """The name of a server's certificate and what it sends with it."""
    name = '+'.join(certs)
    if not os.path.exists(pki_path(name + '.pem')):
        bundle(name, certs[0], *certs)
    return name


def records(cert, usage):
    """All records there can be of a certificate."""
    return [tlsa(cert, usage, selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


def visit(server, data=None, host=HOST, env={}, dns=None, prog=SAY_HELLO):
    """Greets the server if its certificates are those of the records: this data, or the DNS has it.
    What the policy says, without what the programs of the chain say; no file is left."""
    d = temp_dir()
    env = {'TMPDIR': d, **(dns.env if dns else {'TLSA': '\n'.join(data)}), **env}
    result = example('starttls-dial', 'tls', '127.0.0.1', server.port,
                     EXAMPLES + '/policy/dane', host, 25, 'tls-io', *prog, env=env)
    is_equal(os.listdir(d), [], 'files left')
    return Result(result.code, result.out, ''.join(re.findall('^dane.*\n', result.err, re.M)))


def accepts(cert, *data, **more):
    """This server is greeted."""
    server = Played(greets(cert))
    result = visit(server, data, **more)
    is_done(result)
    is_equal((result.out.decode(), result.err), ('hello from %s\n' % cert, ''))
    server.join()


def refuses(cert, why, *data, **more):
    """This server gets not one byte. why is a pattern: openssl's words differ with its version."""
    server = Played(gets_nothing(cert))
    result = visit(server, data, **more)
    is_equal((result.code, result.out), (77, b''), result)
    is_true(re.fullmatch('dane-match: fatal: %s\n' % why, result.err), result.err)
    server.join()


@test('3: the certificate or its key, however the record tells it; no other')
def _():
    named()
    for record in records('dane', 3):
        accepts('dane', record)
    refuses('server', NO_MATCH, *records('dane', 3))
    accepts('rsa', tlsa('rsa', 3, 1, 1))


@test('3: neither names nor dates nor the authority matter, nor what else is sent')
def _():
    accepts('otherca', tlsa('otherca', 3, 1, 1))
    accepts(issued_between('once', '200101000000Z', '200201000000Z'), tlsa('once', 3, 1, 1))
    accepts(sent('a', 'otherca', 'server'), tlsa('a', 3, 1, 1))


@test('3: the certificate that counts is the one whose key the server has')
def _():
    refuses(sent('a', named()), NO_MATCH, tlsa('dane', 3, 1, 1), tlsa('dane', 3, 0, 1))


@test('of several records one is enough: before a new key is used, after it, and of both usages')
def _():
    old, new = tlsa('a', 3, 1, 1), tlsa('b', 3, 1, 1)
    for cert in 'a', 'b':
        accepts(cert, old, new)
        accepts(cert, new, old)
    accepts(sent('a', 'ca'), tlsa('ca', 2, 1, 1), old)
    accepts(sent(named(), 'ca'), old, tlsa('ca', 2, 1, 1))
    refuses('server', NO_MATCH, old, new)


@test('2: an authority that is sent, however the record tells it')
def _():
    chain = sent(named(), 'ca')
    for record in records('ca', 2):
        accepts(chain, record)
    refuses(chain, NO_MATCH, *records('otherca', 2))


@test('2: an authority in the middle, or the one above it')
def _():
    issued('middle', AUTHORITY)
    issued('below', NAMED, ca='middle')
    for chain in sent('below', 'middle', 'ca'), sent('below', 'ca', 'middle'):
        for authority in 'middle', 'ca':
            accepts(chain, tlsa(authority, 2, 1, 1))
    accepts(sent('below', 'middle'), tlsa('middle', 2, 0, 1))
    refuses(sent('below', 'ca'), NO_MATCH + ': unable to get local issuer certificate',
            tlsa('ca', 2, 1, 1))


@test('2: the name has to be the host, and the dates to hold')
def _():
    ca = tlsa('ca', 2, 1, 1)
    refuses(sent('server', 'ca'), NO_MATCH + ': hostname mismatch', ca)
    accepts(sent('server', 'ca'), ca, host='www.example.net')
    issued_between('past', '200101000000Z', '200201000000Z', NAMED)
    refuses(sent('past', 'ca'), NO_MATCH + ': certificate has expired', ca)
    issued_between('future', '20400101000000Z', '20400201000000Z', NAMED)
    refuses(sent('future', 'ca'), NO_MATCH + ': certificate is not yet valid.*', ca)
    issued_between('gone', '200101000000Z', '200201000000Z', AUTHORITY)
    issued('late', NAMED, ca='gone')
    refuses(sent('late', 'gone'), NO_MATCH + ': certificate has expired', tlsa('gone', 2, 1, 1))


@test('2: an authority that is not sent, has not signed, or is none')
def _():
    ca = tlsa('ca', 2, 1, 1)
    refuses(named(), NO_MATCH, ca)
    issued('forgery', NAMED, ca='otherca')
    issuer = NO_MATCH + ': unable to get local issuer certificate'
    refuses(sent('forgery', 'ca'), issuer, ca)
    refuses(sent('forgery', 'otherca', 'ca'),
            NO_MATCH + ': self-signed certificate in certificate chain', ca)
    refuses(sent(named(), 'otherca'), issuer, tlsa('otherca', 2, 1, 1),
            env={'SSL_CERT_FILE': pki_path('ca.pem')})
    refuses('dane', NO_MATCH, tlsa('dane', 2, 1, 1))
    issued('nobody', 'basicConstraints=critical,CA:FALSE')
    issued('subject', NAMED, ca='nobody')
    refuses(sent('subject', 'nobody'), NO_MATCH + ': invalid CA certificate',
            tlsa('nobody', 2, 1, 1))
    issued('purpose', NAMED + '\nextendedKeyUsage=clientAuth')
    refuses(sent('purpose', 'ca'), NO_MATCH + ': unsuitable certificate purpose', ca)


@test('the records are looked up: the right server, another, one by its authority')
def _():
    dns = Dns('_25._tcp.mx.signed. TLSA ' + tlsa(named(), 3, 1, 1),
              '_25._tcp.www.example.signed. TLSA ' + tlsa('ca', 2, 1, 1))
    for host in HOST, HOST + '.':
        accepts('dane', dns=dns, host=host)
    refuses('server', NO_MATCH, dns=dns)
    issued('www', 'subjectAltName=DNS:*.example.signed')
    accepts(sent('www', 'ca'), dns=dns, host='www.example.signed')


@test('no record, a zone that is not signed, records of other kinds: refused; unknown: 75')
def _():
    right = tlsa(named(), 3, 1, 1)
    dns = Dns('_25._tcp.mx.plain. TLSA ' + right, '_25._tcp.mx.stolen. TLSA ' + right,
              '_25._tcp.mx.signed. TLSA ' + tlsa('dane', 1, 1, 1))
    for host in 'mx.plain', 'none.signed', '127.0.0.1':
        refuses('dane', host + ' has no TLSA record for port 25', dns=dns, host=host)
    refuses('dane', OTHER_KIND, dns=dns)
    refuses('dane', OTHER_KIND, 'unusable')
    server = Played(*[gets_nothing('dane')] * 2)
    for host, why in ('mx.stolen', 'validation failure'), (HOST, 'SERVFAIL'):
        result = visit(server, dns=dns, host=host)
        is_equal((result.code, result.out, result.err.count('\n')), (75, b'', 1), result)
        is_true(result.err.startswith('dane-lookup: fatal: ') and why in result.err, result.err)
        dns.server.close()
    server.join()


def offers(talk):
    """The server's part of SMTP up to TLS."""
    talk.say('220 mx.signed\r\n')
    talk.hear(r'EHLO \S+')
    talk.say('250-mx.signed\r\n250 STARTTLS\r\n')
    talk.hear('STARTTLS')
    talk.say('220 go ahead\r\n')


def then(play):
    def both(talk):
        offers(talk)
        play(talk)
    return both


@test('as it is typed in examples/README.md')
def _():
    named()
    server = Played(then(greets('dane')))
    text = shown('examples/README.md', "starttls-dial smtp mx.example.org '' policy/dane mx.")
    for old, new in (("mx.example.org ''", '127.0.0.1 %d' % server.port),
                     ('dane mx.example.org', 'dane ' + HOST), ('prog...', '"$@"')):
        is_true(old in text, old)
        text = text.replace(old, new)
    result = example('sh', '-c', text, 'sh', *SAY_HELLO, cwd=EXAMPLES,
                     env={'TLSA': tlsa('dane', 3, 1, 1), 'PATH': EXAMPLES + ':' + BIN + ':'
                          + os.environ['PATH']})
    server.join()
    is_equal((result.code, result.out), (0, b'hello from dane\n'), result)


@test('by STARTTLS and under UCSPI-TLS: the same, and a refused client does not go on in plaintext')
def _():
    named()
    dane = [EXAMPLES + '/policy/dane', HOST, '25', 'tls-io']
    under = ['tls-await', '-c', *dane]
    ways = (('starttls-dial', 'smtp', '127.0.0.1'), dane), \
        (('tcpclient', '-HRl0', '127.0.0.1'), [
            'tls-ctl-open', *[' ' + word for word in under], '', EXAMPLES + '/starttls/smtp',
            'tls-ctl-start', '-c'])
    for dial, chain in ways:
        for cert, play, code in ('dane', greets, 0), ('server', gets_nothing, None):
            server = Played(then(play(cert)))
            result = example(*dial, server.port, *chain, *SAY_HELLO,
                             env={'TLSA': tlsa('dane', 3, 1, 1)})
            server.join()
            is_equal(result.out, b'' if code is None else b'hello from dane\n')
            is_equal('do not match its TLSA records' in result.err, code is None, result.err)
            is_true(result.code == 0 if code == 0 else result.code in (77, 97), result)


@test('with Postfix: a mail arrives by DANE; by another record not even a MAIL FROM')
def _():
    postfix = Postfix()
    dns = Dns('_25._tcp.mx.signed. TLSA ' + tlsa('server', 3, 1, 1),
              '_25._tcp.other.signed. TLSA ' + tlsa('a', 3, 1, 1))

    def send(host):
        return example('starttls-dial', 'smtp', '127.0.0.1', postfix.port,
                       EXAMPLES + '/policy/dane', host, 25, 'tls-io',
                       EXAMPLES + '/mail/smtp-send', 'alice@example.org', 'bob@example.net',
                       input=b'Subject: hello\n\nhello\n', env=dns.env)

    is_done(send('other.signed'), 77)
    postfix.wait_log('[127.0.0.1] ehlo=1 starttls=1 commands=2')
    is_done(send(HOST))
    [(head, body)] = postfix.delivered()
    is_true(b'with ESMTPS' in head and body == b'hello\n', head)


@test('prog has neither TLSA nor the certificates, nor another descriptor')
def _():
    server = Played(greets('server'))
    result = visit(server, [tlsa('server', 3, 1, 1)], prog=[
        'sh', '-c', 'env | grep -Ex "(TLSA|FD[0-9]*|here|code)=.*"; ls /proc/$$/fd; '
        + SAY_HELLO[2]])
    is_equal((result.code, result.out), (0, b'0\n1\n2\n6\n7\nhello from server\n'), result)
    server.join()


@test('dane-match by itself: certificates of another session, none, no peer, no openssl')
def _():
    right = tlsa(named(), 3, 1, 1)
    chain = pki_path(sent('dane', 'ca') + '.pem')
    not_its = "these are not the peer's certificates: policy/dane sees to that"

    def matches(input, code, why, **env):
        env = {'TLSA': right, 'SSL_PEER_CERT_HASH': cert_hash('dane'), **env}
        is_refused(example('policy/dane-match', HOST, 25, input=input, env=env), code,
                   *['dane-match: fatal: ' + why] * (code != 0))

    matches(chain, 0, '')
    for other in pki_path('a.pem'), '/dev/null', '/etc/passwd':
        matches(other, 100, not_its)
    matches(chain, 100, not_its, SSL_PEER_CERT_HASH=cert_hash('a'))
    matches(chain, 77, 'the peer has shown no certificate', SSL_PEER_CERT_HASH='')
    for data in '3', '3 1 1', '3 1 4', '3 9 1', '2 1 4 ', '3 1 4 ' + EMPTY, '3 9 1 ' + EMPTY, ' ':
        matches(chain, 77, NO_MATCH, TLSA=data)
    tools = temp_dir()
    os.symlink('/bin/sh', tools + '/sh')
    matches(chain, 111, 'there is no openssl here: install it', PATH=tools)
    is_refused(example('policy/dane-match', HOST), 100, 'usage: dane-match host port < chain')


run()
