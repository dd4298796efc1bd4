/* ISC licence: see COPYING. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>
#include <skalibs/uint64.h>

#include "../session/progname.h"
#include "confine.h"
#include "connection.h"
#include "facts.h"
#include "hooks.h"
#include "keypairs.h"
#include "relay.h"
#include "serve.h"
#include "signer.h"
#include "text.h"

/*
  START comes at once, or it is no chain that has connected. A failure needs its alert to arrive,
  no more; a good session, all of it.
*/
enum { START_SECONDS = 10, LINGER_SECONDS = 30, FAILURE_SECONDS = 5 };

struct served
{
  struct session session;
  struct session_start start;
  char prog[PROGNAME_SIZE]; /* not after the buffers: it would be the only thing in its page */
  struct network net;
  struct connection connection;
  struct relay_buffers buffers;
};

/* What comes after a step. */
enum next
{
  NEXT_STEP,
  NEXT_FAILURE, /* the failure is filled */
  NEXT_ABANDON, /* the chain is gone */
  NEXT_INVALID, /* it is no chain, or one of another version: the failure is for the log only */
};

/* Receives a message of this type. */
static enum next message_receive(struct served *s, enum session_type type, unixmessage *m,
  tain const *deadline, struct failure *why)
{
  int r = session_receive(&s->session, m, deadline);
  if (r == (int)type) return NEXT_STEP;
  if (!r) return NEXT_ABANDON;
  if (r < 0 && errno != EPROTO) failure_sys(why, "unable to use session socket");
  else failure_set(why, EXIT_USAGE, "invalid message on the session socket");
  return NEXT_INVALID;
}

static enum next message_refuse(struct failure *why, char const *what)
{
  failure_set(why, EXIT_USAGE, "invalid ", what, " on the session socket");
  return NEXT_INVALID;
}

/* Whether a server that must know the name has a pair for it. */
static int name_is_served(struct served const *s, char const *name)
{
  if (s->start.policy.role != SESSION_SERVER || !getenv("TLS_SNI")) return 1;
  return name && keypairs_know_name(name);
}

/* A signer of our own has one signature to make, and goes. */
static int signer_attach(struct failure *why)
{
  if (!signer_pid()) return 1;
  int channel = signer_open(1);
  if (channel < 0) return failure_sys(why, "unable to reach the signer");
  signer_leave();
  hooks_use(channel);
  return 1;
}

/* A connection with the settings of START, before a byte of the network is read. */
static int connection_prepare(struct served *s, struct settings const *settings,
  struct failure *why)
{
  struct session_policy const *policy = &s->start.policy;
  struct settings own = { 0 };
  struct failure said;
  if (!settings && !settings_load(&own, policy, why)) return 0;
  struct tls *context = settings_context(settings ? settings : &own, policy, why);
  if (!context) return 0;
  if (!connection_open(&s->connection, context, &s->net, policy, &said))
    return settings_refuse(policy->role == SESSION_SERVER, said.reason, why);
  if (settings) return confine_session(why);
  if (policy->role == SESSION_SERVER) keypairs_warn(0);
  else if (policy->peercert) keypairs_warn(1);
  return signer_attach(why) && confine_engine(why);
}

/* From START to FACTS. */
static enum next serve_handshake(struct served *s, struct settings const *settings,
  struct failure *why)
{
  char msg[SESSION_MAX], text[FACTS_TEXT_SIZE];
  unixmessage m;
  struct session_facts facts;
  tain limit;
  tain_addsec_g(&limit, START_SECONDS);
  enum next next = message_receive(s, SESSION_START, &m, &limit, why);
  if (next != NEXT_STEP) return next;
  network_init(&s->net, m.fds[0], m.fds[1]);
  int chain = m.nfds > 2 ? m.fds[2] : -1;
  if (!session_start_unpack(&s->start, m.s, m.len)) return message_refuse(why, "START");
  progname_set(s->prog, "tls-engine", s->start.peer);
  if (!connection_prepare(s, settings, why)) return NEXT_FAILURE;

  enum connection_result r = connection_handshake(&s->connection, s->session.receiver.fd, why);
  hooks_end();
  if (r == CONNECTION_ABANDONED) return NEXT_ABANDON;
  if (r == CONNECTION_FAILED) return NEXT_FAILURE;
  int server = s->start.policy.role == SESSION_SERVER;
  if (!facts_fill(&facts, s->connection.tls, server, text, why)) return NEXT_FAILURE;
  if (!name_is_served(s, facts.value[FACT_SERVERNAME]))
  {
    failure_set(why, EXIT_HANDSHAKE, "the client named no known server");
    return NEXT_FAILURE;
  }
  if (chain >= 0 && !facts_write_chain(s->connection.tls, chain, why)) return NEXT_FAILURE;
  return session_send(&s->session, msg, session_facts_pack(msg, &facts), 0, 0)
    ? NEXT_STEP : NEXT_ABANDON;
}

