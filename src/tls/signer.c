/* ISC licence: see COPYING. */

#include <skalibs/nonposix.h>

#include <sys/resource.h>
#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/ancil.h>
#include <skalibs/djbunix.h>
#include <skalibs/genalloc.h>
#include <skalibs/gccattributes.h>
#include <skalibs/iopause.h>
#include <skalibs/socket.h>
#include <skalibs/stralloc.h>
#include <skalibs/strerr.h>
#include <skalibs/tai.h>

#include "../session/progname.h"
#include "confine.h"
#include "inherit.h"
#include "signer.h"

/* Through the door, at the start: a stand-in for each key, then that it is ready; or a failure. */
enum { SIGNER_KEY = 'K', SIGNER_READY = 'R', SIGNER_FAILED = 'X', SIGNER_CHANNEL = 'C' };

enum { NEWS_MAX = 1 + KEY_PEM_MAX }; /* a failure is shorter */

struct standin
{
  char const *path; /* of the key */
  struct file pem;
};

static struct
{
  int door;
  pid_t pid;
  struct standin *standin;
  size_t n;
  int open[SIGNER_AHEAD]; /* channels that nobody has yet */
  unsigned int open_n;
} signer = { .door = -1 };

/* The signer */

static void news_send(int door, char type, void const *s, size_t len)
{
  char m[NEWS_MAX];
  m[0] = type;
  memcpy(m + 1, s, len);
  if (fd_send(door, m, 1 + len, MSG_NOSIGNAL) < 0) _exit(0); /* nobody there to sign for */
}

static struct key const *key_by_id(struct key const *key, size_t n, unsigned char const *id)
{
  for (size_t i = 0; i < n; i++)
    if (!memcmp(key[i].id, id, KEY_ID_SIZE)) return &key[i];
  return 0;
}

