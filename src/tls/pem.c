/* ISC licence: see COPYING. */

#include <string.h>
#include <time.h>

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <skalibs/bytestr.h>

#include "pem.h"

static size_t count_of(char const *s, size_t len, char const *what)
{
  size_t n = strlen(what), found = 0;
  for (;;)
  {
    size_t i = len < n ? len : byte_search(s, len, what, n);
    if (i + n > len) return found;
    found++;
    s += i + n;
    len -= i + n;
  }
}

/* A SEQUENCE, by its first bytes: a long one, or a short one that is all there is. */
static int is_in_der(char const *s, size_t len)
{
  return len > 1 && s[0] == 0x30 && (s[1] & 0x80 || (size_t)s[1] + 2 == len);
}

/* What there is instead of a begin line, in a file that should have one. */
static char const *fault_of_form(char const *s, size_t len, char const *what, char const *otherwise)
{
  char end[64] = "-----END ";
  if (is_in_der(s, len)) return "it is in DER, not in PEM";
  if (count_of(s, len, "-----BEGIN PKCS7-----")) return "it is in PKCS #7, not in PEM blocks";
  if (!count_of(s, len, what)) return otherwise;
  strcat(end, what + strlen("-----BEGIN "));
  return count_of(s, len, what) > count_of(s, len, end) ? "it is cut off in a PEM block" : 0;
}

static X509 *cert_next(BIO *b)
{
  X509 *x = PEM_read_bio_X509(b, 0, 0, 0);
  ERR_clear_error();
  return x;
}

/* Which certificate of a file the key belongs to, counted from 0; -1 if to none. */
static int cert_of_key(BIO *b, EVP_PKEY *key)
{
  int found = -1;
  X509 *x;
  for (int i = 0; found < 0 && (x = cert_next(b)); i++)
  {
    if (X509_check_private_key(x, key) == 1) found = i;
    X509_free(x);
  }
  ERR_clear_error();
  return found;
}

static char const *fault_of_match(BIO *cert, BIO *keys)
{
  char const *fault = 0;
  EVP_PKEY *key = PEM_read_bio_PrivateKey(keys, 0, 0, 0);
  ERR_clear_error();
  if (!key) return "the private key cannot be used";
  int i = cert_of_key(cert, key);
  if (i > 0) fault = "the key's certificate is not the first one: put it before its authority's";
  if (i < 0) fault = "the key is not that of the certificate";
  if (!i && EVP_PKEY_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_bits(key) < 2048)
    fault = "the RSA key is too short: it takes 2048 bits or more";
  EVP_PKEY_free(key);
  return fault;
}

char const *pem_fault_in_pair(char const *cert, size_t certlen, char const *key, size_t keylen)
{
  char const *fault = 0;
  BIO *b = BIO_new_mem_buf(cert, certlen), *k = BIO_new_mem_buf(key, keylen);
  if (b && k) fault = fault_of_match(b, k);
  BIO_free(b);
  BIO_free(k);
  return fault;
}

char const *pem_fault_in_key(char const *s, size_t len)
{
  if (is_in_der(s, len)) return "it is in DER, not in PEM";
  if (count_of(s, len, "ENCRYPTED"))
    return "the private key is encrypted: store it without a passphrase (openssl pkey)";
  if (!count_of(s, len, "PRIVATE KEY-----")) return "there is no private key in PEM in it";
  return count_of(s, len, "PRIVATE KEY-----") & 1 ? "it is cut off in a PEM block" : 0;
}

char const *pem_fault_in_certs(char const *s, size_t len)
{
  char const begin[] = "-----BEGIN CERTIFICATE-----";
  char const *fault = fault_of_form(s, len, begin, "there is no certificate in PEM in it");
  if (fault) return fault;
  size_t n = 0;
  X509 *x;
  BIO *b = BIO_new_mem_buf(s, len);
  for (; b && (x = cert_next(b)); n++) X509_free(x);
  BIO_free(b);
  return b && n < count_of(s, len, begin) ? "a certificate in it cannot be read" : 0;
}

