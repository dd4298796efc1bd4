/* ISC licence: see COPYING. */

/*
  Tries system calls under the filter of a stage, and prints a line for each: its name, and what
  became of it. The last ones move a byte, as a session does.
*/

#include <skalibs/nonposix.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <skalibs/strerr.h>

#include "../../src/tls/confine.h"

static void call_tell(char const *name, long r)
{
  char s[100];
  int n = snprintf(s, sizeof s, "%s %s\n", name, r >= 0 ? "works" : errno == ENOSYS ? "is not there"
    : strerror(errno));
  if (write(1, s, n) < n) _exit(1);
}

int main(int argc, char *const *argv)
{
  struct failure why;
  int fd[2];
  char *page;
  PROG = "calls";
  if (argc != 2 || socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0) return 1;
  page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!system_forbid_privileges(&why) || !system_forbid_calls(atoi(argv[1]), &why))
    strerr_dief(1, why.reason);
  call_tell("open", open("/etc/passwd", O_RDONLY));
  call_tell("create", open("/tmp/calls", O_WRONLY | O_CREAT, 0600));
  call_tell("stat", access("/", F_OK));
  call_tell("unlink", unlink("/tmp/calls"));
  call_tell("socket", socket(AF_INET, SOCK_STREAM, 0));
  call_tell("connect", syscall(SYS_connect, fd[0], 0, 0));
  call_tell("bind", syscall(SYS_bind, fd[0], 0, 0));
  call_tell("execve", execve("/bin/true", argv, 0));
  call_tell("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
  call_tell("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), 0, 0, 0, 0, 0));
  call_tell("kill", kill(getpid(), 0));
  call_tell("tgkill", syscall(SYS_tgkill, getpid(), getpid(), 0));
  call_tell("setuid", setuid(0));
  call_tell("chroot", chroot("/"));
  call_tell("fork", syscall(SYS_clone, 0, 0, 0, 0, 0));
  call_tell("bpf", syscall(SYS_bpf, 0, 0, 0));
  call_tell("io_uring_setup", syscall(425, 0, 0));
  call_tell("mprotect to executable", mprotect(page, 4096, PROT_READ | PROT_EXEC));
  call_tell("mmap of executable", mmap(0, 4096, PROT_READ | PROT_EXEC,
    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
  call_tell("ioctl of a terminal", ioctl(fd[0], TIOCGWINSZ, page));
  call_tell("fcntl for signals", fcntl(fd[0], F_SETOWN, getpid()));
  call_tell("send", send(fd[0], "x", 1, 0));
  call_tell("recv", recv(fd[1], page, 1, 0) - 1);
  return 0;
}
