/* ISC licence: see COPYING. */

/*
  The serving function of an engine, for real, between a chain, an application and a TLS peer whose
  order of doing things the input says. It must end; what arrives must be what was sent, byte for
  byte, and all of it where nobody has done anything wrong; what is wrong, or lost, must be told in
  ENDED; close_notify must come after all else, if it is wanted and the session ends well, and only
  then. The chain may end at any time after JOIN.

  An input: two bytes of what is so from the start, then one for each event: what to do in its low
  half, how much in the high one. The world around the engine is a thread; the engine is what the
  fuzzer watches. It keeps what a process keeps that ends after one session, so a run is bounded
  (CONTRIBUTING).
*/

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/session/session.h"
#include "../../src/tls/hooks.h"
#include "../../src/tls/serve.h"
#include "../../src/tls/signer.h"
#include "world.h"

extern int LLVMFuzzerTestOneInput(uint8_t const *, size_t);

/* What a peer that hangs up cannot have taken: more than is in its libssl and a small network. */
enum { HEAD = 2, EVENTS_MAX = 200, LIMIT_SECONDS = 30, HELD_MAX = 32768 };

/*
  How long a session without an application may last: STALL_SECONDS and LINGER_SECONDS, GONE_SECONDS
  if the peer reads, a record at each leap; and some. What a small network, an engine and a pipe
  hold takes longer than that.
*/
enum { SILENCE_SECONDS = 150, TRICKLE_SECONDS = 650, LEAP_SECONDS = 28 };

enum start
{
  START_WELL,
  START_GARBAGE,  /* in place of the peer's handshake */
  START_PLAIN,    /* so, too */
  START_REFUSE,   /* the chain ends after FACTS */
  START_ABANDON,  /* the chain ends during the handshake */
  START_CUT,      /* the peer does */
  START_LEAVE,    /* well, but the chain ends after JOIN, when the second byte's high half says */
  START_N,
};

static struct settings settings;

static void limit_has_passed(int sig)
{
  static char const s[] = "relay: it does not end\n";
  (void)sig;
  if (write(2, s, sizeof s - 1) < 0) abort();
  abort();
}

static void prepare(void)
{
  static int done = 0;
  struct session_policy server = { .role = SESSION_SERVER };
  struct session_policy client = { .role = SESSION_CLIENT, .verify = SESSION_VERIFY_NOTHING };
  struct failure why;
  if (done) return;
  done = 1;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, &limit_has_passed); /* libFuzzer's own handler would wait for its -timeout */
  check(tls_init() == 0 && peer_prepare(), "unable to make a key and a certificate");
  int ok = settings_load(&settings, &server, &why) && settings_load(&settings, &client, &why);
  peer_files_remove();
  check(ok, "unable to load settings");
  network_prepare();
}

/* The chain's side, without the library: its clock is the engine's, which is another thread */

static void chain_send(struct world *w, char const *s, size_t n, int const *fds)
{
  char head[6] = { 0, 0, n >> 8, n, 0, 2 };
  struct iovec v[2] = { { head, 6 }, { (char *)s, n } };
  union { struct cmsghdr h; char s[CMSG_SPACE(2 * sizeof(int))]; } u = { 0 };
  struct msghdr m = { .msg_iov = v, .msg_iovlen = 2, .msg_control = u.s,
    .msg_controllen = sizeof u.s };
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(2 * sizeof(int));
  memcpy(CMSG_DATA(c), fds, 2 * sizeof(int));
  if (sendmsg(w->chain, &m, MSG_NOSIGNAL) < 0) return;
}

/* The type of the next message, 0 if there is none any more. */
static int chain_receive(struct world *w, char *s, size_t *n)
{
  unsigned char head[6];
  if (recv(w->chain, head, 6, MSG_WAITALL) != 6) return 0;
  *n = head[2] << 8 | head[3];
  check(!head[0] && !head[1] && *n && *n <= SESSION_MAX, "a message that is too long");
  return recv(w->chain, s, *n, MSG_WAITALL) == (ssize_t)*n ? s[0] : 0;
}

/* Returns whether the handshake is done. */
static int peer_handshake(struct world *w)
{
  static char const http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
  if (w->start == START_GARBAGE) return raw_record(w, 0, 0), 0;
  if (w->start == START_PLAIN) return raw_write(w, http, sizeof http - 1), 0;
  w->peer = peer_new(!!(w->flags & FLAG_CLIENT), !!(w->flags & FLAG_TLS12), w->net_r, w->net_w);
  check(!!w->peer, "unable to make a peer");
  for (;;)
  {
    int r = peer_result(w->peer, SSL_do_handshake(w->peer));
    if (w->start == START_ABANDON || w->start == START_CUT) return 0;
    if (r != PEER_WAITS || net_is_at_end(w)) return r > 0;
    poll(&(struct pollfd){ .fd = w->net_r, .events = POLLIN }, 1, 100);
  }
}

