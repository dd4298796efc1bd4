/* ISC licence: see COPYING. */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <skalibs/posixplz.h>
#include <skalibs/stralloc.h>

#include "engine.h"

/*
  Forward secrecy and authenticated encryption only. Spelled out, since LibreTLS takes "secure" to
  mean 47 suites, among them CBC and RSA key transport. The suites of TLS 1.3 are all of this kind;
  neither library lets this string touch them.
*/
static char const default_ciphers[] =
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/* A key pair by the paths of its files; name is empty for the default one. */
struct pair
{
  char const *name;
  char const *cert;
  char const *key;
  char const *staple;
};

struct file
{
  uint8_t *s;
  size_t len;
};

#define refuse(e, ...) engine_refuse((e), EXIT_TLS_CONFIG, __VA_ARGS__)

static char const *config_error(struct tls_config *c)
{
  char const *reason = tls_config_error(c);
  return reason ? reason : "invalid value";
}

/* The whole of a file; what has no path is empty. */
static struct file load(struct engine *e, char const *variable, char const *path)
{
  struct file f = { 0 };
  if (!path) return f;
  errno = 0;
  f.s = tls_load_file(path, &f.len, 0);
  if (!f.s) refuse(e, "unable to read ", variable, " ", path, ": ", strerror(errno));
  if (!f.len) refuse(e, "unable to use ", variable, " ", path, ": the file is empty");
  return f;
}

static void unload(struct file *f)
{
  if (f->s) tls_unload_file(f->s, f->len);
}

/* The value of variable, or of variable:name. */
static char const *pair_getenv(char const *variable, char const *name)
{
  char s[SESSION_NAME_MAX + 16];
  if (!*name) return getenv(variable);
  TEXT_JOIN(s, variable, ":", name);
  return getenv(s);
}

static int pair_get(struct engine *e, struct pair *p, char const *name)
{
  *p = (struct pair)
  {
    .name = name, .cert = pair_getenv("CERTFILE", name), .key = pair_getenv("KEYFILE", name),
    .staple = pair_getenv("OCSPFILE", name),
  };
  char const *colon = *name ? ":" : "";
  if (p->cert && !p->key) refuse(e, "CERTFILE", colon, name, " is set, KEYFILE", colon, name, " is not");
  if (p->key && !p->cert) refuse(e, "KEYFILE", colon, name, " is set, CERTFILE", colon, name, " is not");
  return !!p->cert;
}

/* The name of a key pair that a string of the environment belongs to, or null. */
static char const *pair_name(char const *s, char const *variable, char *name)
{
  size_t n = strlen(variable);
  size_t len = strcspn(s, "=");
  if (strncmp(s, variable, n) || s[n] != ':' || len <= n + 1 || len - n - 1 > SESSION_NAME_MAX) return 0;
  memcpy(name, s + n + 1, len - n - 1);
  name[len - n - 1] = 0;
  return name;
}

typedef void pair_func(struct engine *, struct pair const *, void *);

/* Calls f with each key pair: the default one, if there is one, then the named ones. */
static void pairs_each(struct engine *e, pair_func *f, void *arg)
{
  struct pair p;
  char name[SESSION_NAME_MAX + 1];
  if (pair_get(e, &p, "")) f(e, &p, arg);
  for (char const *const *s = (char const *const *)environ; *s; s++)
  {
    if (pair_name(*s, "KEYFILE", name)) pair_get(e, &p, name); /* dies if it is half a pair */
    if (pair_name(*s, "CERTFILE", name) && pair_get(e, &p, name)) f(e, &p, arg);
  }
}

struct keyring
{
  struct tls_config *config;
  unsigned int n;
};

static void pair_add(struct engine *e, struct pair const *p, void *arg)
{
  struct keyring *ring = arg;
  struct file cert = load(e, "CERTFILE", p->cert);
  struct file key = load(e, "KEYFILE", p->key);
  struct file staple = load(e, "OCSPFILE", p->staple);
  int r = (ring->n++ ? tls_config_add_keypair_ocsp_mem : tls_config_set_keypair_ocsp_mem)
    (ring->config, cert.s, cert.len, key.s, key.len, staple.s, staple.len);
  if (r < 0) refuse(e, "unable to use CERTFILE ", p->cert, ": ", config_error(ring->config));
  unload(&cert);
  unload(&key);
  unload(&staple);
}

static struct tls_config *config_new(struct engine *e)
{
  struct tls_config *c = tls_config_new();
  if (!c) refuse(e, "unable to make a TLS configuration: out of memory");
  return c;
}

/* Why libtls does not take a configuration, or null if it does. */
static char const *configure(struct tls **tls, struct tls_config *c, int is_server)
{
  if (!(*tls = is_server ? tls_server() : tls_client())) return "out of memory";
  if (tls_configure(*tls, c) == 0) return 0;
  char const *reason = tls_error(*tls);
  return reason ? reason : "unknown reason";
}

/* libtls does not say which of many files it minds: dies if it is this pair. */
static void pair_blame(struct engine *e, struct pair const *p, void *arg)
{
  struct keyring ring = { .config = config_new(e) };
  struct tls *tls;
  (void)arg;
  pair_add(e, p, &ring);
  char const *reason = configure(&tls, ring.config, 1);
  if (reason) refuse(e, "unable to use CERTFILE ", p->cert, " with KEYFILE ", p->key, ": ", reason);
}

void settings_blame(struct engine *e, char const *reason)
{
  pairs_each(e, &pair_blame, 0);
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
  uint32_t protocols;
  return tls_config_parse_protocols(&protocols, s) < 0 ? -1 : tls_config_set_protocols(c, protocols);
}

