/* ISC licence: see COPYING. */

#include "config.h"

struct tls_config *config_new(struct failure *why)
{
  struct tls_config *c = tls_init() == 0 ? tls_config_new() : 0; /* libcrypto reads no file then */
  if (!c) failure_sys(why, "unable to make a TLS configuration");
  return c;
}

char const *config_error(struct tls_config *c)
{
  char const *reason = tls_config_error(c);
  return reason ? reason : "invalid value";
}

int config_use(struct tls_config *c, struct tls **context, int is_server, struct failure *why)
{
  *context = is_server ? tls_server() : tls_client();
  if (!*context) return failure_sys(why, "unable to make a TLS context");
  if (tls_configure(*context, c) == 0) return 1;
  char const *reason = tls_error(*context);
  failure_set(why, EXIT_TLS_CONFIG, reason ? reason : "unknown reason");
  tls_free(*context);
  *context = 0;
  return 0;
}
