/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_KEEPER_H
#define TLS_CHAIN_KEEPER_H

#include "worker.h"

/*
  Keeps workers: starts one, and a new one at each SIGHUP, when the files of the settings have
  changed, and when it dies; ends them at SIGTERM, and when nobody will come through the door any
  more. notif is where a newline is written once sessions can be served; -1 for nowhere. Returns an
  exit code.
*/
extern int keeper_run(struct worker_options const *, int notif);

#endif
