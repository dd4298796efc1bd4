/* ISC licence: see COPYING. */

/* The session protocol: what is packed comes out again, what is malformed does not, both ends. */

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <skalibs/djbunix.h>
#include <skalibs/socket.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>
#include <skalibs/uint16.h>
#include <skalibs/uint32.h>

#include "../../src/session/progname.h"
#include "../../src/session/session.h"

static void start_roundtrip(void **state)
{
  char s[SESSION_MAX];
  struct session_start b, a =
  {
    .policy = { .role = 1, .peercert = 2, .verify = 1, .staple = 1 }, .verbosity = 2,
  };
  (void)state;
  memset(a.policy.name, 'n', SESSION_NAME_MAX);
  memset(a.peer, 'p', SESSION_PEER_MAX);
  assert_true(session_start_unpack(&b, s, session_start_pack(s, &a)));
  assert_int_equal(b.policy.role, 1);
  assert_int_equal(b.policy.peercert, 2);
  assert_int_equal(b.policy.verify, 1);
  assert_int_equal(b.policy.staple, 1);
  assert_int_equal(b.verbosity, 2);
  assert_string_equal(b.policy.name, a.policy.name);
  assert_string_equal(b.peer, a.peer);
}

static void start_malformed(void **state)
{
  enum { HEAD = 7 };
  char s[SESSION_MAX];
  struct session_start start = { .policy = { .name = "example.org" }, .peer = "192.0.2.1:25" };
  size_t n = session_start_pack(s, &start);
  (void)state;
  for (size_t len = 0; len < HEAD + sizeof "example.org"; len++)
    assert_false(session_start_unpack(&start, s, len));
  for (size_t i = 0; i < 6; i++)
  {
    char was = s[i];
    s[i] = 9;
    assert_false(session_start_unpack(&start, s, n));
    s[i] = was;
  }
  s[n - 1] = 0;
  assert_false(session_start_unpack(&start, s, n));
  memset(s + HEAD, 'n', sizeof s - HEAD);
  s[HEAD + SESSION_NAME_MAX] = 0;
  n = HEAD + SESSION_NAME_MAX + 1 + SESSION_PEER_MAX;
  assert_true(session_start_unpack(&start, s, n));
  assert_false(session_start_unpack(&start, s, n + 1));
  s[HEAD + SESSION_NAME_MAX] = 'n';
  s[HEAD + SESSION_NAME_MAX + 1] = 0;
  assert_false(session_start_unpack(&start, s, n));
}

/* What a log is told comes from the other side: it can neither end a line nor begin one. */
static void start_is_clean(void **state)
{
  char s[SESSION_MAX];
  struct session_start start = { .peer = "192.0.2.1\nx\x7f" };
  (void)state;
  assert_true(session_start_unpack(&start, s, session_start_pack(s, &start)));
  assert_string_equal(start.peer, "192.0.2.1?x?");
  size_t n = session_start_pack(s, &start);
  s[n - 1] = '\033';
  assert_true(session_start_unpack(&start, s, n));
  assert_string_equal(start.peer, "192.0.2.1?x?");
}

static void progname_is_whole(void **state)
{
  (void)state;
  char s[PROGNAME_SIZE], pid[PID_FMT], peer[SESSION_PEER_MAX + 1], wanted[256];
  pid[pid_fmt(pid, getpid())] = 0;
  progname_set(s, "tls-handshake", "");
  snprintf(wanted, sizeof wanted, "tls-handshake: pid %s", pid);
  assert_string_equal(PROG, wanted);
  memset(s, 'x', sizeof s);
  memset(peer, 'p', SESSION_PEER_MAX);
  peer[SESSION_PEER_MAX] = 0;
  progname_set(s, "tls-handshake", peer);
  snprintf(wanted, sizeof wanted, "tls-handshake: pid %s: %s", pid, peer);
  assert_string_equal(PROG, wanted);
}

static void facts_roundtrip(void **state)
{
  char s[SESSION_MAX];
  struct session_facts b, a = { { "TLSv1.3", "TLS_AES_128_GCM_SHA256", "", 0, "128", "Initial" } };
  (void)state;
  assert_true(session_facts_unpack(&b, s, session_facts_pack(s, &a)));
  for (int i = 0; i < SESSION_FACTS_N; i++)
    if (a.value[i]) assert_string_equal(b.value[i], a.value[i]);
    else assert_null(b.value[i]);
}

static void facts_are_cut_and_bounded(void **state)
{
  char s[SESSION_MAX], value[SESSION_MAX];
  struct session_facts facts;
  (void)state;
  memset(value, 'v', sizeof value);
  value[sizeof value - 1] = 0;
  for (int i = 0; i < SESSION_FACTS_N; i++) facts.value[i] = value;
  size_t n = session_facts_pack(s, &facts);
  assert_true(n >= SESSION_FACT_MAX && n <= SESSION_MAX);
  assert_true(session_facts_unpack(&facts, s, n));
  assert_int_equal(strlen(facts.value[FACT_PROTOCOL]), SESSION_FACT_MAX);
}

