/* ISC licence: see COPYING. */

/*
  The serving function of an engine, for real, between a chain, an application and a TLS peer whose
  order of doing things the input says. It must end; what arrives must be what was sent, byte for
  byte, and all of it where nobody has done anything wrong.

  An input: a byte of flags, then one for each event: what to do in its low half, how much in the
  high one. The world around the engine is a thread; the engine is what the fuzzer watches. It keeps
  what a process keeps that ends after one session, so a run is bounded (CONTRIBUTING).
*/

#include <sys/socket.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <tls.h>

#include "../../src/session/session.h"
#include "../../src/tls/serve.h"

extern int LLVMFuzzerTestOneInput(uint8_t const *, size_t);

enum { EVENTS_MAX = 200, LIMIT_SECONDS = 30 };

enum flags
{
  FLAG_CLIENT = 1, /* the engine's role */
  FLAG_TLS12 = 2,
  FLAG_NO_NOTIFY = 4,
  FLAG_STRICT = 8,
  FLAG_GARBAGE = 16, /* comes in place of the peer's handshake */
  FLAG_REFUSE = 32,  /* the chain ends after FACTS */
};

enum event
{
  APP_WRITE, APP_READ, APP_END, APP_DEAF, APP_WRITE_MORE,
  PEER_WRITE, PEER_READ, PEER_NOTIFY, PEER_FIN, PEER_CLOSE, PEER_WRITE_MORE,
  RAW_GARBAGE, RAW_HANDSHAKE, RAW_EMPTY,
  PAUSE, PAUSE_MORE,
};

/* One direction, as its two ends know it. */
struct stream
{
  size_t sent;
  size_t got;
};

struct world
{
  uint8_t const *events;
  size_t n;
  int flags;
  int chain; /* our end of the session socket; its, and the network's, for the engine */
  int net;
  int engine_net;
  int app_w; /* where the application writes; where it reads; the engine's ends */
  int app_r;
  int engine_fds[2];
  struct tls *peer;
  struct stream up;   /* from the peer */
  struct stream down; /* from the application */
  int has_notified; /* the peer; it says nothing more */
  int has_ended;    /* what comes to the peer has */
  int is_fair;  /* nobody has done what may cost bytes */
  int is_deaf;  /* the application has stopped reading: its loss */
};

static struct tls *peer_client[2], *peer_server[2]; /* by whether TLS 1.2 only */
static struct settings settings;

static void check(int ok, char const *what)
{
  if (ok) return;
  fprintf(stderr, "relay: %s\n", what);
  abort();
}

/* Key, certificate

  A pair for this process, in files, as the engine reads them. */

static void write_file(char *path, char const *dir, char const *name, BIO *b)
{
  char *s;
  long n = BIO_get_mem_data(b, &s);
  snprintf(path, 64, "%s/%s", dir, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  check(fd >= 0 && write(fd, s, n) == n, "unable to write a file");
  close(fd);
  BIO_free(b);
}

static void pair_make(char const *dir, char *key, char *cert)
{
  EVP_PKEY *k = 0;
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, 0);
  X509 *x = X509_new();
  BIO *kb = BIO_new(BIO_s_mem()), *xb = BIO_new(BIO_s_mem());
  EVP_PKEY_keygen_init(ctx);
  EVP_PKEY_CTX_set_ec_paramgen_curve_nid(ctx, NID_X9_62_prime256v1);
  check(EVP_PKEY_keygen(ctx, &k) == 1, "unable to make a key");
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -60);
  X509_gmtime_adj(X509_getm_notAfter(x), 86400);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
    (unsigned char const *)"localhost", -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(x));
  X509_set_pubkey(x, k);
  check(X509_sign(x, k, EVP_sha256()) > 0, "unable to sign");
  PEM_write_bio_PrivateKey(kb, k, 0, 0, 0, 0, 0);
  PEM_write_bio_X509(xb, x);
  write_file(key, dir, "key", kb);
  write_file(cert, dir, "cert", xb);
  EVP_PKEY_CTX_free(ctx);
  EVP_PKEY_free(k);
  X509_free(x);
}

static struct tls *peer_new(int is_server, int is_tls12, char const *key, char const *cert)
{
  struct tls *t = is_server ? tls_server() : tls_client();
  struct tls_config *c = tls_config_new();
  tls_config_insecure_noverifycert(c);
  tls_config_insecure_noverifyname(c);
  tls_config_set_protocols(c, is_tls12 ? TLS_PROTOCOL_TLSv1_2 : TLS_PROTOCOL_TLSv1_3);
  if (is_server) tls_config_set_keypair_file(c, cert, key);
  check(tls_configure(t, c) == 0, "unable to configure a peer");
  tls_config_free(c);
  return t;
}

