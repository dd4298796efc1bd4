/* ISC licence: see COPYING. */

/* The two directions between the network and the application. */

#ifndef TLS_CHAIN_RELAY_H
#define TLS_CHAIN_RELAY_H

#include "../session/session.h"
#include "buf.h"
#include "connection.h"

/* Where the plaintext is on its way; large, and so the caller's. */
struct relay_buffers
{
  struct buf up;   /* from the peer to the application */
  struct buf down; /* and from the application to the peer */
};

/*
  Moves bytes between the network and the application, whose descriptors are plain: the first is
  read from, the second written to, both are closed in the end. Returns when both directions have
  ended and the peer has taken the application's last byte, or when something has failed or been
  lost; *end says how it went. Returns whether the peer has said its last word.
*/
extern int relay_run(struct connection *, struct relay_buffers *, int const *plain,
  struct session_join const *, struct session_end *end);

#endif
