/* ISC licence: see COPYING. */

#ifndef _POSIX_C_SOURCE /* for cc -std=c99, where it is not told */
#define _POSIX_C_SOURCE 200809L
#endif
#include <sys/socket.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tlsctl.h"

/* UCSPI-TLS has the first three. The last is tls-chain's, and there may be none. */
static char const *const names[] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD", "SSLREASONFD" };

enum { CTL, IN, OUT, REASON, CHANNELS };

/* Where a program may have the network, or a copy of it: as a server, for its log, as a client. */
static int const places[] = { 0, 1, 2, 6, 7 };

enum { PLACES = sizeof places / sizeof *places };

/* The descriptor that a variable names, or -1. */
static int channel_get(char const *name)
{
  char const *s = getenv(name);
  char *end;
  if (!s || *s < '0' || *s > '9') return -1;
  long n = strtol(s, &end, 10);
  return *end || n > INT_MAX || fcntl((int)n, F_GETFD) < 0 ? -1 : (int)n;
}

/*
  Takes the channels out of the way of what goes to rfd and wfd: their numbers may be any, and one
  socket may be for both directions. Closes them where they were.
*/
static int channels_take(int fd[CHANNELS], int lowest)
{
  int given[CHANNELS], ok = 1, e;
  for (int i = 0; i < CHANNELS; i++) given[i] = channel_get(names[i]);
  for (int i = 0; i < CHANNELS; i++)
  {
    fd[i] = given[i] < 0 ? -1 : fcntl(given[i], F_DUPFD_CLOEXEC, lowest);
    if (fd[i] < 0 && given[i] >= 0) ok = 0;
  }
  e = errno;
  for (int i = 0; i < CHANNELS; i++)
    if (given[i] >= 0 && (i != OUT || given[OUT] != given[IN])) close(given[i]);
  errno = e;
  return ok;
}

/* Whether fd is the socket or the pipe st. A terminal or a file may well be for input and log. */
static int is_channel(struct stat const *st, int fd)
{
  struct stat other;
  return (S_ISSOCK(st->st_mode) || S_ISFIFO(st->st_mode)) && fstat(fd, &other) == 0
    && st->st_dev == other.st_dev && st->st_ino == other.st_ino;
}

/* Whether fd is what SSLNETID names: its device and inode, DEV:INO. */
static int is_named(char const *id, int fd)
{
  struct stat st;
  char *end;
  return fstat(fd, &st) == 0 && strtoull(id, &end, 10) == st.st_dev && *end == ':'
    && strtoull(end + 1, &end, 10) == st.st_ino && !*end;
}

/* Makes /dev/null of fd, and of every copy of it where programs read and write. */
static int connection_leave(int fd)
{
  struct stat st;
  int known = fstat(fd, &st) == 0;
  int null = open("/dev/null", O_RDWR);
  if (null < 0) return 0;
  int ok = null == fd || dup2(null, fd) >= 0;
  for (int i = 0; i < PLACES; i++)
    if (known && is_channel(&st, places[i]) && dup2(null, places[i]) < 0) ok = 0;
  if (null != fd) close(null);
  return ok;
}

/* Ends the connection, for all who hold a copy of it. Keeps errno. */
static void connection_end(int rfd, int wfd, char const *id)
{
  int e = errno;
  shutdown(rfd, SHUT_RDWR);
  shutdown(wfd, SHUT_RDWR);
  connection_leave(rfd);
  connection_leave(wfd);
  for (int i = 0; id && i < PLACES; i++)
  {
    if (!is_named(id, places[i])) continue;
    shutdown(places[i], SHUT_RDWR);
    connection_leave(places[i]);
  }
  errno = e;
}

/*
  The reply up to its end, an empty variable, or to the end of file, within size bytes. Returns its
  length, or -1.
*/
static ssize_t reply_read(int ctl, char *s, size_t size)
{
  size_t n = 0;
  while (n < 2 ? n < 1 || *s : s[n - 1] || s[n - 2])
  {
    if (n == size) return errno = EMSGSIZE, -1;
    ssize_t r = read(ctl, s + n, size - n);
    if (!r || (r < 0 && errno == ECONNRESET)) break;
    if (r > 0) n += (size_t)r;
    else if (errno != EINTR) return -1;
  }
  return (ssize_t)n;
}

/*
  Variables that tell of a session begin with SSL_. By two others that do, OpenSSL is told whom to
  trust. Nothing else that a reply may hold is kept.
*/
static int is_fact(char const *s)
{
  return !strncmp(s, "SSL_", 4) && strchr(s, '=')
    && strncmp(s, "SSL_CERT_FILE=", 14) && strncmp(s, "SSL_CERT_DIR=", 13);
}

