# ISC licence: see COPYING.
"""The manual pages, as they are written."""

import os

from chain import TOP

PAGES = sorted(os.listdir(os.path.join(TOP, 'doc', 'man')))


def page(name):
    with open(os.path.join(TOP, 'doc', 'man', name), encoding='utf-8') as f:
        return f.read()
