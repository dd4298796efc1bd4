/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <skalibs/posixplz.h>
#include <skalibs/strerr.h>

#include "config.h"
#include "file.h"
#include "hooks.h"
#include "../session/hostname.h"
#include "keypairs.h"
#include "pem.h"
#include "signer.h"
#include "text.h"

enum { NAME_SIZE = HOSTNAME_MAX + 3 }; /* of a pattern: "*.", a name, a null byte */

/* A key pair by the paths of its files; name is empty for the default one. */
struct pair
{
  char name[NAME_SIZE];
  char const *cert;
  char const *key;
  char const *staple;
};

static int is_wildcard(char const *name)
{
  return !strncmp(name, "*.", 2);
}

/* The value of variable, or of variable:name. */
static char const *pair_getenv(char const *variable, char const *name)
{
  char s[NAME_SIZE + 16];
  if (!*name) return getenv(variable);
  TEXT_JOIN(s, variable, ":", name);
  return getenv(s);
}

/* Fills the files of a pair that has a name. */
static int pair_fill(struct pair *p, struct failure *why)
{
  p->cert = pair_getenv("CERTFILE", p->name);
  p->key = pair_getenv("KEYFILE", p->name);
  p->staple = pair_getenv("OCSPFILE", p->name);
  char const *colon = *p->name ? ":" : "";
  if (p->cert && p->key) return 1;
  if (p->cert) return failure_set(why, EXIT_TLS_CONFIG,
    "CERTFILE", colon, p->name, " is set, but KEYFILE", colon, p->name, " is not");
  return failure_set(why, EXIT_TLS_CONFIG,
    p->key ? "KEYFILE" : "OCSPFILE", colon, p->name, " is set, but CERTFILE", colon, p->name,
    " is not");
}

/* What comes after the colon of a string of the environment, and its length; or null. */
static char const *named_by(char const *s, size_t *len)
{
  static char const *const variables[] = { "CERTFILE:", "KEYFILE:", "OCSPFILE:" };
  for (unsigned int i = 0; i < sizeof variables / sizeof *variables; i++)
  {
    size_t n = strlen(variables[i]);
    if (strncmp(s, variables[i], n)) continue;
    *len = strcspn(s + n, "=");
    return s + n;
  }
  return 0;
}

/* The name in a string of the environment: one that no client can ask for would never be served. */
static int pair_name(struct pair *p, char const *string, char const *name, size_t len,
  struct failure *why)
{
  char variable[SESSION_TEXT_MAX], copy[HOSTNAME_MAX + 1];
  char const *host = p->name;
  size_t n = name + len - string;
  if (len < sizeof p->name)
  {
    memcpy(p->name, name, len);
    p->name[len] = 0;
    if (is_wildcard(p->name)) host += 2;
    if (len && name[len - 1] != '.' && !hostname_is_address(host) && hostname_copy(copy, host))
      return 1;
  }
  if (n > sizeof variable - 1) n = sizeof variable - 1;
  memcpy(variable, string, n);
  variable[n] = 0;
  return failure_set(why, EXIT_TLS_CONFIG, "neither a host name nor *.domain: ", variable);
}

static int pair_compare(void const *a, void const *b)
{
  char const *s = ((struct pair const *)a)->name, *t = ((struct pair const *)b)->name;
  int by_kind = is_wildcard(s) - is_wildcard(t);
  return by_kind ? by_kind : strcasecmp(s, t);
}

struct pairs
{
  struct pair *p;
  size_t n;
};

/* All that have a name, each once: those with one in full, then the wildcards. */
static int pairs_collect_named(struct pairs *all, struct failure *why)
{
  size_t len, first = all->n, n = first;
  char const *s;
  for (char const *const *e = (char const *const *)environ; *e; e++)
    if ((s = named_by(*e, &len)) && !pair_name(&all->p[all->n++], *e, s, len, why)) return 0;
  qsort(all->p + first, all->n - first, sizeof *all->p, &pair_compare);
  for (size_t i = first; i < all->n; i++)
    if (i == first || strcmp(all->p[i].name, all->p[n - 1].name)) all->p[n++] = all->p[i];
  all->n = n;
  /* The first is served where no other fits; a wildcard there must not hide a name in full. */
  struct pair last = all->p[n ? n - 1 : 0];
  if (n < 2 || first || !is_wildcard(last.name)) return 1;
  memmove(all->p + 1, all->p, (n - 1) * sizeof *all->p);
  all->p[0] = last;
  return 1;
}

static int pairs_collect(struct pairs *all, int only_default, struct failure *why)
{
  size_t most = 1;
  for (char const *const *e = (char const *const *)environ; *e; e++) most++;
  all->n = 0;
  if (!(all->p = calloc(most, sizeof *all->p))) return failure_sys(why, "unable to read key pairs");
  if (only_default || getenv("CERTFILE") || getenv("KEYFILE") || getenv("OCSPFILE")) all->n = 1;
  if (!only_default && !pairs_collect_named(all, why)) return 0;
  for (size_t i = 0; i < all->n; i++)
    if (!pair_fill(&all->p[i], why)) return 0;
  return 1;
}

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

typedef int pair_func(struct tls_config *, uint8_t const *, size_t, uint8_t const *, size_t,
  uint8_t const *, size_t);

