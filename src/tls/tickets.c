/* ISC licence: see COPYING. */

#include <openssl/bio.h>
#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/opensslv.h>

#include <tls.h>

#include "tickets.h"

#ifdef LIBRESSL_VERSION_NUMBER

void tickets_keep_back(void) /* LibreSSL sends none that libtls has not been given keys for */
{
}

#else

/*
  libtls has no call for it, and keeps its SSL_CTX to itself. But each takes what a configuration
  of libcrypto says for the system (config(5), SSL Configuration), and that need not be a file.
*/
void tickets_keep_back(void)
{
  static char const text[] =
    "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n"
    "[all]\nNumTickets = 0\n";
  static int done = 0;
  if (done || tls_init() < 0) return; /* libtls has libcrypto read no file */
  done = 1;
  CONF *conf = NCONF_new(0);
  BIO *b = BIO_new_mem_buf(text, -1);
  OPENSSL_load_builtin_modules();
  if (conf && b && NCONF_load_bio(conf, b, &(long){ 0 }) > 0)
    CONF_modules_load(conf, "openssl_conf", CONF_MFLAGS_IGNORE_ERRORS);
  NCONF_free(conf);
  BIO_free(b);
  ERR_clear_error();
}

#endif
