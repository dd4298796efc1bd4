/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_HOSTNAME_H
#define TLS_CHAIN_HOSTNAME_H

#define HOSTNAME_MAX 253 /* bytes, without a final dot */

/*
  Copies a host name to to, of HOSTNAME_MAX + 1 bytes, in lower case and without one final dot: the
  form in which a script can compare it, or make a path of it. Returns 0, with an empty copy, if
  it is none (RFC 6066, 3; RFC 1123, 2.1, and the underscore).
*/
extern int hostname_copy(char *to, char const *name);

/* Whether name is an IP address. */
extern int hostname_is_address(char const *name);

#endif
