/* ISC licence: see COPYING. */

/* What tests/fuzz/relay.c has around the engine. */

#ifndef TLS_CHAIN_WORLD_H
#define TLS_CHAIN_WORLD_H

#include <sys/types.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

/* The first byte; its two highest bits are the network, the second byte's low half the start. */
enum flags
{
  FLAG_CLIENT = 1, /* the engine's role */
  FLAG_TLS12 = 2,
  FLAG_NO_NOTIFY = 4,
  FLAG_STRICT = 8,
  FLAG_IDLE = 16,   /* tls-io -t, as the second byte's high half says */
  FLAG_SILENCE = 32, /* nobody does anything in the end, but time passes */
};

enum network_kind { NETWORK_UNIX, NETWORK_SMALL, NETWORK_TCP, NETWORK_PIPES };

enum event
{
  APP_WRITE, APP_WRITE_MORE, APP_READ, APP_END, APP_DEAF,
  PEER_WRITE, PEER_WRITE_MORE, PEER_READ, PEER_NOTIFY, PEER_FIN, PEER_CLOSE,
  PEER_KEYS, PEER_RENEGOTIATE, RAW,
  PAUSE, SKIP,
};

/* One direction, as its two ends know it. */
struct stream
{
  size_t sent;
  size_t got;
};

struct world
{
  uint8_t const *events;
  size_t n;
  int flags;
  int start;
  int much;  /* the second byte's high half */
  int chain; /* our end of the session socket */
  int net_r; /* the peer's ends of the network, -1 once closed; the engine's */
  int net_w;
  int engine_net[2];
  int app_w; /* where the application writes; where it reads; the engine's ends */
  int app_r;
  int engine_fds[2];
  SSL *peer;
  struct stream up;   /* from the peer */
  struct stream down; /* from the application */
  int has_failed; /* a call of the peer's TLS has failed; */
  int is_broken; /* it is not used any more */
  int is_mute;   /* the peer says nothing more in TLS */
  int is_fair;   /* nobody has done what may cost bytes */
  int is_deaf;   /* the application has stopped reading: its loss */
  int is_cut;    /* all was fair, but the peer has ended without close_notify */
  int is_silent; /* all was fair, until nobody did anything */
  int must_fail; /* all was fair, but the peer has sent what ends a session */
  int is_reset;    /* the peer has hung up: what was on its way may be lost, and nobody told */
  int is_late;     /* time has passed, and with it a limit, it may be */
  int is_notified; /* close_notify has come to the peer */
  int is_joined;   /* the application has got its session; */
  int has_left;    /* and the chain has ended, so that nobody hears ENDED */
  int code;        /* that of ENDED */
  int is_over;   /* the engine has ended; written by its thread */
};

/* Aborts, with a line, if it is not so. */
extern void check(int ok, char const *what);

/* The network; the ends that are ours do not block. Aborts if there is none. */
extern void network_prepare(void);
extern void network_make(struct world *, enum network_kind);

/* Does an event of the input. */
extern void event_do(struct world *, enum event, size_t much);

/* Parts of events. Return as read, as peer_result. */
extern ssize_t app_read(struct world *);
extern int peer_read(struct world *);
extern void peer_notify(struct world *);
extern void raw_write(struct world *, char const *, size_t);
extern void raw_record(struct world *, unsigned int kind, unsigned int much);
extern void net_end(struct world *);
extern void net_close(struct world *);
extern int net_is_at_end(struct world const *);
extern void end_close(int *fd);
extern void pause_for(unsigned int us);

extern int engine_is_over(struct world const *);

/* Lets time pass for the engine. */
extern void clock_skip(unsigned int seconds);

/* Waits until the engine has seen how late it is, and what has come, and waits again. */
extern void clock_settle(struct world const *);

/*
  Makes a key and a certificate, for the peers and in new files for the engine: CERTFILE and KEYFILE
  in the environment, until peer_files_remove. Returns 0 if anything fails.
*/
extern int peer_prepare(void);
extern void peer_files_remove(void);

/* A peer on these descriptors, which do not block. */
extern SSL *peer_new(int is_server, int is_tls12, int rfd, int wfd);

/* As SSL_read and SSL_write, but 0 is an end, -1 an error, and PEER_WAITS what it says. */
enum { PEER_WAITS = -2 };
extern int peer_result(SSL *, int r);

/* Puts a change of keys next; returns 0 if this libssl or this session has none. */
extern int peer_update_keys(SSL *, int with_request);

#endif
