/* ISC licence: see COPYING. */

/*
  The session protocol: what passes between a chain and a TLS engine over the session socket.

      chain                        engine
      START role, policy, fds   -> (handshake on the network fds)
                                <- FACTS what is known | FAILED code, reason
      JOIN options, fds         -> (moves bytes between network and plaintext fds)
                                <- JOINED
                                <- ENDED code, bytes each way, reason

  JOIN carries two descriptors: the engine reads from the first and writes to the second. START
  carries two of that kind, and may carry a third one, to which the engine writes the peer's
  certificates in PEM before FACTS.

  Each message is one unixmessage (skalibs) of at most SESSION_MAX bytes: a type, then the body.
  A message that is longer, malformed, out of its turn, or that carries the wrong number of
  descriptors ends the session. Integers are big-endian. Either side may close the socket at any
  time: before JOIN that tears the session down, after it nobody is left to hear ENDED.

  A chain trusts an engine with the connection, not with itself: the engine is the process that
  parses what the network sends. So a fact travels as a number, never as the name of a variable,
  and text from an engine cannot carry a control byte into an environment or a log.
*/

#ifndef TLS_CHAIN_SESSION_H
#define TLS_CHAIN_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include <skalibs/tai.h>
#include <skalibs/unixmessage.h>

#define SESSION_VERSION 2
#define SESSION_MAX 4096     /* bytes of a message */
#define SESSION_FDS 3        /* descriptors of a message */
#define SESSION_NAME_MAX 255 /* bytes of a server's name */
#define SESSION_PEER_MAX 63  /* bytes of the peer's address */
#define SESSION_TEXT_MAX 512 /* bytes of a reason */
#define SESSION_FACT_MAX 768 /* bytes of one fact; a longer one is cut by the engine */

/*
  The byte with which a session socket is sent to a resident engine, where the chain has an end of
  a pair in place of a path.
*/
#define SESSION_DOOR 'D'

/* The exit codes of all programs; execline's 126 and 127 are beside them. */
enum
{
  EXIT_TLS_CONFIG = 96, /* a setting cannot be used */
  EXIT_HANDSHAKE = 97,  /* the handshake failed, or TLS was required and not asked for */
  EXIT_TLS = 98,        /* the session failed after the handshake */
  EXIT_USAGE = 100,     /* wrong options, variables or descriptors */
  EXIT_SYSTEM = 111,    /* a system call failed */
};

enum session_type
{
  SESSION_START = 'S',
  SESSION_FACTS = 'F',
  SESSION_FAILED = 'X',
  SESSION_JOIN = 'J',
  SESSION_JOINED = 'K',
  SESSION_ENDED = 'E',
};

enum session_role
{
  SESSION_SERVER,
  SESSION_CLIENT,
};

/* What a server asks of the client; for a client, whether it shows a certificate of its own. */
enum session_peercert
{
  SESSION_PEERCERT_NONE,
  SESSION_PEERCERT_OPTIONAL,
  SESSION_PEERCERT_REQUIRED,
};

/* What a client verifies of the server. */
enum session_verify
{
  SESSION_VERIFY_NAME,
  SESSION_VERIFY_CHAIN,
  SESSION_VERIFY_NOTHING,
};

/* What the handshake is to be, and what is asked of the peer. */
struct session_policy
{
  uint8_t role;
  uint8_t peercert;
  uint8_t verify;
  uint8_t staple; /* a client insists on a stapled OCSP response */
  char name[SESSION_NAME_MAX + 1]; /* the server's name; empty if there is none */
};

struct session_start
{
  struct session_policy policy;
  uint8_t verbosity;
  char peer[SESSION_PEER_MAX + 1]; /* the peer's address, for the log; empty if not known */
};

