/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_FILTER_H
#define TLS_CHAIN_FILTER_H

#include "confine.h"
#include "failure.h"

/*
  Linux: lets this process make no system calls but those of its stage, in the table of filter.c.
  keeps_files: files may be opened for reading, too. Any other call fails with ENOSYS, so that a
  libc that has learnt of a new one goes back to the old one.
*/
extern int filter_set(enum confine_stage, int keeps_files, struct failure *);

#endif
