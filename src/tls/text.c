/* ISC licence: see COPYING. */

#include <string.h>

#include "engine.h"

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
