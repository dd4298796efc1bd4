#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/c/smtpd: what it refuses, what it does not wait for, how it is misused.

import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from compiled import CODES, IDLE, NO_LINE, RCPT, SENDER, TAKEN, SmtpServer, compiled, hand_in
from examples import example, is_refused
from sockets import drip
from tap import SLOW, is_equal, is_true, run, test


def greeted(server):
    talk = server.talk()
    is_equal(talk.ask('EHLO me.example')[:3], '250')
    return talk


def answers_to(talk, pairs):
    for line, answer in pairs:
        is_equal((line, talk.ask(line)), (line, answer))


# Lines

@test('a line that does not end with CR LF ends the session, in commands and in a mail')
def _():
    server = SmtpServer()
    for line in (b'NOOP\n', b'NO\rOP\r\n', b'NOOP\r\r\n', b'\n', b'STARTTLS\nMAIL FROM:<>\r\n',
                 b'QUIT\n'):
        talk = greeted(server)
        talk.send(line)
        is_equal((line, talk.rest().decode()), (line, NO_LINE + '\r\n'))
    smuggled = (SENDER + '\r\n' + RCPT + '\r\nDATA\r\nsmuggled\r\n.\r\n').encode()
    for dot in b'\n.\n', b'\n.\r\n', b'\r.\r', b'\r\n.\n', b'\r\n.\r', b'\r.\r\n', b'\r\n\r.\n':
        for talk in greeted(server), server.talk_in_tls():
            talk.ask('EHLO me.example')
            is_equal([talk.ask(line) for line in (SENDER, RCPT, 'DATA')], CODES)
            talk.send(b'Subject: hi\r\n\r\na line' + dot + smuggled)
            is_equal((dot, talk.rest().decode()), (dot, NO_LINE + '\r\n'))
    is_equal(server.mails(), [])


@test('a line of a mail that is too long: 554, when the mail is over; of a command: 500')
def _():
    server = SmtpServer()
    talk = greeted(server)
    is_equal(hand_in(talk, 'x' * 999, '.' + 'y' * 997), TAKEN)
    for line in 'x' * 1000, '.' + 'x' * 998, 'x' * 100000:
        is_equal(hand_in(talk, 'one', line, 'QUIT'), '554 5.6.0 a line is too long')
    answers_to(talk, [('NOOP ' + 'x' * 994, '250 2.0.0 OK'),
                      ('NOOP ' + 'x' * 995, '500 5.5.2 the line is too long'),
                      ('NO\0OP', '500 5.5.2 a null byte')])
    is_equal([m.text for m in server.mails()], ['x' * 999 + '\n.' + 'y' * 997 + '\n'])


@test('a mail as large as -s allows is taken, one byte more is 552, announced or not')
def _():
    server = SmtpServer('-s', '10000')
    talk = server.talk()
    is_true('250 SIZE 10000' in talk.ask('EHLO me.example'), 'the size is told')
    too_large = '552 5.3.4 the mail is too large'
    line = 'x' * 98
    is_equal(hand_in(talk, *[line] * 100), TAKEN)
    is_equal(hand_in(talk, *[line] * 99, line + 'x'), too_large)
    is_equal(hand_in(talk, *['.' + line[1:]] * 100), TAKEN)
    answers_to(talk, [('%s %s' % (SENDER, more), answer) for more, answer in (
        ('SIZE=10001', too_large), ('SIZE=99999999999999999999', too_large),
        ('SIZE=10000 BODY=8BITMIME', CODES[0]))])
    is_equal(len(server.mails()), 2)


@test('a header that is too large, or has more than 100 lines of Received: refused')
def _():
    server = SmtpServer()
    talk = greeted(server)
    large = ['X: ' + 'x' * 995] * 66
    is_equal(hand_in(talk, *large), '552 5.3.4 the header is too large')
    is_equal(hand_in(talk, 'Subject: hi', '', *large), TAKEN)
    hops = ['received: from here', ' to there'] * 100
    is_equal(hand_in(talk, *hops, '', *hops), TAKEN)
    is_equal(hand_in(talk, *hops, 'Received: again'), '554 5.4.6 the mail goes round in circles')


# Commands

@test('commands out of order, unknown, with and without parameters')
def _():
    talk = SmtpServer().talk()
    answers_to(talk, [
        (SENDER, '503 5.5.1 say EHLO first'), (RCPT, '503 5.5.1 say MAIL first'),
        ('DATA', '503 5.5.1 say RCPT first'), ('EHLO', '501 5.5.4 say who you are'),
        ('EHLO a(comment)', '501 5.5.4 say who you are'), ('EHLO two names', '501 5.5.4 say who '
         'you are'), ('HELO ' + 'x' * 256, '501 5.5.4 say who you are'),
        ('hElO [IPv6:::1]  ', '250 mx.example.org'), ('AUTH PLAIN AGEAYg==',
         '500 5.5.1 unknown command'), ('STARTTLSX', '500 5.5.1 unknown command'),
        ('', '500 5.5.1 unknown command'), ('mail From: <alice@example.org>  body=7bit ', CODES[0]),
        (SENDER, '503 5.5.1 there is a sender already'), ('DATA', '503 5.5.1 say RCPT first'),
        ('rcpt to:<Postmaster>', CODES[1]), ('DATA now', '501 5.5.4 DATA has no parameters'),
        ('VRFY root', '252 2.0.0 try it'), ('Rset', '250 2.0.0 OK'),
        ('DATA', '503 5.5.1 say RCPT first'), (RCPT, '503 5.5.1 say MAIL first'),
        (SENDER, CODES[0]), (RCPT, CODES[1]), ('EHLO', '501 5.5.4 say who you are'),
        ('HELO again', '250 mx.example.org'), (RCPT, '503 5.5.1 say MAIL first')])


