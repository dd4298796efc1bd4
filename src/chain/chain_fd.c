/* ISC licence: see COPYING. */

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

int chain_scan(char const *s, unsigned int *n)
{
  return uint0_scan(s, n) && *n <= INT_MAX;
}

int chain_getfd(struct chain_network const *net, char const *name, char const *order)
{
  unsigned int fd;
  char const *s = chain_getenv(net, name);
  if (!s) chain_die(net, EXIT_USAGE, name, " is not set: ", order);
  if (!chain_scan(s, &fd)) chain_die(net, EXIT_USAGE, name, " is not a number");
  if (coe(fd) < 0) chain_diesys(net, EXIT_USAGE, "use ", name, "=", s);
  return fd;
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
static int fds_lift(int fd[2])
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
  return pipecoe(fd) == 0 && fds_lift(fd);
}

int chain_socketpair(int fd[2])
{
  return ipc_pair_coe(fd) == 0 && fds_lift(fd);
}
