/* ISC licence: see COPYING. */
/*
  A small SMTP client with STARTTLS, by libtlsctl: no TLS library. On 6 and 7:

    tcpclient mx.example.org 25 tls-ctl-open {
      tls-await -c tls-handshake -c -k mx.example.org tls-io
    } smtpc -r me@example.org you@example.org < message

  smtpc [ -r ] [ -t seconds ] sender recipient... < message

  It starts TLS if both the server and the chain offer it. -r: without TLS, not even the addresses
  are sent. -t: how long to wait for each line of the server. $HELO is the name to greet with; by
  default the address in $TCPLOCALIP. The message's line ends, LF or CR LF, become CR LF; a CR
  elsewhere is refused, and then the server gets no last dot, and drops what it has.

  Exit code: 0 the server has accepted the mail for everyone; 65 there is such a CR in the message;
  69 no TLS is offered, with -r; 74 the message was not sent to its end; 75 the server refuses for
  now, 77 for good; 76 it talks nonsense, hangs up or does not answer; 97 TLS did not start; 100
  misused; 111 a system call failed. Until the server asks for it, the message has not been read.
*/

#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <tlsctl.h>
#include "lines.h"

#define USAGE "smtpc [ -r ] [ -t seconds ] sender recipient... < message"

enum { REPLY_LINES_MAX = 100 };

static void die(int code, char const *what, char const *why)
{
  fprintf(stderr, "smtpc: fatal: %s%s%s\n", what, why ? ": " : "", why ? why : "");
  exit(code);
}

/* What the server said last, made fit to be shown. */
static char const *said(struct lines *net)
{
  for (char *c = net->line; *c; c++)
    if (*c < ' ' || *c > '~') *c = '?';
  net->line[net->length < 200 ? net->length : 200] = 0;
  return net->line;
}

static void say(struct lines *net, char const *verb, char const *argument, char const *end)
{
  char text[512];
  int n = snprintf(text, sizeof text, "%s%s%s\r\n", verb, argument, end);
  if (n < 0 || (size_t)n >= sizeof text) die(100, "too long for an SMTP command", argument);
  if (!line_write(net, text, (size_t)n)) die(76, "the server does not read any more", 0);
}

/* Whether the line of a reply has this keyword: 250 STARTTLS, 250-starttls and parameters. */
static int line_has(struct lines const *net, char const *keyword)
{
  size_t n = strlen(keyword);
  return net->length >= 4 + n && !strncasecmp(net->line + 4, keyword, n)
    && (net->length == 4 + n || net->line[4 + n] == ' ');
}

/*
  Reads a reply, of one line or more, and returns its code. If there is a keyword, *found gets to
  know whether one of the lines is it.
*/
static int reply_read(struct lines *net, char const *keyword, int *found)
{
  char code[4] = "";
  for (int i = 0; i < REPLY_LINES_MAX; i++)
  {
    enum line_status status = line_read(net);
    if (status == LINE_NONE) die(76, "the server has closed the connection", 0);
    if (status == LINE_LATE) die(76, "the server does not answer", 0);
    char const *s = net->line;
    if (status != LINE_COMPLETE || strspn(s, "0123456789") != 3 || *s < '2' || *s > '5'
      || !strchr(" -", s[3]) || (i && strncmp(s, code, 3))) break;
    memcpy(code, s, 3);
    if (keyword && line_has(net, keyword)) *found = 1;
    if (s[3] != '-') return atoi(code);
  }
  die(76, "the server talks nonsense", said(net));
  return 0;
}

/* The code of the reply has to be one of these, unless it refuses. */
static void reply_accept(struct lines *net, int from, int to, char const *keyword, int *found)
{
  int code = reply_read(net, keyword, found);
  if (code >= from && code <= to) return;
  if (code / 100 == 4) die(75, "refused for now", said(net));
  if (code / 100 == 5) die(77, "refused", said(net));
  die(76, "the server talks nonsense", said(net));
}

static void word_check(char const *s, char const *what)
{
  for (; *s; s++)
    if (*s <= ' ' || *s > '~' || strchr("<>", *s)) die(100, "unfit for an SMTP command", what);
}

/* Greets the server; whether it offers STARTTLS. What it has offered before does not count. */
static int ehlo(struct lines *net)
{
  char const *name = getenv("HELO"), *ip = getenv("TCPLOCALIP");
  int offers_tls = 0;
  if (name && *name) say(net, "EHLO ", name, "");
  else if (!ip || !*ip) say(net, "EHLO ", "[127.0.0.1]", "");
  else say(net, strchr(ip, ':') ? "EHLO [IPv6:" : "EHLO [", ip, "]");
  reply_accept(net, 250, 250, "STARTTLS", &offers_tls);
  return offers_tls;
}

