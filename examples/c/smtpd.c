/* ISC licence: see COPYING. */
/*
  A small SMTP server with STARTTLS, by libtlsctl: no TLS library. On 0 and 1, for each connection:

    tcpserver mx.example.org 25 tls-ctl-open { tls-await tls-handshake tls-io } smtpd prog...

  smtpd [ -r ] [ -h name ] [ -s bytes ] [ -t seconds ] prog...

  -r: no mail before TLS. -h: its name, by default $TCPLOCALHOST. -s: how large a mail may be. -t:
  how long a client may be idle. prog is run for each mail, which is complete then, on 0, with LF
  as line ends; in its environment are SENDER, RECIPIENTS, separated by blanks, and, if the mail
  came through TLS, SSL_PROTOCOL and SSL_CIPHER. It decides for whom mail is taken: smtpd takes it
  for anyone. It exits 0 if it has the mail for good, 100 to refuse it; else the client may try
  again.

  Exit code: 0 the session is over, 97 TLS did not start, 100 misused, 111 a system call failed.
*/

#define _POSIX_C_SOURCE 200809L
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <tlsctl.h>
#include "lines.h"

#define USAGE "smtpd [ -r ] [ -h name ] [ -s bytes ] [ -t seconds ] prog..."

static char const *const channels[] = { "SSLCTLFD", "SSLREADFD", "SSLWRITEFD", "SSLREASONFD" };

enum
{
  CHANNELS = sizeof channels / sizeof *channels,
  NAME_SIZE = 256, ADDRESS_MAX = 256, RECIPIENTS_MAX = 100, HEADER_MAX = 65536, HOPS_MAX = 100
};

/* What a client has said. Not a word of it may outlive STARTTLS. */
struct said
{
  char name[NAME_SIZE]; /* in EHLO or HELO; empty: neither */
  int is_esmtp, has_sender, recipients;
  char sender[ADDRESS_MAX + 1], recipient[RECIPIENTS_MAX * (ADDRESS_MAX + 1)];
};

struct server
{
  char const *name;
  char *const *prog;
  unsigned long size_max;
  int offers_tls, requires_tls, has_tls;
  struct lines net;
  struct said said;
};

static void die(int code, char const *what, char const *why)
{
  fprintf(stderr, "smtpd: fatal: %s%s%s\n", what, why ? ": " : "", why ? why : "");
  exit(code);
}

/* Written at once: what stays in a buffer comes out later, in TLS perhaps. */
static void reply(struct server *s, char const *format, ...)
{
  char text[1024];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text - 2, format, args);
  va_end(args);
  if (n < 0 || (size_t)n > sizeof text - 3) n = sizeof text - 3;
  memcpy(text + n, "\r\n", 2);
  if (!line_write(&s->net, text, (size_t)n + 2)) exit(0);
}

/* The next line; does not return if there is none, or one that others may read in another way. */
static enum line_status line_hear(struct server *s)
{
  enum line_status status = line_read(&s->net);
  if (status == LINE_BARE)
    reply(s, "521 5.5.2 %s a line does not end with CR LF, closing", s->name);
  if (status == LINE_LATE)
    reply(s, "421 4.4.2 %s you are idle, closing", s->name);
  if (status != LINE_COMPLETE && status != LINE_TOO_LONG) exit(0);
  return status;
}

/* Whether it is fit for a header, as the name of a machine or an address in brackets. */
static int is_name(char const *s)
{
  size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]");
  return n && n < NAME_SIZE && !s[n];
}

static void hello(struct server *s, char const *name, int is_esmtp)
{
  if (is_name(name))
  {
    s->said = (struct said){ .is_esmtp = is_esmtp };
    strcpy(s->said.name, name);
  }
  if (!is_name(name)) reply(s, "501 5.5.4 say who you are");
  else if (!is_esmtp) reply(s, "250 %s", s->name);
  else reply(s, "250-%s\r\n%s250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n"
    "250 SIZE %lu", s->name, tlsctl_offered() ? "250-STARTTLS\r\n" : "", s->size_max);
}

