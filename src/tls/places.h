/* ISC licence: see COPYING. */

/* The sessions of a worker, each at a place with a number, by which it tells of itself. */

#ifndef TLS_CHAIN_PLACES_H
#define TLS_CHAIN_PLACES_H

#include <sys/types.h>

#include <skalibs/tai.h>

enum { PLACES_LATE = 16 };

struct place
{
  pid_t pid; /* 0: vacant */
  int is_lingering; /* only waits for its peer */
};

struct places
{
  struct place *place;
  unsigned int *vacant;   /* the numbers of the vacant ones, as a stack */
  unsigned int max;       /* sessions that do not linger; of all there may be twice as many */
  unsigned int n;         /* that are taken, */
  unsigned int lingering; /* those included that linger */
  unsigned int late[PLACES_LATE]; /* sessions that have told of their end, and may not have ended */
  unsigned int late_n;
  int lingers[2]; /* where sessions tell that they linger, */
  int ends[2];    /* and that they end */
  tain sweep;     /* when to look for sessions that have ended without a word; or infinite */
};

/* Makes room. Returns 1, or 0 with errno set. */
extern int places_init(struct places *, unsigned int max);

/* Whether all are taken that the next session may have. */
extern int places_are_full(struct places const *);

/* The number of the place for the next session, which place_take gives to a process. */
extern unsigned int place_next(struct places const *);
extern void place_take(struct places *, pid_t);

/* For a session: tells that it lingers, or ends. place_own keeps only what it needs for that. */
extern void place_own(struct places *);
extern void place_tell(int fd, unsigned int place);

/* Hears who lingers. */
extern void places_hear(struct places *);

/*
  Reaps those that have told of their end, after a SIGCHLD. places_sweep looks at all children, for
  those that could not; it ends the process if signer is one of them.
*/
extern void places_reap(struct places *);
extern void places_sweep(struct places *, pid_t signer);

/* Sends all of them a signal. */
extern void places_kill(struct places const *, int sig);

#endif
