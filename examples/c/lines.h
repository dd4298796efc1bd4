/* ISC licence: see COPYING. */
/* A connection, line by line: a buffer that can be looked into, and a limit of time. */

#ifndef LINES_H
#define LINES_H

#include <stddef.h>

enum { LINE_MAX_BYTES = 999 }; /* RFC 5321, 4.5.3.1.6: 998 and a stuffed dot, without CR LF */

enum line_status
{
  LINE_COMPLETE,
  LINE_TOO_LONG, /* it has been read to its end, and only its beginning kept */
  LINE_BARE,     /* a CR without LF, or a LF without CR: where it ends depends on who reads it */
  LINE_LATE,     /* it has not come to its end in time */
  LINE_NONE      /* the connection has ended, or failed */
};

struct lines
{
  int rfd, wfd, seconds; /* to read from, to write to; the limit for a line in either direction */
  size_t begin, end;     /* what is in the buffer, read and not yet used */
  char buffer[4096];
  char line[LINE_MAX_BYTES + 1];
  size_t length;         /* of the line, in which there may be null bytes */
};

/* Reads the next line, without its CR LF, to line and length. */
extern enum line_status line_read(struct lines *);

/* How many bytes have been read and not yet used: after STARTTLS there must be none. */
extern size_t line_unread(struct lines const *);

/* Writes it all, at once, with nothing kept in a buffer; 0 if nobody reads, or not in time. */
extern int line_write(struct lines const *, char const *, size_t);

#endif
