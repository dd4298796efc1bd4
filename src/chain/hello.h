/* ISC licence: see COPYING. */

/*
  What a TLS client says first, read without a TLS library: RFC 8446, 4.1.2 and 5.1; RFC 5246,
  7.4.1.2. Pure: it reads what is in its arguments, and writes where they say.
*/

#ifndef TLS_CHAIN_HELLO_H
#define TLS_CHAIN_HELLO_H

#include <stddef.h>

#include "../session/hostname.h"

#define HELLO_MAX 16384 /* bytes of the network that are looked at, record headers included */

struct hello
{
  char const *protocol;        /* the highest version offered, as SSL_PROTOCOL has it */
  char name[HOSTNAME_MAX + 1]; /* the server's, in lower case; empty if there is none, or no name */
  char alpn[HELLO_MAX];        /* as TLS_ALPN; empty if there are none */
};

enum hello_state
{
  HELLO_WHOLE,     /* the struct is filled */
  HELLO_PARTIAL,   /* so far; *wanted is how many bytes there have to be before there can be more */
  HELLO_NO_TLS,    /* it begins otherwise than a handshake of TLS */
  HELLO_MALFORMED, /* it begins so, and is no ClientHello, or one longer than HELLO_MAX */
};

/* Reads the len bytes at s, which the network has begun with. */
extern enum hello_state hello_read(struct hello *, unsigned char const *s, size_t len,
  size_t *wanted);

#endif
