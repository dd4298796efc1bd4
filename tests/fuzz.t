#!/bin/sh
# ISC licence: see COPYING.
# The corpus of the fuzz target, replayed: see tests/fuzz/session.c.
cd "${0%/*}/fuzz" && exec ./replay corpus/*
