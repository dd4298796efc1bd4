/* ISC licence: see COPYING. */

/*
  The application behind every contender of the benchmark; as cheap as a program can be.

    app            writes 4 bytes and exits
    app delayed    asks for TLS first, by UCSPI-TLS
    app source n   writes n bytes
    app sink       reads to the end, writes 4 bytes
    app hold       reads to the end
    app hold-plain reads nothing, waits for the end on the network
    app echo       sends back what it gets
*/

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char s[65536];

static int fd_of(char const *name)
{
  char const *v = getenv(name);
  return v ? atoi(v) : -1;
}

static void starttls(int *r, int *w)
{
  int ctl = fd_of("SSLCTLFD");
  if (write(ctl, "Y", 1) != 1) exit(111);
  for (ssize_t n = 0, i; (i = read(ctl, s + n, sizeof s - n)) > 0; )
  {
    n += i;
    if (n >= 2 && !s[n - 1] && !s[n - 2]) break; /* not everyone closes it */
  }
  close(ctl);
  *r = fd_of("SSLREADFD");
  *w = fd_of("SSLWRITEFD");
}

int main(int argc, char **argv)
{
  char const *mode = argc > 1 ? argv[1] : "";
  int r = 0, w = 1, echo = !strcmp(mode, "echo");
  if (!strcmp(mode, "delayed")) starttls(&r, &w), mode = argc > 2 ? argv[2] : "";
  if (!strcmp(mode, "source"))
    for (long long left = atoll(argv[2]); left > 0; )
    {
      ssize_t n = write(w, s, left < (long long)sizeof s ? left : (long long)sizeof s);
      if (n < 0) return 111;
      left -= n;
    }
  else if (!strcmp(mode, "sink") || !strcmp(mode, "hold") || !strcmp(mode, "hold-plain") || echo)
    for (ssize_t n; (n = read(r, s, sizeof s)) > 0; )
      if (echo && write(w, s, n) != n) return 111;
  if (!*mode || !strcmp(mode, "sink")) return write(w, "done", 4) != 4;
  return 0;
}
