/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <sys/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/posixplz.h>
#include <skalibs/iopause.h>
#include <skalibs/selfpipe.h>
#include <skalibs/sig.h>
#include <skalibs/socket.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "engined.h"
#include "settings.h"

enum { SHORTAGE_MS = 100 };

struct work
{
  struct engined_options const *o;
  struct settings settings;
  pid_t *session; /* of o->max */
  unsigned int n;
  int accepting;
  int lifeline;   /* -1 once it has ended */
  int sigs;
};

/* Every policy that the environment has settings for. */
static void load(struct work *w)
{
  struct engine *e = engine_new();
  int more = w->o->role == SESSION_CLIENT ? getenv("CERTFILE") || getenv("KEYFILE")
    : getenv("CAFILE") || getenv("CADIR");
  e->start.policy.role = w->o->role;
  for (int i = 0; i <= (more ? SESSION_PEERCERT_REQUIRED : SESSION_PEERCERT_NONE); i++)
  {
    e->start.policy.peercert = i;
    settings_load(e, &w->settings);
    if (w->settings.client[i]) rehearse_client(e, w->settings.client[i]);
  }
  if (w->settings.server[0]) rehearse(w->settings.server[0]);
}

static void session(struct work const *w, int fd) gccattr_noreturn;
static void session(struct work const *w, int fd)
{
  selfpipe_finish();
  if (w->lifeline >= 0) fd_close(w->lifeline);
  PROG = "tls-engine";
#ifdef __linux__
  prctl(PR_SET_NAME, PROG, 0, 0, 0);
#endif
  if (fd_move(0, fd) < 0) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  _exit(engine_serve(engine_new(), 0, &w->settings));
}

/* Hangs up on a chain, and tells it why. */
static void turn_away(int fd, char const *reason)
{
  char msg[SESSION_MAX];
  struct session s;
  struct session_end end = { .code = EXIT_SYSTEM };
  TEXT_JOIN(end.reason, reason);
  if (session_init(&s, fd, 1))
    session_send(&s, msg, session_end_pack(msg, SESSION_FAILED, &end), 0, 0);
  session_free(&s);
  fd_close(fd);
}

static int may_connect(struct work const *w, int fd)
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

static void accept_one(struct work *w)
{
  int fd = ipc_accept_coe(0, 0, 0, &(int){ 0 });
  if (fd < 0 && is_shortage(errno)) wait_a_little();
  if (fd < 0) return;
  if (!may_connect(w, fd)) return turn_away(fd, "the resident engine does not serve this user");
  if (w->n == w->o->max) return turn_away(fd, "the resident engine serves all the sessions it may");
  pid_t pid = fork();
  if (!pid) session(w, fd);
  if (pid < 0) return turn_away(fd, "the resident engine cannot fork");
  w->session[w->n++] = pid;
  fd_close(fd);
}

static void warn_of_crash(pid_t pid, int sig)
{
  char p[PID_FMT], n[UINT_FMT];
  p[pid_fmt(p, pid)] = 0;
  n[uint_fmt(n, sig)] = 0;
  strerr_warnw("session in process ", p, " died of signal ", n);
}

static void reap(struct work *w)
{
  int wstat;
  while (selfpipe_read() > 0);
  for (pid_t pid; (pid = wait_nohang(&wstat)) > 0; )
  {
    unsigned int i = 0;
    while (i < w->n && w->session[i] != pid) i++;
    if (i < w->n) w->session[i] = w->session[--w->n];
    if (WIFSIGNALED(wstat)) warn_of_crash(pid, WTERMSIG(wstat));
  }
}

/* An order to end. The first one closes the door. */
static void obey(struct work *w, tain *deadline)
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
static int serve(struct work *w)
{
  tain deadline = TAIN_INFINITE;
  while (w->accepting || w->n)
  {
    iopause_fd x[3] =
    {
      { .fd = w->sigs, .events = IOPAUSE_READ },
      { .fd = w->lifeline, .events = IOPAUSE_READ },
      { .fd = w->accepting ? 0 : -1, .events = IOPAUSE_READ },
    };
    int r = iopause_g(x, 3, &deadline);
    if (r < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (!r) return 0;
    if (x[0].revents) reap(w);
    if (x[1].revents) obey(w, &deadline);
    else if (x[2].revents) accept_one(w);
  }
  return 1;
}

int engined_work(struct engined_options const *o, int lifeline)
{
  struct work w = { .o = o, .lifeline = lifeline, .accepting = 1 };
  load(&w);
  char const *undone = confine();
  if (undone) strerr_diefusys(EXIT_SYSTEM, undone);
  if (!(w.session = calloc(o->max, sizeof *w.session)))
    strerr_diefusys(EXIT_SYSTEM, "allocate sessions");
  w.sigs = selfpipe_init();
  if (w.sigs < 0 || !selfpipe_trap(SIGCHLD)) strerr_diefusys(EXIT_SYSTEM, "trap SIGCHLD");
  if (!sig_ignore(SIGPIPE)) strerr_diefusys(EXIT_SYSTEM, "ignore SIGPIPE");
  if (fd_send(lifeline, "", 1, MSG_NOSIGNAL) != 1) return 0; /* nobody there to work for */
  if (!serve(&w)) for (unsigned int i = 0; i < w.n; i++) kill(w.session[i], SIGTERM);
  return 0;
}
