/* ISC licence: see COPYING. */

/* PROG, with what tells apart the lines of programs that log to one place. */

#ifndef TLS_CHAIN_PROGNAME_H
#define TLS_CHAIN_PROGNAME_H

#include <skalibs/types.h>

#include "session.h"

#define PROGNAME_SIZE (32 + PID_FMT + SESSION_PEER_MAX)

/*
  Sets PROG to "name: pid n", or if peer is not empty to "name: pid n: peer", written to s, which
  must live as long as PROG is used. To be called again after a fork.
*/
extern void progname_set(char s[PROGNAME_SIZE], char const *name, char const *peer);

#endif
