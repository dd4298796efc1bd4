#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/qmail-remote and TLS: which failure defers a mail, and with which words; what is
# said in plaintext where TLS is required; DANE, with policies that the test plays.

import os
import re
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from examples import Played
from pages import shown
from pki import issued, issued_between, pki
from postfix import Postfix
from qmail import NO_OFFER, Home, lenient, mail_server, remote_with
from tap import SLOW, is_equal, is_true, run, test

EXPIRED = '20200101000000Z', '20200201000000Z'
EARLY = '20400101000000Z', '20410201000000Z'
LISTED = {'tlshosts': 'example.net'}
HELLO = rb'EHLO client\.example\.org\r\n'


def plain(talk):
    """Goes on in plaintext whatever the client says, and would take the mail."""
    mail_server({'EHLO': NO_OFFER})(talk)


def old(talk):
    """Knows nothing newer than TLS 1.0, or nothing of TLS at all: answers with an alert."""
    mail_server({'STARTTLS': None})(talk)
    talk.say(b'220 go ahead\r\n')
    talk.exactly(5)
    talk.say(b'\x15\3\1\0\2\2\x46')
    talk.rest()


def hang_up(talk):
    """Ends when the handshake has begun."""
    mail_server({'STARTTLS': None})(talk)
    talk.say(b'220 go ahead\r\n')
    talk.exactly(5)


def be_silent(talk):
    """Never answers the ClientHello."""
    mail_server({'STARTTLS': None})(talk)
    talk.say(b'220 go ahead\r\n')
    talk.rest()


def inject(talk):
    """Answers what the client will say in TLS, before TLS."""
    mail_server({'STARTTLS': None})(talk)
    talk.say(b'220 go ahead\r\n250 mx.example.net\r\n250 ok\r\n250 ok\r\n354 go on\r\n')
    talk.rest()


def deferred(part, why, control):
    """The mail is deferred, for that reason, and the server has heard nothing of it."""
    server = Played(lenient(part))
    got = Home(**control).via(server.port).deliver()
    server.join()
    is_equal(len(got.reports()), 1, got)
    is_true(re.fullmatch(r'Z127\.0\.0\.1: TLS failed: %s\. \(#4\.7\.5\)\n' % why, got.reports()[0]),
            '%s of %s: %r' % (control, why, got))
    [talk] = server.talks
    is_true(re.fullmatch(HELLO + rb'(STARTTLS\r\n([\x16\x15\x14].*)?)?', talk.said, re.S),
            'said in plaintext: %r' % talk.said)
    is_true(b'alice' not in talk.said and b'example.net' not in talk.said, talk.said)
    is_true(not [line for line in talk.heard if line.startswith('*')], 'in TLS: %r' % talk.heard)


@test('TLS that fails defers the mail with the reason, whether it is required or not')
def _():
    for control in {}, LISTED:
        deferred(old, '.*protocol version.*', control)
        deferred(hang_up, '.+', control)
        deferred(be_silent, 'the handshake timed out', {'timeoutconnect': '1', **control})
        deferred(inject, 'the server sent bytes in plaintext before TLS began', control)
        deferred(mail_server({'STARTTLS': '454 not now'}),
                 'the server does not start TLS: 454 not now', control)
        deferred(mail_server(max=ssl.TLSVersion.TLSv1_2, ciphers='AES128-SHA'),
                 'handshake failed: .*', control)


@test('the control files that examples/README.md makes require TLS')
def _():
    server = Played(lenient(plain))
    home = Home()
    text = shown('examples/README.md', 'echo example.org >> /var/qmail')
    for old, new in (('/var/qmail', home.dir), ('echo example.org >>', 'echo example.net >>'),
                     ('example.org:mx.example.org', 'example.net:127.0.0.1:%d' % server.port)):
        is_true(old in text, old)
        text = text.replace(old, new)
    subprocess.run(['sh', '-ec', text], check=True)
    is_equal(home.deliver().reports(),
             ['Z127.0.0.1: TLS failed: the server does not offer STARTTLS. (#4.7.5)\n'])
    server.join()


