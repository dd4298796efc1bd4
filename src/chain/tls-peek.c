/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/socket.h>
#include <errno.h>
#include <stdlib.h>

#include <skalibs/iopause.h>
#include <skalibs/sgetopt.h>
#include <skalibs/tai.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "chain.h"
#include "hello.h"

#define USAGE "tls-peek [ -a ] [ -t ms ] [ -6 rfd ] prog..."

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

enum { NAP_MS = 20 };

struct look
{
  int fd;
  unsigned int ms;  /* how long it may take; 0 is for ever */
  size_t len;       /* bytes that are there */
  int has_ended;    /* and there will be no more */
  int has_lowat;    /* the socket tells of a certain number of bytes only */
  tain deadline;    /* undefined before the first wait */
};

/* Has poll tell of n bytes at least. Sockets of Unix do not heed it: there we take naps. */
static void look_lowat(struct look *l, int n)
{
  l->has_lowat = n > 1;
  setsockopt(l->fd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof n);
}

static void look_nap(struct look *l)
{
  tain t;
  tain_from_millisecs(&t, NAP_MS);
  tain_add_g(&t, &t);
  deepsleepuntil_g(tain_less(&t, &l->deadline) ? &t : &l->deadline);
}

/* Until there are wanted bytes, or an end. Returns 0 if the time is over. */
static int look_wait(struct look *l, size_t wanted, int is_first)
{
  iopause_fd x = { .fd = l->fd, .events = IOPAUSE_READ | POLLRDHUP };
  if (is_first)
  {
    tain_now_set_stopwatch_g();
    l->deadline = tain_infinite;
    if (l->ms) tain_from_millisecs(&l->deadline, l->ms), tain_add_g(&l->deadline, &l->deadline);
  }
  look_lowat(l, wanted < HELLO_MAX ? wanted : HELLO_MAX);
  int r = iopause_g(&x, 1, &l->deadline);
  if (r < 0) return -1;
  if (r && x.revents & (IOPAUSE_EXCEPT | POLLRDHUP)) l->has_ended = 1;
  return r;
}

/* What the client has begun with. HELLO_PARTIAL is all of it: the time is over, or it has ended. */
static int look_hello(struct look *l, struct hello *h)
{
  static unsigned char s[HELLO_MAX];
  size_t wanted;
  for (int turn = 0;; turn++)
  {
    int had_ended = l->has_ended;
    ssize_t n = recv(l->fd, s, sizeof s, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    if (!n) had_ended = l->has_ended = 1;
    if (n < 0) n = 0;
    int has_more = (size_t)n > l->len;
    l->len = n;
    int state = hello_read(h, s, n, &wanted);
    if (state != HELLO_PARTIAL || had_ended) return state;
    if (turn && !has_more && !l->has_ended) look_nap(l);
    if (turn && !tain_future(&l->deadline)) return HELLO_PARTIAL;
    int r = l->has_ended ? 1 : look_wait(l, wanted, !turn);
    if (r <= 0) return r < 0 ? -1 : HELLO_PARTIAL;
  }
}

static size_t setting_put(char *s, char const *name, char const *value)
{
  return value && *value ? chain_set(s, name, value) : chain_unset(s, name);
}

int main(int argc, char const *const *argv)
{
  static struct hello hello;
  static char modif[HELLO_MAX + HOSTNAME_MAX + 256];
  char prog[PROGNAME_SIZE];
  struct chain_network net = CHAIN_SERVER;
  struct look look = { .ms = 30000 };
  unsigned int fd = 0;
  size_t n = 0;
  int any = 0, bad = 0;
  progname_set(prog, "tls-peek", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "at:6:", &l)) != -1; )
    switch (opt)
    {
      case 'a': any = 1; break;
      case 't': bad |= !chain_scan(l.arg, &look.ms); break;
      case '6': bad |= !chain_scan(l.arg, &fd); break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;
  net.rfd = look.fd = fd;
  chain_unlog(&net);
  if (bad) chain_dieusage(&net, USAGE);
  if (!argc) chain_die(&net, EXIT_USAGE, "no program: tls-handshake goes after tls-peek");
  if (getenv("TLS_SESSIONFD"))
    chain_die(&net, EXIT_USAGE, "TLS_SESSIONFD is set: tls-peek goes before tls-handshake");
  chain_network_check(&net, "TLS_NETID", &net);

  int state = look_hello(&look, &hello);
  if (state < 0 && errno == ENOTSOCK) chain_die(&net, EXIT_USAGE,
    "the network is not a socket: what it brings cannot be looked at");
  if (state < 0) chain_diesys(&net, EXIT_SYSTEM, "look at the network");
  if (look.has_lowat) look_lowat(&look, 1);
  if (state == HELLO_MALFORMED) chain_die(&net, EXIT_HANDSHAKE, "malformed ClientHello");
  if (any && state == HELLO_PARTIAL && !look.len) state = HELLO_NO_TLS;
  if (state == HELLO_PARTIAL) chain_die(&net, EXIT_HANDSHAKE, look.has_ended
    ? "the peer ended the connection before its ClientHello" : "timed out: no ClientHello");
  if (state == HELLO_NO_TLS && !any) chain_die(&net, EXIT_HANDSHAKE, "the peer does not speak TLS");

  n += setting_put(modif + n, "TLS_HELLO_PROTOCOL", state == HELLO_WHOLE ? hello.protocol : 0);
  n += setting_put(modif + n, "TLS_HELLO_SERVERNAME", hello.name);
  n += setting_put(modif + n, "TLS_HELLO_ALPN", hello.alpn);
  chain_exec(&net, argv, 0, modif, n);
}
