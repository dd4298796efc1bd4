#!/bin/sh -e
# ISC licence: see COPYING.
#
# Makes the HTML pages of the manual pages in doc/man, and one of examples/README.md:
# tools/doc.sh [DIR], by default doc/html. Needs mandoc and cmark-gfm. Same pages in, same bytes
# out: no date, no version, no name of this machine.

cd "$(dirname "$0")/.."
out=${1:-doc/html}
LC_ALL=C
export LC_ALL

# The groups of the sidebar, each with its pages. Every page is in one; tests/doc.t looks.
groups='start programs shell coming background'
group_set () { # sets heading, names
  case $1 in
    start) heading=Start names='tls-chain.7 tls-chain-services.7' ;;
    programs) heading=Programs names='tls-engine-open.1 tls-ctl-open.1 tls-await.1 tls-peek.1
      tls-handshake.1 tls-io.1 tls-ctl-start.1 tlsctl.3 tls-engine.8
      tls-engined.8' ;;
    shell) heading='At a shell' names='starttls-connect.1 tls-connect.1 starttls-cert.1
      starttls-chain.1 starttls-dial.1' ;;
    coming) heading='Coming from' names='tls-from-s6-networking.7 tls-from-ucspi-ssl.7
      tls-from-stunnel.7 tls-from-tlswrapper.7' ;;
    background) heading=Background names='tls-chain-environment.7 tls-chain-security.7
      tls-chain-design.7 tls-session.7' ;;
  esac
}

title () { # NAME.SECTION, as all that follow
  echo "${1%.*}(${1##*.})"
}

description () {
  sed -n 's/^\.Nd //p' "doc/man/$1" | sed 's/&/\&amp;/g; s/</\&lt;/g'
}

# What mandoc makes of the page, less its running head and the section NAME, which the frame has;
# the headings one level down, as the frame's is the first.
body () { # page, further options of mandoc
  mandoc -T html -O "fragment,man=%N.%S.html$2" -I os=tls-chain "doc/man/$1" |
    awk -v stages="$stages" -v holds="$holds" -v session="$session" '
      drop != "" { if ($0 ~ drop) drop = ""; next }
      /^<table class="head">/ { drop = "^</table>"; next }
      /^<section class="Sh">/ { held = $0; next }
      held != "" && /id="NAME"/ { held = ""; drop = "^</section>"; next }
      held != "" { print held; held = "" }
      # What is drawn with letters for a terminal is a picture here.
      /^<pre>/ {
        picture = ""
        if ($0 ~ /tls-engine-open ---/) picture = stages
        if ($0 ~ /network (&lt;==TLS|--&gt;)|door: channels/) picture = holds
        if ($0 ~ /^<pre> +chain +engine$/) picture = session
        if (picture != "") { print picture; drop = "</pre>"; next }
      }
      { print }' |
    sed -e 's,\(</*h\)2\([ >]\),\13\2,g' -e 's,\(</*h\)1\([ >]\),\12\2,g'
}

link () { # file, text, the file that needs no link
  current=
  if [ "$1" = "$3" ] ; then current=' aria-current="page"' ; fi
  echo "<li><a href=\"$1\"$current>$2</a></li>"
}

navigation () { # the file that needs no link
  echo '<nav aria-label="Pages">'
  for group in $groups ; do
    group_set "$group"
    echo "<h2>$heading</h2>"
    echo '<ul>'
    for page in $names ; do
      case $group in
        coming) text=${page#tls-from-} text=${text%.7} ;;
        *) text=$(title "$page") ;;
      esac
      link "$page.html" "$text" "$1"
    done
    case $group in
      start) link examples.html examples "$1" ;;
      background) link benchmark.html benchmark "$1" ;;
    esac
    echo '</ul>'
  done
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

# Headings get names; where a file of the examples is, there is no page.
examples () {
  cmark-gfm -e table examples/README.md | awk '
    /^<h1>/ { next }
    /^<h[23]>/ {
      name = $0
      gsub(/<[^>]*>/, "", name)
      id = toupper(name)
      gsub(/[^A-Z0-9]+/, "_", id)
      tag = substr($0, 2, 2)
      $0 = "<" tag " id=\"" id "\"><a class=\"permalink\" href=\"#" id "\">" name "</a></" tag ">"
    }
    /^<table>/ { $0 = "<div class=\"wide\">\n" $0 }
    /^<\/table>/ { $0 = $0 "\n</div>" }
    { print }' |
    sed -E 's,<a href="[^"#:]*">([^<]*)</a>,<code>\1</code>,g'
}

all_pages () {
  echo '<section>'
  echo '<h2 id="ALL_PAGES"><a class="permalink" href="#ALL_PAGES">ALL PAGES</a></h2>'
  echo '<dl class="pages">'
  for page in $all ; do
    echo "<dt><a href=\"$page.html\">$(title "$page")</a></dt>"
    echo "<dd>$(description "$page")</dd>"
  done
  echo '<dt><a href="examples.html">examples</a></dt>'
  echo '<dd>scripts to use, and to copy from</dd>'
  echo '<dt><a href="benchmark.html">benchmark</a></dt>'
  echo '<dd>what a TLS session costs, beside the peers; made by tools/bench-page</dd>'
  echo '</dl>'
  echo '</section>'
}

all=
for group in $groups ; do
  group_set "$group"
  all="$all $names"
done
stages='<img class="picture" src="chain.svg" alt="The stages, from top to bottom: tls-engine-open,
which starts tls-engined; tcpserver; tls-ctl-open, which starts the application; tls-await, which
the application asks for TLS; tls-handshake, which gives the network to the engine and gets the
facts; a policy of yours; tls-io, which gives the engine two pipes. The engine has plaintext with
the application, TLS with the client, and a signature of the signer.">'
holds='<img class="picture" src="holds.svg" alt="The engine has TLS with the network, the session
socket to the chain, pipes to the application, and a stand-in for the key. The signer, which has
read KEYFILE once, has the private key, and a channel to the engine for one signature.">'
session='<img class="picture" src="session.svg" alt="The chain sends START, with the network; the
engine, after the handshake, FACTS or FAILED; the chain, when stages have looked at the facts, JOIN,
with descriptors of the application; the engine JOINED, and ENDED when all bytes have moved.">'

mkdir -p "$out"
find "$out" -name '*.html' ! -name benchmark.html -exec rm -f {} +
cp doc/style.css doc/*.svg "$out/"
for page in $all ; do
  body "$page" ,toc |
    frame "$(title "$page") - tls-chain" "$(title "$page")" "$(description "$page")" "$page.html" \
      > "$out/$page.html"
done
examples | frame 'Examples - tls-chain' Examples 'scripts to use, and to copy from' examples.html \
  > "$out/examples.html"
{
  body tls-chain.7 '' | sed '/^<table class="foot">/,/^<\/table>/d'
  all_pages
} | frame "tls-chain: $(description tls-chain.7)" tls-chain \
      "$(description tls-chain.7)" '' > "$out/index.html"
