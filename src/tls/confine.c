/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/resource.h>
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <skalibs/types.h>

#include "engine.h"

static char const *drop_user(void)
{
  uid_t uid;
  gid_t gid;
  char const *u = getenv("TLS_UID");
  char const *g = getenv("TLS_GID");
  if (!u && !g) return 0;
  errno = EINVAL;
  if (!u) return "use TLS_GID without TLS_UID";
  if (!g) return "use TLS_UID without TLS_GID";
  if (!uid0_scan(u, &uid)) return "use TLS_UID";
  if (!gid0_scan(g, &gid)) return "use TLS_GID";
  if (getuid() && getuid() == uid && getgid() == gid) return 0;
  if (setgroups(0, 0) < 0) return "drop supplementary groups";
  if (setgid(gid) < 0) return "set TLS_GID";
  if (setuid(uid) < 0) return "set TLS_UID";
  /* It is read as certificates are asked for, so who cannot read it would trust nobody. */
  char const *dir = getenv("CAFILE") ? 0 : getenv("CADIR");
  if (dir && access(dir, R_OK | X_OK) < 0) return "read CADIR as TLS_UID";
  return 0;
}

char const *confine(void)
{
  char const *undone = drop_user();
  if (undone) return undone;
  if (setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) < 0) return "forbid core dumps";
#ifdef __linux__
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return "forbid ptrace";
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return "forbid new privileges";
#endif
  return 0;
}
