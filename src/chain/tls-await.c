/* ISC licence: see COPYING. */

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>
#include <skalibs/types.h>

#include "chain.h"

#define USAGE "tls-await [ -c ] [ -t ms ] [ -r ] prog..."

/* What the application said: a byte, 0 for end of file, -1 for nothing in time. */
static int await_command(int fd, unsigned int ms)
{
  char s[2];
  iopause_fd x = { .fd = fd, .events = IOPAUSE_READ };
  tain deadline = TAIN_INFINITE_RELATIVE;
  tain_now_set_stopwatch_g();
  if (ms) tain_from_millisecs(&deadline, ms);
  tain_add_g(&deadline, &deadline);
  int r = iopause_g(&x, 1, &deadline);
  if (r < 0) strerr_diefusys(EXIT_SYSTEM, "wait for the application");
  if (!r) return -1;
  ssize_t n = fd_read(fd, s, 2);
  if (n < 0) strerr_diefusys(EXIT_SYSTEM, "read from the control socket");
  if (!n) return 0;
  if (n > 1 || (s[0] != 'y' && s[0] != 'Y'))
    strerr_dief(EXIT_USAGE, "invalid command on the control socket");
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
  int command = await_command(fd, ms);
  if (command == 'y') chain_exec(argv, 0, "TLS_CTLFD", sizeof "TLS_CTLFD");
  if (command == 'Y')
  {
    if (uncoe(fd) < 0) strerr_diefusys(EXIT_SYSTEM, "hand on the control socket");
    chain_exec(argv, 0, 0, 0);
  }
  if (required) chain_shutdown(client ? 6 : 0, client ? 7 : 1);
  if (command < 0) strerr_dief(EXIT_HANDSHAKE, "timed out: the application did not ask for TLS");
  if (required) strerr_dief(EXIT_HANDSHAKE, "TLS is required: the application declined it");
  return 0;
}
