/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>

#include "../session/session.h"
#include "chain.h"

#define USAGE "tls-io [ -S | -s ] [ -J | -j ] [ -t ms ] [ -w ] [ -Z ] [ prog... ]"

static void protocol_error(int r) gccattr_noreturn;
static void protocol_error(int r)
{
  if (r < 0 && errno != EPROTO) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  strerr_dief(EXIT_TLS, r ? "malformed message of the engine" : "the engine is gone");
}

static void join(struct session *s, struct session_join const *o, int const *plain)
{
  char msg[SESSION_MAX];
  unixmessage m;
  int r = session_send(s, msg, session_join_pack(msg, o), plain, 2)
    ? session_receive(s, &m, &tain_infinite) : errno == EPIPE ? 0 : -1;
  if (r != SESSION_JOINED) protocol_error(r);
  close(plain[0]);
  close(plain[1]);
}

/* The end of the session: the code that tells a script whether it got and gave everything. */
static int ended(struct session *s)
{
  struct session_end end;
  unixmessage m;
  int r = session_receive(s, &m, &tain_infinite);
  if (r != SESSION_ENDED || !session_end_unpack(&end, m.s, m.len)) protocol_error(r);
  if (end.code) strerr_warnw("session failed: ", end.reason);
  else if (end.truncated) strerr_warnw("session cut: ", end.reason);
  return end.code || end.truncated ? EXIT_TLS : 0;
}

/* The reply that UCSPI-TLS promises for the command Y: the facts, one more null byte, a close. */
static void reply(int ctl)
{
  char s[SESSION_MAX + 1024];
  size_t n = 0;
  for (int i = 0; i < SESSION_FACTS_N; i++)
  {
    char const *value = getenv(session_fact_name[i]);
    if (!value || n + strlen(session_fact_name[i]) + strlen(value) + 3 > sizeof s) continue;
    n += chain_unset(s + n, session_fact_name[i]);
    s[n - 1] = '=';
    n += chain_unset(s + n, value);
  }
  s[n++] = 0;
  for (size_t done = 0; done < n; )
  {
    ssize_t r = fd_send(ctl, s + done, n - done, MSG_NOSIGNAL);
    if (r < 0) strerr_diefusys(EXIT_SYSTEM, "reply to the application");
    done += r;
  }
  close(ctl);
}

/* Two pipes; the far ends go where the network was. */
static void plain_open(int *plain)
{
  int net[2] = { chain_getfd("TLS_NETRFD"), chain_getfd("TLS_NETWFD") };
  int up[2], down[2];
  if (net[0] == net[1]) strerr_dief(EXIT_USAGE, "the program needs two network descriptors");
  if (!chain_pipe(up) || !chain_pipe(down)) strerr_diefusys(EXIT_SYSTEM, "create pipe");
  if (fd_move(net[0], up[0]) < 0 || fd_move(net[1], down[1]) < 0)
    strerr_diefusys(EXIT_SYSTEM, "put a pipe where the network was");
  if (uncoe(net[0]) < 0 || uncoe(net[1]) < 0)
    strerr_diefusys(EXIT_SYSTEM, "hand on a descriptor");
  plain[0] = down[0];
  plain[1] = up[1];
}

/* Runs the program in place of being it; returns its code once it and the session have ended. */
static int run_and_wait(struct session *s, char const *const *argv, int drop)
{
  int wstat;
  struct sigaction old;
  if (sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = SIG_DFL }, &old) < 0)
    strerr_diefusys(EXIT_SYSTEM, "set SIGCHLD");
  pid_t pid = fork();
  if (pid < 0) strerr_diefusys(EXIT_SYSTEM, "fork");
  if (!pid)
  {
    sigaction(SIGCHLD, &old, 0);
    chain_exec(argv, drop, 0, 0);
  }
  close(chain_getfd("TLS_NETRFD"));
  close(chain_getfd("TLS_NETWFD"));
  if (wait_pid(pid, &wstat) < 0) strerr_diefusys(EXIT_SYSTEM, "wait for the program");
  int code = ended(s);
  return code ? code : wait_estatus(wstat);
}

int main(int argc, char const *const *argv)
{
  struct session_join o = { .notify = 1 };
  struct session s;
  int drop = CHAIN_TLS | CHAIN_SETTINGS, wait = 0, plain[2];
  PROG = "tls-io";
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "SsJjt:wZ", &l)) != -1; )
    switch (opt)
    {
      case 'S': o.notify = 1; break;
      case 's': o.notify = 0; break;
      case 'J': o.strict = 1; break;
      case 'j': o.strict = 0; break;
      case 't': o.idle = chain_number(l.arg, USAGE); break;
      case 'w': wait = o.heard = 1; break;
      case 'Z': drop = CHAIN_TLS; break;
      default: strerr_dieusage(EXIT_USAGE, USAGE);
    }
  argc -= l.ind;
  argv += l.ind;

  int delayed = !!getenv("TLS_PLAINRFD");
  if (!delayed && !argc) strerr_dieusage(EXIT_USAGE, USAGE);
  int fd = chain_getfd("TLS_SESSIONFD");
  int ctl = getenv("TLS_CTLFD") ? chain_getfd("TLS_CTLFD") : -1;
  if (!session_init(&s, fd, 0)) strerr_diefusys(EXIT_SYSTEM, "use session socket");
  if (delayed)
  {
    plain[0] = chain_getfd("TLS_PLAINRFD");
    plain[1] = chain_getfd("TLS_PLAINWFD");
  }
  else plain_open(plain);
  tain_now_set_stopwatch_g();
  join(&s, &o, plain);
  if (ctl >= 0) reply(ctl);

  if (!wait && !argc) return 0;
  if (!wait) chain_exec(argv, drop, 0, 0);
  return argc ? run_and_wait(&s, argv, drop) : ended(&s);
}
