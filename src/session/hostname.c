/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <arpa/inet.h>
#include <string.h>

#include "hostname.h"

static char lower_case(char c)
{
  return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

int hostname_copy(char *to, char const *name)
{
  size_t len = strlen(name);
  *to = 0;
  if (len && name[len - 1] == '.') len--;
  if (!len || len > HOSTNAME_MAX) return 0;
  for (size_t i = 0; i <= len; i++)
  {
    char c = to[i] = i < len ? lower_case(name[i]) : 0;
    int at_start = !i || to[i - 1] == '.'; /* of a label, which no dot, hyphen or end can be */
    int is_word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    if (!is_word && (at_start || (c && c != '.' && c != '-'))) return *to = 0;
  }
  return 1;
}

int hostname_is_address(char const *name)
{
  char s[16];
  return inet_pton(AF_INET, name, s) == 1 || inet_pton(AF_INET6, name, s) == 1;
}