static void command_ehlo(struct server *s, char *arg) { hello(s, arg, 1); }
static void command_helo(struct server *s, char *arg) { hello(s, arg, 0); }

/* Makes a fact of the session known to prog. */
static void fact_tell(char const *facts, char const *name)
{
  char const *value = tlsctl_fact(facts, name);
  if (setenv(name, value ? value : "unknown", 1)) die(111, "unable to set", name);
}

static void command_starttls(struct server *s, char *arg)
{
  char facts[TLSCTL_SIZE];
  if (*arg) reply(s, "501 5.5.4 STARTTLS has no parameters");
  else if (s->has_tls) reply(s, "503 5.5.1 TLS has started already");
  else if (!s->offers_tls) reply(s, "502 5.5.1 TLS is not offered");
  else if (!tlsctl_offered()) reply(s, "454 4.7.0 TLS is not available at present");
  else
  {
    reply(s, "220 2.0.0 ready to start TLS"); /* in plaintext, before TLS is asked for */
    /* What has been read behind STARTTLS came in plaintext: it must not become a command in TLS. */
    enum tlsctl_status status = tlsctl_start(0, 1, line_unread(&s->net), facts, sizeof facts);
    if (status == TLSCTL_ERROR) die(111, "unable to start TLS", strerror(errno));
    if (status != TLSCTL_STARTED) die(97, tlsctl_text(status), *facts ? facts : 0);
    s->has_tls = 1;
    s->said = (struct said){ 0 };
    fact_tell(facts, "SSL_PROTOCOL");
    fact_tell(facts, "SSL_CIPHER");
  }
}

/*
  The address in an argument such as FROM:<address> SIZE=1, up to the >, which becomes its end; what
  follows goes to rest. 0 if it is none, or one that a program might take for more than one address,
  or for an option.
*/
static char *address_parse(char *arg, char const *keyword, char **rest)
{
  size_t n = strlen(keyword);
  if (strncasecmp(arg, keyword, n)) return 0;
  char *s = arg + n + strspn(arg + n, " ");
  char *end = strchr(s, '>');
  if (*s++ != '<' || !end || (end[1] && end[1] != ' ') || end - s > ADDRESS_MAX || *s == '-')
    return 0;
  for (char *c = s; c < end; c++)
    if (*c <= ' ' || *c > '~' || *c == '<') return 0;
  *end = 0;
  *rest = end + 1;
  return s;
}

/* What is wrong with the parameters of MAIL, or null. */
static char const *parameters_check(struct server *s, char *rest)
{
  for (char *word = strtok(rest, " "); word; word = strtok(0, " "))
    if (!strncasecmp(word, "SIZE=", 5))
    {
      if (strtoul(word + 5, 0, 10) > s->size_max) return "552 5.3.4 the mail is too large";
    }
    else if (strcasecmp(word, "BODY=7BIT") && strcasecmp(word, "BODY=8BITMIME"))
      return "555 5.5.4 unknown parameter";
  return 0;
}

static void command_mail(struct server *s, char *arg)
{
  char const *wrong;
  char *rest, *address = address_parse(arg, "FROM:", &rest);
  if (!*s->said.name) reply(s, "503 5.5.1 say EHLO first");
  else if (s->said.has_sender) reply(s, "503 5.5.1 there is a sender already");
  else if (!address) reply(s, "553 5.1.7 no fit address of a sender");
  else if ((wrong = parameters_check(s, rest))) reply(s, "%s", wrong);
  else
  {
    strcpy(s->said.sender, address);
    s->said.has_sender = 1;
    reply(s, "250 2.1.0 OK");
  }
}

static void command_rcpt(struct server *s, char *arg)
{
  char *rest, *address = address_parse(arg, "TO:", &rest);
  if (!s->said.has_sender) reply(s, "503 5.5.1 say MAIL first");
  else if (!address || !*address) reply(s, "553 5.1.3 no fit address of a recipient");
  else if (*rest) reply(s, "555 5.5.4 unknown parameter");
  else if (s->said.recipients == RECIPIENTS_MAX) reply(s, "452 4.5.3 too many recipients");
  else
  {
    if (s->said.recipients++) strcat(s->said.recipient, " ");
    strcat(s->said.recipient, address);
    reply(s, "250 2.1.5 OK");
  }
}

