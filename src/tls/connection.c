/* ISC licence: see COPYING. */

#include <errno.h>
#include <string.h>

#include <skalibs/iopause.h>

#include "connection.h"
#include "hooks.h"

/* Types of records (RFC 8446, 5.1; RFC 5246, 6.2.1). */
enum { RECORD_ALERT = 0x15, RECORD_HANDSHAKE = 0x16 };

/* Follows the records in what libtls reads; notices one that begins a renegotiation. */
static void records_follow(struct connection *c, unsigned char const *s, size_t len)
{
  while (len)
  {
    size_t n = len < c->left ? len : c->left;
    s += n;
    len -= n;
    c->left -= n;
    if (!len) return;
    if (c->is_tls12 && !c->have && *s == RECORD_HANDSHAKE) c->renegotiation = 1;
    c->header[c->have++] = *s++;
    len--;
    if (c->have < sizeof c->header) continue;
    c->left = c->header[3] << 8 | c->header[4];
    c->have = 0;
  }
}

/* Whether the peer's first byte may be of TLS; libtls takes plaintext for a record of any kind. */
static int may_begin(struct connection const *c, char type)
{
  return type == RECORD_HANDSHAKE || (type == RECORD_ALERT && !c->is_server);
}

/*
  The callbacks of libtls. The end of the raw stream is answered with "want input", never with an
  end: OpenSSL 3 makes an end a fatal error, and the direction to the peer would be lost with it.
  Who calls libtls looks at the network to tell the two apart.
*/
static ssize_t connection_read(struct tls *tls, void *s, size_t len, void *arg)
{
  struct connection *c = arg;
  struct buf *in = &c->net->in;
  (void)tls;
  if (!buf_len(in)) network_fill(c->net);
  if (!c->has_begun && buf_len(in)) c->injected = !may_begin(c, in->s[in->head]);
  if (c->injected || c->renegotiation || !buf_len(in)) return TLS_WANT_POLLIN;
  c->has_begun = 1;
  if (len > buf_len(in)) len = buf_len(in);
  records_follow(c, (unsigned char *)in->s + in->head, len);
  return c->renegotiation ? TLS_WANT_POLLIN : (ssize_t)buf_get(in, s, len);
}

static ssize_t connection_write(struct tls *tls, void const *s, size_t len, void *arg)
{
  struct connection *c = arg;
  struct buf *out = &c->net->out;
  (void)tls;
  if (!buf_room(out)) network_flush(c->net);
  if (!buf_room(out)) return TLS_WANT_POLLOUT;
  return buf_put(out, s, len);
}

int connection_open(struct connection *c, struct tls *context, struct network *net,
  struct session_policy const *policy, struct failure *why)
{
  char const *name = *policy->name ? policy->name : 0;
  *c = (struct connection){ .context = context, .tls = context, .net = net };
  c->is_server = policy->role == SESSION_SERVER;
  int r = c->is_server
    ? tls_accept_cbs(context, &c->tls, &connection_read, &connection_write, c)
    : tls_connect_cbs(context, &connection_read, &connection_write, c, name);
  if (r == 0) return 1;
  char const *reason = tls_error(context);
  return failure_set(why, EXIT_TLS_CONFIG, reason ? reason : "unknown reason");
}

/* What an administrator could do about a reason of libtls's; may be empty. */
static char const *reason_hint(char const *reason)
{
  static struct { char const *text, *hint; } const hints[] =
  {
    {
      "unable to get local issuer certificate",
      " (either an intermediate certificate is missing, which the peer should send, or the"
      " authority is not among those that CAFILE, CADIR or the system names)",
    },
    {
      "unable to get issuer certificate",
      " (CAFILE or CADIR has an intermediate certificate only: add the root's)",
    },
    { "signed certificate", " (to trust it all the same, put it into CAFILE)" },
    { "certificate has expired", " (its owner must renew it, if this clock is right)" },
    { "not yet valid", " (is this clock right?)" },
    { "CRL has expired", " (CRLFILE needs the authority's current list)" },
    { "certificate CRL", " (CRLFILE needs the list of every authority on the way)" },
    { "certificate purpose", " (the certificate is not meant for this side: extendedKeyUsage)" },
    { "not present in server certificate", " (-k must be a name that the certificate has)" },
    {
      "no certificate returned", /* LibreSSL, in TLS 1.2; none at all has another text */
      " (the client's certificate is not trusted; only in TLS 1.3 libtls tells why)",
    },
  };
  for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
    if (strstr(reason, hints[i].text)) return hints[i].hint;
  return "";
}

