#!/bin/sh
# ISC licence: see COPYING.
# The session protocol, by its unit tests.
dir=${0%/*}
. "$dir/unit/cmocka.sh"
exec "$dir/unit/session" 2>&1
