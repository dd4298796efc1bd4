/* ISC licence: see COPYING. */

#define OPENSSL_SUPPRESS_DEPRECATED

#include <sys/socket.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/rsa.h>

#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>
#include <skalibs/socket.h>
#include <skalibs/tai.h>

#include "hooks.h"
#include "key.h"
#include "signer.h"

enum { SIGN_SECONDS = 10 };

static int signing = -1; /* the channel */
static char const *signing_fault;

static size_t signature_fail(char const *fault)
{
  signing_fault = fault;
  hooks_end();
  return 0;
}

/* Has s signed. Returns the length of the signature, which is not more than size; 0 if it fails. */
static size_t signature_get(int padding, unsigned char const *id, unsigned char const *s,
  size_t len, unsigned char *signature, size_t size)
{
  unsigned char m[SIGN_MAX];
  tain limit;
  if (len > SIGN_MAX - SIGN_HEAD) return signature_fail("what is to be signed is too long");
  m[0] = padding;
  memcpy(m + 1, id, KEY_ID_SIZE);
  memcpy(m + SIGN_HEAD, s, len);
  if (signing < 0 || fd_send(signing, (char *)m, SIGN_HEAD + len, MSG_NOSIGNAL) < 0)
    return signature_fail("the signer is gone");
  tain_now_g();
  tain_addsec_g(&limit, SIGN_SECONDS);
  iopause_fd x = { .fd = signing, .events = IOPAUSE_READ };
  if (iopause_g(&x, 1, &limit) <= 0) return signature_fail("the signer does not answer");
  ssize_t n = fd_recv(signing, (char *)signature, size, 0);
  if (n <= 0) return signature_fail("the signer has not signed");
  hooks_end();
  return n;
}

static int hook_rsa_sign(int len, unsigned char const *s, unsigned char *signature, RSA *rsa,
  int padding)
{
  unsigned char id[KEY_ID_SIZE];
  if (len < 0 || !key_id_of_rsa(id, rsa)) return -1;
  size_t n = signature_get(padding, id, s, len, signature, RSA_size(rsa));
  return n == (size_t)RSA_size(rsa) ? (int)n : -1;
}

/* RFC 5246, 7.4.7.1. Who may decrypt could do so with any session that he has recorded. */
static int hook_rsa_decrypt(int len, unsigned char const *s, unsigned char *to, RSA *rsa,
  int padding)
{
  (void)len, (void)s, (void)to, (void)rsa, (void)padding;
  signature_fail("RSA key transport is not served: take a cipher with ECDHE");
  return -1;
}

static int hook_ec_sign(int type, unsigned char const *s, int len, unsigned char *signature,
  unsigned int *siglen, BIGNUM const *kinv, BIGNUM const *r, EC_KEY *ec)
{
  unsigned char id[KEY_ID_SIZE];
  (void)type, (void)kinv, (void)r;
  if (len < 0 || !key_id_of_ec(id, ec)) return 0;
  *siglen = signature_get(0, id, s, len, signature, ECDSA_size(ec));
  return !!*siglen;
}

int hooks_set(void)
{
  RSA_METHOD *rsa = RSA_meth_dup(RSA_PKCS1_OpenSSL());
  EC_KEY_METHOD *ec = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
  if (!rsa || !ec || !RSA_meth_set_priv_enc(rsa, &hook_rsa_sign)
    || !RSA_meth_set_priv_dec(rsa, &hook_rsa_decrypt)) return 0;
  EC_KEY_METHOD_set_sign(ec, &hook_ec_sign, 0, 0);
  RSA_set_default_method(rsa);
  EC_KEY_set_default_method(ec);
  return 1;
}

void hooks_use(int channel)
{
  signing = channel;
}

void hooks_end(void)
{
  if (signing >= 0) fd_close(signing);
  signing = -1;
}

char const *hooks_fault(void)
{
  return signing_fault;
}
