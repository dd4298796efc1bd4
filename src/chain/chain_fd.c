/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/socket.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "chain.h"

int chain_getfd(char const *name)
{
  unsigned int fd;
  char const *s = getenv(name);
  if (!s) strerr_dienotset(EXIT_USAGE, name);
  if (!uint0_scan(s, &fd) || fd > INT_MAX) strerr_dieinvalid(EXIT_USAGE, name);
  if (coe(fd) < 0) strerr_diefsys(EXIT_USAGE, "invalid $", name, "=", s);
  return fd;
}

unsigned int chain_number(char const *s, char const *usage)
{
  unsigned int n;
  if (!uint0_scan(s, &n) || n > INT_MAX) strerr_dieusage(EXIT_USAGE, usage);
  return n;
}

int chain_lift(int fd)
{
  if (fd < 0 || fd > 2) return fd;
  int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  int e = errno;
  close(fd);
  errno = e;
  return high;
}

/* Lifts both above 2; on failure closes what is open of them. */
static int lift(int fd[2])
{
  for (int i = 0; i < 2; i++)
  {
    fd[i] = chain_lift(fd[i]);
    if (fd[i] >= 0) continue;
    int e = errno;
    close(fd[!i]);
    errno = e;
    return 0;
  }
  return 1;
}

int chain_pipe(int fd[2])
{
  return pipecoe(fd) == 0 && lift(fd);
}

int chain_socketpair(int fd[2])
{
  return ipc_pair_coe(fd) == 0 && lift(fd);
}

void chain_shutdown(int rfd, int wfd)
{
  shutdown(rfd, SHUT_RDWR);
  shutdown(wfd, SHUT_RDWR);
}