static void prepare(void)
{
  static int done = 0;
  char dir[] = "/tmp/tls-chain-fuzz.XXXXXX", key[64], cert[64];
  struct session_policy server = { .role = SESSION_SERVER };
  struct session_policy client = { .role = SESSION_CLIENT, .verify = SESSION_VERIFY_NOTHING };
  struct failure why;
  if (done) return;
  done = 1;
  signal(SIGPIPE, SIG_IGN);
  check(tls_init() == 0 && mkdtemp(dir), "unable to begin");
  pair_make(dir, key, cert);
  setenv("KEYFILE", key, 1);
  setenv("CERTFILE", cert, 1);
  check(settings_load(&settings, &server, &why) && settings_load(&settings, &client, &why),
    "unable to load settings");
  for (int i = 0; i < 2; i++) peer_server[i] = peer_new(1, i, key, cert);
  unlink(key);
  unlink(cert);
  rmdir(dir);
}

/* The world: nothing in it waits for longer than it must */

static void pause_for(unsigned int us)
{
  nanosleep(&(struct timespec){ .tv_nsec = us * 1000L }, 0);
}

/* The end is not told to libtls, which would answer it by an alert: that is not in order. */
static ssize_t net_read(struct tls *t, void *s, size_t n, void *arg)
{
  struct world *w = arg;
  (void)t;
  ssize_t r = recv(w->net, s, n, MSG_DONTWAIT);
  if (!r || (r < 0 && errno != EAGAIN)) w->has_ended = 1;
  return r > 0 ? r : TLS_WANT_POLLIN;
}

