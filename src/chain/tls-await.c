/* ISC licence: see COPYING. */

#include <errno.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>
#include <skalibs/types.h>

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

static enum command await_command(int fd, unsigned int ms)
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
  unsigned int ms = 0;
  int required = 0, client = 0;
  PROG = "tls-await";
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ct:r", &l)) != -1; )
    switch (opt)
    {
      case 'c': client = 1; break;
      case 't': ms = chain_number(l.arg, USAGE); break;
      case 'r': required = 1; break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  argc -= l.ind;
  argv += l.ind;
  if (!argc) strerr_dieusage(EXIT_USAGE, USAGE);

  int fd = chain_getfd("TLS_CTLFD");
  enum command command = await_command(fd, ms);
  if (command == COMMAND_NO_REPLY) chain_exec(argv, 0, "TLS_CTLFD", sizeof "TLS_CTLFD");
  if (command == COMMAND_REPLY)
  {
    if (uncoe(fd) < 0) strerr_diefusys(EXIT_SYSTEM, "hand on the control socket");
    chain_exec(argv, 0, 0, 0);
  }
  int e = errno;
  if (required) chain_shutdown(client ? 6 : 0, client ? 7 : 1);
  errno = e;
  switch (command)
  {
    case FAILED: strerr_diefusys(EXIT_SYSTEM, "read from the control socket");
    case NO_COMMAND: strerr_dief(EXIT_USAGE, "invalid command on the control socket");
    case TIMED_OUT: strerr_dief(EXIT_HANDSHAKE, "timed out: the application did not ask for TLS");
    default: if (!required) return 0;
  }
  strerr_dief(EXIT_HANDSHAKE, "TLS is required: the application declined it");
}
