# ISC licence: see COPYING.
"""Chains under test, and peers that speak TLS to them.

    client, server = tcp_pair()                  # a connection on 127.0.0.1
    c = Chain(['tls-handshake', 'tls-io', 'cat'], server, env=server_env())
    peer = Peer(client)                          # a TLS client, every byte under control
    peer.handshake()
    peer.send(b'hello')
    is_equal(peer.recv(5), b'hello')
    peer.close_notify()
    is_equal(peer.recv_all(), (b'', 'close_notify'))
    is_equal(c.wait(), 0)
"""

import fcntl
import functools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from tap import SLOW, Skip, is_equal, is_true, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.join(TOP, 'tests', 'bin')
PYTHON = [sys.executable, '-I', '-S', '-c']  # for an application in a line or two

_open_files = []
_chains = []
_pki = None
_last_stderr = ''


def cleanup(show=False):
    """After each test: kill what still runs, close what is open."""
    global _last_stderr
    _last_stderr = '\n'.join('stderr of %s:\n%s' % (c.argv[0], c.stderr()) for c in _chains)
    for c in _chains:
        c.kill()
    _chains.clear()
    for f in _open_files:
        f.close()
    _open_files.clear()


def stderr_of_failure():
    return _last_stderr


# The PKI of the tests. One CA, and what it issued; another CA that nobody trusts.

EXT = {
    'server': 'subjectAltName=DNS:localhost,DNS:example.org,DNS:*.example.net,IP:127.0.0.1',
    'a': 'subjectAltName=DNS:a.example.org',
    'b': 'subjectAltName=DNS:b.example.org',
    'wild': 'subjectAltName=DNS:*.wild.example.org',
    'client': 'extendedKeyUsage=clientAuth',
    'client2': 'extendedKeyUsage=clientAuth',
    'revoked': 'extendedKeyUsage=clientAuth',
    'serveronly': 'extendedKeyUsage=serverAuth',
}


def openssl(*args, **kw):
    return subprocess.run(['openssl', *args], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **kw).stdout


def pki():
    """The directory of the test PKI: NAME.key and NAME.pem for ca, otherca, and each in EXT, with
    an EC P-256 key; rsa.key and rsa.pem like server; crl.pem, which has revoked in it."""
    global _pki
    if _pki:
        return _pki
    _pki = d = tempfile.mkdtemp(prefix='tls-chain-pki.')
    os.chmod(d, 0o755)  # for an engine that is not root any more
    for ca in 'ca', 'otherca':
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                '-keyout', '%s/%s.key' % (d, ca), '-out', '%s/%s.pem' % (d, ca), '-days', '30',
                '-subj', '/CN=Test ' + ca, '-addext', 'basicConstraints=critical,CA:TRUE',
                '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
    for name in EXT:
        issue(d, name, EXT[name])
    issue(d, 'rsa', EXT['server'], key=['rsa:2048'])
    with open(d + '/index.txt', 'w'), open(d + '/ca.cnf', 'w') as f:
        f.write('[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index.txt\ndefault_md=sha256\n'
                'default_crl_days=30\ncertificate=%s/ca.pem\nprivate_key=%s/ca.key\n' % (d, d, d))
    openssl('ca', '-config', d + '/ca.cnf', '-revoke', d + '/revoked.pem')
    openssl('ca', '-config', d + '/ca.cnf', '-gencrl', '-out', d + '/crl.pem')
    return d


def issue(d, name, extensions, key=('ec', '-pkeyopt', 'ec_paramgen_curve:P-256'), ca='ca',
          subject=None, days='30'):
    """A key and a certificate for it: d/NAME.key, d/NAME.pem."""
    base = '%s/%s' % (d, name)
    with open(base + '.ext', 'w') as f:
        f.write(extensions + '\n')
    openssl('req', '-new', '-newkey', *key, '-nodes', '-keyout', base + '.key',
            '-out', base + '.csr', '-subj', subject or '/CN=' + name)
    openssl('x509', '-req', '-in', base + '.csr', '-CA', '%s/%s.pem' % (d, ca), '-CAkey',
            '%s/%s.key' % (d, ca), '-out', base + '.pem', '-days', days, '-extfile', base + '.ext')


