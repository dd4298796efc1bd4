# ISC licence: see COPYING.
"""A name server that a test plays, by UDP."""

import shutil
import socket
import struct
import threading

from chain import need
from qmail import write_tool
from scratch import close_later

A, SOA, MX, AAAA = 1, 6, 15, 28
SERVFAIL, NXDOMAIN = 2, 3


def wire_name(name):
    labels = [label.encode() for label in name.rstrip('.').split('.') if label]
    return b''.join(bytes([len(label)]) + label for label in labels) + b'\0'


def mx(preference, name):
    return MX, struct.pack('>H', preference) + wire_name(name)


def address(text):
    family, kind = (socket.AF_INET6, AAAA) if ':' in text else (socket.AF_INET, A)
    return kind, socket.inet_pton(family, text)


class PlayedDNS:
    """Answers from zone, until the test is over: for each name what there is, (type, data), or an
    error; nothing at all for a name that has None. Other names do not exist."""

    def __init__(self, zone):
        self.zone = zone
        self.asked = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(('127.0.0.1', 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()
        close_later(self)

    def _run(self):
        while True:
            query, peer = self._socket.recvfrom(4096)
            if len(query) < 12:  # close() wakes it
                return
            end = query.index(b'\0', 12) + 5
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            name, = ['.'.join(labels)]
            kind, = struct.unpack('>H', query[end - 4:end - 2])
            self.asked.append((name, kind))
            there = self.zone.get(name, NXDOMAIN)
            if there is None:
                continue
            records = [] if isinstance(there, int) else [r for r in there if r[0] == kind]
            code = there if isinstance(there, int) else 0
            answer = query[:2] + struct.pack('>HHHHH', 0x8180 | code, 1, len(records), 0, 0)
            answer += query[12:end]
            for kind, data in records:
                answer += b'\xc0\x0c' + struct.pack('>HHIH', kind, 1, 60, len(data)) + data
            self._socket.sendto(answer, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b'', ('127.0.0.1', self.port))


# Who asks it

def use_host(home, dns):
    """Debian's host, which asks that server; its answer times out after a second."""
    need('host')
    write_tool(home.dir + '/bin/host', 'exec %s -W 1 -R 1 -p %d "$@" 127.0.0.1\n'
               % (shutil.which('host'), dns.port))


def use_unbound(home, dns):
    """unbound-host, which control/dane has it use, without a trust anchor."""
    need('unbound-host')
    with open(home.dir + '/control/dane', 'w'), open(home.dir + '/unbound.conf', 'w') as f:
        f.write('server:\n do-not-query-localhost: no\n module-config: "iterator"\n'
                'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@%d\n' % dns.port)
