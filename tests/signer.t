#!/bin/sh
# ISC licence: see COPYING.
# The signer, by its unit tests; it needs two keys.
dir=${0%/*}
. "$dir/unit/cmocka.sh"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tls-chain-test.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
openssl ecparam -name prime256v1 -genkey -noout -out "$tmp/ec" 2> /dev/null
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$tmp/rsa" 2> /dev/null
EC=$tmp/ec RSA=$tmp/rsa "$dir/unit/signer" 2>&1
