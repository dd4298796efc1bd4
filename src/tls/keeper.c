/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/selfpipe.h>
#include <skalibs/socket.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "../session/session.h"
#include "confine.h"
#include "keeper.h"

enum { WORKERS = 16 };

struct kept
{
  pid_t pid; /* 0: no worker here */
  int fd;    /* its lifeline */
  int ready;
};

struct keeper
{
  struct worker_options const *o;
  struct kept worker[WORKERS];
  struct kept *current;
  int notif;
  int again;  /* SIGHUP has come, and no worker has been started for it yet */
  int full;   /* and it was said that this has to wait */
  int ending;
};

/* A place for a worker, or null if all are taken. */
static struct kept *place_for_worker(struct keeper *k)
{
  for (struct kept *w = k->worker; w < k->worker + WORKERS; w++)
    if (!w->pid) return w;
  return 0;
}

/* The worker that is not ready yet: one at a time, so that none can overtake a later one. */
static struct kept *worker_loading(struct keeper *k)
{
  for (struct kept *w = k->worker; w < k->worker + WORKERS; w++)
    if (w->pid && !w->ready) return w;
  return 0;
}

static int workers_count(struct keeper const *k)
{
  int n = 0;
  for (int i = 0; i < WORKERS; i++) n += !!k->worker[i].pid;
  return n;
}

/* Returns 0 with errno set. */
static int worker_start(struct keeper *k, struct kept *w)
{
  int fd[2];
  if (ipc_pair_coe(fd) < 0) return 0;
  pid_t pid = fork();
  if (!pid)
  {
    selfpipe_finish();
    fd_close(fd[0]);
    for (struct kept *x = k->worker; x < k->worker + WORKERS; x++) if (x->pid) fd_close(x->fd);
    if (k->notif >= 0) fd_close(k->notif);
    _exit(worker_run(k->o, fd[1]));
  }
  fd_close(fd[1]);
  if (pid > 0) *w = (struct kept){ .pid = pid, .fd = fd[0] };
  else fd_close(fd[0]);
  return pid > 0;
}

/* New settings, as soon as there is a place for a worker and none is loading. */
static void keeper_reload(struct keeper *k)
{
  struct kept *w = place_for_worker(k);
  if (!k->again || k->ending || worker_loading(k)) return;
  if (!w && !k->full)
    strerr_warnw("all workers still have sessions: the new settings are loaded when one has ended");
  k->full = !w;
  if (!w) return;
  k->again = 0;
  if (!worker_start(k, w)) strerr_warnwu1sys("start a worker: going on with the old settings");
}

/* A worker says that it is ready; the one before it accepts no more, its sessions go on. */
static void worker_is_ready(struct keeper *k, struct kept *w)
{
  if (fd_read(w->fd, &(char){ 0 }, 1) != 1) return;
  w->ready = 1;
  if (k->current)
  {
    strerr_warni("new settings loaded");
    fd_send(k->current->fd, "d", 1, MSG_NOSIGNAL);
  }
  k->current = w;
  if (k->notif < 0) return;
  fd_write(k->notif, "\n", 1);
  fd_close(k->notif);
  k->notif = -1;
}

static void worker_is_gone(struct keeper *k, struct kept *w, int wstat)
{
  int failed = !w->ready;
  fd_close(w->fd);
  w->pid = 0;
  if (k->ending) return;
  if (failed && k->current) strerr_warnw("new settings not loaded: going on with the old ones");
  else if (failed && WIFEXITED(wstat)) _exit(wait_estatus(wstat)); /* it has said why */
  else if (failed || w == k->current) strerr_dief(EXIT_SYSTEM, "the worker exited unexpectedly");
}

/* A worker that is still loading has nobody to serve, and may be stuck in a file system. */
static void keeper_end(struct keeper *k)
{
  if (k->ending) return;
  k->ending = 1;
  fd_close(0); /* the workers do the same: who connects now is refused at once */
  for (struct kept *w = k->worker; w < k->worker + WORKERS; w++)
  {
    if (!w->pid) continue;
    if (w->ready) fd_send(w->fd, "t", 1, MSG_NOSIGNAL);
    else kill(w->pid, SIGKILL);
  }
}

static void keeper_handle_signals(struct keeper *k)
{
  for (int sig; (sig = selfpipe_read()) > 0; )
  {
    if (sig == SIGHUP) k->again = 1;
    if (sig == SIGTERM) keeper_end(k);
    if (sig != SIGCHLD) continue;
    int wstat;
    for (pid_t pid; (pid = wait_nohang(&wstat)) > 0; )
      for (struct kept *w = k->worker; w < k->worker + WORKERS; w++)
        if (w->pid == pid) worker_is_gone(k, w, wstat);
  }
}

int keeper_run(struct worker_options const *o, int notif)
{
  struct keeper k = { .o = o, .notif = notif };
  struct failure why;
  sigset_t set;
  if (!confine_keeper(&why)) strerr_dief(why.code, why.reason);
  int sigs = selfpipe_init();
  if (sigs < 0) strerr_diefusys(EXIT_SYSTEM, "create a self-pipe");
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGCHLD);
  if (!selfpipe_trapset(&set)) strerr_diefusys(EXIT_SYSTEM, "trap signals");
  if (!worker_start(&k, k.worker)) strerr_diefusys(EXIT_SYSTEM, "start a worker");
  while (workers_count(&k))
  {
    struct kept *w = worker_loading(&k);
    iopause_fd x[2] =
    {
      { .fd = sigs, .events = IOPAUSE_READ },
      { .fd = w ? w->fd : -1, .events = IOPAUSE_READ },
    };
    if (iopause_g(x, 2, &tain_infinite) < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (x[1].revents) worker_is_ready(&k, w);
    if (x[0].revents) keeper_handle_signals(&k);
    keeper_reload(&k);
  }
  return 0;
}
