/* ISC licence: see COPYING. */

/*
  A program on libtlsctl, for tests/tlsctl.t: tlsctl-app RFD WFD UNREAD SIZE REPORT. Starts TLS,
  with y if SIZE is -1, else with a buffer of that size; writes what becomes of it to the descriptor
  REPORT, line by line; then sends back what it reads, on WFD what comes from RFD.
*/

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tlsctl.h>

static char const *const variables[] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD", "SSLNETID" };

static void facts_print(FILE *report, char const *s)
{
  for (; *s; s += strlen(s) + 1) fprintf(report, "%s\n", s);
}

int main(int argc, char **argv)
{
  FILE *report = argc == 6 ? fdopen(atoi(argv[5]), "w") : 0;
  char data[4096];
  ssize_t n;
  if (!report) return 100;
  int rfd = atoi(argv[1]), wfd = atoi(argv[2]), size = atoi(argv[4]);
  char *s = size < 0 ? 0 : malloc(size + 1); /* a byte over its end is seen under valgrind, ASan */
  if (s) memset(s, 'x', size);
  fprintf(report, "offered %d\n", tlsctl_offered());
  enum tlsctl_status status = tlsctl_start(rfd, wfd, atoi(argv[3]), s, s ? size : 0);
  char const *why = status == TLSCTL_ERROR ? strerror(errno) : "";
  fprintf(report, "%s\n%s\n", tlsctl_text(status), why);
  for (int i = 0; i < 4; i++)
    if (getenv(variables[i])) fprintf(report, "%s is set\n", variables[i]);
  if (s && size && status == TLSCTL_STARTED)
  {
    char const *no = tlsctl_fact(s, "SSL_PROTO"), *protocol = tlsctl_fact(s, "SSL_PROTOCOL");
    fprintf(report, "protocol %s, %s\n", protocol ? protocol : "-", no ? no : "-");
    facts_print(report, s);
  }
  else if (s && size) fprintf(report, "%s\n", s);
  fclose(report);
  while ((n = read(rfd, data, sizeof data)) > 0)
    if (write(wfd, data, n) != n) return 1;
  free(s);
  return status;
}
