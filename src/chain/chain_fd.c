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

int chain_lift(int fd, int lowest)
{
  if (fd < 0 || fd >= lowest) return fd;
  int high = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
  int e = errno;
  close(fd);
  errno = e;
  return high;
}

/* Lifts both; on failure closes what is open of them. */
static int fds_lift(int fd[2], int lowest)
{
  for (int i = 0; i < 2; i++)
  {
    fd[i] = chain_lift(fd[i], lowest);
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
  return pipecoe(fd) == 0 && fds_lift(fd, ABOVE_STANDARD);
}

int chain_socketpair(int fd[2])
{
  return ipc_pair_coe(fd) == 0 && fds_lift(fd, ABOVE_STANDARD);
}

int chain_doorpair(int fd[2])
{
  return socketpair_internal(AF_UNIX, SOCK_SEQPACKET, 0, O_CLOEXEC | O_NONBLOCK, fd) == 0
    && fds_lift(fd, ABOVE_CLIENT);
}
