#!/usr/bin/env python3
# ISC licence: see COPYING.
# Whatever the pages show literally is run by a test, or is named here with the reason why not.

import ast
import glob
import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import TOP
from pages import PAGES, TEXTS, shown_in
from tap import is_equal, is_true, run, test

# What a test finds by itself: the page, how the text begins, the test. All others are asked for by
# shown(page, beginning).
FOUND = [
    (r'tls-from-.*', r'', 'coming-from.t'),
    (r'.*\.[178]|README\.md', r'#!/usr/bin/execlineb|tls-ctl-open\n', 'doc-scripts.t'),
    (r'tls-chain\.7', r'apt-get update|export CAFILE', 'doc-scripts.t'),
    (r'tls-engined\.8', r's6-sv', 'doc-scripts.t'),
    (r'tls-handshake\.1', r'openssl x509 -in client\.pem', 'doc-scripts.t'),
    (r'tls-chain-services\.7', r'#!/bin/sh|# /etc/systemd/system/', 'supervisors.t'),
    (r'tls-chain-environment\.7', r'ECDHE-', 'doc.t'),
    (r'tlsctl\.3', r'char facts', 'tlsctl.t'),
    (r'tls-session\.7', r'(chain|engine)   ?00 ', 'doc.t'),
    (r'README\.md|INSTALL', r'\./configure && make', 'install.t'),
    (r'INSTALL', r'apt-get install ', 'package.t'),
]

# What is not run.
PICTURE = 'a picture'
NO_SUCH_LIBRARY = 'needs libraries that Debian does not have: tools/check --configure'
NOT_RUN = [
    (r'tls-chain\.7', r'tls-engine-open ---', PICTURE),
    (r'tls-chain-design\.7', r' +(network|chain|door)', PICTURE),
    (r'tls-chain-security\.7', r' +(network|1 )', PICTURE),
    (r'tls-session\.7', r' +chain ', PICTURE),
    (r'tls-chain-environment\.7', r'tls-handshake: pid 1234: ', 'a message'),
    (r'tls-chain-design\.7', r'tools/check', 'that is all tests'),
    (r'examples/README\.md', r'delivery 7: ', 'a message'),
    (r'README\.md', r'tools/(demo|check)\n', '.ci/run does, in a bare Debian, too'),
    (r'INSTALL', r'apt-get update', 'changes the system'),
    (r'INSTALL', r'(apk|xbps-install) ', 'not Debian'),
    (r'INSTALL', r'\./configure (--with-|CC=musl)', NO_SUCH_LIBRARY),
]


def in_file(path):
    """The (page, beginning) of each call of shown() in a test."""
    with open(path) as f:
        text = f.read()
    tree = ast.parse(text if 'python3' in text.splitlines()[0] else '')
    constants = {node.targets[0].id: node.value.value for node in tree.body
                 if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                 and isinstance(node.value, ast.Constant)}

    def value(arg):
        if isinstance(arg, ast.Name):
            return constants.get(arg.id)
        return arg.value if isinstance(arg, ast.Constant) else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'shown':
            args = [value(arg) for arg in node.args]
            if None not in args:
                yield tuple(args)


def asked_for():
    return {call for path in glob.glob(TOP + '/tests/*.t') for call in in_file(path)}


def listed(table, name, text):
    """The rows of the table that the text belongs to."""
    return [row for row in table if re.fullmatch(row[0], name) and re.match(row[1], text)]


@test('every text that a page shows is run by a test, or it is known why not')
def _():
    asked, count, missing = asked_for(), 0, []
    for name in [*PAGES, *TEXTS]:
        for text in shown_in(name):
            count += 1
            if not any(name == page and text.startswith(begin) for page, begin in asked) \
                    and not listed(FOUND + NOT_RUN, name, text):
                missing.append('%s: %s' % (name, text.splitlines()[0]))
    is_true(count > 130, 'texts: %d' % count)
    is_equal(missing, [], 'texts that no test runs')


@test('nothing is in the tables that is in no page, or that a test asks for')
def _():
    asked = asked_for()
    for row in FOUND + NOT_RUN:
        texts = [(name, text) for name in [*PAGES, *TEXTS] for text in shown_in(name)
                 if listed([row], name, text)]
        is_true(texts, row)
        is_equal([text for name, text in texts for page, begin in asked
                  if name == page and text.startswith(begin) and row in NOT_RUN], [], row)
    for _, _, name in FOUND:
        is_true(os.path.exists(TOP + '/tests/' + name), name)


run()
