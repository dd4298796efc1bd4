/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_WORKER_H
#define TLS_CHAIN_WORKER_H

struct worker_options
{
  int role;
  unsigned int max;   /* sessions at once, and as many again that only wait for their peer */
  unsigned int limit; /* ms that sessions may take after the order to end; 0 is none */
  long uid;           /* the only one who may connect, -1 for anyone who can */
};

/*
  A worker: loads the settings, confines itself, writes a byte to lifeline, and serves who connects
  to descriptor 0. An end of file on lifeline, or the order d, means to accept no more and to end
  with the last session; the order t, the same within the limit. Returns its exit code.
*/
extern int worker_run(struct worker_options const *, int lifeline);

#endif
