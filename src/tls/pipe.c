/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <fcntl.h>

#include "buf.h"
#include "pipe.h"

void pipe_widen(int fd, int *wide)
{
  if (*wide) return;
  *wide = 1;
#ifdef F_SETPIPE_SZ
  fcntl(fd, F_SETPIPE_SZ, PLAIN_SIZE);
#else
  (void)fd;
#endif
}
