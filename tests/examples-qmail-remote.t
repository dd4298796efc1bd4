#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/mail/qmail-remote, as qmail-rspawn runs it: what it says to a server, and what it reports
# of each mail.

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP, need
from examples import Played
from pages import shown
from postfix import Postfix
from qmail import FROM, LETTER, NO_OFFER, OFFER, TO, Home, mail_server, taken_by, write_tool
from tap import is_equal, is_true, run, test

HELLO = 'EHLO client.example.org'
ENVELOPE = ['MAIL FROM:<%s> SIZE=52' % FROM, 'RCPT TO:<%s>' % TO, 'DATA', 'QUIT']
SAID = 'Remote host said: '


# What is said

@test('a mail, line by line: in TLS where it is offered, else in plaintext')
def _():
    got, talk = taken_by()
    is_equal(got.reports(), ['r', 'K127.0.0.1 accepted message by TLSv1.3.\n' + SAID + '250 ok\n'])
    is_equal(talk.heard, [HELLO, 'STARTTLS'] + ['*' + line for line in [HELLO, *ENVELOPE]])
    is_equal(talk.message, LETTER.replace(b'\n', b'\r\n') + b'.\r\n')

    got, talk = taken_by({'EHLO': NO_OFFER})
    is_equal(got.reports(), ['r', 'K127.0.0.1 accepted message.\n' + SAID + '250 ok\n'])
    is_equal(talk.heard, [HELLO, HELLO, *ENVELOPE])
    is_equal(talk.message, LETTER.replace(b'\n', b'\r\n') + b'.\r\n')


@test('a server that knows no EHLO gets HELO, and nothing that needs it; helohost is the name')
def _():
    got, talk = taken_by({'EHLO': '502 what?'}, home=Home(helohost='mx.example.org'))
    is_equal(got.letter, 'K')
    is_equal(talk.heard, ['EHLO mx.example.org'] * 2
             + ['HELO mx.example.org', 'MAIL FROM:<%s>' % FROM] + ENVELOPE[1:])
    got, talk = taken_by({'EHLO': '502 what?', 'HELO': '550 you?'})
    is_equal(got.reports(), ['Z127.0.0.1: my name was rejected: 550 you?. (#4.4.1)\n'])


@test('SIZE and BODY, where they are offered and there is something to say')
def _():
    eight = b'Subject: f\xfcnf\n\n.\nx'
    for offer, letter, wanted in ((OFFER, eight, ' SIZE=23 BODY=8BITMIME'),
                                  (OFFER, b'\n', ' SIZE=2'), (OFFER, b'', ' SIZE=0'),
                                  (OFFER, b'a\r\nb\r\n', ' SIZE=6'),
                                  ('250-mx\r\n250 size 1000000', eight, ' SIZE=23'),
                                  ('250-mx\r\n250 8bitmime', eight, ' BODY=8BITMIME'),
                                  ('250-mx\r\n250-XSIZE\r\n250 SIZES', eight, '')):
        got, talk = taken_by({'EHLO': offer.replace('-STARTTLS', '-NO')}, letter=letter)
        is_equal((got.letter, talk.heard[2]), ('K', 'MAIL FROM:<%s>%s' % (FROM, wanted)))
    is_equal(talk.message, b'Subject: f\xfcnf\r\n\r\n..\r\nx\r\n.\r\n')


@test('addresses: the empty sender; in quotes what needs them')
def _():
    for address, wanted in (('', ''), ('#@[]', '#@[]'), ('postmaster', 'postmaster'),
                            ('a.b+c=d/e@example.org', 'a.b+c=d/e@example.org'),
                            ("!#$%&'*-?^_`{|}~@example.org", "!#$%&'*-?^_`{|}~@example.org"),
                            ('a b@example.org', '"a b"@example.org'),
                            ('a"\\b@example.org', r'"a\"\\b"@example.org'),
                            ('a@b@example.org', '"a@b"@example.org'),
                            ('<>,;:()[]@example.org', '"<>,;:()[]"@example.org'),
                            ('.a@example.org', '".a"@example.org'),
                            ('a.@example.org', '"a."@example.org'),
                            ('a..b@example.org', '"a..b"@example.org'),
                            ('@example.org', '""@example.org'), ('-n@[1.2.3.4]', '-n@[1.2.3.4]')):
        got, talk = taken_by({'EHLO': NO_OFFER}, sender=address, to=[address])
        is_equal((got.letter, talk.heard[2:4]),
                 ('K', ['MAIL FROM:<%s> SIZE=52' % wanted, 'RCPT TO:<%s>' % wanted]), address)


