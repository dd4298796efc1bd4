/* ISC licence: see COPYING. */

/* What an exec hands on to an engine, settled. */

#ifndef TLS_CHAIN_INHERIT_H
#define TLS_CHAIN_INHERIT_H

/* Closes fd and all descriptors above it. */
extern void inherit_close_from(int fd);

/*
  Makes 1 a copy of 2. Where 2 is closed, both become a pipe that nobody reads: what is written
  there goes nowhere, and into no descriptor of a session. Returns 1, or 0 with errno set.
*/
extern int inherit_output(void);

/*
  Signals and timers as a program expects them: nothing blocked, nothing ignored but SIGPIPE, and
  what a shell ignores for a program in the background (SIGHUP, SIGINT, SIGQUIT); no alarm to come.
  Niceness, resource limits and the process group are whoever started it has chosen, and stay.
*/
extern void inherit_signals(void);

#endif
