/* ISC licence: see COPYING. */

#include <string.h>

#include <skalibs/uint32.h>
#include <skalibs/uint64.h>

#include "session.h"

/* Copies text of at most max bytes; control bytes become question marks. Returns its length. */
static size_t text_copy(char *to, char const *from, size_t len, size_t max)
{
  if (len > max) len = max;
  for (size_t i = 0; i < len; i++)
    to[i] = (unsigned char)from[i] < 0x20 || from[i] == 0x7f ? '?' : from[i];
  return len;
}

/* START: type, version, role, peercert, verify, staple, verbosity; name, null byte, peer. */

enum { START_HEAD = 7, START_MAX = START_HEAD + SESSION_NAME_MAX + 1 + SESSION_PEER_MAX };

size_t session_start_pack(char *s, struct session_start const *start)
{
  struct session_policy const *p = &start->policy;
  char const head[START_HEAD] =
  {
    SESSION_START, SESSION_VERSION, p->role, p->peercert, p->verify, p->staple, start->verbosity,
  };
  size_t n = START_HEAD;
  memcpy(s, head, n);
  n += text_copy(s + n, p->name, strlen(p->name), SESSION_NAME_MAX);
  s[n++] = 0;
  return n + text_copy(s + n, start->peer, strlen(start->peer), SESSION_PEER_MAX);
}

int session_start_unpack(struct session_start *start, char const *s, size_t len)
{
  struct session_policy *p = &start->policy;
  if (len <= START_HEAD || len > START_MAX) return 0;
  if (s[0] != SESSION_START || s[1] != SESSION_VERSION) return 0;
  p->role = s[2];
  p->peercert = s[3];
  p->verify = s[4];
  p->staple = s[5];
  start->verbosity = s[6];
  if (p->role > SESSION_CLIENT || p->peercert > SESSION_PEERCERT_REQUIRED) return 0;
  if (p->verify > SESSION_VERIFY_NOTHING || p->staple > 1) return 0;
  s += START_HEAD;
  len -= START_HEAD;
  char const *peer = memchr(s, 0, len);
  if (!peer || peer - s > SESSION_NAME_MAX) return 0;
  p->name[text_copy(p->name, s, peer - s, SESSION_NAME_MAX)] = 0;
  len -= ++peer - s;
  if (len > SESSION_PEER_MAX || memchr(peer, 0, len)) return 0;
  start->peer[text_copy(start->peer, peer, len, SESSION_PEER_MAX)] = 0;
  return 1;
}

/* JOIN: type, notify, strict, heard, idle. */

enum { JOIN_LEN = 8 };

size_t session_join_pack(char *s, struct session_join const *join)
{
  s[0] = SESSION_JOIN;
  s[1] = join->notify;
  s[2] = join->strict;
  s[3] = join->heard;
  uint32_pack_big(s + 4, join->idle);
  return JOIN_LEN;
}

int session_join_unpack(struct session_join *join, char const *s, size_t len)
{
  if (len != JOIN_LEN || s[0] != SESSION_JOIN) return 0;
  join->notify = s[1];
  join->strict = s[2];
  join->heard = s[3];
  uint32_unpack_big(s + 4, &join->idle);
  return join->notify <= 1 && join->strict <= 1 && join->heard <= 1 && join->idle <= INT32_MAX;
}

/* FAILED, ENDED: type, code, truncated, received, sent; the reason to the end. */

enum { END_HEAD = 19 };

size_t session_end_pack(char *s, enum session_type type, struct session_end const *end)
{
  s[0] = type;
  s[1] = end->code;
  s[2] = end->truncated;
  uint64_pack_big(s + 3, end->received);
  uint64_pack_big(s + 11, end->sent);
  return END_HEAD
    + text_copy(s + END_HEAD, end->reason, strlen(end->reason), SESSION_TEXT_MAX);
}

int session_end_unpack(struct session_end *end, char const *s, size_t len)
{
  if (len < END_HEAD || len > END_HEAD + SESSION_TEXT_MAX) return 0;
  if (s[0] != SESSION_FAILED && s[0] != SESSION_ENDED) return 0;
  end->code = s[1];
  end->truncated = s[2];
  uint64_unpack_big(s + 3, &end->received);
  uint64_unpack_big(s + 11, &end->sent);
  end->reason[text_copy(end->reason, s + END_HEAD, len - END_HEAD, SESSION_TEXT_MAX)] = 0;
  return end->truncated <= 1 && (s[0] != SESSION_FAILED || end->code);
}
