/* ISC licence: see COPYING. */

/* A peer: libssl, not libtls, as it also has to do what no program of ours would. */

#include <sys/stat.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "world.h"

enum { PATH_SIZE = 64 };

static SSL_CTX *contexts[2]; /* of a client, of a server */
static char dir[] = "/tmp/tls-chain-fuzz.XXXXXX", key_path[PATH_SIZE], cert_path[PATH_SIZE];

static EVP_PKEY *key_new(void)
{
  EVP_PKEY *k = 0;
  EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, 0);
  if (!c || EVP_PKEY_keygen_init(c) != 1
    || EVP_PKEY_CTX_set_ec_paramgen_curve_nid(c, NID_X9_62_prime256v1) != 1
    || EVP_PKEY_keygen(c, &k) != 1) return 0;
  EVP_PKEY_CTX_free(c);
  return k;
}

static X509 *cert_new(EVP_PKEY *k)
{
  X509 *x = X509_new();
  if (!x) return 0;
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -60);
  X509_gmtime_adj(X509_getm_notAfter(x), 86400);
  X509_NAME *name = X509_NAME_new();
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (unsigned char const *)"localhost", -1, -1,
    0);
  X509_set_subject_name(x, name);
  X509_set_issuer_name(x, name);
  X509_NAME_free(name);
  X509_set_pubkey(x, k);
  return X509_sign(x, k, EVP_sha256()) > 0 ? x : 0;
}

static FILE *file_new(char *path, char const *name, char const *variable)
{
  snprintf(path, PATH_SIZE, "%s/%s", dir, name);
  if (setenv(variable, path, 1) < 0) return 0;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  return fd < 0 ? 0 : fdopen(fd, "w");
}

static int files_write(EVP_PKEY *k, X509 *x)
{
  FILE *key = file_new(key_path, "key", "KEYFILE"), *cert = file_new(cert_path, "cert", "CERTFILE");
  if (!key || !cert || !PEM_write_PrivateKey(key, k, 0, 0, 0, 0, 0) || !PEM_write_X509(cert, x))
    return 0;
  int failed = fclose(key) | fclose(cert);
  return !failed;
}

int peer_prepare(void)
{
  EVP_PKEY *k = key_new();
  X509 *x = k ? cert_new(k) : 0;
  if (!x || !mkdtemp(dir) || !files_write(k, x)) return 0;
  for (int i = 0; i < 2; i++)
  {
    contexts[i] = SSL_CTX_new(i ? TLS_server_method() : TLS_client_method());
    if (!contexts[i]) return 0;
    SSL_CTX_set_mode(contexts[i], SSL_MODE_ENABLE_PARTIAL_WRITE
      | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  }
  if (!SSL_CTX_use_certificate(contexts[1], x) || !SSL_CTX_use_PrivateKey(contexts[1], k)) return 0;
  EVP_PKEY_free(k);
  X509_free(x);
  return 1;
}

void peer_files_remove(void)
{
  unlink(key_path);
  unlink(cert_path);
  rmdir(dir);
}

SSL *peer_new(int is_server, int is_tls12, int rfd, int wfd)
{
  int version = is_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION;
  SSL *s = SSL_new(contexts[is_server]);
  if (!s || !SSL_set_min_proto_version(s, version) || !SSL_set_max_proto_version(s, version)
    || !SSL_set_rfd(s, rfd) || !SSL_set_wfd(s, wfd)) return 0;
  if (is_server) SSL_set_accept_state(s);
  else SSL_set_connect_state(s);
  return s;
}

int peer_result(SSL *s, int r)
{
  if (r > 0) return r;
  int e = SSL_get_error(s, r);
  ERR_clear_error();
  if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) return PEER_WAITS;
  return e == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

int peer_update_keys(SSL *s, int with_request)
{
#ifdef SSL_KEY_UPDATE_REQUESTED
  int how = with_request ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
  int r = SSL_key_update(s, how);
  ERR_clear_error();
  return r == 1;
#else
  (void)s, (void)with_request;
  return 0;
#endif
}