@test('a server that cannot be verified: deferred with the reason if it is in tlshosts')
def _():
    for cert, why in ((issued_between('expired', *EXPIRED), '.*certificate has expired.*'),
                      (issued_between('early', *EARLY), '.*certificate is not yet valid.*'),
                      ('a', "name `127.0.0.1' not present in server certificate.*"),
                      (issued('unknown', ca='otherca'), '.*unable to get local issuer.*')):
        deferred(mail_server(cert=cert), why, LISTED)
        server = Played(mail_server(cert=cert))
        got = Home().via(server.port).deliver()
        is_equal(got.letter, 'K', 'opportunistic, with ' + cert)
        server.join()


@test('TLS that is required is had: a server that is verified gets the mail')
def _():
    server = Played(mail_server())
    got = Home(**LISTED).via(server.port).deliver()
    server.join()
    is_equal(got.letter, 'K')
    is_true(re.fullmatch(HELLO + rb'STARTTLS\r\n', server.talks[0].said), server.talks[0].said)
    postfix = Postfix()
    is_equal(Home(tlshosts='*').via(postfix.port).deliver().letter, 'K')
    [(head, body)] = postfix.delivered()
    is_equal((b'with ESMTPS' in head, body), (True, b'hi\n'))


@test('TLS that is required and not offered, or taken out on the way: deferred')
def _():
    deferred(plain, 'the server does not offer STARTTLS', LISTED)
    for replies in ({'EHLO': '250-mx\r\n250 XTARTTLS'}, {'EHLO': '502 what?'}, {'EHLO': '250 mx'},
                    {'EHLO': '250-mx STARTTLS\r\n250-X STARTTLS\r\n250 STARTTLS-X'}):
        deferred(mail_server(replies), 'the server does not offer STARTTLS', LISTED)
    postfix = Postfix(level='none')
    got = Home(**LISTED).via(postfix.port).deliver()
    is_equal(got.reports(),
             ['Z127.0.0.1: TLS failed: the server does not offer STARTTLS. (#4.7.5)\n'])
    postfix.wait_log('[127.0.0.1] ehlo=1 commands=1')


@test('a session that fails later says why: idle for too long; a client certificate was wanted')
def _():
    def forget(talk):
        mail_server({'MAIL': None})(talk)
        talk.rest()

    server = Played(forget)
    got = Home(timeoutremote='%d' % SLOW).via(server.port).deliver()
    server.join()
    is_equal(got.reports(), ['ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n'
                             'TLS failed: session failed: relay: idle for too long. (#4.7.5)\n'])

    def demand(talk):
        mail_server({'STARTTLS': None})(talk)
        talk.say(b'220 go ahead\r\n')
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki() + '/server.pem', pki() + '/server.key')
        context.load_verify_locations(pki() + '/ca.pem')
        context.verify_mode = ssl.CERT_REQUIRED
        talk.start_tls(context=context)

    server = Played(lenient(demand))
    got = Home().via(server.port).deliver()
    server.join()
    is_true(re.fullmatch('Z127.0.0.1: TLS failed: session failed: .*certificate required.*\n',
                         got.reports()[0]), got)


# Which TLS a server gets

def sessions(lists, host='example.net', relay='127.0.0.1'):
    """How a server is talked to with these lists that offers TLS, with a certificate for no name
    that matters: in TLS, in plaintext, or not at all."""
    server = Played(lenient(mail_server(cert='a')))
    got = Home(**lists).via(server.port, relay).deliver(host=host)
    server.join()
    tls = any(line.startswith('*') for line in server.talks[0].heard)
    return {('K', True): 'any TLS', ('K', False): 'plaintext', ('Z', False): 'verified TLS'}[
        got.letter, tls]


@test('tlshosts and notlshosts: names, .names, *; of the domain, of the server; the former wins')
def _():
    for line, matches in (('example.net', True), ('EXAMPLE.NET  ', True), ('.net', True),
                          ('.example.net', False), ('xample.net', False), ('net', False),
                          ('example.ne', False), ('*', True), ('127.0.0.1', True),
                          ('# example.net\n\nexample.org\nexample.net', True),
                          ('#example.net', False), ('', False), ('\n', False),
                          ('e.ample.net', False), ('.*', False)):
        is_equal(sessions({'tlshosts': line}), 'verified TLS' if matches else 'any TLS', line)
        is_equal(sessions({'notlshosts': line}), 'plaintext' if matches else 'any TLS', line)
    is_equal(sessions({'tlshosts': '.example.net'}, host='a.b.Example.NET'), 'verified TLS')
    is_equal(sessions({'tlshosts': '*', 'notlshosts': '*'}), 'verified TLS')
    is_equal(sessions({'tlshosts': '.org', 'notlshosts': '*'}), 'plaintext')