/*
  The facts, in the order in which a UCSPI-TLS reply lists them: what matters most first, as there
  are applications that keep the beginning only; last, in a server, names that mod_ssl made known.
*/
enum session_fact
{
  FACT_PROTOCOL,
  FACT_CIPHER,
  FACT_PEER_HASH,
  FACT_SERVERNAME,
  FACT_ALPN,
  FACT_KEYSIZE,
  FACT_RESUMED,
  FACT_PEER_SUBJECT,
  FACT_PEER_ISSUER,
  FACT_PEER_NOTBEFORE,
  FACT_PEER_NOTAFTER,
  FACT_ALGKEYSIZE,
  FACT_CLIENT_VERIFY,
  FACT_CLIENT_DN,
  FACT_CLIENT_CN,
  FACT_CLIENT_EMAIL,
  SESSION_FACTS_N,
};

/* The environment variable of each fact. */
extern char const *const session_fact_name[SESSION_FACTS_N];

/* A fact that is not known is null. The strings belong to whoever filled the struct. */
struct session_facts
{
  char const *value[SESSION_FACTS_N];
};

/* Options of tls-io, for the engine. */
struct session_join
{
  uint8_t notify; /* send close_notify */
  uint8_t strict; /* a peer that ends without close_notify is an error at once */
  uint8_t heard;  /* somebody stays to hear ENDED, so the engine need not log a failure */
  uint32_t idle;  /* limit in ms for a session in which no byte moves; 0 is none */
};

/* Both FAILED and ENDED: code is what the chain should exit with, 0 for a session without fault. */
struct session_end
{
  uint8_t code;
  uint8_t truncated; /* the peer ended without close_notify */
  uint64_t received; /* plaintext bytes from the peer */
  uint64_t sent;     /* plaintext bytes to the peer */
  char reason[SESSION_TEXT_MAX + 1]; /* why it failed or was cut; else empty */
};

/* Whether text has no control byte in it, and so may go into an environment and a log. */
extern int session_text_is_clean(char const *);

/*
  Packing: write a message to s, which has room for SESSION_MAX bytes, and return its length.
  Text that is too long is cut.
*/
extern size_t session_start_pack(char *s, struct session_start const *);
extern size_t session_facts_pack(char *s, struct session_facts const *);
extern size_t session_join_pack(char *s, struct session_join const *);
extern size_t session_end_pack(char *s, enum session_type, struct session_end const *);

/*
  Unpacking: read the message of len bytes at s, type byte included. Return 1, or 0 if it is
  malformed. The facts point into s, which must outlive them; a fact that this build does not know
  is skipped.
*/
extern int session_start_unpack(struct session_start *, char const *s, size_t len);
extern int session_facts_unpack(struct session_facts *, char const *s, size_t len);
extern int session_join_unpack(struct session_join *, char const *s, size_t len);
extern int session_end_unpack(struct session_end *, char const *s, size_t len);

/* One end of a session socket. Does not own the descriptor. */
struct session
{
  unixmessage_sender sender;
  unixmessage_receiver receiver;
  char mainbuf[2 * (SESSION_MAX + 6) + 1];
  char auxbuf[SESSION_FDS * sizeof(int) + 1];
};

/*
  Starts to use fd. takes_fds: this end expects descriptors (the engine's does, a chain's does
  not). Returns 1, or 0 with errno set.
*/
extern int session_init(struct session *, int fd, int takes_fds);

/* Frees what session_init and later calls allocated; closes descriptors that nobody took. */
extern void session_free(struct session *);

/*
  Sends a message of len bytes, and n descriptors, which stay open here. Returns 1, or 0 with errno
  set: EPIPE where the other end is gone, without a signal.
*/
extern int session_send(struct session *, char const *s, size_t len, int const *fds,
  unsigned int n);

/*
  Waits until deadline for the next message. Returns its type, with *m set to it, valid until the
  next call, its descriptors the caller's, close-on-exec, as many as the type has. Returns 0 at end
  of file, -1 on error: errno is ETIMEDOUT, EPROTO for what the protocol forbids, or a system
  call's.
*/
extern int session_receive(struct session *, unixmessage *m, tain const *deadline);

#endif
