/* ISC licence: see COPYING. */

/* The signer: what it signs, and what whoever has a channel cannot have of it. */

#define OPENSSL_SUPPRESS_DEPRECATED

#include <sys/socket.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <skalibs/djbunix.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>

#include "../../src/tls/signer.h"

enum { DIGEST = 32 };

static struct
{
  EVP_PKEY *public; /* of the stand-in, which is all that we have */
  unsigned char id[KEY_ID_SIZE];
} ec, rsa;

static unsigned char const digest[DIGEST + 1] = "what TLS has to be signed.......";

static EVP_PKEY *standin_read(char const *variable)
{
  struct file const *f = signer_standin(getenv(variable));
  assert_non_null(f);
  BIO *b = BIO_new_mem_buf(f->s, f->len);
  EVP_PKEY *key = PEM_read_bio_PrivateKey(b, 0, 0, 0);
  BIO_free(b);
  assert_non_null(key);
  return key;
}

static int signer_prepare(void **state)
{
  char const *paths[] = { getenv("EC"), getenv("RSA") };
  struct failure why;
  (void)state;
  tain_now_set_stopwatch_g();
  if (!signer_start(paths, 2, &why)) fail_msg("%s", why.reason);
  ec.public = standin_read("EC");
  rsa.public = standin_read("RSA");
  assert_true(key_id_of_ec(ec.id, EVP_PKEY_get0_EC_KEY(ec.public)));
  assert_true(key_id_of_rsa(rsa.id, EVP_PKEY_get0_RSA(rsa.public)));
  return 0;
}

static int channel_open(void)
{
  int fd = signer_open(1);
  assert_true(fd >= 0);
  return fd;
}

static void ask(int fd, int padding, unsigned char const *id, void const *s, size_t len)
{
  unsigned char m[2 * SIGN_MAX] = { padding };
  memcpy(m + 1, id, KEY_ID_SIZE);
  if (len) memcpy(m + SIGN_HEAD, s, len);
  assert_int_equal(send(fd, m, SIGN_HEAD + len, MSG_NOSIGNAL), SIGN_HEAD + len);
}

/* The length of the answer; 0 if the channel is closed without one. */
static size_t answer(int fd, unsigned char *s)
{
  ssize_t n = recv(fd, s, KEY_SIGNATURE_MAX, 0);
  return n < 0 ? 0 : n;
}

static void is_refused(int padding, unsigned char const *id, void const *s, size_t len)
{
  unsigned char signature[KEY_SIGNATURE_MAX];
  int fd = channel_open();
  ask(fd, padding, id, s, len);
  assert_int_equal(answer(fd, signature), 0);
  fd_close(fd);
}

static void ec_is_signed(int fd)
{
  unsigned char signature[KEY_SIGNATURE_MAX];
  ask(fd, 0, ec.id, digest, DIGEST);
  size_t n = answer(fd, signature);
  assert_true(n > 0);
  EC_KEY *key = (EC_KEY *)EVP_PKEY_get0_EC_KEY(ec.public);
  assert_int_equal(ECDSA_verify(0, digest, DIGEST, signature, n, key), 1);
}

/* An encoded message of PSS, as far as the signer looks at it. */
static size_t pss_make(unsigned char *s)
{
  size_t n = EVP_PKEY_size(rsa.public);
  memset(s, 1, n);
  s[0] = 0;
  s[n - 1] = 0xbc;
  return n;
}

static void signs_once(void **state)
{
  unsigned char s[KEY_SIGNATURE_MAX];
  int fd = channel_open();
  (void)state;
  ec_is_signed(fd);
  assert_int_equal(answer(fd, s), 0); /* it is closed */
  assert_int_equal(send(fd, digest, DIGEST, MSG_NOSIGNAL), -1);
  fd_close(fd);
}

static void signs_with_each_key(void **state)
{
  unsigned char s[KEY_SIGNATURE_MAX], signature[KEY_SIGNATURE_MAX], back[KEY_SIGNATURE_MAX];
  RSA const *key = EVP_PKEY_get0_RSA(rsa.public);
  size_t size = pss_make(s);
  (void)state;
  int fd = channel_open();
  ask(fd, RSA_NO_PADDING, rsa.id, s, size);
  assert_int_equal(answer(fd, signature), size);
  assert_int_equal(RSA_public_decrypt(size, signature, back, (RSA *)key, RSA_NO_PADDING), size);
  assert_memory_equal(back, s, size);
  fd_close(fd);
  fd = channel_open();
  ask(fd, RSA_PKCS1_PADDING, rsa.id, digest, DIGEST);
  assert_int_equal(answer(fd, signature), size);
  assert_int_equal(RSA_public_decrypt(size, signature, back, (RSA *)key, RSA_PKCS1_PADDING),
    DIGEST);
  fd_close(fd);
  fd = channel_open();
  ec_is_signed(fd);
  fd_close(fd);
}

