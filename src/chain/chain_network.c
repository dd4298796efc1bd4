/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/djbunix.h>
#include <skalibs/types.h>
#include <skalibs/uint64.h>

#include "chain.h"

/* Where a program may have the network, or a copy of it: as a server, for its log, as a client. */
static int const places[] = { 0, 1, 2, 6, 7 };

enum { PLACES_N = sizeof places / sizeof *places };

size_t chain_netid(char s[CHAIN_NETID_SIZE], int fd)
{
  struct stat st;
  if (fstat(fd, &st) < 0) return 0;
  if (!S_ISSOCK(st.st_mode) && !S_ISFIFO(st.st_mode)) return errno = ENOTSOCK, 0;
  size_t n = uint64_fmt(s, st.st_dev);
  s[n++] = ':';
  n += uint64_fmt(s + n, st.st_ino);
  s[n] = 0;
  return n;
}

static int netid_is(char const *id, int fd)
{
  char s[CHAIN_NETID_SIZE];
  return chain_netid(s, fd) && !strcmp(s, id);
}

int chain_is_socket(int fd)
{
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

void chain_shut(struct chain_network const *net)
{
  int e = errno;
  signal(SIGPIPE, SIG_IGN); /* the exit code shall not depend on who reads the log */
  if (!net) return;
  char const *id = getenv("TLS_NETID");
  shutdown(net->rfd, SHUT_RDWR);
  shutdown(net->wfd, SHUT_RDWR);
  for (int i = 0; i < PLACES_N; i++)
    if (id && netid_is(id, places[i])) shutdown(places[i], SHUT_RDWR);
  errno = e;
}

void chain_unlog(struct chain_network const *net)
{
  char log[CHAIN_NETID_SIZE], id[CHAIN_NETID_SIZE];
  if (!chain_netid(log, 2)) return;
  if (!chain_netid(id, net->rfd)) return; /* no network: 1 and 2 may well be one log */
  if (strcmp(id, log) && !netid_is(log, net->wfd)) return;
  int fd = open2("/dev/null", O_RDWR);
  if (fd < 0 || fd_move(2, fd) < 0) fd_close(2);
}

struct chain_network chain_network_find(void)
{
  return chain_is_socket(6) && chain_is_socket(7) ? CHAIN_CLIENT : CHAIN_SERVER;
}

static int netid_is_at(char const *id, struct chain_network net)
{
  return netid_is(id, net.rfd) || netid_is(id, net.wfd);
}

void chain_network_check(struct chain_network const *net, char const *idname,
  struct chain_network const *victim)
{
  char const *id = chain_getenv(victim, idname);
  int client = net->rfd == CHAIN_CLIENT.rfd && net->wfd == CHAIN_CLIENT.wfd;
  int server = net->rfd == CHAIN_SERVER.rfd && net->wfd == CHAIN_SERVER.wfd;
  if (id ? netid_is_at(id, *net) : chain_is_socket(net->rfd)) return;
  if (server && (id ? netid_is_at(id, CHAIN_CLIENT)
    : chain_network_find().rfd == CHAIN_CLIENT.rfd))
    chain_die(victim, EXIT_USAGE, "the network is on 6 and 7, not on 0 and 1: give -c");
  if (client && (id ? netid_is_at(id, CHAIN_SERVER)
    : fcntl(net->rfd, F_GETFD) < 0 && chain_is_socket(CHAIN_SERVER.rfd)))
    chain_die(victim, EXIT_USAGE, "the network is on 0 and 1, not on 6 and 7: do not give -c");
  if (!id) return;
  char rfd[UINT_FMT], wfd[UINT_FMT];
  rfd[uint_fmt(rfd, net->rfd)] = 0;
  wfd[uint_fmt(wfd, net->wfd)] = 0;
  chain_die(victim, EXIT_USAGE, "the network is not on ", rfd, " and ", wfd);
}

int chain_network_leave(int fd)
{
  char id[CHAIN_NETID_SIZE];
  if (!chain_netid(id, fd))
  {
    if (errno == ENOTSOCK) return 1; /* a copy of what has been left already */
    id[0] = 0;
  }
  int null = open2("/dev/null", O_RDWR);
  if (null < 0) return 0;
  int ok = fd == null || fd_copy(fd, null) >= 0;
  for (int i = 0; i < PLACES_N; i++)
    if (netid_is(id, places[i]) && fd_copy(places[i], null) < 0) ok = 0;
  int e = errno;
  if (null != fd) close(null);
  errno = e;
  return ok;
}
