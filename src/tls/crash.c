/* ISC licence: see COPYING. */

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "../session/progname.h"
#include "crash.h"

/* Nothing but what is safe in a handler: the process may be in any state. */
static void crash_tell(int sig)
{
  static char const text[] = ": fatal: killed by signal ";
  char s[PROGNAME_SIZE + sizeof text + UINT_FMT + 1];
  size_t n = strlen(PROG);
  memcpy(s, PROG, n);
  memcpy(s + n, text, sizeof text - 1);
  n += sizeof text - 1;
  n += uint_fmt(s + n, sig);
  s[n++] = '\n';
  n = write(2, s, n);
  _exit(128 + sig); /* an engine that is confined cannot raise a signal */
}

void crash_watch(void)
{
  static int const signals[] =
  {
    SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTERM, SIGXCPU,
  };
  struct sigaction old, action = { .sa_handler = &crash_tell, .sa_flags = SA_RESETHAND };
  sigemptyset(&action.sa_mask);
  for (unsigned int i = 0; i < sizeof signals / sizeof *signals; i++)
    if (sigaction(signals[i], 0, &old) == 0 && old.sa_handler == SIG_DFL)
      sigaction(signals[i], &action, 0); /* a handler that is there already is a sanitizer's */
}
