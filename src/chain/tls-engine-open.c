/* ISC licence: see COPYING. */

#include <sys/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/types.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "chain.h"

/* TLS_ENGINED_PATH is set by the Makefile: below bindir, or tests/bin for the tests. */

#define USAGE "tls-engine-open [ -c ] [ -m maxsessions ] [ -t ms ] [ -Z ] prog..."

struct options
{
  char const *max;
  char const *limit;
  int is_client;
  int settings; /* what prog does not get */
};

static int open_options(struct options *o, int argc, char const *const *argv)
{
  unsigned int n;
  int bad = 0;
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cm:t:Z", &l)) != -1; )
    switch (opt)
    {
      case 'c': o->is_client = 1; break;
      case 'm': bad |= !chain_scan(l.arg, &n) || !n; o->max = l.arg; break;
      case 't': bad |= !chain_scan(l.arg, &n); o->limit = l.arg; break;
      case 'Z': o->settings = 0; break;
      default: bad = 1;
    }
  if (bad) chain_dieusage(0, USAGE);
  if (l.ind >= argc)
    chain_die(0, EXIT_USAGE, "no program: the UCSPI server goes after tls-engine-open");
  return l.ind;
}

/* A chain that found two engines would not know which one was meant. */
static void settings_check(void)
{
  if (chain_getenv(0, "TLS_ENGINEFD")) chain_die(0, EXIT_USAGE,
    "TLS_ENGINEFD is set: an engine has been opened already");
  if (chain_getenv(0, "TLS_ENGINE")) chain_die(0, EXIT_USAGE,
    "TLS_ENGINE is set: unset it, or do without tls-engine-open");
}

/*
  Starts an engine with this descriptor 0, waits until it can serve, and returns 0; else its exit
  code. It has said then why it cannot.
*/
static int engine_start(struct options const *o, int door)
{
  char fmt[UINT_FMT];
  char const *argv[9] = { TLS_ENGINED_PATH, "-d", fmt };
  int ready[2], wstat, n = 3;
  if (!chain_pipe(ready)) chain_diesys(0, EXIT_SYSTEM, "create pipe");
  fmt[uint_fmt(fmt, ready[1])] = 0;
  if (o->max) argv[n++] = "-m", argv[n++] = o->max;
  if (o->limit) argv[n++] = "-t", argv[n++] = o->limit;
  if (o->is_client) argv[n++] = "-c";
  struct chain_child child =
  {
    .argv = argv, .drop = CHAIN_APP | CHAIN_TLS | CHAIN_FACTS, .keep = &ready[1], .n = 1,
    .input = door,
  };
  pid_t pid = chain_spawn(&child);
  if (!pid) chain_diesys(0, EXIT_SYSTEM, "start " TLS_ENGINED_PATH);
  if (pid < 0) chain_diesys(0, errno == ENOENT ? 127 : 126, "exec " TLS_ENGINED_PATH);
  close(ready[1]);
  if (fd_read(ready[0], fmt, 1) == 1) return 0;
  if (wait_pid(pid, &wstat) < 0) chain_diesys(0, EXIT_SYSTEM, "wait for " TLS_ENGINED_PATH);
  if (WIFSIGNALED(wstat)) chain_die(0, EXIT_SYSTEM, "the engine was killed while it was starting");
  return wait_estatus(wstat);
}

/* By way of a child that goes: prog may count its children, and must not count the engine. */
static void engine_run(struct options const *o, int const *door)
{
  int wstat;
  struct sigaction old;
  sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = SIG_DFL }, &old);
  pid_t pid = fork();
  if (pid < 0) chain_diesys(0, EXIT_SYSTEM, "fork");
  if (!pid)
  {
    close(door[0]);
    _exit(engine_start(o, door[1]));
  }
  close(door[1]);
  if (wait_pid(pid, &wstat) < 0) chain_diesys(0, EXIT_SYSTEM, "wait for the engine to start");
  sigaction(SIGCHLD, &old, 0); /* if it is ignored, that is for prog */
  if (wait_estatus(wstat)) _exit(wait_estatus(wstat));
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE], modif[32];
  struct options o = { .settings = CHAIN_SETTINGS };
  int door[2];
  progname_set(prog, "tls-engine-open", "");
  help_give(argc, argv, USAGE);
  argv += open_options(&o, argc, argv);
  settings_check();
  if (!chain_doorpair(door)) chain_diesys(0, EXIT_SYSTEM, "make a pair of sockets");
  engine_run(&o, door);
  if (uncoe(door[0]) < 0) chain_diesys(0, EXIT_SYSTEM, "hand on a descriptor");
  chain_exec(0, argv, o.settings, modif, chain_setfd(modif, "TLS_ENGINEFD", door[0]));
}
