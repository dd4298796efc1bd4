/* ISC licence: see COPYING. */

#define OPENSSL_SUPPRESS_DEPRECATED /* LibreSSL has no other way to redirect a signature */

#include <string.h>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include "file.h"
#include "key.h"
#include "pem.h"

enum { POINT_MAX = 256, DER_MAX = 3000 };

static char const kinds[] = "a kind of private key that cannot be kept out of the process that"
  " reads the network (Ed25519 is one): take an EC key, on P-256, or an RSA key";

int key_id_of_rsa(unsigned char id[KEY_ID_SIZE], RSA const *rsa)
{
  unsigned char *der = 0;
  int n = i2d_RSAPublicKey(rsa, &der);
  if (n <= 0) return 0;
  SHA256(der, n, id);
  OPENSSL_free(der);
  return 1;
}

int key_id_of_ec(unsigned char id[KEY_ID_SIZE], EC_KEY const *ec)
{
  unsigned char s[POINT_MAX];
  EC_GROUP const *group = EC_KEY_get0_group(ec);
  EC_POINT const *point = EC_KEY_get0_public_key(ec);
  size_t n = group && point
    ? EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, s, sizeof s, 0) : 0;
  if (n) SHA256(s, n, id);
  return !!n;
}

/* The stand-in for an RSA key, the caller's, or null. */
static RSA *rsa_standin(RSA const *rsa)
{
  BIGNUM const *n, *e;
  RSA *r = RSA_new();
  RSA_get0_key(rsa, &n, &e, 0);
  int ok = r && RSA_set0_key(r, BN_dup(n), BN_dup(e), BN_dup(BN_value_one()))
    && RSA_set0_factors(r, BN_dup(BN_value_one()), BN_dup(BN_value_one()))
    && RSA_set0_crt_params(r, BN_dup(BN_value_one()), BN_dup(BN_value_one()),
      BN_dup(BN_value_one()));
  if (ok) return r;
  RSA_free(r);
  return 0;
}

static EC_KEY *ec_standin(EC_KEY const *ec)
{
  EC_KEY *e = EC_KEY_new();
  if (e && EC_KEY_set_group(e, EC_KEY_get0_group(ec))
    && EC_KEY_set_public_key(e, EC_KEY_get0_public_key(ec))
    && EC_KEY_set_private_key(e, BN_value_one()))
    return e;
  EC_KEY_free(e);
  return 0;
}

/* Writes DER as PEM. */
static int pem_put(char *pem, size_t *len, char const *name, unsigned char const *der, long n)
{
  char *s;
  BIO *b = BIO_new(BIO_s_mem());
  int ok = b && n > 0 && PEM_write_bio(b, name, "", der, n) > 0;
  long all = ok ? BIO_get_mem_data(b, &s) : 0;
  ok = all > 0 && all <= KEY_PEM_MAX;
  if (ok) memcpy(pem, s, *len = all);
  BIO_free(b);
  return ok;
}

/* A key for RSASSA-PSS only (RFC 4055) is that by its algorithm, which PKCS #8 alone can tell. */
static int pss_put(char *pem, size_t *len, PKCS8_PRIV_KEY_INFO *p8, unsigned char const *der,
  int n)
{
  unsigned char out[DER_MAX], *s = out, *copy;
  X509_ALGOR const *algorithm;
  ASN1_OBJECT const *object;
  void const *parameter;
  int type;
  if (!PKCS8_pkey_get0(0, 0, 0, &algorithm, p8)) return 0;
  X509_ALGOR_get0(&object, &type, &parameter, algorithm);
  ASN1_STRING *p = type == V_ASN1_SEQUENCE ? ASN1_STRING_dup(parameter) : 0;
  if (!(copy = OPENSSL_malloc(n))) return 0;
  memcpy(copy, der, n);
  p8 = PKCS8_PRIV_KEY_INFO_new();
  int ok = p8 && PKCS8_pkey_set0(p8, OBJ_dup(object), 0, p ? type : V_ASN1_UNDEF, p, copy, n)
    && i2d_PKCS8_PRIV_KEY_INFO(p8, 0) <= DER_MAX;
  if (ok) ok = pem_put(pem, len, "PRIVATE KEY", out, i2d_PKCS8_PRIV_KEY_INFO(p8, &s));
  PKCS8_PRIV_KEY_INFO_free(p8);
  return ok;
}

/* p8 is null, or where the key is from. */
static int standin_put(struct key const *k, PKCS8_PRIV_KEY_INFO *p8, char *pem, size_t *len)
{
  unsigned char *der = 0;
  ASN1_OBJECT const *object;
  RSA *rsa = k->rsa ? rsa_standin(k->rsa) : 0;
  EC_KEY *ec = k->ec ? ec_standin(k->ec) : 0;
  int n = rsa ? i2d_RSAPrivateKey(rsa, &der) : ec ? i2d_ECPrivateKey(ec, &der) : 0;
  int is_pss = rsa && p8 && PKCS8_pkey_get0(&object, 0, 0, 0, p8)
    && OBJ_obj2nid(object) == NID_rsassaPss;
  int ok = is_pss ? n > 0 && pss_put(pem, len, p8, der, n)
    : pem_put(pem, len, rsa ? "RSA PRIVATE KEY" : "EC PRIVATE KEY", der, n);
  OPENSSL_free(der);
  RSA_free(rsa);
  EC_KEY_free(ec);
  return ok;
}

