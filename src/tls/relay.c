/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/tai.h>

#include "pipe.h"
#include "relay.h"
#include "text.h"

/*
  The relay: two directions, each with a buffer of plaintext and the application's end of it.
  Every turn moves what can be moved without waiting, both ways, then computes from the state alone
  what to wait for; if a second turn finds that the first has made more possible, it does not wait
  but looks what else is ready, lest one direction has all the turns. An end on one side of a
  direction closes its other side once the buffer is empty; it never touches the other direction.

  How long it may take (tls-chain-security(7) has the whole table, with what comes after):

    the application is there               as long as it likes, or until -t has seen no byte move
    it is gone, its bytes are on the way   STALL_SECONDS without one taken, GONE_SECONDS in all
    it is gone, nothing is on the way      over
    there is nothing to wait for           a failure: it would be for ever

  Taken means acknowledged by the peer's system. What the peer sends to an application that is gone
  keeps nothing alive.
*/

enum { STALL_SECONDS = 30, GONE_SECONDS = 600, REST_SECONDS = 1, EXIT_MS = 100 };
enum { PIPE_SIZE = 65536 };

struct relay
{
  struct connection *c;
  struct network *net;
  struct relay_buffers *b;
  struct session_join const *join;
  struct session_end *end;
  int app_w;       /* where the application reads, -1 once closed */
  int app_r;       /* where it writes, -1 once closed */
  int app_ready;   /* poll said that it has written */
  int app_ended;   /* it has ended its writing side; bytes of it may still be in the pipe */
  int up_wide;     /* the pipe has been made larger, */
  int down_wide;   /* and this one */
  int up_starved;  /* TLS wants more of the network than has come */
  int up_blocked;  /* TLS has something of its own to say first, in answer to a KeyUpdate */
  int up_ended;    /* nothing more will be decrypted: */
  int peer_ended;  /* the peer has said so, and that was not a reset */
  int down_ended;  /* close_notify is in the buffer, or was not wanted */
  int net_ended;   /* the direction to the peer is shut */
  int failed;      /* the TLS session cannot go on; end->reason tells why */
  int moved;       /* a byte has reached somebody, or left the application, in this turn */
  uint64_t taken;  /* of what was sent, the last time that we looked */
  unsigned int tick; /* ms to the next look */
  int is_cut;      /* the peer has ended without close_notify; */
  tain cut;        /* when the application is told of it */
  tain idle;       /* when -t has seen enough; */
  tain stall;      /* when nobody takes what a dead application has left, */
  tain gone;       /* and when that has taken too long; both infinite while it lives */
  tain rest;       /* when the buffers are released; infinite if they are */
};

static void relay_fail(struct relay *r, char const *step, char const *reason)
{
  if (!r->failed) TEXT_JOIN(r->end->reason, step, ": ", reason ? reason : "unknown reason");
  r->failed = 1;
  r->end->code = EXIT_TLS;
}

/* Ends a direction. Both may be one socket, of which the other descriptor stays open. */
static void app_end(int *fd, int how)
{
  if (*fd < 0) return;
  shutdown(*fd, how);
  close(*fd);
  *fd = -1;
}

static int app_is_gone(struct relay const *r)
{
  return r->app_w < 0 && (r->app_r < 0 || r->app_ended);
}

/*
  The peer has ended the connection without a word: by itself, or its system did. That cuts off an
  application which reads, or, by a reset, one that writes. One that reads may be about to go, as it
  has said its last word and the peer has answered that with its own end: it has EXIT_MS for it,
  unless -J wants a failure at once.
*/
static void up_cut(struct relay *r)
{
  int e = r->net->read_errno, is_first = !r->is_cut;
  if (is_first && r->app_w >= 0 && !r->join->strict)
  {
    tain_from_millisecs(&r->cut, EXIT_MS);
    tain_add_g(&r->cut, &r->cut);
  }
  r->is_cut = 1;
  if (r->app_w >= 0 && !r->join->strict && tain_future(&r->cut)) return;
  r->cut = tain_infinite;
  r->up_ended = 1;
  r->peer_ended = r->net->eof;
  r->end->truncated = r->app_w >= 0 || (is_first && e && r->app_r >= 0 && !r->app_ended);
  if (!r->end->truncated) return;
  char const *reason = e ? strerror(e) : "the peer ended without close_notify";
  if (r->join->strict) relay_fail(r, "read from network", reason);
  else TEXT_JOIN(r->end->reason, reason);
}

