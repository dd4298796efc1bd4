/* ISC licence: see COPYING. */

/* What the files that read the settings share. A bad setting dies through engine_refuse. */

#ifndef TLS_CHAIN_SETTINGS_H
#define TLS_CHAIN_SETTINGS_H

#include <stddef.h>
#include <stdint.h>

#include <tls.h>

#include "engine.h"

#define refuse(e, ...) engine_refuse((e), EXIT_TLS_CONFIG, __VA_ARGS__)

/* The text of the last error of a configuration; never null. */
extern char const *config_error(struct tls_config *);

struct file
{
  uint8_t *s;
  size_t len;
};

/* The whole of the file that variable names; of what has no path, nothing. */
extern struct file file_load(struct engine *, char const *variable, char const *path);
extern void file_unload(struct file *);

/* Whether errno tells of a shortage, which is no fault of the settings. */
extern int is_shortage(int e);

/* A new, empty configuration; the caller frees it. */
extern struct tls_config *config_new(struct engine *);

/* Makes *tls of a configuration. Returns why libtls does not take it, or null. */
extern char const *config_use(struct tls_config *, struct tls **tls, int is_server);

/*
  Adds key pairs to a configuration: all that the environment names, or the default one only.
  Return how many.
*/
extern unsigned int keypairs_add(struct engine *, struct tls_config *);
extern unsigned int keypair_add_default(struct engine *, struct tls_config *);

/* Dies if one of the key pairs, by itself, is what libtls does not take. */
extern void keypairs_blame(struct engine *);

/* Adds trust anchors and the revocation list to a configuration. */
extern void trust_add(struct engine *, struct tls_config *);

#endif