@test('an address that SMTP cannot carry is refused here: a recipient, a sender')
def _():
    for address in ('b@example.net>', 'b@example.net> NOTIFY=NEVER', 'b@exam ple.net', 'no body',
                    'b\r\nRSET@example.net', 'b\n@example.net', 'b\x7f@example.net',
                    'b\t@example.net', 'b\xf6b@example.net'):
        got, talk = taken_by(to=[address])
        is_equal((got.letter, got.reports()[0]),
                 ('D', 'hThis is no address that SMTP can carry. (#5.1.3)\n'), address)
        is_true(not any('RCPT' in line for line in talk.heard), talk.heard)
        got, talk = taken_by(sender=address)
        is_equal(got.reports(), ['DThe sender is no address that SMTP can carry. (#5.1.7)\n'])
        is_true(not any('MAIL' in line for line in talk.heard), talk.heard)


# What is reported

@test('the verdict of the server, for each reply: now, later, never')
def _():
    for verb, text, letters, where in (
            ('MAIL', 'Connected to 127.0.0.1 but sender was rejected.', 'ZD', 0),
            ('RCPT', '127.0.0.1 does not like recipient.', 'sh', 0),
            ('DATA', '127.0.0.1 failed on DATA command.', 'ZD', 1),
            ('.', '127.0.0.1 failed after I sent the message.', 'ZD', 1)):
        for code, letter in zip(('450', '550'), letters):
            got, talk = taken_by({verb: '%s-a \x1b\0 %%d\\n\r\n%s b' % (code, code)})
            is_equal(got.letter, {'s': 'Z', 'h': 'D'}.get(letter, letter), got)
            is_equal(got.reports()[where],
                     '%s%s\n%s%s-a  %%d\\n\n%s b\n' % (letter, text, SAID, code, code))
            is_equal(talk.heard[-1], '*QUIT')


@test('each recipient has its own report, in order; DATA if one is accepted, else D')
def _():
    to = [name + '@example.net' for name in ('a', 'b', 'c', 'd')]
    got, talk = taken_by({'RCPT': ['550 no', '250 ok', '450 later', '251 forwarded']}, to=to)
    is_equal([r[0] for r in got.reports()], ['h', 'r', 's', 'r', 'K'])
    is_equal([line for line in talk.heard if 'RCPT' in line], ['*RCPT TO:<%s>' % a for a in to])
    is_true(talk.message, 'a message')
    for replies, reports in (['550 no', '450 later'], 'hsD'), (['450 later', '550 no'], 'shD'):
        got, talk = taken_by({'RCPT': replies}, to=to[:2])
        is_equal(''.join(r[0] for r in got.reports()), reports)
        is_equal(got.reports()[-1], 'DGiving up on 127.0.0.1.\n%s%s\n' % (SAID, replies[-1]))
        is_equal((talk.message, talk.heard[-2:]), (None, ['*RCPT TO:<%s>' % to[1], '*QUIT']))


@test('a server that hangs up, at any time, or talks nonsense: later')
def _():
    died = 'ZConnected to 127.0.0.1 but connection died. '
    for reply, why in ((None, 'the server has closed the connection'),
                       ('hello', 'the server talks nonsense: hello'),
                       ('199 ok', 'the server talks nonsense: 199 ok')):
        got, talk = taken_by({'greeting': reply})
        is_true(got.reports()[0].startswith('Z127.0.0.1: '), got)
        for tls in True, False:
            ehlo = {'EHLO': OFFER if tls else NO_OFFER}
            for verb, before in ('MAIL', []), ('RCPT', []), ('DATA', ['r']):
                got, talk = taken_by({verb: reply, **ehlo})
                is_equal(got.reports(), before + ['%s(#4.4.2)\n%s. (#4.4.1)\n' % (died, why)])
            got, talk = taken_by({'.': reply, **ehlo})
            is_equal(got.reports(),
                     ['r', '%sPossible duplicate! (#4.4.2)\n%s. (#4.4.1)\n' % (died, why)])


@test('one that hangs up, or resets, in the middle of the message: later, and no duplicate')
def _():
    large = LETTER + b'x' * 79 * 100000 + b'\n'

    for offer in OFFER, NO_OFFER:
        def play(talk):
            mail_server({'DATA': None, 'EHLO': offer})(talk)
            talk.say('354 go on\r\n')
            talk.exactly(1000)
            talk.reset()

        got, talk = taken_by(server=Played(play), letter=large)
        first, text = got.reports()
        is_equal((got.letter, first), ('Z', 'r'))
        # In TLS the engine may be the first to tell.
        is_true(re.fullmatch(r'ZConnected to 127\.0\.0\.1 but connection died\. \(#4\.4\.2\)\n'
                             r'(the message was not sent to its end|TLS failed: session failed: .*)'
                             r'\. \(#4\.[47]\.[15]\)\n', text), text)


