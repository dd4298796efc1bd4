/* ISC licence: see COPYING. */

/*
  A private key in the hands of the one process that holds it, and what everybody else has in its
  place: a stand-in, with the right public half and 1 for its private half. libtls can check that
  against a certificate, and nobody can sign with it.
*/

#ifndef TLS_CHAIN_KEY_H
#define TLS_CHAIN_KEY_H

#include <stddef.h>

#include <openssl/ec.h>
#include <openssl/rsa.h>

#include "failure.h"

#define KEY_ID_SIZE 32          /* SHA-256 of the public key */
#define KEY_SIGNATURE_MAX 2048  /* bytes: RSA with 16384 bits */
#define KEY_PEM_MAX 4096        /* bytes of a stand-in in PEM */

struct key
{
  unsigned char id[KEY_ID_SIZE];
  RSA *rsa;   /* one of them is null */
  EC_KEY *ec;
};

/*
  Reads the key in the file at path, in PEM (RFC 7468): PKCS #8 (RFC 5958), or the older forms for
  RSA (RFC 8017, A.1.2) and EC (RFC 5915). Writes its stand-in to pem and *len. The key is never
  freed: it goes with the process.
*/
extern int key_load(struct key *, char const *path, char *pem, size_t *len, struct failure *);

/*
  Signs what is to be signed, as libcrypto hands it to a method of a key: for RSA the padding is
  RSA_PKCS1_PADDING, with a DigestInfo, or RSA_NO_PADDING, with an encoded message of PSS (RFC 8017,
  9.1); for EC it is 0, with a digest. Returns the length of the signature, 0 if it is none of that.
*/
extern size_t key_sign(struct key const *, int padding, unsigned char const *, size_t,
  unsigned char signature[KEY_SIGNATURE_MAX]);

/* The id of a public key. Returns 0 if there is no memory for it. */
extern int key_id_of_rsa(unsigned char id[KEY_ID_SIZE], RSA const *);
extern int key_id_of_ec(unsigned char id[KEY_ID_SIZE], EC_KEY const *);

#endif
