/* ISC licence: see COPYING. */

/* What the chainloaders share: failing, variables, descriptors, starting other programs. */

#ifndef TLS_CHAIN_CHAIN_H
#define TLS_CHAIN_CHAIN_H

#include <sys/types.h>
#include <signal.h>
#include <stddef.h>

#include <skalibs/gccattributes.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>

#include "../session/session.h"

/* The network: the descriptor that is read and the one that is written, often one socket. */
struct chain_network
{
  int rfd;
  int wfd;
};

#define CHAIN_SERVER ((struct chain_network){ 0, 1 })
#define CHAIN_CLIENT ((struct chain_network){ 6, 7 })

/*
  The one way to fail: shuts the network down, for all who hold a copy of it, so that nobody goes
  on in plaintext where TLS was wanted, and dies with one line. The network is that at net, and
  that which tls-ctl-open saw (TLS_NETID), wherever a stage believes it to be. With a null net
  nothing is shut: nobody has been promised TLS yet, or the engine alone holds the network.
*/
#define chain_die(net, code, ...) (chain_shut(net), strerr_dief(code, __VA_ARGS__))
#define chain_diesys(net, code, ...) (chain_shut(net), strerr_diefusys(code, __VA_ARGS__))
#define chain_dieusage(net, usage) (chain_shut(net), strerr_dieusage(EXIT_USAGE, usage))

/* What chain_die does before it dies. Keeps errno. */
extern void chain_shut(struct chain_network const *net);

/* Says a line, by strerr_warnw(...) or the like, that must not end us if nobody reads the log. */
#define chain_say(line) \
  do { \
    struct sigaction chain_old; \
    sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, &chain_old); \
    line; \
    sigaction(SIGPIPE, &chain_old, 0); \
  } while (0)

/*
  xinetd, nc -e and the like put the network on 2 as well, where a line would get among the
  records. If 2 is a copy of the network, makes it /dev/null: what is said there is lost. Cannot
  fail: closes 2 if all else does.
*/
extern void chain_unlog(struct chain_network const *net);

/*
  What tells the network apart, wherever it may be moved to: of a socket or a pipe, its device
  and inode, DEV:INO. Writes that to s and returns its length, or 0 with errno set: ENOTSOCK if fd
  is neither.
*/
#define CHAIN_NETID_SIZE 48
extern size_t chain_netid(char s[CHAIN_NETID_SIZE], int fd);

extern int chain_is_socket(int fd);

/* Where a UCSPI program has put the network: on 6 and 7 if they are sockets, else on 0 and 1. */
extern struct chain_network chain_network_find(void);

/*
  Dies 100, by chain_die(victim, ...), if the network is not at net, but elsewhere. The variable
  idname tells which socket it is; where that is not set, only what cannot be meant is found.
*/
extern void chain_network_check(struct chain_network const *net, char const *idname,
  struct chain_network const *victim);

/*
  Makes /dev/null of fd, and of every copy of it where programs read and write: 0, 1, 2, 6 and 7.
  Returns 1, or 0 with errno set.
*/
extern int chain_network_leave(int fd);

/* Classes of variables, for chain_exec to drop. */
enum chain_variables
{
  CHAIN_SETTINGS = 1, /* what only the TLS side reads: KEYFILE, CERTFILE:x, TLS_UID... */
  CHAIN_FACTS = 2,    /* what is known of a session: SSL_PROTOCOL... */
  CHAIN_APP = 4,      /* the application's side of UCSPI-TLS: SSLCTLFD, SSLREADFD, SSLWRITEFD... */
  CHAIN_TLS = 8,      /* the TLS side's: TLS_CTLFD, TLS_SESSIONFD, TLS_HELLO_ALPN... */
  CHAIN_DOOR = 16,    /* the way to an engine that was opened before: TLS_ENGINEFD */
};

/*
  Execs argv with the environment less the variables of the classes in drop, changed by modif:
  len bytes, NAME=value or NAME, each closed by a null byte. The one batch in which a chainloader
  changes the environment; of a name that is in it twice no copy is left. Does not return: dies, by
  chain_die(net, ...), 127 if the program is not there, else 126.
*/
extern void chain_exec(struct chain_network const *net, char const *const *argv, int drop,
  char const *modif, size_t len) gccattr_noreturn;

