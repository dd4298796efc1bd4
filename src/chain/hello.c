/* ISC licence: see COPYING. */

#include <stdint.h>
#include <string.h>

#include "hello.h"

enum { RECORD_HEAD = 5, RECORD_MAX = 16384, MESSAGE_HEAD = 4, RANDOM = 32, SESSION_ID_MAX = 32 };
enum { HANDSHAKE = 22, CLIENT_HELLO = 1, HOST_NAME = 0 };
enum { SERVER_NAME = 0, ALPN = 16, SUPPORTED_VERSIONS = 43, EXTENSIONS_N = 3 };

/* Bytes that are still to be read. One that is too short has been read to its end, and is bad. */
struct bytes
{
  unsigned char const *s;
  size_t len;
  int bad;
};

static struct bytes bytes_take(struct bytes *b, size_t n)
{
  struct bytes taken = { b->s, n, 0 };
  if (n > b->len) taken.len = b->len, taken.bad = b->bad = 1;
  b->s += taken.len;
  b->len -= taken.len;
  return taken;
}

/* A number of n bytes, 4 at most, big-endian. */
static uint32_t bytes_number(struct bytes *b, size_t n)
{
  uint32_t number = 0;
  struct bytes taken = bytes_take(b, n);
  for (; taken.len; taken.len--) number = number << 8 | *taken.s++;
  return number;
}

/* A vector that begins with its length, a number of n bytes. */
static struct bytes bytes_vector(struct bytes *b, size_t n)
{
  return bytes_take(b, bytes_number(b, n));
}

static char const *version_name(unsigned int version)
{
  static char const *const names[] = { "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3" };
  unsigned int i = version - 0x300;
  return i < sizeof names / sizeof *names ? names[i] : 0;
}

/* RFC 8446, 4.2.1. What is not known, GREASE (RFC 8701) among it, is skipped. */
static int versions_read(struct hello *h, struct bytes b)
{
  struct bytes list = bytes_vector(&b, 1);
  unsigned int highest = 0;
  if (b.bad || b.len || !list.len || list.len % 2) return 0;
  while (list.len)
  {
    unsigned int version = bytes_number(&list, 2);
    if (version_name(version) && version > highest) highest = version;
  }
  if (highest) h->protocol = version_name(highest);
  return 1;
}

/* RFC 6066, 3. A list with one kind of name, and one of each kind at most. */
static int name_read(struct hello *h, struct bytes b)
{
  char name[HOSTNAME_MAX + 2]; /* and a final dot */
  struct bytes list = bytes_vector(&b, 2);
  if (b.bad || b.len || !list.len) return 0;
  unsigned int kind = bytes_number(&list, 1);
  struct bytes host = bytes_vector(&list, 2);
  if (list.bad || list.len || kind != HOST_NAME || !host.len) return 0;
  if (host.len >= sizeof name || memchr(host.s, 0, host.len)) return 1;
  memcpy(name, host.s, host.len);
  name[host.len] = 0;
  if (!hostname_is_address(name)) hostname_copy(h->name, name);
  return 1;
}

/* Whether it can be in a list with commas, in an environment. */
static int is_writable(struct bytes name)
{
  for (; name.len; name.len--, name.s++)
    if (*name.s <= ' ' || *name.s > '~' || *name.s == ',') return 0;
  return 1;
}

/* RFC 7301, 3.1. */
static int alpn_read(struct hello *h, struct bytes b)
{
  struct bytes list = bytes_vector(&b, 2);
  size_t n = 0;
  if (b.bad || b.len || !list.len) return 0;
  while (list.len)
  {
    struct bytes name = bytes_vector(&list, 1);
    if (list.bad || !name.len) return 0;
    if (!is_writable(name)) continue;
    if (n) h->alpn[n++] = ',';
    memcpy(h->alpn + n, name.s, name.len); /* a comma takes the place of a length */
    n += name.len;
  }
  h->alpn[n] = 0;
  return 1;
}

static int extensions_read(struct hello *h, struct bytes b)
{
  static struct
  {
    unsigned int type;
    int (*read)(struct hello *, struct bytes);
  } const known[EXTENSIONS_N] =
  {
    { SERVER_NAME, &name_read }, { ALPN, &alpn_read }, { SUPPORTED_VERSIONS, &versions_read },
  };
  int seen[EXTENSIONS_N] = { 0 };
  while (b.len)
  {
    unsigned int type = bytes_number(&b, 2);
    struct bytes extension = bytes_vector(&b, 2);
    if (b.bad) return 0;
    for (int i = 0; i < EXTENSIONS_N; i++)
      if (type == known[i].type && (seen[i]++ || !known[i].read(h, extension))) return 0;
  }
  return 1;
}

/* The body of the message. Without extensions nothing may come after the compression methods. */
static int body_read(struct hello *h, struct bytes b)
{
  unsigned int version = bytes_number(&b, 2);
  bytes_take(&b, RANDOM);
  struct bytes session = bytes_vector(&b, 1), ciphers = bytes_vector(&b, 2);
  struct bytes compressions = bytes_vector(&b, 1);
  if (b.bad || session.len > SESSION_ID_MAX || !ciphers.len || ciphers.len % 2) return 0;
  if (!compressions.len || version < 0x300) return 0;
  h->protocol = version_name(version < 0x303 ? version : 0x303); /* as those do that know no more */
  if (!b.len) return 1;
  struct bytes extensions = bytes_vector(&b, 2);
  return !b.bad && !b.len && extensions_read(h, extensions);
}

/* A record begins at s, of which there are len bytes. Returns 0 if what there is can be none. */
static int is_record(unsigned char const *s, size_t len)
{
  return len < 1 || (s[0] == HANDSHAKE && (len < 2 || s[1] == 3));
}

enum hello_state hello_read(struct hello *h, unsigned char const *s, size_t len, size_t *wanted)
{
  unsigned char message[HELLO_MAX];
  size_t at = 0, have = 0, need = MESSAGE_HEAD;
  h->protocol = 0;
  h->name[0] = h->alpn[0] = 0;
  if (len > HELLO_MAX) len = HELLO_MAX;
  while (have < need)
  {
    size_t left = len - at;
    if (!is_record(s + at, left)) return at ? HELLO_MALFORMED : HELLO_NO_TLS;
    size_t size = left < RECORD_HEAD ? 0 : s[at + 3] << 8 | s[at + 4];
    if (left >= RECORD_HEAD && (!size || size > RECORD_MAX)) return HELLO_MALFORMED;
    if (left >= RECORD_HEAD) left -= RECORD_HEAD, at += RECORD_HEAD;
    else size = RECORD_HEAD;
    *wanted = at + size;
    if (left < size && len == HELLO_MAX) return HELLO_MALFORMED;
    if (left < size) return HELLO_PARTIAL;
    memcpy(message + have, s + at, size);
    at += size;
    have += size;
    if (message[0] != CLIENT_HELLO) return HELLO_MALFORMED;
    if (have >= MESSAGE_HEAD)
      need = MESSAGE_HEAD + ((size_t)message[1] << 16 | message[2] << 8 | message[3]);
    if (need > HELLO_MAX) return HELLO_MALFORMED;
  }
  struct bytes body = { message + MESSAGE_HEAD, need - MESSAGE_HEAD, 0 };
  return body_read(h, body) ? HELLO_WHOLE : HELLO_MALFORMED;
}
