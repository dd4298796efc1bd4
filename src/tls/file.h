/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_FILE_H
#define TLS_CHAIN_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

/* The whole of a file, in memory of its own. */
struct file
{
  uint8_t *s; /* followed by a null byte; null if there is no file */
  size_t len;
};

/*
  Reads the regular file at path, which the setting named variable gives; what is no regular file
  could keep us waiting. Where path is null, there is no file, and that is no failure.
*/
extern int file_load(struct file *, char const *variable, char const *path, struct failure *);

/* Wipes and frees it. */
extern void file_unload(struct file *);

/* The code of a failure to use a file for errno: a shortage is no fault of the settings. */
extern int file_failure_code(int e);

#endif
