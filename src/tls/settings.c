/* ISC licence: see COPYING. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

/*
  Forward secrecy and authenticated encryption only. Spelled out, since LibreTLS takes "secure" to
  mean 47 suites, among them CBC and RSA key transport. The suites of TLS 1.3 are all of this kind;
  neither library lets this string touch them.
*/
static char const default_ciphers[] =
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

char const *config_error(struct tls_config *c)
{
  char const *reason = tls_config_error(c);
  return reason ? reason : "invalid value";
}

int is_shortage(int e)
{
  return e == EMFILE || e == ENFILE || e == ENOMEM;
}

/* The whole of a file; what has no path is empty. */
struct file file_load(struct engine *e, char const *variable, char const *path)
{
  struct file f = { 0 };
  if (!path) return f;
  errno = 0;
  f.s = tls_load_file(path, &f.len, 0);
  if (!f.s) engine_refuse(e, is_shortage(errno) ? EXIT_SYSTEM : EXIT_TLS_CONFIG,
    "unable to read ", variable, " ", path, ": ", strerror(errno));
  if (!f.len) refuse(e, "unable to use ", variable, " ", path, ": the file is empty");
  return f;
}

void file_unload(struct file *f)
{
  if (f->s) tls_unload_file(f->s, f->len);
}

struct tls_config *config_new(struct engine *e)
{
  struct tls_config *c = tls_config_new();
  if (!c) refuse(e, "unable to make a TLS configuration: out of memory");
  return c;
}

char const *config_use(struct tls_config *c, struct tls **tls, int is_server)
{
  if (!(*tls = is_server ? tls_server() : tls_client())) return "out of memory";
  if (tls_configure(*tls, c) == 0) return 0;
  char const *reason = tls_error(*tls);
  return reason ? reason : "unknown reason";
}

void settings_blame(struct engine *e, char const *reason)
{
  keypairs_blame(e);
  char const *crl = getenv("CRLFILE");
  char const *ca = getenv("CAFILE");
  if (ca && crl) refuse(e, "unable to use CAFILE ", ca, " with CRLFILE ", crl, ": ", reason);
  if (ca) refuse(e, "unable to use CAFILE ", ca, ": ", reason);
  if (crl) refuse(e, "unable to use CRLFILE ", crl, ": ", reason);
  refuse(e, "unable to configure TLS: ", reason);
}

static void set(struct engine *e, struct tls_config *c, char const *variable, char const *value,
  int (*f)(struct tls_config *, char const *))
{
  if (value && f(c, value) < 0)
    refuse(e, "unable to use ", variable, " ", value, ": ", config_error(c));
}

static int set_protocols(struct tls_config *c, char const *s)
{
  uint32_t p;
  return tls_config_parse_protocols(&p, s) < 0 ? -1 : tls_config_set_protocols(c, p);
}

static void server(struct engine *e, struct tls_config *c)
{
  char const *sni = getenv("TLS_SNI");
  if (sni && strcmp(sni, "require")) refuse(e, "TLS_SNI is neither unset nor require");
  if (!sni && !getenv("CERTFILE") && !getenv("KEYFILE"))
    refuse(e, "KEYFILE and CERTFILE are not set");
  if (!keypairs_add(e, c)) refuse(e, "no KEYFILE and CERTFILE is set");
  if (e->start.policy.peercert == SESSION_PEERCERT_NONE) return;
  trust_add(e, c);
  if (e->start.policy.peercert == SESSION_PEERCERT_OPTIONAL) tls_config_verify_client_optional(c);
  else tls_config_verify_client(c);
}

/* libtls sends what it is given, and takes a wildcard for a name. One dot at the end is dropped. */
static void check_name(struct engine *e, char const *name)
{
  char s[SESSION_NAME_MAX + 1], copy[SESSION_NAME_MAX + 1];
  size_t n = strlen(name);
  memcpy(s, name, n + 1);
  if (n > 1 && s[n - 1] == '.') s[n - 1] = 0;
  if (!is_address(s) && !(n <= HOSTNAME_MAX && hostname_copy(copy, s)))
    refuse(e, "-k ", name, " is neither a host name nor an IP address");
}

/* Whether to verify, and what of it, is up to each session: see settings_use. */
static void client(struct engine *e, struct tls_config *c)
{
  if (e->start.policy.peercert != SESSION_PEERCERT_NONE && !keypair_add_default(e, c))
    refuse(e, "KEYFILE and CERTFILE are not set: no certificate to show");
  if (e->start.policy.verify != SESSION_VERIFY_NOTHING) trust_add(e, c);
}

void settings_load(struct engine *e, struct settings *settings)
{
  struct tls_config *c = config_new(e);
  char const *ciphers = getenv("TLS_CIPHERS");
  set(e, c, "TLS_PROTOCOLS", getenv("TLS_PROTOCOLS"), &set_protocols);
  set(e, c, "TLS_CIPHERS", ciphers ? ciphers : default_ciphers, &tls_config_set_ciphers);
  set(e, c, "TLS_CURVES", getenv("TLS_CURVES"), &tls_config_set_ecdhecurves);
  set(e, c, "TLS_ALPN", getenv("TLS_ALPN"), &tls_config_set_alpn);
  if (e->start.policy.role == SESSION_CLIENT)
  {
    client(e, c);
    settings->client[e->start.policy.peercert] = c;
    return;
  }
  server(e, c);
  char const *reason = config_use(c, &settings->server[e->start.policy.peercert], 1);
  if (reason) settings_blame(e, reason);
  tls_config_clear_keys(c);
  tls_config_free(c);
}

static struct tls *use_client(struct engine *e, struct tls_config *c)
{
  struct tls *tls;
  if (*e->start.policy.name) check_name(e, e->start.policy.name);
  if (e->start.policy.verify != SESSION_VERIFY_NAME) tls_config_insecure_noverifyname(c);
  if (e->start.policy.verify == SESSION_VERIFY_NOTHING) tls_config_insecure_noverifycert(c);
  if (e->start.policy.staple) tls_config_ocsp_require_stapling(c);
  char const *reason = config_use(c, &tls, 0);
  if (reason) settings_blame(e, reason);
  tls_config_free(c);
  return tls;
}

struct tls *settings_use(struct engine *e, struct settings const *settings)
{
  uint8_t i = e->start.policy.peercert;
  if (e->start.policy.role == SESSION_CLIENT && settings->client[i])
    return use_client(e, settings->client[i]);
  if (e->start.policy.role == SESSION_SERVER && settings->server[i]) return settings->server[i];
  refuse(e, "the resident engine has no settings for this: give the chain an engine of its own");
}
