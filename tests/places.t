#!/bin/sh
# ISC licence: see COPYING.
# The places of the sessions of a resident engine, by their unit tests.
dir=${0%/*}
if grep -qx 'WITHOUT_CMOCKA := yes' "$dir/../config.mak" ; then
  echo '1..0 # SKIP ./configure found no cmocka for this compiler'
  exit
fi
exec "$dir/unit/places" 2>&1
