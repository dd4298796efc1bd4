/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <skalibs/posixplz.h>

#include "settings.h"

/* A key pair by the paths of its files; name is empty for the default one. */
struct pair
{
  char const *name;
  char const *cert;
  char const *key;
  char const *staple;
};

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
  if (!p->cert != !p->key)
    refuse(e, p->cert ? "KEYFILE" : "CERTFILE", colon, name, " is not set, ",
      p->cert ? "CERTFILE" : "KEYFILE", colon, name, " is");
  return !!p->cert;
}

/* The name of a key pair that a string of the environment belongs to, or null. */
static char const *pair_name(char const *s, char const *variable, char *name)
{
  size_t n = strlen(variable);
  if (strncmp(s, variable, n) || s[n] != ':') return 0;
  s += n + 1;
  n = strcspn(s, "=");
  if (!n || n > SESSION_NAME_MAX) return 0;
  memcpy(name, s, n);
  name[n] = 0;
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

/* libtls sends what it is given. RFC 6960, 4.2.1: a SEQUENCE in DER, here as long as the file. */
static int is_der(struct file const *f)
{
  size_t n, head = 2;
  if (f->len < 2 || f->s[0] != 0x30) return 0;
  n = f->s[1];
  if (n & 0x80)
  {
    head += n & 0x7f;
    if (head > 6 || head > f->len) return 0;
    n = 0;
    for (size_t i = 2; i < head; i++) n = n << 8 | f->s[i];
  }
  return head + n == f->len;
}

static void pair_add(struct engine *e, struct pair const *p, void *arg)
{
  struct keyring *ring = arg;
  struct file cert = file_load(e, "CERTFILE", p->cert);
  struct file key = file_load(e, "KEYFILE", p->key);
  struct file staple = file_load(e, "OCSPFILE", p->staple);
  if (staple.s && !is_der(&staple))
    refuse(e, "unable to use OCSPFILE ", p->staple, ": it is no OCSP response in DER");
  int r = (ring->n++ ? tls_config_add_keypair_ocsp_mem : tls_config_set_keypair_ocsp_mem)
    (ring->config, cert.s, cert.len, key.s, key.len, staple.s, staple.len);
  if (r < 0) refuse(e, "unable to use CERTFILE ", p->cert, ": ", config_error(ring->config));
  file_unload(&cert);
  file_unload(&key);
  file_unload(&staple);
}

unsigned int keypairs_add(struct engine *e, struct tls_config *c)
{
  struct keyring ring = { .config = c };
  pairs_each(e, &pair_add, &ring);
  return ring.n;
}

unsigned int keypair_add_default(struct engine *e, struct tls_config *c)
{
  struct keyring ring = { .config = c };
  struct pair p;
  if (pair_get(e, &p, "")) pair_add(e, &p, &ring);
  return ring.n;
}

/* libtls does not say which of many files it minds: dies if it is this pair. */
static void pair_blame(struct engine *e, struct pair const *p, void *arg)
{
  struct keyring ring = { .config = config_new(e) };
  struct tls *tls;
  (void)arg;
  pair_add(e, p, &ring);
  char const *reason = config_use(ring.config, &tls, 1);
  if (reason) refuse(e, "unable to use CERTFILE ", p->cert, " with KEYFILE ", p->key, ": ", reason);
}

void keypairs_blame(struct engine *e)
{
  pairs_each(e, &pair_blame, 0);
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
