/* ISC licence: see COPYING. */

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/iopause.h>
#include <skalibs/types.h>
#include <skalibs/uint64.h>

#include "engine.h"

static char const *fmt(char **s, uint64_t n)
{
  char *p = *s;
  *s += uint64_fmt(*s, n);
  *(*s)++ = 0;
  return p;
}

static void peer(struct session_facts *f, struct tls *tls, char **s)
{
  f->value[FACT_PEER_HASH] = tls_peer_cert_hash(tls);
  f->value[FACT_PEER_SUBJECT] = tls_peer_cert_subject(tls);
  f->value[FACT_PEER_ISSUER] = tls_peer_cert_issuer(tls);
  f->value[FACT_PEER_NOTBEFORE] = fmt(s, tls_peer_cert_notbefore(tls));
  f->value[FACT_PEER_NOTAFTER] = fmt(s, tls_peer_cert_notafter(tls));
}

char const *facts_fill(struct session_facts *f, struct tls *tls, char *s)
{
  char const *name = tls_conn_servername(tls);
  *f = (struct session_facts){ 0 };
  f->value[FACT_PROTOCOL] = tls_conn_version(tls);
  f->value[FACT_CIPHER] = tls_conn_cipher(tls);
  f->value[FACT_ALPN] = tls_conn_alpn_selected(tls);
  f->value[FACT_RESUMED] = tls_conn_session_resumed(tls) ? "Resumed" : "Initial";
  if (name && *name && !is_address(name)) /* RFC 6066 has no addresses sent */
  {
    if (!hostname_copy(s, name)) return "the client sent a server name that is no host name";
    f->value[FACT_SERVERNAME] = s;
    s += strlen(s) + 1;
  }
  int bits = tls_conn_cipher_strength(tls);
  if (bits > 0) f->value[FACT_KEYSIZE] = fmt(&s, bits);
  if (tls_peer_cert_provided(tls)) peer(f, tls, &s);
  for (int i = 0; i < SESSION_FACTS_N; i++)
    if (f->value[i] && !session_text_is_clean(f->value[i])) f->value[i] = 0;
  return f->value[FACT_PROTOCOL] && f->value[FACT_CIPHER] ? 0 : "libtls does not know the cipher";
}

char const *facts_write_chain(struct tls *tls, int fd)
{
  size_t len = 0;
  char const *pem = (char const *)tls_peer_cert_chain_pem(tls, &len);
  char const *reason = 0;
  if (!pem) len = 0;
  while (len && !reason)
  {
    /* A pipe that poll calls writable takes PIPE_BUF bytes without waiting, flag or no flag. */
    iopause_fd x = { .fd = fd, .events = IOPAUSE_WRITE };
    if (iopause_g(&x, 1, &STAMP) <= 0)
    {
      reason = "no room for the peer's certificates";
      break;
    }
    ssize_t n = fd_write(fd, pem, len < PIPE_BUF ? len : PIPE_BUF);
    if (n < 0) reason = "unable to write the peer's certificates";
    else pem += n, len -= n;
  }
  close(fd);
  return reason;
}