struct pair_files
{
  struct file cert;
  struct file staple;
  struct file const *key; /* its stand-in */
};

static void pair_unload(struct pair_files *f)
{
  file_unload(&f->cert);
  file_unload(&f->staple);
}

static int pair_load(struct pair_files *f, struct pair const *p, struct failure *why)
{
  *f = (struct pair_files){ .key = signer_standin(p->key) };
  if (file_load(&f->cert, "CERTFILE", p->cert, why)
    && file_load(&f->staple, "OCSPFILE", p->staple, why))
  {
    if (!f->staple.s || is_der(&f->staple)) return 1;
    failure_set(why, EXIT_TLS_CONFIG, "unable to use OCSPFILE ", p->staple,
      ": not an OCSP response in DER");
  }
  pair_unload(f);
  return 0;
}

/* A pair that libtls refuses, for reason; what is wrong with the files says more, if found. */
static int pair_refuse(struct pair const *p, struct pair_files const *f, char const *reason,
  struct failure *why)
{
  char const *fault = pem_fault_in_certs((char *)f->cert.s, f->cert.len);
  if (fault)
    return failure_set(why, EXIT_TLS_CONFIG, "unable to use CERTFILE ", p->cert, ": ", fault);
  fault = pem_fault_in_pair((char *)f->cert.s, f->cert.len, (char *)f->key->s, f->key->len);
  return failure_set(why, EXIT_TLS_CONFIG, "unable to use CERTFILE ", p->cert, " with KEYFILE ",
    p->key, ": ", fault ? fault : reason);
}

/* Adds a pair by a function of libtls. */
static int pair_add(struct tls_config *c, struct pair const *p, pair_func *add,
  struct failure *why)
{
  struct pair_files f;
  if (!pair_load(&f, p, why)) return 0;
  int r = add(c, f.cert.s, f.cert.len, f.key->s, f.key->len, f.staple.s, f.staple.len);
  if (r < 0) pair_refuse(p, &f, config_error(c), why);
  pair_unload(&f);
  return r == 0;
}

/* Whether libtls takes a pair by itself. */
static int pair_check(struct pair const *p, struct failure *why)
{
  struct pair_files f;
  struct failure said;
  struct tls *context;
  struct tls_config *c = config_new(why);
  int ok = c && pair_add(c, p, &tls_config_set_keypair_ocsp_mem, why);
  if (ok && config_use(c, &context, 1, &said)) tls_free(context);
  else if (ok)
  {
    if (pair_load(&f, p, why))
    {
      pair_refuse(p, &f, said.reason, why);
      pair_unload(&f);
    }
    ok = 0;
  }
  tls_config_free(c);
  return ok;
}

/* Has the keys loaded, once in a process: by the signer, and this one never sees them. */
static int keys_load(struct pairs const *all, struct failure *why)
{
  if (signer_pid()) return 1;
  char const **paths = calloc(all->n, sizeof *paths);
  if (!paths) return failure_sys(why, "unable to read key pairs");
  for (size_t i = 0; i < all->n; i++) paths[i] = all->p[i].key;
  int ok = signer_start(paths, all->n, why);
  if (ok && !hooks_set()) ok = failure_sys(why, "unable to prepare signatures");
  free(paths);
  return ok;
}

int keypairs_add(struct tls_config *c, int only_default, struct failure *why)
{
  struct pairs all;
  int ok = pairs_collect(&all, only_default, why);
  if (ok && !all.n) ok = failure_set(why, EXIT_TLS_CONFIG, "KEYFILE and CERTFILE are not set");
  if (ok) ok = keys_load(&all, why);
  for (size_t i = 0; ok && i < all.n; i++)
    ok = pair_add(c, &all.p[i],
      i ? &tls_config_add_keypair_ocsp_mem : &tls_config_set_keypair_ocsp_mem, why);
  free(all.p);
  return ok;
}

void keypairs_warn(int only_default)
{
  struct pairs all;
  struct failure none;
  struct file f;
  int ok = pairs_collect(&all, only_default, &none);
  for (size_t i = 0; ok && i < all.n; i++)
  {
    struct pair const *p = &all.p[i];
    if (!file_load(&f, "CERTFILE", p->cert, &none)) continue;
    char const *untimely = pem_cert_is_untimely((char *)f.s, f.len);
    if (untimely) strerr_warnw("CERTFILE ", p->cert, " ", untimely);
    file_unload(&f);
  }
  free(all.p);
}

int keypairs_check(int only_default, struct failure *why)
{
  struct pairs all;
  if (!signer_pid()) return 1; /* none has been added */
  int ok = pairs_collect(&all, only_default, why);
  for (size_t i = 0; ok && i < all.n; i++) ok = pair_check(&all.p[i], why);
  free(all.p);
  return ok;
}

/* Whether name matches pattern: the same, or *.rest for any one label before rest. */
static int name_matches(char const *pattern, size_t len, char const *name)
{
  if (is_wildcard(pattern))
  {
    pattern++;
    len--;
    name += strcspn(name, ".");
  }
  return strlen(name) == len && !strncasecmp(pattern, name, len);
}

int keypairs_know_name(char const *name)
{
  size_t len;
  char const *s;
  for (char const *const *e = (char const *const *)environ; *e; e++)
    if ((s = named_by(*e, &len)) && name_matches(s, len, name)) return 1;
  return 0;
}
