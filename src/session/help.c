/* ISC licence: see COPYING. */

#include <string.h>
#include <unistd.h>

#include <skalibs/buffer.h>
#include <skalibs/strerr.h>

#include "help.h"
#include "session.h"
#include "version.h"

static void help_write(char const *before, char const *what)
{
  if (buffer_puts(buffer_1small, before) < 0 || buffer_puts(buffer_1small, what) < 0
    || buffer_putsflush(buffer_1small, "\n") < 0)
    strerr_diefusys(EXIT_SYSTEM, "write");
  _exit(0);
}

void help_give(int argc, char const *const *argv, char const *usage)
{
  if (argc != 2) return;
  if (!strcmp(argv[1], "-h")) help_write("usage: ", usage);
  if (!strcmp(argv[1], "-V")) help_write("tls-chain ", TLS_CHAIN_VERSION);
}
