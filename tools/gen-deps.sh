#!/bin/sh -e
# ISC licence: see COPYING.
#
# Writes package/deps.mak to standard output, from package/deps-build and the #include lines of
# the sources. Run in the top directory: tools/gen-deps.sh > package/deps.mak

# a/b/../c is a/c
flatten () {
  sed -e :a -e 's,[^/ ]*[^/. ]/\.\./,,' -e ta
}

echo '# Made by tools/gen-deps.sh: do not edit.'
echo

# The headers of ours that a file includes, and those that they include
headers () {
  sed -n "s,^#include \"\(.*\)\"\$,${1%/*}/\1,p" "$1" | flatten | while read -r header ; do
    echo "$header"
    headers "$header"
  done
}

for dir in src/session src/tlsctl src/chain src/tls tests/unit tests/fuzz ; do
  for source in "$dir"/*.c ; do
    echo "${source%.c}.o: $source $(headers "$source" | sort -u | tr '\n' ' ')" | sed 's/ $//'
  done
done
echo

grep -v '^#' package/deps-build | while IFS=': ' read -r program rest ; do
  dir=${program%/*}
  case $dir in src/*) target=${program##*/} ;; *) target=$program ;; esac
  objects=" $program.o"
  for object in ${rest%%|*} ; do
    objects="$objects $(echo "$dir/$object.o" | flatten)"
  done
  libs=
  for lib in ${rest##*|} ; do
    libs="$libs \$(LIB_$lib)"
  done
  echo "OBJECTS_$target :=$objects"
  echo "LIBS_$target =$libs"
done
