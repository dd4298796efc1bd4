/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>

#include "chain.h"

#define USAGE "tls-ctl-start [ -c ] [ -y ] prog..."

enum { REPLY_MAX = 65536 };

static void ask(int ctl, char command)
{
  if (fd_send(ctl, &command, 1, MSG_NOSIGNAL) != 1)
    strerr_diefusys(EXIT_HANDSHAKE, "ask for TLS");
}

/* The reply up to its end, one more null byte than its last variable has; returns its length. */
static size_t reply_read(int ctl, char *s)
{
  size_t n = 0;
  while (n < 2 ? n < 1 || *s : s[n - 1] || s[n - 2])
  {
    if (n == REPLY_MAX) strerr_dief(EXIT_HANDSHAKE, "the reply of the TLS side is too long");
    ssize_t r = fd_read(ctl, s + n, REPLY_MAX - n);
    if (!r || (r < 0 && errno == ECONNRESET))
      strerr_dief(EXIT_HANDSHAKE, "TLS did not start: see what the TLS side logged");
    if (r < 0) strerr_diefusys(EXIT_SYSTEM, "read from the control socket");
    n += r;
  }
  return n - 1;
}

/* By these OpenSSL is told whom to trust: they begin like variables of a session, and are not. */
static int is_trust(char const *s)
{
  return !strncmp(s, "SSL_CERT_FILE=", 14) || !strncmp(s, "SSL_CERT_DIR=", 13);
}

/* Keeps the variables that tell of a session, and nothing else that a reply may hold. */
static size_t reply_clean(char *s, size_t n)
{
  size_t kept = 0;
  for (size_t i = 0; i < n; )
  {
    size_t len = strlen(s + i) + 1;
    if (!strncmp(s + i, "SSL_", 4) && strchr(s + i, '=') && !is_trust(s + i))
    {
      memmove(s + kept, s + i, len);
      kept += len;
    }
    i += len;
  }
  return kept;
}

int main(int argc, char const *const *argv)
{
  char s[REPLY_MAX];
  size_t n = 0;
  int net = 0;
  char command = 'Y';
  PROG = "tls-ctl-start";
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cy", &l)) != -1; )
    switch (opt)
    {
      case 'c': net = 6; break;
      case 'y': command = 'y'; break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  argc -= l.ind;
  argv += l.ind;
  if (!argc) strerr_dieusage(EXIT_USAGE, USAGE);

  int ctl = chain_getfd("SSLCTLFD");
  int r = chain_getfd("SSLREADFD");
  int w = chain_getfd("SSLWRITEFD");
  ask(ctl, command);
  if (command == 'Y') n = reply_clean(s, reply_read(ctl, s));
  close(ctl);
  /* out of the way of what goes to net first; the numbers are the caller's, in any order */
  if (w == net) w = fcntl(w, F_DUPFD_CLOEXEC, net + 2);
  if (w < 0 || fd_move(net, r) < 0 || fd_move(net + 1, w) < 0
    || uncoe(net) < 0 || uncoe(net + 1) < 0)
    strerr_diefusys(EXIT_SYSTEM, "put TLS where the network was");
  chain_exec(argv, CHAIN_APP | CHAIN_FACTS, s, n);
}
