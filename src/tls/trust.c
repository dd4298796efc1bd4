/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/stat.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/stralloc.h>

#include "config.h"
#include "confine.h"
#include "file.h"
#include "pem.h"
#include "text.h"
#include "trust.h"

/*
  The entries of a hashed directory (openssl rehash): eight hexadecimal digits, a dot, a number,
  with an r before it for a CRL.
*/
static int is_hashed(char const *s)
{
  if (strspn(s, "0123456789abcdef") != 8 || s[8] != '.') return 0;
  s += s[9] == 'r' ? 10 : 9;
  return *s && !s[strspn(s, "0123456789")];
}

/* Calls f with the path of each hashed entry, until one fails; that there is none is a failure. */
static int cadir_each(char const *dir, int (*f)(char const *, void *, struct failure *), void *arg,
  struct failure *why)
{
  char path[PATH_MAX];
  int ok = 1, found = 0;
  DIR *d = opendir(dir);
  if (!d) return failure_set(why, file_failure_code(errno), "unable to open CADIR ", dir, ": ",
    strerror(errno));
  for (struct dirent *entry; ok && (entry = readdir(d)); )
  {
    if (!is_hashed(entry->d_name)) continue;
    found = 1;
    TEXT_JOIN(path, dir, "/", entry->d_name);
    ok = f(path, arg, why);
  }
  closedir(d);
  if (ok && !found) ok = failure_set(why, EXIT_TLS_CONFIG, "unable to use CADIR ", dir,
    ": no certificate in it is named by hash: run openssl rehash on it");
  return ok;
}

static int anchors_use(struct tls_config *c, char const *path, char const *s, size_t len,
  struct failure *why)
{
  if (tls_config_set_ca_mem(c, (uint8_t const *)s, len) == 0) return 1;
  return failure_set(why, EXIT_TLS_CONFIG, "unable to use CAFILE ", path, ": ",
    config_error(c));
}

static int cadir_append(char const *path, void *arg, struct failure *why)
{
  struct file f;
  if (!file_load(&f, "CADIR", path, why)) return 0;
  int ok = stralloc_cats(arg, "\n") && stralloc_catb(arg, (char *)f.s, f.len);
  file_unload(&f);
  return ok || failure_sys(why, "unable to read CADIR");
}

static int anchors_check(struct file const *f, char const *path, int alone, struct failure *why)
{
  char const *fault = pem_fault_in_trust((char *)f->s, f->len, alone);
  return !fault
    || failure_set(why, EXIT_TLS_CONFIG, "unable to use CAFILE ", path, ": ", fault);
}

/* The file, and after it the whole directory; path may be null. */
static int trust_whole(struct tls_config *c, char const *path, char const *dir,
  struct failure *why)
{
  stralloc all = STRALLOC_ZERO;
  struct file f;
  if (!file_load(&f, "CAFILE", path, why)) return 0;
  int ok = !path || anchors_check(&f, path, 0, why);
  if (ok && path && !stralloc_catb(&all, (char *)f.s, f.len))
    ok = failure_sys(why, "unable to read CAFILE");
  file_unload(&f);
  if (ok) ok = cadir_each(dir, &cadir_append, &all, why);
  if (ok) ok = stralloc_0(&all) || failure_sys(why, "unable to read CADIR");
  if (ok) ok = anchors_use(c, path, all.s, all.len - 1, why);
  stralloc_free(&all);
  return ok;
}

static int trust_file(struct tls_config *c, char const *path, struct failure *why)
{
  struct file f;
  if (!file_load(&f, "CAFILE", path, why)) return 0;
  int ok = anchors_check(&f, path, 1, why)
    && anchors_use(c, path, (char *)f.s, f.len, why);
  file_unload(&f);
  return ok;
}

/* A FIFO would keep the engine waiting once it is asked for. */
static int cadir_keep(char const *path, void *arg, struct failure *why)
{
  struct stat st;
  if (stat(path, &st) < 0) return 1; /* a dangling link harms nobody */
  if (!S_ISREG(st.st_mode)) return failure_set(why, EXIT_TLS_CONFIG, "unable to use CADIR: ", path,
    ": not a regular file");
  if (!confine_keep_file(path)) *(int *)arg = 0;
  return 1;
}

