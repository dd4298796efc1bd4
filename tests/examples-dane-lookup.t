#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/policy/dane-lookup: a real name server, zones that are signed, badly or not at all.

import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN
from dnssec import KINDS, Dns
from examples import EXAMPLES, example, is_done, is_refused
from pages import shown
from scratch import temp, temp_dir
from tap import Skip, is_equal, is_true, run, test

A, B = '0a' * 32, '0b' * 32
BOGUS = [kind for kind in KINDS if kind not in ('signed', 'plain')]
PAGE = 'examples/README.md'
SAYS = 'dane-lookup: fatal: '


def lookup(dns, host, port=25):
    return example('policy/dane-lookup', host, port, env=dns.env)


def finds(dns, host, *records, port=25):
    """These are the records; nothing is said of anything else."""
    result = lookup(dns, host, port)
    is_done(result)
    is_equal((sorted(result.out.decode().splitlines()), result.err), (sorted(records), ''), host)


def knows_not(result, *reasons):
    """75, and a line that has one of the reasons in it."""
    is_equal((result.code, result.out, len(result.err.splitlines())), (75, b'', 1), result)
    is_true(result.err.startswith(SAYS) and any(r in result.err for r in reasons), result.err)


@test('the records of a signed zone that can be used, of that host and port')
def _():
    dns = Dns('_25._tcp.mx.signed. TLSA 3 1 1 ' + A.upper(), '_25._tcp.mx.signed. TLSA 3 1 1 ' + B,
              '_25._tcp.mx.signed. TLSA 2 0 2 ' + A + B, '_25._tcp.mx.signed. TLSA 1 1 1 ' + A,
              '_25._tcp.mx.signed. TLSA 3 1 0 ' + 9 * A, '_587._tcp.mx.signed. TLSA 2 1 1 ' + B,
              '*._tcp.any.signed. TLSA 3 0 1 ' + A)
    for host in 'mx.signed', 'MX.Signed.':
        finds(dns, host, '3 1 1 ' + A, '3 1 1 ' + B, '2 0 2 ' + A + B, '3 1 0 ' + 9 * A)
    finds(dns, 'mx.signed', '2 1 1 ' + B, port=587)
    finds(dns, 'any.signed', '3 0 1 ' + A, port=2525)


@test('as examples/README.md has it: the command; unbound-host takes the file for UNBOUND_CONF')
def _():
    dns = Dns('_25._tcp.mx.signed. TLSA 3 1 1 ' + A)
    text = shown(PAGE, 'policy/dane-lookup').replace('mx.example.org', 'mx.signed')
    result = example('sh', '-c', text, cwd=EXAMPLES, env=dns.env)
    is_equal((result.code, result.out), (0, b'3 1 1 %s\n' % A.encode()), result)
    if not os.path.exists('/usr/share/dns/root.key'):
        raise Skip('dns-root-data is not installed')
    conf = shown(PAGE, 'server:\n')
    for text, code in (conf, 0), (conf.replace('forward-addr', 'forward-address'), 1):
        # A name that the library answers for by itself.
        result = example('unbound-host', '-C', temp(text.encode()), 'name.invalid')
        is_equal(result.code, code, result)


@test('if there are records of other kinds only, that is what is said')
def _():
    kinds = ['0 0 1 ' + A, '1 1 1 ' + A, '4 1 1 ' + A, '255 1 1 ' + A, '3 2 1 ' + A, '3 1 3 ' + A,
             '3 1 1 ' + A[2:], '3 1 2 ' + A, '2 1 1 ' + A + B]
    dns = Dns(*['_%d._tcp.mx.signed. TLSA %s' % (port, kind) for port, kind in enumerate(kinds, 1)],
              *['_25._tcp.mx.signed. TLSA ' + kind for kind in kinds])
    for port in 25, *range(1, len(kinds) + 1):
        finds(dns, 'mx.signed', 'unusable', port=port)


@test('nothing: no such host, no such record, a zone that is not signed, an address')
def _():
    dns = Dns('mx.signed. A 127.0.0.1', '_25._tcp.mx.signed. A 127.0.0.1',
              '_25._tcp.mx.plain. TLSA 3 1 1 ' + A)
    for host in 'mx.signed', 'none.signed', 'signed', 'mx.plain', 'nobody', '192.0.2.1', '::1':
        finds(dns, host)


@test('aliases: of a record, if all of the way is signed; not of a host')
def _():
    dns = Dns('_25._tcp.mx.signed. TLSA 3 1 1 ' + A, '_25._tcp.mx.plain. TLSA 3 1 1 ' + A,
              '_25._tcp.near.signed. CNAME _25._tcp.mx.signed.',
              '_25._tcp.far.signed. CNAME _25._tcp.mx.plain.',
              '_25._tcp.back.plain. CNAME _25._tcp.mx.signed.',
              '_25._tcp.lost.signed. CNAME _25._tcp.none.signed.',
              '_25._tcp.bad.signed. CNAME _25._tcp.mx.stolen.',
              'alias.signed. CNAME mx.signed.', 'away.signed. CNAME mx.plain.',
              'own.signed. CNAME mx.plain.', '_25._tcp.own.signed. TLSA 3 1 1 ' + B)
    finds(dns, 'near.signed', '3 1 1 ' + A)
    finds(dns, 'own.signed', '3 1 1 ' + B)
    for host in 'far.signed', 'back.plain', 'lost.signed', 'alias.signed', 'away.signed':
        finds(dns, host)
    knows_not(lookup(dns, 'bad.signed'), 'validation failure')


