/* ISC licence: see COPYING. */

/*
  Fuzz target for what tls-peek reads of a client (CONTRIBUTING tells how to run it).

  The input is what the network has begun with. What is found in it is such as the page says; the
  same bytes in other records say the same; and no part of it says something else than all of it,
  nor asks for more than there is to come.
*/

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/chain/hello.h"

enum { RECORD_HEAD = 5 };

static void check(int condition)
{
  if (!condition) abort();
}

static void is_as_told(struct hello const *h)
{
  static char const letters[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
  size_t n = strlen(h->alpn);
  check(!strncmp(h->protocol, "TLSv1", 5) || !strcmp(h->protocol, "SSLv3"));
  check(strlen(h->name) <= HOSTNAME_MAX && strspn(h->name, letters) == strlen(h->name));
  check(*h->name != '.' && *h->name != '-' && !strstr(h->name, ".."));
  check(n < sizeof h->alpn && *h->alpn != ',' && !strstr(h->alpn, ",,"));
  check(!n || h->alpn[n - 1] != ',');
  for (size_t i = 0; i < n; i++) check(h->alpn[i] > ' ' && h->alpn[i] <= '~');
}

static void is_same(struct hello const *a, struct hello const *b)
{
  check(a->protocol == b->protocol && !strcmp(a->name, b->name) && !strcmp(a->alpn, b->alpn));
}

/* The payload of the whole records at s, in records of at most size bytes. Returns the length. */
static size_t cut_again(uint8_t *to, uint8_t const *s, size_t len, size_t size)
{
  uint8_t payload[HELLO_MAX];
  size_t n = 0, at = 0;
  while (len >= RECORD_HEAD && len - RECORD_HEAD >= (size_t)(s[3] << 8 | s[4]))
  {
    size_t length = s[3] << 8 | s[4];
    memcpy(payload + n, s + RECORD_HEAD, length);
    n += length;
    s += RECORD_HEAD + length;
    len -= RECORD_HEAD + length;
    if (len && *s != 22) break; /* what comes after the message */
  }
  for (size_t i = 0; i < n; i += size)
  {
    size_t length = n - i < size ? n - i : size;
    if (at + RECORD_HEAD + length > HELLO_MAX) return 0;
    memcpy(to + at, (uint8_t const []){ 22, 3, 1, length >> 8, length & 255 }, RECORD_HEAD);
    memcpy(to + at + RECORD_HEAD, payload + i, length);
    at += RECORD_HEAD + length;
  }
  return at;
}

extern int LLVMFuzzerTestOneInput(uint8_t const *, size_t);
int LLVMFuzzerTestOneInput(uint8_t const *data, size_t len)
{
  static struct hello all, part;
  static uint8_t again[HELLO_MAX];
  static size_t const sizes[] = { 1, 2, 3, 5, 64, 1000, 16384 };
  size_t wanted = 0, step = 1 + len / 512;
  enum hello_state state = hello_read(&all, data, len, &wanted);
  if (state == HELLO_PARTIAL) check(wanted > len);
  if (state == HELLO_WHOLE) is_as_told(&all);
  for (size_t n = 0; n < len; n += step)
  {
    size_t more = 0;
    enum hello_state said = hello_read(&part, data, n, &more);
    check(said == HELLO_PARTIAL || said == state);
    if (said == HELLO_WHOLE) is_same(&part, &all);
    if (said == HELLO_PARTIAL) check(more > n && (state != HELLO_WHOLE || more <= len));
  }
  for (size_t i = 0; state == HELLO_WHOLE && i < sizeof sizes / sizeof *sizes; i++)
  {
    size_t n = cut_again(again, data, len, sizes[i]);
    if (!n) continue;
    check(hello_read(&part, again, n, &wanted) == HELLO_WHOLE);
    is_same(&part, &all);
  }
  return 0;
}
