/* ISC licence: see COPYING. */

/*
  What each kind of process gives up, for good; tls-chain-security(7) has the table. A function for
  each, and below them the steps that every system has in its own way, in a file of its own.
*/

#ifndef TLS_CHAIN_CONFINE_H
#define TLS_CHAIN_CONFINE_H

#include <sys/types.h>

#include "failure.h"

/* The keeper: core dumps, ptrace. It still starts workers, which read the files. */
extern int confine_keeper(struct failure *);

/*
  The others, once they have read their files: every file but those of confine_keep_file, by an
  empty directory for a root, if they may change that; supplementary groups; the user and group, if
  TLS_UID and TLS_GID are set; every capability; core dumps, ptrace, new privileges; and every
  system call but those in the table of filter.c.

  A worker still accepts and forks sessions, and each of them gives that up as well. An engine of
  the chain's own gives up at once what worker and session do one after the other.
*/
extern int confine_worker(struct failure *);
extern int confine_session(struct failure *);
extern int confine_engine(struct failure *);
extern int confine_signer(struct failure *);

/*
  Keeps a file, or what a link leads to, readable under its path after that. Returns 0 if this
  system has no way to do so.
*/
extern int confine_keep_file(char const *path);

/* A new process: it keeps none of the files that its parent keeps. */
extern void confine_keep_none(void);

/* What ps(1) shows, where that can be told. */
extern void process_rename(char const *);

/* For confine.c: the steps of this system. */

enum confine_stage
{
  STAGE_SIGNER,
  STAGE_SESSION,
  STAGE_WORKER,
};

extern int system_keeps_files(void); /* whether confine_keep_file has kept one */
extern int system_set_ids(uid_t, gid_t); /* real, effective and saved ones; returns 0 with errno */
extern int system_ids_are(uid_t, gid_t);
extern int system_drop_capabilities(struct failure *);
extern int system_forbid_trace(struct failure *);
extern int system_forbid_privileges(struct failure *); /* new ones, and files that are not kept */
extern int system_forbid_calls(enum confine_stage, struct failure *);

#endif
