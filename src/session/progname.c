/* ISC licence: see COPYING. */

#include <string.h>
#include <unistd.h>

#include <skalibs/strerr.h>

#include "progname.h"

void progname_set(char s[PROGNAME_SIZE], char const *name, char const *peer)
{
  size_t n = strlen(name);
  memcpy(s, name, n);
  memcpy(s + n, ": pid ", 6);
  n += 6;
  n += pid_fmt(s + n, getpid());
  if (*peer)
  {
    memcpy(s + n, ": ", 2);
    memcpy(s + n + 2, peer, strlen(peer));
    n += 2 + strlen(peer);
  }
  s[n] = 0;
  PROG = s;
}
