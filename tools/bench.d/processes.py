# ISC licence: see COPYING.
"""The processes of a benchmark: a server with a contender in it; their CPU time and memory."""

import os
import resource
import signal
import socket
import subprocess
import time

TICK = os.sysconf('SC_CLK_TCK')


def descendants():
    parents = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid) as f:
                parents[int(pid)] = int(f.read().rpartition(')')[2].split()[1])
        except OSError:
            pass
    below = {os.getpid()}
    while True:
        more = {p for p, parent in parents.items() if parent in below} - below
        if not more:
            return below - {os.getpid()}
        below |= more


def each(read):
    """read(pid) for each descendant that is still there."""
    for pid in descendants():
        try:
            yield read(pid)
        except OSError:
            pass


def name(pid):
    with open('/proc/%d/cmdline' % pid, 'rb') as f:
        return os.path.basename(f.read().split(b'\0')[0]).decode()


def count(program):
    return sum(n == program for n in each(name))


def pss(skip):
    """Proportional set size in KB of all descendants that are not one of these programs."""
    def read(pid):
        if name(pid) in skip:
            return 0
        with open('/proc/%d/smaps_rollup' % pid) as f:
            return sum(int(line.split()[1]) for line in f if line.startswith('Pss:'))
    return sum(each(read))


def reap():
    """Takes all dead children; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    except ChildProcessError:
        return False


def cpu_of_dead():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu():
    """CPU seconds of all descendants up to now, dead ones included, to a few clock ticks."""
    def read(pid):
        with open('/proc/%d/stat' % pid) as f:
            return sum(map(int, f.read().rpartition(')')[2].split()[11:15])) / TICK
    reap()
    return cpu_of_dead() + sum(each(read))


def until(predicate, what, seconds=20, pause=0.002):
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise OSError('waited in vain: ' + what)
        time.sleep(pause)


def steady(read, seconds=3):
    """The value of read() once it changes little; at last whatever it is, for what others on the
    machine share of a page can change it all the time."""
    value, end = read(), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        before, value = value, read()
        if abs(value - before) <= 0.01 * before:
            break
    return value


def listening_port(known):
    """The TCP port on 127.0.0.1 on which a descendant listens; not one of those known."""
    def sockets(pid):
        fds = '/proc/%d/fd' % pid
        return [os.readlink('%s/%s' % (fds, fd)) for fd in os.listdir(fds)]

    found = []

    def look():
        ours = set(sum(each(sockets), []))
        with open('/proc/net/tcp') as f:
            for field in map(str.split, f):
                port = field[1].rpartition(':')[2]
                if field[3] == '0A' and 'socket:[%s]' % field[9] in ours:
                    found.append(int(port, 16))
        found[:] = set(found) - known
        return found
    until(look, 'a port to connect to')
    return found[0]


class Server:
    """A contender before an application, on a free port of 127.0.0.1. wrap: as immediate and
    delayed of a contender, instead of these."""

    def __init__(self, contender, app, keys, dir, most=0, delayed=False, wrap=None):
        self.keys, self.delayed, self.processes = keys, delayed, []
        self.wrap = wrap or (contender.delayed if delayed else contender.immediate)
        self.before = cpu_of_dead()
        self.log = open(dir + '/log', 'a')
        env = {'PATH': contender.path + os.environ['PATH'],
               'KEYFILE': keys + '/key.pem', 'CERTFILE': keys + '/cert.pem'}
        self.tcpserver = ['tcpserver', '-1HR', '-c', str(most + 100), '-b', '200', '-l', '0',
                          '127.0.0.1', '0']
        try:
            if contender.engine == 'opened':
                self.tcpserver[:0] = ['tls-engine-open', '-m', str(most + 100)]
            if contender.engine == 'resident':
                self.start_engined(env, dir, most + 100)
                env = {'PATH': env['PATH'], 'TLS_ENGINE': dir + '/engine'}
            self.address = '127.0.0.1', self.start(contender, app, env)
        except BaseException:
            self.kill()
            raise

    def popen(self, argv, **kw):
        p = subprocess.Popen(argv, stderr=self.log, stdin=subprocess.DEVNULL, **kw)
        self.processes.insert(0, p)
        return p

    def start_engined(self, env, dir, most):
        r, w = os.pipe()
        self.popen(['s6-ipcserver-socketbinder', dir + '/engine', 'tls-engined', '-m', str(most),
                    '-d', str(w)], env=env, pass_fds=[w])
        os.close(w)
        ready = os.read(r, 1)
        os.close(r)
        if not ready:
            raise OSError('tls-engined did not start')

    def start(self, contender, app, env):
        backend = self.tcp(app, env) if contender.server == 'proxy' else None
        argv = self.wrap(backend or app, self.keys)
        if contender.server == 'tcpserver':
            return self.tcp(argv, env)
        self.popen(argv, env=env, stdout=self.log)
        return listening_port({backend})

    def tcp(self, argv, env):
        p = self.popen(self.tcpserver + argv, env=env, stdout=subprocess.PIPE)
        with p.stdout:
            return int(p.stdout.readline())

    def connect(self):
        s = socket.create_connection(self.address)
        s.settimeout(20)
        return s

    def stop(self):
        """Ends it; the CPU seconds of all its processes, orphans included."""
        for p in self.processes:
            p.terminate()
        try:
            until(lambda: not reap(), 'processes do not end')
        finally:
            self.kill()
        return cpu_of_dead() - self.before

    def kill(self):
        def killed():
            list(each(lambda pid: os.kill(pid, signal.SIGKILL)))
            return not reap()
        until(killed, 'processes cannot be killed')
        for p in self.processes:
            p.poll()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if not self.log.closed:
            self.kill()
