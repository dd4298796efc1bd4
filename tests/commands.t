#!/usr/bin/env python3
# ISC licence: see COPYING.
# -h and -V of all programs; and the commands that people type, as make install installs them.

import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import BIN, TOP, without_pid
from examples import Played, example, is_done, is_refused
from scratch import temp_dir
from tap import is_equal, is_true, run, test
from tree import info, targets


def installed():
    """The directory of the programs, installed into a directory of their own."""
    d = temp_dir()
    subprocess.run(['make', '-s', 'install', *('%sdir=%s/%s' % (name, d, name)
                                               for name in ('bin', 'libexec', 'man', 'doc'))],
                   cwd=TOP, check=True)
    return d + '/bin'


@test('-V prints the version of package/info, -h the usage; alone, and on standard output')
def _():
    bin = installed()
    for name in targets('BIN_TARGETS') + targets('ENGINE_TARGETS') + targets('COMMANDS'):
        program = '%s/%s' % (bin, name)
        is_equal(example(program, '-V').out.decode(), 'tls-chain %s\n' % info('version'), name)
        result = example(program, '-h')
        is_done(result)
        is_true(re.fullmatch(r'usage: %s .+\n' % name, result.out.decode()), result)
        is_equal(result.err, '')
    with open('/dev/full', 'w') as full:
        p = subprocess.run([BIN + '/tls-io', '-h'], stdout=full, stderr=subprocess.PIPE, text=True)
    is_equal((p.returncode, without_pid(p.stderr)),
             (111, 'tls-io: fatal: unable to write: No space left on device\n'))


@test('they find what they share, and the programs of the chain')
def _():
    def no_tls(talk):
        talk.say('220 hello\r\n')
        talk.line()
        talk.say('250 hello\r\n')

    def greets(talk):
        talk.start_tls(cert='server')
        talk.say('hello\n')

    bin = installed()
    for name in 'starttls-cert', 'starttls-chain', 'starttls-connect':
        server = Played(no_tls)
        is_refused(example('%s/%s' % (bin, name), 'smtp', '127.0.0.1', server.port), 69,
                   'starttls/smtp: fatal: the server does not offer STARTTLS')
        server.join()
    server = Played(greets)
    result = example(bin + '/tls-connect', '-N', '-k', 'localhost', '127.0.0.1', server.port)
    server.join()
    is_equal((result.code, result.out), (98, b'hello\n'), result.err)  # no close_notify


run()