/* Peer to application: decrypts into the buffer. */
static int up_decrypt(struct relay *r)
{
  struct buf *b = &r->b->up;
  struct network *net = r->net;
  int moved = 0;
  if (r->up_starved && !net->readable) return 0;
  r->up_starved = 0;
  if (r->is_cut && !r->up_ended) up_cut(r);
  if (r->is_cut && !r->up_ended) return 0;
  while (!r->up_ended && !r->failed && buf_room(b))
  {
    size_t before = buf_len(&net->in);
    ssize_t n = tls_read(r->c->tls, b->s + b->tail, buf_room(b));
    if (r->c->renegotiation)
    {
      relay_fail(r, "decrypt", "the peer asked for a renegotiation");
      return 1;
    }
    r->up_blocked = n == TLS_WANT_POLLOUT;
    if (r->up_blocked) break;
    if (n == TLS_WANT_POLLIN)
    {
      /* libtls returns after each message of TLS's own, also when there is more to read */
      if (buf_len(&net->in) && buf_len(&net->in) != before) continue;
      r->up_starved = !buf_len(&net->in) && !network_at_end(net);
      if (r->up_starved || buf_len(&net->in)) break;
      up_cut(r);
      if (!r->up_ended) return moved;
    }
    else if (n < 0) relay_fail(r, "decrypt", tls_error(r->c->tls));
    else if (!n) r->up_ended = r->peer_ended = 1; /* close_notify */
    else
    {
      r->end->received += n;
      b->tail += n;
    }
    moved = 1;
  }
  return moved;
}

static int up_write(struct relay *r)
{
  struct buf *b = &r->b->up;
  int moved = 0;
  while (r->app_w >= 0 && buf_len(b))
  {
    ssize_t n = fd_write(r->app_w, b->s + b->head, buf_len(b));
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) app_end(&r->app_w, SHUT_WR);
    else
    {
      buf_skip(b, n);
      r->moved = 1;
    }
    if (buf_len(b)) pipe_widen(r->app_w, &r->up_wide);
    moved = 1;
  }
  if (r->app_w < 0) buf_clear(b); /* nobody wants it, but the peer must not stall */
  else if (r->up_ended && !buf_len(b)) app_end(&r->app_w, SHUT_WR), moved = 1;
  return moved;
}

/* Application to peer: reads into the buffer. */
static int down_read(struct relay *r)
{
  struct buf *b = &r->b->down;
  if (!r->app_ready || r->app_r < 0 || buf_len(b)) return 0;
  ssize_t n = fd_read(r->app_r, b->s, b->size);
  r->app_ready = 0;
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (n <= 0) app_end(&r->app_r, SHUT_RD);
  else
  {
    b->tail = n;
    r->moved = 1;
  }
  if (n >= PIPE_SIZE) pipe_widen(r->app_r, &r->down_wide);
  return 1;
}

