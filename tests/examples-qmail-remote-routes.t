#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/qmail-remote: where a mail goes, by smtproutes and by the DNS; its other settings.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from dns import SERVFAIL, PlayedDNS, address, mx, use_host, use_unbound
from examples import Played, free_port
from qmail import Home, mail_server, remote_with, write_tool
from tap import Skip, is_equal, is_true, run, test

SORRY = "DSorry, I couldn't "


def route(lines, host='example.net'):
    """The last report of a mail for that host; PORT in the lines is a server's."""
    server = Played(mail_server())
    got = Home(smtproutes=lines.replace('PORT', str(server.port))).deliver(host=host)
    if got.letter == 'K':
        server.join()
    return got.reports()[-1]


def is_routed(lines, host='example.net', to='127.0.0.1'):
    """That server gets the mail, by the name that is told."""
    is_true(route(lines, host).startswith('K%s accepted' % to), (lines, host))


# smtproutes

@test('smtproutes: the longest entry that matches, in either case, the last of its kind')
def _():
    dead = '127.0.0.1:%d' % free_port()
    for lines in (':127.0.0.1:PORT', 'example.net:127.0.0.1:PORT', 'Example.NET:127.0.0.1:PORT',
                  '.net:127.0.0.1:PORT', '# a comment\n\n:127.0.0.1:PORT  \t',
                  ':%s\nexample.net:127.0.0.1:PORT' % dead,
                  ':%s\n.net:127.0.0.1:PORT\nxample.net:%s\n.example.net:%s' % (dead, dead, dead),
                  'example.net:%s\nno colon\nexample.net:127.0.0.1:PORT' % dead,
                  'example.net:localhost:PORT'):
        is_routed(lines, to='localhost' if 'localhost' in lines else '127.0.0.1')
    is_routed('.example.net:127.0.0.1:PORT\n:%s' % dead, 'EXAMPLE.net.a.b.eXample.net')
    is_routed('example.net:127.0.0.1:PORT', 'EXAMPLE.NET.')
    is_routed(':[127.0.0.1]:PORT')
    is_routed(':127.0.0.1:PORT', 'no host\\at all')
    got = route(':%s' % dead)
    is_equal(got, 'Z127.0.0.1: no connection to 127.0.0.1 port %s: Connection refused. (#4.4.1)\n'
             % dead.split(':')[1])


@test('a relay, and a host, by an address of version 6')
def _():
    try:
        server = Played(mail_server(), mail_server(), host='::1')
    except OSError:
        raise Skip('there is no IPv6 here')
    got = Home(smtproutes='example.net:[::1]:%d' % server.port).deliver()
    is_true(got.reports()[-1].startswith('K::1 accepted'), got)
    got = Home(smtproutes=':' + ':%d' % server.port).deliver(host='[IPv6:::1]')
    is_true(got.reports()[-1].startswith('K::1 accepted'), got)
    server.join()


@test('an address in brackets is the host; a route without a relay may have a port')
def _():
    is_routed('[127.0.0.1]::PORT', '[127.0.0.1]')
    is_routed('::PORT', '[127.0.0.1]')


# The DNS

def found(zone, host='example.net', plays=(), tool=use_host, **control):
    """A delivery to a host with these records; to servers that play these parts."""
    server = Played(*plays or [mail_server()])
    home = Home(smtproutes='::%d' % server.port, **control)
    tool(home, PlayedDNS(zone))
    home.remote = remote_with(dane_lookup='exit 0')
    got = home.deliver(host=host, env={'UNBOUND_CONF': home.dir + '/unbound.conf'})
    got.server = server
    return got


def is_found(zone, to, **how):
    got = found(zone, **how)
    is_true(got.reports()[-1].startswith('K%s accepted' % to), got)
    got.server.join()


@test('mail exchangers in their order, the next one where no connection or greeting is to be had')
def _():
    zone = {'example.net': [mx(30, '127.0.0.1'), mx(10, '127.0.0.3'), mx(20, 'LocalHost')]}
    is_found(zone, 'localhost')  # nobody listens on 127.0.0.3
    for greeting in '421 not now', '554 never', None, 'hello':
        is_found(zone, '127.0.0.1', plays=[mail_server({'greeting': greeting}), mail_server()])
    is_found(zone, '127.0.0.1', plays=[mail_server({'STARTTLS': '454 no'}), mail_server()])
    is_found({'example.net': [mx(5, '127.0.0.1'), mx(5, 'bad host'), mx(5, '-n')]}, '127.0.0.1')


