/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>

#include "engine.h"

/*
  The relay: two directions, each with a buffer of plaintext and the application's end of it.
  Every turn moves what can be moved without waiting, both ways, then computes from the state alone
  what to wait for; if a second turn finds that the first has made more possible, it does not wait
  but looks what else is ready, lest one direction has all the turns. An end on one side of a
  direction closes its other side once the buffer is empty; it never touches the other direction.
*/

enum { STALL_SECONDS = 30, EXIT_MS = 100, PIPE_SIZE = 65536 };

struct relay
{
  struct engine *e;
  struct session_join const *join;
  struct session_end *end;
  int app_w;       /* where the application reads, -1 once closed */
  int app_r;       /* where it writes, -1 once closed */
  int app_ready;   /* poll said that it has written */
  int up_wide;     /* the pipe has been made larger, */
  int down_wide;   /* and this one */
  int up_starved;  /* TLS wants more of the network than has come */
  int up_blocked;  /* TLS has something of its own to say first, in answer to a KeyUpdate */
  int up_ended;    /* nothing more will be decrypted */
  int down_ended;  /* close_notify is in the buffer, or was not wanted */
  int net_ended;   /* the direction to the peer is shut */
  int failed;      /* the TLS session cannot go on; end->reason tells why */
};

static void fail(struct relay *r, char const *step, char const *reason)
{
  if (!r->failed) TEXT_JOIN(r->end->reason, step, ": ", reason ? reason : "unknown reason");
  r->failed = 1;
  r->end->code = EXIT_TLS;
}

/*
  A pipe that is found full is one of a bulk transfer, which costs less with fewer switches from
  process to process. Not all pipes from the start: what an unprivileged user's pipes may hold
  together is limited. Not to be allowed, or not to be a pipe, is no failure.
*/
static void widen(int fd, int *wide)
{
  if (*wide) return;
  *wide = 1;
#ifdef F_SETPIPE_SZ
  fcntl(fd, F_SETPIPE_SZ, PLAIN_SIZE);
#else
  (void)fd;
#endif
}

static void close_fd(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/*
  Whether the application is gone altogether: it is not cut off from anything then. Its two ends
  of the pipes close one after the other, and the peer may answer the first with its own end before
  the kernel gets to the second. So this waits a moment for it: nothing else is due any more.
*/
static int app_is_gone(struct relay *r)
{
  iopause_fd x = { .fd = r->app_w };
  if (r->app_r >= 0) return 0;
  if (r->app_w >= 0 && poll(&x, 1, EXIT_MS) > 0 && x.revents & IOPAUSE_EXCEPT) close_fd(&r->app_w);
  return r->app_w < 0;
}

/* The peer has ended the connection without a word: by itself, or its system did. */
static void cut(struct relay *r)
{
  int e = r->e->net.read_errno;
  char const *reason = e ? strerror(e) : "the peer ended without close_notify";
  if (r->join->strict) fail(r, "read from network", reason);
  else TEXT_JOIN(r->end->reason, reason);
}

/* Peer to application: decrypts into the buffer. */
static int up_decrypt(struct relay *r)
{
  struct buf *b = &r->e->up;
  struct network *net = &r->e->net;
  int moved = 0;
  if (r->up_starved && !net->readable) return 0;
  r->up_starved = 0;
  while (!r->up_ended && !r->failed && buf_room(b))
  {
    size_t before = buf_len(&net->in);
    ssize_t n = tls_read(r->e->tls, b->s + b->tail, buf_room(b));
    r->up_blocked = n == TLS_WANT_POLLOUT;
    if (r->up_blocked) break;
    if (n == TLS_WANT_POLLIN)
    {
      /* libtls returns after each message of TLS's own, also when there is more to read */
      if (buf_len(&net->in) && buf_len(&net->in) != before) continue;
      r->up_starved = !buf_len(&net->in) && !network_at_end(net);
      if (r->up_starved || buf_len(&net->in)) break;
      r->up_ended = 1;
      r->end->truncated = !app_is_gone(r);
      if (r->end->truncated) cut(r);
    }
    else if (n < 0) fail(r, "decrypt", tls_error(r->e->tls));
    else if (!n) r->up_ended = 1; /* close_notify */
    else
    {
      r->end->received += n;
      b->tail += n;
      if (r->app_w < 0) buf_clear(b); /* nobody wants it, but the peer must not stall */
    }
    moved = 1;
  }
  return moved;
}

static int up_write(struct relay *r)
{
  struct buf *b = &r->e->up;
  int moved = 0;
  while (r->app_w >= 0 && buf_len(b))
  {
    ssize_t n = fd_write(r->app_w, b->s + b->head, buf_len(b));
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) close_fd(&r->app_w);
    else buf_skip(b, n);
    if (buf_len(b)) widen(r->app_w, &r->up_wide);
    moved = 1;
  }
  if (r->app_w < 0) buf_clear(b);
  else if (r->up_ended && !buf_len(b)) close_fd(&r->app_w), moved = 1;
  return moved;
}

