/* ISC licence: see COPYING. */

#include "chain.h"

/* Set by the Makefile: libexecdir, or the build directory for the tests. */
char const chain_engine[] = TLS_ENGINE_PATH;
