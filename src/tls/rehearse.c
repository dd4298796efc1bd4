/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>

#include "engine.h"

struct side
{
  struct buf *in;
  struct buf *out;
};

static ssize_t side_read(struct tls *tls, void *s, size_t len, void *arg)
{
  struct buf *b = ((struct side *)arg)->in;
  (void)tls;
  if (!buf_len(b)) return TLS_WANT_POLLIN;
  if (len > buf_len(b)) len = buf_len(b);
  memcpy(s, b->s + b->head, len);
  buf_skip(b, len);
  return len;
}

static ssize_t side_write(struct tls *tls, void const *s, size_t len, void *arg)
{
  struct buf *b = ((struct side *)arg)->out;
  (void)tls;
  if (!buf_room(b)) return TLS_WANT_POLLOUT;
  if (len > buf_room(b)) len = buf_room(b);
  memcpy(b->s + b->tail, s, len);
  b->tail += len;
  return len;
}

/* A client that takes anybody for its server, or null. */
static struct tls *client_new(uint32_t protocols)
{
  struct tls *client = tls_client();
  struct tls_config *c = tls_config_new();
  if (client && c)
  {
    tls_config_insecure_noverifycert(c);
    tls_config_insecure_noverifyname(c);
    tls_config_set_protocols(c, protocols);
    if (tls_configure(client, c) < 0)
    {
      tls_free(client);
      client = 0;
    }
  }
  tls_config_free(c);
  return client;
}

static void converse(struct tls *server, struct tls *client, struct buf *b)
{
  struct side near = { .in = &b[0], .out = &b[1] }, far = { .in = &b[1], .out = &b[0] };
  struct tls *conn = 0;
  if (tls_accept_cbs(server, &conn, &side_read, &side_write, &near) == 0
    && tls_connect_cbs(client, &side_read, &side_write, &far, 0) == 0)
    for (int r = 1, t = 1; (r || t) && r != -1 && t != -1; )
    {
      r = tls_handshake(client);
      t = tls_handshake(conn);
    }
  tls_free(conn);
}

void rehearse(struct tls *server)
{
  static uint32_t const protocols[] = { TLS_PROTOCOL_TLSv1_2, TLS_PROTOCOL_TLSv1_3 };
  struct buf *b = calloc(2, sizeof *b);
  for (int i = 0; b && i < 2; i++)
  {
    struct tls *client = client_new(protocols[i]);
    buf_clear(&b[0]);
    buf_clear(&b[1]);
    b[0].size = b[1].size = RAW_SIZE;
    if (client) converse(server, client, b);
    tls_free(client);
  }
  free(b);
}
