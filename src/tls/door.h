/* ISC licence: see COPYING. */

/* Descriptor 0 of a resident engine: where it gets the session sockets of its chains. */

#ifndef TLS_CHAIN_DOOR_H
#define TLS_CHAIN_DOOR_H

enum door
{
  DOOR_NONE,
  DOOR_LISTENS, /* a listening socket: who connects brings one */
  DOOR_IS_SENT, /* an end of a pair: they come over it, each with the byte SESSION_DOOR */
};

/* What descriptor 0 is. Sets O_NONBLOCK on it. */
extern enum door door_inherit(void);

/*
  A session socket that has come, close-on-exec. Returns -1 with errno set if there is none, or
  none can be had now: EPIPE if none will come any more.
*/
extern int door_take(enum door);

#endif
