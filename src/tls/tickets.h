/* ISC licence: see COPYING. */

#ifndef TLS_CHAIN_TICKETS_H
#define TLS_CHAIN_TICKETS_H

/*
  Lets servers that are configured from now on send no session tickets: no engine keeps what a
  later session would need to be resumed. If it cannot be had, they are sent, and harm nobody.
*/
extern void tickets_keep_back(void);

#endif
