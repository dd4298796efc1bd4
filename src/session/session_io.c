/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>
#include <string.h>

#include <skalibs/cbuffer.h>
#include <skalibs/iopause.h>
#include <skalibs/uint32.h>
#include <skalibs/unixmessage.h>

#include "session.h"

enum { HEADER = 6 }; /* of a unixmessage: 4 bytes of length, 2 of descriptors */

int session_init(struct session *s, int fd, int takes_fds)
{
  unixmessage_sender_init(&s->sender, fd);
  if (!unixmessage_receiver_init(&s->receiver, fd, s->mainbuf, sizeof s->mainbuf,
    s->auxbuf, sizeof s->auxbuf)) return 0;
  if (!takes_fds) unixmessage_receiver_refuse_fds(&s->receiver);
  return 1;
}

void session_free(struct session *s)
{
  unixmessage_sender_free(&s->sender);
  unixmessage_receiver_free(&s->receiver);
}

int session_send(struct session *s, char const *msg, size_t len, int const *fds, unsigned int n)
{
  unixmessage m = { .s = (char *)msg, .len = len, .fds = (int *)fds, .nfds = n };
  return unixmessage_put(&s->sender, &m) && unixmessage_sender_flush(&s->sender);
}

/*
  A unixmessage may claim 256 MiB, and the library would store them all. So the length is looked
  at before the library does: in its buffer, or still in the socket. Senders write a header whole.
*/
static int length_is_bounded(unixmessage_receiver *r)
{
  char head[HEADER];
  uint32_t len;
  size_t n = cbuffer_len(&r->mainb);
  if (r->maindata.len != r->mainlen || r->auxdata.len != r->auxlen) return 1; /* was checked */
  if (n)
  {
    struct iovec v[2];
    if (n < HEADER) return 0;
    cbuffer_rpeek(&r->mainb, v);
    n = v[0].iov_len < HEADER ? v[0].iov_len : HEADER;
    memcpy(head, v[0].iov_base, n);
    if (n < HEADER) memcpy(head + n, v[1].iov_base, HEADER - n);
  }
  else
  {
    ssize_t got = recv(r->fd, head, HEADER, MSG_PEEK | MSG_DONTWAIT);
    if (got <= 0) return 1; /* nothing there yet, end of file, or an error for the library to see */
    if (got < HEADER) return 0;
  }
  uint32_unpack_big(head, &len);
  return len >= 1 && len <= SESSION_MAX;
}

static int is_fds(char type, unsigned int n)
{
  return type == SESSION_START ? n == 2 || n == 3 : n == (type == SESSION_JOIN ? 2 : 0);
}

int session_receive(struct session *s, unixmessage *m, tain const *deadline)
{
  /* Who has just asked finds no answer yet: to look before poll tells would be for nothing. */
  for (int is_there = !!cbuffer_len(&s->receiver.mainb);; is_there = 0)
  {
    iopause_fd x = { .fd = s->receiver.fd, .events = IOPAUSE_READ };
    int r = is_there ? 1 : iopause_g(&x, 1, deadline);
    if (r < 0) return -1;
    if (!r) return errno = ETIMEDOUT, -1;
    if (!length_is_bounded(&s->receiver)) return errno = EPROTO, -1;
    r = unixmessage_receive(&s->receiver, m);
    if (r < 0) return errno == EPIPE || errno == ECONNRESET ? 0 : -1;
    if (r > 0) break;
  }
  if (is_fds(m->s[0], m->nfds)) return (unsigned char)m->s[0];
  unixmessage_drop(m);
  return errno = EPROTO, -1;
}
