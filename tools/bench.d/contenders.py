# ISC licence: see COPYING.
"""What is compared: tls-chain, and every peer that is installed."""

import os
import re
import shutil
import ssl
import subprocess
import sys

from machine import package, shared

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TLS12 = ssl.TLSVersion.TLSv1_2


class Contender:
    """immediate, delayed: functions from the application's argv and the directory of key.pem,
    cert.pem and both.pem to the argv of what puts TLS before it. server: tcpserver runs that for
    each connection; or it is its own server; or it is a proxy, and gets the port of a tcpserver
    that runs the application. program is what does TLS. engine: before tcpserver there is
    tls-engine-open ('opened'); beside it, a tls-engined ('resident')."""

    def __init__(self, name, kind, program, immediate, delayed=None, path='', server='tcpserver',
                 max_version=None, engine=None):
        self.name, self.kind, self.program = name, kind, program
        self.immediate, self.delayed = immediate, delayed
        self.path, self.server = path and path + ':', server
        self.max, self.engine = max_version, engine

    def linked(self):
        """The shared TLS libraries of its program, or static and what is in it."""
        held = re.findall(rb'((?:Open|Libre)SSL \d[\w.]+)', read(self.program))
        return (', '.join(sorted(name for name, _ in shared(self.program))) or
                ' '.join(['static', *sorted({s.decode() for s in held})]))

    def version(self):
        return package(self.program)

    def glibc(self):
        """Whether a chain of its stages is linked with glibc."""
        await_ = shutil.which('tls-await', path=self.path.rstrip(':') or '/')
        return b'GLIBC' in read(await_ or self.program)


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def labelled(text):
    """LABEL=DIR:LABEL=DIR..."""
    return [(label, os.path.abspath(dir))
            for label, dir in (x.split('=', 1) for x in text.split(':') if x)]


def with_musl(dir, options, label, engines):
    """Builds stages with musl in dir, where they find the engines of another directory."""
    tree = dir + '/tree'
    for name in 'src', 'package':
        shutil.copytree('%s/%s' % (TOP, name), '%s/%s' % (tree, name),
                        ignore=shutil.ignore_patterns('*.o'))
    for name in 'configure', 'Makefile':
        shutil.copy2('%s/%s' % (TOP, name), tree)
    for argv in (['./configure', 'CC=musl-gcc', '--without-engine', '--bindir=' + dir,
                  '--libexecdir=' + dir, *options], ['make', '-s']):
        p = subprocess.run(argv, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True)
        if p.returncode:
            sys.exit('bench: fatal: no stages with musl: ' + p.stdout.rstrip().rpartition('\n')[2])
    for name in os.listdir(tree):
        if name.startswith('tls-'):
            shutil.move('%s/%s' % (tree, name), dir)
    for name in 'tls-engine', 'tls-engined':
        shutil.copy2('%s/%s' % (engines, name), dir)
    return label + ', musl stages', dir


def of_tls_chain(label, path):
    immediate = lambda app, keys: ['tls-handshake', 'tls-io'] + app
    delayed = lambda app, keys: ['tls-ctl-open', ' tls-await', ' tls-handshake', ' tls-io', '',
                                 *app]
    handshake = shutil.which('tls-handshake', path=path)
    if not handshake:
        sys.exit('bench: fatal: no tls-handshake in ' + path)
    engine = re.search(rb'/[^\0]*/tls-engine(?=\0)', read(handshake))[0].decode()
    engined = shutil.which('tls-engined', path=path)
    if engined and shutil.which('tls-engine-open', path=path):
        yield Contender(label, 'tls-chain', engined, immediate, delayed, path, engine='opened')
    if os.access(engine, os.X_OK):
        yield Contender(label + ', own engine', 'tls-chain', engine, immediate, delayed, path)
    if engined and shutil.which('s6-ipcserver-socketbinder'):
        yield Contender(label + ', tls-engined', 'tls-chain', engined, immediate, delayed, path,
                        engine='resident')


def of_s6_networking():
    found = labelled(os.environ.get('S6NET', ''))
    if shutil.which('s6-tlsd'):
        found.insert(0, ('s6-networking', os.path.dirname(shutil.which('s6-tlsd'))))
    for label, path in found:
        yield Contender(label, 's6-networking', shutil.which('s6-tlsd-io', path=path),
                        lambda app, keys: ['s6-tlsd', '-S'] + app,
                        lambda app, keys: ['s6-ucspitlsd', '-S'] + app, path)


def tlswrapper(app, keys):
    return ['tlswrapper', '-f', keys + '/both.pem'] + app


def stunnel(app, keys):
    conf = keys + '/stunnel.conf'
    with open(conf, 'w') as f:
        f.write('cert=%s/cert.pem\nkey=%s/key.pem\nsyslog=no\nexec=%s\nexecArgs=%s\n'
                % (keys, keys, app[0], ' '.join(app)))
    return ['stunnel', conf]


def socat(app, keys):
    listen = ('OPENSSL-LISTEN:0,bind=127.0.0.1,fork,reuseaddr,backlog=200,verify=0,'
              'cert=%s/cert.pem,key=%s/key.pem,openssl-min-proto-version=TLS1.2' % (keys, keys))
    return ['socat', '-b65536', '-t0', listen, 'EXEC:%s' % ' '.join(app)]


def hitch(port, keys):
    user = ['--user=nobody'] if os.getuid() == 0 else []
    return ['hitch', *user, '--frontend=[127.0.0.1]:0', '--backend=[127.0.0.1]:%d' % port,
            keys + '/both.pem']


def sslserver(*options):
    return lambda app, keys: ['sslserver', '-HR', '-c', '2000', '-b', '200', '-l', 'localhost',
                              *options, '127.0.0.1', '0'] + app


def of_path():
    """Those that are found in PATH."""
    for kind, immediate, options in (
        ('sslserver', sslserver(), {'delayed': sslserver('-n'), 'server': 'own'}),
        ('tlswrapper', tlswrapper, {'max_version': TLS12}),
        ('stunnel', stunnel, {}),
        ('socat', socat, {'server': 'own'}),
        ('hitch', hitch, {'server': 'proxy'}),
    ):
        if shutil.which(kind):
            yield Contender(kind, kind, shutil.which(kind), immediate, **options)


def contenders(bindirs, tmp):
    """tmp: a directory for what is built."""
    bindirs = labelled(bindirs)
    if 'MUSL' in os.environ:
        bindirs.append(with_musl(tmp + '/musl', os.environ['MUSL'].split(), *bindirs[0]))
    ours = [c for label, dir in bindirs for c in of_tls_chain(label, dir)]
    return [*ours, *of_s6_networking(), *of_path()]
