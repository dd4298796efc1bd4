/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_KEEPER_H
#define TLS_CHAIN_KEEPER_H

#include "worker.h"

/*
  Keeps workers: starts one, a new one at each SIGHUP, ends them at SIGTERM. notif is where a
  newline is written once sessions can be served; -1 for nowhere. Returns an exit code.
*/
extern int keeper_run(struct worker_options const *, int notif);

#endif