@test('an answer that is bogus is never a lack of records')
def _():
    dns = Dns(*['_25._tcp.mx.%s. TLSA 3 1 1 %s' % (kind, A) for kind in BOGUS])
    for kind in BOGUS:
        knows_not(lookup(dns, 'mx.' + kind), 'validation failure')
    for kind in 'expired', 'stolen', 'stripped':
        knows_not(lookup(dns, 'none.' + kind), 'validation failure')


@test('nor is one that does not come; nor one of a resolver that validates nothing')
def _():
    dns = Dns('_25._tcp.mx.signed. TLSA 3 1 1 ' + A)
    finds(dns, 'mx.signed', '3 1 1 ' + A)
    with open(dns.conf) as f:
        conf = f.read()

    def asks(conf):
        return example('policy/dane-lookup', 'mx.signed', 25, env={'UNBOUND_CONF': temp(conf)})

    knows_not(asks(conf.replace('trust-anchor-file', '#')),
              'there is no trust anchor for the root: nothing can be validated')
    knows_not(asks(conf.replace(dns.conf[:-12], '/nonexistent')), '/nonexistent')
    knows_not(asks('nonsense: yes\n'), 'nonsense', 'syntax error')
    dns.server.close()
    knows_not(lookup(dns, 'mx.signed'), 'SERVFAIL')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        port = conf[conf.index('127.0.0.1@') + 10:].split()[0]
        knows_not(asks(conf.replace(port, str(silent.getsockname()[1]))), 'SERVFAIL')
    dns.env['UNBOUND_CONF'] = '/nonexistent'
    knows_not(lookup(dns, 'mx.signed'), '/nonexistent')


# An unbound-host of the test's

def answered(**answers):
    """What is found if these are the answers to the questions for each type."""
    d = temp_dir()
    with open(d + '/unbound-host', 'w') as f:
        f.write('#!/bin/sh\nprintf %s\\\\n "$*" >> $0.asked\nfor type ; do\n  case $type in\n')
        for kind, answer in answers.items():
            f.write("  %s) printf '%s' ; exit 1 ;;\n" % (kind, answer))
        f.write('  esac\ndone\n')
    os.chmod(d + '/unbound-host', 0o755)
    result = example('policy/dane-lookup', 'mx.signed', 25,
                     env={'PATH': '%s:%s:%s' % (d, BIN, os.environ['PATH'])})
    with open(d + '/unbound-host.asked') as f:
        return result, f.read().splitlines()


@test('a zone that is not signed is not asked for TLSA, at which its servers might fail')
def _():
    result, asked = answered(CNAME='mx.signed has no CNAME record (insecure)\n',
                             SOA='. has SOA record a. b. 1 2 3 4 5 (secure)\n')
    is_refused(result, 0)
    is_equal(asked, ['-rD -v -t CNAME mx.signed', '-rD -v -t SOA .'], 'questions')


@test('whatever else the resolver says, it is not known: a failure that is secure, silence')
def _():
    none = 'mx.signed has no CNAME record (secure)\n'
    for answer in ('Host x not found: 2(SERVFAIL). (insecure)\n', '', 'resolve error: none\n',
                   'Host x not found: 5(REFUSED). (secure)\n', 'Host x not found: 2(SERVFAIL).\n',
                   '_25._tcp.x has TLSA record 3 1 1 %s\n' % A,
                   '_25._tcp.x has TLSA record 3 1 1 %s (BOGUS (security failure))\n' % A,
                   'x is an alias for y (BOGUS (security failure))\n' + none,
                   'x is an alias for y (error)\n' + none):
        for answers in {'CNAME': answer}, {'CNAME': none, 'TLSA': answer}:
            knows_not(answered(**answers)[0], answer.split('\n')[0] or 'no answer')
    knows_not(answered(CNAME=none, TLSA='a\033[1mb\n' + 400 * 'x')[0], 'a[1mb')


@test('no unbound-host is 111; what is no name or no port is wrong usage')
def _():
    tools = temp_dir()
    os.symlink('/bin/sh', tools + '/sh')
    is_refused(example('policy/dane-lookup', 'mx.signed', 25, env={'PATH': tools}), 111,
               SAYS + 'there is no unbound-host here: install it')
    for host in '', '.', '-r', 'a..b', 'a b', 'mx.signed/', 'm\u00fcnchen.example':
        is_refused(example('policy/dane-lookup', host, 25), 100,
                   SAYS + 'not a host name: ' + host)
    for port in '', 'smtp', '123456', '-1', '0', '025':
        is_refused(example('policy/dane-lookup', 'mx.signed', port), 100,
                   SAYS + 'not a port: ' + port)
    for argv in [], ['mx.signed'], ['mx.signed', 25, 'prog']:
        is_refused(example('policy/dane-lookup', *argv), 100, 'usage: dane-lookup host port')


run()
