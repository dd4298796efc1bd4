/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_WORKER_H
#define TLS_CHAIN_WORKER_H

#include "door.h"

struct worker_options
{
  enum door door;     /* what descriptor 0 is */
  int role;
  unsigned int max;   /* sessions at once, and as many again that only wait for their peer */
  unsigned int limit; /* ms that sessions may take after the order to end; 0 is none */
  long uid;           /* the only one who may connect, -1 for anyone who can */
};

/* What a worker and its keeper say to each other over the lifeline, each a byte. */
enum worker_word
{
  WORKER_IS_READY = 'r',
  WORKER_ASKS = '?',    /* somebody is at the door: are the settings still those of the files? */
  WORKER_IS_LEFT = 'x', /* nobody will come through the door any more */
  KEEPER_GO_ON = 'g',   /* the answer; new settings are an order to end */
  KEEPER_END = 'd',     /* take no more, end with the last session */
  KEEPER_END_SOON = 't', /* the same within the limit */
};

/*
  A worker: loads the settings, confines itself, says that it is ready, and serves who comes
  through the door. An end of file on lifeline is the order to end. Returns its exit code.
*/
extern int worker_run(struct worker_options const *, int lifeline);

#endif
