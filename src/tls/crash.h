/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_CRASH_H
#define TLS_CHAIN_CRASH_H

/*
  From now on, a signal that ends this process is told to the log, as nobody waits for an engine of
  the chain's own: of a session of tls-engined, the worker tells. Of SIGKILL nobody can.
*/
extern void crash_watch(void);

#endif
