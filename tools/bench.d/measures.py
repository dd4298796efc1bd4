# ISC licence: see COPYING.
"""What is measured. The docstring of a section is its description on the page of the results."""

import contextlib
import itertools
import os
import shutil
import socket
import ssl
import threading
import time

import processes
from processes import Server

VERSIONS = {'1.2': ssl.TLSVersion.TLSv1_2, '1.3': ssl.TLSVersion.TLSv1_3}
KEYS = {'ec': 'EC P-256', 'rsa': 'RSA-2048'}
CIPHERS12 = ['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256']
PINNED = ['TLS_AES_128_GCM_SHA256', *CIPHERS12]  # the first by client.cnf
TOGETHER = 4  # clients at once
MESSAGE = b'm' * 64
BURST, REST = 100, 0.02  # round trips, seconds
OTHER_SIDE = 'fd'  # in an argv: the number of the descriptor


class Section:
    """columns: heads of the table, each with its unit in parentheses at the end. Each of steps
    is a function from a contender to {head: value}, empty where that contender cannot do it."""

    def __init__(self, name, title, text, columns, steps):
        self.name, self.title, self.text = name, title, ' '.join(text.split())
        self.columns, self.steps = columns, steps


class Bench:
    def __init__(self, options, dir):
        self.o, self.dir, self.app = options, dir, dir + '/app'
        self.ciphers = {}  # contender's name: what its sessions had

    def context(self, contender, key, version):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.load_verify_locations('%s/%s/cert.pem' % (self.dir, key))
        c.set_ciphers(':'.join(CIPHERS12))
        c.minimum_version = ssl.TLSVersion.TLSv1_2
        c.maximum_version = min(VERSIONS[version], contender.max or VERSIONS[version])
        return c

    def serve(self, contender, argv, key=None, **kw):
        return Server(contender, [self.app, *argv], '%s/%s' % (self.dir, key or self.o.keys[0]),
                      self.dir, max(self.o.held), **kw)

    def client(self, contender, server, key=None, version=None, names=('localhost',)):
        """A function that makes a session with that server, of which it asks for each of the
        names in turn."""
        names = itertools.cycle(names)
        context = self.context(contender, key or self.o.keys[0], version or self.o.tls[0])

        def connect():
            with contextlib.ExitStack() as undo:
                s = undo.enter_context(server.connect())
                if server.delayed:
                    s.sendall(b'STARTTLS\n')
                    if s.recv(100) != b'go\n':
                        raise OSError('no answer in plaintext')
                t = context.wrap_socket(s, server_hostname=next(names))
                undo.pop_all()
            what = t.version(), t.cipher()[0]
            if what[1] not in PINNED:
                t.close()
                raise OSError('the cipher is %s' % what[1])
            self.ciphers.setdefault(contender.name, set()).add('%s %s' % what)
            return t
        return connect

    def sessions(self, n, connect):
        """n sessions with an application that writes a few bytes and ends."""
        for _ in range(n):
            with connect() as t:
                said = b''
                while got := t.recv(100):
                    said += got
            if said != b'done':
                raise OSError('the application said %r' % said)

    # Sections

    def session(self):
        """CPU time of all processes of the server's side for a session with a full handshake,
        an answer of 4 bytes and the end; one session after the other. The start of an
        engine for all is in it, divided among the sessions of a round: of 60, it is a twentieth."""
        def step(key, version, head):
            def measure(c):
                if c.max and VERSIONS[version] > c.max:
                    return {}
                with self.serve(c, [], key) as server:
                    self.sessions(self.o.sessions, self.client(c, server, key, version))
                    return {head: server.stop() * 1000 / self.o.sessions}
            return measure
        settings = {'%s, TLS %s (ms)' % (KEYS[k], v): (k, v)
                    for v in self.o.tls for k in self.o.keys}
        return list(settings), [step(*setting, head) for head, setting in settings.items()]

    def delayed(self):
        """As before, but the session begins in plaintext: the client sends a line, the
        application answers it and asks for TLS by UCSPI-TLS. Only contenders that speak it."""
        head = 'CPU (ms)'

        def measure(c):
            if not c.delayed:
                return {}
            with self.serve(c, ['delayed'], delayed=True) as server:
                self.sessions(self.o.sessions, self.client(c, server))
                return {head: server.stop() * 1000 / self.o.sessions}
        return [head], [measure]

    def names(self):
        """As in the first section, but the certificate is chosen by the name that the client asks
        for: tls-peek looks at its ClientHello, and s6-envdir takes the settings from the directory
        of that name, of which there is one, or ten thousand, each with a key and a certificate.
        Each session has an engine of its own."""
        heads = {n: 'of %d (ms)' % n for n in (1, 10000)}
        growth = 'of 10000 to of 1 (ratio)'
        choose = 'importas -i name TLS_HELLO_SERVERNAME s6-envdir %s/${name} $@'

        def measure(c):
            if c.kind != 'tls-chain' or c.engine or not shutil.which('s6-envdir'):
                return {}
            result = {}
            for n, head in heads.items():
                dir, names = certificates(self.dir, self.o.keys[0], n)
                wrap = lambda app, keys: ['tls-peek', 'execlineb', '-s0', '-c', choose % dir,
                                          *c.immediate(app, keys)]
                with self.serve(c, [], wrap=wrap) as server:
                    asked = names[::max(1, n // self.o.sessions)]
                    self.sessions(self.o.sessions, self.client(c, server, names=asked))
                    result[head] = server.stop() * 1000 / self.o.sessions
            result[growth] = result[heads[10000]] / result[heads[1]]
            return result
        return [*heads.values(), growth], [measure]

    def rate(self):
        """Sessions a second as in the first section, by 4 clients at once on the same machine;
        what the clients cost is in it."""
        head = 'sessions (1/s)'

        def measure(c):
            with self.serve(c, []) as server:
                connect, failures = self.client(c, server), []

                def client():
                    try:
                        self.sessions(self.o.sessions // TOGETHER + 1, connect)
                    except OSError as e:
                        failures.append(e)
                threads = [threading.Thread(target=client) for _ in range(TOGETHER)]
                start = time.monotonic()
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                took = time.monotonic() - start
                if failures:
                    raise failures[0]
                return {head: TOGETHER * (self.o.sessions // TOGETHER + 1) / took}
        return [head], [measure]

    def bulk(self):
        """One session with an application behind pipes that writes (down) or reads (up) as fast
        as it can, a buffer of 64 KiB at a time. CPU time is that of the server's side."""
        size = self.o.megabytes << 20
        buffer = bytearray(1 << 18)

        def down(c):
            with self.serve(c, ['source', str(size)]) as server:
                n = 0
                with self.client(c, server)() as t:
                    start = time.monotonic()
                    while got := t.recv_into(buffer):
                        n += got
                    took = time.monotonic() - start
                if n != size:
                    raise OSError('%d of %d bytes came down' % (n, size))
                return {'down (MB/s)': size / took / 1e6,
                        'down, CPU (s/GB)': server.stop() / size * 1e9}

        def up(c):
            with self.serve(c, ['sink', str(size)]) as server:
                with self.client(c, server)() as t:
                    start = time.monotonic()
                    for _ in range(size // len(buffer)):
                        t.sendall(buffer)
                    if t.recv(4) != b'done':
                        raise OSError('not all bytes came up')
                    took = time.monotonic() - start
                return {'up (MB/s)': size / took / 1e6,
                        'up, CPU (s/GB)': server.stop() / size * 1e9}
        return ['down (MB/s)', 'down, CPU (s/GB)', 'up (MB/s)', 'up, CPU (s/GB)'], [down, up]

    def trips(self):
        """One session with an application that sends back what it gets: the client sends 64
        bytes and waits for them. In bursts: 100 such trips, then a rest of 20 ms, which is not
        counted, as in a dialogue. On end: one trip after the other. The kernel then spreads the
        processes over the processors, and each message wakes another processor, which costs about
        as much again. Who makes its own client wait now and then, which its rate tells, is not
        spread, and seems to cost less. CPU time is that of the server's side, less what a session
        without a round trip takes."""
        def trip(t):
            t.sendall(MESSAGE)
            left = len(MESSAGE)
            while left and (got := len(t.recv(left))):
                left -= got
            if left:
                raise OSError('no echo')

        def run(c, bursts, trips):
            """The time that the trips took, and the CPU time of the session."""
            took = 0
            with self.serve(c, ['echo']) as server:
                with self.client(c, server)() as t:
                    for _ in range(bursts):
                        time.sleep(REST)
                        start = time.monotonic()
                        for _ in range(trips):
                            trip(t)
                        took += time.monotonic() - start
                return took, server.stop()

        def step(bursts, trips, heads):
            def measure(c):
                took, cpu = run(c, bursts, trips)
                n = bursts * trips
                return dict(zip(heads, [n / took, (cpu - run(c, 0, 0)[1]) / n * 1e6]))
            return measure
        bursts = max(1, self.o.trips // BURST), BURST, ['in bursts (1/s)', 'in bursts, CPU (µs)']
        on_end = 1, self.o.trips, ['on end (1/s)', 'on end, CPU (µs)']
        return bursts[2] + on_end[2], [step(*bursts), step(*on_end)]

    def plain(self):
        """Memory of the server's side for each of so many sessions that are held while they are
        in plaintext, and could become TLS: proportional set size, in which a page that several
        processes share is divided among them, less that of the application and of tcpserver.
        An engine for all is counted."""
        heads = {k: 'at %d (KB)' % k for k in self.o.held}

        def measure(c):
            if not c.delayed:
                return {}
            result = {}
            with self.serve(c, ['hold'], delayed=True) as server, contextlib.ExitStack() as held:
                n = 0
                for k, head in heads.items():
                    for n in range(n + 1, k + 1):
                        held.enter_context(server.connect())
                    processes.until(lambda: processes.count('app') == k, 'the applications')
                    result[head] = memory(k)
            return result
        return list(heads.values()), [measure]

    def held(self):
        """The same of sessions that are held in the TLS phase, after a byte each way. Then, while
        so many are held, the CPU time of a further session: one that sends a byte, gets it back,
        and ends. It is that of about as many sessions as take three seconds. And what ten of them
        hold when they rest, after 4 MB have passed each way in each."""
        heads = {k: 'at %d (KB)' % k for k in self.o.held}
        most = max(heads)
        further = {k: 'CPU at %d (ms)' % k for k in heads if k in (10, most) and k >= 10}
        growth = 'CPU at %d to 10 (ratio)' % most
        bulky = max(k for k in heads if k <= 10)
        used = 'at %d, after 4 MB each way (KB)' % bulky

        def send_and_get(t):
            data = bytes(1 << 16)
            for _ in range(64):
                t.sendall(data)
                left = len(data)
                while left:
                    left -= len(t.recv(left))

        def greet(t):
            t.sendall(b'x')
            if t.recv(1) != b'x':
                raise OSError('no echo')
            return t

        def cpu_of_session(connect):
            before, start, n = set(processes.descendants()), processes.cpu(), 0
            while n < 20 * self.o.sessions and processes.cpu() < start + 3:
                for _ in range(self.o.sessions):
                    greet(connect()).close()
                n += self.o.sessions
                processes.until(lambda: processes.reap() and processes.descendants() <= before,
                                'processes do not end')
            return (processes.cpu() - start) * 1000 / n

        def measure(c):
            result = {}
            with self.serve(c, ['echo']) as server, contextlib.ExitStack() as stack:
                connect = self.client(c, server)
                held = []
                for k, head in heads.items():
                    while len(held) < k:
                        held.append(greet(stack.enter_context(connect())))
                    result[head] = memory(k)
                    if k == bulky:
                        for t in held:
                            send_and_get(t)
                        time.sleep(2)  # an engine at rest gives its buffers back
                        result[used] = memory(k)
                    if k in further:
                        result[further[k]] = cpu_of_session(connect)
            if len(further) == 2:
                result[growth] = result[further[most]] / result[further[10]]
            return result
        columns = [*heads.values(), used, *further.values(), *[growth] * (len(further) == 2)]
        return columns, [measure]

    def stage(self):
        """What a chain costs more, in CPU time, when it has one stage more: that of a chain of
        the stage and an empty static program, less that of the empty program alone. The stage
        finds what it waits for. An empty program becomes the next one and does nothing else; the
        ratio is to an empty program with the same libc. A program with glibc, static or not,
        executes the instruction CPUID some 40 times when it starts, to learn what the processor can
        do; on a virtual machine each is answered by the hypervisor, and takes microseconds. With
        musl there are none."""
        heads = ['tls-await (µs)', 'tls-ctl-start (µs)', 'tls-peek (µs)']
        reply = b'SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=TLS_AES_128_GCM_SHA256\0\0'

        def spawn(argv, said=b''):
            """CPU seconds of a process with an other side that has said this, and ended."""
            ours, its = socket.socketpair()
            with ours, its:
                ours.sendall(said)
                ours.shutdown(socket.SHUT_WR)
                its.set_inheritable(True)
                fd = str(its.fileno())
                env = {'PATH': os.environ['PATH'], 'TLS_CTLFD': fd, 'SSLCTLFD': fd,
                       'SSLREADFD': '0', 'SSLWRITEFD': '1'}
                argv = [fd if word is OTHER_SIDE else word for word in argv]
                before = processes.cpu_of_dead()
                _, status = os.waitpid(os.posix_spawn(argv[0], argv, env), 0)
                if status:
                    raise OSError('%s: status %d' % (os.path.basename(argv[0]), status))
                return processes.cpu_of_dead() - before

        def measure(c):
            if c.kind != 'empty' and c.engine != 'opened':
                return {}
            end = [self.dir + '/empty']
            if c.kind == 'empty':
                chains = {head: ([c.program, *end], b'') for head in heads}
            else:
                dir = c.path.rstrip(':')
                chains = {heads[0]: ([dir + '/tls-await', *end], b'y'),
                          heads[1]: ([dir + '/tls-ctl-start', *end], reply),
                          heads[2]: ([dir + '/tls-peek', '-6', OTHER_SIDE, *end], client_hello())}
            spent = dict.fromkeys(heads, 0)
            for _ in range(self.o.sessions * 5):
                alone = spawn(end)
                for head, chain in chains.items():
                    spent[head] += spawn(*chain) - alone
            return {head: s / (self.o.sessions * 5) * 1e6 for head, s in spent.items()}
        return heads, [measure]


def client_hello():
    out, context = ssl.MemoryBIO(), ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname='localhost')
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def certificates(dir, key, n):
    """A directory with n directories, each of a name and with KEYFILE and CERTFILE for it; and the
    names. All certificates are alike, but each has a file of its own."""
    top, names = '%s/names-%d' % (dir, n), ['n%d.example.net' % i for i in range(n)]
    if not os.path.exists(top):
        os.makedirs(top + '/pem')
        for name in names:
            os.mkdir('%s/%s' % (top, name))
            for setting, file in ('KEYFILE', 'key.pem'), ('CERTFILE', 'cert.pem'):
                path = '%s/pem/%s-%s' % (top, name, file)
                shutil.copyfile('%s/%s/%s' % (dir, key, file), path)
                with open('%s/%s/%s' % (top, name, setting), 'w') as f:
                    f.write(path)
    return top, names


def memory(sessions):
    return processes.steady(lambda: processes.pss(('app', 'tcpserver'))) / sessions


TITLES = {
    'session': 'A session: CPU time',
    'rate': 'Sessions a second',
    'delayed': 'A session after a plaintext phase: CPU time',
    'names': 'A session whose certificate is chosen by name: CPU time',
    'bulk': 'Bulk: throughput, and CPU time for a gigabyte',
    'trips': 'Round trips of small messages',
    'plain': 'A held session in the plaintext phase: memory',
    'held': 'A held session in the TLS phase: memory, and the CPU time of further sessions',
    'stage': 'One more stage of the chain: CPU time',
}


def sections(options, dir):
    bench = Bench(options, dir)
    return [Section(name, TITLES[name], getattr(bench, name).__doc__, *getattr(bench, name)())
            for name in options.sections], bench.ciphers