static void facts_malformed(void **state)
{
  static struct { char const *s; size_t len; } const bad[] =
  {
#define BAD(s) { s, sizeof s - 1 }
    BAD(""), BAD("F"), BAD("X\0a\0\1b\0"),
    BAD("F\0a\0"),              /* no cipher */
    BAD("F\1b\0\0a\0"),         /* out of order */
    BAD("F\0a\0\0a\0\1b\0"),    /* twice */
    BAD("F\0a\0\1b"),           /* not closed */
    BAD("F\0a\nb\0\1b\0"),      /* control bytes */
    BAD("F\0a\0\1b\x7f\0"),
  };
  struct session_facts facts;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(session_facts_unpack(&facts, bad[i].s, bad[i].len));
  assert_true(session_facts_unpack(&facts, "F\0a\0\1b\0", 7));
}

/* Those of an engine newer than the chain. */
static void facts_unknown(void **state)
{
  static char const s[] = "F\0a\0\1b\0\100c\0\377d\0";
  union
  {
    struct session_facts facts;
    char const *all[256]; /* any number of a fact fits here, and is seen if it is written to */
  } u = { .all = { 0 } };
  (void)state;
  assert_true(session_facts_unpack(&u.facts, s, sizeof s - 1));
  for (int i = 2; i < 256; i++) assert_null(u.all[i]);
}

static void join_roundtrip(void **state)
{
  char s[SESSION_MAX];
  struct session_join b, a = { .notify = 1, .strict = 1, .heard = 1, .idle = 0x12345678 };
  size_t n = session_join_pack(s, &a);
  (void)state;
  assert_true(session_join_unpack(&b, s, n));
  assert_int_equal(b.notify, 1);
  assert_int_equal(b.strict, 1);
  assert_int_equal(b.heard, 1);
  assert_int_equal(b.idle, 0x12345678);
  assert_false(session_join_unpack(&b, s, n - 1));
  assert_false(session_join_unpack(&b, s, n + 1));
  a.idle = UINT32_MAX; /* what poll could not express */
  assert_false(session_join_unpack(&b, s, session_join_pack(s, &a)));
}

static void end_roundtrip(void **state)
{
  char s[SESSION_MAX];
  struct session_end b, a =
  {
    .code = 98, .truncated = 1, .received = UINT64_MAX, .sent = 1, .reason = "a\nb",
  };
  (void)state;
  assert_true(session_end_unpack(&b, s, session_end_pack(s, SESSION_ENDED, &a)));
  assert_int_equal(b.code, 98);
  assert_int_equal(b.truncated, 1);
  assert_true(b.received == UINT64_MAX && b.sent == 1);
  assert_string_equal(b.reason, "a?b");
  a.code = 0;
  assert_true(session_end_unpack(&b, s, session_end_pack(s, SESSION_ENDED, &a)));
  assert_false(session_end_unpack(&b, s, session_end_pack(s, SESSION_FAILED, &a)));
  memset(a.reason, 'r', SESSION_TEXT_MAX);
  size_t n = session_end_pack(s, SESSION_ENDED, &a);
  assert_true(session_end_unpack(&b, s, n));
  assert_false(session_end_unpack(&b, s, n + 1));
}

/* Two ends of a session socket: [0] a chain's, [1] an engine's. */
struct ends
{
  int fd[2];
  struct session s[2];
};

static struct ends *ends_open(struct ends *e)
{
  assert_int_equal(ipc_pair_coe(e->fd), 0);
  assert_true(session_init(&e->s[0], e->fd[0], 0));
  assert_true(session_init(&e->s[1], e->fd[1], 1));
  assert_true(tain_now_set_stopwatch_g());
  return e;
}

static void ends_close(struct ends *e)
{
  for (int i = 0; i < 2; i++)
  {
    session_free(&e->s[i]);
    fd_close(e->fd[i]);
  }
}

static int receive_now(struct session *s, unixmessage *m)
{
  tain deadline;
  tain_now_g();
  tain_addsec_g(&deadline, 0);
  return session_receive(s, m, &deadline);
}

static void descriptors_pass_one_way(void **state)
{
  struct ends e;
  unixmessage m;
  char s[SESSION_MAX];
  struct session_join join = { 0 };
  int p[2];
  (void)state;
  ends_open(&e);
  assert_int_equal(pipe(p), 0);
  assert_true(session_send(&e.s[0], s, session_join_pack(s, &join), p, 2));
  assert_int_equal(receive_now(&e.s[1], &m), SESSION_JOIN);
  assert_int_equal(m.nfds, 2);
  assert_int_equal(fcntl(m.fds[0], F_GETFD), FD_CLOEXEC);
  assert_int_equal(write(m.fds[1], "x", 1), 1);
  assert_int_equal(read(p[0], s, 1), 1);
  unixmessage_drop(&m);
  assert_true(session_send(&e.s[1], "K", 1, p, 2)); /* an engine has none to give */
  assert_int_equal(receive_now(&e.s[0], &m), -1);
  assert_int_equal(errno, EPROTO);
  fd_close(p[0]);
  fd_close(p[1]);
  ends_close(&e);
}

