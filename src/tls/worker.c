/* ISC licence: see COPYING. */

#include <sys/socket.h>
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

#include "../session/progname.h"
#include "confine.h"
#include "file.h"
#include "hooks.h"
#include "keypairs.h"
#include "places.h"
#include "rehearse.h"
#include "serve.h"
#include "settings.h"
#include "signer.h"
#include "worker.h"

enum { SHORTAGE_MS = 100, ASK_MS = 1000 };

struct worker
{
  struct worker_options const *o;
  struct settings settings;
  struct places places;
  int accepting;
  int lifeline; /* -1 once it has ended */
  int sigs;
  tain asked;   /* when the keeper may be asked again, */
  tain answer;  /* and how long its answer is waited for; infinite if it has not been asked */
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

static void session_run(struct worker *w, int fd, int channel) gccattr_noreturn;
static void session_run(struct worker *w, int fd, int channel)
{
  char prog[PROGNAME_SIZE];
  unsigned int place = place_next(&w->places);
  selfpipe_finish();
  if (w->lifeline >= 0) fd_close(w->lifeline);
  place_own(&w->places);
  signer_leave();
  hooks_use(channel);
  process_rename("tls-engine");
  progname_set(prog, "tls-engine", "");
  if (fd_move(0, fd) < 0) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  int code = serve_session(0, &w->settings, w->places.lingers[1], place);
  place_tell(w->places.ends[1], place);
  _exit(code);
}

static int may_connect(struct worker const *w, int fd)
{
  uid_t uid;
  gid_t gid;
  return w->o->uid < 0 || (getpeereid(fd, &uid, &gid) == 0 && uid == (uid_t)w->o->uid);
}

static void time_set(tain *t, unsigned int ms)
{
  tain_from_millisecs(t, ms);
  tain_add_g(t, t);
}

/* Who waits is still there, and would be found at once again. */
static void wait_a_little(void)
{
  tain t;
  time_set(&t, SHORTAGE_MS);
  deepsleepuntil_g(&t);
}

static void worker_say(struct worker const *w, enum worker_word word)
{
  if (w->lifeline >= 0) fd_send(w->lifeline, &(char){ word }, 1, MSG_NOSIGNAL);
}

static void door_close(struct worker *w)
{
  if (w->accepting) fd_close(0);
  w->accepting = 0;
  w->answer = tain_infinite;
}

static void session_start(struct worker *w, int fd)
{
  if (!may_connect(w, fd))
    return serve_nobody(fd, "the resident engine does not serve this user");
  if (places_are_full(&w->places)) places_sweep(&w->places, signer_pid());
  if (places_are_full(&w->places))
    return serve_nobody(fd, "the resident engine is at its limit of sessions (-m)");
  int channel = signer_pid() ? signer_open(SIGNER_AHEAD) : -1;
  if (channel < 0 && signer_pid()) return serve_nobody(fd, "the signer of the engine is too busy");
  pid_t pid = fork();
  if (!pid) session_run(w, fd, channel);
  if (channel >= 0) fd_close(channel);
  if (pid < 0) return serve_nobody(fd, "the resident engine cannot fork");
  place_take(&w->places, pid);
  fd_close(fd);
}

static void worker_accept(struct worker *w)
{
  int fd = door_take(w->o->door);
  if (fd >= 0) return session_start(w, fd);
  if (file_failure_code(errno) == EXIT_SYSTEM) wait_a_little();
  if (errno != EPIPE || w->o->door != DOOR_IS_SENT) return;
  door_close(w);
  worker_say(w, WORKER_IS_LEFT);
}

static int is_asking(struct worker const *w)
{
  return tain_less(&w->answer, &tain_infinite);
}

/* Who comes is served with today's settings, if they can be had in time. */
static void worker_greet(struct worker *w)
{
  if (tain_future(&w->asked) || w->lifeline < 0) return worker_accept(w);
  worker_say(w, WORKER_ASKS);
  time_set(&w->answer, ASK_MS);
}

static void worker_go_on(struct worker *w)
{
  w->answer = tain_infinite;
  time_set(&w->asked, ASK_MS);
}

/* An answer; or an order to end, of which the first closes the door. */
static void worker_obey(struct worker *w, tain *limit)
{
  char c;
  ssize_t n = fd_read(w->lifeline, &c, 1);
  if (n == 1 && c == KEEPER_GO_ON) return worker_go_on(w);
  door_close(w);
  if (n == 1 && c == KEEPER_END_SOON && w->o->limit) time_set(limit, w->o->limit);
  if (n == 1) return;
  fd_close(w->lifeline);
  w->lifeline = -1;
}

/* Until there is nobody left to serve; returns whether that was so in time. */
static int worker_serve(struct worker *w)
{
  tain limit = TAIN_INFINITE;
  while (w->accepting || w->places.n)
  {
    iopause_fd x[4] =
    {
      { .fd = w->sigs, .events = IOPAUSE_READ },
      { .fd = w->places.lingers[0], .events = IOPAUSE_READ },
      { .fd = w->lifeline, .events = IOPAUSE_READ },
      { .fd = w->accepting && !is_asking(w) ? 0 : -1, .events = IOPAUSE_READ },
    };
    tain deadline = limit;
    if (tain_less(&w->answer, &deadline)) deadline = w->answer;
    if (tain_less(&w->places.sweep, &deadline)) deadline = w->places.sweep;
    if (iopause_g(x, 4, &deadline) < 0) strerr_diefusys(EXIT_SYSTEM, "poll");
    if (!tain_future(&limit)) return 0;
    if (x[0].revents) while (selfpipe_read() > 0);
    if (x[1].revents) places_hear(&w->places);
    if (x[0].revents) places_reap(&w->places);
    if (!tain_future(&w->places.sweep)) places_sweep(&w->places, signer_pid());
    if (x[2].revents) worker_obey(w, &limit);
    else if (!tain_future(&w->answer)) worker_go_on(w);
    else if (x[3].revents) worker_greet(w);
  }
  return 1;
}

int worker_run(struct worker_options const *o, int lifeline)
{
  struct worker w = { .o = o, .lifeline = lifeline, .accepting = 1, .answer = TAIN_INFINITE };
  struct failure why;
  char prog[PROGNAME_SIZE];
  progname_set(prog, "tls-engined", "");
  if (!worker_load(&w, &why)) strerr_dief(why.code, why.reason);
  if (!places_init(&w.places, o->max)) strerr_diefusys(EXIT_SYSTEM, "prepare places for sessions");
  w.sigs = selfpipe_init();
  if (w.sigs < 0 || !selfpipe_trap(SIGCHLD)) strerr_diefusys(EXIT_SYSTEM, "trap SIGCHLD");
  if (!confine_worker(&why)) strerr_dief(why.code, why.reason);
  tain_now_g();
  time_set(&w.asked, ASK_MS);
  worker_say(&w, WORKER_IS_READY);
  if (!worker_serve(&w)) places_kill(&w.places, SIGTERM);
  return 0;
}
