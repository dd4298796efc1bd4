/* ISC licence: see COPYING. */

/* The key pairs that the environment names: KEYFILE, CERTFILE, OCSPFILE, KEYFILE:name... */

#ifndef TLS_CHAIN_KEYPAIRS_H
#define TLS_CHAIN_KEYPAIRS_H

#include <tls.h>

#include "failure.h"

/*
  Adds them to a configuration, with stand-ins for the keys, which the signer loads (signer.h): the
  default one first, then those with a name in full, then the wildcards, each kind by name: libtls
  serves the first that is good for the name that a client asks for, and the order of an environment
  means nothing. only_default: a client has no other to show. That there is none is a failure.
*/
extern int keypairs_add(struct tls_config *, int only_default, struct failure *);

/*
  Whether each of the key pairs that were added, by itself, is one that libtls takes; if not, the
  failure names its files, and says what is wrong with them. libtls does not tell which it is.
*/
extern int keypairs_check(int only_default, struct failure *);

/*
  Warns of each certificate that has expired or is not valid yet. It is served all the same: a peer
  may have another clock, or not look. To be called once where the pairs are added several times.
*/
extern void keypairs_warn(int only_default);

/* Whether the environment has a pair for name, which is in lower case. */
extern int keypairs_know_name(char const *name);

#endif
