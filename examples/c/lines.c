/* ISC licence: see COPYING. */

#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "lines.h"

#ifndef PIPE_BUF /* what can be written at once where poll says that something can */
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

/* Milliseconds on a clock that nobody sets. */
static long long clock_now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Waits until something can be done; 0 when the time is over. */
static int time_waits(int fd, short event, long long deadline)
{
  struct pollfd p = { .fd = fd, .events = event };
  for (;;)
  {
    long long left = deadline - clock_now();
    int r = left > 0 ? poll(&p, 1, (int)left) : 0;
    if (r >= 0 || errno != EINTR) return r != 0;
  }
}

/* Reads more, the buffer being empty. */
static enum line_status buffer_fill(struct lines *l, long long deadline)
{
  ssize_t r;
  do
  {
    if (!time_waits(l->rfd, POLLIN, deadline)) return LINE_LATE;
    r = read(l->rfd, l->buffer, sizeof l->buffer);
  }
  while (r < 0 && errno == EINTR);
  if (r <= 0) return LINE_NONE;
  l->begin = 0;
  l->end = (size_t)r;
  return LINE_COMPLETE;
}

enum line_status line_read(struct lines *l)
{
  long long deadline = clock_now() + l->seconds * 1000LL; /* of the line: drops do not prolong it */
  enum line_status status;
  int cr = 0, too_long = 0;
  for (l->length = 0; ; )
  {
    if (l->begin == l->end && (status = buffer_fill(l, deadline))) return status;
    char c = l->buffer[l->begin++];
    if (cr != (c == '\n')) return LINE_BARE;
    if (c == '\n') break;
    cr = c == '\r';
    if (cr) continue;
    if (l->length < LINE_MAX_BYTES) l->line[l->length++] = c;
    else too_long = 1;
  }
  l->line[l->length] = 0;
  return too_long ? LINE_TOO_LONG : LINE_COMPLETE;
}

size_t line_unread(struct lines const *l)
{
  return l->end - l->begin;
}

int line_write(struct lines const *l, char const *s, size_t n)
{
  long long deadline = clock_now() + l->seconds * 1000LL;
  while (n)
  {
    if (!time_waits(l->wfd, POLLOUT, deadline)) return 0;
    ssize_t r = write(l->wfd, s, n < PIPE_BUF ? n : PIPE_BUF);
    if (r < 0 && errno != EINTR) return 0;
    if (r < 0) continue;
    s += r;
    n -= (size_t)r;
  }
  return 1;
}
