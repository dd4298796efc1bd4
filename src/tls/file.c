/* ISC licence: see COPYING. */

#include <sys/stat.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/allreadwrite.h>
#include <skalibs/bytestr.h>
#include <skalibs/djbunix.h>

#include "file.h"

enum { FILE_MAX = 64 << 20 };

int file_failure_code(int e)
{
  return e == EMFILE || e == ENFILE || e == ENOMEM ? EXIT_SYSTEM : EXIT_TLS_CONFIG;
}

/* The descriptors of a chain are not those of an engine. */
static int is_descriptor_path(char const *path)
{
  return !strncmp(path, "/dev/fd/", 8) || !strncmp(path, "/dev/std", 8)
    || !strncmp(path, "/proc/self/fd/", 14);
}

static int file_read(struct file *f, int fd, char const *variable, char const *path,
  struct failure *why)
{
  struct stat st;
  if (fstat(fd, &st) < 0) st.st_mode = 0;
  if (!S_ISREG(st.st_mode))
    return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ", path,
      ": not a regular file");
  if (st.st_size > FILE_MAX)
    return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ", path,
      ": the file is too large");
  if (!(f->s = malloc(st.st_size + 1)))
    return failure_sys(why, "unable to read ", variable, " ", path);
  errno = 0;
  f->len = allread(fd, (char *)f->s, st.st_size);
  f->s[f->len] = 0;
  if (f->len) return 1;
  int e = errno;
  file_unload(f);
  if (!e || e == EPIPE) return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ",
    path, ": the file is empty");
  return failure_set(why, file_failure_code(e), "unable to read ", variable, " ", path, ": ",
    strerror(e));
}

static int ends_in_cr(char const *path)
{
  size_t n = strlen(path);
  return n && path[n - 1] == '\r';
}

int file_load(struct file *f, char const *variable, char const *path, struct failure *why)
{
  *f = (struct file){ 0 };
  if (!path) return 1;
  if (is_descriptor_path(path))
    return failure_set(why, EXIT_TLS_CONFIG, "unable to use ", variable, " ", path,
      ": an engine has no descriptors of the chain's: give a file");
  int fd = openc_read(path); /* does not wait for the writer of a FIFO */
  if (fd < 0) return failure_set(why, file_failure_code(errno), "unable to read ", variable, " ",
    path, ": ", strerror(errno), ends_in_cr(path) ? ": the path ends in CR, which is no line end"
    " here" : "");
  int r = file_read(f, fd, variable, path, why);
  fd_close(fd);
  return r;
}

void file_unload(struct file *f)
{
  if (!f->s) return;
  byte_zzero((char *)f->s, f->len);
  free(f->s);
  f->s = 0;
}