@test('what a hostile server says stays short and printable; replies without end are ended')
def _():
    got, talk = taken_by({'MAIL': ('550-' + 'x' * 3000 + '\r\n') * 20 + '550 \xff'})
    is_true(got.letter == 'D' and len(got.said) < 1200, got)

    def endless(talk):
        mail_server({'RCPT': None})(talk)
        try:
            while True:
                talk.say(b'250-and so on\r\n' * 1000)
        except OSError:
            pass

    got, talk = taken_by(server=Played(endless))
    is_equal(got.letter, 'Z')


# The message

@test('a CR that ends no line: a bounce, without a connection')
def _():
    for text in b'a\rb\n', b'\rfirst\n', b'twice\r\r\n', b'x\r.\r\nMAIL FROM:<>\r\n':
        server = Played()
        got = Home().via(server.port).deliver(letter=LETTER + text)
        is_equal((got.reports(), server.late()),
                 (['DA line of the message has a CR before its end. (#5.6.0)\n'], 0))


@test('a message from a pipe, or from a file that has been removed, is sent as well')
def _():
    r, w = os.pipe()
    os.write(w, LETTER)
    os.close(w)
    with tempfile.TemporaryFile() as f:
        f.write(LETTER)
        f.seek(0)
        for stdin in r, os.dup(f.fileno()):
            got, talk = taken_by(stdin=stdin)
            is_equal((got.letter, talk.message), ('K', LETTER.replace(b'\n', b'\r\n') + b'.\r\n'))
            is_true('*' + ENVELOPE[0] in talk.heard, talk.heard)


@test('a mail of 20 MB arrives at Postfix by TLS, every byte of it')
def _():
    postfix = Postfix()
    line = random.Random(1)
    body = b''.join(b'%0*x\n' % (line.randrange(1, 76), line.getrandbits(300)) if n % 7 else b'.\n'
                    for n in range(20 << 20 >> 6))
    got = Home().via(postfix.port).deliver(letter=b'Subject: large\n\n' + body)
    is_equal(got.letter, 'K', got)
    [(head, arrived)] = postfix.delivered()
    is_true(b'with ESMTPS' in head, head)
    is_equal((len(arrived), hashlib.sha256(arrived).hexdigest()),
             (len(body), hashlib.sha256(body).hexdigest()))


@test('Postfix refuses a recipient, or all that is too large')
def _():
    postfix = Postfix()
    got = Home().via(postfix.port).deliver(to=['nobody@example.net', TO])
    is_equal([r[0] for r in got.reports()], ['h', 'r', 'K'], got)
    is_true('550 5.1.1 <nobody@example.net>' in got.reports()[0], got)
    [(head, body)] = postfix.delivered()
    is_equal(body, b'hi\n')


# Under qmail itself

@test('qmail-start gets QMAILREMOTE as examples/README.md sets it: where make install puts it')
def _():
    home = Home()
    write_tool(home.dir + '/bin/qmail-start', 'echo "$QMAILREMOTE $*"\n')
    text = shown('examples/README.md', 'export QMAILREMOTE')
    said = subprocess.run(['sh', '-ec', text], env=home.environment, stdout=subprocess.PIPE,
                          check=True, text=True).stdout
    is_equal(said.replace('/usr/local/share/doc/tls-chain', TOP), home.remote + ' ./Mailbox\n')


RSPAWN = '/var/qmail/bin/qmail-rspawn'


@test('qmail-rspawn runs it, and tells of each delivery what it should')
def _():
    need(RSPAWN)
    server = Played(mail_server(), mail_server({'RCPT': '550 no'}),
                    mail_server({'RCPT': '450 wait'}), mail_server({'greeting': '421 later'}))
    home = Home().via(server.port)
    messages = '/var/qmail/queue/mess'
    with tempfile.NamedTemporaryFile(dir=messages) as f:
        number = '%d' % random.randrange(10**12)
        os.link(f.name, '%s/%s' % (messages, number))
        try:
            f.write(LETTER)
            f.flush()
            os.chmod(f.name, 0o644)
            shutil.chown(f.name, 'qmailq')
            order = '\0'.join([number, FROM, TO, '']).encode()
            # One after the other, as the server takes them.
            said = b''.join(subprocess.run(
                [RSPAWN], input=b'\0' + order, stdout=subprocess.PIPE, timeout=50, check=True,
                env={**home.environment, 'QMAILREMOTE': home.remote}).stdout[2:] for _ in range(4))
        finally:
            os.unlink('%s/%s' % (messages, number))
    server.join()
    refused = '127.0.0.1 does not like recipient.\n' + SAID
    is_equal(said.decode().split('\0')[:-1], [
        'K127.0.0.1 accepted message by TLSv1.3.\n' + SAID + '250 ok\n',
        'D' + refused + '550 no\nGiving up on 127.0.0.1.\n' + SAID + '550 no\n',
        'Z' + refused + '450 wait\nGiving up on 127.0.0.1.\n' + SAID + '450 wait\n',
        'Z127.0.0.1: greeting failed: 421 later. (#4.4.1)\n'])


run()
