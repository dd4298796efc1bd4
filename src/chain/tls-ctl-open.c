/* ISC licence: see COPYING. */

#include <errno.h>
#include <stdlib.h>

#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>

#include <execline/execline.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "chain.h"

#define USAGE "tls-ctl-open [ -Z ] [ -D ] { tlsside... } prog..."

/* The control socket, two pipes for plaintext, one for the reason why there is no TLS. */
enum { CHANNELS = 4 };

/* One side: its ends of them, and the variables that tell their numbers, and the network. */
struct side
{
  int fd[CHANNELS];
  char modif[160 + CHAIN_NETID_SIZE];
  size_t len;
};

static void side_name(struct side *s, char const *const *names, char const *netid)
{
  for (int i = 0; i < CHANNELS; i++) s->len += chain_setfd(s->modif + s->len, names[i], s->fd[i]);
  if (*netid) s->len += chain_set(s->modif + s->len, names[CHANNELS], netid);
}

static void sides_open(struct side *tls, struct side *app, char const *netid)
{
  static char const *const tls_names[] = { "TLS_CTLFD", "TLS_PLAINRFD", "TLS_PLAINWFD",
    "TLS_REASONFD", "TLS_NETID" };
  static char const *const app_names[] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD",
    "SSLREASONFD", "SSLNETID" };
  int ctl[2], up[2], down[2], reason[2];
  if (!chain_socketpair(ctl)) chain_diesys(0, EXIT_SYSTEM, "create control socket");
  if (!chain_pipe(up) || !chain_pipe(down) || !chain_pipe(reason))
    chain_diesys(0, EXIT_SYSTEM, "create pipe");
  *tls = (struct side){ .fd = { ctl[0], down[0], up[1], reason[1] } };
  *app = (struct side){ .fd = { ctl[1], up[0], down[1], reason[0] } };
  side_name(tls, tls_names, netid);
  side_name(app, app_names, netid);
}

/* A stale TLS_SESSIONFD is replaced; one that is a socket is a session that has begun too early. */
static void order_check_open(void)
{
  unsigned int fd;
  char const *s = getenv("TLS_SESSIONFD");
  if (s && chain_scan(s, &fd) && chain_is_socket(fd))
    chain_die(0, EXIT_USAGE, "a session has been started: tls-ctl-open goes before tls-handshake");
}

int main(int argc, char const **argv)
{
  char prog[PROGNAME_SIZE], netid[CHAIN_NETID_SIZE];
  struct side tls, app;
  int settings = CHAIN_SETTINGS, orphan = 1, bad = 0;
  struct chain_network net = chain_network_find();
  progname_set(prog, "tls-ctl-open", "");
  help_give(argc, (char const *const *)argv, USAGE);
  chain_unlog(&net);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ZD", &l)) != -1; )
    switch (opt)
    {
      case 'Z': settings = 0; break;
      case 'D': orphan = 0; break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;

  int n = el_semicolon(argv);
  if (bad || !argc) chain_dieusage(0, USAGE);
  if (!n) chain_die(0, EXIT_USAGE, "empty block: tls-await, tls-handshake and tls-io go into it");
  if (n >= argc)
    chain_die(0, EXIT_USAGE, "unterminated block: { and } make one in execline only, not in sh");
  if (n + 1 == argc)
    chain_die(0, EXIT_USAGE, "no program after the block: the application goes there");
  argv[n] = 0;
  order_check_open();

  /* of pipes there are two, and a program may be in one for another reason: not a name for both */
  if (!chain_is_socket(net.rfd) || !chain_netid(netid, net.rfd)) netid[0] = 0;
  sides_open(&tls, &app, netid);
  struct chain_child child =
  {
    .argv = argv, .drop = CHAIN_APP | CHAIN_TLS, .modif = tls.modif, .modiflen = tls.len,
    .keep = tls.fd, .n = CHANNELS, .input = -1, .orphan = orphan,
  };
  pid_t pid = chain_spawn(&child);
  if (!pid) chain_diesys(0, EXIT_SYSTEM, "start the TLS side");
  if (pid < 0) chain_diesys(0, errno == ENOENT ? 127 : 126, "exec the TLS side ", argv[0]);
  for (int i = 0; i < CHANNELS; i++)
    if (uncoe(app.fd[i]) < 0) chain_diesys(0, EXIT_SYSTEM, "hand on a descriptor");
  chain_door_leave();
  chain_exec(0, argv + n + 1, settings | CHAIN_FACTS | CHAIN_APP | CHAIN_TLS | CHAIN_DOOR,
    app.modif, app.len);
}
