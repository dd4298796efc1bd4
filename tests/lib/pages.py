# ISC licence: see COPYING.
"""The pages, as they are written, and what they show: the manual pages, README.md, INSTALL,
examples/README.md."""

import os
import re

from chain import TOP

PAGES = sorted(os.listdir(os.path.join(TOP, 'doc', 'man')))
TEXTS = ['README.md', 'INSTALL', 'examples/README.md']


def page(name):
    path = name if name in TEXTS else 'doc/man/' + name
    with open(os.path.join(TOP, path), encoding='utf-8') as f:
        return f.read()


def shown_in(name):
    """What a page shows literally, text by text. Of INSTALL, where all is indented, the lines that
    begin with a program; of the others, what is indented, and then the last column of the tables
    that tell how to type it."""
    text = page(name)
    if name == 'INSTALL':
        program = r'(?:\./configure|apt-get|apk|xbps-install|dpkg-buildpackage) '
        shown = re.findall(r'^ {4}(%s(?:.*\\\n)*.*\n)' % program, text, re.M)
        return [s.replace('\n    ', '\n') for s in shown]
    if name in TEXTS:
        shown = re.findall(r'(?<=\n\n)((?: {4}.*\n+)+)', text)
        shown = [re.sub('^ {4}', '', s.rstrip('\n') + '\n', flags=re.M) for s in shown]
        for table in re.findall(r'^\|.*\| how to type it \|\n.*\n((?:\|.*\n)+)', text, re.M):
            typed = re.findall(r'`([^`]+)` \|$', table, re.M)
            shown += [s.replace(r'\|', '|') + '\n' for s in typed]
        return shown
    shown = re.findall(r'^\.Bd -literal.*?\n(.*?)^\.Ed|^\.Dl ([^\n]*\n)', text, re.M | re.S)
    return [(a or b).replace('\\e', '\\').replace('\\&', '') for a, b in shown]


def shown(name, begin):
    """The text in the page that begins so."""
    found = [text for text in shown_in(name) if text.startswith(begin)]
    if len(found) != 1:
        raise AssertionError('%s shows %d texts that begin with %r' % (name, len(found), begin))
    return found[0]
