/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <skalibs/posixplz.h>

#include "config.h"
#include "../session/hostname.h"
#include "keypairs.h"
#include "settings.h"
#include "tickets.h"
#include "trust.h"

/*
  Forward secrecy and authenticated encryption only. Spelled out, since LibreTLS takes "secure" to
  mean 47 suites, among them CBC and RSA key transport. The suites of TLS 1.3 are all of this kind;
  neither library lets this string touch them.
*/
static char const default_ciphers[] =
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/*
  First a hybrid: what is recorded today is then no good to a quantum computer of tomorrow. Without
  it, this is libtls's own list.
*/
#define HYBRID "X25519MLKEM768"
static char const default_curves[] = HYBRID ",X25519,P-256,P-384";

/* The sentence for a variable, a string of the environment, that is empty. */
static int empty_refuse(char const *s, size_t len, struct failure *why)
{
  char name[SESSION_NAME_MAX + 1];
  if (len > sizeof name - 1) len = sizeof name - 1;
  memcpy(name, s, len);
  name[len] = 0;
  return failure_set(why, EXIT_TLS_CONFIG, name,
    " is set to nothing: unset it, or give it a value");
}

/* Empty is not unset: a script that sets a variable to nothing has lost what should be in it. */
static int empty_check(struct failure *why)
{
  static char const *const names[] =
  {
    "KEYFILE", "CERTFILE", "OCSPFILE", "CAFILE", "CADIR", "CRLFILE",
    "TLS_SNI", "TLS_PROTOCOLS", "TLS_CIPHERS", "TLS_CURVES", "TLS_ALPN", "TLS_UID", "TLS_GID",
  };
  for (char const *const *e = (char const *const *)environ; *e; e++)
    for (unsigned int i = 0; i < sizeof names / sizeof *names; i++)
    {
      size_t n = strlen(names[i]), len = strcspn(*e, "=");
      if (strncmp(*e, names[i], n) || (*e)[len] != '=' || (*e)[len + 1]) continue;
      if (len == n || (i < 3 && (*e)[n] == ':'))
        return empty_refuse(*e, len, why);
    }
  return 1;
}

static int setting_apply(struct tls_config *c, char const *variable, char const *value,
  int (*f)(struct tls_config *, char const *), char const *hint, struct failure *why)
{
  if (!value || f(c, value) == 0) return 1;
  return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ", value, ": ",
    config_error(c), hint);
}

/* Whether an older version is asked for: libtls knows the words, and takes them for TLS 1.2. */
static int names_old_version(char const *list)
{
  for (char const *s = list; *s; s++)
    if (!strncasecmp(s, "tlsv1.0", 7) || !strncasecmp(s, "tlsv1.1", 7))
      if (s == list || s[-1] != '!') return 1;
  return 0;
}

static int protocols_set(struct tls_config *c, char const *s)
{
  uint32_t p;
  if (names_old_version(s) || tls_config_parse_protocols(&p, s) < 0) return -1;
  if (!(p & (TLS_PROTOCOL_TLSv1_2 | TLS_PROTOCOL_TLSv1_3))) return -1; /* would serve nobody */
  return tls_config_set_protocols(c, p);
}

static int speaks_tls13(void)
{
  uint32_t p = TLS_PROTOCOLS_DEFAULT;
  char const *s = getenv("TLS_PROTOCOLS");
  return (!s || tls_config_parse_protocols(&p, s) == 0) && p & TLS_PROTOCOL_TLSv1_3;
}

/*
  A libtls that does not know the hybrid refuses the list that has it, and that error stays in the
  configuration: this is the last setting that can fail. The hybrid is for TLS 1.3 only; LibreSSL
  4.3 would offer and choose it in TLS 1.2, too, and fail.
*/
static int curves_set(struct tls_config *c, struct failure *why)
{
  char const *list = getenv("TLS_CURVES");
  if (!list && speaks_tls13() && tls_config_set_ecdhecurves(c, default_curves) == 0) return 1;
  if (!list) list = default_curves + sizeof HYBRID; /* from X25519 on */
  return setting_apply(c, "TLS_CURVES", list, &tls_config_set_ecdhecurves, "", why);
}

