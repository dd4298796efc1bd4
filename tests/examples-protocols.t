#!/usr/bin/env python3
# ISC licence: see COPYING.
# examples/starttls/*: each protocol up to TLS, with servers that the test plays, good and hostile.

import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import FATAL
from examples import EXAMPLES, Played, Talk, example, is_done, is_refused
from tap import SLOW, is_equal, is_true, run, test

# What is said up to TLS: the server's lines, the client's (as patterns), in turn.

DIALOGUES = {
    'smtp': ['220-here is\r\n220 example.org', r'EHLO \[127\.0\.0\.1\]',
             '250-example.org\r\n250-StartTLS\r\n250 SIZE', 'STARTTLS', '220 go ahead'],
    'imap': ['* OK hello', 'a STARTTLS', '* OK just a moment\r\na OK go ahead'],
    'pop3': ['+OK hello', 'STLS', '+OK go ahead'],
    'ftp': ['220-hello\r\n 220 this is not the end\r\n220 it is', 'AUTH TLS', '234 go ahead'],
    'nntp': ['201 hello, no posting', 'STARTTLS', '382 go ahead'],
    'sieve': ['"IMPLEMENTATION" "Example"\r\n"SASL" ""\r\n"STARTTLS"\r\nOK "hello"', 'STARTTLS',
              'OK "go ahead"'],
}

STREAM = '''<?xml version='1.0'?>
<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1'
  from='example.org' version='1.0'>'''
OFFER = '<starttls xmlns="urn:ietf:params:xml:ns:xmpp-tls"><required/></starttls>'
PROCEED = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"


def play_lines(talk, lines, last=bytes):
    """The server's part, starting with a line of the server; last may change the last one."""
    for i, line in enumerate(lines):
        if i % 2:
            talk.hear(line)
        else:
            data = (line + '\r\n').encode()
            talk.say(last(data) if i == len(lines) - 1 else data)


