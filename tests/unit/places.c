/* ISC licence: see COPYING. */

/* The places of a worker's sessions, with processes that tell and end as sessions do. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include <skalibs/tai.h>

#include "../../src/tls/places.h"

enum { WITHOUT_A_WORD = 0, LINGERS = 1, ENDS = 2 };

/* A session that tells this of itself, and has ended when this returns, but is not reaped. */
static void session_come_and_go(struct places *p, int told)
{
  siginfo_t info;
  unsigned int place = place_next(p);
  pid_t pid = fork();
  if (!pid)
  {
    if (told & LINGERS) place_tell(p->lingers[1], place);
    if (told & ENDS) place_tell(p->ends[1], place);
    _exit(0);
  }
  place_take(p, pid);
  assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void session_stay(struct places *p)
{
  pid_t pid = fork();
  if (!pid) for (;;) pause();
  place_take(p, pid);
}

static struct places places;

static struct places *places_new(unsigned int max)
{
  tain_now_g();
  assert_true(places_init(&places, max));
  return &places;
}

static int places_end(void **state)
{
  (void)state;
  places_kill(&places, SIGKILL);
  while (waitpid(-1, 0, 0) > 0);
  return 0;
}

static void who_tells_that_it_ends_is_reaped(void **state)
{
  struct places *p = places_new(2);
  (void)state;
  session_come_and_go(p, ENDS);
  session_come_and_go(p, LINGERS | ENDS);
  assert_int_equal(p->n, 2);
  places_hear(p);
  assert_int_equal(p->lingering, 1);
  places_reap(p);
  assert_int_equal(p->n, 0);
  assert_int_equal(p->lingering, 0);
}

static void who_cannot_tell_is_found_by_a_sweep(void **state)
{
  struct places *p = places_new(2);
  (void)state;
  session_come_and_go(p, WITHOUT_A_WORD);
  places_reap(p);
  assert_int_equal(p->n, 1);
  assert_true(tain_less(&p->sweep, &tain_infinite));
  places_sweep(p, 0);
  assert_int_equal(p->n, 0);
}

/* The place is vacant before what its session has told is heard: the next one there is new. */
static void what_a_session_told_is_not_the_next_ones(void **state)
{
  struct places *p = places_new(1);
  (void)state;
  session_come_and_go(p, LINGERS);
  places_sweep(p, 0);
  session_stay(p);
  places_hear(p);
  assert_int_equal(p->lingering, 0);
  assert_true(places_are_full(p));
}

/* At most as many as max that serve, and as many again that only wait for their peers. */
static void who_lingers_leaves_room(void **state)
{
  struct places *p = places_new(1);
  (void)state;
  unsigned int place = place_next(p);
  session_stay(p);
  assert_true(places_are_full(p));
  place_tell(p->lingers[1], place);
  places_hear(p);
  assert_false(places_are_full(p));
  session_stay(p);
  assert_true(places_are_full(p));
}

int main(void)
{
  struct CMUnitTest const tests[] =
  {
    cmocka_unit_test_teardown(who_tells_that_it_ends_is_reaped, places_end),
    cmocka_unit_test_teardown(who_cannot_tell_is_found_by_a_sweep, places_end),
    cmocka_unit_test_teardown(what_a_session_told_is_not_the_next_ones, places_end),
    cmocka_unit_test_teardown(who_lingers_leaves_room, places_end),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, 0, 0);
}