/* The curve stands in PKCS #8 beside the key. */
static EC_KEY *ec_decode(X509_ALGOR const *algorithm, unsigned char const *s, long len)
{
  int type;
  void const *curve;
  X509_ALGOR_get0(0, &type, &curve, algorithm);
  EC_GROUP *group = type == V_ASN1_OBJECT ? EC_GROUP_new_by_curve_name(OBJ_obj2nid(curve)) : 0;
  EC_KEY *ec = EC_KEY_new(), *got = 0;
  if (group && ec && EC_KEY_set_group(ec, group)) got = d2i_ECPrivateKey(&ec, &s, len);
  if (!got) EC_KEY_free(ec);
  EC_GROUP_free(group);
  return got;
}

/* Both return 0, and may set *fault. */
static int pkcs8_decode(struct key *k, unsigned char const *der, long len, char *pem,
  size_t *pemlen, char const **fault)
{
  unsigned char const *s;
  int n, ok = 0;
  ASN1_OBJECT const *object;
  X509_ALGOR const *algorithm;
  PKCS8_PRIV_KEY_INFO *p8 = d2i_PKCS8_PRIV_KEY_INFO(0, &der, len);
  if (p8 && PKCS8_pkey_get0(&object, &s, &n, &algorithm, p8))
  {
    int kind = OBJ_obj2nid(object);
    if (kind == NID_rsaEncryption || kind == NID_rsassaPss) k->rsa = d2i_RSAPrivateKey(0, &s, n);
    else if (kind == NID_X9_62_id_ecPublicKey) k->ec = ec_decode(algorithm, s, n);
    else *fault = kinds;
    ok = standin_put(k, p8, pem, pemlen);
  }
  PKCS8_PRIV_KEY_INFO_free(p8);
  return ok;
}

static int key_decode(struct key *k, char const *name, unsigned char const *der, long len,
  char *pem, size_t *pemlen, char const **fault)
{
  if (!strcmp(name, "PRIVATE KEY")) return pkcs8_decode(k, der, len, pem, pemlen, fault);
  if (!strcmp(name, "RSA PRIVATE KEY")) k->rsa = d2i_RSAPrivateKey(0, &der, len);
  else if (!strcmp(name, "EC PRIVATE KEY")) k->ec = d2i_ECPrivateKey(0, &der, len);
  else *fault = kinds;
  return standin_put(k, 0, pem, pemlen);
}

/* The first block that is a private key; a file may have parameters and certificates beside it. */
static int key_find(struct key *k, BIO *b, char *pem, size_t *pemlen, char const **fault)
{
  char *name, *header;
  unsigned char *der;
  long len;
  int found = 0, ok = 0;
  while (!found && PEM_read_bio(b, &name, &header, &der, &len) == 1)
  {
    found = !!strstr(name, "PRIVATE KEY");
    if (found) ok = key_decode(k, name, der, len, pem, pemlen, fault);
    OPENSSL_cleanse(der, len);
    OPENSSL_free(der);
    OPENSSL_free(header);
    OPENSSL_free(name);
  }
  ERR_clear_error();
  return ok;
}

int key_load(struct key *k, char const *path, char *pem, size_t *len, struct failure *why)
{
  struct file f;
  *k = (struct key){ .rsa = 0 };
  if (!file_load(&f, "KEYFILE", path, why)) return 0;
  char const *fault = pem_fault_in_key((char *)f.s, f.len);
  BIO *b = fault ? 0 : BIO_new_mem_buf(f.s, f.len);
  int ok = b && key_find(k, b, pem, len, &fault)
    && (k->rsa ? key_id_of_rsa(k->id, k->rsa) : key_id_of_ec(k->id, k->ec));
  BIO_free(b);
  file_unload(&f);
  return ok || failure_set(why, EXIT_TLS_CONFIG, "unable to use KEYFILE ", path, ": ",
    fault ? fault : "the private key cannot be read");
}

/*
  What may be asked of an RSA key: a bare operation on anything would be a decryption as well. The
  last byte of an encoded message of PSS is 0xbc, and it is as long as the key.
*/
static int may_sign(RSA const *rsa, int padding, unsigned char const *s, size_t len)
{
  return padding == RSA_PKCS1_PADDING
    || (padding == RSA_NO_PADDING && len == (size_t)RSA_size(rsa) && s[len - 1] == 0xbc);
}

size_t key_sign(struct key const *k, int padding, unsigned char const *s, size_t len,
  unsigned char signature[KEY_SIGNATURE_MAX])
{
  unsigned int n = 0;
  if (k->rsa && len && may_sign(k->rsa, padding, s, len) && RSA_size(k->rsa) <= KEY_SIGNATURE_MAX)
  {
    int r = RSA_private_encrypt(len, s, signature, k->rsa, padding);
    n = r > 0 ? r : 0;
  }
  if (k->ec && !padding && ECDSA_size(k->ec) <= KEY_SIGNATURE_MAX
    && !ECDSA_sign(0, s, len, signature, &n, k->ec)) n = 0;
  ERR_clear_error();
  return n;
}