static void wrong_number_of_descriptors(void **state)
{
  struct ends e;
  unixmessage m;
  int p[2];
  (void)state;
  ends_open(&e);
  assert_int_equal(pipe(p), 0);
  assert_true(session_send(&e.s[0], "K", 1, p, 2));
  fd_close(p[1]);
  assert_int_equal(receive_now(&e.s[1], &m), -1);
  assert_int_equal(errno, EPROTO);
  assert_int_equal(read(p[0], &(char){ 0 }, 1), 0); /* what came was closed */
  fd_close(p[0]);
  ends_close(&e);
  ends_open(&e);
  assert_true(session_send(&e.s[0], "S", 1, 0, 0));
  assert_int_equal(receive_now(&e.s[1], &m), -1);
  assert_int_equal(errno, EPROTO);
  ends_close(&e);
}

static void send_header(int fd, uint32_t len, size_t bytes)
{
  char s[6 + SESSION_MAX] = { 0 };
  uint32_pack_big(s, len);
  uint16_pack_big(s + 4, 0);
  s[6] = SESSION_ENDED;
  assert_int_equal(write(fd, s, bytes), bytes);
}

static void length_is_bounded(void **state)
{
  static struct { uint32_t len; size_t bytes; int result; } const cases[] =
  {
    { SESSION_MAX, 6 + SESSION_MAX, SESSION_ENDED },
    { SESSION_MAX + 1, 6 + SESSION_MAX, -1 },
    { 1 << 28, 6, -1 },
    { UINT32_MAX, 6, -1 },
    { 0, 6, -1 },
    { 1, 5, -1 }, /* a header that does not come whole */
  };
  struct ends e;
  unixmessage m;
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
  {
    ends_open(&e);
    send_header(e.fd[1], cases[i].len, cases[i].bytes);
    assert_int_equal(receive_now(&e.s[0], &m), cases[i].result);
    if (cases[i].result < 0) assert_int_equal(errno, EPROTO);
    ends_close(&e);
  }
}

/* The second message is in the buffer of the library when its length is looked at. */
static void length_is_bounded_behind_another(void **state)
{
  struct ends e;
  unixmessage m;
  (void)state;
  ends_open(&e);
  assert_true(session_send(&e.s[1], "K", 1, 0, 0));
  assert_true(session_send(&e.s[1], "E", 1, 0, 0));
  send_header(e.fd[1], 1 << 27, 6);
  assert_int_equal(receive_now(&e.s[0], &m), SESSION_JOINED);
  assert_int_equal(receive_now(&e.s[0], &m), SESSION_ENDED);
  assert_int_equal(receive_now(&e.s[0], &m), -1);
  assert_int_equal(errno, EPROTO);
  ends_close(&e);
}

static void ends_and_limits(void **state)
{
  struct ends e;
  unixmessage m;
  (void)state;
  ends_open(&e);
  assert_int_equal(receive_now(&e.s[0], &m), -1);
  assert_int_equal(errno, ETIMEDOUT);
  send_header(e.fd[1], 100, 50);
  assert_int_equal(receive_now(&e.s[0], &m), -1);
  assert_int_equal(errno, ETIMEDOUT);
  shutdown(e.fd[1], SHUT_WR);
  assert_int_equal(receive_now(&e.s[0], &m), 0);
  fd_close(e.fd[0]);
  assert_false(session_send(&e.s[1], "K", 1, 0, 0)); /* and no SIGPIPE */
  assert_int_equal(errno, EPIPE);
  e.fd[0] = -1;
  ends_close(&e);
}

int main(void)
{
  struct CMUnitTest const tests[] =
  {
    cmocka_unit_test(start_roundtrip),
    cmocka_unit_test(start_malformed),
    cmocka_unit_test(start_is_clean),
    cmocka_unit_test(progname_is_whole),
    cmocka_unit_test(facts_roundtrip),
    cmocka_unit_test(facts_are_cut_and_bounded),
    cmocka_unit_test(facts_malformed),
    cmocka_unit_test(facts_unknown),
    cmocka_unit_test(join_roundtrip),
    cmocka_unit_test(end_roundtrip),
    cmocka_unit_test(descriptors_pass_one_way),
    cmocka_unit_test(wrong_number_of_descriptors),
    cmocka_unit_test(length_is_bounded),
    cmocka_unit_test(length_is_bounded_behind_another),
    cmocka_unit_test(ends_and_limits),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, 0, 0);
}