/* The same, but returns if the exec fails, with errno set. */
extern void chain_tryexec(char const *const *argv, int drop, char const *modif, size_t len);

/* Overwrites the variables of these classes, for a program that stays: /proc shows them. */
extern void chain_forget(int drop);

/*
  Append to a modif string at s: a variable with a value, with the number of a descriptor, or one
  that is to be unset. Return the bytes added.
*/
extern size_t chain_set(char *s, char const *name, char const *value);
extern size_t chain_setfd(char *s, char const *name, int fd);
extern size_t chain_unset(char *s, char const *name);

/*
  The value of a variable, or null if it is not set. An empty one is no default for anything:
  dies 100, by chain_die(net, ...).
*/
extern char const *chain_getenv(struct chain_network const *net, char const *name);

/*
  The descriptor whose number is the value of the variable name, which must be an open one: else
  dies 100, by chain_die(net, ...), with order, which says after which stage this one goes, if it
  is not set. Sets close-on-exec on it, as it is the caller's now.
*/
extern int chain_getfd(struct chain_network const *net, char const *name, char const *order);

/* The number that s is, to *n, at most INT_MAX. Returns 0 if it is none. */
extern int chain_scan(char const *s, unsigned int *n);

enum
{
  ABOVE_STANDARD = 3, /* no message of a program whose 0, 1 or 2 is closed can get there */
  ABOVE_CLIENT = 8,   /* a UCSPI client puts the network on 6 and 7, whatever is there */
};

/*
  Makes a pair of connected descriptors, close-on-exec, from ABOVE_STANDARD on. Returns 1, or 0
  with errno set.
*/
extern int chain_pipe(int fd[2]);
extern int chain_socketpair(int fd[2]);

/* A descriptor that is lowest at least, close-on-exec; or -1, as fd may be, with fd closed. */
extern int chain_lift(int fd, int lowest);

/*
  The door of an engine that is opened before its chains: a pair of sockets, close-on-exec and
  non-blocking, from ABOVE_CLIENT on. Returns 1, or 0 with errno set.
*/
extern int chain_doorpair(int fd[2]);

/* Whether fd can be an end of one. */
extern int chain_is_door(int fd);

/* Keeps the one that TLS_ENGINEFD names, if it is one, from whoever is run next. */
extern void chain_door_leave(void);

/*
  Starts argv, which inherits the n descriptors in keep as well, with the environment less drop,
  changed by modif, as for chain_exec. input, if not negative, becomes its descriptor 0. An orphan
  is not left as a child of the caller, who may exec a program that waits for children of its own.
  Returns once the exec has succeeded: the child's pid, of no use for an orphan. Returns -1 with
  errno set if the exec failed, 0 with errno set if anything before it did.
*/
struct chain_child
{
  char const *const *argv;
  int drop;
  char const *modif;
  size_t modiflen;
  int const *keep;
  unsigned int n;
  int input;
  int orphan;
};
extern pid_t chain_spawn(struct chain_child const *);

/*
  A session socket with an engine behind it: one of our own, started by its absolute path; the
  resident one whose socket is path; the one at the other end of door. The latter two wait until
  deadline at most. Return the socket, close-on-exec, or -1 with errno set and *step telling what
  could not be done.
*/
extern int chain_engine_spawn(char const **step);
extern int chain_engine_connect(char const *path, tain const *deadline, char const **step);
extern int chain_engine_ask(int door, tain const *deadline, char const **step);

/* A setting of the environment that only an engine of our own would read, or null. */
extern char const *chain_own_setting(void);

/*
  Who the peer is, as the UCSPI program before the chain tells it: 192.0.2.1:25, [2001:db8::1]:25,
  uid 1000. Empty if it does not, or not in printable words of SESSION_PEER_MAX bytes.
*/
extern void chain_peer(char s[SESSION_PEER_MAX + 1]);

#endif
