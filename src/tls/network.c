/* ISC licence: see COPYING. */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/djbunix.h>

#include "network.h"

#ifdef __linux__
#define SIOCOUTQ TIOCOUTQ  /* tcp(7); the kernel's headers are not where every libc is */
#define SIOCOUTQNSD 0x894B
#endif

/* How long the peer may be silent after it has taken everything, and how much it may say. */
enum { SILENCE_SECONDS = 5, DROP_MAX = 64 << 20, TICK_MAX_MS = 1000 };

/*
  The flag O_NONBLOCK would be seen by everyone who holds the same socket, so a socket is asked
  not to wait call by call. What is no socket has no such call: there the flag is set, and taken
  back in the end.
*/
static int network_unblock(int fd)
{
  int type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof type }) == 0) return 0;
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && !(flags & O_NONBLOCK) && ndelay_on(fd) == 0;
}

/* Closes *fd, as far as the flag goes as it was found. */
static void network_close(int *fd, int unblocked)
{
  if (unblocked) ndelay_off(*fd);
  close(*fd);
  *fd = -1;
}

static int is_same_file(int a, int b)
{
  struct stat s, t;
  if (fstat(a, &s) < 0 || fstat(b, &t) < 0) return 0;
  return s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

void network_init(struct network *n, int rfd, int wfd)
{
  memset(n, 0, offsetof(struct network, in));
  buf_clear(&n->in);
  buf_clear(&n->out);
  n->rfd = rfd;
  n->wfd = wfd;
  n->in.size = n->out.size = RAW_SIZE;
  n->is_one = is_same_file(rfd, wfd);
  n->unblocked[0] = network_unblock(rfd);
  n->unblocked[1] = network_unblock(wfd);
  n->is_tcp = setsockopt(wfd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0;
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

static void network_fail(struct network *n, int e)
{
  n->read_errno = e;
  if (n->is_one && !n->write_errno) n->write_errno = e; /* a reset is one of both directions */
}

int network_fill(struct network *n)
{
  size_t room = buf_room(&n->in);
  if (!n->readable || network_at_end(n) || !room) return 0;
  ssize_t r = raw_read(n->rfd, n->in.s + n->in.tail, room);
  if (r < (ssize_t)room) n->readable = 0;
  if (r < 0 && is_wait(errno)) return 0;
  if (r < 0) network_fail(n, errno);
  if (!r) n->eof = 1;
  if (r > 0) n->in.tail += r;
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
  else
  {
    buf_skip(&n->out, r);
    n->written += r;
  }
  return 1;
}

/* An error that no read or write has met, as none is tried any more, is there to be asked for. */
static void network_ask(struct network *n)
{
  int e = 0;
  if (n->write_errno) return;
  if (getsockopt(n->wfd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e }) < 0) return;
  if (e && n->is_one && !network_at_end(n)) n->read_errno = e;
  n->write_errno = e;
}

void network_notice(struct network *n, iopause_fd const *x)
{
  if (x->fd != n->rfd) return; /* a write will tell */
  if (x->events) n->readable = 1;
  else n->hung_up = 1;
}

/* Bytes that the system has taken and the peer has not; our own end counts as one of them. */
static unsigned int network_queued(struct network *n)
{
  int queued = 0;
#ifdef SIOCOUTQ
  if (!n->is_tcp || ioctl(n->wfd, SIOCOUTQ, &queued) < 0 || queued < 0) queued = 0;
#endif
  if (queued) network_ask(n);
  return queued;
}

/*
  A reset brings no acknowledgement: what was sent may have been taken, as a client has that hangs
  up on the last answer. What was not sent has not.
*/
int network_has_lost(struct network const *n)
{
  int unsent = 0;
#ifdef SIOCOUTQNSD
  if (!n->is_tcp || ioctl(n->wfd, SIOCOUTQNSD, &unsent) < 0 || unsent < 0) unsent = 0;
#endif
  return n->lost || (n->write_errno && n->written - unsent < n->due);
}

uint64_t network_taken(struct network *n)
{
  unsigned int queued = network_queued(n);
  if (queued && n->ended) queued--;
  return queued < n->written ? n->written - queued : 0;
}

int network_is_settled(struct network *n)
{
  return !buf_len(&n->out) && (!network_queued(n) || n->write_errno);
}

int network_is_delivered(struct network *n)
{
  return n->farewell && network_taken(n) >= n->due;
}

void network_farewell(struct network *n)
{
  if (n->farewell) return;
  n->farewell = 1;
  n->due = n->written;
}

void network_end(struct network *n)
{
  if (n->ended) return;
  network_farewell(n);
  n->ended = 1;
  if (shutdown(n->wfd, SHUT_WR) < 0 && errno == ENOTSOCK) network_close(&n->wfd, n->unblocked[1]);
}

void network_tick(unsigned int *ms, tain *deadline)
{
  tain next;
  tain_from_millisecs(&next, *ms);
  tain_add_g(&next, &next);
  if (tain_less(&next, deadline)) *deadline = next;
  *ms = *ms < TICK_MAX_MS / 2 ? *ms * 2 : TICK_MAX_MS;
}

/* Moves what can be moved to the peer, and then our end. */
static void network_finish(struct network *n)
{
  network_flush(n);
  if (!buf_len(&n->out)) network_end(n);
}

int network_is_over(struct network *n, int peer_ended)
{
  network_finish(n);
  if (n->write_errno && network_at_end(n)) return 1;
  return n->ended && network_is_settled(n) && (peer_ended || network_at_end(n));
}

void network_linger(struct network *n, int peer_ended, unsigned int seconds)
{
  tain end, silence;
  unsigned int ms = NETWORK_TICK_MS;
  size_t dropped = 0;
  tain_now_g();
  tain_addsec_g(&end, seconds);
  tain_addsec_g(&silence, SILENCE_SECONDS);
  n->readable = 1;
  while (tain_future(&end))
  {
    iopause_fd x[2];
    unsigned int k = 0;
    network_finish(n);
    if (dropped < DROP_MAX && network_fill(n)) tain_addsec_g(&silence, SILENCE_SECONDS);
    dropped += buf_len(&n->in);
    buf_clear(&n->in);
    int settled = n->ended && network_is_settled(n);
    if (settled && (peer_ended || network_at_end(n) || !tain_future(&silence))) break;
    if (n->write_errno && network_at_end(n)) break;
    tain deadline = settled && tain_less(&silence, &end) ? silence : end;
    if (n->ended && !settled) network_tick(&ms, &deadline);
    int wanted = !network_at_end(n) && dropped < DROP_MAX;
    if (wanted || !n->hung_up)
      x[k++] = (iopause_fd){ .fd = n->rfd, .events = wanted ? IOPAUSE_READ : 0 };
    if (!n->ended) x[k++] = (iopause_fd){ .fd = n->wfd, .events = IOPAUSE_WRITE };
    int r = iopause_g(x, k, &deadline);
    if (r < 0) break;
    for (unsigned int i = 0; r && i < k; i++)
      if (x[i].revents) network_notice(n, &x[i]);
  }
  network_hang_up(n);
}

void network_hang_up(struct network *n)
{
  int fd[2] = { n->rfd, n->wfd == n->rfd ? -1 : n->wfd };
  n->rfd = n->wfd = -1;
  for (int i = 0; i < 2; i++)
  {
    if (fd[i] < 0) continue;
    shutdown(fd[i], SHUT_RDWR);
    network_close(&fd[i], n->unblocked[i]);
  }
}