def remove_pki():
    if _pki:
        shutil.rmtree(_pki)


def cert_hash(name):
    """What SSL_PEER_CERT_HASH should be for a certificate of the PKI."""
    der = openssl('x509', '-in', '%s/%s.pem' % (pki(), name), '-outform', 'DER')
    import hashlib
    return 'SHA256:' + hashlib.sha256(der).hexdigest()


def server_env(name='server', **more):
    """Variables for a server with that key pair; more of them, None to leave one out."""
    env = {'KEYFILE': '%s/%s.key' % (pki(), name), 'CERTFILE': '%s/%s.pem' % (pki(), name)}
    env.update(more)
    return {k: v for k, v in env.items() if v is not None}


def temp(content=b'', suffix=''):
    """A temporary file that goes with the test; its path."""
    f = tempfile.NamedTemporaryFile(prefix='tls-chain-test.', suffix=suffix)
    f.write(content if isinstance(content, bytes) else content.encode())
    f.flush()
    os.chmod(f.name, 0o644)
    _open_files.append(f)
    return f.name


def temp_dir():
    d = tempfile.TemporaryDirectory(prefix='tls-chain-test.')
    d.close = d.cleanup
    os.chmod(d.name, 0o755)
    _open_files.append(d)
    return d.name


# Connections

