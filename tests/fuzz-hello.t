#!/bin/sh
# ISC licence: see COPYING.
# The corpus of a fuzz target, replayed: what tls-peek reads of a client, tests/fuzz/hello.c.
cd "${0%/*}/fuzz" && exec ./hello corpus/hello/*
