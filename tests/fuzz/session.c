/* ISC licence: see COPYING. */

/*
  Fuzz target for the session protocol (CONTRIBUTING tells how to run it).

  The first byte of the input says which end reads: 0 a chain, else an engine; the rest is what the
  other end wrote. Every message that comes out is unpacked, and packed again: nothing may change.
*/

#include <sys/socket.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/socket.h>
#include <skalibs/tai.h>

#include "../../src/session/session.h"

static void same(char const *a, size_t alen, char const *b, size_t blen)
{
  if (alen != blen || memcmp(a, b, alen)) abort();
}

static void unpack(char const *s, size_t len)
{
  char again[SESSION_MAX];
  union
  {
    struct session_start start;
    struct session_facts facts;
    struct session_join join;
    struct session_end end;
  } u;
  if (session_start_unpack(&u.start, s, len))
  {
    struct session_start second;
    size_t n = session_start_pack(again, &u.start);
    if (!session_start_unpack(&second, again, n)) abort();
    if (strcmp(u.start.policy.name, second.policy.name)) abort();
    if (strcmp(u.start.peer, second.peer)) abort();
  }
  if (session_facts_unpack(&u.facts, s, len)) /* a fact that is not known is skipped */
  {
    struct session_facts second;
    size_t n = session_facts_pack(again, &u.facts);
    if (n > len || !session_facts_unpack(&second, again, n)) abort();
    for (int i = 0; i < SESSION_FACTS_N; i++)
      if (!u.facts.value[i] != !second.value[i]
        || (second.value[i] && strcmp(u.facts.value[i], second.value[i]))) abort();
  }
  if (session_join_unpack(&u.join, s, len))
    same(s, len, again, session_join_pack(again, &u.join));
  if (session_end_unpack(&u.end, s, len))
  {
    struct session_end second;
    size_t n = session_end_pack(again, s[0], &u.end);
    if (!session_end_unpack(&second, again, n) || strcmp(u.end.reason, second.reason)) abort();
  }
}

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size)
{
  int fd[2];
  struct session s;
  unixmessage m;
  tain past = TAIN_EPOCH;
  if (!size || size > 65536) return 0;
  unpack((char const *)data + 1, size - 1);
  if (ipc_pair_coe(fd) < 0) abort();
  if (write(fd[1], data + 1, size - 1) < 0) abort();
  shutdown(fd[1], SHUT_WR);
  if (!tain_now_set_stopwatch_g() || !session_init(&s, fd[0], data[0])) abort();
  while (session_receive(&s, &m, &past) > 0)
  {
    if (m.len > SESSION_MAX) abort();
    unpack(m.s, m.len);
  }
  session_free(&s);
  close(fd[0]);
  close(fd[1]);
  return 0;
}
