/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/socket.h>

#include "chain.h"

enum { ABOVE_CLIENT = 8 }; /* a UCSPI client puts the network on 6 and 7, whatever is there */

int chain_doorpair(int fd[2])
{
  if (socketpair_internal(AF_UNIX, SOCK_SEQPACKET, 0, O_CLOEXEC | O_NONBLOCK, fd) < 0) return 0;
  for (int i = 0; i < 2; i++)
  {
    int high = fcntl(fd[i], F_DUPFD_CLOEXEC, ABOVE_CLIENT);
    if (high < 0) return 0;
    close(fd[i]);
    fd[i] = high;
  }
  return 1;
}

int chain_is_door(int fd)
{
  int type;
  socklen_t len = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

void chain_door_leave(void)
{
  unsigned int fd;
  char const *s = getenv("TLS_ENGINEFD");
  if (s && chain_scan(s, &fd) && chain_is_door(fd)) coe(fd);
}