/* Nobody does anything wrong any more: all that is left gets where it is to go. */
static void end_in_order(struct world *w)
{
  end_close(&w->app_w);
  peer_notify(w);
  net_end(w);
  for (int app_open = w->app_r >= 0, peer_open = w->net_r >= 0; app_open || peer_open; )
  {
    ssize_t a = app_open ? app_read(w) : 0;
    if (!a || (a < 0 && errno != EAGAIN)) app_open = 0;
    int p = peer_open ? peer_read(w) : 0;
    if (!p || p == -1) peer_open = 0;
    if (a < 0 && p < 0) pause_for(20);
  }
}

/* The application dies, or -t looks after one that does not; a peer that stays may still read. */
static void end_in_silence(struct world *w)
{
  int reads = w->much & 1, left = reads ? TRICKLE_SECONDS : SILENCE_SECONDS;
  w->is_silent = w->is_fair;
  w->is_late = 1;
  w->is_fair = w->is_cut = w->must_fail = 0;
  if (!(w->flags & FLAG_IDLE))
  {
    end_close(&w->app_w);
    end_close(&w->app_r);
  }
  for (int n = 1; left > 0 && !engine_is_over(w); n = 2 * n < LEAP_SECONDS ? 2 * n : LEAP_SECONDS)
  {
    clock_settle(w);
    clock_skip(n);
    left -= n;
    if (reads) peer_read(w);
  }
  while (!engine_is_over(w)) pause_for(1000);
  for (int p = 1; p > 0 || p == PEER_WAITS; ) p = peer_read(w);
}

/* Nobody's bytes get lost in silence; but those of a peer that hangs up, or a deaf application. */
static void losses_check(struct world const *w, int is_told)
{
  if (w->is_reset) return;
  if (!w->is_broken) check(is_told || w->down.got == w->down.sent, "a loss is not told");
  if (w->is_deaf || (w->is_late && w->flags & FLAG_SILENCE)) return;
  check(is_told || w->up.got == w->up.sent, "a loss on the way up is not told");
}

/* What an engine's exit code says of a session; the same is in ENDED. */
static void code_check(struct world const *w, int code)
{
  int is_strict = !!(w->flags & FLAG_STRICT);
  losses_check(w, code);
  if (w->must_fail) check(code == EXIT_TLS, "a session goes on that must not");
  if (w->is_cut && is_strict) check(code == EXIT_TLS, "an end without close_notify is well");
  int peer_can_tell = !w->is_reset && !w->is_broken && !w->has_failed;
  if (!code && !(w->flags & FLAG_NO_NOTIFY) && peer_can_tell && !w->is_late)
    check(w->is_notified, "no close_notify");
  if (!(w->is_fair || (w->is_cut && !is_strict)) || (w->is_deaf && is_strict)) return;
  check(!code, "a session without fault has failed");
  check(w->down.got == w->down.sent, "bytes to the peer are lost");
  if (!w->is_deaf) check(w->up.got == w->up.sent, "bytes to the application are lost");
}

/* What else ENDED says. */
static void end_check(struct world const *w, struct session_end const *end)
{
  int is_strict = !!(w->flags & FLAG_STRICT);
  check(w->up.got <= end->received && end->received <= w->up.sent, "received is wrong");
  check(w->down.got <= end->sent && end->sent <= w->down.sent, "sent is wrong");
  check(!end->code == !*end->reason || end->truncated, "neither a failure nor a success");
  if (w->is_reset && !end->code && !end->truncated && !w->is_broken
    && (w->flags >> 6 == NETWORK_SMALL || w->flags >> 6 == NETWORK_PIPES))
    check(w->down.sent - w->down.got <= HELD_MAX, "what a reset has cost is not told");
  if (w->is_cut && !is_strict) check(end->truncated, "an end without close_notify is not told");
  if (!(w->is_fair || (w->is_cut && !is_strict)) || (w->is_deaf && is_strict)) return;
  check(w->is_cut || !end->truncated, "a session without fault is told as truncated");
  check(end->sent == w->down.sent, "ENDED counts other bytes to the peer");
  if (!w->is_deaf) check(end->received == w->up.sent, "ENDED counts other bytes");
}

static void chain_leave(struct world *w)
{
  end_close(&w->chain);
  w->has_left = 1;
}

