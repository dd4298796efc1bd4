/* ISC licence: see COPYING. */

#include <stdlib.h>

#include "buf.h"
#include "config.h"
#include "hooks.h"
#include "rehearse.h"
#include "settings.h"
#include "signer.h"

/* Null has neither bytes nor room. */
struct side
{
  struct buf *in;
  struct buf *out;
};

static ssize_t side_read(struct tls *tls, void *s, size_t len, void *arg)
{
  struct buf *b = ((struct side *)arg)->in;
  (void)tls;
  return b && buf_len(b) ? (ssize_t)buf_get(b, s, len) : TLS_WANT_POLLIN;
}

static ssize_t side_write(struct tls *tls, void const *s, size_t len, void *arg)
{
  struct buf *b = ((struct side *)arg)->out;
  (void)tls;
  return b && buf_room(b) ? (ssize_t)buf_put(b, s, len) : TLS_WANT_POLLOUT;
}

/* A client that takes anybody for its server, or null. */
static struct tls *client_new(uint32_t protocols)
{
  struct tls *client = tls_client();
  struct tls_config *c = tls_config_new();
  if (c)
  {
    tls_config_insecure_noverifycert(c);
    tls_config_insecure_noverifyname(c);
    tls_config_set_protocols(c, protocols);
  }
  if (!client || !c || tls_configure(client, c) < 0)
  {
    tls_free(client);
    client = 0;
  }
  tls_config_free(c);
  return client;
}

static void sides_converse(struct tls *server, struct tls *client, struct buf *b)
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

void rehearse_server(struct tls *server)
{
  static uint32_t const protocols[] = { TLS_PROTOCOL_TLSv1_2, TLS_PROTOCOL_TLSv1_3 };
  struct buf *b = calloc(2, sizeof *b);
  for (int i = 0; b && i < 2; i++)
  {
    struct tls *client = client_new(protocols[i]);
    buf_clear(&b[0]);
    buf_clear(&b[1]);
    b[0].size = b[1].size = RAW_SIZE;
    hooks_use(signer_open(1));
    if (client) sides_converse(server, client, b);
    hooks_end();
    tls_free(client);
  }
  free(b);
}

int rehearse_client(struct tls_config *c, struct failure *why)
{
  struct side side = { 0 };
  struct failure said;
  struct tls *client;
  if (!config_use(c, &client, 0, &said)) return settings_refuse(0, said.reason, why);
  int r = tls_connect_cbs(client, &side_read, &side_write, &side, "localhost");
  char const *reason = r < 0 ? tls_error(client) : 0;
  if (r < 0) settings_refuse(0, reason ? reason : "unknown reason", why);
  tls_free(client);
  return r == 0;
}
