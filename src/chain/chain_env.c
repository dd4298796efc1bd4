/* ISC licence: see COPYING. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/env.h>
#include <skalibs/exec.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "chain.h"

static char const *const settings[] =
{
  "KEYFILE", "CERTFILE", "OCSPFILE", "CAFILE", "CADIR", "CRLFILE",
  "TLS_SNI", "TLS_PROTOCOLS", "TLS_CIPHERS", "TLS_CURVES", "TLS_ALPN",
  "TLS_UID", "TLS_GID", "TLS_ENGINE",
};

static char const *const named_settings[] = { "KEYFILE:", "CERTFILE:", "OCSPFILE:" };

static char const *const app[] =
{
  "SSLCTLFD", "SSLREADFD", "SSLWRITEFD", "SSLREASONFD", "SSLNETID",
};

static char const *const tls[] =
{
  "TLS_CTLFD", "TLS_PLAINRFD", "TLS_PLAINWFD", "TLS_REASONFD", "TLS_SESSIONFD", "TLS_NETRFD",
  "TLS_NETWFD", "TLS_NETID", "TLS_HELLO_PROTOCOL", "TLS_HELLO_SERVERNAME", "TLS_HELLO_ALPN",
};

static char const *const door[] = { "TLS_ENGINEFD" };

#define IS_ONE_OF(s, list) is_one_of((s), (list), sizeof(list) / sizeof(*(list)))

static int is_one_of(char const *s, char const *const *list, unsigned int n)
{
  size_t len = strcspn(s, "=");
  while (n--)
    if (!strncmp(s, list[n], len) && !list[n][len]) return 1;
  return 0;
}

static int is_named_setting(char const *s)
{
  for (unsigned int i = 0; i < sizeof named_settings / sizeof *named_settings; i++)
    if (!strncmp(s, named_settings[i], strlen(named_settings[i]))) return 1;
  return 0;
}

static int is_dropped(char const *s, int drop)
{
  return (drop & CHAIN_SETTINGS && (IS_ONE_OF(s, settings) || is_named_setting(s)))
    || (drop & CHAIN_FACTS && is_one_of(s, session_fact_name, SESSION_FACTS_N))
    || (drop & CHAIN_APP && IS_ONE_OF(s, app))
    || (drop & CHAIN_TLS && IS_ONE_OF(s, tls))
    || (drop & CHAIN_DOOR && IS_ONE_OF(s, door));
}

char const *chain_own_setting(void)
{
  for (char const *const *p = (char const *const *)environ; *p; p++)
  {
    if (is_named_setting(*p)) return *p;
    if (IS_ONE_OF(*p, settings) && strncmp(*p, "TLS_ENGINE=", 11)) return *p;
  }
  return 0;
}

/* Whether modif sets or unsets the variable s. */
static int is_modified(char const *s, char const *modif, size_t len)
{
  size_t n = strcspn(s, "=");
  for (char const *end = modif + len; modif < end; modif += strlen(modif) + 1)
    if (strcspn(modif, "=") == n && !strncmp(s, modif, n)) return 1;
  return 0;
}

void chain_tryexec(char const *const *argv, int drop, char const *modif, size_t len)
{
  size_t n = 0;
  char const *kept[env_len((char const *const *)environ) + 1];
  for (char const *const *p = (char const *const *)environ; *p; p++)
    if (!is_dropped(*p, drop) && !is_modified(*p, modif, len)) kept[n++] = *p;
  kept[n] = 0;
  mexec_fm(argv, kept, n, modif, len);
}

void chain_exec(struct chain_network const *net, char const *const *argv, int drop,
  char const *modif, size_t len)
{
  chain_tryexec(argv, drop, modif, len);
  chain_diesys(net, errno == ENOENT ? 127 : 126, "exec ", argv[0]);
}

void chain_forget(int drop)
{
  for (char **p = environ; *p; p++)
    if (is_dropped(*p, drop)) memset(*p, 0, strlen(*p));
}

size_t chain_unset(char *s, char const *name)
{
  size_t n = strlen(name) + 1;
  memcpy(s, name, n);
  return n;
}

size_t chain_set(char *s, char const *name, char const *value)
{
  size_t n = strlen(name), len = strlen(value) + 1;
  memcpy(s, name, n);
  s[n++] = '=';
  memcpy(s + n, value, len);
  return n + len;
}

size_t chain_setfd(char *s, char const *name, int fd)
{
  char fmt[UINT_FMT];
  fmt[uint_fmt(fmt, fd)] = 0;
  return chain_set(s, name, fmt);
}

char const *chain_getenv(struct chain_network const *net, char const *name)
{
  char const *s = getenv(name);
  if (s && !*s) chain_die(net, EXIT_USAGE, name, " is set, but empty");
  return s;
}
