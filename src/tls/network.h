/* ISC licence: see COPYING. */

/*
  The network as raw bytes: a buffer for each direction, what has been seen of its end, and how
  far the peer has got with what it was sent. Nothing here waits but network_linger.
*/

#ifndef TLS_CHAIN_NETWORK_H
#define TLS_CHAIN_NETWORK_H

#include <stdint.h>

#include <skalibs/iopause.h>
#include <skalibs/tai.h>

#include "buf.h"

struct network
{
  int rfd; /* -1 once closed */
  int wfd;
  int is_one;      /* both are the same socket */
  int is_tcp;      /* the system knows what the peer has acknowledged */
  int unblocked[2]; /* O_NONBLOCK was set by us on rfd, on wfd */
  int readable;    /* poll said so, and nothing has been read since that fell short */
  int hung_up;     /* both directions have ended: poll has nothing more to tell */
  int eof;         /* the raw stream has ended */
  int read_errno;  /* or has failed */
  int write_errno; /* nothing more can be written */
  int farewell;    /* what is in out is close_notify or later: no loss of the application's */
  int ended;       /* we have ended the direction to the peer */
  int lost;        /* something of the application's was left to write */
  uint64_t written; /* bytes that the system has taken */
  uint64_t due;     /* as many of them as there were before the farewell */
  struct buf in;
  struct buf out;
};

/* Takes over both descriptors. */
extern void network_init(struct network *, int rfd, int wfd);

/* Move what can be moved without waiting. Return whether anything was, or an end was seen. */
extern int network_fill(struct network *);
extern int network_flush(struct network *);

/* Whether the last word has been said on the way in, by an end or a failure. */
extern int network_at_end(struct network const *);

/* Takes note of what poll has said of rfd or wfd. */
extern void network_notice(struct network *, iopause_fd const *);

/*
  How many bytes the peer has taken: acknowledged, where the system knows it, else those that the
  system has taken. Whether these are all that were written; all that are the application's.
*/
extern uint64_t network_taken(struct network *);
extern int network_is_settled(struct network *);
extern int network_is_delivered(struct network *);

/* Whether bytes of the application's cannot get to the peer any more, and are not with it. */
extern int network_has_lost(struct network const *);

/* What comes next into out, and what comes after it, is no loss of the application's. */
extern void network_farewell(struct network *);

/* Ends the direction to the peer, for all who hold a copy of the socket. */
extern void network_end(struct network *);

/*
  The time of an acknowledgement is not told by poll: looks for it in shorter, then in longer
  intervals. Moves deadline up to the next look, and doubles *ms; TICK_MS is where it begins.
*/
enum { NETWORK_TICK_MS = 2 };
extern void network_tick(unsigned int *ms, tain *deadline);

/*
  Sends what is left and ends the direction to the peer, as far as that needs no waiting. Returns
  whether network_linger would not wait either.
*/
extern int network_is_over(struct network *, int peer_ended);

/*
  Sends what is left, ends the direction to the peer, and waits until it has taken everything and
  has ended too, so that no reset overtakes the last bytes sent. peer_ended: it has said its last
  word in TLS. Once everything is taken, waits for SILENCE_SECONDS without a byte from the peer at
  most; in all for the given seconds at most. Closes both.
*/
extern void network_linger(struct network *, int peer_ended, unsigned int seconds);

/* Closes both at once, for all who hold a copy. */
extern void network_hang_up(struct network *);

#endif