@test('an address that a program could take for something else, and parameters nobody knows')
def _():
    talk = greeted(SmtpServer())
    sender = '553 5.1.7 no fit address of a sender'
    recipient = '553 5.1.3 no fit address of a recipient'
    bad = ['bob', '<bob', 'bob>', '<a b>', '<-f>', '<b\x7fb>', '<b\xf6b>', '<<bob>', '<bob>>',
           '<a><b>', '<' + 'x' * 257 + '>', '<"a b"@example.net>', '<a\tb>', '']
    answers_to(talk, [('MAIL FROM:' + s, sender) for s in bad])
    answers_to(talk, [(SENDER + ' RET=FULL', '555 5.5.4 unknown parameter'), (SENDER, CODES[0])])
    answers_to(talk, [('RCPT TO:' + s, recipient) for s in [*bad, '<>']])
    answers_to(talk, [(RCPT + ' NOTIFY=NEVER', '555 5.5.4 unknown parameter'),
                      ('RCPT TO:<' + 'x' * 256 + '>', CODES[1])])


@test('a hundred recipients, as long as they may be, and no more')
def _():
    server = SmtpServer()
    talk = greeted(server)
    names = ['%03d%s@example.net' % (n, 'x' * 241) for n in range(101)]
    is_equal(talk.ask(SENDER), CODES[0])
    is_equal([talk.ask('RCPT TO:<%s>' % name) for name in names],
             [CODES[1]] * 100 + ['452 4.5.3 too many recipients'])
    is_equal([talk.ask('DATA'), talk.ask('hi\r\n.')], [CODES[2], TAKEN])
    is_equal(server.mails()[0].env['RECIPIENTS'].split(' '), names[:100])


# Time, and the end

@test('a client that is idle longer than -t, anywhere, or only drips: 421 and the end')
def _():
    server = SmtpServer('-t', '1')
    is_equal(server.talk().rest().decode(), IDLE + '\r\n')
    talk = server.talk_in_tls()
    talk.ask('EHLO me.example')
    is_equal([talk.ask(line) for line in (SENDER, RCPT, 'DATA')], CODES)
    talk.send(b'Subject: hi\r\n\r\na li')
    is_equal(talk.rest().decode(), IDLE + '\r\n')
    talk = server.talk()
    is_true(drip(talk.sock, b'x' * 100 * SLOW) < 5 * SLOW, 'a limit for the line')
    is_equal(talk.rest().decode(), IDLE + '\r\n')
    server.wait_log('tcpserver: end ', 3)
    server.wait_idle()
    is_equal(server.mails(), [])


@test('a client that reads nothing: the server does not wait for it for ever')
def _():
    server = SmtpServer('-t', '1')
    talk = server.talk()
    talk.sock.settimeout(0.2)
    try:
        while True:
            talk.send(b'NOOP\r\n' * 10000)
    except OSError:
        pass
    server.wait_log('tcpserver: end ')
    server.wait_idle()


@test('a client that hangs up, at any point: nothing stays')
def _():
    server = SmtpServer()
    server.talk().sock.close()
    talk = server.talk()
    talk.send(b'NOO')
    talk.sock.close()
    talk = server.talk()
    is_equal(talk.ask('STARTTLS')[:3], '220')
    talk.sock.close()
    server.talk_in_tls().sock.close()
    server.wait_log('tcpserver: end ', 4)
    server.wait_idle()


# Misuse

@test('misused: one line, 100')
def _():
    usage = 'smtpd: fatal: usage: smtpd [ -r ] [ -h name ] [ -s bytes ] [ -t seconds ] prog...'
    for argv in ([], ['-r'], ['-x'], ['-t'], ['-t', '0', 'true'], ['-t', 'soon', 'true'],
                 ['-t', '-1', 'true'], ['-t', '86401', 'true'], ['-s', '', 'true'],
                 ['-s', '9' * 30, 'true']):
        is_refused(example(compiled('smtpd'), *argv), 100, usage)
    for name in 'mx example', 'x' * 256, '(mx)':
        is_refused(example(compiled('smtpd'), '-h', name, 'true'), 100,
                   'smtpd: fatal: unfit for the name of a server: ' + name)


@test('-h names the server; arguments of prog are its own')
def _():
    result = example(compiled('smtpd'), '-h', 'me.example', 'sh', '-r', '-h', input=b'QUIT\r\n',
                     env={'TCPLOCALHOST': 'other.example'})
    is_equal(result.out, b'220 me.example ESMTP\r\n221 2.0.0 me.example closing\r\n')
    is_equal((result.code, result.err), (0, ''))


run()