def tcp_pair():
    """Two ends of a TCP connection on the loopback interface: the client's, the server's."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.settimeout(30 * SLOW)
    _open_files.extend([client, server])
    return client, server


def resident(argv, env, err):
    """Under TEST_RESIDENT: takes the settings out of env and gives them to a resident engine, of
    which env then tells. Returns its process, or None where the chain is to have its own: if it
    has no settings, or bad ones, which a resident engine does not start with."""
    settings = {k: env[k] for k in env
                if k in ('KEYFILE', 'CERTFILE', 'OCSPFILE', 'CAFILE', 'CADIR', 'CRLFILE')
                or k.startswith(('KEYFILE:', 'CERTFILE:', 'OCSPFILE:', 'TLS_'))}
    script = ' '.join(' '.join(argv).split())
    client = 'tls-handshake -c' in script
    if 'tls-handshake' not in script or not (client or 'CERTFILE' in settings) \
            or 'TLS_ENGINE' in env:
        return None
    path = temp_dir() + '/engine'
    r, w = os.pipe()
    p = subprocess.Popen(
        ['s6-ipcserver-socketbinder', path, 'tls-engined', '-d', str(w)] + ['-c'] * client,
        env={**env, **settings}, pass_fds=[w], stderr=err)
    os.close(w)
    ready = os.read(r, 1)
    os.close(r)
    if not ready:
        p.wait()
        err.seek(0)
        err.truncate()
        return None
    for k in settings:
        del env[k]
    env['TLS_ENGINE'] = path
    return p


def not_resident(why):
    """Skips a test that cannot be had with a resident engine."""
    if os.environ.get('TEST_RESIDENT'):
        raise Skip('a resident engine ' + why)


class Chain:
    """A process that is a chain, with the network on 0 and 1 (client: on 6 and 7).

    argv is a list, or a string that is an execline script. The caller's copy of the network is
    closed, unless keep is true. stderr() is what it and all after it wrote there.
    """

    def __init__(self, argv, net=None, env=None, client=False, keep=False, pass_fds=(),
                 preexec=None, path=None):
        if isinstance(argv, str):
            argv = ['execlineb', '-Pc', argv]
        self.argv = argv
        self._err = tempfile.TemporaryFile()
        _open_files.append(self._err)
        environment = {'PATH': path or BIN + ':' + os.environ['PATH']}
        for k in os.environ:
            if k.startswith(('ASAN_', 'UBSAN_', 'TEST_', 'LSAN_')):
                environment[k] = os.environ[k]
        environment.update(env or {})
        self._engined = None
        if os.environ.get('TEST_RESIDENT'):
            self._engined = resident(argv, environment, self._err)

        def prepare():
            if client and net is not None:
                fd = fcntl.fcntl(net.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)
                os.dup2(fd, 6, inheritable=True)
                os.dup2(fd, 7, inheritable=True)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if preexec:
                preexec()
        stdio = None if net is None or client else net
        self._p = subprocess.Popen(
            argv, env=environment, stderr=self._err, preexec_fn=prepare,
            stdin=stdio or subprocess.DEVNULL, stdout=stdio or self._err,
            close_fds=not client, pass_fds=() if client else pass_fds)
        self.pid = self._p.pid
        _chains.append(self)
        if net is not None and not keep:
            net.close()

    def wait(self, seconds=30):
        """The exit code; negative for a signal."""
        return self._p.wait(seconds * SLOW)

    def poll(self):
        return self._p.poll()

    def dismiss_engine(self):
        """Orders a resident engine, if it has one, to end with the session."""
        if self._engined:
            self._engined.terminate()

    def kill(self):
        if self._engined:
            self._engined.kill()
            self._engined.wait()
            self._engined = None
        if self._p.returncode is None:
            self._p.kill()
            self._p.wait()

    def stderr(self):
        """What is on stderr so far (and on stdout, where that is not the network)."""
        size = os.fstat(self._err.fileno()).st_size
        return os.pread(self._err.fileno(), size, 0).decode(errors='replace')


def plain_context(client=True, **settings):
    """An ssl.SSLContext that accepts anything; settings: min, max (TLSVersion), ciphers, alpn,
    cert (a name of the PKI), verify (True: against the CA)."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_REQUIRED if settings.get('verify') else ssl.CERT_NONE
    if settings.get('verify'):
        c.load_verify_locations(pki() + '/ca.pem')
    if settings.get('min'):
        c.minimum_version = settings['min']
    if settings.get('max'):
        c.maximum_version = settings['max']
    if settings.get('ciphers'):
        c.set_ciphers(settings['ciphers'])
    if settings.get('alpn'):
        c.set_alpn_protocols(settings['alpn'])
    if settings.get('cert'):
        c.load_cert_chain('%s/%s.pem' % (pki(), settings['cert']),
                          '%s/%s.key' % (pki(), settings['cert']))
    return c


TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3


