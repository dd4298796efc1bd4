/* ISC licence: see COPYING. */

/* Systems that have no more than POSIX and chroot(2) for it. */

#if !defined __linux__ && !defined __OpenBSD__

#include <sys/types.h>
#include <unistd.h>

#include "confine.h"

int system_keeps_files(void)
{
  return 0;
}

int confine_keep_file(char const *path)
{
  (void)path;
  return 0;
}

void confine_keep_none(void)
{
}

int system_set_ids(uid_t uid, gid_t gid)
{
  return setgid(gid) == 0 && setuid(uid) == 0;
}

int system_ids_are(uid_t uid, gid_t gid)
{
  return getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid;
}

int system_drop_capabilities(struct failure *why)
{
  (void)why;
  return 1;
}

int system_forbid_trace(struct failure *why)
{
  (void)why;
  return 1;
}

int system_forbid_privileges(struct failure *why)
{
  (void)why;
  return 1;
}

int system_forbid_calls(enum confine_stage stage, struct failure *why)
{
  (void)stage, (void)why;
  return 1;
}

void process_rename(char const *name)
{
  (void)name;
}

#endif
