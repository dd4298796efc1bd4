/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_PIPE_H
#define TLS_CHAIN_PIPE_H

/*
  Makes a pipe that was found full larger, up to PLAIN_SIZE, once: *wide tells. Such a pipe is one
  of a bulk transfer, which costs less with fewer switches from process to process. Not all pipes
  from the start: what an unprivileged user's pipes may hold together is limited. Not to be
  allowed, or not to be a pipe, is no failure.
*/
extern void pipe_widen(int fd, int *wide);

#endif
