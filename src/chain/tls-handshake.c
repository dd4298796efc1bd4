/* ISC licence: see COPYING. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>
#include <skalibs/types.h>

#include "../session/session.h"
#include "chain.h"

#define USAGE "tls-handshake [ -c ] [ -k name | -n | -N ] [ -O ] [ -Y | -y ] [ -C fd ] [ -K ms ] " \
  "[ -v verbosity ] [ -6 rfd ] [ -7 wfd ] prog..."

struct options
{
  struct session_start start;
  tain limit; /* how long the handshake may take, then until when */
  int fds[3]; /* the network, for reading and for writing; where the peer's certificates go */
  unsigned int n;
  int named;  /* a client: one of -k, -n and -N was given */
};

static int get_options(struct options *o, int argc, char const *const *argv)
{
  int net[2] = { -1, -1 };
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ck:nNOYyC:K:v:6:7:", &l)) != -1; )
    switch (opt)
    {
      case 'c': o->start.policy.role = SESSION_CLIENT; break;
      case 'k':
        if (!*l.arg || strlen(l.arg) > SESSION_NAME_MAX) strerr_dieusage(EXIT_USAGE, USAGE);
        memcpy(o->start.policy.name, l.arg, strlen(l.arg) + 1);
        o->named = 1;
        break;
      case 'n': o->start.policy.verify = SESSION_VERIFY_CHAIN; o->named = 1; break;
      case 'N': o->start.policy.verify = SESSION_VERIFY_NOTHING; o->named = 1; break;
      case 'O': o->start.policy.staple = 1; break;
      case 'Y': o->start.policy.peercert = SESSION_PEERCERT_OPTIONAL; break;
      case 'y': o->start.policy.peercert = SESSION_PEERCERT_REQUIRED; break;
      case 'C': o->fds[2] = chain_number(l.arg, USAGE); o->n = 3; break;
      case 'K':
      {
        unsigned int ms = chain_number(l.arg, USAGE);
        if (ms) tain_from_millisecs(&o->limit, ms);
        else o->limit = tain_infinite_relative;
        break;
      }
      case 'v':
      {
        unsigned int v = chain_number(l.arg, USAGE);
        o->start.verbosity = v > 2 ? 2 : v;
        break;
      }
      case '6': net[0] = chain_number(l.arg, USAGE); break;
      case '7': net[1] = chain_number(l.arg, USAGE); break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  if (l.ind >= argc) strerr_dieusage(EXIT_USAGE, USAGE);
  for (int i = 0; i < 2; i++)
    o->fds[i] = net[i] >= 0 ? net[i] : i + (o->start.policy.role == SESSION_CLIENT ? 6 : 0);
  return l.ind;
}

/* From now on, if anything goes wrong, nobody who holds the network may go on in plaintext. */
static void fail(struct options const *o, int code, char const *step, char const *reason)
  gccattr_noreturn;
static void fail(struct options const *o, int code, char const *step, char const *reason)
{
  chain_shutdown(o->fds[0], o->fds[1]);
  if (!o->start.verbosity) _exit(code);
  strerr_dief(code, "unable to start TLS: ", step, reason);
}

static void fail_sys(struct options const *o, char const *step)
{
  fail(o, EXIT_SYSTEM, step, strerror(errno));
}

/* What the options lack. It is too late for plaintext: the application has been promised TLS. */
static void check_options(struct options const *o)
{
  int client = o->start.policy.role == SESSION_CLIENT;
  if (client && !o->named)
  {
    chain_shutdown(o->fds[0], o->fds[1]);
    strerr_dief(EXIT_USAGE, "no server name to verify: give -k name, or -n");
  }
  if (client && o->start.policy.verify == SESSION_VERIFY_NOTHING && o->start.verbosity)
    strerr_warnw("-N: anyone may answer as the server, nothing is verified");
  for (unsigned int i = 0; i < o->n; i++)
  {
    if (fcntl(o->fds[i], F_GETFD) == 0) continue;
    int e = errno;
    chain_shutdown(o->fds[0], o->fds[1]);
    errno = e;
    strerr_diefusys(EXIT_USAGE, "use ", i < 2 ? "the network" : "the descriptor of -C");
  }
}

/* The session socket, an engine behind it, which may be one that has been running for long. */
static int engine_open(struct options const *o)
{
  char const *step;
  char const *own = getenv("TLS_ENGINE") ? chain_own_setting() : 0;
  if (own)
  {
    char name[64];
    size_t n = strcspn(own, "=");
    if (n > sizeof name - 1) n = sizeof name - 1;
    memcpy(name, own, n);
    name[n] = 0;
    chain_shutdown(o->fds[0], o->fds[1]);
    strerr_dief(EXIT_USAGE, name,
      " is set, but the engine at TLS_ENGINE has settings of its own: unset one of them");
  }
  int fd = chain_engine_open(&o->limit, &step);
  if (fd < 0) fail_sys(o, step);
  return fd;
}

/* The engine has the last word with the network: a failure is over when it hangs up. */
static void handshake_failed(struct options const *o, struct session *s, unixmessage const *m)
{
  struct session_end end;
  unixmessage none;
  if (!session_end_unpack(&end, m->s, m->len))
    fail(o, EXIT_TLS, "", "malformed message of the engine");
  while (session_receive(s, &none, &o->limit) > 0);
  fail(o, end.code, "", end.reason);
}

/* Runs the handshake. The facts point into *s. */
static void handshake(struct options const *o, struct session *s, struct session_facts *facts)
{
  char msg[SESSION_MAX];
  unixmessage m;
  /* An engine that refuses at the door may have hung up before it was asked: hear it anyway. */
  int r = session_send(s, msg, session_start_pack(msg, &o->start), o->fds, o->n) || errno == EPIPE
    ? session_receive(s, &m, &o->limit) : -1;
  if (r == SESSION_FAILED) handshake_failed(o, s, &m);
  if (!r) fail(o, EXIT_TLS, "", "the engine is gone");
  if (r < 0 && errno == ETIMEDOUT) fail(o, EXIT_HANDSHAKE, "", "the handshake timed out");
  if (r < 0 && errno != EPROTO) fail_sys(o, "unable to use session socket: ");
  if (r != SESSION_FACTS || !session_facts_unpack(facts, m.s, m.len))
    fail(o, EXIT_TLS, "", "malformed message of the engine");
}

static void tell(struct session_facts const *f)
{
  char const *name = f->value[FACT_SERVERNAME];
  char const *peer = f->value[FACT_PEER_HASH];
  strerr_warni("session started: ", f->value[FACT_PROTOCOL], " ", f->value[FACT_CIPHER],
    name ? ", server name " : "", name ? name : "", peer ? ", peer " : "", peer ? peer : "");
}

/* From here on nothing in this process can write plaintext to the network by accident. */
static void network_leave(struct options const *o)
{
  int fd = open2("/dev/null", O_RDWR);
  if (fd < 0 || fd_copy(o->fds[0], fd) < 0 || fd_copy(o->fds[1], fd) < 0)
    fail_sys(o, "unable to replace the network with /dev/null: ");
  if (fd != o->fds[0] && fd != o->fds[1]) close(fd);
}

int main(int argc, char const *const *argv)
{
  struct options o = { .start = { .verbosity = 1 }, .n = 2 };
  struct session s;
  struct session_facts facts;
  char modif[SESSION_MAX + 1024];
  size_t n = 0;
  PROG = "tls-handshake";
  tain_from_millisecs(&o.limit, 30000);
  argv += get_options(&o, argc, argv);
  check_options(&o);

  tain_now_set_stopwatch_g();
  tain_add_g(&o.limit, &o.limit);
  int fd = engine_open(&o);
  if (!session_init(&s, fd, 0)) fail_sys(&o, "unable to use session socket: ");
  handshake(&o, &s, &facts);
  if (o.start.verbosity > 1) tell(&facts);
  network_leave(&o);
  if (o.n > 2) close(o.fds[2]);

  for (int i = 0; i < SESSION_FACTS_N; i++)
  {
    if (!facts.value[i]) continue;
    n += chain_unset(modif + n, session_fact_name[i]);
    modif[n - 1] = '=';
    n += chain_unset(modif + n, facts.value[i]);
  }
  n += chain_setfd(modif + n, "TLS_SESSIONFD", fd);
  n += chain_setfd(modif + n, "TLS_NETRFD", o.fds[0]);
  n += chain_setfd(modif + n, "TLS_NETWFD", o.fds[1]);
  if (uncoe(fd) < 0) fail_sys(&o, "unable to hand on the session socket: ");
  chain_exec(argv, CHAIN_FACTS, modif, n);
}
