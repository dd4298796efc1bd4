# ISC licence: see COPYING.
"""On what a benchmark ran. No names of hosts, no paths."""

import os
import platform
import re
import shutil
import ssl
import subprocess


def field(path, pattern):
    try:
        with open(path) as f:
            return re.search(pattern, f.read(), re.M)[1]
    except (OSError, TypeError):
        return 'unknown'


def output(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def package(path):
    """The Debian package of a file, with its version; empty if there is none."""
    if not shutil.which('dpkg-query'):
        return ''
    name = output('dpkg-query', '-S', os.path.realpath(path)).partition(': ')[0]
    return name and output('dpkg-query', '-W', '-f', '${Package} ${Version}', name)


def shared(program):
    """The shared TLS libraries of a program, also of those it needs: their names and files."""
    return re.findall(r'(lib(?:tls|ssl|crypto|bearssl|mbedtls)\.so\S*) => (/\S+)',
                      output('ldd', program))


def libraries(programs):
    """The versions of the shared TLS libraries of these programs."""
    files = {os.path.realpath(path) for program in programs for _, path in shared(program)}
    return ', '.join(sorted({package(f) or os.path.basename(f) for f in files})) or 'none'


def machine(programs):
    libc = os.confstr('CS_GNU_LIBC_VERSION') if 'CS_GNU_LIBC_VERSION' in os.confstr_names else '?'
    return {
        'CPU': '%s, %d online' % (field('/proc/cpuinfo', r'^model name\s*: (.*)'), os.cpu_count()),
        'memory': '%.0f GB' % (int(field('/proc/meminfo', r'^MemTotal:\s*(\d+)')) / 1e6),
        'kernel': '%s %s %s' % (os.uname().sysname, os.uname().release, os.uname().machine),
        'system': field('/etc/os-release', r'^PRETTY_NAME="?([^"\n]*)'),
        'libc': libc,
        'shared TLS libraries': libraries(programs),
        'the client': 'Python %s, %s' % (platform.python_version(), ssl.OPENSSL_VERSION),
        'load at the start': '%.2f' % os.getloadavg()[0],
    }
