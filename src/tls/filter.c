/* ISC licence: see COPYING. */

#ifdef __linux__

#include <skalibs/nonposix.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <skalibs/strerr.h>

#include "calls.h"
#include "filter.h"

/* What the kernel's headers say, which are not where every libc is: seccomp(2), bpf(4). */

struct filter_step
{
  uint16_t code;
  uint8_t if_true;
  uint8_t if_false;
  uint32_t k;
};

struct filter_program
{
  uint16_t len;
  struct filter_step *steps;
};

struct filter_data
{
  int32_t nr;
  uint32_t arch;
  uint64_t address;
  uint64_t arg[6];
};

enum { LOAD = 0x20, IF_EQUAL = 0x15, AND = 0x54, RETURN = 0x06 };
enum { SET_MODE_FILTER = 1, SPEC_ALLOW = 4, OUTQNSD = 0x894b };

#define RETURN_ALLOW 0x7fff0000U
#define RETURN_ENOSYS (0x00050000U | ENOSYS)
#define RETURN_KILL 0x80000000U

/* Those with low halves first, and a mmap(2) that has its arguments in registers. */
#if defined __x86_64__
#define ARCH 0xc000003eU
#elif defined __i386__
#define ARCH 0x40000003U
#elif defined __aarch64__ && !defined __AARCH64EB__
#define ARCH 0xc00000b7U
#elif defined __arm__ && !defined __ARMEB__
#define ARCH 0x40000028U
#elif defined __riscv && __riscv_xlen == 64
#define ARCH 0xc00000f3U
#elif defined __powerpc64__ && defined __LITTLE_ENDIAN__
#define ARCH 0xc0000015U
#elif defined __loongarch64
#define ARCH 0xc0000102U
#else
#define ARCH 0 /* not known: no filter */
#endif

enum { SIGNER = 1, SESSION = 2, WORKER = 4, FILES = 8, ALL = SIGNER | SESSION | WORKER };

/* A call, who may make it, and what must be so of an argument, if mask is not 0. */
struct filter_rule
{
  int nr;
  int who;
  int arg;
  uint32_t mask;
  uint32_t value;
};

#define CALL(nr, who) { nr, who, 0, 0, 0 }
#define CALL_IF(nr, who, arg, mask, value) { nr, who, arg, mask, value }

/* Not those that have signals sent to somebody. */
#define FCNTL(nr, command) CALL_IF(nr, SESSION | WORKER, 1, UINT32_MAX, command)
#define FCNTLS(nr) FCNTL(nr, F_GETFD), FCNTL(nr, F_SETFD), FCNTL(nr, F_GETFL), \
  FCNTL(nr, F_SETFL), FCNTL(nr, F_SETPIPE_SZ)

static struct filter_rule const rules[] =
{
  /* to move bytes, to wait, to know the time */
  CALL(SYS_read, ALL),
  CALL(SYS_write, ALL),
  CALL(SYS_writev, ALL),
  CALL(SYS_close, ALL),
  CALL(SYS_ppoll, ALL),
  CALL(SYS_ppoll_time64, ALL),
  CALL(SYS_poll, ALL),
  CALL(SYS_recvfrom, ALL),
  CALL(SYS_recv, ALL),
  CALL(SYS_recvmsg, ALL),
  CALL(SYS_sendto, ALL),
  CALL(SYS_send, ALL),
  CALL(SYS_sendmsg, ALL),
  CALL(SYS_clock_gettime, ALL),
  CALL(SYS_clock_gettime64, ALL),
  CALL(SYS_gettimeofday, ALL),
  CALL(SYS_time, ALL),
  CALL(SYS_getrandom, ALL),
  CALL(SYS_getpid, ALL),

  /* memory, as long as nothing in it becomes a program */
  CALL(SYS_brk, ALL),
  CALL_IF(SYS_mmap, ALL, 2, PROT_EXEC, 0),
  CALL_IF(SYS_mmap2, ALL, 2, PROT_EXEC, 0),
  CALL_IF(SYS_mprotect, ALL, 2, PROT_EXEC, 0),
  CALL(SYS_munmap, ALL),
  CALL(SYS_mremap, ALL),
  CALL(SYS_madvise, ALL),
  CALL(SYS_futex, ALL),
  CALL(SYS_futex_time64, ALL),

  /* to come back from a signal, to end */
  CALL(SYS_rt_sigreturn, ALL),
  CALL(SYS_sigreturn, ALL),
  CALL(SYS_restart_syscall, ALL),
  CALL(SYS_rt_sigprocmask, ALL),
  CALL(SYS_exit_group, ALL),

  /* the network */
  CALL(SYS_readv, SESSION | WORKER),
  FCNTLS(SYS_fcntl),
  FCNTLS(SYS_fcntl64),
  CALL(SYS_shutdown, SESSION | WORKER),
  CALL(SYS_getsockopt, SESSION | WORKER),
  CALL_IF(SYS_ioctl, SESSION | WORKER, 1, UINT32_MAX, TIOCOUTQ),
  CALL_IF(SYS_ioctl, SESSION | WORKER, 1, UINT32_MAX, OUTQNSD),

