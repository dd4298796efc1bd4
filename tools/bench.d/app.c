/* ISC licence: see COPYING. */

/*
  The application behind every contender of the benchmark; as cheap as a program can be.

    app          writes 4 bytes and exits
    app delayed  reads a line in plaintext, answers it, asks for TLS by UCSPI-TLS, then as app
    app source n writes n bytes
    app sink n   reads n bytes, then writes 4
    app hold     reads the network to its end and does not ask for TLS
    app echo     sends back what it gets
*/

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char s[65536];

static int fd_of(char const *name)
{
  char const *v = getenv(name);
  if (!v) exit(100);
  return atoi(v);
}

static void starttls(int *r, int *w)
{
  int ctl = fd_of("SSLCTLFD");
  if (read(0, s, sizeof s) <= 0) exit(111);
  if (write(1, "go\n", 3) != 3 || write(ctl, "Y", 1) != 1) exit(111);
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
  long long left = argc > 2 ? atoll(argv[2]) : 0;
  int r = 0, w = 1, echo = !strcmp(mode, "echo");
  if (!strcmp(mode, "delayed")) starttls(&r, &w);
  if (!strcmp(mode, "source"))
    for (ssize_t n; left > 0; left -= n)
      if ((n = write(w, s, left < (long long)sizeof s ? left : (long long)sizeof s)) < 0)
        return 111;
  if (!strcmp(mode, "sink"))
    for (ssize_t n; left > 0; left -= n)
      if ((n = read(r, s, sizeof s)) <= 0) return 111;
  if (!strcmp(mode, "hold") || echo)
    for (ssize_t n; (n = read(r, s, sizeof s)) > 0; )
      if (echo && write(w, s, n) != n) return 111;
  if (!*mode || !strcmp(mode, "delayed") || !strcmp(mode, "sink")) return write(w, "done", 4) != 4;
  return 0;
}
