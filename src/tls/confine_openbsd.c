/* ISC licence: see COPYING. */

#ifdef __OpenBSD__

#include <sys/types.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "confine.h"

static int keeps_files;

int system_keeps_files(void)
{
  return keeps_files;
}

/* From the first unveil(2) on nothing else is there, also before the promises are made. */
int confine_keep_file(char const *path)
{
  if (unveil(path, "r") < 0) return 0;
  return keeps_files = 1;
}

void confine_keep_none(void)
{
  keeps_files = 0;
}

int system_set_ids(uid_t uid, gid_t gid)
{
  return setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0;
}

int system_ids_are(uid_t uid, gid_t gid)
{
  uid_t u[3];
  gid_t g[3];
  if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0) return 0;
  for (int i = 0; i < 3; i++)
    if (u[i] != uid || g[i] != gid) return 0;
  return 1;
}

int system_drop_capabilities(struct failure *why)
{
  (void)why; /* there are none */
  return 1;
}

/* Whose ids have changed is traced by root only, and no session promises "proc". */
int system_forbid_trace(struct failure *why)
{
  (void)why;
  return 1;
}

int system_forbid_privileges(struct failure *why)
{
  (void)why; /* a promise without "exec" is that */
  return 1;
}

int system_forbid_calls(enum confine_stage stage, struct failure *why)
{
  static char const *const promises[] =
  {
    [STAGE_SIGNER] = "stdio recvfd",
    [STAGE_SESSION] = "stdio recvfd inet",
    [STAGE_WORKER] = "stdio recvfd sendfd inet unix proc",
  };
  char const *s = promises[stage];
  if (keeps_files)
    s = stage == STAGE_WORKER ? "stdio rpath recvfd sendfd inet unix proc"
      : "stdio rpath recvfd inet";
  return pledge(s, "") == 0 || failure_sys(why, "unable to promise ", s);
}

void process_rename(char const *name)
{
  setproctitle("%s", name);
}

#endif