/* Leaves of the n bytes of a reply, which end with a null byte, the facts, and a null byte more. */
static void reply_clean(char *s, size_t n)
{
  size_t kept = 0;
  for (size_t i = 0, len; i < n; i += len)
  {
    len = strlen(s + i) + 1;
    if (!is_fact(s + i)) continue;
    memmove(s + kept, s + i, len);
    kept += len;
  }
  s[kept] = 0;
}

/* Reads what the TLS side has written, to its end, as a text that is fit to be shown. */
static void reason_read(int fd, char *s, size_t size)
{
  size_t n = 0;
  while (n < size - 1)
  {
    ssize_t r = read(fd, s + n, size - 1 - n);
    if (r > 0) n += (size_t)r;
    else if (!r || errno != EINTR) break;
  }
  if (n && s[n - 1] == '\n') n--;
  s[n] = 0;
  for (; *s; s++)
    if ((unsigned char)*s < ' ' || *s == 127) *s = '?';
}

static enum tlsctl_status tls_await(int const *fd, char *s, size_t size)
{
  if (send(fd[CTL], s ? "Y" : "y", 1, MSG_NOSIGNAL) != 1)
    return errno == EPIPE || errno == ECONNRESET ? TLSCTL_REFUSED : TLSCTL_ERROR;
  if (!s) return TLSCTL_STARTED;
  ssize_t n = reply_read(fd[CTL], s, size);
  if (n == 1 ? !*s : n > 1 && !s[n - 1] && !s[n - 2])
  {
    reply_clean(s, (size_t)n);
    return TLSCTL_STARTED;
  }
  *s = 0;
  if (n >= 0 && fd[REASON] >= 0) reason_read(fd[REASON], s, size);
  return n < 0 ? TLSCTL_ERROR : TLSCTL_REFUSED;
}

static int channels_are_open(void)
{
  return channel_get(names[CTL]) >= 0 && channel_get(names[IN]) >= 0
    && channel_get(names[OUT]) >= 0;
}

int tlsctl_offered(void)
{
  /* A TLS side says nothing before it is asked: what comes is its end. */
  struct pollfd p = { .fd = channel_get(names[CTL]), .events = POLLIN };
  return channels_are_open() && poll(&p, 1, 0) <= 0;
}

/* What keeps TLS from being asked for; TLSCTL_STARTED if nothing does. */
static enum tlsctl_status start_check(int rfd, int wfd, size_t unread, char const *id)
{
  if (id && !is_named(id, rfd) && !is_named(id, wfd)) return TLSCTL_MISPLACED;
  if (rfd == wfd && channel_get(names[IN]) != channel_get(names[OUT]))
    return errno = EINVAL, TLSCTL_ERROR;
  return unread ? TLSCTL_INJECTED : TLSCTL_STARTED;
}

enum tlsctl_status tlsctl_start(int rfd, int wfd, size_t unread, char *s, size_t size)
{
  int fd[CHANNELS], lowest = rfd > wfd ? rfd : wfd;
  char const *id = getenv("SSLNETID");
  if (!size) s = 0;
  if (s) *s = 0;
  if (!channels_are_open()) return TLSCTL_NOT_OFFERED;
  enum tlsctl_status status = start_check(rfd, wfd, unread, id);
  if (!channels_take(fd, (lowest > 7 ? lowest : 7) + 1) && !status) status = TLSCTL_ERROR;
  if (!status) status = tls_await(fd, s, size);
  if (!status && !(connection_leave(rfd) && connection_leave(wfd)
    && dup2(fd[IN], rfd) >= 0 && dup2(fd[OUT], wfd) >= 0)) status = TLSCTL_ERROR;
  if (status) connection_end(rfd, wfd, id);
  for (int i = 0; i < CHANNELS; i++)
  {
    if (fd[i] >= 0) close(fd[i]);
    unsetenv(names[i]);
  }
  unsetenv("SSLNETID");
  return status;
}

char const *tlsctl_fact(char const *s, char const *name)
{
  size_t n = strlen(name);
  for (; *s; s += strlen(s) + 1)
    if (!strncmp(s, name, n) && s[n] == '=') return s + n + 1;
  return 0;
}

char const *tlsctl_text(enum tlsctl_status status)
{
  switch (status)
  {
    case TLSCTL_STARTED: return "TLS has started";
    case TLSCTL_NOT_OFFERED: return "TLS is not offered";
    case TLSCTL_MISPLACED: return "the network is not where TLS is wanted";
    case TLSCTL_INJECTED: return "bytes came in plaintext before TLS began";
    case TLSCTL_REFUSED: return "TLS did not start";
    case TLSCTL_ERROR: break;
  }
  return "a system call failed";
}
