#!/usr/bin/env python3
# ISC licence: see COPYING.
# The services that share a resident engine, under s6-svscan and by the definitions for s6-rc.

import os
import re
import smtplib
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import need
from examples import EXAMPLES, port_is_open
from pki import EXT, issue, pki
from proc import find_processes
from scratch import temp_dir
from services import (LOOPBACK, SERVICES, SERVICE_WAIT, Scan, get_page, mail_by_smtps,
                      mail_by_starttls, run_command, smtpd_with_mail, tls_to, verifying_context,
                      web_root, write_line)
from tap import SLOW, is_equal, is_true, run, test, wait_for

# The resident engine

def resident_services():
    need('busybox')
    scan = Scan()
    scan.add('tls-engined')
    scan.add('smtps', SMTPD=smtpd_with_mail(scan))
    scan.add('https', ROOT=web_root(scan))
    return scan.start()


def serial_of(scan, name='https'):
    """The serial number of the certificate that a service shows."""
    with tls_to(scan.ports[name]) as s:
        return s.getpeercert()['serialNumber']


@test('smtps and https, by the resident engine: smtplib sends a mail, curl fetches a page')
def _():
    scan = resident_services()
    mail_by_smtps(scan)
    is_equal(get_page(scan.ports['https']), b'a page\n')
    need('curl')
    url = 'https://%s:%d/' % (LOOPBACK, scan.ports['https'])
    env = {k: v for k, v in os.environ.items() if 'proxy' not in k.lower()}
    is_equal(run_command('curl', '-sS', '--cacert', pki() + '/ca.pem', url, env=env), 'a page\n')
    # The services hold no key, and neither does their engine hold root.
    is_equal(os.listdir(scan.dir + '/scan/https/tls'), ['TLS_ENGINE'])
    uids = set()
    for pid in find_processes('tls-engined'):
        try:
            with open('/proc/%d/status' % pid) as f:
                uids.add(int(re.search(r'^Uid:\s+(\d+)', f.read(), re.M)[1]))
        except (FileNotFoundError, ProcessLookupError):
            pass  # that of a session, which has ended
    is_equal(uids, {0, 65534}, 'the keeper, who reads the files, and the worker')


@test('renew: new sessions get the new certificate, one that is open goes on, a bad one is not put')
def _():
    scan = resident_services()
    renew = [SERVICES + '/renew', scan.dir + '/keys']
    first, link = serial_of(scan), os.readlink(scan.dir + '/keys/current')
    held = smtplib.SMTP_SSL(LOOPBACK, scan.ports['smtps'], context=verifying_context(),
                            timeout=30 * SLOW)
    issue(pki(), 'renewed', EXT['server'])
    out = run_command(*renew, pki() + '/renewed.key', pki() + '/renewed.pem')
    is_true(re.fullmatch(r'\S+/keys/current is now \S+, and was %s\n' % link, out), out)
    wait_for(lambda: serial_of(scan) != first, 'the new certificate')
    second = serial_of(scan)
    is_equal(held.noop()[0], 250, 'what a session of before says')
    held.quit()

    # A certificate of another key, and one that is over: nothing changes, by renew or otherwise.
    issue(pki(), 'over', EXT['server'], days='0')
    current = os.readlink(scan.dir + '/keys/current')
    for key, cert, why in ('server', 'renewed', 'is not a certificate of'), \
                          ('over', 'over', 'is not a certificate, or has expired'):
        pair = '%s/%s.key' % (pki(), key), '%s/%s.pem' % (pki(), cert)
        out = run_command(*renew, *pair, code=1)
        is_true(re.search(r'^renew: fatal: .*%s' % why, out, re.M), out)
    is_equal(os.readlink(scan.dir + '/keys/current'), current)
    write_line('%s/keys/%s/cert.pem' % (scan.dir, current), 'nonsense')
    wait_for(lambda: serial_of(scan) == second and 'not loaded' in scan.log('tls-engined'),
             'a load')
    scan.wait_log('tls-engined', 'new settings not loaded: going on with the old ones$')
    is_equal(serial_of(scan), second)


@test('a service, its logger and the engine are killed or restarted, and serve again')
def _():
    scan = resident_services()
    is_equal(get_page(scan.ports['https']), b'a page\n')
    for name in 'https', 'https/log', 'tls-engined':
        d = '%s/scan/%s' % (scan.dir, name)
        pid = run_command('s6-svstat', '-o', 'pid', d)
        run_command('s6-svc', '-k' if name == 'tls-engined' else '-r', d)
        wait_for(lambda: run_command('s6-svstat', '-o', 'pid', d) not in (pid, '-1\n'),
                 'a new ' + name)
        if name == 'tls-engined':
            wait_for(lambda: run_command('s6-svstat', '-o', 'ready', d) == 'true\n', 'an engine')
        wait_for(lambda: port_is_open(scan.ports['https']), 'a server')
        is_equal(get_page(scan.ports['https']), b'a page\n')


# The definitions for s6-rc

class Rc(Scan):
    """The definitions, compiled, and brought up in a scan directory."""

    def __init__(self):
        need('s6-rc-compile')
        super().__init__()
        source = self.dir + '/source'
        run_command('cp', '-RL', EXAMPLES + '/s6-rc', source)
        web_root(self)
        for name in 'tls-engined', 'smtp', 'smtps', 'https':
            settings = {}
            if name == 'https':
                settings['ROOT'] = self.dir + '/www'
            if name.startswith('smtp'):
                settings['SMTPD'] = 'smtpfront-echo accept' + ' starttls-ucspi' * (name == 'smtp')
            d = '%s/%s' % (source, name)
            self.configure(name, d, d + '-log', settings)
        run_command('s6-rc-compile', self.dir + '/compiled', source)

    def start(self):
        self.scan()
        self.live = self.dir + '/live'
        run_command('s6-rc-init', '-c', self.dir + '/compiled', '-l', self.live, self.dir + '/scan')
        self.change('-u')
        self.daemon.wait_port(*self.ports.values())
        return self

    def change(self, direction):
        run_command('s6-rc', '-l', self.live, '-t', SERVICE_WAIT, direction, 'change',
                    'tls-services')


@test('s6-rc-compile takes the definitions; all services depend on the engine')
def _():
    need('s6-rc-compile')
    compiled = temp_dir() + '/compiled'
    run_command('s6-rc-compile', compiled, EXAMPLES + '/s6-rc')
    for name in 'smtp', 'smtps', 'https':
        needs = run_command('s6-rc-db', '-c', compiled, 'all-dependencies', name).split()
        is_true('tls-engined' in needs, '%s depends on %r' % (name, needs))


@test('s6-rc brings them up, engine first, and real clients talk to each')
def _():
    need('smtpfront-echo', 'busybox')
    scan = Rc().start()
    mail_by_starttls(scan, 'smtp')
    mail_by_smtps(scan)
    is_equal(get_page(scan.ports['https']), b'a page\n')
    run_command('s6-rc', '-l', scan.live, '-t', SERVICE_WAIT, '-d', 'change', 'tls-engined')
    is_true(not any(map(port_is_open, scan.ports.values())), 'without the engine none is up')


run()
