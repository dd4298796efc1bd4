/* ISC licence: see COPYING. */

/*
  The resident engine. Three kinds of process:

  the keeper, this program: handles signals and its workers, reads no file and no network;
  a worker: loads the settings once, confines itself, forks for each who comes through the door,
  which is descriptor 0;
  a session: exactly what tls-engine is, with the worker's settings.

  New settings are a new worker, forked by the keeper, which alone still may read the files: it
  takes over when it is ready, and if it never is, the old one goes on.
*/

#include <limits.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>
#include <skalibs/types.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "inherit.h"
#include "keeper.h"

#define USAGE "tls-engined [ -c ] [ -d notif ] [ -m maxsessions ] [ -t ms ] [ -u uid ]"

static unsigned int option_number(char const *s)
{
  unsigned int n;
  if (!uint0_scan(s, &n) || n > INT_MAX) strerr_dieusage(EXIT_USAGE, USAGE);
  return n;
}

/* Keeps the door on 0, what there is on 2, and *notif, and nothing else. */
static void inherit_descriptors(int *notif)
{
  if (*notif >= 0 && *notif < 3) strerr_dieusage(EXIT_USAGE, USAGE);
  if (*notif >= 0 && (fd_move(3, *notif) < 0 || coe(3) < 0))
    strerr_diefusys(EXIT_USAGE, "use the descriptor of -d");
  if (*notif >= 0) *notif = 3;
  inherit_close_from(*notif >= 0 ? 4 : 3);
  if (!inherit_output()) strerr_diefusys(EXIT_SYSTEM, "prepare descriptors");
}

int main(int argc, char const *const *argv)
{
  struct worker_options o = { .max = 1000, .uid = -1 };
  char prog[PROGNAME_SIZE];
  int notif = -1;
  progname_set(prog, "tls-engined", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cd:m:t:u:", &l)) != -1; )
    switch (opt)
    {
      case 'c': o.role = SESSION_CLIENT; break;
      case 'd': notif = option_number(l.arg); break;
      case 'm': o.max = option_number(l.arg); break;
      case 't': o.limit = option_number(l.arg); break;
      case 'u': o.uid = option_number(l.arg); break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  if (l.ind < argc || !o.max) strerr_dieusage(EXIT_USAGE, USAGE);
  o.door = door_inherit();
  if (o.door == DOOR_NONE) strerr_dief(EXIT_USAGE, "descriptor 0 is not a listening socket");
  inherit_descriptors(&notif);
  inherit_signals();
  tain_now_set_stopwatch_g();
  return keeper_run(&o, notif);
}
