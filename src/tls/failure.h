/* ISC licence: see COPYING. */

/*
  Why something could not be done: an exit code, and the whole sentence, written where it happens.

  A function that takes a struct failure * returns 1, or 0 with the failure filled. It is handed up
  as it is; only who serves a session, a worker, the keeper and a main end because of one.
*/

#ifndef TLS_CHAIN_FAILURE_H
#define TLS_CHAIN_FAILURE_H

#include "../session/session.h"

struct failure
{
  int code;
  char reason[SESSION_TEXT_MAX + 1];
};

/* Fills it with code and the parts, a null-ended list, joined; cuts the rest. Returns 0. */
extern int failure_setv(struct failure *, int code, char const *const *parts);
#define failure_set(f, code, ...) \
  failure_setv((f), (code), (char const *const []){ __VA_ARGS__, 0 })

/* The same for a system call: with ": " and the text of errno at the end, code EXIT_SYSTEM. */
extern int failure_sysv(struct failure *, char const *const *parts);
#define failure_sys(f, ...) failure_sysv((f), (char const *const []){ __VA_ARGS__, 0 })

#endif
