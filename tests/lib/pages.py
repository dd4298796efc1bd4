# ISC licence: see COPYING.
"""The manual pages, as they are written."""

import os
import re

from chain import TOP

PAGES = sorted(os.listdir(os.path.join(TOP, 'doc', 'man')))


def page(name):
    with open(os.path.join(TOP, 'doc', 'man', name), encoding='utf-8') as f:
        return f.read()


def shown_in(name):
    """What a page shows literally, text by text."""
    shown = re.findall(r'^\.Bd -literal.*?\n(.*?)^\.Ed', page(name), re.M | re.S)
    return [s.replace('\\e', '\\').replace('\\&', '') for s in shown]
