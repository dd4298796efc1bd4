/* ISC licence: see COPYING. */

/* Whom to trust: CAFILE, CADIR, CRLFILE, or what the system trusts. */

#ifndef TLS_CHAIN_TRUST_H
#define TLS_CHAIN_TRUST_H

#include <limits.h>

#include <tls.h>

#include "failure.h"

/*
  Adds trust anchors and revocation lists to a configuration. A server must have been told whom to
  trust; a client trusts whom the system trusts where it has not been.
*/
extern int trust_add(struct tls_config *, int is_server, struct failure *);

/*
  What the system trusts: libtls's default file, whose path is returned, or better, as it is not
  read whole, the directory "certs" that OpenSSL keeps beside it.
*/
extern char const *trust_default(char dir[PATH_MAX]);

/* The sentence for a configuration with them that libtls refuses, for reason. */
extern int trust_refuse(char const *reason, struct failure *);

#endif