/*
  A server's context is what libtls tells why it does not verify a client's certificate. What can
  fail once libtls has that, as it has after its handshake, has no text: there may be an older one.
*/
static char const *connection_error(struct connection const *c)
{
  if (tls_peer_cert_provided(c->tls))
    return "libtls cannot tell what is in the peer's certificate "
      "(two common names, or a time of 1969-12-31 23:59:59?)";
  if (hooks_fault()) return hooks_fault();
  char const *reason = tls_error(c->tls);
  char const *verification = c->is_server ? tls_error(c->context) : 0;
  if (verification && reason && strstr(reason, "verify failed")) return verification;
  return reason ? reason : "unknown reason";
}

static int handshake_refuse(struct failure *why, char const *reason)
{
  return failure_set(why, EXIT_HANDSHAKE, reason, reason_hint(reason));
}

/* Whether the handshake can go on at this moment, after libtls has returned r. */
static int handshake_can_go_on(struct connection const *c, int r, struct failure *why)
{
  struct network const *net = c->net;
  if (c->injected) return handshake_refuse(why, c->is_server
    ? "bytes came in plaintext before the client's TLS began" : net->written
    ? "the server answered in plaintext: it does not speak TLS here"
    : "the server sent bytes in plaintext before TLS began");
  if (r == -1) return handshake_refuse(why, connection_error(c));
  if (buf_len(&net->in) || !network_at_end(net)) return 1;
  return handshake_refuse(why, net->eof ? "the peer closed the connection"
    : strerror(net->read_errno));
}

/* Waits for the network, or for the chain. */
static enum connection_result handshake_wait(struct connection *c, int chain, int want,
  struct failure *why)
{
  iopause_fd x[3] =
  {
    { .fd = chain, .events = IOPAUSE_READ },
    { .fd = c->net->rfd, .events = IOPAUSE_READ },
    { .fd = c->net->wfd, .events = IOPAUSE_WRITE },
  };
  unsigned int n = buf_len(&c->net->out) || want == TLS_WANT_POLLOUT ? 3 : 2;
  if (iopause_g(x, n, &tain_infinite) < 0)
  {
    failure_sys(why, "unable to wait for the network");
    return CONNECTION_FAILED;
  }
  if (x[0].revents) return CONNECTION_ABANDONED;
  for (unsigned int i = 1; i < n; i++)
    if (x[i].revents) network_notice(c->net, &x[i]);
  return CONNECTION_DONE;
}

enum connection_result connection_handshake(struct connection *c, int chain, struct failure *why)
{
  int r;
  struct network *net = c->net;
  net->readable = 1;
  if (!c->is_server && network_fill(net) && buf_len(&net->in)) c->injected = 1;
  for (;;)
  {
    size_t before = buf_len(&net->in);
    r = c->injected ? -1 : tls_handshake(c->tls);
    while (network_flush(net));
    if (!r) break;
    if (!handshake_can_go_on(c, r, why)) return CONNECTION_FAILED;
    if (buf_len(&net->in) && buf_len(&net->in) != before) continue;
    enum connection_result result = handshake_wait(c, chain, r, why);
    if (result != CONNECTION_DONE) return result;
  }
  char const *version = tls_conn_version(c->tls);
  c->is_tls12 = version && !strcmp(version, "TLSv1.2");
  return CONNECTION_DONE;
}