static int down_encrypt(struct relay *r)
{
  struct buf *b = &r->b->down;
  int moved = 0;
  if (r->net->write_errno) /* the peer takes no more: the application should know */
  {
    moved = r->app_r >= 0 || buf_len(b);
    if (buf_len(b) || (buf_len(&r->net->out) && !r->net->farewell)) r->net->lost = 1;
    network_farewell(r->net);
    app_end(&r->app_r, SHUT_RD);
    buf_clear(b);
  }
  /*
    Into an empty buffer only, where all of it fits. A tls_write that could not end would keep
    tls_read from answering a KeyUpdate, and OpenSSL makes that a fatal error.
  */
  if (buf_len(b) && buf_len(&r->net->out)) return moved;
  while (buf_len(b) && !r->failed)
  {
    ssize_t n = tls_write(r->c->tls, b->s + b->head, buf_len(b));
    if (n == TLS_WANT_POLLIN || n == TLS_WANT_POLLOUT) return moved;
    if (n < 0) relay_fail(r, "encrypt", tls_error(r->c->tls));
    else
    {
      r->end->sent += n;
      buf_skip(b, n);
    }
    moved = 1;
  }
  if (r->app_r < 0 && !buf_len(b) && !buf_len(&r->net->out) && !r->down_ended && !r->failed)
  {
    network_farewell(r->net);
    if (r->join->notify && tls_close(r->c->tls) == TLS_WANT_POLLOUT) return moved;
    r->down_ended = moved = 1;
  }
  return moved;
}

static int down_end(struct relay *r)
{
  if (!r->down_ended || r->net_ended || buf_len(&r->net->out)) return 0;
  network_end(r->net);
  return r->net_ended = 1;
}

static int relay_turn(struct relay *r)
{
  int moved = up_decrypt(r) | up_write(r);
  moved |= down_read(r) | down_encrypt(r);
  return moved | network_flush(r->net) | down_end(r);
}

/* Whether the application's last byte is with the peer, or cannot get there any more. */
static int is_delivered(struct relay const *r)
{
  return r->net_ended && (network_is_delivered(r->net) || r->net->write_errno);
}

static int is_over(struct relay const *r)
{
  return r->failed || (r->app_w < 0 && is_delivered(r));
}

/* What to wait for. A descriptor of which nothing is wanted is left out, lest its end spin us. */
static unsigned int relay_interest(struct relay const *r, iopause_fd *x)
{
  struct network const *net = r->net;
  int has_down = !!buf_len(&r->b->down);
  unsigned int n = 0;
  if (!r->up_ended && !r->up_blocked && buf_room(&r->b->up) && !network_at_end(net))
    x[n++] = (iopause_fd){ .fd = net->rfd, .events = IOPAUSE_READ };
  else if (r->net_ended && !net->hung_up) /* a reset, while we wait for acknowledgements */
    x[n++] = (iopause_fd){ .fd = net->rfd };
  if (buf_len(&net->out) && !net->write_errno)
    x[n++] = (iopause_fd){ .fd = net->wfd, .events = IOPAUSE_WRITE };
  if (r->app_r >= 0 && (!has_down || !r->app_ended))
    x[n++] = (iopause_fd){ .fd = r->app_r, .events = has_down ? 0 : IOPAUSE_READ };
  if (r->app_w >= 0)
    x[n++] = (iopause_fd){ .fd = r->app_w, .events = buf_len(&r->b->up) ? IOPAUSE_WRITE : 0 };
  return n;
}

/* The application that stops reading is told by an error on the pipe, at any time. */
static void relay_notice(struct relay *r, iopause_fd const *x, unsigned int n)
{
  for (unsigned int i = 0; i < n; i++)
  {
    if (!x[i].revents) continue;
    if (x[i].fd == r->app_r)
    {
      r->app_ready = !!x[i].events;
      if (x[i].revents & IOPAUSE_EXCEPT) r->app_ended = 1;
    }
    else if (x[i].fd == r->app_w)
    {
      if (x[i].revents & IOPAUSE_EXCEPT) app_end(&r->app_w, SHUT_WR);
    }
    else network_notice(r->net, &x[i]);
  }
}

