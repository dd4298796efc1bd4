/* ISC licence: see COPYING. */

#include <sys/wait.h>
#include <signal.h>
#include <stdlib.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/strerr.h>
#include <skalibs/types.h>

#include "../session/session.h"
#include "places.h"

enum { SWEEP_MS = 1000, SOON_MS = 50 };

static unsigned int places_all(struct places const *p)
{
  return 2 * p->max;
}

int places_init(struct places *p, unsigned int max)
{
  *p = (struct places){ .max = max, .sweep = TAIN_INFINITE };
  unsigned int n = places_all(p);
  p->place = calloc(n, sizeof *p->place);
  p->vacant = calloc(n, sizeof *p->vacant);
  if (!p->place || !p->vacant) return 0;
  for (unsigned int i = 0; i < n; i++) p->vacant[n - 1 - i] = i;
  return pipenbcoe(p->lingers) == 0 && pipenbcoe(p->ends) == 0;
}

int places_are_full(struct places const *p)
{
  return p->n - p->lingering == p->max || p->n == places_all(p);
}

unsigned int place_next(struct places const *p)
{
  return p->vacant[places_all(p) - 1 - p->n];
}

void place_take(struct places *p, pid_t pid)
{
  p->place[place_next(p)].pid = pid;
  p->n++;
}

void place_own(struct places *p)
{
  fd_close(p->lingers[0]);
  fd_close(p->ends[0]);
}

void place_tell(int fd, unsigned int place)
{
  fd_write(fd, (char *)&place, sizeof place);
}

/* The number of a place that is taken, as a session has told it. */
static int place_hear(struct places const *p, int fd, unsigned int *i)
{
  while (fd_read(fd, (char *)i, sizeof *i) == sizeof *i)
    if (*i < places_all(p) && p->place[*i].pid) return 1;
  return 0;
}

void places_hear(struct places *p)
{
  for (unsigned int i; place_hear(p, p->lingers[0], &i); )
  {
    p->lingering += !p->place[i].is_lingering;
    p->place[i].is_lingering = 1;
  }
}

/* What the session has told must not be taken for the next one's. */
static void place_vacate(struct places *p, unsigned int i)
{
  places_hear(p);
  p->lingering -= p->place[i].is_lingering;
  p->place[i] = (struct place){ .pid = 0 };
  p->n--;
  p->vacant[places_all(p) - 1 - p->n] = i;
}

static void crash_warn(pid_t pid, int wstat)
{
  char s[PID_FMT], n[UINT_FMT];
  if (!WIFSIGNALED(wstat)) return;
  s[pid_fmt(s, pid)] = 0;
  n[uint_fmt(n, WTERMSIG(wstat))] = 0;
  strerr_warnw("the session in process ", s, " was killed by signal ", n);
}

/* Returns whether the session at a place has ended. */
static int place_reap(struct places *p, unsigned int i)
{
  int wstat;
  if (waitpid_nointr(p->place[i].pid, &wstat, WNOHANG) <= 0) return 0;
  crash_warn(p->place[i].pid, wstat);
  place_vacate(p, i);
  return 1;
}

void places_sweep(struct places *p, pid_t signer)
{
  int wstat;
  p->sweep = tain_infinite;
  for (pid_t pid; (pid = wait_nohang(&wstat)) > 0; )
  {
    if (pid == signer) strerr_dief(EXIT_SYSTEM, "the signer exited unexpectedly");
    crash_warn(pid, wstat);
    for (unsigned int i = 0; i < places_all(p); i++)
      if (p->place[i].pid == pid) place_vacate(p, i);
  }
}

/*
  To ask for any child that has ended has the system look at all of them: half of the time, with
  thousands of sessions. So each tells that it ends and is waited for by its process number, and
  who could not tell is found by a sweep: now and then, and soon if no other end explains the
  signal.
*/
void places_reap(struct places *p)
{
  unsigned int i, n = p->late_n, reaped = 0;
  p->late_n = 0;
  for (unsigned int k = 0; k < n; k++)
    if (p->place[p->late[k]].pid && place_reap(p, p->late[k])) reaped++;
    else if (p->place[p->late[k]].pid) p->late[p->late_n++] = p->late[k];
  while (place_hear(p, p->ends[0], &i))
    if (place_reap(p, i)) reaped++;
    else if (p->late_n < PLACES_LATE) p->late[p->late_n++] = i;
  tain sweep;
  tain_from_millisecs(&sweep, reaped ? SWEEP_MS : SOON_MS);
  tain_add_g(&sweep, &sweep);
  if (tain_less(&sweep, &p->sweep)) p->sweep = sweep;
}

void places_kill(struct places const *p, int sig)
{
  for (unsigned int i = 0; i < places_all(p); i++)
    if (p->place[i].pid) kill(p->place[i].pid, sig);
}
