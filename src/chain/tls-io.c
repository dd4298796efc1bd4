/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <sys/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/sgetopt.h>
#include <skalibs/tai.h>

#include "../session/help.h"
#include "../session/progname.h"
#include "../session/session.h"
#include "chain.h"

#define USAGE "tls-io [ -S | -s ] [ -J | -j ] [ -t ms ] [ -u ] [ -w ] [ -Z ] [ prog... ]"
#define ORDER "tls-io goes after tls-handshake"
#define ORDER_PLAIN "tls-io goes after tls-ctl-open"

/*
  The engine has the network, and ends it when we close the session by dying. Only what
  tls-ctl-open saw may still be here in plaintext, if tls-handshake was forgotten.
*/
static struct chain_network const net = { -1, -1 };

static void protocol_error(int r) gccattr_noreturn;
static void protocol_error(int r)
{
  if (r < 0 && errno != EPROTO) chain_diesys(&net, EXIT_SYSTEM, "use session socket");
  if (!r) chain_die(&net, EXIT_TLS, "the engine exited unexpectedly");
  chain_die(&net, EXIT_TLS, "malformed message from the engine");
}

static void session_join(struct session *s, struct session_join const *o, int const *plain)
{
  char msg[SESSION_MAX];
  unixmessage m;
  int r = session_send(s, msg, session_join_pack(msg, o), plain, 2)
    ? session_receive(s, &m, &tain_infinite) : errno == EPIPE ? 0 : -1;
  if (r != SESSION_JOINED) protocol_error(r);
  close(plain[0]);
  if (plain[1] != plain[0]) close(plain[1]);
}

/* The end of the session: the code that tells a script whether it got and gave everything. */
static int session_wait(struct session *s)
{
  struct session_end end;
  unixmessage m;
  int r = session_receive(s, &m, &tain_infinite);
  if (r != SESSION_ENDED || !session_end_unpack(&end, m.s, m.len)) protocol_error(r);
  if (end.code) chain_say(strerr_warnw("session failed: ", end.reason));
  else if (end.truncated) chain_say(strerr_warnw("session truncated: ", end.reason));
  return end.code || end.truncated ? EXIT_TLS : 0;
}

/*
  The reply that UCSPI-TLS promises for the command Y: the facts, one more null byte, a close. It
  goes before JOIN: an application without a reply takes the network for its own again, and might
  go on in plaintext between the records; one with a reply finds the pipes closed if JOIN fails.
  Returns 0, or an errno: an application that does not wait for the reply may have its session.
*/
static int reply_send(int ctl)
{
  char s[SESSION_MAX + 1024];
  size_t n = 0;
  for (int i = 0; i < SESSION_FACTS_N; i++)
  {
    char const *value = getenv(session_fact_name[i]);
    if (!value || n + strlen(session_fact_name[i]) + strlen(value) + 3 > sizeof s) continue;
    n += chain_set(s + n, session_fact_name[i], value);
  }
  s[n++] = 0;
  for (size_t done = 0; done < n; )
  {
    ssize_t r = fd_send(ctl, s + done, n - done, MSG_NOSIGNAL);
    if (r < 0) return errno;
    done += r;
  }
  close(ctl);
  return 0;
}

static void places_hand_on(int const *place)
{
  if (uncoe(place[0]) < 0 || uncoe(place[1]) < 0)
    chain_diesys(&net, EXIT_SYSTEM, "hand on a descriptor");
}

/* Two pipes; the far ends go where the network was. */
static void plain_open(int *plain, int const *place)
{
  int up[2], down[2];
  if (place[0] == place[1])
    chain_die(&net, EXIT_USAGE, "the program needs two network descriptors");
  if (!chain_pipe(up) || !chain_pipe(down)) chain_diesys(&net, EXIT_SYSTEM, "create pipe");
  if (fd_move(place[0], up[0]) < 0 || fd_move(place[1], down[1]) < 0)
    chain_diesys(&net, EXIT_SYSTEM, "put a pipe where the network was");
  places_hand_on(place);
  plain[0] = down[0];
  plain[1] = up[1];
}

/* The same, by one socket for both directions. */
static void plain_open_one(int *plain, int const *place)
{
  int fd[2];
  if (!chain_socketpair(fd)) chain_diesys(&net, EXIT_SYSTEM, "create a pair of sockets");
  if (fd_move(place[0], fd[1]) < 0 || (place[1] != place[0] && fd_copy(place[1], place[0]) < 0))
    chain_diesys(&net, EXIT_SYSTEM, "put a socket where the network was");
  places_hand_on(place);
  plain[0] = plain[1] = fd[0];
}

/* A handler, as what is ignored by default may be dropped before sigwait sees it. */
static void signal_note(int sig)
{
  (void)sig;
}

