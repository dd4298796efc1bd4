/* ISC licence: see COPYING. */

/* The settings of an engine: the environment, and every file that it names. */

#ifndef TLS_CHAIN_SETTINGS_H
#define TLS_CHAIN_SETTINGS_H

#include <tls.h>

#include "../session/session.h"
#include "failure.h"

/* By role and by what is asked of certificates; null where nothing is loaded. */
struct settings
{
  struct tls *server[SESSION_PEERCERT_REQUIRED + 1];        /* contexts, ready to use */
  struct tls_config *client[SESSION_PEERCERT_REQUIRED + 1]; /* a context is made for each session */
};

/* Loads those for the role and what is asked of certificates by a policy. */
extern int settings_load(struct settings *, struct session_policy const *, struct failure *);

/* The context for a session; a failure if its settings have not been loaded. */
extern struct tls *settings_context(struct settings const *, struct session_policy const *,
  struct failure *);

/* The sentence for settings that libtls refuses as a whole, for reason; names the file. */
extern int settings_refuse(int is_server, char const *reason, struct failure *);

#endif
