/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_CONFINE_H
#define TLS_CHAIN_CONFINE_H

#include "failure.h"

/*
  Gives up what the handshake does not need: core dumps, ptrace, new privileges, and if TLS_UID
  and TLS_GID are set the user, the group and all supplementary groups, for good; then, and for
  who is not root, every capability.
*/
extern int confine(struct failure *);

#endif
