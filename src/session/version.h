/* ISC licence: see COPYING. */

/* The version of the package, as in package/info. */

#define TLS_CHAIN_VERSION "0.2.0"
