# What is built: programs for users, and those that only our programs start.
BIN_TARGETS := tls-ctl-open tls-await tls-handshake tls-io tls-ctl-start tls-engine-open tls-peek
ENGINE_TARGETS := tls-engined
LIBEXEC_TARGETS := tls-engine
ifeq ($(WITHOUT_ENGINE),yes)
ENGINE_TARGETS :=
LIBEXEC_TARGETS :=
endif
# Scripts in examples that people type, and what these share, which goes into libexecdir.
COMMANDS := starttls-cert starttls-chain starttls-connect starttls-dial tls-connect
PARTS := interactive policy/print-cert starttls/ftp starttls/imap starttls/lib starttls/nntp
PARTS += starttls/pop3 starttls/postgres starttls/sieve starttls/smtp starttls/xmpp
TEST_TARGETS := tests/fuzz/session tests/fuzz/hello tests/unit/tlsctl-app
ifneq ($(WITHOUT_CMOCKA),yes)
TEST_TARGETS += tests/unit/session
ifneq ($(WITHOUT_ENGINE),yes)
TEST_TARGETS += tests/unit/places tests/unit/signer
endif
endif
ifneq ($(WITHOUT_ENGINE),yes)
TEST_TARGETS += tests/unit/calls tests/fuzz/relay tests/fuzz/signer
endif