static void mail_forget(struct server *s)
{
  s->said.has_sender = s->said.recipients = 0;
  *s->said.recipient = 0;
}

static void command_rset(struct server *s, char *arg)
{
  (void)arg;
  mail_forget(s);
  reply(s, "250 2.0.0 OK");
}

/* The line that tells how the mail has come (RFC 5321, 4.4). */
static void received_put(struct server *s, FILE *mail)
{
  char date[64];
  time_t now = time(0);
  char const *ip = getenv("TCPREMOTEIP"), *protocol = getenv("SSL_PROTOCOL");
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", gmtime(&now));
  fprintf(mail, "Received: from %s ([%s])\n  by %s with %s%s", s->said.name, ip ? ip : "unknown",
    s->name, s->said.is_esmtp ? "ESMTP" : "SMTP", s->said.is_esmtp && protocol ? "S" : "");
  if (protocol) fprintf(mail, " (%s)", protocol);
  fprintf(mail, ";\n  %s\n", date);
}

/* Reads a mail up to its dot, with LF for CR LF; what is wrong with it, or null. */
static char const *mail_read(struct server *s, FILE *mail)
{
  unsigned long size = 0, header_size = 0;
  int in_header = 1, hops = 0;
  char const *wrong = 0;
  for (;;)
  {
    char *line = s->net.line;
    if (line_hear(s) == LINE_TOO_LONG) wrong = "554 5.6.0 a line is too long";
    size_t n = s->net.length;
    if (n == 1 && *line == '.') return wrong;
    if (*line == '.' && n--) line++;
    size += n + 2;
    if (!n) in_header = 0;
    if (in_header) header_size = size;
    if (in_header && !strncasecmp(line, "Received:", 9)) hops++;
    if (size > s->size_max) wrong = "552 5.3.4 the mail is too large";
    if (header_size > HEADER_MAX) wrong = "552 5.3.4 the header is too large";
    if (hops > HOPS_MAX) wrong = "554 5.4.6 the mail goes round in circles";
    if (wrong) continue; /* all of it has to be read, or the rest would be taken for commands */
    fwrite(line, 1, n, mail);
    putc('\n', mail);
  }
}

static void prog_become(struct server *s, int mail)
{
  signal(SIGPIPE, SIG_DFL);
  for (int i = 0; i < CHANNELS; i++) unsetenv(channels[i]);
  unsetenv("SSLNETID");
  if (lseek(mail, 0, SEEK_SET) || dup2(mail, 0) < 0 || dup2(2, 1) < 0
    || setenv("SENDER", s->said.sender, 1) || setenv("RECIPIENTS", s->said.recipient, 1))
    _exit(111);
  execvp(s->prog[0], s->prog);
  fprintf(stderr, "smtpd: fatal: unable to run %s: %s\n", s->prog[0], strerror(errno));
  _exit(111);
}

/* Hands the mail to prog; the reply. */
static char const *mail_hand_on(struct server *s, FILE *mail)
{
  int status;
  if (fflush(mail) || ferror(mail)) return "452 4.3.1 no room for the mail";
  pid_t pid = fork();
  if (!pid) prog_become(s, fileno(mail));
  while (pid > 0 && waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) pid = -1;
  if (pid < 0 || !WIFEXITED(status)) return "451 4.3.0 the mail cannot be taken at present";
  switch (WEXITSTATUS(status))
  {
    case 0: return "250 2.0.0 the mail has been taken";
    case 100: return "554 5.0.0 the mail is refused";
    default: return "451 4.3.0 the mail cannot be taken at present";
  }
}

static void mail_take(struct server *s, FILE *mail)
{
  fcntl(fileno(mail), F_SETFD, FD_CLOEXEC);
  received_put(s, mail);
  reply(s, "354 go on, to a line with a dot alone");
  char const *wrong = mail_read(s, mail);
  char const *answer = wrong ? wrong : mail_hand_on(s, mail);
  fclose(mail);
  mail_forget(s);
  reply(s, "%s", answer);
}