class Peer:
    """A TLS peer over a socket, TLS in memory: what is sent and when is up to the test."""

    def __init__(self, sock, name=None, client=True, context=None, **settings):
        self.sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        context = context or plain_context(client, **settings)
        self.tls = context.wrap_bio(self._in, self._out, server_side=not client,
                                    server_hostname=name)
        self._early = b''  # decrypted before our own end, which would have lost it
        self.end = None  # how the peer's direction ended: close_notify, eof, reset

    def flush(self):
        """Sends the records that TLS has ready."""
        data = self._out.read()
        if data:
            self.sock.sendall(data)

    def pending_records(self):
        """Takes the records that TLS has ready, without sending them."""
        return self._out.read()

    def _fill(self):
        try:
            data = self.sock.recv(262144)
        except ConnectionResetError:
            self.end = 'reset'
            return False
        if not data:
            self.end = 'eof'
            return False
        self._in.write(data)
        return True

    def handshake(self):
        """Raises ssl.SSLError for an alert, ConnectionError if the other side is gone."""
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                if not self._fill():
                    raise ConnectionError(self.end)
            except ssl.SSLError:
                self.flush()
                raise

    def send(self, data, record=None):
        """Sends it all; record: the size of the TLS records to cut it into."""
        size = record or 16384
        view = memoryview(data)
        for i in range(0, len(view), size):
            self.tls.write(view[i:i + size])
            if not record or self._out.pending > 60000:
                self.flush()
        self.flush()

    def recv(self, n):
        """Exactly n bytes, fewer at the end; self.end tells how it ended."""
        got = bytearray(self._early[:n])
        self._early = self._early[n:]
        while len(got) < n and not self.end:
            try:
                data = self.tls.read(min(n - len(got), 262144))
                if not data:
                    self.end = 'close_notify'
                got += data
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLZeroReturnError:
                self.end = 'close_notify'
        return bytes(got)

    def recv_all(self):
        """All up to the end, and how it ended."""
        return self.recv(1 << 62), self.end

    def close_notify(self):
        """Ends our direction: close_notify, but no end of the TCP stream yet."""
        try:
            while not self.end:  # what is in memory: unwrap reads, too, and drops it
                data = self.tls.read(262144)
                if not data:
                    self.end = 'close_notify'
                self._early += data
        except ssl.SSLZeroReturnError:
            self.end = 'close_notify'
        except ssl.SSLWantReadError:
            pass
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        self.flush()

    def shutdown(self):
        """Ends our direction of the TCP stream."""
        self.sock.shutdown(socket.SHUT_WR)

    def end_politely(self):
        """close_notify and a shutdown, then all that comes up to the end."""
        self.close_notify()
        self.shutdown()
        return self.recv_all()

    def reset(self):
        """Ends everything with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        self.sock.close()


# Processes

def engines():
    """The pids of the processes below this test that serve a session."""
    if os.environ.get('TEST_RESIDENT'):  # where a session has another name than the rest
        return [p for p in find_processes('tls-engined') if comm_of(p) == 'tls-engine']
    return find_processes('tls-engine')


def comm_of(pid):
    """The name of a process; empty if it is gone."""
    try:
        with open('/proc/%d/comm' % pid) as f:
            return f.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def find_processes(name):
    found = []
    me = os.getpid()
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/cmdline' % pid, 'rb') as f:
                argv = f.read().split(b'\0')
            if b'valgrind' in argv[0]:
                argv = argv[4:]  # -q, --error-exitcode, --log-file
            names = [os.path.basename(a) for a in argv[:2]]
            if name.encode() in names and is_below(int(pid), me):
                found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def is_below(pid, ancestor):
    while pid > 1:
        if pid == ancestor:
            return True
        with open('/proc/%d/stat' % pid) as f:
            pid = int(f.read().rpartition(')')[2].split()[1])
    return False


def wait_engine(n=1):
    """Waits until n engines run; their pids."""
    return wait_for(lambda: (lambda e: e if len(e) == n else None)(engines()), '%d engines' % n)


@functools.cache
def is_libressl():
    """Whether the engine stands on LibreSSL, not on OpenSSL by LibreTLS."""
    engine = os.path.realpath(BIN + '/tls-engine')
    out = subprocess.run(['ldd', engine], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    for path in [engine, *(word for word in out.decode().split() if word.startswith('/'))]:
        with open(path, 'rb') as f:
            if b'LibreSSL ' in f.read():
                return True
    return False


def fds_of(pid):
    """What a process holds: a dictionary from descriptor to what it is."""
    d = '/proc/%d/fd' % pid
    found = {}
    for fd in os.listdir(d):
        try:
            found[int(fd)] = os.readlink('%s/%s' % (d, fd))
        except FileNotFoundError:
            pass
    return found


def environ_of(pid):
    with open('/proc/%d/environ' % pid, 'rb') as f:
        pairs = f.read().split(b'\0')
    return dict(p.decode().split('=', 1) for p in pairs if b'=' in p)


def need(*programs):
    for p in programs:
        if not shutil.which(p, path=os.environ['PATH'] + ':/usr/sbin:/sbin'):
            raise Skip('%s is not installed' % p)