def play_xmpp(talk, features=OFFER, answer=PROCEED, last=bytes):
    talk.until("<stream:stream to='example.org' .*>")
    talk.say(STREAM + '<stream:features>%s<other/></stream:features>' % features)
    if OFFER in features:
        talk.until("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        talk.say(last(answer.encode()))


def play_postgres(talk, answer=b'S', last=bytes):
    is_equal(talk.exactly(8), b'\0\0\0\x08\x04\xd2\x16\x2f', 'SSLRequest')
    talk.say(last(answer))


def good(proto, last=bytes):
    """Plays the server of this protocol up to its go-ahead, which last may change."""
    if proto == 'xmpp':
        return lambda talk: play_xmpp(talk, last=last)
    if proto == 'postgres':
        return lambda talk: play_postgres(talk, last=last)
    return lambda talk: play_lines(talk, DIALOGUES[proto], last)


PROTOCOLS = [*DIALOGUES, 'xmpp', 'postgres']
XMPP_TO = {'XMPP_TO': 'example.org'}


def connect(proto, port, *prog, **more):
    return example('starttls-connect', proto, '127.0.0.1', port, *prog,
                   env={**XMPP_TO, **more.pop('env', {})}, **more)


def delayed(proto, port, *prog, **more):
    """The same in the manner of UCSPI-TLS."""
    tls_side = 'tls-await -c tls-handshake -c -k 127.0.0.1 tls-io'.split()
    return example('tcpclient', '-HRl0', '127.0.0.1', port,
                   'tls-ctl-open', *[' ' + word for word in tls_side], '',
                   EXAMPLES + '/starttls/' + proto, 'tls-ctl-start', '-c', *prog,
                   env={**XMPP_TO, **more.pop('env', {})}, **more)


INTERACTIVE = EXAMPLES + '/interactive'

for proto in PROTOCOLS:
    @test('%s: up to the go-ahead, then in TLS, verified, both ways' % proto)
    def _(proto=proto):
        def play(talk):
            good(proto)(talk)
            talk.start_tls()
            talk.say('welcome\r\n')
            talk.hear('what is typed')
            talk.say('bye\r\n')
            is_equal(talk.end(), (b'', 'close_notify'))

        server = Played(play, play)
        for style in connect, delayed:
            result = style(proto, server.port, INTERACTIVE, input=b'what is typed\r\n')
            is_done(result)
            is_equal((result.out, result.err), (b'welcome\r\nbye\r\n', ''))
        server.join()

    @test('%s: what comes with the go-ahead is refused as injected' % proto)
    def _(proto=proto):
        def play(talk):
            good(proto, last=lambda go_ahead: go_ahead + b'injected\r\n')(talk)
            is_equal(talk.rest(), b'', 'what the client says after it')

        server = Played(play, play)
        refused = 'the server sent bytes in plaintext before TLS began'
        is_refused(connect(proto, server.port, 'echo', 'not run'), 97, FATAL + refused)
        is_refused(delayed(proto, server.port, 'echo', 'not run'), 97, FATAL + refused,
                   'tls-ctl-start: fatal: TLS did not start: ' + refused)
        server.join()

    @test('%s: a server that hangs up, at once or in the middle of the go-ahead' % proto)
    def _(proto=proto):
        half = good(proto, last=lambda go_ahead: go_ahead[:len(go_ahead) // 2])
        server = Played(lambda talk: None, half, lambda talk: (half(talk), talk.reset()))
        for _ in range(3):
            is_refused(connect(proto, server.port, 'echo', 'not run'), 76,
                       'starttls/%s: fatal: the server has closed the connection' % proto)
        server.join()


# Servers that do not start TLS. The client's last word is in plaintext and says nothing.

def stripped(proto, lines, reason, code=69):
    """The server speaks these lines, or its part is played. The client gives up, silently."""
    said = []

    def play(talk):
        lines(talk) if callable(lines) else play_lines(talk, lines)
        before = talk.said
        is_equal(talk.rest(), b'', 'what the client still says')
        said.append(before)

    server = Played(play)
    is_refused(connect(proto, server.port, 'echo', 'not run'), code,
               'starttls/%s: fatal: %s' % (proto, reason))
    server.join()


NO_START = 'the server does not start TLS: '
NO_OFFER = 'the server does not offer STARTTLS'
NONSENSE = 'the server talks nonsense: '


@test('smtp: TLS not offered, refused, greeting refused, nonsense')
def _():
    hello = DIALOGUES['smtp'][:2]
    stripped('smtp', hello + ['250-example.org\r\n250-XSTARTTLS\r\n250 SIZE'], NO_OFFER)
    stripped('smtp', hello + ['502 what?'], NO_OFFER)
    stripped('smtp', DIALOGUES['smtp'][:4] + ['454 not now'], NO_START + '454 not now')
    stripped('smtp', ['554 go away'], NO_START + '554 go away')
    stripped('smtp', ['\x1b[31mSSH-2.0'], NONSENSE + '[31mSSH-2.0', 76)


@test('imap: TLS refused, logged in already, nonsense')
def _():
    stripped('imap', ['* OK hello', 'a STARTTLS', 'a BAD what?'], NO_START + 'a BAD what?')
    stripped('imap', ['* OK hello', 'a STARTTLS', 'a NO not now'], NO_START + 'a NO not now')
    stripped('imap', ['* PREAUTH welcome back'], NO_START + '* PREAUTH welcome back')
    stripped('imap', ['* BYE too busy'], NO_START + '* BYE too busy')
    stripped('imap', ['+OK pop'], NONSENSE + '+OK pop', 76)
    stripped('imap', ['* OK hello', 'a STARTTLS', 'b OK'], NONSENSE + 'b OK', 76)


@test('pop3: TLS refused, nonsense')
def _():
    stripped('pop3', ['+OK hello', 'STLS', '-ERR what?'], NO_START + '-ERR what?')
    stripped('pop3', ['-ERR too busy'], NO_START + '-ERR too busy')
    stripped('pop3', ['* OK imap'], NONSENSE + '* OK imap', 76)


@test('ftp: TLS refused, nonsense')
def _():
    stripped('ftp', ['220 hello', 'AUTH TLS', '530 login first'], NO_START + '530 login first')
    stripped('ftp', ['421 too busy'], NO_START + '421 too busy')
    stripped('ftp', ['22'], NONSENSE + '22', 76)


@test('nntp: TLS refused, nonsense')
def _():
    stripped('nntp', ['200 hello', 'STARTTLS', '580 cannot'], NO_START + '580 cannot')
    stripped('nntp', ['400 too busy'], NO_START + '400 too busy')
    stripped('nntp', ['hello'], NONSENSE + 'hello', 76)


@test('sieve: TLS not offered, refused, nonsense')
def _():
    stripped('sieve', ['"IMPLEMENTATION" "STARTTLS"\r\nOK "hello"'], NO_OFFER)
    stripped('sieve', ['"STARTTLS"\r\nOK', 'STARTTLS', 'NO "not now"'], NO_START + 'NO "not now"')
    stripped('sieve', ['BYE "too busy"'], NO_START + 'BYE "too busy"')
    stripped('sieve', ['220 hello'], NONSENSE + '220 hello', 76)


@test('xmpp: TLS not offered, refused, nonsense')
def _():
    stripped('xmpp', lambda t: play_xmpp(t, features='<mechanisms/>'), NO_OFFER)
    failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
    stripped('xmpp', lambda t: play_xmpp(t, answer=failure), NO_START + failure)
    for text in '<html>', '220 hello':
        stripped('xmpp', lambda t: (t.until('.*>' * 2), t.say(text)), NONSENSE + text, 76)


@test('xmpp: a server that proceeds before it is asked is not believed; one in small pieces is')
def _():
    def early(talk):
        talk.until("<stream:stream to='example.org' .*>")
        talk.say(early_offer)
        is_equal(talk.rest(), b'')

    def slow(talk):
        talk.until("<stream:stream to='example.org' .*>")
        for byte in STREAM + '<stream:features>%s</stream:features>' % OFFER:
            talk.say(byte)
        talk.until('<starttls .*/>')
        talk.say(PROCEED.replace('/>', '></proceed>'))
        talk.start_tls()
        is_equal(talk.end(), (b'hello', 'close_notify'))

    early_offer = '<?xml ?><stream:stream ><stream:features>%s</stream:features>' % OFFER + PROCEED
    server = Played(early, slow)
    is_refused(connect('xmpp', server.port, 'echo', 'not run'), 76,
               'starttls/xmpp: fatal: ' + NONSENSE + early_offer[:200])
    is_done(connect('xmpp', server.port, 'sh', '-c', 'printf hello >&7'))
    server.join()


@test('postgres: TLS not offered, nonsense')
def _():
    stripped('postgres', lambda t: play_postgres(t, b'N'), 'the server does not offer TLS')
    stripped('postgres', lambda t: play_postgres(t, b'E'), NONSENSE + 'E', 76)


# What each RFC lets a server say in another way.

def started(proto, *lines):
    """The server speaks these lines, or its part is played, and TLS starts."""
    def play(talk):
        lines[0](talk) if callable(lines[0]) else play_lines(talk, lines)
        talk.start_tls()
        is_equal(talk.end(), (b'hello', 'close_notify'))

    server = Played(play)
    is_refused(connect(proto, server.port, 'sh', '-c', 'printf hello >&7'), 0)
    server.join()


@test('smtp: the keyword in either case, with blanks or parameters behind it')
def _():
    for offer in ('250-STARTTLS \r\n250 SIZE', '250-SIZE \r\n250 starttls \t',
                  '250-STARTTLS\t\r\n250 X', '250-Starttls REQUIRED\r\n250 X'):
        started('smtp', '220 hi', r'EHLO \S+', '250-example.org\r\n' + offer, 'STARTTLS', '220 ')
    for offer in '250-STARTTLSX', '250-START TLS', '250-X STARTTLS':
        stripped('smtp', ['220 hi', r'EHLO \S+', '250-example.org\r\n%s\r\n250 X' % offer],
                 NO_OFFER)


@test('imap: OK, NO, BAD, BYE and PREAUTH in either case; the tag only as it was sent')
def _():
    started('imap', '* ok hello', 'a STARTTLS', '* Ok [ALERT] a moment\r\na ok ')
    started('imap', '* Ok', 'a STARTTLS', 'a Ok [X] go ahead')
    ask = ['* ok hello', 'a STARTTLS']
    for answer in 'a no not now', 'a Bad what?':
        stripped('imap', ask + [answer], NO_START + answer)
    for greeting in '* PreAuth welcome back', '* bye too busy':
        stripped('imap', [greeting], NO_START + greeting)
    for answer in 'A OK', 'a OKAY', 'a', 'ok':
        stripped('imap', ask + [answer], NONSENSE + answer, 76)
    stripped('imap', ['* OKAY'], NONSENSE + '* OKAY', 76)


@test('pop3: +OK and -ERR, alone or with a blank; in upper case, as RFC 1939 demands')
def _():
    started('pop3', '+OK', 'STLS', '+OK ')
    stripped('pop3', ['+OK', 'STLS', '-ERR'], NO_START + '-ERR')
    stripped('pop3', ['+ok hello'], NONSENSE + '+ok hello', 76)


@test('ftp: 120 before the greeting, which says that it takes a while')
def _():
    started('ftp', '120 ready in 1 minute\r\n220-hello\r\n220 ', 'AUTH TLS', '234')
    stripped('ftp', ['120 soon\r\n421 too busy'], NO_START + '421 too busy')
    stripped('ftp', ['120 soon\r\n120 soon'], NO_START + '120 soon')


@test('nntp: codes alone, or with a blank')
def _():
    started('nntp', '200', 'STARTTLS', '382 ')


@test('sieve: words in either case, with blanks; any string a literal, whatever it holds')
def _():
    started('sieve', '"starttls" \r\nok', 'STARTTLS', 'Ok "go ahead"')
    for plus in '', '+':
        started('sieve', '"IMPLEMENTATION" {9%s}\r\nOK\r\n"STA"\r\n{8%s}\r\nStartTLS\r\n'
                         '"SASL" {0%s}\r\n\r\nOK {6%s}\r\nhello}' % ((plus,) * 4),
                'STARTTLS', 'OK (TAG {4%s}\r\n{10}) {2%s}\r\ngo' % (plus, plus))
    # A capability's value is none, nor is what a literal holds.
    for value in '"X" {8}\r\nSTARTTLS', '"X" {12}\r\n\r\n"STARTTLS"', '{12}\r\nX\r\n"STARTTLS':
        stripped('sieve', [value + '\r\nOK'], NO_OFFER)
    ask = ['"STARTTLS"\r\nOK', 'STARTTLS']
    stripped('sieve', ask + ['no {7}\r\nnot now'], NO_START + 'no "not now"')
    stripped('sieve', ['bye (TRYLATER) {4+}\r\nbusy'], NO_START + 'bye (TRYLATER) "busy"')
    stripped('sieve', ['OKAY'], NONSENSE + 'OKAY', 76)
    stripped('sieve', ['"X" {99999}'], NONSENSE + '"X" {99999}', 76)


@test('sieve: what comes with a go-ahead that ends in a literal is refused as injected')
def _():
    def play(talk):
        play_lines(talk, ['"STARTTLS"\r\nOK', 'STARTTLS', 'OK {2}\r\ngo\r\nOK "injected"'])
        is_equal(talk.rest(), b'', 'what the client says after it')

    server = Played(play)
    is_refused(connect('sieve', server.port, 'echo', 'not run'), 97,
               FATAL + 'the server sent bytes in plaintext before TLS began')
    server.join()


@test('xmpp: white space between tags and inside of them; features that are none')
def _():
    def spaced(talk):
        talk.until("<stream:stream to='example.org' .*>")
        talk.say('\r\n' + STREAM.replace(' ', '\n') + '\n<stream:features\n>\n<starttls\n\t'
                 "xmlns='urn:ietf:params:xml:ns:xmpp-tls'\n/>\n</stream:features\n>\n")
        talk.until("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        talk.say('\n' + PROCEED.replace(' ', '\r\n').replace('/>', '\n></proceed\n>'))

    started('xmpp', spaced)
    for none in '<stream:features/>', '<stream:features />', "<stream:features xmlns:x='y'/>":
        stripped('xmpp', lambda t: (t.until('.*>' * 2), t.say(STREAM + none)), NO_OFFER)
    failure = '<failure/>'
    stripped('xmpp', lambda t: play_xmpp(t, answer=failure), NO_START + failure)


@test('a server that never ends its reply is not listened to for ever')
def _():
    def play(talk):
        try:
            while True:
                talk.say('220-and another thing, which is of no importance whatsoever\r\n' * 16)
        except OSError:
            pass

    server = Played(play)
    result = connect('smtp', server.port, 'echo', 'not run')
    is_refused(result, 76, 'starttls/smtp: fatal: ' + NONSENSE
               + '220-and another thing, which is of no importance whatsoever')
    server.join()


# Sessions

@test('a server that cuts the session in the middle: 98, whatever the program has made of it')
def _():
    def play(talk):
        good('smtp')(talk)
        talk.start_tls()
        talk.say('half of the ans')
        talk.sock.shutdown(socket.SHUT_RDWR)

    server = Played(play)
    result = connect('smtp', server.port, 'sh', '-c', 'cat <&6; exit 0')
    is_done(result, 98)
    is_equal(result.out, b'half of the ans')
    is_true('tls-io: warning: session truncated: the peer ended without close_notify' in result.err,
            'a warning: ' + result.err)
    server.join()


@test('another name in the certificate: 97; the name to verify can be given; -N takes any')
def _():
    def play(talk):
        good('xmpp')(talk)
        talk.start_tls(cert='a')
        is_equal(talk.end(), (b'hello', 'close_notify'))

    def refused(talk):
        good('xmpp')(talk)
        try:
            talk.start_tls(cert='a')
        except (ssl.SSLError, ConnectionError):
            return
        talk.peer.recv(1)

    hello = ['sh', '-c', 'printf hello >&7']
    server = Played(refused, play, play)
    result = connect('xmpp', server.port, *hello)
    is_done(result, 97)
    is_true(re.match('tls-handshake: fatal: unable to start TLS: .*127.0.0.1', result.err), result)
    for option in ['-k', 'a.example.org'], ['-N']:
        is_done(example('starttls-connect', *option, 'xmpp', '127.0.0.1', server.port, *hello,
                        env=XMPP_TO))
    server.join()



# Chainloaders

@test('a script leaves variables and signals as they are to the next program')
def _():
    server = Played(good('smtp'))
    mine = {'line': '1', 'code': '2', 'name': '3', 'LC_ALL': 'C.UTF-8', **XMPP_TO}
    tell = 'grep SigIgn /proc/self/status; env'
    result = example('starttls-dial', 'smtp', '127.0.0.1', server.port, 'sh', '-c', tell, env=mine)
    is_done(result)
    told = result.out.decode().splitlines()
    is_equal(int(told[0].split()[1], 16) & 1 << signal.SIGPIPE - 1, 0, 'SIGPIPE ignored')
    for pair in mine.items():
        is_true('%s=%s' % pair in told, '%s=%s in %r' % (*pair, told))
    server.join()


@test('no prog, no connection, no domain, no such protocol: 100')
def _():
    for proto in PROTOCOLS:
        is_refused(example('starttls/' + proto), 100,
                   'starttls/%s: fatal: usage: starttls/%s prog...' % (proto, proto))
        is_refused(example('starttls/' + proto, 'true'), 100, 'starttls/%s: fatal: no connection '
                   'on descriptors 6 and 7: run it under tcpclient' % proto)
    server = Played(Talk.rest)
    is_refused(example('tcpclient', '-HRl0', '127.0.0.1', server.port, EXAMPLES + '/starttls/xmpp',
                       'true', env={'XMPP_TO': '"><'}), 100,
               'starttls/xmpp: fatal: set XMPP_TO to the domain to talk to')
    server.join()
    is_equal(server.talks[0].said, b'')
    is_refused(connect('gopher', 70), 100, 'starttls-dial: fatal: unknown protocol: gopher')
    is_refused(example('starttls-dial', 'tls', 'localhost', '', 'true'), 100,
               'starttls-dial: fatal: tls has no usual port: give one')
    for usage in ('starttls-dial proto host port prog...',
                  'starttls-connect [ -k name | -N ] proto host [ port ] [ prog... ]',
                  'tls-connect [ -k name | -N ] host port [ prog... ]'):
        is_refused(example(usage.split()[0], 'smtp'), 100, 'usage: ' + usage)


@test('interactive, at a terminal: lines get CRLF, and it is over when the server hangs up')
def _():
    def play(talk):
        talk.say('welcome\r\n')
        talk.hear('what is typed')
        talk.say('bye\r\n')

    server = Played(play)
    master, slave = pty.openpty()
    p = subprocess.Popen(['tcpclient', '-HRl0', '127.0.0.1', str(server.port), INTERACTIVE],
                         stdin=slave, stdout=subprocess.PIPE, start_new_session=True)
    with p:
        is_equal(p.stdout.readline(), b'welcome\r\n')
        os.write(master, b'what is typed\n')
        is_equal(p.stdout.read(), b'bye\r\n')
        is_equal(p.wait(10 * SLOW), 0)
    os.close(master)
    os.close(slave)
    server.join()


run()
