/* ISC licence: see COPYING. */

#include <sys/socket.h>
#include <errno.h>

#include <skalibs/ancil.h>
#include <skalibs/djbunix.h>
#include <skalibs/socket.h>

#include "../session/session.h"
#include "door.h"

static int socket_option(int option)
{
  int value;
  socklen_t len = sizeof value;
  return getsockopt(0, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

enum door door_inherit(void)
{
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  if (ndelay_on(0) < 0) return DOOR_NONE;
  if (socket_option(SO_ACCEPTCONN) == 1) return DOOR_LISTENS;
  if (socket_option(SO_TYPE) != SOCK_SEQPACKET) return DOOR_NONE;
  if (getpeername(0, (struct sockaddr *)&peer, &len) < 0) return DOOR_NONE;
  return peer.ss_family == AF_UNIX ? DOOR_IS_SENT : DOOR_NONE;
}

int door_take(enum door door)
{
  return door == DOOR_LISTENS ? ipc_accept_coe(0, 0, 0, &(int){ 0 })
    : ancil_recv_fd(0, SESSION_DOOR);
}
