/* ISC licence: see COPYING. */

/* What is known of a session after the handshake. */

#ifndef TLS_CHAIN_FACTS_H
#define TLS_CHAIN_FACTS_H

#include <tls.h>

#include "../session/session.h"
#include "failure.h"

#define FACTS_TEXT_SIZE (384 + 2 * (SESSION_FACT_MAX + 1))

/*
  Fills the facts, checked; those of the client only for a server. The strings live as long as
  text, of FACTS_TEXT_SIZE bytes, and the connection. A failure is a reason why the peer cannot be
  let in.
*/
extern int facts_fill(struct session_facts *, struct tls *, int server, char *text,
  struct failure *);

/*
  Writes the peer's certificates in PEM to fd, without waiting for a reader: what fits into a pipe
  or a file. Closes fd.
*/
extern int facts_write_chain(struct tls *, int fd, struct failure *);

#endif
