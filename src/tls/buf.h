/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_BUF_H
#define TLS_CHAIN_BUF_H

#include <stddef.h>
#include <string.h>

/*
  Bytes on their way: written at tail, read at head, started over when empty, so that a session
  of small messages touches few pages of it. What holds plaintext is as large as relay.c makes a
  pipe; what holds records has room for what TLS adds to that.
*/
#define PLAIN_SIZE 262144
#define RAW_SIZE (PLAIN_SIZE + 8192)

struct buf
{
  size_t size;
  size_t head;
  size_t tail;
  size_t used; /* how far it had been written, since it was released, when it was last empty */
  char s[RAW_SIZE];
};

static inline size_t buf_len(struct buf const *b)
{
  return b->tail - b->head;
}

static inline size_t buf_room(struct buf const *b)
{
  return b->size - b->tail;
}

static inline void buf_clear(struct buf *b)
{
  if (b->used < b->tail) b->used = b->tail;
  b->head = b->tail = 0;
}

static inline void buf_skip(struct buf *b, size_t n)
{
  b->head += n;
  if (b->head == b->tail) buf_clear(b);
}

/* Wipes what has passed through an empty one, and gives all memory but the first page back. */
extern void buf_release(struct buf *);

/* Move at most len bytes out of it and into it; return how many. */
static inline size_t buf_get(struct buf *b, void *s, size_t len)
{
  if (len > buf_len(b)) len = buf_len(b);
  memcpy(s, b->s + b->head, len);
  buf_skip(b, len);
  return len;
}

static inline size_t buf_put(struct buf *b, void const *s, size_t len)
{
  if (len > buf_room(b)) len = buf_room(b);
  memcpy(b->s + b->tail, s, len);
  b->tail += len;
  return len;
}

#endif
