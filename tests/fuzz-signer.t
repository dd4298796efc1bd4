#!/bin/sh
# ISC licence: see COPYING.
# The corpus of a fuzz target, replayed: what the signer is asked, tests/fuzz/signer.c.
cd "${0%/*}/fuzz" && exec ./signer corpus/signer/*