/*
  Runs the program in place of being it, and waits for its end; returns its wait status. Signals
  that are meant to end it reach it: who sends them knows our process number only. The child gets
  the dispositions and the mask that we were given.
*/
static int program_run(char const *const *argv, int drop, int const *place)
{
  static int const passed[] = { SIGTERM, SIGHUP, SIGINT, SIGQUIT };
  struct sigaction old;
  sigset_t set, mask;
  int wstat, sig;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  for (unsigned int i = 0; i < sizeof passed / sizeof *passed; i++) sigaddset(&set, passed[i]);
  if (sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = signal_note }, &old) < 0
    || sigprocmask(SIG_BLOCK, &set, &mask) < 0)
    chain_diesys(&net, EXIT_SYSTEM, "set signals");
  pid_t pid = fork();
  if (pid < 0) chain_diesys(&net, EXIT_SYSTEM, "fork");
  if (!pid)
  {
    char prog[PROGNAME_SIZE];
    progname_set(prog, "tls-io", "");
    sigaction(SIGCHLD, &old, 0);
    sigprocmask(SIG_SETMASK, &mask, 0);
    chain_exec(&net, argv, drop, 0, 0);
  }
  for (int i = 0; place && i < 2; i++) close(place[i]);
  chain_forget(CHAIN_SETTINGS | CHAIN_TLS);
  for (;;)
  {
    int r = sigwait(&set, &sig);
    if (!r && sig != SIGCHLD) kill(pid, sig);
    pid_t ended = waitpid_nointr(pid, &wstat, WNOHANG);
    if (ended < 0) chain_diesys(&net, EXIT_SYSTEM, "wait for the program");
    if (ended > 0) break;
  }
  sigprocmask(SIG_SETMASK, &mask, 0);
  return wstat;
}

int main(int argc, char const *const *argv)
{
  char prog[PROGNAME_SIZE];
  struct session_join o = { .notify = 1 };
  struct session s;
  int drop = CHAIN_TLS | CHAIN_SETTINGS, wait = 0, one = 0, bad = 0, plain[2], place[2];
  progname_set(prog, "tls-io", "");
  help_give(argc, argv, USAGE);
  subgetopt l = SUBGETOPT_ZERO;
  for (int opt; (opt = subgetopt_r(argc, argv, "SsJjt:uwZ", &l)) != -1; )
    switch (opt)
    {
      case 'S': o.notify = 1; break;
      case 's': o.notify = 0; break;
      case 'J': o.strict = 1; break;
      case 'j': o.strict = 0; break;
      case 't': bad |= !chain_scan(l.arg, &o.idle); break;
      case 'u': one = 1; break;
      case 'w': wait = o.heard = 1; break;
      case 'Z': drop = CHAIN_TLS; break;
      default: bad = 1;
    }
  argc -= l.ind;
  argv += l.ind;

  int delayed = !!getenv("TLS_PLAINRFD");
  if (bad) chain_dieusage(&net, USAGE);
  if (!delayed && !argc)
    chain_die(&net, EXIT_USAGE, "no program: the application goes after tls-io");
  if (delayed && one) chain_die(&net, EXIT_USAGE, "-u: the pipes are those of tls-ctl-open");
  int fd = chain_getfd(&net, "TLS_SESSIONFD", ORDER);
  int ctl = getenv("TLS_CTLFD") ? chain_getfd(&net, "TLS_CTLFD", ORDER) : -1;
  if (getenv("TLS_REASONFD")) close(chain_getfd(&net, "TLS_REASONFD", ORDER));
  if (!session_init(&s, fd, 0)) chain_diesys(&net, EXIT_SYSTEM, "use session socket");
  if (delayed)
  {
    plain[0] = chain_getfd(&net, "TLS_PLAINRFD", ORDER_PLAIN);
    plain[1] = chain_getfd(&net, "TLS_PLAINWFD", ORDER_PLAIN);
  }
  else
  {
    place[0] = chain_getfd(&net, "TLS_NETRFD", ORDER);
    place[1] = chain_getfd(&net, "TLS_NETWFD", ORDER);
    (one ? plain_open_one : plain_open)(plain, place);
  }
  tain_now_set_stopwatch_g();
  int unheard = ctl >= 0 ? reply_send(ctl) : 0;
  session_join(&s, &o, plain);
  errno = unheard;
  if (unheard) chain_diesys(&net, EXIT_SYSTEM, "reply to the application");

  if (!wait && !argc) return 0;
  if (!wait) chain_exec(&net, argv, drop, 0, 0);
  if (!argc) chain_forget(CHAIN_SETTINGS | CHAIN_TLS);
  int wstat = argc ? program_run(argv, drop, delayed ? 0 : place) : 0;
  int code = session_wait(&s);
  return code ? code : wait_estatus(wstat);
}