/* 0 if the server does not start TLS after all; else how is what the session is. */
static int starttls(struct lines *net, char how[64])
{
  char facts[TLSCTL_SIZE];
  say(net, "STARTTLS", "", "");
  if (reply_read(net, 0, 0) != 220) return 0;
  /* What is in the buffer behind 220 would be taken for the answer to the EHLO that comes next. */
  enum tlsctl_status status = tlsctl_start(6, 7, line_unread(net), facts, sizeof facts);
  if (status == TLSCTL_ERROR) die(111, "unable to start TLS", strerror(errno));
  if (status != TLSCTL_STARTED) die(97, tlsctl_text(status), *facts ? facts : 0);
  char const *protocol = tlsctl_fact(facts, "SSL_PROTOCOL");
  snprintf(how, 64, "through %s", protocol ? protocol : "TLS");
  ehlo(net);
  return 1;
}

struct output
{
  size_t length;
  char buffer[BUFSIZ];
};

static void output_flush(struct lines *net, struct output *o)
{
  if (!line_write(net, o->buffer, o->length)) die(74, "unable to send the message to its end", 0);
  o->length = 0;
}

static void output_put(struct lines *net, struct output *o, char const *s, size_t n)
{
  if (o->length + n > sizeof o->buffer) output_flush(net, o);
  memcpy(o->buffer + o->length, s, n);
  o->length += n;
}

/* Sends the message, with CR LF for LF, and its dots stuffed. */
static void message_send(struct lines *net)
{
  struct output out = { .length = 0 };
  int last = '\n';
  for (int c; (c = getchar()) != EOF; last = c)
  {
    if (last == '\r' && c != '\n')
      die(65, "unable to send the message", "a line has a CR before its end");
    if (c == '\n') output_put(net, &out, "\r\n", 2);
    else if (c == '.' && last == '\n') output_put(net, &out, "..", 2);
    else if (c != '\r') output_put(net, &out, &(char){ (char)c }, 1);
  }
  if (ferror(stdin)) die(74, "unable to read the message to its end", strerror(errno));
  if (last != '\n') output_put(net, &out, "\r\n", 2);
  output_put(net, &out, ".\r\n", 3);
  output_flush(net, &out);
}

static void mail_send(struct lines *net, char **address)
{
  say(net, "MAIL FROM:<", *address++, ">");
  reply_accept(net, 250, 250, 0, 0);
  while (*address)
  {
    say(net, "RCPT TO:<", *address++, ">");
    reply_accept(net, 250, 259, 0, 0);
  }
  say(net, "DATA", "", "");
  reply_accept(net, 354, 354, 0, 0);
  message_send(net);
  reply_accept(net, 250, 250, 0, 0);
}

static int seconds_parse(char const *s)
{
  char *end;
  long n = strtol(s, &end, 10);
  if (*s < '0' || *s > '9' || *end || !n || n > 86400) die(100, "usage", USAGE);
  return (int)n;
}

int main(int argc, char **argv)
{
  struct lines net = { .rfd = 6, .wfd = 7, .seconds = 300 };
  char how[64] = "in plaintext";
  int requires_tls = 0;
  opterr = 0;
  for (int opt; (opt = getopt(argc, argv, "rt:")) != -1; )
    switch (opt)
    {
      case 'r': requires_tls = 1; break;
      case 't': net.seconds = seconds_parse(optarg); break;
      default: die(100, "usage", USAGE);
    }
  argv += optind;
  if (argc - optind < 2) die(100, "usage", USAGE);
  for (int i = 0; argv[i]; i++) word_check(argv[i], "an address");
  if (getenv("HELO")) word_check(getenv("HELO"), "the name in HELO");
  if (fcntl(6, F_GETFD) < 0 || fcntl(7, F_GETFD) < 0)
    die(100, "no connection on descriptors 6 and 7", "run it under tcpclient");
  int is_offered = tlsctl_offered();
  if (requires_tls && !is_offered) die(69, "no channels for TLS", "run it under tls-ctl-open");
  signal(SIGPIPE, SIG_IGN);

  reply_accept(&net, 220, 220, 0, 0);
  int server_offers = ehlo(&net);
  if (requires_tls && !server_offers) die(69, "the server does not offer STARTTLS", 0);
  if (is_offered && server_offers && !starttls(&net, how) && requires_tls)
    die(69, "the server does not start TLS", said(&net));
  mail_send(&net, argv);
  if (!requires_tls) fprintf(stderr, "smtpc: info: sent %s\n", how);

  /* The mail is the server's now, whatever it says to this. */
  if (line_write(&net, "QUIT\r\n", 6)) line_read(&net);
  return 0;
}
