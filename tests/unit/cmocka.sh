# ISC licence: see COPYING.
# For the tests in sh that run unit tests: skips one, in $dir, if those could not be built.
if grep -qx 'WITHOUT_CMOCKA := yes' "$dir/../config.mak" ; then
  echo '1..0 # SKIP ./configure found no cmocka for this compiler'
  exit
fi
