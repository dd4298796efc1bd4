/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "chain.h"

#define USAGE "tls-ctl-start [ -c ] [ -y ] prog..."
#define ORDER "tls-ctl-start goes after tls-ctl-open"

enum { REPLY_MAX = 65536 };

static void command_send(struct chain_network const *net, int ctl, char command)
{
  if (fd_send(ctl, &command, 1, MSG_NOSIGNAL) != 1)
    chain_diesys(net, EXIT_HANDSHAKE, "ask for TLS");
}

/* The reply up to its end, one more null byte than its last variable has; returns its length. */
static size_t reply_read(struct chain_network const *net, int ctl, char *s)
{
  size_t n = 0;
  while (n < 2 ? n < 1 || *s : s[n - 1] || s[n - 2])
  {
    if (n == REPLY_MAX)
      chain_die(net, EXIT_HANDSHAKE, "the reply of the TLS side is too long");
    ssize_t r = fd_read(ctl, s + n, REPLY_MAX - n);
    if (!r || (r < 0 && errno == ECONNRESET))
      chain_die(net, EXIT_HANDSHAKE, "TLS did not start: see what the TLS side logged");
    if (r < 0) chain_diesys(net, EXIT_SYSTEM, "read from the control socket");
    n += r;
  }
  return n - 1;
}

/* By these OpenSSL is told whom to trust: they begin like variables of a session, and are not. */
static int variable_is_trust(char const *s)
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
    if (!strncmp(s + i, "SSL_", 4) && strchr(s + i, '=') && !variable_is_trust(s + i))
    {
      memmove(s + kept, s + i, len);
      kept += len;
    }
    i += len;
  }
  return kept;
}

/*
  The application's three descriptors, out of the way of what goes to the network's places: their
  numbers may be any, those of the network among them, and one socket may be for both directions.
*/
static void channels_take(int fd[3])
{
  static char const *const names[3] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD" };
  int given[3];
  for (int i = 0; i < 3; i++) given[i] = chain_getfd(0, names[i], ORDER);
  for (int i = 0; i < 3; i++)
  {
    fd[i] = fcntl(given[i], F_DUPFD_CLOEXEC, CHAIN_CLIENT.wfd + 1);
    if (fd[i] < 0) chain_diesys(0, EXIT_SYSTEM, "move a descriptor");
  }
  for (int i = 0; i < 3; i++) close(given[i]);
}

static void channels_place(struct chain_network const *net, int const fd[3])
{
  close(fd[0]);
  if (!chain_network_leave(net->rfd) || !chain_network_leave(net->wfd)
    || fd_move(net->rfd, fd[1]) < 0 || fd_move(net->wfd, fd[2]) < 0)
    chain_diesys(net, EXIT_SYSTEM, "put TLS where the network was");
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE], s[REPLY_MAX];
  size_t n = 0;
  int bad = 0;
  char command = 'Y';
  struct chain_network net = CHAIN_SERVER;
  progname_set(prog, "tls-ctl-start", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cy", &l)) != -1; )
    switch (opt)
    {
      case 'c': net = CHAIN_CLIENT; break;
      case 'y': command = 'y'; break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;
  chain_unlog(&net);
  if (bad) chain_dieusage(0, USAGE);
  if (!argc) chain_die(0, EXIT_USAGE, "no program: the application goes after tls-ctl-start");

  int fd[3];
  channels_take(fd);
  chain_network_check(&net, "SSLNETID", 0);
  command_send(&net, fd[0], command);
  if (command == 'Y') n = reply_clean(s, reply_read(&net, fd[0], s));
  channels_place(&net, fd);
  chain_door_leave();
  chain_exec(0, argv, CHAIN_APP | CHAIN_FACTS | CHAIN_DOOR, s, n);
}
