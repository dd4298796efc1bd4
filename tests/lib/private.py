# ISC licence: see COPYING.
"""A machine of the test's own, in which a page can be taken at its word.

    with private_machine('mx.example.org'):
        Played(play, port=25)
        typed(shown('starttls-cert.1', 'starttls-cert smtp mx.example.org'))
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess

from chain import BIN
from examples import EXAMPLES, SBIN, Played, example, port_is_open
from scratch import close_those, temp_dir
from tap import Skip, is_equal, wait_for
from tree import private_system

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1
ELSEWHERE = '192.0.2.1'


def alone():
    """Ends the threads: with another, this process could not go back to where it was."""
    close_those(Played)
    wait_for(lambda: len(os.listdir('/proc/self/task')) == 1, 'the end of all threads')


@contextlib.contextmanager
def private_machine(*names):
    """For as long as this lasts, this process and its children have a loopback network of their
    own, with every port free, on which these names and ELSEWHERE are; /etc, /usr, /var of their
    own, see private_system; and an empty /run."""
    libc = ctypes.CDLL(None, use_errno=True)
    with private_system(), contextlib.ExitStack() as after:
        if subprocess.run(['mount', '-t', 'tmpfs', 'tls-chain-test', '/run']).returncode:
            raise Skip('no /run of its own')
        outside = os.open('/proc/self/ns/net', os.O_RDONLY)
        after.callback(os.close, outside)
        if libc.unshare(CLONE_NEWNET):
            raise Skip('no network namespace: ' + os.strerror(ctypes.get_errno()))
        after.callback(lambda: is_equal(libc.setns(outside, CLONE_NEWNET), 0, 'setns'))
        after.callback(alone)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', IFF_UP))
            fcntl.ioctl(s, SIOCSIFADDR, struct.pack('16sHH4s8x', b'lo:1', socket.AF_INET, 0,
                                                    socket.inet_aton(ELSEWHERE)))
        with open('/etc/hosts', 'w') as f:
            f.write('127.0.0.1 localhost %s\n' % ' '.join(names))
        yield


def wait_listening(port, host='0.0.0.0'):
    wait_for(lambda: port_is_open(port, host), 'a server on port %d' % port)


class Reader:
    """Who reads the examples, in a directory with a copy of them, and types what is there."""

    def __init__(self):
        self.dir = temp_dir() + '/examples'
        shutil.copytree(EXAMPLES, self.dir, symlinks=True)
        self.env = {'PATH': ':'.join([BIN, self.dir, os.environ['PATH']]) + SBIN}

    def types(self, text, input=b'', **env):
        """What a shell makes of it."""
        return example('sh', '-c', text, input=input, cwd=self.dir, env={**self.env, **env})

    def has(self, name, text, mode=0o644):
        """Has written a file."""
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, mode)
        return path
