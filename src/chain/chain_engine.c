/* ISC licence: see COPYING. */

#include <errno.h>
#include <unistd.h>

#include <skalibs/ancil.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/socket.h>

#include "chain.h"

/* TLS_ENGINE_PATH is set by the Makefile: below libexecdir, or tests/bin for the tests. */

enum { RETRY_MS = 10 };

int chain_engine_spawn(char const **step)
{
  static char const *const argv[] = { TLS_ENGINE_PATH, 0 };
  int fd[2];
  *step = "unable to create session socket: ";
  if (!chain_socketpair(fd)) return -1;
  struct chain_child child =
  {
    .argv = argv, .drop = CHAIN_APP | CHAIN_TLS | CHAIN_FACTS, .input = fd[1], .orphan = 1,
  };
  pid_t pid = chain_spawn(&child);
  *step = pid < 0 ? "unable to exec " TLS_ENGINE_PATH ": " : "unable to start an engine: ";
  fd_close(fd[1]);
  if (pid > 0) return fd[0];
  fd_close(fd[0]);
  return -1;
}

/* A connection that finds the backlog full is not queued, so it is tried again. */
int chain_engine_connect(char const *path, tain const *deadline, char const **step)
{
  int fd = chain_lift(ipc_stream_nbcoe(), ABOVE_STANDARD);
  *step = "unable to connect to TLS_ENGINE: ";
  if (fd < 0) return -1;
  while (!ipc_connect(fd, path))
  {
    tain again;
    tain_from_millisecs(&again, RETRY_MS);
    tain_add_g(&again, &again);
    if (errno != EAGAIN || !tain_less(&again, deadline))
    {
      fd_close(fd);
      return -1;
    }
    deepsleepuntil_g(&again);
  }
  if (ndelay_off(fd) == 0) return fd;
  fd_close(fd);
  return -1;
}

int chain_engine_ask(int door, tain const *deadline, char const **step)
{
  int fd[2];
  iopause_fd x = { .fd = door, .events = IOPAUSE_WRITE };
  *step = "unable to create session socket: ";
  if (!chain_socketpair(fd)) return -1;
  *step = "unable to reach the engine at TLS_ENGINEFD: ";
  int sent = 0;
  while (!(sent = ancil_send_fd(door, fd[1], SESSION_DOOR)) && errno == EAGAIN)
  {
    int r = iopause_g(&x, 1, deadline); /* it is busy, and its queue is full */
    if (r > 0) continue;
    if (!r) errno = ETIMEDOUT;
    break;
  }
  fd_close(fd[1]);
  if (sent) return fd[0];
  fd_close(fd[0]);
  return -1;
}
