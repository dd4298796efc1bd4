#!/bin/sh
# ISC licence: see COPYING.
# The corpus of a fuzz target, replayed: the session protocol, tests/fuzz/session.c.
cd "${0%/*}/fuzz" && exec ./session corpus/session/*
