/* ISC licence: see COPYING. */

#include <errno.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>

#include "chain.h"

/* Becomes the program, or tells errno to the pipe that the exec would have closed. */
static void become(struct chain_child const *c, int report)
{
  int e;
  for (unsigned int i = 0; i < c->n; i++)
    if (uncoe(c->keep[i]) < 0) goto err;
  if (c->input >= 0 && fd_copy(0, c->input) < 0) goto err;
  chain_tryexec(c->argv, c->drop, c->modif, c->modiflen);
err:
  e = errno;
  fd_write(report, (char *)&e, sizeof e);
  _exit(127);
}

pid_t chain_spawn(struct chain_child const *c)
{
  int report[2];
  int e = 0;
  if (!chain_pipe(report)) return 0;
  pid_t pid = fork();
  if (!pid)
  {
    pid_t grandchild = c->orphan ? fork() : 0;
    if (!grandchild) become(c, report[1]);
    if (grandchild < 0)
    {
      e = errno;
      fd_write(report[1], (char *)&e, sizeof e);
    }
    _exit(0);
  }
  if (pid < 0) e = errno;
  close(report[1]);
  if (pid > 0)
  {
    fd_read(report[0], (char *)&e, sizeof e); /* end of file: the exec succeeded */
    if (e || c->orphan) wait_pid(pid, &(int){ 0 });
  }
  close(report[0]);
  return e ? (errno = e, 0) : pid;
}
