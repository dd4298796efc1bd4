/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_CONFINE_H
#define TLS_CHAIN_CONFINE_H

#include "failure.h"

/*
  Gives up what the handshake does not need: if TLS_UID and TLS_GID are set the user, the group and
  all supplementary groups, for good; the working directory; core dumps, ptrace, new privileges; and
  every capability, unless it is still root.
*/
extern int confine_engine(struct failure *);

#endif
