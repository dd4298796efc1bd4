/* ISC licence: see COPYING. */

#include <errno.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>

#include "chain.h"

/*
  By vfork: the copy of a page table, thrown away at once, would cost a delayed session 3 % more
  (tools/bench -s delayed). Until it execs or exits, a child runs in the memory of its parent,
  which waits: it does not return from here, and leaves nothing changed that the parent reads but
  errno. Where vfork is fork all of this holds as well, as errors come by a pipe.
*/

/* What went wrong on the way to the exec, told to the pipe that the exec would have closed. */
struct report
{
  pid_t result; /* of chain_spawn */
  int e;
};

static void error_report(int fd, pid_t result)
{
  struct report r = { .result = result, .e = errno };
  fd_write(fd, (char *)&r, sizeof r);
  _exit(127);
}

static void child_exec(struct chain_child const *c, int fd)
{
  for (unsigned int i = 0; i < c->n; i++)
    if (uncoe(c->keep[i]) < 0) error_report(fd, 0);
  if (c->input >= 0 && fd_copy(0, c->input) < 0) error_report(fd, 0);
  chain_tryexec(c->argv, c->drop, c->modif, c->modiflen);
  error_report(fd, -1);
}

pid_t chain_spawn(struct chain_child const *c)
{
  int p[2];
  if (!chain_pipe(p)) return 0;
  pid_t pid = vfork();
  if (!pid)
  {
    pid_t grandchild = c->orphan ? vfork() : 0;
    if (!grandchild) child_exec(c, p[1]);
    if (grandchild < 0) error_report(p[1], 0);
    _exit(0);
  }
  struct report r = { .result = pid, .e = errno };
  if (pid < 0) r.result = 0;
  close(p[1]);
  if (pid > 0)
  {
    fd_read(p[0], (char *)&r, sizeof r); /* end of file: the exec succeeded */
    if (r.result <= 0 || c->orphan) wait_pid(pid, &(int){ 0 });
  }
  close(p[0]);
  errno = r.e;
  return r.result;
}
