/* ISC licence: see COPYING. */

/*
  The resident engine. Three kinds of process:

  the keeper, this program's main: minds signals and its workers, reads no file and no network;
  a worker: loads the settings once, confines itself, accepts on descriptor 0, forks for each;
  a session: exactly what tls-engine is, with the worker's settings.

  New settings are a new worker, forked by the keeper, which alone still may read the files: it
  takes over when it is ready, and if it never is, the old one goes on.
*/

#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/selfpipe.h>
#include <skalibs/sgetopt.h>
#include <skalibs/sig.h>
#include <skalibs/socket.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "engined.h"

#define USAGE "tls-engined [ -c ] [ -d notif ] [ -m maxsessions ] [ -t ms ] [ -u uid ]"

enum { WORKERS = 16 };

struct worker
{
  pid_t pid; /* 0: no worker here */
  int fd;    /* its lifeline */
  int ready;
};

struct keeper
{
  struct engined_options o;
  struct worker worker[WORKERS];
  struct worker *current;
  int notif;
  int again; /* SIGHUP has come, and no worker has been started for it yet */
  int ending;
};

static void worker_start(struct keeper *k)
{
  int fd[2];
  struct worker *w = k->worker;
  while (w < k->worker + WORKERS && w->pid) w++;
  if (w == k->worker + WORKERS)
  {
    strerr_warnw("too many workers still have sessions: settings not loaded anew");
    return;
  }
  if (ipc_pair_coe(fd) < 0) strerr_diefusys(EXIT_SYSTEM, "create a socket pair");
  pid_t pid = fork();
  if (pid < 0) strerr_diefusys(EXIT_SYSTEM, "fork");
  if (!pid)
  {
    selfpipe_finish();
    fd_close(fd[0]);
    for (struct worker *x = k->worker; x < k->worker + WORKERS; x++) if (x->pid) fd_close(x->fd);
    if (k->notif >= 0) fd_close(k->notif);
    exit(engined_work(&k->o, fd[1]));
  }
  fd_close(fd[1]);
  *w = (struct worker){ .pid = pid, .fd = fd[0] };
}

/* A worker says that it is ready; the one before it stops to accept, its sessions go on. */
static void worker_ready(struct keeper *k, struct worker *w)
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

static void worker_gone(struct keeper *k, struct worker *w, int wstat)
{
  int failed = !w->ready;
  fd_close(w->fd);
  w->pid = 0;
  if (k->ending) return;
  if (failed && k->current) strerr_warnw("new settings not loaded: going on with the old ones");
  else if (failed && WIFEXITED(wstat)) _exit(wait_estatus(wstat)); /* it has said why */
  else if (failed || w == k->current) strerr_dief(EXIT_SYSTEM, "the worker died");
}

static void end(struct keeper *k)
{
  if (k->ending) return;
  k->ending = 1;
  fd_close(0); /* the workers do the same: who connects now is refused at once */
  for (struct worker *w = k->worker; w < k->worker + WORKERS; w++)
    if (w->pid) fd_send(w->fd, "t", 1, MSG_NOSIGNAL);
}

static void handle_signals(struct keeper *k)
{
  for (int sig; (sig = selfpipe_read()) > 0; )
  {
    if (sig == SIGHUP) k->again = 1;
    if (sig == SIGTERM) end(k);
    if (sig != SIGCHLD) continue;
    int wstat;
    for (pid_t pid; (pid = wait_nohang(&wstat)) > 0; )
      for (struct worker *w = k->worker; w < k->worker + WORKERS; w++)
        if (w->pid == pid) worker_gone(k, w, wstat);
  }
}

static int workers(struct keeper const *k)
{
  int n = 0;
  for (int i = 0; i < WORKERS; i++) n += !!k->worker[i].pid;
  return n;
}

/* The worker that is not ready yet: one at a time, so that none can overtake a later one. */
static struct worker *loading(struct keeper *k)
{
  for (struct worker *w = k->worker; w < k->worker + WORKERS; w++)
    if (w->pid && !w->ready) return w;
  return 0;
}

static int keep(struct keeper *k)
{
  sigset_t set;
  int sigs = selfpipe_init();
  if (sigs < 0) strerr_diefusys(EXIT_SYSTEM, "create a self-pipe");
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGCHLD);
  if (!selfpipe_trapset(&set)) strerr_diefusys(EXIT_SYSTEM, "trap signals");
  worker_start(k);
  while (workers(k))
  {
    struct worker *w = loading(k);
    iopause_fd x[2] =
    {
      { .fd = sigs, .events = IOPAUSE_READ },
      { .fd = w ? w->fd : -1, .events = IOPAUSE_READ },
    };
    if (iopause_g(x, 2, &tain_infinite) < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (x[1].revents) worker_ready(k, w);
    if (x[0].revents) handle_signals(k);
    if (!k->again || k->ending || loading(k)) continue;
    k->again = 0;
    worker_start(k);
  }
  return 0;
}

static unsigned int number(char const *s)
{
  unsigned int n;
  if (!uint0_scan(s, &n) || n > INT_MAX) strerr_dieusage(EXIT_USAGE, USAGE);
  return n;
}

/* Keeps a listening socket on 0, what there is on 2, and *notif, and nothing else. */
static void inherit(int *notif)
{
  int listens;
  socklen_t len = sizeof listens;
  if (getsockopt(0, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens)
    strerr_dief(EXIT_USAGE, "descriptor 0 is not a listening socket");
  fd_close(1);
  if (ndelay_on(0) < 0 || !fd_ensure_open(1, 1) || !fd_ensure_open(2, 1))
    strerr_diefusys(EXIT_SYSTEM, "prepare descriptors");
  if (*notif >= 0 && *notif < 3) strerr_dieusage(EXIT_USAGE, USAGE);
  if (*notif >= 0 && (fd_move(3, *notif) < 0 || coe(3) < 0))
    strerr_diefusys(EXIT_USAGE, "use the descriptor of -d");
  if (*notif >= 0) *notif = 3;
  engine_closefrom(*notif >= 0 ? 4 : 3);
}

int main(int argc, char const *const *argv)
{
  struct keeper k = { .o = { .max = 1000, .uid = -1 }, .notif = -1 };
  PROG = "tls-engined";
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cd:m:t:u:", &l)) != -1; )
    switch (opt)
    {
      case 'c': k.o.role = SESSION_CLIENT; break;
      case 'd': k.notif = number(l.arg); break;
      case 'm': k.o.max = number(l.arg); break;
      case 't': k.o.limit = number(l.arg); break;
      case 'u': k.o.uid = number(l.arg); break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  if (l.ind < argc || !k.o.max) strerr_dieusage(EXIT_USAGE, USAGE);
  inherit(&k.notif);
  if (!sig_ignore(SIGPIPE)) strerr_diefusys(EXIT_SYSTEM, "ignore SIGPIPE");
  tain_now_set_stopwatch_g();
  return keep(&k);
}
