/* ISC licence: see COPYING. */

#include <stdlib.h>
#include <string.h>

#include <skalibs/iopause.h>

#include "engine.h"

/* Waits for the network, or for the chain to go away. Returns 0 in the latter case. */
static int wait_for(struct engine *e, int want)
{
  iopause_fd x[3] =
  {
    { .fd = e->session.receiver.fd, .events = IOPAUSE_READ },
    { .fd = e->net.rfd, .events = IOPAUSE_READ },
    { .fd = e->net.wfd, .events = IOPAUSE_WRITE },
  };
  unsigned int n = buf_len(&e->net.out) || want == TLS_WANT_POLLOUT ? 3 : 2;
  if (iopause_g(x, n, &tain_infinite) < 0 || x[0].revents) return 0;
  e->net.readable = !!x[1].revents;
  return 1;
}

void handshake_begin(struct engine *e)
{
  struct tls *tls = e->tls;
  char const *name = *e->start.policy.name ? e->start.policy.name : 0;
  int r = e->start.policy.role == SESSION_SERVER
    ? tls_accept_cbs(tls, &e->tls, &network_read, &network_write, &e->net)
    : tls_connect_cbs(tls, &network_read, &network_write, &e->net, name);
  if (r < 0) settings_blame(e, tls_error(tls));
}

/* What stands in the way of going on, at this moment. */
static char const *obstacle(struct engine *e, int r)
{
  char const *reason;
  if (e->net.injected) return e->start.policy.role == SESSION_SERVER
    ? "bytes came in plaintext before the client's TLS began"
    : "the server sent bytes in plaintext before TLS began";
  if (r == -1) return (reason = tls_error(e->tls)) ? reason : "unknown reason";
  if (buf_len(&e->net.in) || !network_at_end(&e->net)) return 0;
  return e->net.eof ? "the peer closed the connection" : strerror(e->net.read_errno);
}

char const *handshake(struct engine *e)
{
  int r;
  char const *reason;
  e->net.readable = 1;
  if (e->start.policy.role == SESSION_CLIENT && network_fill(&e->net) && buf_len(&e->net.in))
    e->net.injected = 1;
  for (;;)
  {
    size_t before = buf_len(&e->net.in);
    if (!(r = e->net.injected ? -1 : tls_handshake(e->tls))) break;
    while (network_flush(&e->net));
    reason = obstacle(e, r);
    if (reason) return reason;
    if (buf_len(&e->net.in) && buf_len(&e->net.in) != before) continue;
    if (!wait_for(e, r)) engine_abandon(e);
  }
  while (network_flush(&e->net));
  char const *name = tls_conn_servername(e->tls);
  if (e->start.policy.role == SESSION_SERVER && getenv("TLS_SNI") && !(name && settings_know_name(name)))
    return "the client named no known server";
  return 0;
}

char const *handshake_hint(char const *reason)
{
  static struct { char const *text, *hint; } const hints[] =
  {
    {
      "unable to get local issuer certificate",
      " (either an intermediate certificate is missing, which the peer should send, or the"
      " authority is not among those that CAFILE, CADIR or the system names)",
    },
    { "signed certificate", " (to trust it all the same, put it into CAFILE)" },
    { "certificate has expired", " (its owner must renew it, if this clock is right)" },
    { "not yet valid", " (is this clock right?)" },
    { "certificate CRL", " (CRLFILE needs the list of every authority on the way)" },
    { "not present in server certificate", " (-k must be a name that the certificate has)" },
  };
  for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
    if (strstr(reason, hints[i].text)) return hints[i].hint;
  return "";
}
