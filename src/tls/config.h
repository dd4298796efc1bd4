/* ISC licence: see COPYING. */

/* Configurations of libtls, with failures that say what libtls says. */

#ifndef TLS_CHAIN_CONFIG_H
#define TLS_CHAIN_CONFIG_H

#include <tls.h>

#include "failure.h"

/* A new, empty configuration, the caller's; null if there is no memory for it. */
extern struct tls_config *config_new(struct failure *);

/* The text of the last error of a configuration; never null. */
extern char const *config_error(struct tls_config *);

/*
  Makes a context of a configuration, the caller's. Where libtls does not take it, the reason is
  nothing but what libtls says, with code EXIT_TLS_CONFIG.
*/
extern int config_use(struct tls_config *, struct tls **context, int is_server, struct failure *);

#endif
