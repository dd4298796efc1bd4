/* ISC licence: see COPYING. */

/* What is wrong with files in PEM (RFC 7468), where libtls says little or nothing. */

#ifndef TLS_CHAIN_PEM_H
#define TLS_CHAIN_PEM_H

#include <stddef.h>

/*
  Each of these takes the bytes of a file, and returns what is wrong with it in a few words, or null
  if nothing is found.
*/

/* Good certificates, and the key of the first or its stand-in, which libtls refuses together. */
extern char const *pem_fault_in_pair(char const *cert, size_t certlen, char const *key,
  size_t keylen);

/* A private key, before it is decoded. */
extern char const *pem_fault_in_key(char const *, size_t);

/* Certificates that libtls refuses. */
extern char const *pem_fault_in_certs(char const *, size_t);

/* Trust anchors that libtls takes, to trust nobody. alone: there are no others. */
extern char const *pem_fault_in_trust(char const *, size_t, int alone);

/* Revocation lists, which libtls takes whatever is in them, and then verifies nobody. */
extern char const *pem_fault_in_crls(char const *, size_t);

/* A certificate that libtls takes: whether it is of another time. */
extern char const *pem_cert_is_untimely(char const *, size_t);

#endif
