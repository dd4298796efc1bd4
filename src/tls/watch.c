/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/stat.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/blake2s.h>

#include "trust.h"
#include "watch.h"

/* A string of the environment: the path of a file of the settings, or null. */
static char const *setting_path(char const *s)
{
  static char const *const names[] =
    { "KEYFILE", "CERTFILE", "OCSPFILE", "CAFILE", "CADIR", "CRLFILE" };
  size_t len = strcspn(s, "=");
  for (unsigned int i = 0; s[len] && i < sizeof names / sizeof *names; i++)
  {
    size_t n = strlen(names[i]);
    if (len >= n && !strncmp(s, names[i], n) && (s[n] == '=' || (s[n] == ':' && i < 3)))
      return s + len + 1;
  }
  return 0;
}

static void path_look(blake2s_ctx *h, char const *path)
{
  struct stat st;
  struct
  {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec modified;
    struct timespec changed;
    int e;
  } seen;
  memset(&seen, 0, sizeof seen);
  if (stat(path, &st) < 0) seen.e = errno;
  else
  {
    seen.dev = st.st_dev;
    seen.ino = st.st_ino;
    seen.size = st.st_size;
    seen.modified = st.st_mtim;
    seen.changed = st.st_ctim;
  }
  blake2s_update(h, (char *)&seen, sizeof seen);
}

int watch_look(struct watch *w, int is_server)
{
  char dir[PATH_MAX], seen[sizeof w->seen];
  blake2s_ctx h = BLAKE2S_INIT(sizeof seen);
  for (char const *const *e = (char const *const *)environ; *e; e++)
    if (setting_path(*e)) path_look(&h, setting_path(*e));
  if (!is_server && !getenv("CAFILE") && !getenv("CADIR"))
  {
    path_look(&h, trust_default(dir));
    path_look(&h, dir);
  }
  blake2s_final(&h, seen);
  int differs = !!memcmp(seen, w->seen, sizeof seen);
  memcpy(w->seen, seen, sizeof seen);
  return differs;
}
