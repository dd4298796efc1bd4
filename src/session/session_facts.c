/* ISC licence: see COPYING. */

#include <string.h>

#include "session.h"

char const *const session_fact_name[SESSION_FACTS_N] =
{
  [FACT_PROTOCOL] = "SSL_PROTOCOL",
  [FACT_CIPHER] = "SSL_CIPHER",
  [FACT_PEER_HASH] = "SSL_PEER_CERT_HASH",
  [FACT_SERVERNAME] = "SSL_TLS_SNI_SERVERNAME",
  [FACT_ALPN] = "SSL_ALPN",
  [FACT_KEYSIZE] = "SSL_CIPHER_USEKEYSIZE",
  [FACT_RESUMED] = "SSL_SESSION_RESUMED",
  [FACT_PEER_SUBJECT] = "SSL_PEER_CERT_SUBJECT",
  [FACT_PEER_ISSUER] = "SSL_PEER_CERT_ISSUER",
  [FACT_PEER_NOTBEFORE] = "SSL_PEER_CERT_NOTBEFORE",
  [FACT_PEER_NOTAFTER] = "SSL_PEER_CERT_NOTAFTER",
  [FACT_ALGKEYSIZE] = "SSL_CIPHER_ALGKEYSIZE",
  [FACT_CLIENT_VERIFY] = "SSL_CLIENT_VERIFY",
  [FACT_CLIENT_DN] = "SSL_CLIENT_S_DN",
  [FACT_CLIENT_CN] = "SSL_CLIENT_S_DN_CN",
  [FACT_CLIENT_EMAIL] = "SSL_CLIENT_S_DN_Email",
};

/* FACTS: type, then for each known fact, in order: its number, its value, a null byte. */

size_t session_facts_pack(char *s, struct session_facts const *facts)
{
  size_t n = 0;
  s[n++] = SESSION_FACTS;
  for (unsigned int i = 0; i < SESSION_FACTS_N; i++)
  {
    if (!facts->value[i]) continue;
    size_t len = strnlen(facts->value[i], SESSION_FACT_MAX);
    if (n + len + 2 > SESSION_MAX) continue;
    s[n++] = i;
    memcpy(s + n, facts->value[i], len);
    n += len;
    s[n++] = 0;
  }
  return n;
}

int session_text_is_clean(char const *s)
{
  for (; *s; s++)
    if ((unsigned char)*s < 0x20 || *s == 0x7f) return 0;
  return 1;
}

int session_facts_unpack(struct session_facts *facts, char const *s, size_t len)
{
  char const *end = s + len;
  int last = -1;
  if (!len || len > SESSION_MAX || *s++ != SESSION_FACTS) return 0;
  *facts = (struct session_facts){ 0 };
  while (s < end)
  {
    int i = (unsigned char)*s++;
    char const *nul = memchr(s, 0, end - s);
    if (i <= last || !nul || nul - s > SESSION_FACT_MAX || !session_text_is_clean(s)) return 0;
    if (i < SESSION_FACTS_N) facts->value[i] = s;
    last = i;
    s = nul + 1;
  }
  return facts->value[FACT_PROTOCOL] && facts->value[FACT_CIPHER];
}
