/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/mman.h>
#include <stdint.h>
#include <unistd.h>

#include <skalibs/bytestr.h>

#include "buf.h"

#ifdef __linux__

/* What comes back in its place is zero. */
static int pages_give_back(char *s, size_t len)
{
  return madvise(s, len, MADV_DONTNEED) == 0;
}

#else

static int pages_give_back(char *s, size_t len)
{
  (void)s, (void)len;
  return 0;
}

#endif

static char *page_start(char const *s)
{
  return (char *)((uintptr_t)s / sysconf(_SC_PAGESIZE) * sysconf(_SC_PAGESIZE));
}

void buf_release(struct buf *b)
{
  char *end = b->s + b->used, *to = page_start(end);
  char *from = page_start(b->s) + sysconf(_SC_PAGESIZE);
  if (buf_len(b)) return;
  if (to > from && pages_give_back(from, to - from))
  {
    byte_zzero(b->s, from - b->s);
    byte_zzero(to, end - to);
  }
  else byte_zzero(b->s, b->used);
  b->used = 0;
}
