/* ISC licence: see COPYING. */

/* What every program says of itself. */

#ifndef TLS_CHAIN_HELP_H
#define TLS_CHAIN_HELP_H

/*
  If the only argument is -h or -V, writes how the program is used, or the name and version of the
  package, to standard output, and exits 0.
*/
extern void help_give(int argc, char const *const *argv, char const *usage);

#endif
