/* ISC licence: see COPYING. */

/* The TLS engine: one session, from START to ENDED, on one session socket. */

#ifndef TLS_CHAIN_ENGINE_H
#define TLS_CHAIN_ENGINE_H

#include <sys/types.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <skalibs/gccattributes.h>
#include <skalibs/tai.h>

#include <tls.h>

#include "../session/session.h"

/*
  Bytes on their way: written at tail, read at head, started anew when empty, so that a session
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
  b->head = b->tail = 0;
}

static inline void buf_skip(struct buf *b, size_t n)
{
  b->head += n;
  if (b->head == b->tail) buf_clear(b);
}

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

/* The network, as raw TLS records in two buffers. libtls sees it through two callbacks only. */
struct network
{
  int rfd; /* -1 once closed */
  int wfd;
  int is_server;
  int readable;    /* poll said so, and nothing has been read since that fell short */
  int started;     /* a first byte has been seen, and it may begin a handshake */
  int injected;    /* bytes waited before TLS, that cannot be part of it */
  int eof;         /* the raw stream has ended */
  int read_errno;  /* or has failed */
  int write_errno; /* nothing more can be written */
  int farewell;    /* what is in out is close_notify or later: no loss of the application's */
  int ended;       /* we have ended the direction to the peer */
  int lost;        /* and something was left to write: a peer that hangs up early loses nothing */
  struct buf in;
  struct buf out;
};

/* Takes over both descriptors. */
extern void network_init(struct network *, int rfd, int wfd, int is_server);

/* Move what can be moved without waiting. Return whether anything was, or an end was seen. */
extern int network_fill(struct network *);
extern int network_flush(struct network *);

/* Whether the last word has been said on the way in, by an end or a failure. */
extern int network_at_end(struct network const *);

/* The callbacks of libtls; the last argument is the network. */
extern ssize_t network_read(struct tls *, void *, size_t, void *);
extern ssize_t network_write(struct tls *, void const *, size_t, void *);

/* Ends the direction to the peer, for all who hold a copy of the socket. */
extern void network_end(struct network *);

/*
  Sends what is left, ends the direction to the peer, and drops what still comes from it until
  it ends too, so that no reset overtakes the last bytes sent. Bounded by seconds. Closes both.
*/
extern void network_linger(struct network *, int seconds);

struct engine
{
  struct session session;
  struct session_start start;
  struct network net;
  struct tls *tls;
  struct buf up;   /* plaintext from the peer to the application */
  struct buf down; /* and from the application to the peer */
};

/*
  Settings, from the environment, for a role and a policy on certificates: with every file read
  that they need. A server's context is ready to use; a client's is made for each session.
*/
struct settings
{
  struct tls *server[SESSION_PEERCERT_REQUIRED + 1];
  struct tls_config *client[SESSION_PEERCERT_REQUIRED + 1];
};

/* Loads those for the role and the policy of start; dies through engine_refuse if one is bad. */
extern void settings_load(struct engine *, struct settings *);

/* The context for this session; dies through engine_refuse if its settings were not loaded. */
extern struct tls *settings_use(struct engine *, struct settings const *);

/* Dies through engine_refuse, naming the file that libtls did not take for reason. */
extern void settings_blame(struct engine *, char const *reason) gccattr_noreturn;

/* Whether name is one that KEYFILE:name or KEYFILE:*.rest in the environment knows. */
extern int settings_know_name(char const *name);

/*
  Gives up what the handshake does not need: core dumps, ptrace, new privileges, and if TLS_UID
  and TLS_GID are set the user, the group and all supplementary groups. Returns what could not be
  done, errno set, or null.
*/
extern char const *confine(void);

/*
  Makes a connection of the context, without a byte on the network. It is here that libtls looks at
  a client's files, so this comes before privileges are dropped. Dies as settings_load does.
*/
extern void handshake_begin(struct engine *);

/* Runs the handshake. Returns null, or the reason of the failure. */
extern char const *handshake(struct engine *);

/* What an administrator could do about such a reason; may be empty. */
extern char const *handshake_hint(char const *reason);

/*
  What is known of the session, checked; the strings live as long as text, of FACTS_TEXT_MAX bytes,
  and the connection.
  Returns null, or the reason why the peer cannot be let in.
*/
#define FACTS_TEXT_MAX 384
extern char const *facts_fill(struct session_facts *, struct tls *, char *text);

/*
  Writes the peer's certificates in PEM to fd, without waiting for a reader: what fits into a pipe
  or a file. Closes fd. Returns null, or the reason why it could not.
*/
extern char const *facts_write_chain(struct tls *, int fd);

/* Moves bytes between network and application until both have ended, and says how it went. */
extern void relay(struct engine *, int const *plain, struct session_join const *,
  struct session_end *);

/*
  Copies a host name of at most HOSTNAME_MAX bytes in lower case, the form in which a script can
  compare it. Returns 0, with an empty copy, if it is none (RFC 6066, 3; RFC 1123, 2.1, and the
  underscore): a script may well make a path of it.
*/
#define HOSTNAME_MAX 253
extern int hostname_copy(char *to, char const *name);

/* Whether name is an IP address. */
extern int is_address(char const *name);

/* Joins a null-ended list of strings into to, of max bytes with the null byte; cuts the rest. */
extern void text_join(char *to, size_t max, char const *const *parts);
#define TEXT_JOIN(to, ...) text_join((to), sizeof(to), (char const *const []){ __VA_ARGS__, 0 })

/* Cuts the tail off s if it is these two strings. */
extern void text_cut(char *s, char const *a, char const *b);

/*
  Tells the chain that the session cannot be, and why, the parts joined; hangs up the network;
  exits with code.
*/
extern void engine_refusev(struct engine *, int code, char const *const *parts) gccattr_noreturn;
#define engine_refuse(e, code, ...) \
  engine_refusev((e), (code), (char const *const []){ __VA_ARGS__, 0 })

/* The chain went away before JOIN: hangs up the network, exits 0. */
extern void engine_abandon(struct engine *) gccattr_noreturn;

/*
  Serves one session on fd, as tls-engine does; returns its exit code. settings is null for an
  engine of the chain's own, which loads what START asks for, and then confines itself.
*/
extern int engine_serve(struct engine *, int fd, struct settings const *settings);

/* A session that is not on any network yet; engine_refuse then tells stderr. */
extern struct engine *engine_new(void);

/*
  Runs handshakes of a server with itself, in memory, by TLS 1.2 and 1.3. Whatever libtls does only
  once in a process is then done, for all processes that are forked from this one. A protocol that
  is not allowed is skipped: no failure matters.
*/
extern void rehearse(struct tls *server);

/* The same for a client, whose files libtls looks at as it connects. Dies as settings_load does. */
extern void rehearse_client(struct engine *, struct tls_config *);

/* Closes fd and all descriptors above it. */
extern void engine_closefrom(int fd);

#endif
