/* ISC licence: see COPYING. */

/*
  The engine's clock and its poll, in place of skalibs' own: time that the world lets pass has
  passed for the engine, whose limits are seconds and minutes.
*/

#include <poll.h>
#include <time.h>

#include <skalibs/iopause.h>
#include <skalibs/tai.h>

#include "world.h"

static int skipped; /* seconds; written by the world, read by the engine */
static int looks;   /* how often the engine has looked at its clock; so, the other way */

void clock_skip(unsigned int seconds)
{
  __atomic_add_fetch(&skipped, seconds, __ATOMIC_SEQ_CST);
}

int engine_is_over(struct world const *w)
{
  return __atomic_load_n(&w->is_over, __ATOMIC_SEQ_CST);
}

void clock_settle(struct world const *w)
{
  int n = __atomic_load_n(&looks, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&looks, __ATOMIC_SEQ_CST) - n < 4 && !engine_is_over(w)) pause_for(100);
}

static int clock_read(tain *a)
{
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) < 0 || !tain_from_timespec(a, &now)) return 0;
  tain_addsec(a, a, __atomic_load_n(&skipped, __ATOMIC_SEQ_CST));
  __atomic_add_fetch(&looks, 1, __ATOMIC_SEQ_CST);
  return 1;
}

int tain_now_set_stopwatch(tain *a)
{
  tain_now = &clock_read;
  return clock_read(a);
}

/* Waits for 1 ms at a time, as poll does not know how time flies. */
static int clock_iopause(iopause_fd *x, unsigned int n, tain const *deadline, tain const *stamp)
{
  tain now = *stamp;
  for (;;)
  {
    int is_late = !tain_less(&now, deadline);
    int r = poll(x, n, is_late ? 0 : 1);
    if (r || is_late) return r;
    if (!clock_read(&now)) return -1;
  }
}

iopause_func_ref const iopause_ = &clock_iopause;