/* From JOIN on; leave is the event before which the chain ends, if it ends at all. */
static void session_play_on(struct world *w, size_t leave)
{
  char s[SESSION_MAX];
  size_t n;
  struct session_end end;
  w->is_joined = 1;
  if (w->start == START_LEAVE && !leave) chain_leave(w);
  else check(chain_receive(w, s, &n) == SESSION_JOINED, "no JOINED");
  for (size_t i = 0; i < w->n; i++)
  {
    if (w->start == START_LEAVE && i + 1 == leave) chain_leave(w);
    event_do(w, w->events[i] & 15, w->events[i] >> 4);
  }
  if (w->start == START_LEAVE) chain_leave(w);
  if (w->flags & FLAG_SILENCE) end_in_silence(w);
  else end_in_order(w);
  end_close(&w->app_r);
  if (w->has_left) return;
  check(chain_receive(w, s, &n) == SESSION_ENDED && session_end_unpack(&end, s, n), "no ENDED");
  end_check(w, &end);
  w->code = end.code;
}

static void session_play(struct world *w)
{
  char s[SESSION_MAX];
  size_t n;
  struct session_facts facts;
  struct session_join join = { .notify = !(w->flags & FLAG_NO_NOTIFY),
    .strict = !!(w->flags & FLAG_STRICT), .heard = 1,
    .idle = w->flags & FLAG_IDLE ? 1000 + 4000 * w->much : 0 };
  int done = peer_handshake(w);
  if (w->start == START_ABANDON) return;
  if (w->start == START_CUT) net_close(w);
  int type = chain_receive(w, s, &n);
  if (w->start == START_CUT && type == SESSION_FACTS) return; /* it was too late for that */
  check(type == (done ? SESSION_FACTS : SESSION_FAILED), "a handshake ends in another way");
  if (type == SESSION_FAILED) return;
  check(session_facts_unpack(&facts, s, n) && facts.value[FACT_PROTOCOL]
    && !strcmp(facts.value[FACT_PROTOCOL], SSL_get_version(w->peer)), "the facts are others");
  if (w->start == START_REFUSE) return;
  n = session_join_pack(s, &join);
  chain_send(w, s, n, w->engine_fds);
  end_close(&w->engine_fds[0]);
  end_close(&w->engine_fds[1]);
  session_play_on(w, (w->n + 1) * w->much / 15);
}

static void *world_run(void *arg)
{
  struct world *w = arg;
  char s[SESSION_MAX];
  struct session_start start = { .policy = { .role = w->flags & FLAG_CLIENT
    ? SESSION_CLIENT : SESSION_SERVER, .verify = SESSION_VERIFY_NOTHING } };
  if (!(w->flags & FLAG_CLIENT)) start.policy.verify = SESSION_VERIFY_NAME;
  chain_send(w, s, session_start_pack(s, &start), w->engine_net);
  if (w->engine_net[1] == w->engine_net[0]) w->engine_net[1] = -1;
  end_close(&w->engine_net[0]);
  end_close(&w->engine_net[1]);
  session_play(w);
  net_close(w);
  end_close(&w->chain);
  end_close(&w->app_w);
  end_close(&w->app_r);
  end_close(&w->engine_fds[0]);
  end_close(&w->engine_fds[1]);
  SSL_free(w->peer);
  return 0;
}

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size)
{
  struct world w = { .events = data + HEAD, .n = size - HEAD };
  int chain[2], up[2], down[2];
  pthread_t thread;
  if (size < HEAD || size > EVENTS_MAX || (data[1] & 15) >= START_N) return 0;
  prepare();
  w.flags = data[0];
  w.start = data[1] & 15;
  w.much = data[1] >> 4;
  w.is_fair = !(w.flags & FLAG_IDLE);
  network_make(&w, data[0] >> 6);
  check(socketpair(AF_UNIX, SOCK_STREAM, 0, chain) == 0 && pipe(up) == 0 && pipe(down) == 0,
    "no descriptors");
  w.chain = chain[0];
  w.app_w = down[1];
  w.app_r = up[0];
  w.engine_fds[0] = down[0];
  w.engine_fds[1] = up[1];
  fcntl(w.app_w, F_SETFL, O_NONBLOCK);
  fcntl(w.app_r, F_SETFL, O_NONBLOCK);
  alarm(LIMIT_SECONDS); /* it must end */
  check(pthread_create(&thread, 0, &world_run, &w) == 0, "no thread");
  if (!(w.flags & FLAG_CLIENT)) hooks_use(signer_open(1));
  int code = serve_session(chain[1], &settings, -1, 0);
  close(chain[1]);
  __atomic_store_n(&w.is_over, 1, __ATOMIC_SEQ_CST);
  pthread_join(thread, 0);
  alarm(0);
  if (!w.is_joined) return 0;
  check(w.has_left || w.code == code, "ENDED says another code");
  code_check(&w, code);
  return 0;
}
