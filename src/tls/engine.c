/* ISC licence: see COPYING. */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/strerr.h>
#include <skalibs/types.h>
#include <skalibs/uint64.h>

#include "engine.h"

/*
  START comes at once, or it is no chain that has connected. A failure needs its alert to arrive,
  no more; a good session, all of it.
*/
enum { START_SECONDS = 10, LINGER_SECONDS = 30, FAILURE_SECONDS = 5 };

void engine_refusev(struct engine *e, int code, char const *const *parts)
{
  char msg[SESSION_MAX];
  struct session_end end = { .code = code };
  text_join(end.reason, sizeof end.reason, parts);
  /* libtls ends its text with that of errno, also when there is none to speak of */
  text_cut(end.reason, ": ", strerror(0));
  if (e->session.receiver.fd < 0) strerr_dief(code, end.reason);
  session_send(&e->session, msg, session_end_pack(msg, SESSION_FAILED, &end), 0, 0);
  network_linger(&e->net, FAILURE_SECONDS);
  _exit(code);
}

void engine_abandon(struct engine *e)
{
  network_linger(&e->net, 0);
  _exit(0);
}

/* Receives a message of this type, or ends: quietly if the chain is gone. */
static void receive(struct engine *e, enum session_type type, unixmessage *m, tain const *deadline)
{
  int r = session_receive(&e->session, m, deadline);
  if (r == (int)type) return;
  if (!r) engine_abandon(e);
  int saved = errno;
  network_linger(&e->net, 0);
  errno = saved;
  if (r < 0 && errno != EPROTO) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  strerr_dief(EXIT_USAGE, "invalid message on the session socket");
}

static void tell(struct engine const *e, struct session_end const *end, int heard)
{
  char received[UINT64_FMT], sent[UINT64_FMT];
  received[uint64_fmt(received, end->received)] = 0;
  sent[uint64_fmt(sent, end->sent)] = 0;
  if (e->start.verbosity > 1)
    strerr_warni("session ended: ", received, " bytes received, ", sent, " sent, ",
      end->code ? "failed" : end->truncated ? "cut by the peer" : "closed by both sides");
  if (!e->start.verbosity || heard) return;
  if (end->code) strerr_warnw("session failed: ", end->reason);
  else if (end->truncated) strerr_warnw("session cut: ", end->reason);
}

struct engine *engine_new(void)
{
  static struct engine e; /* never more than one at a time; a page that is not used costs nothing */
  e.session.receiver.fd = e.net.rfd = e.net.wfd = -1;
  return &e;
}

static struct tls *own_settings(struct engine *e)
{
  struct settings settings = { 0 };
  settings_load(e, &settings);
  return settings_use(e, &settings);
}

int engine_serve(struct engine *e, int fd, struct settings const *settings)
{
  char msg[SESSION_MAX], text[FACTS_TEXT_MAX];
  unixmessage m;
  struct session_facts facts;
  struct session_join join;
  struct session_end end = { 0 };
  char const *reason;
  tain limit;
  tain_now_set_stopwatch_g();
  if (!session_init(&e->session, fd, 1)) strerr_diefusys(EXIT_SYSTEM, "use session socket");

  tain_addsec_g(&limit, START_SECONDS);
  receive(e, SESSION_START, &m, &limit);
  if (!session_start_unpack(&e->start, m.s, m.len))
    strerr_dief(EXIT_USAGE, "invalid START on the session socket");
  network_init(&e->net, m.fds[0], m.fds[1], e->start.policy.role == SESSION_SERVER);
  int chain = m.nfds > 2 ? m.fds[2] : -1;
  e->tls = settings ? settings_use(e, settings) : own_settings(e);
  handshake_begin(e);
  reason = settings ? 0 : confine();
  if (reason) engine_refuse(e, EXIT_SYSTEM, "unable to ", reason, ": ", strerror(errno));

  reason = handshake(e);
  if (!reason) reason = facts_fill(&facts, e->tls, text);
  if (!reason && chain >= 0) reason = facts_write_chain(e->tls, chain);
  if (reason) engine_refuse(e, EXIT_HANDSHAKE, reason, handshake_hint(reason));
  if (!session_send(&e->session, msg, session_facts_pack(msg, &facts), 0, 0)) engine_abandon(e);

  receive(e, SESSION_JOIN, &m, &tain_infinite);
  if (!session_join_unpack(&join, m.s, m.len))
    strerr_dief(EXIT_USAGE, "invalid JOIN on the session socket");
  msg[0] = SESSION_JOINED;
  session_send(&e->session, msg, 1, 0, 0);
  relay(e, m.fds, &join, &end);
  network_linger(&e->net, end.code ? FAILURE_SECONDS : LINGER_SECONDS);
  if (e->net.lost && !end.code)
  {
    end.code = EXIT_TLS;
    TEXT_JOIN(end.reason, "the peer did not take everything: ", strerror(e->net.write_errno));
  }
  session_send(&e->session, msg, session_end_pack(msg, SESSION_ENDED, &end), 0, 0);
  tell(e, &end, join.heard);
  return end.code;
}
