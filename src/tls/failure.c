/* ISC licence: see COPYING. */

#include <errno.h>
#include <string.h>

#include "failure.h"
#include "text.h"

int failure_setv(struct failure *f, int code, char const *const *parts)
{
  f->code = code;
  text_join(f->reason, sizeof f->reason, parts);
  /* libtls ends its text with that of errno, also when there is none to speak of */
  text_cut(f->reason, ": ", strerror(0));
  return 0;
}

int failure_sysv(struct failure *f, char const *const *parts)
{
  char const *text = strerror(errno);
  failure_setv(f, EXIT_SYSTEM, parts);
  size_t n = strlen(f->reason);
  text_join(f->reason + n, sizeof f->reason - n, (char const *const []){ ": ", text, 0 });
  return 0;
}
