/* ISC licence: see COPYING. */

/* A TLS connection on a network: the handshake, then the reads and writes of libtls. */

#ifndef TLS_CHAIN_CONNECTION_H
#define TLS_CHAIN_CONNECTION_H

#include <stddef.h>

#include <tls.h>

#include "../session/session.h"
#include "failure.h"
#include "network.h"

struct connection
{
  struct tls *context;
  struct tls *tls;      /* a server's is made of the context, a client's is the context */
  struct network *net;
  int is_server;
  int has_begun;        /* the peer's first byte has been seen, and it may begin a handshake */
  int injected;         /* bytes waited before TLS, that cannot be part of it */
  int is_tls12;         /* the handshake is done, and a record shows what is in it */
  int renegotiation;    /* the peer has asked for one */
  unsigned char header[5]; /* of the record that libtls reads */
  unsigned int have;    /* bytes of it */
  size_t left;          /* bytes that the record still has */
};

/*
  Makes a connection of the context, without a byte on the network. It is here that libtls looks at
  a client's files, so this comes before privileges are dropped. Returns as struct failure says; the
  reason is what libtls says.
*/
extern int connection_open(struct connection *, struct tls *context, struct network *,
  struct session_policy const *, struct failure *);

enum connection_result
{
  CONNECTION_DONE,
  CONNECTION_FAILED,    /* the failure is filled */
  CONNECTION_ABANDONED, /* chain is readable: it is gone, or does not wait for its turn */
};

/* Runs the handshake, as long as nothing comes from the descriptor chain. */
extern enum connection_result connection_handshake(struct connection *, int chain,
  struct failure *);

#endif