static void command_data(struct server *s, char *arg)
{
  FILE *mail = 0;
  if (*arg) reply(s, "501 5.5.4 DATA has no parameters");
  else if (!s->said.recipients) reply(s, "503 5.5.1 say RCPT first");
  else if (!(mail = tmpfile())) reply(s, "452 4.3.1 no room for the mail");
  else mail_take(s, mail);
}

static void command_noop(struct server *s, char *arg) { (void)arg; reply(s, "250 2.0.0 OK"); }
static void command_vrfy(struct server *s, char *arg) { (void)arg; reply(s, "252 2.0.0 try it"); }

static void command_quit(struct server *s, char *arg)
{
  (void)arg;
  reply(s, "221 2.0.0 %s closing", s->name);
  exit(0);
}

static struct command
{
  char const *verb;
  void (*run)(struct server *, char *);
  int is_mail; /* after -r not to be had without TLS */
} const commands[] = {
  { "EHLO", command_ehlo, 0 }, { "HELO", command_helo, 0 }, { "STARTTLS", command_starttls, 0 },
  { "NOOP", command_noop, 0 }, { "RSET", command_rset, 0 }, { "QUIT", command_quit, 0 },
  { "MAIL", command_mail, 1 }, { "RCPT", command_rcpt, 1 }, { "DATA", command_data, 1 },
  { "VRFY", command_vrfy, 1 }
};

static void command_run(struct server *s)
{
  char *line = s->net.line;
  while (s->net.length && line[s->net.length - 1] == ' ') line[--s->net.length] = 0;
  size_t n = strcspn(line, " ");
  char *arg = line + n + strspn(line + n, " ");
  line[n] = 0;
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (!strcasecmp(line, commands[i].verb))
    {
      if (commands[i].is_mail && s->requires_tls && !s->has_tls)
        reply(s, "530 5.7.0 say STARTTLS first");
      else commands[i].run(s, arg);
      return;
    }
  reply(s, "500 5.5.1 unknown command");
}

/* The channels of TLS are not for prog, which may start what stays. */
static void channels_keep(void)
{
  for (int i = 0; i < CHANNELS; i++)
    if (getenv(channels[i])) fcntl(atoi(getenv(channels[i])), F_SETFD, FD_CLOEXEC);
  unsetenv("SSL_PROTOCOL"); /* of another session, if it is set */
  unsetenv("SSL_CIPHER");
}

static unsigned long number_parse(char const *s, unsigned long max)
{
  char *end;
  unsigned long n = strtoul(s, &end, 10);
  if (*s < '0' || *s > '9' || *end || !n || n > max) die(100, "usage", USAGE);
  return n;
}

int main(int argc, char **argv)
{
  struct server s = { .name = getenv("TCPLOCALHOST"), .size_max = 50000000,
    .net = { .rfd = 0, .wfd = 1, .seconds = 300 } };
  opterr = 0;
  for (int opt; (opt = getopt(argc, argv, "rh:s:t:")) != -1; )
    switch (opt)
    {
      case 'r': s.requires_tls = 1; break;
      case 'h': s.name = optarg; break;
      case 's': s.size_max = number_parse(optarg, ULONG_MAX / 2); break;
      case 't': s.net.seconds = (int)number_parse(optarg, 86400); break;
      default: die(100, "usage", USAGE);
    }
  s.prog = argv + optind;
  if (!*s.prog) die(100, "usage", USAGE);
  if (!s.name || !*s.name) s.name = "localhost";
  if (!is_name(s.name)) die(100, "unfit for the name of a server", s.name);
  s.offers_tls = tlsctl_offered();
  if (s.offers_tls) channels_keep();
  else if (s.requires_tls) die(100, "no channels for TLS", "run it under tls-ctl-open");
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL); /* else the end of prog could not be known */
  reply(&s, "220 %s ESMTP", s.name);
  for (;;)
    if (line_hear(&s) == LINE_TOO_LONG) reply(&s, "500 5.5.2 the line is too long");
    else if (memchr(s.net.line, 0, s.net.length)) reply(&s, "500 5.5.2 a null byte");
    else command_run(&s);
}