/* Application to peer: reads into the buffer. */
static int down_read(struct relay *r)
{
  struct buf *b = &r->e->down;
  if (!r->app_ready || r->app_r < 0 || buf_len(b)) return 0;
  ssize_t n = fd_read(r->app_r, b->s, b->size);
  r->app_ready = 0;
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (n <= 0) close_fd(&r->app_r);
  else b->tail = n;
  if (n >= PIPE_SIZE) widen(r->app_r, &r->down_wide);
  return 1;
}

static int down_encrypt(struct relay *r)
{
  struct buf *b = &r->e->down;
  int moved = 0;
  if (r->e->net.write_errno) /* the peer takes no more: the application should know */
  {
    moved = r->app_r >= 0 || buf_len(b);
    if (buf_len(b)) r->e->net.lost = 1;
    close_fd(&r->app_r);
    buf_clear(b);
  }
  /*
    Into an empty buffer only, where all of it fits. A tls_write that could not end would forbid
    tls_read to answer a KeyUpdate, and OpenSSL makes that a fatal error.
  */
  if (buf_len(b) && buf_len(&r->e->net.out)) return moved;
  while (buf_len(b) && !r->failed)
  {
    ssize_t n = tls_write(r->e->tls, b->s + b->head, buf_len(b));
    if (n == TLS_WANT_POLLIN || n == TLS_WANT_POLLOUT) return moved;
    if (n < 0) fail(r, "encrypt", tls_error(r->e->tls));
    else
    {
      r->end->sent += n;
      buf_skip(b, n);
    }
    moved = 1;
  }
  if (r->app_r < 0 && !buf_len(b) && !buf_len(&r->e->net.out) && !r->down_ended && !r->failed)
  {
    r->e->net.farewell = 1;
    if (r->join->notify && tls_close(r->e->tls) == TLS_WANT_POLLOUT) return moved;
    r->down_ended = moved = 1;
  }
  return moved;
}

static int down_end(struct relay *r)
{
  if (!r->down_ended || r->net_ended || buf_len(&r->e->net.out)) return 0;
  network_end(&r->e->net);
  return r->net_ended = 1;
}

static int turn(struct relay *r)
{
  int moved = up_decrypt(r) | up_write(r);
  moved |= down_read(r) | down_encrypt(r);
  return moved | network_flush(&r->e->net) | down_end(r);
}

static int is_over(struct relay const *r)
{
  return r->failed || (r->net_ended && r->app_w < 0);
}

/* What to wait for. A descriptor of which nothing is wanted is left out, lest its end spin us. */
static unsigned int interest(struct relay const *r, iopause_fd *x)
{
  struct engine const *e = r->e;
  unsigned int n = 0;
  if (!r->up_ended && !r->up_blocked && buf_room(&e->up) && !network_at_end(&e->net))
    x[n++] = (iopause_fd){ .fd = e->net.rfd, .events = IOPAUSE_READ };
  if (buf_len(&e->net.out) && !e->net.write_errno)
    x[n++] = (iopause_fd){ .fd = e->net.wfd, .events = IOPAUSE_WRITE };
  if (r->app_r >= 0 && !buf_len(&e->down))
    x[n++] = (iopause_fd){ .fd = r->app_r, .events = IOPAUSE_READ };
  if (r->app_w >= 0)
    x[n++] = (iopause_fd){ .fd = r->app_w, .events = buf_len(&e->up) ? IOPAUSE_WRITE : 0 };
  return n;
}

/* The application that stops reading is told by an error on the pipe, at any time. */
static void notice(struct relay *r, iopause_fd const *x, unsigned int n)
{
  for (unsigned int i = 0; i < n; i++)
  {
    if (!x[i].revents) continue;
    if (x[i].fd == r->e->net.rfd) r->e->net.readable = 1;
    else if (x[i].fd == r->app_r) r->app_ready = 1;
    else if (x[i].fd == r->app_w && x[i].revents & IOPAUSE_EXCEPT) close_fd(&r->app_w);
  }
}

/* The limit for doing nothing: what was asked for, and one that a dead application cannot miss. */
static void next_deadline(struct relay const *r, tain *deadline)
{
  *deadline = tain_infinite_relative;
  if (r->join->idle) tain_from_millisecs(deadline, r->join->idle);
  else if (r->app_r < 0 && r->app_w < 0) tain_uint(deadline, STALL_SECONDS);
  tain_add_g(deadline, deadline);
}

void relay(struct engine *e, int const *plain, struct session_join const *join,
  struct session_end *end)
{
  struct relay r = { .e = e, .join = join, .end = end, .app_r = plain[0], .app_w = plain[1] };
  tain deadline;
  e->up.size = e->down.size = PLAIN_SIZE;
  ndelay_on(r.app_r);
  ndelay_on(r.app_w);
  next_deadline(&r, &deadline);
  for (;;)
  {
    iopause_fd x[4];
    int moved = turn(&r);
    int more = moved && !is_over(&r) && turn(&r);
    if (is_over(&r)) break;
    if (moved) next_deadline(&r, &deadline);
    unsigned int n = interest(&r, x);
    int ready = iopause_g(x, n, more ? &STAMP : &deadline);
    if (ready < 0) fail(&r, "wait", strerror(errno));
    else if (ready || more) notice(&r, x, n);
    else fail(&r, "relay", join->idle ? "idle for too long" : "the peer stopped reading");
  }
  close_fd(&r.app_r);
  close_fd(&r.app_w);
}
