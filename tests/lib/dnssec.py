# ISC licence: see COPYING.
"""A name server whose zones are signed, or not, or badly; TLSA records.

    dns = Dns('mx.signed. A 127.0.0.1', '_25._tcp.mx.signed. TLSA ' + tlsa('server', 3, 1, 1))
    example('policy/dane-lookup', 'mx.signed', 25, env=dns.env)

It has a root of its own, which is signed, and below that a zone of each kind: signed; plain, which
is not signed; expired, whose signatures are; forged, whose TLSA records have been changed since;
stolen, signed with another key than the root knows; stripped, whose signatures somebody removes.
"""

import hashlib
import re
import subprocess

from chain import need
from examples import Daemon, free_port
from pki import openssl, pki, pki_path
from scratch import temp_dir

KINDS = 'signed', 'plain', 'expired', 'forged', 'stolen', 'stripped'

APEX = '''$ORIGIN {zone}
$TTL 3600
@ SOA ns admin 1 3600 3600 3600 3600
@ NS ns
ns A 127.0.0.1
'''
NSD_CONF = '''
server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{dir}"
  pidfile: ""
  xfrdfile: "{dir}/xfrd"
  xfrdir: "{dir}"
  zonelistfile: "{dir}/list"
  database: ""
remote-control:
  control-enable: no
'''
# Few tries, so that it does not take long to see that nobody answers.
UNBOUND_CONF = '''
server:
  trust-anchor-file: "{dir}/anchor"
  do-not-query-localhost: no
  outbound-msg-retry: 1
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{port}
'''


class Dns:
    """Serves these records, lines of zone files without time to live and class. env: variables for
    who asks; conf: the file that they name; server: the Daemon."""

    def __init__(self, *records):
        need('ldns-keygen', 'ldns-signzone', 'unbound-host')
        self._dir = temp_dir()
        port = free_port()
        settings = {'dir': self._dir, 'port': port}
        self.conf = self._write('unbound.conf', UNBOUND_CONF.format(**settings))
        self.env = {'UNBOUND_CONF': self.conf}
        zones = NSD_CONF.format(**settings)
        root = APEX.format(zone='.')
        for kind in KINDS:
            self._write(kind, APEX.format(zone=kind + '.') + ''.join(
                r + '\n' for r in records if r.split()[0].endswith('.%s.' % kind)))
            root += '{0} NS ns.{0}\nns.{0} A 127.0.0.1\n{1}'.format(kind, self._signed(kind))
            zones += 'zone:\n  name: {0}\n  zonefile: {0}\n'.format(kind)
        self._write('root', root)
        self._write('anchor', self._signed('root', '.'))
        zones += 'zone:\n  name: .\n  zonefile: root\n'
        self.server = Daemon(['nsd', '-d', '-c', self._write('nsd.conf', zones)])
        self.server.wait_port(port)

    def _write(self, name, text):
        path = '%s/%s' % (self._dir, name)
        with open(path, 'w') as f:
            f.write(text)
        return path

    def _run(self, *argv):
        return subprocess.run(argv, cwd=self._dir, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True).stdout.strip()

    def _key(self, zone):
        """The name of a key, and the record that the zone above has of it."""
        name = self._run('ldns-keygen', '-a', 'ECDSAP256SHA256', '-k', '-r', '/dev/urandom', zone)
        with open('%s/%s.ds' % (self._dir, name)) as f:
            return name, f.read()

    def _signed(self, file, zone=None):
        """Signs a zone as its kind has it. What the zone above says of its key."""
        if file == 'plain':
            return ''
        zone = zone or file
        key, ds = self._key(zone)
        times = ('-i', '20200101', '-e', '20200201') if file == 'expired' else ()
        if file == 'stripped':
            return ds
        self._run('ldns-signzone', '-o', zone, *times, '-f', file, file, key)
        if file == 'forged':
            with open('%s/%s' % (self._dir, file)) as f:
                text = f.read()
            self._write(file, re.sub(r'(?<=\tTLSA\t)(.* )(.*)', lambda m: m[1] + m[2][::-1], text))
        return self._key(zone)[1] if file == 'stolen' else ds


def tlsa(cert, usage, selector, matching):
    """The data of a TLSA record for a certificate of the PKI."""
    pki()
    data = openssl('x509', '-in', pki_path(cert + '.pem'), '-noout', '-pubkey')
    data = openssl('pkey', '-pubin', '-outform', 'DER', input=data) if selector else \
        openssl('x509', '-in', pki_path(cert + '.pem'), '-outform', 'DER')
    data = {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}[matching]
    return '%d %d %d %s' % (usage, selector, matching, data.hex())
