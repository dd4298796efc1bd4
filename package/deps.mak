# Made by tools/gen-deps.sh: do not edit.

src/session/progname.o: src/session/progname.c src/session/progname.h src/session/session.h
src/session/session_facts.o: src/session/session_facts.c src/session/session.h
src/session/session_io.o: src/session/session_io.c src/session/session.h
src/session/session_pack.o: src/session/session_pack.c src/session/session.h
src/chain/chain_engine.o: src/chain/chain_engine.c src/chain/chain.h src/session/session.h
src/chain/chain_env.o: src/chain/chain_env.c src/chain/chain.h src/session/session.h
src/chain/chain_fd.o: src/chain/chain_fd.c src/chain/chain.h src/session/session.h
src/chain/chain_spawn.o: src/chain/chain_spawn.c src/chain/chain.h src/session/session.h
src/chain/tls-await.o: src/chain/tls-await.c src/chain/chain.h src/session/session.h
src/chain/tls-ctl-open.o: src/chain/tls-ctl-open.c src/chain/chain.h src/session/session.h
src/chain/tls-ctl-start.o: src/chain/tls-ctl-start.c src/chain/chain.h src/session/session.h
src/chain/tls-handshake.o: src/chain/tls-handshake.c src/chain/chain.h src/session/session.h
src/chain/tls-io.o: src/chain/tls-io.c src/chain/chain.h src/session/session.h
src/tls/closefrom.o: src/tls/closefrom.c src/session/session.h src/tls/engine.h
src/tls/confine.o: src/tls/confine.c src/session/session.h src/tls/engine.h
src/tls/engine.o: src/tls/engine.c src/session/session.h src/tls/engine.h
src/tls/engined_work.o: src/tls/engined_work.c src/session/session.h src/tls/engine.h src/tls/engined.h src/tls/settings.h
src/tls/facts.o: src/tls/facts.c src/session/session.h src/tls/engine.h
src/tls/handshake.o: src/tls/handshake.c src/session/session.h src/tls/engine.h
src/tls/hostname.o: src/tls/hostname.c src/session/session.h src/tls/engine.h
src/tls/keypairs.o: src/tls/keypairs.c src/session/session.h src/tls/engine.h src/tls/settings.h
src/tls/network.o: src/tls/network.c src/session/session.h src/tls/engine.h
src/tls/rehearse.o: src/tls/rehearse.c src/session/session.h src/tls/engine.h src/tls/settings.h
src/tls/relay.o: src/tls/relay.c src/session/session.h src/tls/engine.h
src/tls/settings.o: src/tls/settings.c src/session/session.h src/tls/engine.h src/tls/settings.h
src/tls/text.o: src/tls/text.c src/session/session.h src/tls/engine.h
src/tls/tls-engine.o: src/tls/tls-engine.c src/session/session.h src/tls/engine.h
src/tls/tls-engined.o: src/tls/tls-engined.c src/session/session.h src/tls/engine.h src/tls/engined.h
src/tls/trust.o: src/tls/trust.c src/session/session.h src/tls/engine.h src/tls/settings.h
tests/unit/session.o: tests/unit/session.c src/session/session.h
tests/fuzz/replay.o: tests/fuzz/replay.c
tests/fuzz/session.o: tests/fuzz/session.c src/session/session.h

OBJECTS_tls-ctl-open := src/chain/tls-ctl-open.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_spawn.o src/session/session_facts.o
LIBS_tls-ctl-open = $(LIB_EXECLINE) $(LIB_SKALIBS) $(LIB_SOCKET)
OBJECTS_tls-await := src/chain/tls-await.o src/chain/chain_env.o src/chain/chain_fd.o src/session/session_facts.o
LIBS_tls-await = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-handshake := src/chain/tls-handshake.o src/chain/chain_engine.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_spawn.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-handshake = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-io := src/chain/tls-io.o src/chain/chain_env.o src/chain/chain_fd.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-io = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-ctl-start := src/chain/tls-ctl-start.o src/chain/chain_env.o src/chain/chain_fd.o src/session/session_facts.o
LIBS_tls-ctl-start = $(LIB_SKALIBS) $(LIB_SOCKET)
OBJECTS_tls-engine := src/tls/tls-engine.o src/tls/closefrom.o src/tls/confine.o src/tls/engine.o src/tls/facts.o src/tls/handshake.o src/tls/hostname.o src/tls/keypairs.o src/tls/network.o src/tls/relay.o src/tls/settings.o src/tls/text.o src/tls/trust.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-engine = $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-engined := src/tls/tls-engined.o src/tls/closefrom.o src/tls/confine.o src/tls/engine.o src/tls/engined_work.o src/tls/facts.o src/tls/handshake.o src/tls/hostname.o src/tls/keypairs.o src/tls/network.o src/tls/rehearse.o src/tls/relay.o src/tls/settings.o src/tls/text.o src/tls/trust.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-engined = $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/unit/session := tests/unit/session.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tests/unit/session = $(LIB_CMOCKA) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/fuzz/replay := tests/fuzz/replay.o tests/fuzz/session.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tests/fuzz/replay = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
