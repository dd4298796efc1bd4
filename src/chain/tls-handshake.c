/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/socket.h>
#include <skalibs/tai.h>
#include <skalibs/types.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "../session/session.h"
#include "chain.h"

#define USAGE "tls-handshake [ -c ] [ -k name | -n | -N ] [ -O ] [ -Y | -y ] [ -C fd ] [ -K ms ] " \
  "[ -v verbosity ] [ -6 rfd ] [ -7 wfd ] prog..."

struct options
{
  struct session_start start;
  struct chain_network net;
  unsigned int ms; /* how long the handshake may take; 0 is for ever */
  int pem;         /* where the peer's certificates go; -1 is nowhere */
  int named;       /* a client: one of -k, -n and -N was given */
  int bad;         /* the usage is wrong. Found out later: where the network is has to be known */
};

static int options_get(struct options *o, int argc, char const *const *argv)
{
  struct session_policy *p = &o->start.policy;
  int net[2] = { -1, -1 };
  unsigned int n = 0;
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ck:nNOYyC:K:v:6:7:", &l)) != -1; )
    switch (opt)
    {
      case 'c': p->role = SESSION_CLIENT; break;
      case 'k':
        o->named = 1;
        if (!*l.arg || strlen(l.arg) > SESSION_NAME_MAX) o->bad = 1;
        else memcpy(p->name, l.arg, strlen(l.arg) + 1);
        break;
      case 'n': p->verify = SESSION_VERIFY_CHAIN; o->named = 1; break;
      case 'N': p->verify = SESSION_VERIFY_NOTHING; o->named = 1; break;
      case 'O': p->staple = 1; break;
      case 'Y': p->peercert = SESSION_PEERCERT_OPTIONAL; break;
      case 'y': p->peercert = SESSION_PEERCERT_REQUIRED; break;
      case 'C': o->bad |= !chain_scan(l.arg, &n); o->pem = n; break;
      case 'K': o->bad |= !chain_scan(l.arg, &o->ms); break;
      case 'v': o->bad |= !chain_scan(l.arg, &n); o->start.verbosity = n > 2 ? 2 : n; break;
      case '6': o->bad |= !chain_scan(l.arg, &n); net[0] = n; break;
      case '7': o->bad |= !chain_scan(l.arg, &n); net[1] = n; break;
      default: o->bad = 1;
    }
  o->net = p->role == SESSION_CLIENT ? CHAIN_CLIENT : CHAIN_SERVER;
  if (net[0] >= 0) o->net.rfd = net[0];
  if (net[1] >= 0) o->net.wfd = net[1];
  return l.ind;
}

/* Tells the application, which may or may not listen, why the handshake failed. */
static void application_tell(char const *reason)
{
  unsigned int fd;
  char const *s = getenv("TLS_REASONFD");
  if (s && chain_scan(s, &fd)) chain_say(fd_write(fd, reason, strlen(reason)));
}

/*
  TLS cannot be had, for a reason of the session's, on which -v 0 is silent. The application is told
  what is wrong between the peer and us, and not what is wrong here: that is for the log.
*/
static void session_fail(struct options const *o, int code, char const *step, char const *reason)
  gccattr_noreturn;
static void session_fail(struct options const *o, int code, char const *step, char const *reason)
{
  if (code == EXIT_HANDSHAKE) application_tell(reason);
  if (o->start.verbosity) chain_die(&o->net, code, "unable to start TLS: ", step, reason);
  chain_shut(&o->net);
  _exit(code);
}

static void session_fail_sys(struct options const *o, char const *step) gccattr_noreturn;
static void session_fail_sys(struct options const *o, char const *step)
{
  session_fail(o, EXIT_SYSTEM, step, strerror(errno));
}

