/* ISC licence: see COPYING. */

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/iopause.h>
#include <skalibs/types.h>
#include <skalibs/uint64.h>

#include "facts.h"
#include "../session/hostname.h"

/* Writes a number at *s, and moves *s behind it. */
static char const *number_write(char **s, int64_t n)
{
  char *p = *s;
  *s += int64_fmt(*s, n);
  *(*s)++ = 0;
  return p;
}

/* A time before 1970 is negative; -1 is libtls's word for one that it cannot tell. */
static char const *time_write(char **s, time_t t)
{
  return t == -1 ? 0 : number_write(s, t);
}

static void facts_of_peer(struct session_facts *f, struct tls *tls, char **s)
{
  f->value[FACT_PEER_HASH] = tls_peer_cert_hash(tls);
  f->value[FACT_PEER_SUBJECT] = tls_peer_cert_subject(tls);
  f->value[FACT_PEER_ISSUER] = tls_peer_cert_issuer(tls);
  f->value[FACT_PEER_NOTBEFORE] = time_write(s, tls_peer_cert_notbefore(tls));
  f->value[FACT_PEER_NOTAFTER] = time_write(s, tls_peer_cert_notafter(tls));
}

/* A part of a name, the first if there are several. One that would have to be cut is nobody's. */
static char const *part_write(char **s, X509_NAME const *name, int nid)
{
  unsigned char *text = 0;
  char *p = *s;
  int i = X509_NAME_get_index_by_NID(name, nid, -1);
  if (i < 0) return 0;
  int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
  int is_whole = len > 0 && len <= SESSION_FACT_MAX && !memchr(text, 0, len);
  if (is_whole)
  {
    memcpy(p, text, len);
    p[len] = 0;
    *s += len + 1;
  }
  OPENSSL_free(text);
  return is_whole ? p : 0;
}

/*
  By the names of mod_ssl, for applications that let a client relay by its certificate. Parts are
  taken from the certificate: in the one line of libtls, /CN= may be part of another part.
*/
static void facts_of_client(struct session_facts *f, struct tls *tls, char **s)
{
  size_t len = 0;
  f->value[FACT_CLIENT_VERIFY] = "NONE";
  char const *pem = (char const *)tls_peer_cert_chain_pem(tls, &len);
  BIO *b = pem ? BIO_new_mem_buf(pem, len) : 0;
  X509 *x = b ? PEM_read_bio_X509(b, 0, 0, 0) : 0;
  if (x)
  {
    X509_NAME const *name = X509_get_subject_name(x);
    char const *dn = tls_peer_cert_subject(tls);
    f->value[FACT_CLIENT_VERIFY] = "SUCCESS"; /* libtls lets in no other */
    if (dn && strlen(dn) <= SESSION_FACT_MAX) f->value[FACT_CLIENT_DN] = dn;
    f->value[FACT_CLIENT_CN] = part_write(s, name, NID_commonName);
    f->value[FACT_CLIENT_EMAIL] = part_write(s, name, NID_pkcs9_emailAddress);
  }
  X509_free(x);
  BIO_free(b);
  ERR_clear_error(); /* a text that is none in UTF-8 leaves one, as in pem.c */
}

int facts_fill(struct session_facts *f, struct tls *tls, int server, char *s, struct failure *why)
{
  char const *name = tls_conn_servername(tls);
  *f = (struct session_facts){ 0 };
  f->value[FACT_PROTOCOL] = tls_conn_version(tls);
  f->value[FACT_CIPHER] = tls_conn_cipher(tls);
  f->value[FACT_ALPN] = tls_conn_alpn_selected(tls);
  f->value[FACT_RESUMED] = tls_conn_session_resumed(tls) ? "Resumed" : "Initial";
  if (name && *name && !hostname_is_address(name)) /* RFC 6066 has no addresses sent */
  {
    if (!hostname_copy(s, name)) return failure_set(why, EXIT_HANDSHAKE,
      "the client sent a server name that is not a host name");
    f->value[FACT_SERVERNAME] = s;
    s += strlen(s) + 1;
  }
  int bits = tls_conn_cipher_strength(tls);
  if (bits > 0) f->value[FACT_KEYSIZE] = number_write(&s, bits);
  if (bits == 128 || bits == 256) f->value[FACT_ALGKEYSIZE] = f->value[FACT_KEYSIZE];
  if (server) facts_of_client(f, tls, &s);
  if (tls_peer_cert_provided(tls)) facts_of_peer(f, tls, &s);
  for (int i = 0; i < SESSION_FACTS_N; i++)
    if (f->value[i] && !session_text_is_clean(f->value[i])) f->value[i] = 0;
  return (f->value[FACT_PROTOCOL] && f->value[FACT_CIPHER])
    || failure_set(why, EXIT_HANDSHAKE, "libtls does not know the protocol or the cipher");
}

int facts_write_chain(struct tls *tls, int fd, struct failure *why)
{
  size_t len = 0;
  char const *pem = (char const *)tls_peer_cert_chain_pem(tls, &len);
  int ok = 1;
  if (!pem) len = 0;
  while (ok && len)
  {
    /* A pipe that poll calls writable takes PIPE_BUF bytes without waiting, flag or no flag. */
    iopause_fd x = { .fd = fd, .events = IOPAUSE_WRITE };
    if (iopause_g(&x, 1, &STAMP) <= 0)
    {
      ok = failure_set(why, EXIT_HANDSHAKE, "no room for the peer's certificates");
      break;
    }
    ssize_t n = fd_write(fd, pem, len < PIPE_BUF ? len : PIPE_BUF);
    if (n < 0) ok = failure_set(why, EXIT_HANDSHAKE, "unable to write the peer's certificates");
    else pem += n, len -= n;
  }
  close(fd);
  return ok;
}
