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
#include "watch.h"

enum { WORKERS = 16, PAUSE_SECONDS = 1 };

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
  struct watch files; /* as the last worker was started to read them */
  int notif;
  int again;   /* a new worker is wanted: SIGHUP, other files, one that has died */
  int full;    /* and it was said that this has to wait */
  int asked;   /* the worker that serves waits to hear whether to go on */
  int ending;
  tain pause;  /* one that dies is not replaced earlier */
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
  watch_look(&k->files, k->o->role == SESSION_SERVER);
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

/* A worker that keeps dying is replaced once in a while. */
static int must_pause(struct keeper const *k)
{
  return !k->current && tain_future(&k->pause);
}

/* New settings, as soon as there is a place for a worker and none is loading. */
static void keeper_reload(struct keeper *k)
{
  struct kept *w = place_for_worker(k);
  if (!k->again || k->ending || worker_loading(k) || must_pause(k)) return;
  if (!w && !k->full)
    strerr_warnw("all workers still have sessions: the new settings are loaded when one has ended");
  k->full = !w;
  if (!w) return;
  k->again = 0;
  if (worker_start(k, w)) return;
  if (!k->current) strerr_diefusys(EXIT_SYSTEM, "start a worker");
  strerr_warnwu1sys("start a worker: going on with the old settings");
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
    if (w->ready) fd_send(w->fd, &(char){ KEEPER_END_SOON }, 1, MSG_NOSIGNAL);
    else kill(w->pid, SIGKILL);
  }
}

/* The one before it takes no more, its sessions go on. */
static void worker_is_ready(struct keeper *k, struct kept *w)
{
  w->ready = 1;
  if (k->current)
  {
    strerr_warni("new settings loaded");
    fd_send(k->current->fd, &(char){ KEEPER_END }, 1, MSG_NOSIGNAL);
  }
  k->current = w;
  k->asked = 0;
  tain_addsec_g(&k->pause, PAUSE_SECONDS);
  if (k->notif < 0) return;
  fd_write(k->notif, "\n", 1);
  fd_close(k->notif);
  k->notif = -1;
}

static void keeper_hear(struct keeper *k, struct kept *w)
{
  char c;
  if (fd_read(w->fd, &c, 1) != 1) return;
  if (c == WORKER_IS_READY && !w->ready) worker_is_ready(k, w);
  if (w != k->current) return;
  if (c == WORKER_IS_LEFT) keeper_end(k);
  if (c != WORKER_ASKS) return;
  k->asked = 1;
  if (watch_look(&k->files, k->o->role == SESSION_SERVER)) k->again = 1;
}

/* Unless new settings are being loaded: the worker that has them will be the one to go on. */
static void keeper_answer(struct keeper *k)
{
  if (!k->asked || !k->current || worker_loading(k)) return;
  fd_send(k->current->fd, &(char){ KEEPER_GO_ON }, 1, MSG_NOSIGNAL);
  k->asked = 0;
}

/* Nobody is left who takes sessions: they wait at the door. */
static void worker_replace(struct keeper *k)
{
  k->current = 0;
  k->asked = 0;
  strerr_warnw("the worker exited unexpectedly: starting another one");
  k->again |= !worker_loading(k);
}

static void worker_is_gone(struct keeper *k, struct kept *w, int wstat)
{
  int failed = !w->ready;
  fd_close(w->fd);
  w->pid = 0;
  if (k->ending) return;
  if (failed && k->current) strerr_warnw("new settings not loaded: going on with the old ones");
  else if (failed && WIFEXITED(wstat)) _exit(wait_estatus(wstat)); /* it has said why */
  else if (failed) strerr_dief(EXIT_SYSTEM, "the worker exited unexpectedly");
  else if (w == k->current) worker_replace(k);
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
  k.again = 1;
  keeper_reload(&k);
  while (workers_count(&k) || (k.again && !k.ending))
  {
    struct kept *loading = worker_loading(&k), *current = k.current;
    iopause_fd x[3] =
    {
      { .fd = sigs, .events = IOPAUSE_READ },
      { .fd = loading ? loading->fd : -1, .events = IOPAUSE_READ },
      { .fd = current ? current->fd : -1, .events = IOPAUSE_READ },
    };
    tain const *deadline = k.again && must_pause(&k) ? &k.pause : &tain_infinite;
    if (iopause_g(x, 3, deadline) < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (x[1].revents) keeper_hear(&k, loading);
    if (x[2].revents) keeper_hear(&k, current);
    if (x[0].revents) keeper_handle_signals(&k);
    keeper_reload(&k);
    keeper_answer(&k);
  }
  return 0;
}