/*
  What is wrong with the options, or next, the program, if there is none. It is too late for
  plaintext: TLS has been promised.
*/
static void options_check(struct options const *o, char const *next)
{
  struct session_policy const *p = &o->start.policy;
  int client = p->role == SESSION_CLIENT;
  if (o->bad) chain_dieusage(&o->net, USAGE);
  if (!next) chain_die(&o->net, EXIT_USAGE, "no program: tls-io goes after tls-handshake");
  if (!client && (o->named || p->staple))
    chain_die(&o->net, EXIT_USAGE, "-k, -n, -N and -O are for a client: give -c as well");
  if (client && !o->named)
    chain_die(&o->net, EXIT_USAGE, "no server name to verify: give -k name, or -n");
  if (client && p->verify == SESSION_VERIFY_NOTHING && o->start.verbosity)
    chain_say(strerr_warnw("-N: anyone may answer as the server, nothing is verified"));
  if (o->pem >= 0 && fcntl(o->pem, F_GETFD) < 0)
    chain_diesys(&o->net, EXIT_USAGE, "use the descriptor of -C");
}

/* What is no network. /dev/null is what an earlier tls-handshake leaves behind. */
static void network_check(struct options const *o)
{
  char netid[CHAIN_NETID_SIZE], fmt[UINT_FMT];
  size_t has_id[2];
  chain_network_check(&o->net, "TLS_NETID", &o->net);
  for (int i = 0; i < 2; i++)
  {
    int fd = i ? o->net.wfd : o->net.rfd;
    fmt[uint_fmt(fmt, fd)] = 0;
    if (!(has_id[i] = chain_netid(netid, fd)) && errno != ENOTSOCK)
      chain_diesys(&o->net, EXIT_USAGE, "use descriptor ", fmt, " as the network");
  }
  for (int i = 0; i < 2; i++)
  {
    int fd = i ? o->net.wfd : o->net.rfd;
    if (has_id[i]) continue;
    fmt[uint_fmt(fmt, fd)] = 0;
    if (getenv("TLS_SESSIONFD"))
      chain_die(&o->net, EXIT_USAGE, "descriptor ", fmt, " is not a network: "
        "has tls-handshake run before? tls-io goes after it");
    chain_die(&o->net, EXIT_USAGE, "descriptor ", fmt,
      isatty(fd) ? " is a terminal, not a network" : " is not a network: neither socket nor pipe");
  }
}

