# ISC licence: see COPYING.
"""What goes with the test: temporary files, and whatever else is to be closed after it."""

import os
import tempfile

from tap import after_each

_open_files = []


def close_later(*things, first=False):
    """Closes these after the test, in that order; first: before all that is there already."""
    at = 0 if first else len(_open_files)
    _open_files[at:at] = things


def close_those(kind):
    """Closes what is of that kind, now."""
    for f in [f for f in _open_files if isinstance(f, kind)]:
        f.close()


@after_each
def close_all():
    for f in _open_files:
        f.close()
    _open_files.clear()


def temp(content=b'', suffix=''):
    """A temporary file that goes with the test; its path."""
    f = tempfile.NamedTemporaryFile(prefix='tls-chain-test.', suffix=suffix)
    f.write(content if isinstance(content, bytes) else content.encode())
    f.flush()
    os.chmod(f.name, 0o644)
    close_later(f)
    return f.name


def temp_dir():
    d = tempfile.TemporaryDirectory(prefix='tls-chain-test.')
    d.close = d.cleanup
    os.chmod(d.name, 0o755)
    close_later(d)
    return d.name
