/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_TEXT_H
#define TLS_CHAIN_TEXT_H

#include <stddef.h>

/* Joins a null-ended list of strings into to, of max bytes with the null byte; cuts the rest. */
extern void text_join(char *to, size_t max, char const *const *parts);
#define TEXT_JOIN(to, ...) text_join((to), sizeof(to), (char const *const []){ __VA_ARGS__, 0 })

/* Cuts the tail off s if it is these two strings. */
extern void text_cut(char *s, char const *a, char const *b);

#endif
