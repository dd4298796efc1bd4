/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/resource.h>
#include <errno.h>
#include <grp.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <skalibs/types.h>

#include "confine.h"

/* Real, effective and saved ids, where there are such things. */
static int ids_are(uid_t uid, gid_t gid)
{
#ifdef __linux__
  uid_t u[3];
  gid_t g[3];
  if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0) return 0;
  for (int i = 0; i < 3; i++)
    if (u[i] != uid || g[i] != gid) return 0;
  return 1;
#else
  return getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid;
#endif
}

static int ids_set(uid_t uid, gid_t gid)
{
#ifdef __linux__
  return setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0;
#else
  return setgid(gid) == 0 && setuid(uid) == 0;
#endif
}

#ifdef __linux__

/* As capset(2) has it; the kernel's headers are not where every libc is. */
struct capabilities_header
{
  uint32_t version;
  int pid;
};

struct capabilities
{
  uint32_t effective;
  uint32_t permitted;
  uint32_t inheritable;
};

enum { CAPABILITIES_VERSION_3 = 0x20080522, CAPABILITIES_N = 2 };

static int confine_capabilities(struct failure *why)
{
  struct capabilities_header header = { .version = CAPABILITIES_VERSION_3 };
  struct capabilities none[CAPABILITIES_N] = { { 0 } };
  if (!geteuid()) return 1; /* root without TLS_UID has asked to stay what it is */
#ifdef PR_CAP_AMBIENT
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
#endif
  if (syscall(SYS_capset, &header, none) < 0)
    return failure_sys(why, "unable to give up capabilities");
  return 1;
}

#else

static int confine_capabilities(struct failure *why)
{
  (void)why;
  return 1;
}

#endif

/*
  The user, the group; what may be got back is not given up. Securebits may have let capabilities
  outlive the change of the user, so they go before it is looked whether that is for good.
*/
static int confine_ids(uid_t uid, gid_t gid, struct failure *why)
{
  if (uid && ids_are(uid, gid) && geteuid()) return 1;
  if (setgroups(0, 0) < 0) return failure_sys(why, "unable to drop supplementary groups");
  if (!ids_set(uid, gid)) return failure_sys(why, "unable to become TLS_UID and TLS_GID");
  if (!confine_capabilities(why)) return 0;
  if (!ids_are(uid, gid) || setuid(0) == 0 || seteuid(0) == 0)
    return failure_set(why, EXIT_SYSTEM, "unable to give up root for good");
  return 1;
}

static int confine_user(struct failure *why)
{
  uid_t uid;
  gid_t gid;
  char const *u = getenv("TLS_UID");
  char const *g = getenv("TLS_GID");
  if (!u && !g) return 1;
  if (!u || !g) return failure_set(why, EXIT_TLS_CONFIG, u ? "TLS_UID" : "TLS_GID", " is set, but ",
    u ? "TLS_GID" : "TLS_UID", " is not");
  if (!uid0_scan(u, &uid) || uid == (uid_t)-1)
    return failure_set(why, EXIT_TLS_CONFIG, "TLS_UID must be a number: ", u);
  if (!gid0_scan(g, &gid) || gid == (gid_t)-1)
    return failure_set(why, EXIT_TLS_CONFIG, "TLS_GID must be a number: ", g);
  if (!uid) return failure_set(why, EXIT_TLS_CONFIG, "TLS_UID must not be root's: ", u);
  if (!confine_ids(uid, gid, why)) return 0;
  /* It is read as certificates are asked for, so who cannot read it would trust nobody. */
  char const *dir = getenv("CAFILE") ? 0 : getenv("CADIR");
  if (dir && access(dir, R_OK | X_OK) < 0)
    return failure_sys(why, "unable to read CADIR as TLS_UID");
  return 1;
}

#ifdef __linux__

static int confine_process(struct failure *why)
{
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return failure_sys(why, "unable to forbid ptrace");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return failure_sys(why, "unable to forbid new privileges");
  return confine_capabilities(why);
}

#else

static int confine_process(struct failure *why)
{
  (void)why;
  return 1;
}

#endif

int confine_engine(struct failure *why)
{
  if (!confine_user(why)) return 0;
  if (chdir("/") < 0) return failure_sys(why, "unable to leave the working directory");
  if (setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) < 0)
    return failure_sys(why, "unable to forbid core dumps");
  return confine_process(why);
}
