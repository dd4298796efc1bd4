# ISC licence: see COPYING.
"""What /proc tells of processes."""

import itertools
import os


def stat_of(pid):
    """The fields of /proc/PID/stat from the third on, which is the state."""
    with open('/proc/%d/stat' % pid) as f:
        return f.read().rpartition(')')[2].split()


def state_of(pid):
    return stat_of(pid)[0]


def is_alive(pid):
    """Neither gone nor a zombie."""
    try:
        return state_of(pid) not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid):
    return int(stat_of(pid)[1])


def is_below(pid, ancestor):
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parent_of(pid)
    return False


def all_pids():
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def children_of(parent):
    """The pids of all children of a process, dead ones that nobody waited for included."""
    found = []
    for pid in all_pids():
        try:
            if parent_of(pid) == parent:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def children():
    """Those of this process."""
    return children_of(os.getpid())


SIGNER = 'tls-signer'


def comm_of(pid):
    """The name of a process; empty if it is gone."""
    try:
        with open('/proc/%d/comm' % pid) as f:
            return f.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def find_processes(name):
    """The pids of the processes below this one that run the program of that name."""
    found = []
    me = os.getpid()
    for pid in all_pids():
        try:
            with open('/proc/%d/cmdline' % pid, 'rb') as f:
                argv = f.read().split(b'\0')
            if b'valgrind' in argv[0]:
                argv = list(itertools.dropwhile(lambda a: a.startswith(b'-'), argv[1:]))
            names = [os.path.basename(a) for a in argv[:2]]
            if argv[0] and comm_of(pid) == SIGNER:  # it has the arguments of its parent
                names = [SIGNER.encode()]
            if name.encode() in names and is_below(pid, me):
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


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


def mode_of(pid, fd):
    """Whether it reads or writes there: O_RDONLY, O_WRONLY or O_RDWR."""
    with open('/proc/%d/fdinfo/%d' % (pid, fd)) as f:
        flags = next(line.split()[1] for line in f if line.startswith('flags:'))
    return int(flags, 8) & os.O_ACCMODE


def environ_of(pid):
    with open('/proc/%d/environ' % pid, 'rb') as f:
        pairs = f.read().split(b'\0')
    return dict(p.decode().split('=', 1) for p in pairs if b'=' in p)


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    with open('/proc/%d/status' % pid) as f:
        lines = (line.partition(':') for line in f)
        return {name: value.strip() for name, _, value in lines}


def limit_of(pid, name):
    """The soft and the hard limit of that name in /proc/PID/limits."""
    with open('/proc/%d/limits' % pid) as f:
        line = next(line for line in f if line.startswith(name))
    return line[len(name):].split()[:2]


def cpu_ticks(pid):
    """The CPU time of a process, in hundredths of a second."""
    return sum(map(int, stat_of(pid)[11:13]))


def memory_of(pid):
    """All that a process can write to, for root."""
    found = []
    with open('/proc/%d/maps' % pid) as maps, open('/proc/%d/mem' % pid, 'rb', 0) as mem:
        for line in maps:
            where, mode = line.split()[:2]
            if mode.startswith('rw'):
                start, end = (int(s, 16) for s in where.split('-'))
                mem.seek(start)
                found.append(mem.read(end - start))
    return b''.join(found)


def private_memory(pid):
    """What a process has of memory that is its own, in bytes."""
    return int(status_of(pid)['RssAnon'].split()[0]) * 1024
