/* ISC licence: see COPYING. */

/*
  Fuzz target for what the signer is asked (CONTRIBUTING tells how to run it).

  The first byte of the input says which key is asked for, as random bytes would not find one: 0
  that of the input, else the EC or the RSA key, whose id is put in. An answer is the signature of
  just what was asked, and there is no second one.
*/

#define OPENSSL_SUPPRESS_DEPRECATED

#include <sys/socket.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/obj_mac.h>

#include <skalibs/socket.h>

#include "../../src/tls/signer.h"

extern int LLVMFuzzerTestOneInput(uint8_t const *, size_t);

enum { KEY_EC, KEY_RSA, KEYS_N };

static struct key keys[KEYS_N];

static void must(int ok)
{
  if (!ok) abort();
}

static void keys_make(void)
{
  BIGNUM *e = BN_new();
  if (keys[KEY_EC].ec) return;
  must(e && BN_set_word(e, RSA_F4));
  must(!!(keys[KEY_EC].ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1)));
  must(EC_KEY_generate_key(keys[KEY_EC].ec) && key_id_of_ec(keys[KEY_EC].id, keys[KEY_EC].ec));
  must(!!(keys[KEY_RSA].rsa = RSA_new()) && RSA_generate_key_ex(keys[KEY_RSA].rsa, 1024, e, 0));
  must(key_id_of_rsa(keys[KEY_RSA].id, keys[KEY_RSA].rsa));
  BN_free(e);
}

static void rsa_check(unsigned char const *asked, size_t len, unsigned char const *s, size_t n)
{
  unsigned char back[KEY_SIGNATURE_MAX];
  RSA *rsa = keys[KEY_RSA].rsa;
  must(n == (size_t)RSA_size(rsa));
  must(asked[0] == RSA_PKCS1_PADDING || asked[0] == RSA_NO_PADDING);
  must(asked[0] != RSA_NO_PADDING || asked[len - 1] == 0xbc);
  int r = RSA_public_decrypt(n, s, back, rsa, asked[0]);
  must(r == (int)(len - SIGN_HEAD) && !memcmp(back, asked + SIGN_HEAD, r));
}

static void ec_check(unsigned char const *asked, size_t len, unsigned char const *s, size_t n)
{
  must(!asked[0]);
  must(ECDSA_verify(0, asked + SIGN_HEAD, len - SIGN_HEAD, s, n, keys[KEY_EC].ec) == 1);
}

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size)
{
  unsigned char asked[2 * SIGN_MAX], s[2 * KEY_SIGNATURE_MAX];
  int fd[2], which = size ? data[0] % (KEYS_N + 1) - 1 : 0;
  if (!size-- || size > sizeof asked) return 0;
  keys_make();
  memcpy(asked, data + 1, size);
  if (which >= 0 && size >= SIGN_HEAD) memcpy(asked + 1, keys[which].id, KEY_ID_SIZE);
  must(socketpair_internal(AF_UNIX, SOCK_SEQPACKET, 0, O_CLOEXEC, fd) == 0);
  must(!signer_answer(fd[1], keys, KEYS_N)); /* nothing has come: it does not wait */
  must(send(fd[0], asked, size, MSG_NOSIGNAL) == (ssize_t)size);
  must(signer_answer(fd[1], keys, KEYS_N));
  ssize_t n = recv(fd[0], s, sizeof s, 0);
  if (n > 0)
  {
    must(size > SIGN_HEAD && size <= SIGN_MAX && n <= KEY_SIGNATURE_MAX);
    if (!memcmp(asked + 1, keys[KEY_RSA].id, KEY_ID_SIZE)) rsa_check(asked, size, s, n);
    else ec_check(asked, size, s, n);
    must(recv(fd[0], s, sizeof s, 0) == 0);
  }
  close(fd[0]);
  return 0;
}