@test('if none can be had, each has its line in the report; of many, five are tried')
def _():
    got = found({'example.net': [mx(10, '127.0.0.3'), mx(20, '127.0.0.1')]},
                plays=[mail_server({'greeting': '421 go'})])
    refused = 'no connection to 127.0.0.%d port %d: Connection refused. (#4.4.1)\n'
    is_equal(got.reports(), ['Z127.0.0.3: ' + refused % (3, got.server.port)
                             + '127.0.0.1: greeting failed: 421 go. (#4.4.1)\n'])
    got = found({'example.net': [mx(n, '127.0.0.%d' % n) for n in range(2, 20)]})
    is_equal(got.reports(), ['Z' + ''.join('127.0.0.%d: ' % n + refused % (n, got.server.port)
                                           for n in range(2, 7))])


@test('a mail of which a server has spoken is not offered to the next')
def _():
    zone = {'example.net': [mx(10, '127.0.0.1'), mx(20, 'localhost')]}
    for replies in {'MAIL': '451 later'}, {'MAIL': None}, {'RCPT': None}, {'DATA': '421 no'}, \
            {'.': None}:
        got = found(zone, plays=[mail_server(replies)])
        is_equal((got.letter, got.server.late()), ('Z', 0), replies)


@test('a domain without MX is its own; without any, or null MX, or no such domain: never')
def _():
    is_found({'localhost': [address('127.0.0.1')]}, 'localhost', host='localhost')
    is_found({'localhost': [address('::1')]}, 'localhost', host='localhost')
    for zone, report in (
            ({'example.net': [mx(0, '.')]}, 'DThis domain takes no mail (RFC 7505). (#5.1.10)\n'),
            ({'example.net': []}, SORRY + 'find a mail exchanger or IP address. (#5.4.4)\n'),
            ({}, SORRY + 'find any host named example.net. (#5.1.2)\n')):
        is_equal(found(zone).reports(), [report])
        is_equal(found(zone, tool=use_unbound).reports(), [report])
    for host in 'no host', 'a..b', '.a', '-n', 'a\x1bb', '', 'x' * 64 + '.org', 'x.' * 140 + 'org':
        is_equal(found({}, host=host).reports(),
                 [SORRY + 'find any host named %s. (#5.1.2)\n' % host.replace('\x1b', '?')])


@test('a lookup that fails, or is not answered, defers the mail')
def _():
    for records in SERVFAIL, 5, None:
        for tool in use_host, use_unbound:
            if records is None and tool == use_unbound:
                continue  # it has the patience of a resolver
            got = found({'example.net': records}, tool=tool)
            is_true(got.reports()[0].startswith(
                "ZSorry, I couldn't look up the mail exchangers: "), got)
            is_equal(got.server.late(), 0)

    def half(home, dns):
        write_tool(home.dir + '/bin/host', """echo "$3 mail is handled by 10 127.0.0.1."
            echo "Host $3 not found: 2(SERVFAIL)" ; exit 1""")

    is_true('SERVFAIL' in found({}, tool=half).reports()[0], 'half an answer')


@test('with control/dane, unbound-host looks them up')
def _():
    zone = {'example.net': [mx(20, '127.0.0.1'), mx(10, '127.0.0.3')]}
    is_found(zone, '127.0.0.1', tool=use_unbound)


@test('those that are not better than this machine are left out; none left: never')
def _():
    zone = {'example.net': [mx(10, '127.0.0.3'), mx(20, 'Client.Example.ORG'), mx(20, '127.0.0.4'),
                            mx(30, '127.0.0.1')]}
    got = found(zone)
    is_equal((got.letter, got.text.count('127.0.0.3: '), got.text.count('#4')), ('Z', 1, 1), got)
    zone['example.net'][0] = mx(20, '127.0.0.3')
    is_true("DSorry. Although I'm listed as a best-preference MX" in found(zone).reports()[0], '')
    got = found(zone, me='a.example', helohost='client.example.org')
    is_equal(got.letter, 'D')


run()
