/* ISC licence: see COPYING. */

#include <string.h>

#include <skalibs/sgetopt.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "../tlsctl/tlsctl.h"
#include "chain.h"

#define USAGE "tls-ctl-start [ -c ] [ -y ] prog..."
#define ORDER "tls-ctl-start goes after tls-ctl-open"

enum { REPLY_MAX = 65536 };

/*
  Dies, without a word to the TLS side, if a variable names no descriptor, or the network is not
  where it is said to be. If a variable names a place of the network, only SSLNETID can tell that.
*/
static void channels_check(struct chain_network const *net)
{
  static char const *const names[] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD" };
  int placed = 0;
  for (int i = 0; i < 3; i++)
  {
    int fd = chain_getfd(0, names[i], ORDER);
    placed |= fd == 0 || fd == 1 || fd == 6 || fd == 7;
  }
  if (!placed || chain_getenv(0, "SSLNETID")) chain_network_check(net, "SSLNETID", 0);
}

/* The length of the facts, each closed by a null byte. */
static size_t facts_len(char const *s)
{
  size_t n = 0;
  while (s[n]) n += strlen(s + n) + 1;
  return n;
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE], s[REPLY_MAX];
  int bad = 0, reply = 1;
  struct chain_network net = CHAIN_SERVER;
  progname_set(prog, "tls-ctl-start", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "cy", &l)) != -1; )
    switch (opt)
    {
      case 'c': net = CHAIN_CLIENT; break;
      case 'y': reply = 0; break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;
  chain_unlog(&net);
  if (bad) chain_dieusage(0, USAGE);
  if (!argc) chain_die(0, EXIT_USAGE, "no program: the application goes after tls-ctl-start");

  channels_check(&net);
  /* What a script reads it reads byte by byte: none of it can be unread. */
  *s = 0;
  enum tlsctl_status status = tlsctl_start(net.rfd, net.wfd, 0, reply ? s : 0, sizeof s);
  if (status == TLSCTL_REFUSED)
    chain_die(0, EXIT_HANDSHAKE, "TLS did not start: ", *s ? s : "see what the TLS side logged");
  if (status != TLSCTL_STARTED) chain_diesys(0, EXIT_SYSTEM, "start TLS");
  chain_door_leave();
  chain_exec(0, argv, CHAIN_APP | CHAIN_FACTS | CHAIN_DOOR, s, facts_len(s));
}
