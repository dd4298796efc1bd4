/* ISC licence: see COPYING. */

#include <errno.h>

#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>

#include <execline/execline.h>

#include "chain.h"

#define USAGE "tls-ctl-open [ -Z ] [ -D ] { tlsside... } prog..."

/* One side: its three descriptors, and the variables that tell their numbers. */
struct side
{
  int fd[3];
  char modif[128];
  size_t len;
};

static void side_name(struct side *s, char const *ctl, char const *r, char const *w)
{
  s->len = chain_setfd(s->modif, ctl, s->fd[0]);
  s->len += chain_setfd(s->modif + s->len, r, s->fd[1]);
  s->len += chain_setfd(s->modif + s->len, w, s->fd[2]);
}

static void channels(struct side *tls, struct side *app)
{
  int ctl[2], up[2], down[2];
  if (!chain_socketpair(ctl)) strerr_diefusys(EXIT_SYSTEM, "create control socket");
  if (!chain_pipe(up) || !chain_pipe(down)) strerr_diefusys(EXIT_SYSTEM, "create pipe");
  *tls = (struct side){ .fd = { ctl[0], down[0], up[1] } };
  *app = (struct side){ .fd = { ctl[1], up[0], down[1] } };
  side_name(tls, "TLS_CTLFD", "TLS_PLAINRFD", "TLS_PLAINWFD");
  side_name(app, "SSLCTLFD", "SSLREADFD", "SSLWRITEFD");
}

int main(int argc, char const **argv)
{
  struct side tls, app;
  int settings = CHAIN_SETTINGS, orphan = 1;
  PROG = "tls-ctl-open";
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "ZD", &l)) != -1; )
    switch (opt)
    {
      case 'Z': settings = 0; break;
      case 'D': orphan = 0; break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  argc -= l.ind;
  argv += l.ind;

  int n = el_semicolon(argv);
  if (!argc) strerr_dieusage(EXIT_USAGE, USAGE);
  if (!n) strerr_dief(EXIT_USAGE, "empty block");
  if (n >= argc) strerr_dief(EXIT_USAGE, "unterminated block");
  if (n + 1 == argc) strerr_dief(EXIT_USAGE, "no program after the block");
  argv[n] = 0;

  channels(&tls, &app);
  struct chain_child child =
  {
    .argv = argv, .drop = CHAIN_APP | CHAIN_TLS, .modif = tls.modif, .modiflen = tls.len,
    .keep = tls.fd, .n = 3, .input = -1, .orphan = orphan,
  };
  pid_t pid = chain_spawn(&child);
  if (!pid) strerr_diefusys(EXIT_SYSTEM, "start the TLS side");
  if (pid < 0) strerr_diefusys(errno == ENOENT ? 127 : 126, "exec the TLS side ", argv[0]);
  for (int i = 0; i < 3; i++)
    if (uncoe(app.fd[i]) < 0) strerr_diefusys(EXIT_SYSTEM, "hand on a descriptor");
  chain_exec(argv + n + 1, settings | CHAIN_FACTS | CHAIN_APP | CHAIN_TLS, app.modif, app.len);
}
