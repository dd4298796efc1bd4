/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>

#include "chain.h"

/* Per protocol, as UCSPI names them. A program for SSL may set those of TCP beside its own. */
static char const *const addresses[][3] =
{
  { "TCP", "TCPREMOTEIP", "TCPREMOTEPORT" },
  { "TCP6", "TCP6REMOTEIP", "TCP6REMOTEPORT" },
  { "SSL", "SSLREMOTEIP", "SSLREMOTEPORT" },
  { "SSL", "TCPREMOTEIP", "TCPREMOTEPORT" },
};
static char const *const users[][3] =
{
  { "IPC", "IPCREMOTEEUID", "IPCREMOTEPID" },
  { "UNIX", "UNIXREMOTEEUID", "UNIXREMOTEPID" },
};

/* The value of a variable, in printable words, or null. */
static char const *word_get(char const *name)
{
  char const *s = getenv(name);
  if (!s || !*s) return 0;
  for (char const *c = s; *c; c++)
    if (*c <= ' ' || *c >= 0x7f) return 0;
  return s;
}

/* Joins what all fits into s, or leaves it empty: half an address is that of somebody else. */
static void words_join(char s[SESSION_PEER_MAX + 1], char const *const *words, unsigned int n)
{
  size_t len = 0;
  for (unsigned int i = 0; i < n; i++)
  {
    size_t more = strlen(words[i]);
    if (len + more > SESSION_PEER_MAX) len = 0, more = 0, n = 0;
    memcpy(s + len, words[i], more);
    len += more;
  }
  s[len] = 0;
}

void chain_peer(char s[SESSION_PEER_MAX + 1])
{
  char const *proto = getenv("PROTO");
  s[0] = 0;
  if (!proto) return;
  for (unsigned int i = 0; i < sizeof addresses / sizeof *addresses && !*s; i++)
  {
    if (strcmp(proto, addresses[i][0])) continue;
    char const *ip = word_get(addresses[i][1]), *port = word_get(addresses[i][2]);
    int v6 = ip && strchr(ip, ':');
    char const *const words[] = { v6 ? "[" : "", ip, v6 ? "]:" : ":", port };
    if (ip && port) words_join(s, words, 4);
  }
  for (unsigned int i = 0; i < sizeof users / sizeof *users && !*s; i++)
  {
    if (strcmp(proto, users[i][0])) continue;
    char const *uid = word_get(users[i][1]), *pid = word_get(users[i][2]);
    char const *const words[] = { "uid ", uid, ", pid ", pid };
    if (uid) words_join(s, words, pid ? 4 : 2);
  }
}
