/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "confine.h"

#ifdef UNCONFINED /* ./configure --without-confinement */
enum { HAS_ROOT_AND_FILTER = 0 };
#else
enum { HAS_ROOT_AND_FILTER = 1 };
#endif

static int confine_limit(int what, char const *refusal, struct failure *why)
{
  return setrlimit(what, &(struct rlimit){ 0, 0 }) == 0 || failure_sys(why, refusal);
}

/*
  An empty directory for a root. Who may not have another root has less to lose, and what is left
  is done by the steps that follow. Files that are read later would not be there.
*/
static int confine_root(struct failure *why)
{
  struct stat st = { .st_mode = 0 };
  int keeps_root = system_keeps_files() || !HAS_ROOT_AND_FILTER;
  int r = keeps_root ? -1 : chroot(EMPTY_DIR);
  if (r < 0 && !keeps_root && errno != EPERM)
    return failure_sys(why, "unable to make " EMPTY_DIR " the root");
  if (chdir("/") < 0 || stat("/", &st) < 0) return failure_sys(why, "unable to go to the root");
  if (r < 0 || (!st.st_uid && !(st.st_mode & 022))) return 1;
  return failure_set(why, EXIT_SYSTEM, "unable to make " EMPTY_DIR
    " the root: others than root may write there");
}

/* What may be got back is not given up. */
static int confine_ids(uid_t uid, gid_t gid, struct failure *why)
{
  if (setgroups(0, 0) < 0) return failure_sys(why, "unable to drop supplementary groups");
  if (!system_set_ids(uid, gid)) return failure_sys(why, "unable to become TLS_UID and TLS_GID");
  /* Securebits may have let capabilities outlive that. */
  if (!system_drop_capabilities(why)) return 0;
  if (!system_ids_are(uid, gid) || setuid(0) == 0 || seteuid(0) == 0)
    return failure_set(why, EXIT_SYSTEM, "unable to give up root for good");
  return 1;
}

static int confine_user(struct failure *why)
{
  uid_t uid;
  gid_t gid;
  char const *u = getenv("TLS_UID");
  char const *g = getenv("TLS_GID");
  if (!u && !g)
    return setgroups(0, 0) == 0 || errno == EPERM
      || failure_sys(why, "unable to drop supplementary groups");
  if (!u || !g) return failure_set(why, EXIT_TLS_CONFIG, u ? "TLS_UID" : "TLS_GID", " is set, but ",
    u ? "TLS_GID" : "TLS_UID", " is not");
  if (!uid0_scan(u, &uid) || uid == (uid_t)-1)
    return failure_set(why, EXIT_TLS_CONFIG, "TLS_UID must be a number: ", u);
  if (!gid0_scan(g, &gid) || gid == (gid_t)-1)
    return failure_set(why, EXIT_TLS_CONFIG, "TLS_GID must be a number: ", g);
  if (!uid) return failure_set(why, EXIT_TLS_CONFIG, "TLS_UID must not be root's: ", u);
  if (!(geteuid() && system_ids_are(uid, gid)) && !confine_ids(uid, gid, why)) return 0;
  /* Who cannot read it would trust nobody. */
  char const *dir = getenv("CAFILE") || !system_keeps_files() ? 0 : getenv("CADIR");
  return !dir || access(dir, R_OK | X_OK) == 0
    || failure_sys(why, "unable to read CADIR as TLS_UID");
}

/* All but the calls. */
static int confine_process(struct failure *why)
{
  return confine_root(why) && confine_user(why) && system_drop_capabilities(why)
    && confine_limit(RLIMIT_CORE, "unable to forbid core dumps", why)
    && system_forbid_trace(why) && system_forbid_privileges(why);
}

static int confine_forks(struct failure *why)
{
  return confine_limit(RLIMIT_NPROC, "unable to forbid processes", why);
}

int confine_keeper(struct failure *why)
{
  return confine_limit(RLIMIT_CORE, "unable to forbid core dumps", why)
    && system_forbid_trace(why);
}

static int confine_calls(enum confine_stage stage, struct failure *why)
{
  return !HAS_ROOT_AND_FILTER || system_forbid_calls(stage, why);
}

static void confine_warn(void)
{
  if (!HAS_ROOT_AND_FILTER)
    strerr_warnw("built for debugging: no empty root and no filter of system calls");
}

int confine_worker(struct failure *why)
{
  confine_warn();
  return confine_process(why) && confine_calls(STAGE_WORKER, why);
}

int confine_session(struct failure *why)
{
  return confine_forks(why) && confine_calls(STAGE_SESSION, why);
}

int confine_engine(struct failure *why)
{
  confine_warn();
  return confine_process(why) && confine_session(why);
}

int confine_signer(struct failure *why)
{
  return confine_process(why) && confine_forks(why) && confine_calls(STAGE_SIGNER, why);
}