static int has_cert(char const *s, size_t len)
{
  static char const text[] = " CERTIFICATE-----"; /* of OpenSSL's three kinds */
  size_t n = sizeof text - 1;
  return len >= n && byte_search(s, len, text, n) + n <= len;
}

/* Whether a way can end here; in what a system trusts it is the first that is looked at. */
static int has_root(char const *s, size_t len)
{
  int found = 0;
  X509 *x;
  BIO *b = BIO_new_mem_buf(s, len);
  while (b && !found && (x = PEM_read_bio_X509_AUX(b, 0, 0, 0)))
  {
    found = X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
    X509_free(x);
  }
  BIO_free(b);
  ERR_clear_error();
  return found;
}

char const *pem_fault_in_trust(char const *s, size_t len, int alone)
{
  int ok = has_cert(s, len);
  if (ok && (!alone || has_root(s, len))) return 0;
  char const *fault = pem_fault_in_certs(s, len);
  return fault || !ok ? fault : "it has no root certificate: add that of the authority on top";
}

char const *pem_fault_in_crls(char const *s, size_t len)
{
  return fault_of_form(s, len, "-----BEGIN X509 CRL-----", "there is no CRL in PEM in it");
}

/* What a length of DER is to be moved over: its head only, or all of it. */
enum der_step
{
  DER_ENTER,
  DER_SKIP,
};

/* Moves *s over one object, which ends before end. Returns its tag, or -1 if there is none. */
static int der_next(unsigned char const **s, unsigned char const *end, enum der_step step)
{
  long len;
  int tag, class;
  if (*s >= end || ASN1_get_object(s, &len, &tag, &class, end - *s) & 0x80) return -1;
  if (step == DER_SKIP) *s += len;
  return class == V_ASN1_UNIVERSAL ? tag : 0x100 + tag;
}

/*
  RFC 5280, 4.1: the certificate, what is signed of it, a version that may be left out, the serial
  number, the algorithm, the issuer, and then the two times. To have libcrypto make an X509 of it,
  with its key, costs a session 5 %.
*/
static int der_find_times(unsigned char const **s, unsigned char const *end)
{
  unsigned char const *at;
  if (der_next(s, end, DER_ENTER) < 0 || der_next(s, end, DER_ENTER) < 0) return 0;
  at = *s;
  if (der_next(&at, end, DER_SKIP) == 0x100) *s = at;
  return der_next(s, end, DER_SKIP) == V_ASN1_INTEGER && der_next(s, end, DER_SKIP) >= 0
    && der_next(s, end, DER_SKIP) >= 0 && der_next(s, end, DER_ENTER) == V_ASN1_SEQUENCE;
}

static char const *der_is_untimely(unsigned char const *s, long len)
{
  unsigned char const *end = s + len;
  char const *fault = 0;
  if (!der_find_times(&s, end)) return 0;
  ASN1_TIME *from = d2i_ASN1_TIME(0, &s, end - s);
  ASN1_TIME *to = from ? d2i_ASN1_TIME(0, &s, end - s) : 0;
  if (to && X509_cmp_current_time(to) < 0) fault = "has expired";
  else if (to && X509_cmp_current_time(from) > 0) fault = "is not valid yet";
  ASN1_TIME_free(from);
  ASN1_TIME_free(to);
  return fault;
}

char const *pem_cert_is_untimely(char const *s, size_t len)
{
  char const *fault = 0;
  char *name = 0, *header = 0;
  unsigned char *der = 0;
  long n;
  BIO *b = BIO_new_mem_buf(s, len);
  if (b && PEM_read_bio(b, &name, &header, &der, &n) == 1) fault = der_is_untimely(der, n);
  BIO_free(b);
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_free(der);
  ERR_clear_error();
  return fault;
}