/* Moves the limits on, as something has moved or been taken, or as the application has gone. */
static void relay_limits(struct relay *r)
{
  int is_gone = app_is_gone(r), progress = r->moved;
  r->moved = 0;
  if (is_gone)
  {
    uint64_t taken = network_taken(r->net);
    progress |= taken != r->taken;
    r->taken = taken;
    if (!tain_less(&r->gone, &tain_infinite))
    {
      tain_addsec_g(&r->gone, GONE_SECONDS);
      progress = 1;
    }
  }
  if (!progress) return;
  r->tick = NETWORK_TICK_MS;
  tain_addsec_g(&r->rest, REST_SECONDS);
  if (is_gone) tain_addsec_g(&r->stall, STALL_SECONDS);
  if (!r->join->idle) return;
  tain_from_millisecs(&r->idle, r->join->idle);
  tain_add_g(&r->idle, &r->idle);
}

/* Fails if a limit has passed; else the next one is *deadline. */
static void relay_deadline(struct relay *r, tain *deadline)
{
  *deadline = r->idle;
  if (!tain_future(&r->idle)) return relay_fail(r, "relay", "idle for too long");
  if (!tain_future(&r->stall)) return relay_fail(r, "relay", "the peer stopped reading");
  if (!tain_future(&r->gone)) return relay_fail(r, "relay", "the peer reads too slowly");
  if (tain_less(&r->cut, deadline)) *deadline = r->cut;
  if (tain_less(&r->stall, deadline)) *deadline = r->stall;
  if (tain_less(&r->gone, deadline)) *deadline = r->gone;
  if (tain_less(&r->rest, deadline)) *deadline = r->rest;
  if (!buf_len(&r->net->out) && (r->net_ended || app_is_gone(r))) network_tick(&r->tick, deadline);
}

/* A session that is held keeps no plaintext that has gone, nor the memory of a bulk transfer. */
static void relay_rest(struct relay *r)
{
  r->rest = tain_infinite;
  buf_release(&r->b->up);
  buf_release(&r->b->down);
  buf_release(&r->net->in);
  buf_release(&r->net->out);
}

/* Waits for one thing that is of interest, or only looks, if there is more to do. */
static void relay_wait(struct relay *r, int more)
{
  iopause_fd x[4];
  tain deadline;
  unsigned int n = relay_interest(r, x);
  relay_deadline(r, &deadline);
  if (r->failed) return;
  if (!n && !more && !tain_less(&deadline, &tain_infinite))
    return relay_fail(r, "relay", "nothing left to wait for");
  int ready = iopause_g(x, n, more ? &STAMP : &deadline);
  if (ready < 0) relay_fail(r, "wait", strerror(errno));
  else if (ready) relay_notice(r, x, n);
  else if (!tain_future(&r->rest)) relay_rest(r);
}

int relay_run(struct connection *c, struct relay_buffers *b, int const *plain,
  struct session_join const *join, struct session_end *end)
{
  struct relay r =
  {
    .c = c, .net = c->net, .b = b, .join = join, .end = end, .app_r = plain[0], .app_w = plain[1],
    .tick = NETWORK_TICK_MS, .moved = 1,
    .cut = TAIN_INFINITE, .idle = TAIN_INFINITE, .stall = TAIN_INFINITE, .gone = TAIN_INFINITE,
    .rest = TAIN_INFINITE,
  };
  buf_clear(&b->up);
  buf_clear(&b->down);
  b->up.size = b->down.size = PLAIN_SIZE;
  ndelay_on(r.app_r);
  ndelay_on(r.app_w);
  for (;;)
  {
    int moved = relay_turn(&r);
    int more = moved && !is_over(&r) && relay_turn(&r);
    if (is_over(&r)) break;
    relay_limits(&r);
    relay_wait(&r, more);
  }
  app_end(&r.app_r, SHUT_RD);
  app_end(&r.app_w, SHUT_WR);
  if (network_has_lost(c->net) && !end->code)
  {
    end->code = EXIT_TLS;
    TEXT_JOIN(end->reason, "the peer did not take everything: ", strerror(c->net->write_errno));
  }
  return r.peer_ended;
}
