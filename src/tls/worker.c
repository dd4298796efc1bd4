/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <sys/wait.h>
#include <errno.h>
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

#include "../session/progname.h"
#include "confine.h"
#include "file.h"
#include "hooks.h"
#include "keypairs.h"
#include "rehearse.h"
#include "serve.h"
#include "settings.h"
#include "signer.h"
#include "worker.h"

enum { SHORTAGE_MS = 100 };

struct place
{
  pid_t pid;
  int is_lingering; /* only waits for its peer */
};

struct worker
{
  struct worker_options const *o;
  struct settings settings;
  struct place *place; /* twice o->max */
  unsigned int n;
  unsigned int lingering;
  int accepting;
  int lifeline;   /* -1 once it has ended */
  int sigs;
  int news[2];    /* where sessions tell that they linger */
};

/* Every policy that the environment has settings for. */
static int worker_load(struct worker *w, struct failure *why)
{
  struct session_policy policy = { .role = w->o->role };
  int more = w->o->role == SESSION_CLIENT ? getenv("CERTFILE") || getenv("KEYFILE")
    : getenv("CAFILE") || getenv("CADIR");
  for (int i = 0; i <= (more ? SESSION_PEERCERT_REQUIRED : SESSION_PEERCERT_NONE); i++)
  {
    policy.peercert = i;
    if (!settings_load(&w->settings, &policy, why)) return 0;
    if (w->settings.client[i] && !rehearse_client(w->settings.client[i], why)) return 0;
  }
  if (w->o->role == SESSION_SERVER || more) keypairs_warn(w->o->role == SESSION_CLIENT);
  if (w->settings.server[0]) rehearse_server(w->settings.server[0]);
  return 1;
}

static void session_run(struct worker const *w, int fd, int channel) gccattr_noreturn;
static void session_run(struct worker const *w, int fd, int channel)
{
  char prog[PROGNAME_SIZE];
  selfpipe_finish();
  if (w->lifeline >= 0) fd_close(w->lifeline);
  fd_close(w->news[0]);
  signer_leave();
  hooks_use(channel);
  process_rename("tls-engine");
  progname_set(prog, "tls-engine", "");
  if (fd_move(0, fd) < 0) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  _exit(serve_session(0, &w->settings, w->news[1]));
}

static int may_connect(struct worker const *w, int fd)
{
  uid_t uid;
  gid_t gid;
  return w->o->uid < 0 || (getpeereid(fd, &uid, &gid) == 0 && uid == (uid_t)w->o->uid);
}

/* Who waits is still there, and would be found at once again. */
static void wait_a_little(void)
{
  tain t;
  tain_from_millisecs(&t, SHORTAGE_MS);
  tain_add_g(&t, &t);
  deepsleepuntil_g(&t);
}

static void worker_accept(struct worker *w)
{
  int fd = ipc_accept_coe(0, 0, 0, &(int){ 0 });
  if (fd < 0 && file_failure_code(errno) == EXIT_SYSTEM) wait_a_little();
  if (fd < 0) return;
  if (!may_connect(w, fd))
    return serve_nobody(fd, "the resident engine does not serve this user");
  if (w->n - w->lingering == w->o->max || w->n == 2 * w->o->max)
    return serve_nobody(fd, "the resident engine is at its limit of sessions (-m)");
  int channel = signer_pid() ? signer_open() : -1;
  if (channel < 0 && signer_pid()) return serve_nobody(fd, "the signer of the engine is too busy");
  pid_t pid = fork();
  if (!pid) session_run(w, fd, channel);
  if (channel >= 0) fd_close(channel);
  if (pid < 0) return serve_nobody(fd, "the resident engine cannot fork");
  w->place[w->n++] = (struct place){ .pid = pid };
  fd_close(fd);
}

static struct place *place_find(struct worker *w, pid_t pid)
{
  for (unsigned int i = 0; i < w->n; i++)
    if (w->place[i].pid == pid) return &w->place[i];
  return 0;
}

static void warn_of_crash(pid_t pid, int sig)
{
  char p[PID_FMT], n[UINT_FMT];
  p[pid_fmt(p, pid)] = 0;
  n[uint_fmt(n, sig)] = 0;
  strerr_warnw("the session in process ", p, " was killed by signal ", n);
}

static void worker_reap(struct worker *w)
{
  int wstat;
  while (selfpipe_read() > 0);
  for (pid_t pid; (pid = wait_nohang(&wstat)) > 0; )
  {
    struct place *p = place_find(w, pid);
    if (pid == signer_pid()) strerr_dief(EXIT_SYSTEM, "the signer exited unexpectedly");
    if (WIFSIGNALED(wstat)) warn_of_crash(pid, WTERMSIG(wstat));
    if (!p) continue;
    w->lingering -= p->is_lingering;
    *p = w->place[--w->n];
  }
}

/* Sessions that have given up their places, for those that are reserved for who lingers. */
static void worker_hear(struct worker *w)
{
  pid_t pid;
  while (fd_read(w->news[0], (char *)&pid, sizeof pid) == sizeof pid)
  {
    struct place *p = place_find(w, pid);
    if (!p || p->is_lingering) continue;
    p->is_lingering = 1;
    w->lingering++;
  }
}

/* An order to end. The first one closes the door. */
static void worker_obey(struct worker *w, tain *deadline)
{
  char c;
  if (w->accepting) fd_close(0);
  w->accepting = 0;
  if (fd_read(w->lifeline, &c, 1) != 1)
  {
    fd_close(w->lifeline);
    w->lifeline = -1;
  }
  else if (c == 't' && w->o->limit)
  {
    tain_from_millisecs(deadline, w->o->limit);
    tain_add_g(deadline, deadline);
  }
}

/* Until there is nobody left to serve; returns whether that was so in time. */
static int worker_serve(struct worker *w)
{
  tain deadline = TAIN_INFINITE;
  while (w->accepting || w->n)
  {
    iopause_fd x[4] =
    {
      { .fd = w->sigs, .events = IOPAUSE_READ },
      { .fd = w->news[0], .events = IOPAUSE_READ },
      { .fd = w->lifeline, .events = IOPAUSE_READ },
      { .fd = w->accepting ? 0 : -1, .events = IOPAUSE_READ },
    };
    int r = iopause_g(x, 4, &deadline);
    if (r < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (!r) return 0;
    if (x[1].revents) worker_hear(w);
    if (x[0].revents) worker_reap(w);
    if (x[2].revents) worker_obey(w, &deadline);
    else if (x[3].revents) worker_accept(w);
  }
  return 1;
}

int worker_run(struct worker_options const *o, int lifeline)
{
  struct worker w = { .o = o, .lifeline = lifeline, .accepting = 1 };
  struct failure why;
  char prog[PROGNAME_SIZE];
  progname_set(prog, "tls-engined", "");
  if (!worker_load(&w, &why)) strerr_dief(why.code, why.reason);
  if (!(w.place = calloc(o->max, 2 * sizeof *w.place)) || pipenbcoe(w.news) < 0)
    strerr_diefusys(EXIT_SYSTEM, "prepare places for sessions");
  w.sigs = selfpipe_init();
  if (w.sigs < 0 || !selfpipe_trap(SIGCHLD)) strerr_diefusys(EXIT_SYSTEM, "trap SIGCHLD");
  if (!confine_worker(&why)) strerr_dief(why.code, why.reason);
  if (fd_send(lifeline, "", 1, MSG_NOSIGNAL) != 1) return 0; /* nobody there to work for */
  if (!worker_serve(&w)) for (unsigned int i = 0; i < w.n; i++) kill(w.place[i].pid, SIGTERM);
  return 0;
}