static void standin_cannot_sign(void **state)
{
  struct key k = { .ec = (EC_KEY *)EVP_PKEY_get0_EC_KEY(ec.public) };
  unsigned char s[KEY_SIGNATURE_MAX];
  (void)state;
  size_t n = key_sign(&k, 0, digest, DIGEST, s);
  assert_int_not_equal(ECDSA_verify(0, digest, DIGEST, s, n, k.ec), 1);
}

static void refuses_what_is_no_signature(void **state)
{
  unsigned char s[2 * SIGN_MAX], other[KEY_ID_SIZE];
  size_t size = pss_make(s);
  (void)state;
  memcpy(other, ec.id, sizeof other);
  other[0] ^= 1;
  is_refused(0, other, digest, DIGEST);         /* a key that it does not have */
  is_refused(0, ec.id, digest, 0);              /* nothing to sign */
  is_refused(1, ec.id, digest, DIGEST);         /* the padding of another kind of key */
  is_refused(0, rsa.id, digest, DIGEST);
  is_refused(RSA_NO_PADDING, rsa.id, s, size - 1);
  s[size - 1] = 0x02;                           /* what could be a ciphertext */
  is_refused(RSA_NO_PADDING, rsa.id, s, size);
  is_refused(RSA_PKCS1_OAEP_PADDING, rsa.id, digest, DIGEST);
  memset(s, 0xbc, sizeof s);
  is_refused(RSA_PKCS1_PADDING, rsa.id, s, size - 10); /* too long for the padding */
  is_refused(0, ec.id, s, SIGN_MAX - SIGN_HEAD + 1);   /* too large */
  is_refused(RSA_PKCS1_PADDING, rsa.id, s, 2 * SIGN_MAX - SIGN_HEAD);
}

static void refuses_half_a_request(void **state)
{
  unsigned char s[KEY_SIGNATURE_MAX];
  (void)state;
  for (size_t n = 0; n <= SIGN_HEAD; n += SIGN_HEAD / 3)
  {
    int fd = channel_open();
    assert_int_equal(send(fd, ec.id, n < KEY_ID_SIZE ? n : KEY_ID_SIZE, MSG_NOSIGNAL) < 0, 0);
    assert_int_equal(answer(fd, s), 0);
    fd_close(fd);
  }
}

/* Many that say nothing, and one that says too much, keep nobody from a signature. */
static void waits_for_nobody(void **state)
{
  enum { N = 200 };
  int silent[N];
  (void)state;
  for (int i = 0; i < N; i++) silent[i] = channel_open();
  int flood = channel_open();
  fcntl(flood, F_SETFL, O_NONBLOCK);
  for (int i = 0; i < 1000; i++)
    if (send(flood, digest, DIGEST, MSG_NOSIGNAL) < 0 && errno == EPIPE) break;
  int fd = channel_open();
  ec_is_signed(fd);
  fd_close(fd);
  ec_is_signed(silent[N - 1]);
  for (int i = 0; i < N; i++) fd_close(silent[i]);
  fd_close(flood);
}

/* The last test: the door is closed. */
static void ends_with_the_last_channel(void **state)
{
  int wstat, fd = channel_open();
  (void)state;
  signer_leave();
  ec_is_signed(fd);
  fd_close(fd);
  assert_int_equal(waitpid(signer_pid(), &wstat, 0), signer_pid());
  assert_true(WIFEXITED(wstat) && !WEXITSTATUS(wstat));
  assert_int_equal(signer_open(1), -1);
}

int main(void)
{
  struct CMUnitTest const tests[] =
  {
    cmocka_unit_test(signs_once),
    cmocka_unit_test(signs_with_each_key),
    cmocka_unit_test(standin_cannot_sign),
    cmocka_unit_test(refuses_what_is_no_signature),
    cmocka_unit_test(refuses_half_a_request),
    cmocka_unit_test(waits_for_nobody),
    cmocka_unit_test(ends_with_the_last_channel),
  };
  PROG = "signer";
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, &signer_prepare, 0);
}
