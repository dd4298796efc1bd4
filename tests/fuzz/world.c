/* ISC licence: see COPYING. */

/* The network, the application and the peer around the engine: nothing waits longer than needed. */

#include <skalibs/nonposix.h>

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "world.h"

enum { TRIES_MAX = 2000, SMALL = 4096 };

static int null, listener;

void check(int ok, char const *what)
{
  if (ok) return;
  fprintf(stderr, "relay: %s\n", what);
  abort();
}

void network_prepare(void)
{
  struct sockaddr_in here = { .sin_family = AF_INET };
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  null = open("/dev/null", O_WRONLY);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  check(null >= 0 && bind(listener, (struct sockaddr *)&here, sizeof here) == 0
    && listen(listener, 1) == 0, "unable to listen");
}

void pause_for(unsigned int us)
{
  nanosleep(&(struct timespec){ .tv_nsec = us * 1000L }, 0);
}

void end_close(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static unsigned char pattern(size_t i)
{
  return i * 7 + (i >> 8) * 13;
}

static void pattern_fill(unsigned char *s, size_t n, size_t from)
{
  for (size_t i = 0; i < n; i++) s[i] = pattern(from + i);
}

static void stream_take(struct stream *st, unsigned char const *s, ssize_t n)
{
  for (ssize_t i = 0; i < n; i++) check(s[i] == pattern(st->got + i), "another byte than was sent");
  if (n > 0) st->got += n;
  check(st->got <= st->sent, "more than was sent");
}

static void app_write(struct world *w, size_t n)
{
  unsigned char s[65536];
  if (w->app_w < 0) return;
  pattern_fill(s, n, w->down.sent);
  ssize_t r = write(w->app_w, s, n);
  if (r > 0) w->down.sent += r;
}

ssize_t app_read(struct world *w)
{
  unsigned char s[65536];
  if (w->app_r < 0) return 0;
  ssize_t r = read(w->app_r, s, sizeof s);
  stream_take(&w->up, s, r);
  return r;
}

static void app_go_deaf(struct world *w)
{
  end_close(&w->app_r);
  w->is_deaf = 1;
  w->must_fail = w->is_cut = 0;
}

/* The number stays taken, as libssl may still write there. */
void net_end(struct world *w)
{
  if (w->net_w < 0) return;
  if (shutdown(w->net_w, SHUT_WR) < 0 && errno == ENOTSOCK) dup2(null, w->net_w);
}

void net_close(struct world *w)
{
  if (w->net_w == w->net_r) w->net_w = -1;
  end_close(&w->net_w);
  end_close(&w->net_r);
}

/* libssl may wait for more of a stream that has ended; it looks at an old errno. */
int net_is_at_end(struct world const *w)
{
  int n = 0;
  struct pollfd x = { .fd = w->net_r, .events = POLLIN };
  return poll(&x, 1, 0) > 0 && ioctl(w->net_r, FIONREAD, &n) == 0 && !n;
}

/* As peer_result. After a failure libssl tells an alert as close_notify. */
static int peer_took(struct world *w, int r)
{
  r = peer_result(w->peer, r);
  if (r == -1) w->has_failed = 1;
  return r;
}

static int peer_can_write(struct world const *w)
{
  return w->net_w >= 0 && !w->is_mute;
}

/*
  What the peer could not complete has to be repeated, and until then it cannot do anything else.
  Returns whether to. The application reads, lest it last for ever.
*/
static int peer_again(struct world *w, int r, int *tries)
{
  if (r == -1) w->is_fair = 0;
  if (r != PEER_WAITS) return 0;
  if (++*tries > TRIES_MAX)
  {
    w->is_mute = 1;
    w->is_fair = 0;
    return 0;
  }
  app_read(w);
  pause_for(50);
  return 1;
}

static void peer_write(struct world *w, size_t n)
{
  unsigned char s[16384];
  int r, tries = 0;
  if (!peer_can_write(w)) return;
  if (n > sizeof s) n = sizeof s;
  pattern_fill(s, n, w->up.sent);
  do r = peer_took(w, SSL_write(w->peer, s, n));
  while (peer_again(w, r, &tries));
  if (r > 0) w->up.sent += r;
}

/* Who gets close_notify has got all that the application wrote before its end. */
static void peer_is_notified(struct world *w)
{
  w->is_notified = 1;
  check(!(w->flags & FLAG_NO_NOTIFY), "close_notify, which was not wanted");
  check(w->app_w < 0, "close_notify before the application has ended");
  check(w->down.got == w->down.sent, "close_notify, and not all has come before it");
}

/* After a failure of its own the peer takes what comes, and does not look at it. */
int peer_read(struct world *w)
{
  unsigned char s[16384];
  if (w->net_r < 0) return 0;
  if (!w->is_broken)
  {
    int r = peer_took(w, SSL_read(w->peer, s, sizeof s));
    stream_take(&w->down, s, r);
    if (!r && !w->has_failed) peer_is_notified(w);
    if (r >= 0) return r;
    if (net_is_at_end(w)) return -1;
    if (r == PEER_WAITS) return r;
    check(!w->is_fair, "the peer does not understand what comes");
    w->is_broken = 1;
  }
  ssize_t n = read(w->net_r, s, sizeof s);
  return n > 0 || (n < 0 && errno == EAGAIN) ? PEER_WAITS : -1;
}

void peer_notify(struct world *w)
{
  int r, tries = 0;
  if (!peer_can_write(w)) return;
  do r = SSL_shutdown(w->peer);
  while (r < 0 && peer_again(w, peer_took(w, r), &tries));
  w->is_mute = 1;
}

static void peer_fin(struct world *w)
{
  if (!w->is_mute)
  {
    w->is_cut = w->is_fair && !w->is_deaf;
    w->is_fair = 0;
  }
  w->is_mute = 1;
  net_end(w);
}

static void peer_keys(struct world *w, int with_request)
{
  int tries = 0;
  if (!peer_can_write(w) || !peer_update_keys(w->peer, with_request)) return;
  while (peer_again(w, peer_took(w, SSL_do_handshake(w->peer)), &tries));
}

/* The peer has sent what no session survives. */
static void peer_did_wrong(struct world *w)
{
  if (w->is_fair && !w->is_deaf && !w->is_mute) w->must_fail = 1;
  w->is_fair = 0;
}

static void peer_renegotiate(struct world *w)
{
  if (!peer_can_write(w) || !(w->flags & FLAG_TLS12)) return;
  uint64_t before = BIO_number_written(SSL_get_wbio(w->peer));
  if (SSL_renegotiate(w->peer) == 1) peer_took(w, SSL_do_handshake(w->peer));
  ERR_clear_error();
  if (BIO_number_written(SSL_get_wbio(w->peer)) > before) peer_did_wrong(w);
  else w->is_fair = 0;
}

void raw_write(struct world *w, char const *s, size_t n)
{
  if (w->net_w < 0) return;
  if (write(w->net_w, s, n) == (ssize_t)n) peer_did_wrong(w);
  else w->is_fair = 0;
}

/* A record that is none: no ciphertext, none of the session, none at all. */
void raw_record(struct world *w, unsigned int kind, unsigned int much)
{
  char const types[4] = { 0x17, 0x16, 0x15, 0x17 };
  char s[5 + 256] = { types[kind], 3, 3, 0, kind == 3 ? 0 : 4 + much * 70 };
  memset(s + 5, 0x5a, sizeof s - 5);
  raw_write(w, s, 5 + (unsigned char)s[4]);
}

/* Whether all has got through, and each end with it, as far as there is one. */
static int all_is_through(struct world *w, ssize_t a, int p)
{
  if (w->down.got < w->down.sent || (!w->is_deaf && w->up.got < w->up.sent)) return 0;
  if (w->is_mute && !w->is_deaf && a) return 0;
  if (w->app_w >= 0) return 1;
  return p != PEER_WAITS && net_is_at_end(w);
}

/* Where nothing is wrong, nothing is held back: it gets through, though nobody says any more. */
static void all_settle(struct world *w)
{
  int tries = 0;
  while (w->is_fair)
  {
    uint64_t before = BIO_number_read(SSL_get_rbio(w->peer));
    ssize_t a = app_read(w);
    int p = peer_read(w);
    if (all_is_through(w, a, p)) return;
    if (a > 0 || BIO_number_read(SSL_get_rbio(w->peer)) != before) tries = 0;
    check(++tries < TRIES_MAX, "something is held back");
    if (tries > 1) clock_settle(w);
  }
}

void event_do(struct world *w, enum event event, size_t much)
{
  switch (event)
  {
    case APP_WRITE: app_write(w, 1 + much * much); break;
    case APP_WRITE_MORE: app_write(w, 1 + much * 4369); break;
    case APP_READ: app_read(w); break;
    case APP_END: end_close(&w->app_w); break;
    case APP_DEAF: app_go_deaf(w); break;
    case PEER_WRITE: peer_write(w, 1 + much * much); break;
    case PEER_WRITE_MORE: peer_write(w, 1 + much * 1092); break;
    case PEER_READ: peer_read(w); break;
    case PEER_NOTIFY: peer_notify(w); break;
    case PEER_FIN: peer_fin(w); break;
    case PEER_CLOSE:
      net_close(w);
      w->is_reset = 1;
      w->is_fair = w->is_cut = w->must_fail = 0;
      break;
    case PEER_KEYS: peer_keys(w, much & 1); break;
    case PEER_RENEGOTIATE: peer_renegotiate(w); break;
    case RAW: raw_record(w, much & 3, much >> 2); break;
    case PAUSE:
      if (much < 8) pause_for(20 * much * much);
      else all_settle(w);
      break;
    case SKIP:
      clock_skip(1 + much);
      w->is_late = 1;
      if (w->app_w < 0) w->is_fair = w->is_cut = 0; /* it is gone, if the peer has ended, too */
      break;
  }
}

/* Two ends of a connection; returns 0 if the system has none left. */
static int tcp_pair(int *fd)
{
  struct sockaddr_in a;
  fd[0] = socket(AF_INET, SOCK_STREAM, 0);
  if (fd[0] < 0 || getsockname(listener, (struct sockaddr *)&a, &(socklen_t){ sizeof a }) < 0)
    return 0;
  if (connect(fd[0], (struct sockaddr *)&a, sizeof a) < 0) return 0;
  fd[1] = accept(listener, 0, 0);
  return setsockopt(fd[0], IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0 && fd[1] >= 0;
}

void network_make(struct world *w, enum network_kind kind)
{
  int a[2], b[2];
  if (kind == NETWORK_PIPES)
  {
    check(pipe(a) == 0 && pipe(b) == 0, "no pipes");
    w->net_r = a[0];
    w->net_w = b[1];
    w->engine_net[0] = b[0];
    w->engine_net[1] = a[1];
#ifdef F_SETPIPE_SZ
    fcntl(a[1], F_SETPIPE_SZ, SMALL);
    fcntl(b[1], F_SETPIPE_SZ, SMALL);
#endif
  }
  else
  {
    check(kind == NETWORK_TCP ? tcp_pair(a) : socketpair(AF_UNIX, SOCK_STREAM, 0, a) == 0,
      "no network");
    w->net_r = w->net_w = a[0];
    w->engine_net[0] = w->engine_net[1] = a[1];
    for (int i = 0; kind == NETWORK_SMALL && i < 2; i++)
      setsockopt(a[i], SOL_SOCKET, SO_SNDBUF, &(int){ SMALL }, sizeof(int));
  }
  fcntl(w->net_r, F_SETFL, O_NONBLOCK);
  fcntl(w->net_w, F_SETFL, O_NONBLOCK | O_WRONLY);
}
