/* ISC licence: see COPYING. */

#include <sys/resource.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "engine.h"

void engine_closefrom(int fd)
{
#ifdef SYS_close_range
  if (syscall(SYS_close_range, (unsigned int)fd, ~0U, 0U) == 0) return;
#endif
  struct rlimit limit;
  rlim_t end = 1 << 20; /* where Linux ends by default */
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < end) end = limit.rlim_max;
  for (; (rlim_t)fd < end; fd++) close(fd);
}
