/* ISC licence: see COPYING. */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <skalibs/bytestr.h>
#include <skalibs/stralloc.h>

#include "settings.h"

/* The entries of a hashed directory (openssl rehash): eight hexadecimal digits, a dot, a number. */
static int is_hashed(char const *s)
{
  return strspn(s, "0123456789abcdef") == 8 && s[8] == '.' && s[9]
    && s[9 + strspn(s + 9, "0123456789")] == 0;
}

static DIR *open_cadir(struct engine *e, char const *dir)
{
  DIR *d = opendir(dir);
  if (!d) engine_refuse(e, is_shortage(errno) ? EXIT_SYSTEM : EXIT_TLS_CONFIG,
    "unable to open CADIR ", dir, ": ", strerror(errno));
  return d;
}

static void use_ca(struct engine *e, struct tls_config *c, char const *path, char *s, size_t len)
{
  if (tls_config_set_ca_mem(c, (uint8_t *)s, len) < 0)
    refuse(e, "unable to use CAFILE ", path, ": ", config_error(c));
}

/* libtls takes a file or a directory. For both, the file is read and after it the directory. */
static void trust_both(struct engine *e, struct tls_config *c, char const *file, char const *dir)
{
  stralloc all = STRALLOC_ZERO;
  char path[4096];
  struct file f = file_load(e, "CAFILE", file);
  DIR *d = open_cadir(e, dir);
  int enough = stralloc_catb(&all, (char *)f.s, f.len);
  file_unload(&f);
  for (struct dirent *entry; (entry = readdir(d)); )
  {
    if (!is_hashed(entry->d_name)) continue;
    TEXT_JOIN(path, dir, "/", entry->d_name);
    f = file_load(e, "CADIR", path);
    enough = enough && stralloc_cats(&all, "\n") && stralloc_catb(&all, (char *)f.s, f.len);
    file_unload(&f);
  }
  closedir(d);
  if (!enough) engine_refuse(e, EXIT_SYSTEM, "unable to read CADIR ", dir, ": out of memory");
  use_ca(e, c, file, all.s, all.len);
  stralloc_free(&all);
}

static void trust_file(struct engine *e, struct tls_config *c, char const *file)
{
  struct file f = file_load(e, "CAFILE", file);
  use_ca(e, c, file, (char *)f.s, f.len);
  file_unload(&f);
}

/* The directory is read certificate by certificate, as they are asked for. */
static void trust_dir(struct engine *e, struct tls_config *c, char const *dir)
{
  closedir(open_cadir(e, dir));
  if (tls_config_set_ca_path(c, dir) < 0)
    refuse(e, "unable to use CADIR ", dir, ": ", config_error(c));
}

/* libtls finds nothing wrong with a CRL file in which there is no CRL, and then verifies nobody. */
static void revocation(struct engine *e, struct tls_config *c, char const *path)
{
  static char const begin[] = "-----BEGIN X509 CRL-----";
  struct file f = file_load(e, "CRLFILE", path);
  if (!path) return;
  size_t n = sizeof begin - 1;
  if (f.len < n || byte_search((char *)f.s, f.len, begin, n) > f.len - n)
    refuse(e, "unable to use CRLFILE ", path, ": there is no CRL in PEM in it");
  if (tls_config_set_crl_mem(c, f.s, f.len) < 0)
    refuse(e, "unable to use CRLFILE ", path, ": ", config_error(c));
  file_unload(&f);
}

static int has_hashed(char const *dir)
{
  int found = 0;
  DIR *d = opendir(dir);
  if (!d) return 0;
  for (struct dirent *entry; !found && (entry = readdir(d)); ) found = is_hashed(entry->d_name);
  closedir(d);
  return found;
}

/*
  What the system trusts: libtls's default file, or better, as it is not read whole, the directory
  "certs" that OpenSSL keeps beside it.
*/
static void trust_default(struct engine *e, struct tls_config *c)
{
  char parent[4096], dir[4096];
  char const *file = tls_default_ca_cert_file();
  char const *slash = strrchr(file, '/');
  size_t n = slash ? slash - file + 1 : 1;
  text_join(parent, n < sizeof parent ? n : sizeof parent, (char const *const []){ file, 0 });
  TEXT_JOIN(dir, parent, "/certs");
  if (has_hashed(dir)) trust_dir(e, c, dir);
  else trust_file(e, c, file);
}

void trust_add(struct engine *e, struct tls_config *c)
{
  char const *file = getenv("CAFILE");
  char const *dir = getenv("CADIR");
  if (file && dir) trust_both(e, c, file, dir);
  else if (file) trust_file(e, c, file);
  else if (dir) trust_dir(e, c, dir);
  else if (e->start.policy.role == SESSION_SERVER)
    refuse(e, "neither CAFILE nor CADIR is set: nothing to verify client certificates with");
  else trust_default(e, c);
  revocation(e, c, getenv("CRLFILE"));
}

