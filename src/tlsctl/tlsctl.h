/* ISC licence: see COPYING. */

/*
  The application's side of UCSPI-TLS: asks the TLS side before it, which is tls-chain, sslserver
  or any other, to start TLS on the connection. No TLS library, C99 and POSIX.1-2008 only: link with
  libtlsctl, or copy these two files. The page is tlsctl(3).

  A server, whose network is 0 and 1, and whose input buffer holds n bytes after STARTTLS:

      write(1, "220 go ahead\r\n", 14);
      if (tlsctl_start(0, 1, n, facts, sizeof facts) != TLSCTL_STARTED) _exit(1);
      ... forget all that the client has said, and go on with 0 and 1
*/

#ifndef TLSCTL_H
#define TLSCTL_H

#include <stddef.h>

enum tlsctl_status
{
  TLSCTL_STARTED,     /* what passes from now on passes through TLS */
  TLSCTL_NOT_OFFERED, /* there is nobody to ask: nothing has been done */
  TLSCTL_MISPLACED,   /* the network is not at rfd and wfd */
  TLSCTL_INJECTED,    /* unread was not 0: somebody wants plaintext to be taken for TLS */
  TLSCTL_REFUSED,     /* the TLS side has not started TLS */
  TLSCTL_ERROR        /* a system call failed: see errno */
};

/* Room for the facts of tls-chain, and to spare. */
#define TLSCTL_SIZE 8192

/*
  Whether TLS can be had: SSLCTLFD, SSLREADFD and SSLWRITEFD name open descriptors, and the TLS side
  has not gone, as tls-await -t does when nobody asks. 1 or 0.
*/
extern int tlsctl_offered(void);

/*
  Starts TLS, and returns when it has begun. rfd and wfd are the network's descriptors, as the
  caller uses them: 0 and 1 in a server, 6 and 7 in a client. unread is the number of bytes that
  the caller has read from rfd and not used yet: what is in its input buffer after STARTTLS, or,
  in a client, after the reply to it. They came in plaintext, and nobody knows from whom, so it has
  to be 0.

  s, of size bytes, gets the facts of the session, for tlsctl_fact: NAME=value, each closed by a
  null byte, and one more; only those whose names begin with SSL_. After TLSCTL_REFUSED it holds
  the reason, if the TLS side tells one on the descriptor of SSLREASONFD, as tls-chain does; else it
  is empty. If s is null, the request is y, not Y: nothing is waited for, and TLSCTL_STARTED only
  means that rfd is at its end if there is no TLS.

  Returns TLSCTL_STARTED, with TLS at rfd and wfd: what they were is no more, nor is any copy of it
  on 0, 1, 2, 6 and 7. After any other status than TLSCTL_NOT_OFFERED, the connection is shut down,
  and rfd and wfd are /dev/null: nobody can go on in plaintext by mistake. SSLCTLFD and the others
  are then no longer in the environment, and their descriptors closed. rfd and wfd may be equal only
  if the descriptors of the TLS side are, too: else EINVAL.

  Waits as long as the TLS side needs. Not for a program with threads: it changes the environment.
*/
extern enum tlsctl_status tlsctl_start(int rfd, int wfd, size_t unread, char *s, size_t size);

/* The value of a fact in s, as tlsctl_start has left it, or null. It is part of s. */
extern char const *tlsctl_fact(char const *s, char const *name);

/* A few words that say what a status means, for a log. */
extern char const *tlsctl_text(enum tlsctl_status);

#endif
