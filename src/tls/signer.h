/* ISC licence: see COPYING. */

/*
  The signer: a process that holds the private keys, and neither reads nor has the network. It is
  forked by the process that loads the settings, before that has read a byte of a peer's, loads the
  keys, confines itself, and signs.

  It is reached by its door, a pair of Unix sockets (SOCK_SEQPACKET), and by channels: such a pair,
  too, of which one end has been sent through the door. A channel is good for one signature:

      whoever has the channel          signer
      padding, id of the key, data  -> (see key_sign)
                                    <- the signature; the channel is closed

  Whatever else it says, or if it says nothing, the channel is closed without an answer. The signer
  waits for nobody, and ends when the door and all channels are closed at their other ends.
*/

#ifndef TLS_CHAIN_SIGNER_H
#define TLS_CHAIN_SIGNER_H

#include <sys/types.h>

#include "failure.h"
#include "file.h"
#include "key.h"

#define SIGN_HEAD (1 + KEY_ID_SIZE)
#define SIGN_MAX 4096

/*
  Starts the signer of this process with the keys in n files, once they are loaded; a failure is
  that of the first that cannot be used. To be called once; the paths must stay.
*/
extern int signer_start(char const *const *paths, size_t n, struct failure *);

/* What stands for the key in the file at path, in PEM, kept here; null if it is not one of them. */
extern struct file const *signer_standin(char const *path);

/*
  A channel that is new, the caller's, close-on-exec; -1 with errno if the signer is gone or too
  busy. Where there is none left from an earlier call, n of them are made, SIGNER_AHEAD at most:
  to wake the signer costs more than a pair of sockets does.
*/
enum { SIGNER_AHEAD = 16 };
extern int signer_open(unsigned int n);

/* Closes the door here, and the channels that nobody has. */
extern void signer_leave(void);

/* Its process number; 0 if there is none. */
extern pid_t signer_pid(void);

/* What the signer does with what has come over a channel: that is closed, unless nothing has. */
extern int signer_answer(int channel, struct key const *, size_t n);

#endif
