/* ISC licence: see COPYING. */

#ifdef __linux__

#include <skalibs/nonposix.h>

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include <skalibs/djbunix.h>

#include "confine.h"
#include "filter.h"

/* What the kernel's headers say, which are not where every libc is. */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { MDWE_REFUSE_EXEC_GAIN = 1 };
enum { CAPABILITIES_VERSION_3 = 0x20080522, CAPABILITIES_N = 2 }; /* capset(2) */
enum
{
  LANDLOCK_VERSION = 1, /* landlock_create_ruleset(2) */
  LANDLOCK_FS_ALL = 0x1fff, /* every right of Landlock's first version */
  LANDLOCK_FS_READ_FILE = 4,
  LANDLOCK_PATH = 1,
};

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

struct landlock_ruleset
{
  uint64_t handled_fs;
};

struct landlock_path
{
  uint64_t allowed;
  int32_t fd;
} __attribute__((packed));

static int keeps_files;
static int ruleset = -1; /* of the files that are kept */

int system_keeps_files(void)
{
  return keeps_files;
}

void confine_keep_none(void)
{
  if (ruleset >= 0) fd_close(ruleset);
  ruleset = -1;
  keeps_files = 0;
}

static int ruleset_open(void)
{
  struct landlock_ruleset r = { .handled_fs = LANDLOCK_FS_ALL };
  if (keeps_files) return ruleset >= 0;
  if (syscall(SYS_landlock_create_ruleset, 0, 0, LANDLOCK_VERSION) < 1) return 0;
  ruleset = syscall(SYS_landlock_create_ruleset, &r, sizeof r, 0);
  return keeps_files = ruleset >= 0;
}

int confine_keep_file(char const *path)
{
  struct landlock_path p = { .allowed = LANDLOCK_FS_READ_FILE };
  if (!ruleset_open()) return 0;
  p.fd = open(path, O_PATH | O_CLOEXEC);
  if (p.fd < 0) return 0;
  int r = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_PATH, &p, 0);
  fd_close(p.fd);
  return r == 0;
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
  struct capabilities_header header = { .version = CAPABILITIES_VERSION_3 };
  struct capabilities none[CAPABILITIES_N] = { { 0 } };
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  return syscall(SYS_capset, &header, none) == 0
    || failure_sys(why, "unable to give up capabilities");
}

int system_forbid_trace(struct failure *why)
{
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 || failure_sys(why, "unable to forbid ptrace");
}

int system_forbid_privileges(struct failure *why)
{
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return failure_sys(why, "unable to forbid new privileges");
  if (!keeps_files) return 1;
  if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
    return failure_sys(why, "unable to forbid files");
  fd_close(ruleset);
  ruleset = -1;
  return 1;
}

int system_forbid_calls(enum confine_stage stage, struct failure *why)
{
  prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); /* no failure: the filter does that, too */
  return filter_set(stage, keeps_files, why);
}

void process_rename(char const *name)
{
  prctl(PR_SET_NAME, name, 0, 0, 0);
}

#endif
