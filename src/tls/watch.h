/* ISC licence: see COPYING. */

/* Whether the files of the settings are still those that were read. */

#ifndef TLS_CHAIN_WATCH_H
#define TLS_CHAIN_WATCH_H

/* What there was: of each file, by the variables of the environment, which it is, and its times. */
struct watch
{
  char seen[32];
};

/*
  Looks at the files, and reads none. Returns whether they differ from what *w has seen; it has
  seen these then. Of a directory of authorities only the directory itself is looked at: openssl
  rehash changes it. A client that is told of no authorities looks at those of the system.
*/
extern int watch_look(struct watch *w, int is_server);

#endif
