/* ISC licence: see COPYING. */

/*
  One TLS session on the session socket that is descriptor 0. Keeps nothing else of what it
  inherits but descriptor 2: a pipe end of the chain held here would hide an end of file.
*/

#include <signal.h>
#include <unistd.h>

#include <skalibs/strerr.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "crash.h"
#include "inherit.h"
#include "serve.h"

#define USAGE "tls-engine, which only tls-handshake starts"

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE];
  progname_set(prog, "tls-engine", "");
  help_give(argc, argv, USAGE);
  inherit_close_from(3);
  if (!inherit_output()) strerr_diefusys(EXIT_SYSTEM, "prepare descriptors");
  inherit_signals();
  /* the signer, which nobody waits for */
  sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT }, 0);
  crash_watch();
  /* as a session of tls-engined: what OpenSSL does at an exit is 5 % of its work, for nobody */
  _exit(serve_session(0, 0, -1, 0));
}