/* The entries of a hashed directory (openssl rehash): eight hexadecimal digits, a dot, a number. */
static int is_hashed(char const *s)
{
  return strspn(s, "0123456789abcdef") == 8 && s[8] == '.' && s[9]
    && s[9 + strspn(s + 9, "0123456789")] == 0;
}

/* libtls takes a file or a directory. For both, the file is read and after it the directory. */
static void trust_both(struct engine *e, struct tls_config *c, char const *file, char const *dir)
{
  stralloc all = STRALLOC_ZERO;
  char path[4096];
  DIR *d = opendir(dir);
  struct file f = load(e, "CAFILE", file);
  if (!d) refuse(e, "unable to open CADIR ", dir, ": ", strerror(errno));
  if (!stralloc_catb(&all, (char *)f.s, f.len)) refuse(e, "unable to read CAFILE: out of memory");
  unload(&f);
  for (struct dirent *entry; (entry = readdir(d)); )
  {
    if (!is_hashed(entry->d_name)) continue;
    TEXT_JOIN(path, dir, "/", entry->d_name);
    f = load(e, "CADIR", path);
    if (!stralloc_cats(&all, "\n") || !stralloc_catb(&all, (char *)f.s, f.len))
      refuse(e, "unable to read CADIR: out of memory");
    unload(&f);
  }
  closedir(d);
  if (tls_config_set_ca_mem(c, (uint8_t *)all.s, all.len) < 0)
    refuse(e, "unable to use CAFILE ", file, ": ", config_error(c));
  stralloc_free(&all);
}

static void trust(struct engine *e, struct tls_config *c)
{
  char const *file = getenv("CAFILE");
  char const *dir = getenv("CADIR");
  struct file crl = load(e, "CRLFILE", getenv("CRLFILE"));
  if (file && dir) trust_both(e, c, file, dir);
  else if (file)
  {
    struct file f = load(e, "CAFILE", file);
    if (tls_config_set_ca_mem(c, f.s, f.len) < 0)
      refuse(e, "unable to use CAFILE ", file, ": ", config_error(c));
    unload(&f);
  }
  else if (dir)
  {
    if (access(dir, R_OK | X_OK) < 0) refuse(e, "unable to use CADIR ", dir, ": ", strerror(errno));
    set(e, c, "CADIR", dir, &tls_config_set_ca_path);
  }
  else if (e->start.role == SESSION_SERVER)
    refuse(e, "neither CAFILE nor CADIR is set: nothing to verify client certificates with");
  if (crl.s && tls_config_set_crl_mem(c, crl.s, crl.len) < 0)
    refuse(e, "unable to use CRLFILE: ", config_error(c));
  unload(&crl);
}

static void server(struct engine *e, struct tls_config *c)
{
  struct keyring ring = { .config = c };
  char const *sni = getenv("TLS_SNI");
  if (sni && strcmp(sni, "require")) refuse(e, "TLS_SNI is neither unset nor require");
  if (!sni && !getenv("CERTFILE") && !getenv("KEYFILE")) refuse(e, "KEYFILE and CERTFILE are not set");
  pairs_each(e, &pair_add, &ring);
  if (!ring.n) refuse(e, "no KEYFILE and CERTFILE is set");
  if (e->start.peercert == SESSION_PEERCERT_NONE) return;
  trust(e, c);
  if (e->start.peercert == SESSION_PEERCERT_OPTIONAL) tls_config_verify_client_optional(c);
  else tls_config_verify_client(c);
}

static void client(struct engine *e, struct tls_config *c)
{
  struct keyring ring = { .config = c };
  struct pair p;
  if (e->start.peercert != SESSION_PEERCERT_NONE)
  {
    if (!pair_get(e, &p, "")) refuse(e, "KEYFILE and CERTFILE are not set: no certificate to show");
    pair_add(e, &p, &ring);
  }
  if (e->start.verify != SESSION_VERIFY_NAME) tls_config_insecure_noverifyname(c);
  if (e->start.verify == SESSION_VERIFY_NOTHING) tls_config_insecure_noverifycert(c);
  else trust(e, c);
  if (e->start.staple) tls_config_ocsp_require_stapling(c);
}

struct tls *settings_load(struct engine *e)
{
  struct tls *tls;
  struct tls_config *c = config_new(e);
  char const *ciphers = getenv("TLS_CIPHERS");
  set(e, c, "TLS_PROTOCOLS", getenv("TLS_PROTOCOLS"), &set_protocols);
  set(e, c, "TLS_CIPHERS", ciphers ? ciphers : default_ciphers, &tls_config_set_ciphers);
  set(e, c, "TLS_CURVES", getenv("TLS_CURVES"), &tls_config_set_ecdhecurves);
  set(e, c, "TLS_ALPN", getenv("TLS_ALPN"), &tls_config_set_alpn);
  if (e->start.role == SESSION_SERVER) server(e, c);
  else client(e, c);
  char const *reason = configure(&tls, c, e->start.role == SESSION_SERVER);
  if (reason) settings_blame(e, reason);
  if (e->start.role == SESSION_SERVER) tls_config_clear_keys(c);
  tls_config_free(c);
  return tls;
}

/* Whether name matches pattern: the same, or *.rest for any one label before rest. */
static int name_matches(char const *pattern, char const *name)
{
  if (strncmp(pattern, "*.", 2)) return !strcasecmp(pattern, name);
  char const *dot = strchr(name, '.');
  return dot && dot > name && !strcasecmp(pattern + 1, dot);
}

int settings_know_name(char const *name)
{
  char pattern[SESSION_NAME_MAX + 1];
  for (char const *const *s = (char const *const *)environ; *s; s++)
    if (pair_name(*s, "CERTFILE", pattern) && name_matches(pattern, name)) return 1;
  return 0;
}