/* Waits for JOIN, as long as a stage between takes; plain is where the application's bytes are. */
static enum next serve_join(struct served *s, struct session_join *join, int *plain,
  struct failure *why)
{
  unixmessage m;
  char msg = SESSION_JOINED;
  enum next next = message_receive(s, SESSION_JOIN, &m, &tain_infinite, why);
  if (next == NEXT_ABANDON && s->start.verbosity)
    strerr_warnw("session not joined: a stage refused it, or tls-io is missing");
  if (next != NEXT_STEP) return next;
  plain[0] = m.fds[0];
  plain[1] = m.fds[1];
  if (!session_join_unpack(join, m.s, m.len)) return message_refuse(why, "JOIN");
  session_send(&s->session, &msg, 1, 0, 0);
  return NEXT_STEP;
}

/* Tells the log, as far as it wants to know, and nobody stays to hear it from ENDED. */
static void end_tell(struct served const *s, struct session_end const *end, int heard)
{
  char received[UINT64_FMT], sent[UINT64_FMT];
  received[uint64_fmt(received, end->received)] = 0;
  sent[uint64_fmt(sent, end->sent)] = 0;
  if (s->start.verbosity > 1)
    strerr_warni("session ended: ", received, " bytes received, ", sent, " sent, ",
      end->code ? "failed" : end->truncated ? "truncated by the peer" : "closed by both sides");
  if (!s->start.verbosity || heard) return;
  if (end->code) strerr_warnw("session failed: ", end->reason);
  else if (end->truncated) strerr_warnw("session truncated: ", end->reason);
}

/* From JOIN to ENDED, and then as long as the peer needs to take the last bytes. */
static int serve_application(struct served *s, struct session_join const *join, int const *plain,
  int lingers, unsigned int place)
{
  char msg[SESSION_MAX];
  struct session_end end = { 0 };
  int peer_ended = relay_run(&s->connection, &s->buffers, plain, join, &end);
  session_send(&s->session, msg, session_end_pack(msg, SESSION_ENDED, &end), 0, 0);
  end_tell(s, &end, join->heard);
  if (lingers >= 0 && !network_is_over(&s->net, peer_ended))
    fd_write(lingers, (char *)&place, sizeof place);
  network_linger(&s->net, peer_ended, end.code ? FAILURE_SECONDS : LINGER_SECONDS);
  return end.code;
}

static void send_failed(struct session *s, int code, char const *reason)
{
  char msg[SESSION_MAX];
  struct session_end end = { .code = code };
  TEXT_JOIN(end.reason, reason);
  session_send(s, msg, session_end_pack(msg, SESSION_FAILED, &end), 0, 0);
}

int serve_session(int fd, struct settings const *settings, int lingers, unsigned int place)
{
  static struct served s; /* once in a process; a page that is not used costs nothing */
  struct failure why;
  struct session_join join;
  int plain[2];
  s.net.rfd = s.net.wfd = -1;
  tain_now_set_stopwatch_g();
  if (!session_init(&s.session, fd, 1))
  {
    strerr_warnwu1sys("use session socket");
    return EXIT_SYSTEM;
  }
  enum next next = serve_handshake(&s, settings, &why);
  if (next == NEXT_STEP) next = serve_join(&s, &join, plain, &why);
  else if (next == NEXT_ABANDON && s.start.verbosity > 1)
    strerr_warni("session abandoned: the chain has ended before the handshake has");
  if (next == NEXT_STEP) return serve_application(&s, &join, plain, lingers, place);
  if (next == NEXT_FAILURE)
  {
    send_failed(&s.session, why.code, why.reason);
    network_linger(&s.net, 0, FAILURE_SECONDS);
    return why.code;
  }
  network_hang_up(&s.net);
  if (next == NEXT_INVALID) strerr_dief(why.code, why.reason);
  return 0;
}

void serve_nobody(int fd, char const *reason)
{
  struct session s;
  if (session_init(&s, fd, 1)) send_failed(&s, EXIT_SYSTEM, reason);
  session_free(&s);
  close(fd);
}