@test('lists that cannot be read defer the mail')
def _():
    for name in 'tlshosts', 'notlshosts', 'smtproutes', 'me', 'timeoutconnect':
        server = Played()
        home = Home().via(server.port)
        home.control(**{name: 'x'})
        os.unlink('%s/control/%s' % (home.dir, name))
        os.mkdir('%s/control/%s' % (home.dir, name))
        is_equal(home.deliver().reports(),
                 ['ZUnable to read control files: control/%s. (#4.3.0)\n' % name])
        is_equal(server.late(), 0)


# DANE, with policies that are played

RECORDS = 'echo 3 1 1 abcd ; echo "$@" > "$TMPDIR/../asked"'
MATCHES = '[ "$1:$TLSA" = "127.0.0.1:3 1 1 abcd" ] && shift 2 && exec tls-handshake -c -N -k x "$@"'
REFUSES = 'echo "dane: fatal: no match" >&2 ; exit 77'


def by_dane(lookup, dane=MATCHES, part=None, **control):
    """A delivery by these policies: what was reported, and heard."""
    server = Played(lenient(part or mail_server(cert='a')))
    home = Home(dane='', **control).via(server.port)
    home.remote = remote_with(dane_lookup=lookup, dane=dane)
    got = home.deliver()
    if server.talks:
        server.join()
    return got.reports()[-1], server.talks and server.talks[0].heard, home


@test('control/dane: a server with TLSA records has to match them')
def _():
    report, heard, home = by_dane(RECORDS)
    is_true(report.startswith('K127.0.0.1 accepted message by TLS'), report)
    with open(home.dir + '/asked') as f:
        is_true(re.fullmatch(r'127\.0\.0\.1 \d+\n', f.read()), 'who is looked up')
    report, heard, _ = by_dane(RECORDS, REFUSES)
    is_equal((report, heard), ('Z127.0.0.1: TLS failed: no match. (#4.7.5)\n',
                               ['EHLO client.example.org', 'STARTTLS']))
    report, heard, _ = by_dane(RECORDS, part=plain)
    is_equal(report, 'Z127.0.0.1: TLS failed: the server does not offer STARTTLS. (#4.7.5)\n')
    report, heard, _ = by_dane(RECORDS, tlshosts='*')  # and no certificate
    is_true(report.startswith('K'), report)


@test('control/dane: records that cannot be used want any TLS; none, what is offered')
def _():
    for lookup, part, tlshosts, wanted in (
            ('echo unusable', None, '', 'K127.0.0.1 accepted message by TLS'),
            ('echo unusable', plain, '', 'Z127.0.0.1: TLS failed: the server does not offer'),
            ('echo unusable', None, '*', "Z127.0.0.1: TLS failed: name `127.0.0.1' not present"),
            ('exit 0', None, '', 'K127.0.0.1 accepted message by TLS'),
            ('exit 0', plain, '', 'K127.0.0.1 accepted message.'),
            ('exit 0', None, '*', "Z127.0.0.1: TLS failed: name `127.0.0.1' not present")):
        report, heard, _ = by_dane(lookup, REFUSES, part, tlshosts=tlshosts)
        is_true(report.startswith(wanted), (lookup, tlshosts, report))


@test('control/dane: a lookup that fails defers the mail, without a connection')
def _():
    for end in 'exit 75', 'exit 111', 'exit 1', 'kill -9 $$', 'echo 3 1 1 abcd ; exit 75':
        report, heard, _ = by_dane('echo "dane-lookup: fatal: bogus" >&2 ; ' + end)
        is_equal((report, heard), ('Z127.0.0.1: bogus. (#4.4.1)\n', []), end)


@test('without control/dane, or for a server in notlshosts, nobody looks')
def _():
    for control, wanted in ({}, 'by TLS'), ({'dane': '', 'notlshosts': '*'}, 'message.\n'):
        server = Played(mail_server())
        home = Home(**control).via(server.port)
        home.remote = remote_with(dane_lookup=RECORDS, dane=REFUSES)
        got = home.deliver()
        is_true(wanted in got.reports()[-1], got)
        is_true(not os.path.exists(home.dir + '/asked'), 'a lookup')


run()
