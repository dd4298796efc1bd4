/* ISC licence: see COPYING. */

#include <string.h>

#include "text.h"

void text_join(char *to, size_t max, char const *const *parts)
{
  size_t n = 0;
  for (; *parts; parts++)
  {
    size_t len = strnlen(*parts, max - 1 - n);
    memcpy(to + n, *parts, len);
    n += len;
  }
  to[n] = 0;
}

void text_cut(char *s, char const *a, char const *b)
{
  size_t n = strlen(a) + strlen(b);
  size_t len = strlen(s);
  if (len < n || strncmp(s + len - n, a, strlen(a)) || strcmp(s + len - strlen(b), b)) return;
  s[len - n] = 0;
}
