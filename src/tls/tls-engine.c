/* ISC licence: see COPYING. */

/*
  One TLS session on the session socket that is descriptor 0. Keeps nothing else of what it
  inherits but descriptor 2: a pipe end of the chain held here would hide an end of file.
*/

#include <signal.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/sig.h>
#include <skalibs/strerr.h>

#include "engine.h"

int main(void)
{
  PROG = "tls-engine";
  engine_closefrom(3);
  fd_close(1);
  if (!fd_ensure_open(1, 1) || !fd_ensure_open(2, 1)) return EXIT_SYSTEM;
  if (!sig_ignore(SIGPIPE)) strerr_diefusys(EXIT_SYSTEM, "ignore SIGPIPE");
  /* as a session of tls-engined: what OpenSSL does at an exit is 5 % of its work, for nobody */
  _exit(engine_serve(engine_new(), 0, 0));
}
