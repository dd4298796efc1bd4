#!/bin/sh -e
# ISC licence: see COPYING.
#
# Makes the HTML pages of the manual pages in doc/man: tools/doc.sh [DIR], by default doc/html.
# Needs mandoc. Same pages in, same bytes out: no date, no version, no name of this machine.

cd "$(dirname "$0")/.."
out=${1:-doc/html}
LC_ALL=C
export LC_ALL

# The overview, the programs, the rest.
pages=doc/man/tls-chain.7
for page in doc/man/*.1 doc/man/*.8 doc/man/*.7 ; do
  if [ "$page" != doc/man/tls-chain.7 ] ; then pages="$pages $page" ; fi
done

file () { # doc/man/NAME.SECTION
  echo "${1##*/}.html"
}

title () {
  base=${1##*/}
  echo "${base%.*}(${base##*.})"
}

description () {
  sed -n 's/^\.Nd //p' "$1" | sed 's/&/\&amp;/g; s/</\&lt;/g'
}

# What mandoc makes of the page, less its running head and the section NAME, which the frame has;
# the headings one level down, as the frame's is the first.
body () { # page, further options of mandoc
  mandoc -T html -O "fragment,man=%N.%S.html$2" -I os=tls-chain "$1" |
    awk '
      drop != "" { if ($0 ~ drop) drop = ""; next }
      /^<table class="head">/ { drop = "^</table>"; next }
      /^<section class="Sh">/ { held = $0; next }
      held != "" && /id="NAME"/ { held = ""; drop = "^</section>"; next }
      held != "" { print held; held = "" }
      { print }' |
    sed -e 's,\(</*h\)2\([ >]\),\13\2,g' -e 's,\(</*h\)1\([ >]\),\12\2,g'
}

navigation () { # the page that needs no link
  echo '<nav aria-label="Pages">'
  echo '<ul>'
  for page in $pages ; do
    if [ "$page" = "$1" ] ; then
      echo "<li><a href=\"$(file "$page")\" aria-current=\"page\">$(title "$page")</a></li>"
    else
      echo "<li><a href=\"$(file "$page")\">$(title "$page")</a></li>"
    fi
  done
  echo '</ul>'
  echo '</nav>'
}

frame () { # title, heading, what it is about, page; the body on standard input
  cat <<EOF
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$1</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<header><a href="index.html">tls-chain</a></header>
$(navigation "$4")
<main>
<h1>$2</h1>
<p class="about">$3</p>
EOF
  cat
  cat <<EOF
</main>
</body>
</html>
EOF
}

all_pages () {
  echo '<section>'
  echo '<h2 id="ALL_PAGES"><a class="permalink" href="#ALL_PAGES">ALL PAGES</a></h2>'
  echo '<dl class="pages">'
  for page in $pages ; do
    echo "<dt><a href=\"$(file "$page")\">$(title "$page")</a></dt>"
    echo "<dd>$(description "$page")</dd>"
  done
  echo '<dt><a href="benchmark.html">benchmark</a></dt>'
  echo '<dd>what a TLS session costs, beside the peers; made by tools/bench-page</dd>'
  echo '</dl>'
  echo '</section>'
}

mkdir -p "$out"
find "$out" -name '*.html' ! -name benchmark.html -exec rm -f {} +
cp doc/style.css "$out/style.css"
for page in $pages ; do
  body "$page" ,toc |
    frame "$(title "$page") - tls-chain" "$(title "$page")" "$(description "$page")" "$page" \
      > "$out/$(file "$page")"
done
{
  body doc/man/tls-chain.7 '' | sed '/^<table class="foot">/,/^<\/table>/d'
  all_pages
} | frame "tls-chain: $(description doc/man/tls-chain.7)" tls-chain \
      "$(description doc/man/tls-chain.7)" '' > "$out/index.html"
