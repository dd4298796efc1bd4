/* ISC licence: see COPYING. */

#include <stdlib.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/sgetopt.h>
#include <skalibs/tai.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "chain.h"

#define USAGE "tls-await [ -c ] [ -t ms ] [ -r ] prog..."

enum command
{
  COMMAND_REPLY = 'Y',
  COMMAND_NO_REPLY = 'y',
  DECLINED,
  TIMED_OUT,
  NO_COMMAND,
  FAILED, /* errno is set */
};

static enum command command_await(int fd, unsigned int ms)
{
  char s[2];
  iopause_fd x = { .fd = fd, .events = IOPAUSE_READ };
  tain deadline;
  if (ms)
  {
    tain_now_set_stopwatch_g();
    tain_from_millisecs(&deadline, ms);
    tain_add_g(&deadline, &deadline);
  }
  int r = iopause(&x, 1, ms ? &deadline : 0, &STAMP);
  if (!r) return TIMED_OUT;
  ssize_t n = r < 0 ? -1 : fd_read(fd, s, 2);
  if (n < 0) return FAILED;
  if (!n) return DECLINED;
  if (n > 1 || (s[0] != COMMAND_REPLY && s[0] != COMMAND_NO_REPLY)) return NO_COMMAND;
  return s[0];
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE], unset[16];
  unsigned int ms = 0;
  int required = 0, bad = 0;
  struct chain_network net = CHAIN_SERVER;
  progname_set(prog, "tls-await", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ct:r", &l)) != -1; )
    switch (opt)
    {
      case 'c': net = CHAIN_CLIENT; break;
      case 't': bad |= !chain_scan(l.arg, &ms); break;
      case 'r': required = 1; break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;
  chain_unlog(&net);
  if (bad) chain_dieusage(&net, USAGE);
  if (!argc) chain_die(&net, EXIT_USAGE, "no program: tls-handshake goes after tls-await");
  if (getenv("TLS_SESSIONFD"))
    chain_die(&net, EXIT_USAGE, "TLS_SESSIONFD is set: tls-await goes before tls-handshake");

  /* Only an application that has not asked may go on in plaintext, and only without -r. */
  int fd = chain_getfd(&net, "TLS_CTLFD", "tls-await goes after tls-ctl-open");
  switch (command_await(fd, ms))
  {
    case COMMAND_NO_REPLY: chain_exec(&net, argv, 0, unset, chain_unset(unset, "TLS_CTLFD"));
    case COMMAND_REPLY:
      if (uncoe(fd) < 0) chain_diesys(&net, EXIT_SYSTEM, "hand on the control socket");
      chain_exec(&net, argv, 0, 0, 0);
    case FAILED: chain_diesys(&net, EXIT_SYSTEM, "read from the control socket");
    case NO_COMMAND: chain_die(&net, EXIT_USAGE, "invalid command on the control socket");
    case TIMED_OUT:
      chain_die(required ? &net : 0, EXIT_HANDSHAKE,
        "timed out: the application did not ask for TLS");
    default:
      if (!required) return 0;
      chain_die(&net, EXIT_HANDSHAKE, "TLS is required: the application declined it");
  }
}
