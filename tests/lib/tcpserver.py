# ISC licence: see COPYING.
"""A real tcpserver, started by an execline run script, and what is left of its sessions."""

import os
import socket

from chain import BIN, Chain, need
from proc import SIGNER, children, children_of, comm_of, fds_of
from scratch import close_later, temp_dir
from tap import SLOW, is_equal, wait_for


class Server:
    """A service directory, running: ./run is the script; ./tls, for s6-envdir, the settings.

    Its tcpserver must be called with -v1 and port 0. files are more files for the directory.
    """

    def __init__(self, run, settings, **files):
        need('tcpserver', 's6-envdir')
        self.dir = d = temp_dir()
        os.mkdir(d + '/tls')
        files.update({'tls/' + name: value + '\n' for name, value in settings.items()}, run=run)
        for name, content in files.items():
            with open('%s/%s' % (d, name), 'w') as f:
                f.write(content)
        os.chmod(d + '/run', 0o755)
        self.chain = Chain(['./run'], path=BIN + ':' + os.environ['PATH'] + ':/usr/sbin',
                           preexec=lambda: os.chdir(d))
        self.codes = []  # of the orphans that have ended, but for signers
        self.port = int(wait_for(lambda: [s for s in self.log() if s.isdigit()], 'a port')[0])
        wait_for(lambda: 1 not in fds_of(self.chain.pid), 'tcpserver to close its output')

    def log(self):
        """The lines that the server and its sessions have written so far."""
        return self.chain.stderr().split('\n')[:-1]

    def wait_log(self, text, times=1):
        """Waits for that many lines which contain the text."""
        wait_for(lambda: len([s for s in self.log() if text in s]) >= times, 'log: ' + text)

    def connect(self):
        s = socket.create_connection(('127.0.0.1', self.port), timeout=30 * SLOW)
        close_later(s)
        return s

    def fds(self):
        return len(os.listdir('/proc/%d/fd' % self.chain.pid))

    def orphans(self):
        """The processes of sessions that are no children of tcpserver: engines, TLS sides."""
        self.collect()
        return [pid for pid in children() if pid != self.chain.pid]

    def collect(self):
        """Takes the exit codes of orphans that have ended; they are children of this process."""
        while True:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if not dead or dead.si_pid == self.chain.pid:
                return
            is_signer = comm_of(dead.si_pid) == SIGNER
            code = os.waitstatus_to_exitcode(os.waitpid(dead.si_pid, 0)[1])
            if not is_signer:  # it may end before its engine or after it
                self.codes.append(code)

    def wait_idle(self):
        """Waits until nothing is left of any session, not even a zombie, but the server runs."""
        wait_for(lambda: not self.orphans() and not children_of(self.chain.pid),
                 'the end of all processes of sessions')
        is_equal(self.chain.poll(), None, 'exit code of tcpserver')