/*
  A client reads the directory certificate by certificate, as they are asked for, wherever it is
  then; if its system cannot let it do that and nothing else, it reads all of them first. So does a
  server: it does that once for many sessions.
*/
static int trust_dir(struct tls_config *c, char const *dir, int is_server, struct failure *why)
{
  char path[PATH_MAX];
  int can_keep = 1;
  if (is_server) return trust_whole(c, 0, dir, why);
  if (!cadir_each(dir, &cadir_keep, &can_keep, why)) return 0;
  if (!can_keep)
  {
    confine_keep_none(); /* files that are kept cost the empty root */
    return trust_whole(c, 0, dir, why);
  }
  if (!realpath(dir, path)) return failure_sys(why, "unable to find CADIR ", dir);
  if (tls_config_set_ca_path(c, path) == 0) return 1;
  return failure_set(why, EXIT_TLS_CONFIG, "unable to use CADIR ", dir, ": ", config_error(c));
}

/* libtls finds nothing wrong with a CRL file in which there is no CRL, and then verifies nobody. */
static int trust_revoke(struct tls_config *c, char const *path, struct failure *why)
{
  struct file f;
  if (!path) return 1;
  if (!file_load(&f, "CRLFILE", path, why)) return 0;
  char const *fault = pem_fault_in_crls((char *)f.s, f.len);
  if (!fault && tls_config_set_crl_mem(c, f.s, f.len) < 0) fault = config_error(c);
  file_unload(&f);
  return !fault || failure_set(why, EXIT_TLS_CONFIG, "unable to use CRLFILE ", path, ": ", fault);
}

static int is_hashed_dir(char const *dir)
{
  int found = 0;
  DIR *d = opendir(dir);
  if (!d) return 0;
  for (struct dirent *entry; !found && (entry = readdir(d)); ) found = is_hashed(entry->d_name);
  closedir(d);
  return found;
}

char const *trust_default(char dir[PATH_MAX])
{
  char parent[PATH_MAX];
  char const *path = tls_default_ca_cert_file();
  char const *slash = strrchr(path, '/');
  size_t n = slash ? slash - path + 1 : 1;
  text_join(parent, n < sizeof parent ? n : sizeof parent, (char const *const []){ path, 0 });
  text_join(dir, PATH_MAX, (char const *const []){ parent, "/certs", 0 });
  return path;
}

/*
  The path is compiled into libtls, and a static LibreSSL may have come to a system that has neither
  the file nor the directory.
*/
static int trust_system(struct tls_config *c, struct failure *why)
{
  char dir[PATH_MAX];
  char const *path = trust_default(dir);
  if (is_hashed_dir(dir)) return trust_dir(c, dir, 0, why);
  if (access(path, R_OK) == 0) return trust_file(c, path, why);
  return failure_set(why, EXIT_TLS_CONFIG, "unable to read libtls's default CAFILE ", path, ": ",
    strerror(errno), "; install ca-certificates, or set CAFILE or CADIR to what the system has, "
    "for example CADIR=/etc/ssl/certs");
}

int trust_add(struct tls_config *c, int is_server, struct failure *why)
{
  char const *path = getenv("CAFILE"), *dir = getenv("CADIR");
  int ok;
  if (path && dir) ok = trust_whole(c, path, dir, why);
  else if (path) ok = trust_file(c, path, why);
  else if (dir) ok = trust_dir(c, dir, is_server, why);
  else if (is_server) ok = failure_set(why, EXIT_TLS_CONFIG,
    "neither CAFILE nor CADIR is set: nothing to verify client certificates with");
  else ok = trust_system(c, why);
  return ok && trust_revoke(c, getenv("CRLFILE"), why);
}

/* libtls says no more than that it could not set up its memory. Fails for the file that is bad. */
static int anchors_find_fault(char const *variable, char const *path, struct failure *why)
{
  struct file f;
  if (!path || !file_load(&f, variable, path, why)) return 1;
  char const *fault = pem_fault_in_certs((char *)f.s, f.len);
  file_unload(&f);
  return !fault
    || failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ", path, ": ", fault);
}

static int cadir_find_fault(char const *path, void *arg, struct failure *why)
{
  (void)arg;
  return anchors_find_fault("CADIR", path, why);
}

int trust_refuse(char const *reason, struct failure *why)
{
  char const *ca = getenv("CAFILE"), *dir = getenv("CADIR"), *crl = getenv("CRLFILE");
  if (!anchors_find_fault("CAFILE", ca, why)) return 0;
  if (ca && dir && !cadir_each(dir, &cadir_find_fault, 0, why)) return 0;
  if (!ca && !crl) return failure_set(why, EXIT_TLS_CONFIG, "unable to configure TLS: ", reason);
  if (ca && crl) return failure_set(why, EXIT_TLS_CONFIG, "unable to use CAFILE ", ca,
    " with CRLFILE ", crl, ": ", reason);
  return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", ca ? "CAFILE " : "CRLFILE ",
    ca ? ca : crl, ": ", reason);
}
