/* ISC licence: see COPYING. */

#include <sys/resource.h>
#include <sys/time.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "inherit.h"

void inherit_close_from(int fd)
{
#ifdef SYS_close_range
  if (syscall(SYS_close_range, (unsigned int)fd, ~0U, 0U) == 0) return;
#endif
  struct rlimit limit;
  rlim_t end = 1 << 20; /* where Linux ends by default */
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < end) end = limit.rlim_max;
  for (; (rlim_t)fd < end; fd++) close(fd);
}

int inherit_output(void)
{
  int p[2];
  if (fcntl(2, F_GETFD) == 0) return dup2(2, 1) == 1;
  if (pipe(p) < 0) return 0;
  if (dup2(p[1], 1) < 0 || dup2(p[1], 2) < 0) return 0;
  for (int i = 0; i < 2; i++)
    if (p[i] > 2) close(p[i]);
  return 1;
}

void inherit_signals(void)
{
  static int const defaults[] =
  {
    SIGABRT, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU,
  };
  static int const timers[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };
  static int const alarms[] = { SIGALRM, SIGVTALRM, SIGPROF };
  struct sigaction old, dfl = { .sa_handler = SIG_DFL }, ign = { .sa_handler = SIG_IGN };
  for (unsigned int i = 0; i < sizeof timers / sizeof *timers; i++)
  {
    setitimer(timers[i], &(struct itimerval){ .it_value = { 0, 0 } }, 0);
    sigaction(alarms[i], &ign, 0); /* drops one that is blocked and pending */
    sigaction(alarms[i], &dfl, 0);
  }
  for (unsigned int i = 0; i < sizeof defaults / sizeof *defaults; i++)
    if (sigaction(defaults[i], 0, &old) == 0 && old.sa_handler == SIG_IGN)
      sigaction(defaults[i], &dfl, 0);
  sigaction(SIGPIPE, &ign, 0);
  sigemptyset(&old.sa_mask);
  sigprocmask(SIG_SETMASK, &old.sa_mask, 0);
}
