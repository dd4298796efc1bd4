/* ISC licence: see COPYING. */

/* The numbers of the system calls that filter.c names; not every machine has each of them. */

#ifndef TLS_CHAIN_CALLS_H
#define TLS_CHAIN_CALLS_H

#include <sys/syscall.h>

enum { CALL_ABSENT = -1 };

#ifdef SYS_mmap2 /* then mmap is an older one, with its arguments in memory */
#undef SYS_mmap
#define SYS_mmap CALL_ABSENT
#endif

#ifndef SYS__llseek
#define SYS__llseek CALL_ABSENT
#endif
#ifndef SYS_accept4
#define SYS_accept4 CALL_ABSENT
#endif
#ifndef SYS_clock_gettime64
#define SYS_clock_gettime64 CALL_ABSENT
#endif
#ifndef SYS_dup2
#define SYS_dup2 CALL_ABSENT
#endif
#ifndef SYS_fcntl64
#define SYS_fcntl64 CALL_ABSENT
#endif
#ifndef SYS_fork
#define SYS_fork CALL_ABSENT
#endif
#ifndef SYS_fstat
#define SYS_fstat CALL_ABSENT
#endif
#ifndef SYS_fstat64
#define SYS_fstat64 CALL_ABSENT
#endif
#ifndef SYS_fstatat64
#define SYS_fstatat64 CALL_ABSENT
#endif
#ifndef SYS_futex_time64
#define SYS_futex_time64 CALL_ABSENT
#endif
#ifndef SYS_getsockopt
#define SYS_getsockopt CALL_ABSENT
#endif
#ifndef SYS_mmap
#define SYS_mmap CALL_ABSENT
#endif
#ifndef SYS_mmap2
#define SYS_mmap2 CALL_ABSENT
#endif
#ifndef SYS_newfstatat
#define SYS_newfstatat CALL_ABSENT
#endif
#ifndef SYS_open
#define SYS_open CALL_ABSENT
#endif
#ifndef SYS_poll
#define SYS_poll CALL_ABSENT
#endif
#ifndef SYS_ppoll
#define SYS_ppoll CALL_ABSENT
#endif
#ifndef SYS_ppoll_time64
#define SYS_ppoll_time64 CALL_ABSENT
#endif
#ifndef SYS_recv
#define SYS_recv CALL_ABSENT
#endif
#ifndef SYS_recvfrom
#define SYS_recvfrom CALL_ABSENT
#endif
#ifndef SYS_recvmsg
#define SYS_recvmsg CALL_ABSENT
#endif
#ifndef SYS_send
#define SYS_send CALL_ABSENT
#endif
#ifndef SYS_sendmsg
#define SYS_sendmsg CALL_ABSENT
#endif
#ifndef SYS_sendto
#define SYS_sendto CALL_ABSENT
#endif
#ifndef SYS_setrlimit
#define SYS_setrlimit CALL_ABSENT
#endif
#ifndef SYS_setsockopt
#define SYS_setsockopt CALL_ABSENT
#endif
#ifndef SYS_shutdown
#define SYS_shutdown CALL_ABSENT
#endif
#ifndef SYS_signalfd4
#define SYS_signalfd4 CALL_ABSENT
#endif
#ifndef SYS_sigreturn
#define SYS_sigreturn CALL_ABSENT
#endif
#ifndef SYS_socketcall
#define SYS_socketcall CALL_ABSENT
#endif
#ifndef SYS_socketpair
#define SYS_socketpair CALL_ABSENT
#endif
#ifndef SYS_stat
#define SYS_stat CALL_ABSENT
#endif
#ifndef SYS_stat64
#define SYS_stat64 CALL_ABSENT
#endif
#ifndef SYS_statx
#define SYS_statx CALL_ABSENT
#endif
#ifndef SYS_time
#define SYS_time CALL_ABSENT
#endif

#endif