static int settings_add_server(struct tls_config *c, struct session_policy const *policy,
  struct failure *why)
{
  char const *sni = getenv("TLS_SNI");
  if (sni && strcmp(sni, "require"))
    return failure_set(why, EXIT_TLS_CONFIG, "TLS_SNI must be \"require\" or unset");
  if (!sni && !getenv("CERTFILE") && !getenv("KEYFILE"))
    return failure_set(why, EXIT_TLS_CONFIG, "KEYFILE and CERTFILE are not set");
  if (!keypairs_add(c, 0, why)) return 0;
  if (policy->peercert == SESSION_PEERCERT_NONE) return 1;
  if (policy->peercert == SESSION_PEERCERT_OPTIONAL) tls_config_verify_client_optional(c);
  else tls_config_verify_client(c);
  return trust_add(c, 1, why);
}

/* Whether to verify, and what of it, is up to each session: see settings_context. */
static int settings_add_client(struct tls_config *c, struct session_policy const *policy,
  struct failure *why)
{
  if (policy->peercert != SESSION_PEERCERT_NONE)
  {
    if (!getenv("CERTFILE") && !getenv("KEYFILE")) return failure_set(why, EXIT_TLS_CONFIG,
      "KEYFILE and CERTFILE are not set: no certificate to show");
    if (!keypairs_add(c, 1, why)) return 0;
  }
  return policy->verify == SESSION_VERIFY_NOTHING || trust_add(c, 0, why);
}

static int settings_add(struct tls_config *c, struct session_policy const *policy,
  struct failure *why)
{
  char const *ciphers = getenv("TLS_CIPHERS");
  return empty_check(why)
    && setting_apply(c, "TLS_PROTOCOLS", getenv("TLS_PROTOCOLS"), &protocols_set,
      " (known are tlsv1.2 and tlsv1.3)", why)
    && setting_apply(c, "TLS_CIPHERS", ciphers ? ciphers : default_ciphers,
      &tls_config_set_ciphers, "", why)
    && setting_apply(c, "TLS_ALPN", getenv("TLS_ALPN"), &tls_config_set_alpn, "", why)
    && (policy->role == SESSION_CLIENT ? settings_add_client(c, policy, why)
      : settings_add_server(c, policy, why))
    && curves_set(c, why);
}

int settings_load(struct settings *s, struct session_policy const *policy, struct failure *why)
{
  struct failure said;
  if (policy->role == SESSION_SERVER) tickets_keep_back();
  struct tls_config *c = config_new(why);
  int ok = c && settings_add(c, policy, why);
  if (ok && policy->role == SESSION_CLIENT)
  {
    s->client[policy->peercert] = c;
    return 1;
  }
  if (ok && !config_use(c, &s->server[policy->peercert], 1, &said))
    ok = settings_refuse(1, said.reason, why);
  if (ok) tls_config_clear_keys(c);
  tls_config_free(c);
  return ok;
}

int settings_refuse(int is_server, char const *reason, struct failure *why)
{
  int has_pair = is_server || getenv("CERTFILE");
  return !(has_pair && !keypairs_check(!is_server, why)) && trust_refuse(reason, why);
}

/* libtls sends what it is given, and takes a wildcard for a name. One dot at the end is dropped. */
static int name_check(char const *name, struct failure *why)
{
  char copy[HOSTNAME_MAX + 1];
  if (hostname_is_address(name) || hostname_copy(copy, name)) return 1;
  return failure_set(why, EXIT_TLS_CONFIG, "-k ", name,
    " is neither a host name nor an IP address");
}

static struct tls *client_context(struct tls_config *c, struct session_policy const *policy,
  struct failure *why)
{
  struct tls *context;
  struct failure said;
  if (*policy->name && !name_check(policy->name, why)) return 0;
  if (policy->verify != SESSION_VERIFY_NAME) tls_config_insecure_noverifyname(c);
  if (policy->verify == SESSION_VERIFY_NOTHING) tls_config_insecure_noverifycert(c);
  if (policy->staple) tls_config_ocsp_require_stapling(c);
  if (config_use(c, &context, 0, &said)) return context;
  settings_refuse(0, said.reason, why);
  return 0;
}

struct tls *settings_context(struct settings const *s, struct session_policy const *policy,
  struct failure *why)
{
  uint8_t i = policy->peercert;
  if (policy->role == SESSION_CLIENT && s->client[i])
    return client_context(s->client[i], policy, why);
  if (policy->role == SESSION_SERVER && s->server[i]) return s->server[i];
  failure_set(why, EXIT_TLS_CONFIG,
    "the resident engine has no settings for this: give the chain an engine of its own");
  return 0;
}
