/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_REHEARSE_H
#define TLS_CHAIN_REHEARSE_H

#include <tls.h>

#include "failure.h"

/*
  Runs handshakes of a server with itself, in memory, by TLS 1.2 and 1.3. Whatever libtls does only
  once in a process is then done, for all processes that are forked from this one. A protocol that
  is not allowed is skipped: no failure matters.
*/
extern void rehearse_server(struct tls *server);

/* The same for a client, whose files libtls looks at as it connects. */
extern int rehearse_client(struct tls_config *, struct failure *);

#endif
