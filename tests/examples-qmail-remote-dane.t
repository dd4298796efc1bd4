#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/qmail-remote with control/dane, and with policy/dane, a name server and zones that
# are real.

import os
import re
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from dnssec import Dns, tlsa
from examples import Played
from pki import issued
from postfix import Postfix
from qmail import NO_OFFER, Home, lenient, mail_server, write_tool
from tap import is_equal, is_true, run, test

LOOKUP = "ZSorry, I couldn't look up the mail exchangers: "


def by_dns(zone, port, *records, **control):
    """A home for qmail, and a name server, where mail for "to" in that zone goes to mx there, which
    is at that port here; TLSA in records stands for the name of its records, too."""
    dns = Dns('to.%s. MX 10 mx.%s.' % (zone, zone),
              *[r.replace('TLSA', '_%d._tcp.mx.%s. TLSA' % (port, zone)) for r in records])
    home = Home(dane='', smtproutes='::%d' % port, **control)
    # The system, which is asked for the address, knows nothing of these zones.
    write_tool(home.dir + '/bin/bash',
               'TCPREMOTEHOST=127.0.0.1 exec %s "$@"\n' % shutil.which('bash'))
    home.environment.update(dns.env)
    home.dns = dns
    return home


def sent(zone, *records, part=None, **control):
    """The last report of a mail for that zone, and what a server has heard of it."""
    server = Played(lenient(part or mail_server(cert='a')))
    got = by_dns(zone, server.port, *records, **control).deliver(host='to.' + zone)
    if server.talks:
        server.join()
    return got.reports()[-1], server.talks and server.talks[0].heard


def is_sent(zone, *records, **more):
    report, heard = sent(zone, *records, **more)
    is_true(report.startswith('Kmx.%s accepted message by TLS' % zone), report)


def is_kept(zone, why, *records, **more):
    """It is deferred, for that reason, and no server has heard of it."""
    report, heard = sent(zone, *records, **more)
    is_true(re.fullmatch('Zmx.%s: (TLS failed: )?%s\\. \\(.*\\)\n' % (zone, why), report), report)
    is_true(not [line for line in heard if 'MAIL' in line], heard)


@test('a server that its records tell of gets the mail, whatever its name; another one does not')
def _():
    is_sent('signed', 'TLSA ' + tlsa('a', 3, 1, 1))
    is_kept('signed', 'the certificates of mx.signed do not match its TLSA records',
            'TLSA ' + tlsa('server', 3, 1, 1))
    is_sent('signed', 'TLSA ' + tlsa('server', 3, 1, 1), 'TLSA ' + tlsa('a', 3, 1, 1))
    is_sent('signed', 'TLSA ' + tlsa('a', 3, 1, 1), tlshosts='*')
    cert = issued('dane', 'subjectAltName=DNS:mx.signed')
    is_kept('signed', ".*name `mx.signed' not present.*", tlshosts='*')
    is_sent('signed', tlshosts='*', part=mail_server(cert=cert))


@test('a server that has records, and offers no TLS, is not had')
def _():
    is_kept('signed', 'the server does not offer STARTTLS', 'TLSA ' + tlsa('a', 3, 1, 1),
            part=mail_server({'EHLO': NO_OFFER}))
    is_kept('signed', 'the server does not offer STARTTLS', 'TLSA 1 1 1 ' + '00' * 32,
            part=mail_server({'EHLO': NO_OFFER}))
    is_sent('signed', 'TLSA 1 1 1 ' + '00' * 32)


@test('without records, or in a zone that is not signed: what the server offers')
def _():
    is_sent('signed')
    is_sent('plain', 'TLSA ' + tlsa('server', 3, 1, 1))
    report, heard = sent('plain', part=mail_server({'EHLO': NO_OFFER}))
    is_true(report.startswith('Kmx.plain accepted message.'), report)


@test('answers that are forged, or missing, defer the mail, without a connection')
def _():
    report, heard = sent('forged', 'TLSA ' + tlsa('a', 3, 1, 1))
    is_true(report.startswith('Zmx.forged: cannot look up TLSA of '), report)
    is_equal(heard, [])
    for zone in 'expired', 'stolen', 'stripped':
        report, heard = sent(zone)
        is_true(report.startswith(LOOKUP), report)
        is_equal(heard, [])
    server = Played()
    home = by_dns('signed', server.port)
    home.dns.server.close()
    is_true(home.deliver(host='to.signed').reports()[0].startswith(LOOKUP), 'no answer')
    is_equal(server.late(), 0)


@test('with Postfix')
def _():
    postfix = Postfix()
    home = by_dns('signed', postfix.port, 'TLSA ' + tlsa('server', 3, 1, 1))
    got = home.deliver(host='to.signed')
    is_equal(got.letter, 'K', got)
    [(head, body)] = postfix.delivered()
    is_equal((b'with ESMTPS' in head, body), (True, b'hi\n'))


run()
