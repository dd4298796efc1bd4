/* ISC licence: see COPYING. */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <errno.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>
#include <skalibs/iopause.h>

#include "engine.h"

enum { TLS_RECORD_HANDSHAKE = 0x16 }; /* RFC 8446, 5.1 */

/*
  The flag O_NONBLOCK would be seen by everyone who holds the same socket, so a socket is asked
  not to wait call by call. What is no socket has no such call: there the flag is set.
*/
static void unblock(int fd)
{
  int type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof type }) < 0) ndelay_on(fd);
}

void network_init(struct network *n, int rfd, int wfd, int is_server)
{
  n->rfd = rfd;
  n->wfd = wfd;
  n->is_server = is_server;
  n->in.size = n->out.size = RAW_SIZE;
  unblock(rfd);
  unblock(wfd);
  setsockopt(wfd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

int network_at_end(struct network const *n)
{
  return n->eof || n->read_errno;
}

static ssize_t raw_read(int fd, char *s, size_t len)
{
  ssize_t r = fd_recv(fd, s, len, MSG_DONTWAIT);
  return r < 0 && errno == ENOTSOCK ? fd_read(fd, s, len) : r;
}

static ssize_t raw_write(int fd, char const *s, size_t len)
{
  ssize_t r = fd_send(fd, s, len, MSG_DONTWAIT | MSG_NOSIGNAL);
  return r < 0 && errno == ENOTSOCK ? fd_write(fd, s, len) : r;
}

static int is_wait(int e)
{
  return e == EAGAIN || e == EWOULDBLOCK;
}

int network_fill(struct network *n)
{
  size_t room = buf_room(&n->in);
  if (!n->readable || network_at_end(n) || !room) return 0;
  ssize_t r = raw_read(n->rfd, n->in.s + n->in.tail, room);
  if (r < (ssize_t)room) n->readable = 0;
  if (r < 0 && is_wait(errno)) return 0;
  if (r < 0) n->read_errno = errno;
  if (r < 0 && !n->write_errno) n->write_errno = errno; /* a reset is one of both directions */
  if (!r) n->eof = 1;
  if (r > 0)
  {
    n->in.tail += r;
    if (n->is_server && !n->started && n->in.s[0] != TLS_RECORD_HANDSHAKE) n->injected = 1;
    n->started = 1;
  }
  return 1;
}

int network_flush(struct network *n)
{
  if (!buf_len(&n->out)) return 0;
  if (n->write_errno || n->ended)
  {
    if (!n->farewell) n->lost = 1;
    buf_clear(&n->out);
    return 1;
  }
  ssize_t r = raw_write(n->wfd, n->out.s + n->out.head, buf_len(&n->out));
  if (r < 0 && is_wait(errno)) return 0;
  if (r < 0) n->write_errno = errno;
  else buf_skip(&n->out, r);
  return 1;
}

/*
  The end of the raw stream is answered with "want input", never with an end: OpenSSL 3 makes an
  end a fatal error, and the direction to the peer would be lost with it. Who calls libtls looks
  at the network to tell the two apart.
*/
ssize_t network_read(struct tls *tls, void *s, size_t len, void *arg)
{
  struct network *n = arg;
  (void)tls;
  if (!buf_len(&n->in)) network_fill(n);
  if (n->injected || !buf_len(&n->in)) return TLS_WANT_POLLIN;
  return buf_get(&n->in, s, len);
}

ssize_t network_write(struct tls *tls, void const *s, size_t len, void *arg)
{
  struct network *n = arg;
  (void)tls;
  if (!buf_room(&n->out)) network_flush(n);
  if (!buf_room(&n->out)) return TLS_WANT_POLLOUT;
  return buf_put(&n->out, s, len);
}

void network_end(struct network *n)
{
  if (n->ended) return;
  n->ended = n->farewell = 1;
  if (shutdown(n->wfd, SHUT_WR) < 0 && errno == ENOTSOCK) close(n->wfd), n->wfd = -1;
}

/* What there is to wait for on the way out; 0 when it is over. */
static unsigned int linger_interest(struct network const *n, iopause_fd *x)
{
  unsigned int k = 0;
  if (!network_at_end(n)) x[k++] = (iopause_fd){ .fd = n->rfd, .events = IOPAUSE_READ };
  if (!n->ended) x[k++] = (iopause_fd){ .fd = n->wfd, .events = IOPAUSE_WRITE };
  return k;
}

void network_linger(struct network *n, int seconds)
{
  tain deadline;
  tain_now_g();
  tain_addsec_g(&deadline, seconds);
  for (;;)
  {
    iopause_fd x[2];
    network_flush(n);
    if (!buf_len(&n->out)) network_end(n);
    buf_clear(&n->in);
    n->readable = 1;
    network_fill(n);
    unsigned int k = linger_interest(n, x);
    if (!k || !tain_future(&deadline) || iopause_g(x, k, &deadline) <= 0) break;
  }
  shutdown(n->rfd, SHUT_RDWR);
  close(n->rfd);
  if (n->wfd >= 0)
  {
    shutdown(n->wfd, SHUT_RDWR);
    close(n->wfd);
  }
}
