/* ISC licence: see COPYING. */

/* What the chainloaders share: variables, descriptors, starting other programs. */

#ifndef TLS_CHAIN_CHAIN_H
#define TLS_CHAIN_CHAIN_H

#include <sys/types.h>
#include <stddef.h>

#include <skalibs/gccattributes.h>
#include <skalibs/tai.h>

#include "../session/session.h"

/* Classes of variables, for chain_exec to drop. */
enum chain_variables
{
  CHAIN_SETTINGS = 1, /* what only the TLS side reads: KEYFILE, CERTFILE:x, TLS_UID... */
  CHAIN_FACTS = 2,    /* what is known of a session: SSL_PROTOCOL... */
  CHAIN_APP = 4,      /* the application's side of UCSPI-TLS: SSLCTLFD, SSLREADFD, SSLWRITEFD */
  CHAIN_TLS = 8,      /* the TLS side's descriptors: TLS_CTLFD, TLS_SESSIONFD... */
};

/*
  Execs argv with the environment less the variables of the classes in drop, changed by modif:
  len bytes, NAME=value or NAME, each closed by a null byte. The one batch in which a chainloader
  changes the environment. Does not return: dies 127 if the program is not there, else 126.
*/
extern void chain_exec(char const *const *argv, int drop, char const *modif, size_t len)
  gccattr_noreturn;

/* The same, but returns if the exec fails, with errno set. */
extern void chain_tryexec(char const *const *argv, int drop, char const *modif, size_t len);

/* Appends name=n, or name alone to unset it, to a modif string at s; returns the bytes added. */
extern size_t chain_setfd(char *s, char const *name, int fd);
extern size_t chain_unset(char *s, char const *name);

/*
  The descriptor whose number is the value of the variable name, which must be an open one: else
  dies 100. Sets close-on-exec on it, as it is the caller's now.
*/
extern int chain_getfd(char const *name);

/* The number an option's argument stands for; dies 100 with the usage line if it is none. */
extern unsigned int chain_number(char const *s, char const *usage);

/*
  Makes a pair of connected descriptors, close-on-exec and above 2, so that no message of a
  program whose 0, 1 or 2 is closed can get into them. Returns 1, or 0 with errno set.
*/
extern int chain_pipe(int fd[2]);
extern int chain_socketpair(int fd[2]);

/* The same for a descriptor, which may be -1: returns one above 2, or -1, with fd closed. */
extern int chain_lift(int fd);

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

/* Shuts both directions of a network descriptor down, for all who hold a copy. */
extern void chain_shutdown(int rfd, int wfd);

/*
  A session socket with an engine behind it: the resident one whose socket TLS_ENGINE names, or
  one of our own, started by its absolute path. Waits until deadline at most. Returns the socket,
  close-on-exec, or -1 with errno set and *step telling what could not be done.
*/
extern int chain_engine_open(tain const *deadline, char const **step);

/* A setting of the environment that only an engine of our own would read, or null. */
extern char const *chain_own_setting(void);

#endif
