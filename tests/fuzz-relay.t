#!/bin/sh
# ISC licence: see COPYING.
# The corpus of a fuzz target, replayed: whole sessions of an engine, tests/fuzz/relay.c.
cd "${0%/*}/fuzz" || exit
[ -x relay ] || { echo '1..0 # SKIP ./configure --without-engine' ; exit ; }
exec ./relay corpus/relay/*
