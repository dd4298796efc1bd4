/* ISC licence: see COPYING. */

/* What is wrong with files in PEM (RFC 7468), where libtls says little or nothing. */

#ifndef TLS_CHAIN_PEM_H
#define TLS_CHAIN_PEM_H

#include <stddef.h>

/*
  Each of these takes the bytes of a file, and returns what is wrong with it in a few words, or null
  if nothing is found.
*/

/* A certificate, with those that lead to its authority, and a key, which libtls refuses. */
extern char const *pem_fault_in_pair(char const *cert, size_t certlen, char const *key,
  size_t keylen);

/* Trust anchors that libtls refuses. */
extern char const *pem_fault_in_anchors(char const *, size_t);

/* Trust anchors that libtls takes, to trust nobody. alone: there are no others. */
extern char const *pem_fault_in_trust(char const *, size_t, int alone);

/* Revocation lists, which libtls takes whatever is in them, and then verifies nobody. */
extern char const *pem_fault_in_crls(char const *, size_t);

/* A certificate that libtls takes: whether it is of another time. */
extern char const *pem_cert_is_untimely(char const *, size_t);

#endif
