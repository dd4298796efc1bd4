# What is built: programs for users, and those that only our programs start.
BIN_TARGETS := tls-ctl-open tls-await tls-handshake tls-io tls-ctl-start
LIBEXEC_TARGETS := tls-engine
TEST_TARGETS := tests/unit/session tests/fuzz/replay