int signer_answer(int channel, struct key const *key, size_t n)
{
  unsigned char m[SIGN_MAX + 1], signature[KEY_SIGNATURE_MAX];
  ssize_t len = fd_recv(channel, (char *)m, sizeof m, MSG_DONTWAIT);
  if (len < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (len > SIGN_HEAD && len <= SIGN_MAX)
  {
    struct key const *k = key_by_id(key, n, m + 1);
    size_t signed_n = k ? key_sign(k, m[0], m + SIGN_HEAD, len - SIGN_HEAD, signature) : 0;
    if (signed_n) fd_send(channel, (char *)signature, signed_n, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  fd_close(channel);
  return 1;
}

/* Channels that have come through the door; it is closed here once it is at its other end. */
static void door_hear(int *door, genalloc *channels)
{
  for (;;)
  {
    int fd = ancil_recv_fd(*door, SIGNER_CHANNEL);
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (fd < 0 && errno == EPROTO) continue; /* a shortage of descriptors: it is lost */
    if (fd < 0)
    {
      fd_close(*door);
      *door = -1;
      return;
    }
    iopause_fd x = { .fd = fd, .events = IOPAUSE_READ };
    if (!genalloc_append(iopause_fd, channels, &x)) fd_close(fd);
  }
}

static void signer_serve(int door, struct key const *key, size_t n)
{
  genalloc channels = GENALLOC_ZERO; /* iopause_fd; the first is the door */
  iopause_fd x = { .fd = door, .events = IOPAUSE_READ };
  if (!genalloc_append(iopause_fd, &channels, &x)) return;
  for (;;)
  {
    size_t len = genalloc_len(iopause_fd, &channels), left = 1;
    iopause_fd *c = genalloc_s(iopause_fd, &channels);
    if (c[0].fd < 0 && len == 1) return;
    if (iopause_g(c, len, &tain_infinite) < 0) return strerr_warnwu1sys("wait for a signature");
    for (size_t i = 1; i < len; i++)
      if (!c[i].revents || !signer_answer(c[i].fd, key, n)) c[left++] = c[i];
    genalloc_setlen(iopause_fd, &channels, left);
    if (c[0].revents)
    {
      door = c[0].fd;
      door_hear(&door, &channels);
      genalloc_s(iopause_fd, &channels)[0].fd = door;
    }
  }
}

/* Each session has a channel here. */
static void descriptors_allow(void)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static void signer_run(char const *const *paths, size_t n) gccattr_noreturn;
static void signer_run(char const *const *paths, size_t n)
{
  char prog[PROGNAME_SIZE], pem[KEY_PEM_MAX];
  struct failure why = { 0 }; /* sent as a whole, by who has had keys on this stack */
  struct key *key = calloc(n, sizeof *key);
  int ok = key || failure_sys(&why, "unable to read keys");
  progname_set(prog, "tls-signer", "");
  descriptors_allow();
  for (size_t i = 0, len; ok && i < n; i++)
    if ((ok = key_load(&key[i], paths[i], pem, &len, &why))) news_send(0, SIGNER_KEY, pem, len);
  if (ok) ok = confine_signer(&why);
  if (!ok)
  {
    news_send(0, SIGNER_FAILED, &why, sizeof why);
    _exit(0);
  }
  news_send(0, SIGNER_READY, "", 0);
  signer_serve(0, key, n);
  _exit(0);
}

/* Who starts it */

static int standin_keep(char const *path, char const *s, size_t len, struct failure *why)
{
  struct file *f = &signer.standin[signer.n].pem;
  if (!(f->s = malloc(len + 1))) return failure_sys(why, "unable to keep a key");
  memcpy(f->s, s, len);
  f->s[len] = 0;
  f->len = len;
  signer.standin[signer.n++].path = path;
  return 1;
}

static int news_hear(char const *const *paths, size_t n, struct failure *why)
{
  char m[NEWS_MAX];
  for (;;)
  {
    ssize_t len = fd_recv(signer.door, m, sizeof m, 0);
    if (len <= 0) return failure_set(why, EXIT_SYSTEM, "the signer exited unexpectedly");
    if (m[0] == SIGNER_READY) return 1;
    if (m[0] == SIGNER_FAILED) return memcpy(why, m + 1, sizeof *why), 0;
    if (signer.n < n && !standin_keep(paths[signer.n], m + 1, len - 1, why)) return 0;
  }
}

static int pair_make(int fd[2])
{
  return socketpair_internal(AF_UNIX, SOCK_SEQPACKET, 0, O_CLOEXEC, fd) == 0;
}

int signer_start(char const *const *paths, size_t n, struct failure *why)
{
  int fd[2];
  if (!(signer.standin = calloc(n, sizeof *signer.standin)) || !pair_make(fd))
    return failure_sys(why, "unable to make a door for the signer");
  pid_t pid = fork();
  if (pid < 0) return failure_sys(why, "unable to fork the signer");
  if (!pid)
  {
    process_rename("tls-signer");
    confine_keep_none();
    if (fd_copy(0, fd[1]) < 0) _exit(EXIT_SYSTEM);
    inherit_close_from(3);
    signer_run(paths, n);
  }
  fd_close(fd[1]);
  signer.door = fd[0];
  signer.pid = pid;
  if (!news_hear(paths, n, why)) return 0;
  return ndelay_on(fd[0]) == 0 || failure_sys(why, "unable to use the signer's door");
}

struct file const *signer_standin(char const *path)
{
  for (size_t i = 0; i < signer.n; i++)
    if (!strcmp(signer.standin[i].path, path)) return &signer.standin[i].pem;
  return 0;
}

static int channel_make(void)
{
  int fd[2];
  if (!pair_make(fd)) return -1;
  if (ancil_send_fd(signer.door, fd[1], SIGNER_CHANNEL) <= 0)
  {
    int e = errno;
    fd_close(fd[0]);
    fd[0] = -1;
    errno = e;
  }
  fd_close(fd[1]);
  return fd[0];
}

int signer_open(unsigned int n)
{
  int fd = 0;
  if (!signer.open_n)
    while (signer.open_n < n && (fd = channel_make()) >= 0) signer.open[signer.open_n++] = fd;
  return signer.open_n ? signer.open[--signer.open_n] : fd;
}

void signer_leave(void)
{
  while (signer.open_n) fd_close(signer.open[--signer.open_n]);
  if (signer.door >= 0) fd_close(signer.door);
  signer.door = -1;
}

pid_t signer_pid(void)
{
  return signer.pid;
}
