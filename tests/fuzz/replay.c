/* ISC licence: see COPYING. */

/* Replays the files that are its arguments through the fuzz target: TAP, an assertion a file. */

#include <stdint.h>

#include <skalibs/buffer.h>
#include <skalibs/djbunix.h>
#include <skalibs/strerr.h>
#include <skalibs/stralloc.h>
#include <skalibs/types.h>

extern int LLVMFuzzerTestOneInput(uint8_t const *, size_t);

int main(int argc, char **argv)
{
  stralloc sa = STRALLOC_ZERO;
  char fmt[INT_FMT];
  PROG = "replay";
  fmt[int_fmt(fmt, argc - 1)] = 0;
  buffer_puts(buffer_1, "1..");
  buffer_puts(buffer_1, fmt);
  buffer_putsflush(buffer_1, "\n");
  for (int i = 1; i < argc; i++)
  {
    sa.len = 0;
    if (!openslurpclose(&sa, argv[i])) strerr_diefusys(111, "read ", argv[i]);
    LLVMFuzzerTestOneInput((uint8_t *)sa.s, sa.len); /* aborts if it fails */
    buffer_puts(buffer_1, "ok - ");
    buffer_puts(buffer_1, argv[i]);
    buffer_putsflush(buffer_1, "\n");
  }
  return 0;
}
