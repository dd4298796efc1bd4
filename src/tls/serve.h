/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_SERVE_H
#define TLS_CHAIN_SERVE_H

#include "settings.h"

/*
  Serves one session, from START to ENDED, on the session socket fd: the only place that hears a
  chain and tells it how a session went. settings is null for an engine of the chain's own, which
  loads what START asks for, and then confines itself. lingers is where a session that has only to
  wait for its peer writes the number of its place; -1 for nowhere. Returns an exit code.
*/
extern int serve_session(int fd, struct settings const *settings, int lingers,
  unsigned int place);

/* Hangs up on a chain that is not served, and tells it why. Closes fd. */
extern void serve_nobody(int fd, char const *reason);

#endif
