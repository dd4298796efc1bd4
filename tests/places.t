#!/bin/sh
# ISC licence: see COPYING.
# The places of the sessions of a resident engine, by their unit tests.
dir=${0%/*}
. "$dir/unit/cmocka.sh"
exec "$dir/unit/places" 2>&1
