#!/bin/sh
# ISC licence: see COPYING.
# The session protocol, by its unit tests.
exec "${0%/*}/unit/session" 2>&1