static ssize_t net_write(struct tls *t, void const *s, size_t n, void *arg)
{
  struct world *w = arg;
  (void)t;
  ssize_t r = send(w->net, s, n, MSG_DONTWAIT | MSG_NOSIGNAL);
  return r >= 0 ? r : errno == EAGAIN ? TLS_WANT_POLLOUT : -1;
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

static ssize_t app_read(struct world *w)
{
  unsigned char s[65536];
  if (w->app_r < 0) return 0;
  ssize_t r = read(w->app_r, s, sizeof s);
  stream_take(&w->up, s, r);
  return r;
}

static void app_close(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* A write that is not complete has to be made again: so it is made until it is, or cannot be. */
static void peer_write(struct world *w, size_t n)
{
  unsigned char s[16384];
  if (w->net < 0 || w->has_notified) return;
  if (n > sizeof s) n = sizeof s;
  pattern_fill(s, n, w->up.sent);
  for (int i = 0; i < 2000; i++)
  {
    ssize_t r = tls_write(w->peer, s, n);
    if (r > 0) w->up.sent += r;
    if (r != TLS_WANT_POLLIN && r != TLS_WANT_POLLOUT)
    {
      if (r < 0) w->is_fair = 0;
      return;
    }
    app_read(w);
    pause_for(50);
  }
  w->is_fair = 0; /* the application does not read, and the peer waits */
  w->has_notified = 1;
}

static ssize_t peer_read(struct world *w)
{
  unsigned char s[16384];
  if (w->net < 0) return 0;
  ssize_t r = tls_read(w->peer, s, sizeof s);
  stream_take(&w->down, s, r);
  return r;
}

static void peer_notify(struct world *w)
{
  if (w->net < 0 || w->has_notified) return;
  w->has_notified = 1;
  for (int i = 0; i < 2000; i++)
  {
    if (tls_close(w->peer) != TLS_WANT_POLLOUT) return;
    peer_read(w);
    app_read(w);
    pause_for(50);
  }
  w->is_fair = 0; /* the application does not read, and the peer waits */
}

static void raw_write(struct world *w, unsigned char type, size_t n)
{
  unsigned char s[5 + 256] = { type, 3, 3, 0, n };
  memset(s + 5, 0x5a, n);
  w->is_fair = 0;
  if (w->net >= 0 && send(w->net, s, 5 + n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return;
}

static void event_do(struct world *w, enum event event, size_t much)
{
  switch (event)
  {
    case APP_WRITE: app_write(w, 1 + much * much); break;
    case APP_WRITE_MORE: app_write(w, 1 + much * 4369); break;
    case APP_READ: app_read(w); break;
    case APP_END: app_close(&w->app_w); break;
    case APP_DEAF: app_close(&w->app_r); w->is_deaf = 1; break;
    case PEER_WRITE: peer_write(w, 1 + much * much); break;
    case PEER_WRITE_MORE: peer_write(w, 1 + much * 1092); break;
    case PEER_READ: peer_read(w); break;
    case PEER_NOTIFY: peer_notify(w); break;
    case PEER_FIN:
      if (!w->has_notified) w->is_fair = 0;
      w->has_notified = 1;
      if (w->net >= 0) shutdown(w->net, SHUT_WR);
      break;
    case PEER_CLOSE:
      w->is_fair = 0;
      app_close(&w->net);
      break;
    case RAW_GARBAGE: raw_write(w, 0x17, 1 + much * 15); break;
    case RAW_HANDSHAKE: raw_write(w, 0x16, 4 + much); break;
    case RAW_EMPTY: raw_write(w, 0x17, 0); break;
    case PAUSE: pause_for(20 * much); break;
    case PAUSE_MORE: pause_for(200 * much); break;
  }
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

static int peer_handshake(struct world *w)
{
  struct tls *t = 0;
  int is_tls12 = !!(w->flags & FLAG_TLS12);
  if (w->flags & FLAG_CLIENT)
  {
    if (tls_accept_cbs(peer_server[is_tls12], &t, &net_read, &net_write, w) < 0) return 0;
  }
  else
  {
    t = peer_client[is_tls12] = peer_new(0, is_tls12, 0, 0);
    if (tls_connect_cbs(t, &net_read, &net_write, w, 0) < 0) return 0;
  }
  w->peer = t;
  for (;;)
  {
    int r = tls_handshake(t);
    if (r == 0 || r == -1) return !r;
    if (w->has_ended) return 0;
    poll(&(struct pollfd){ .fd = w->net, .events = POLLIN }, 1, 100);
  }
}

/* Nobody does anything wrong any more: all that is left gets where it is to go. */
static void end_in_order(struct world *w)
{
  app_close(&w->app_w);
  peer_notify(w);
  if (w->net >= 0) shutdown(w->net, SHUT_WR);
  for (int app_open = w->app_r >= 0, peer_open = w->net >= 0; app_open || peer_open; )
  {
    ssize_t a = app_open ? app_read(w) : 0;
    if (!a || (a < 0 && errno != EAGAIN)) app_open = 0;
    ssize_t p = peer_open ? peer_read(w) : 0;
    if (!p || p == -1 || (p < 0 && w->has_ended)) peer_open = 0;
    if (a < 0 && p < 0) pause_for(20);
  }
}

static void session_play(struct world *w)
{
  char s[SESSION_MAX];
  size_t n;
  struct session_end end;
  struct session_join join = { .notify = !(w->flags & FLAG_NO_NOTIFY),
    .strict = !!(w->flags & FLAG_STRICT), .heard = 1 };
  if (w->flags & FLAG_GARBAGE) raw_write(w, 0x17, 20);
  else if (!peer_handshake(w)) return;
  int type = chain_receive(w, s, &n);
  check(type == SESSION_FACTS || type == SESSION_FAILED, "neither FACTS nor FAILED");
  if (type == SESSION_FAILED || w->flags & FLAG_REFUSE) return;
  n = session_join_pack(s, &join);
  chain_send(w, s, n, w->engine_fds);
  close(w->engine_fds[0]);
  close(w->engine_fds[1]);
  w->engine_fds[0] = w->engine_fds[1] = -1;
  check(chain_receive(w, s, &n) == SESSION_JOINED, "no JOINED");
  for (size_t i = 0; i < w->n; i++) event_do(w, w->events[i] & 15, w->events[i] >> 4);
  end_in_order(w);
  app_close(&w->app_r);
  check(chain_receive(w, s, &n) == SESSION_ENDED && session_end_unpack(&end, s, n), "no ENDED");
  if (!w->is_fair || (w->is_deaf && w->flags & FLAG_STRICT)) return;
  check(!end.code && !end.truncated, *end.reason ? end.reason : "a failure without a reason");
  check(end.sent == w->down.sent && w->down.got == w->down.sent, "bytes to the peer are lost");
  check(w->is_deaf || w->up.got == w->up.sent, "bytes to the application are lost");
  check(w->is_deaf || end.received == w->up.sent, "ENDED counts other bytes");
}

static void *world_run(void *arg)
{
  struct world *w = arg;
  char s[SESSION_MAX];
  struct session_start start = { .policy = { .role = w->flags & FLAG_CLIENT
    ? SESSION_CLIENT : SESSION_SERVER, .verify = SESSION_VERIFY_NOTHING } };
  if (!(w->flags & FLAG_CLIENT)) start.policy.verify = SESSION_VERIFY_NAME;
  int const net[2] = { w->engine_net, w->engine_net };
  chain_send(w, s, session_start_pack(s, &start), net);
  close(w->engine_net);
  session_play(w);
  app_close(&w->net);
  app_close(&w->chain);
  app_close(&w->app_w);
  app_close(&w->app_r);
  app_close(&w->engine_fds[0]);
  app_close(&w->engine_fds[1]);
  if (w->peer) tls_free(w->peer);
  return 0;
}

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size)
{
  struct world w = { .events = data + 1, .is_fair = 1 };
  int net[2], chain[2], up[2], down[2];
  pthread_t thread;
  if (!size || size > EVENTS_MAX) return 0;
  prepare();
  w.n = size - 1;
  w.flags = data[0];
  check(socketpair(AF_UNIX, SOCK_STREAM, 0, net) == 0
    && socketpair(AF_UNIX, SOCK_STREAM, 0, chain) == 0 && pipe(up) == 0 && pipe(down) == 0,
    "no descriptors");
  w.net = net[0];
  w.engine_net = net[1];
  w.chain = chain[0];
  w.app_w = down[1];
  w.app_r = up[0];
  w.engine_fds[0] = down[0];
  w.engine_fds[1] = up[1];
  fcntl(w.app_w, F_SETFL, O_NONBLOCK);
  fcntl(w.app_r, F_SETFL, O_NONBLOCK);
  alarm(LIMIT_SECONDS); /* it must end */
  check(pthread_create(&thread, 0, &world_run, &w) == 0, "no thread");
  serve_session(chain[1], &settings, -1);
  close(chain[1]);
  pthread_join(thread, 0);
  alarm(0);
  return 0;
}
