#!/usr/bin/env python3
# ISC licence: see COPYING.
# Too few descriptors: each program dies in one line, or works.

import os
import socket
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
from chain import (NOT_JOINED, Chain, at_most, delayed, not_resident, not_under_valgrind,
                   tells_emfile)
from peer import Peer
from pki import server_env
from sockets import tcp_pair
from tap import is_equal, is_true, run, test


def too_few(program, run_with):
    """With too few descriptors the program dies in one line; from some limit on it works."""
    not_under_valgrind('needs descriptors of its own')
    for n in range(5, 20):
        c = run_with(n)
        if c.wait() == 0:
            return n
        line = c.stderr().replace(NOT_JOINED, '')
        is_equal(c.wait(), 111, 'exit code with %d descriptors: %s' % (n, line))
        is_true(line.startswith(program + ': fatal: unable to ') and tells_emfile(line), line)
    raise AssertionError('does not work with %d descriptors' % n)


@test('EMFILE: tls-ctl-open')
def _():
    def run_with(n):
        client, server = tcp_pair()
        return Chain(at_most(n) + delayed(['true'], ['true']), server)
    is_true(too_few('tls-ctl-open', run_with) > 5, 'needs more than 5')


@test('EMFILE: tls-await needs none but what it has')
def _():
    def run_with(n):
        client, server = tcp_pair()
        client.send(b'y')
        return Chain(at_most(n) + ['tls-await', 'true'], server, env={'TLS_CTLFD': '0'})
    is_equal(too_few('tls-await', run_with), 5)


@test('EMFILE: tls-handshake')
def _():
    not_resident('leaves a chain with need of fewer descriptors')
    def run_with(n):
        client, server = tcp_pair()
        c = Chain(at_most(n) + ['tls-handshake', 'true'], server, env=server_env())
        try:
            Peer(client).handshake()
        except ConnectionError:
            pass
        client.close()
        return c
    is_true(too_few('tls-handshake', run_with) > 5, 'needs more than 5')


@test('EMFILE: tls-io')
def _():
    def run_with(n):
        client, server = tcp_pair()
        c = Chain(['tls-handshake', *at_most(n), 'tls-io', 'true'], server, env=server_env())
        Peer(client).handshake().recv_all()
        client.close()
        return c
    is_true(too_few('tls-io', run_with) > 5, 'needs more than 5')


@test('EMFILE: tls-engine, which then tells the chain or stderr why')
def _():
    not_under_valgrind('needs descriptors of its own')
    start = b'S\2\0\0\0\0\1\0'  # version 2, a server, verbosity 1, no name, no peer
    worked = False
    for n in range(4, 10):
        client, server = tcp_pair()
        chain, engine = socket.socketpair()
        c = Chain(at_most(n) + ['tls-engine'], engine, env=server_env())
        socket.send_fds(chain, [struct.pack('>IH', len(start), 2) + start],
                        [server.fileno(), server.fileno()])
        server.close()
        client.shutdown(socket.SHUT_WR)
        told = chain.recv(4096)
        chain.close()
        client.close()
        worked = c.wait() == 97  # as far as the handshake
        if worked:
            break
        is_equal(c.wait(), 111, 'exit code with %d descriptors: %s' % (n, c.stderr()))
        is_equal(bool(told) + c.stderr().count('\n'), 1, 'lines, told %r, %r' % (told, c.stderr()))
    is_true(worked and n > 4, 'works with more than 4')


run()