  /* sessions: their processes, and what a new one does before it is one */
  CALL(SYS_accept4, WORKER),
  CALL(SYS_socketpair, WORKER),
  CALL(SYS_setsockopt, WORKER),
  CALL(SYS_fstat, WORKER),
  CALL(SYS_fstat64, WORKER),
  CALL(SYS_newfstatat, WORKER),
  CALL(SYS_statx, WORKER),
  CALL(SYS_clone, WORKER),
  CALL(SYS_fork, WORKER),
  CALL(SYS_wait4, WORKER),
  CALL(SYS_kill, WORKER),
  CALL(SYS_dup2, WORKER),
  CALL(SYS_dup3, WORKER),
  CALL(SYS_gettid, WORKER),
  CALL(SYS_set_robust_list, WORKER),
  CALL(SYS_rt_sigaction, WORKER),
  CALL(SYS_signalfd4, WORKER),
  CALL(SYS_setrlimit, WORKER),
  CALL(SYS_prlimit64, WORKER),
  CALL(SYS_prctl, WORKER),
  CALL(SYS_seccomp, WORKER),

  /* some machines have one call for them: socket(2) and so on are others of its numbers */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 9), /* send */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 10), /* recv */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 11), /* sendto */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 12), /* recvfrom */
  CALL_IF(SYS_socketcall, SESSION | WORKER, 0, UINT32_MAX, 13), /* shutdown */
  CALL_IF(SYS_socketcall, SESSION | WORKER, 0, UINT32_MAX, 15), /* getsockopt */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 16), /* sendmsg */
  CALL_IF(SYS_socketcall, ALL, 0, UINT32_MAX, 17), /* recvmsg */
  CALL_IF(SYS_socketcall, WORKER, 0, UINT32_MAX, 8), /* socketpair */
  CALL_IF(SYS_socketcall, WORKER, 0, UINT32_MAX, 14), /* setsockopt */
  CALL_IF(SYS_socketcall, WORKER, 0, UINT32_MAX, 18), /* accept4 */

  /* files that are kept: to find one, to read it */
  CALL_IF(SYS_open, FILES, 1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
  CALL_IF(SYS_openat, FILES, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
  CALL(SYS_stat, FILES),
  CALL(SYS_stat64, FILES),
  CALL(SYS_fstatat64, FILES),
  CALL(SYS_newfstatat, FILES),
  CALL(SYS_statx, FILES),
  CALL(SYS_fstat, FILES),
  CALL(SYS_fstat64, FILES),
  CALL(SYS_lseek, FILES),
  CALL(SYS__llseek, FILES),
  CALL(SYS_readv, FILES),
};

enum { RULES_N = sizeof rules / sizeof *rules, STEPS_PER_RULE = 6, STEPS_OUTSIDE = 5 };

/* Allows the call of a rule, whose number is loaded, if the argument is as it says. */
static size_t rule_put(struct filter_step *s, struct filter_rule const *r)
{
  struct filter_step const with_argument[] =
  {
    { IF_EQUAL, 0, 5, r->nr },
    { LOAD, 0, 0, offsetof(struct filter_data, arg) + 8 * r->arg },
    { AND, 0, 0, r->mask },
    { IF_EQUAL, 0, 1, r->value },
    { RETURN, 0, 0, RETURN_ALLOW },
    { LOAD, 0, 0, offsetof(struct filter_data, nr) },
  };
  struct filter_step const alone[] = { { IF_EQUAL, 0, 1, r->nr }, { RETURN, 0, 0, RETURN_ALLOW } };
  struct filter_step const *from = r->mask ? with_argument : alone;
  size_t n = r->mask ? 6 : 2;
  for (size_t i = 0; i < n; i++) s[i] = from[i];
  return n;
}

static int filter_install(struct filter_program const *p)
{
  /* No program of somebody else's runs here, so nothing is to be gained by a slower processor. */
  if (syscall(SYS_seccomp, SET_MODE_FILTER, SPEC_ALLOW, p) == 0) return 1;
  return errno == EINVAL && syscall(SYS_seccomp, SET_MODE_FILTER, 0, p) == 0; /* before 4.17 */
}

int filter_set(enum confine_stage stage, int keeps_files, struct failure *why)
{
  static int warned; /* a session's worker has been, before */
  static int const whose[] =
    { [STAGE_SIGNER] = SIGNER, [STAGE_SESSION] = SESSION, [STAGE_WORKER] = WORKER };
  struct filter_step s[RULES_N * STEPS_PER_RULE + STEPS_OUTSIDE];
  int who = whose[stage] | (keeps_files ? FILES : 0);
  size_t n = 0;
  s[n++] = (struct filter_step){ LOAD, 0, 0, offsetof(struct filter_data, arch) };
  s[n++] = (struct filter_step){ IF_EQUAL, 1, 0, ARCH };
  s[n++] = (struct filter_step){ RETURN, 0, 0, RETURN_KILL };
  s[n++] = (struct filter_step){ LOAD, 0, 0, offsetof(struct filter_data, nr) };
  for (size_t i = 0; i < RULES_N; i++)
    if (rules[i].nr != CALL_ABSENT && rules[i].who & who) n += rule_put(s + n, &rules[i]);
  s[n++] = (struct filter_step){ RETURN, 0, 0, RETURN_ENOSYS };
  if (ARCH && filter_install(&(struct filter_program){ n, s })) return 1;
  if (ARCH && errno != ENOSYS && errno != EINVAL)
    return failure_sys(why, "unable to forbid system calls");
  if (!warned) strerr_warnw("no filter of system calls: this system has none");
  return warned = 1;
}

#endif