/* A request that is still in the control socket is one that tls-await should have taken. */
static void order_check_request(struct options const *o)
{
  char const *s = chain_getenv(&o->net, "TLS_CTLFD");
  unsigned int fd;
  if (s && chain_scan(s, &fd) && recv(fd, &(char){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
    chain_die(&o->net, EXIT_USAGE,
      "the application's request has not been read: tls-handshake goes after tls-await");
}

/* An engine that has been there has settings of its own: dies if there is one for another. */
static void engine_alone(struct options const *o, char const *engine)
{
  char name[64];
  char const *own = chain_own_setting();
  if (!own) return;
  size_t n = strcspn(own, "=");
  if (n > sizeof name - 1) n = sizeof name - 1;
  memcpy(name, own, n);
  name[n] = 0;
  chain_die(&o->net, EXIT_USAGE, name, " is set, but the engine at ", engine,
    " has settings of its own: unset one of them");
}

static int door_find(struct options const *o)
{
  int door = chain_getfd(&o->net, "TLS_ENGINEFD", "");
  if (!chain_is_door(door)) chain_die(&o->net, EXIT_USAGE, "the descriptor of TLS_ENGINEFD "
    "is not that of tls-engine-open: has a program in between closed it?");
  return door;
}

/* The session socket, an engine behind it, which may be one that has been running for long. */
static int engine_open(struct options const *o, tain const *deadline)
{
  char const *step, *path = chain_getenv(&o->net, "TLS_ENGINE");
  int door = chain_getenv(&o->net, "TLS_ENGINEFD") ? door_find(o) : -1;
  if (path && door >= 0) chain_die(&o->net, EXIT_USAGE,
    "TLS_ENGINE and TLS_ENGINEFD are set, and name two engines: unset one of them");
  if (path || door >= 0) engine_alone(o, path ? "TLS_ENGINE" : "TLS_ENGINEFD");
  if (path && strlen(path) > IPCPATH_MAX)
    chain_die(&o->net, EXIT_USAGE, "TLS_ENGINE is too long for the path of a socket: ", path);
  int fd = door >= 0 ? chain_engine_ask(door, deadline, &step)
    : path ? chain_engine_connect(path, deadline, &step) : chain_engine_spawn(&step);
  if (door >= 0) close(door);
  if (fd >= 0) return fd;
  if (path && o->start.verbosity)
    chain_diesys(&o->net, EXIT_SYSTEM, "start TLS: unable to connect to TLS_ENGINE ", path);
  session_fail_sys(o, step);
}

/* The engine has the last word with the network: a failure is over when it hangs up. */
static void handshake_failed(struct options const *o, struct session *s, unixmessage const *m,
  tain const *deadline)
{
  struct session_end end;
  unixmessage none;
  if (!session_end_unpack(&end, m->s, m->len))
    session_fail(o, EXIT_TLS, "", "malformed message from the engine");
  while (session_receive(s, &none, deadline) > 0);
  session_fail(o, end.code, "", end.reason);
}

/* Runs the handshake. The facts point into *s. */
static void handshake_run(struct options const *o, struct session *s, struct session_facts *facts,
  tain const *deadline)
{
  char msg[SESSION_MAX];
  int const fds[3] = { o->net.rfd, o->net.wfd, o->pem };
  unixmessage m;
  /* An engine that refuses at the door may have hung up before it was asked: hear it anyway. */
  int r = session_send(s, msg, session_start_pack(msg, &o->start), fds, o->pem < 0 ? 2 : 3)
    || errno == EPIPE ? session_receive(s, &m, deadline) : -1;
  if (r == SESSION_FAILED) handshake_failed(o, s, &m, deadline);
  if (!r) session_fail(o, EXIT_TLS, "", "the engine exited unexpectedly");
  if (r < 0 && errno == ETIMEDOUT) session_fail(o, EXIT_HANDSHAKE, "", "the handshake timed out");
  if (r < 0 && errno != EPROTO) session_fail_sys(o, "unable to use session socket: ");
  if (r != SESSION_FACTS || !session_facts_unpack(facts, m.s, m.len))
    session_fail(o, EXIT_TLS, "", "malformed message from the engine");
}

static void session_announce(struct session_facts const *f)
{
  char const *name = f->value[FACT_SERVERNAME];
  char const *peer = f->value[FACT_PEER_HASH];
  chain_say(strerr_warni("session started: ", f->value[FACT_PROTOCOL], " ", f->value[FACT_CIPHER],
    name ? ", server name " : "", name ? name : "", peer ? ", peer " : "", peer ? peer : ""));
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE], modif[SESSION_MAX + 1024];
  struct options o = { .start = { .verbosity = 1 }, .ms = 30000, .pem = -1 };
  struct session s;
  struct session_facts facts;
  size_t n = 0;
  tain deadline = TAIN_INFINITE;
  progname_set(prog, "tls-handshake", "");
  help_give(argc, argv, USAGE);
  argv += options_get(&o, argc, argv);
  chain_unlog(&o.net);
  options_check(&o, *argv);
  network_check(&o);
  order_check_request(&o);
  chain_peer(o.start.peer);

  tain_now_set_stopwatch_g();
  if (o.ms)
  {
    tain_from_millisecs(&deadline, o.ms);
    tain_add_g(&deadline, &deadline);
  }
  int fd = engine_open(&o, &deadline);
  if (!session_init(&s, fd, 0)) session_fail_sys(&o, "unable to use session socket: ");
  handshake_run(&o, &s, &facts, &deadline);
  if (o.start.verbosity > 1) session_announce(&facts);
  /* From here on nothing in this process can write plaintext to the network by accident. */
  if (!chain_network_leave(o.net.rfd) || !chain_network_leave(o.net.wfd))
    session_fail_sys(&o, "unable to replace the network with /dev/null: ");
  if (o.pem >= 0) close(o.pem);

  for (int i = 0; i < SESSION_FACTS_N; i++)
    if (facts.value[i]) n += chain_set(modif + n, session_fact_name[i], facts.value[i]);
  n += chain_setfd(modif + n, "TLS_SESSIONFD", fd);
  n += chain_setfd(modif + n, "TLS_NETRFD", o.net.rfd);
  n += chain_setfd(modif + n, "TLS_NETWFD", o.net.wfd);
  if (uncoe(fd) < 0) session_fail_sys(&o, "unable to hand on the session socket: ");
  chain_exec(&o.net, argv, CHAIN_FACTS | CHAIN_DOOR, modif, n);
}
