# Made by tools/gen-deps.sh: do not edit.

src/session/help.o: src/session/help.c src/session/help.h src/session/session.h src/session/version.h
src/session/hostname.o: src/session/hostname.c src/session/hostname.h
src/session/progname.o: src/session/progname.c src/session/progname.h src/session/session.h
src/session/session_facts.o: src/session/session_facts.c src/session/session.h
src/session/session_io.o: src/session/session_io.c src/session/session.h
src/session/session_pack.o: src/session/session_pack.c src/session/session.h
src/tlsctl/tlsctl.o: src/tlsctl/tlsctl.c src/tlsctl/tlsctl.h
src/chain/chain_door.o: src/chain/chain_door.c src/chain/chain.h src/session/session.h
src/chain/chain_engine.o: src/chain/chain_engine.c src/chain/chain.h src/session/session.h
src/chain/chain_env.o: src/chain/chain_env.c src/chain/chain.h src/session/session.h
src/chain/chain_fd.o: src/chain/chain_fd.c src/chain/chain.h src/session/session.h
src/chain/chain_network.o: src/chain/chain_network.c src/chain/chain.h src/session/session.h
src/chain/chain_peer.o: src/chain/chain_peer.c src/chain/chain.h src/session/session.h
src/chain/chain_spawn.o: src/chain/chain_spawn.c src/chain/chain.h src/session/session.h
src/chain/hello.o: src/chain/hello.c src/chain/hello.h src/session/hostname.h
src/chain/tls-await.o: src/chain/tls-await.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h
src/chain/tls-ctl-open.o: src/chain/tls-ctl-open.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h
src/chain/tls-ctl-start.o: src/chain/tls-ctl-start.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h src/tlsctl/tlsctl.h
src/chain/tls-engine-open.o: src/chain/tls-engine-open.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h
src/chain/tls-handshake.o: src/chain/tls-handshake.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h
src/chain/tls-io.o: src/chain/tls-io.c src/chain/chain.h src/session/help.h src/session/progname.h src/session/session.h
src/chain/tls-peek.o: src/chain/tls-peek.c src/chain/chain.h src/chain/hello.h src/session/help.h src/session/hostname.h src/session/progname.h src/session/session.h
src/tls/buf.o: src/tls/buf.c src/tls/buf.h
src/tls/config.o: src/tls/config.c src/session/session.h src/tls/config.h src/tls/failure.h
src/tls/confine.o: src/tls/confine.c src/session/session.h src/tls/confine.h src/tls/failure.h
src/tls/confine_linux.o: src/tls/confine_linux.c src/session/session.h src/tls/confine.h src/tls/failure.h src/tls/filter.h
src/tls/confine_openbsd.o: src/tls/confine_openbsd.c src/session/session.h src/tls/confine.h src/tls/failure.h
src/tls/confine_other.o: src/tls/confine_other.c src/session/session.h src/tls/confine.h src/tls/failure.h
src/tls/connection.o: src/tls/connection.c src/session/session.h src/tls/buf.h src/tls/connection.h src/tls/failure.h src/tls/hooks.h src/tls/network.h
src/tls/crash.o: src/tls/crash.c src/session/progname.h src/session/session.h src/tls/crash.h
src/tls/door.o: src/tls/door.c src/session/session.h src/tls/door.h
src/tls/facts.o: src/tls/facts.c src/session/hostname.h src/session/session.h src/tls/facts.h src/tls/failure.h
src/tls/failure.o: src/tls/failure.c src/session/session.h src/tls/failure.h src/tls/text.h
src/tls/file.o: src/tls/file.c src/session/session.h src/tls/failure.h src/tls/file.h
src/tls/filter.o: src/tls/filter.c src/session/session.h src/tls/calls.h src/tls/confine.h src/tls/failure.h src/tls/filter.h
src/tls/hooks.o: src/tls/hooks.c src/session/session.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/signer.h
src/tls/inherit.o: src/tls/inherit.c src/tls/inherit.h
src/tls/keeper.o: src/tls/keeper.c src/session/session.h src/tls/confine.h src/tls/door.h src/tls/failure.h src/tls/keeper.h src/tls/watch.h src/tls/worker.h
src/tls/key.o: src/tls/key.c src/session/session.h src/tls/failure.h src/tls/file.h src/tls/key.h src/tls/pem.h
src/tls/keypairs.o: src/tls/keypairs.c src/session/hostname.h src/session/session.h src/tls/config.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/keypairs.h src/tls/pem.h src/tls/signer.h src/tls/text.h
src/tls/network.o: src/tls/network.c src/tls/buf.h src/tls/network.h
src/tls/pem.o: src/tls/pem.c src/tls/pem.h
src/tls/pipe.o: src/tls/pipe.c src/tls/buf.h src/tls/pipe.h
src/tls/places.o: src/tls/places.c src/session/session.h src/tls/places.h
src/tls/rehearse.o: src/tls/rehearse.c src/session/session.h src/tls/buf.h src/tls/config.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/rehearse.h src/tls/settings.h src/tls/signer.h
src/tls/relay.o: src/tls/relay.c src/session/session.h src/tls/buf.h src/tls/connection.h src/tls/failure.h src/tls/network.h src/tls/pipe.h src/tls/relay.h src/tls/text.h
src/tls/serve.o: src/tls/serve.c src/session/progname.h src/session/session.h src/tls/buf.h src/tls/confine.h src/tls/connection.h src/tls/facts.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/keypairs.h src/tls/network.h src/tls/relay.h src/tls/serve.h src/tls/settings.h src/tls/signer.h src/tls/text.h
src/tls/settings.o: src/tls/settings.c src/session/hostname.h src/session/session.h src/tls/config.h src/tls/failure.h src/tls/keypairs.h src/tls/settings.h src/tls/tickets.h src/tls/trust.h
src/tls/signer.o: src/tls/signer.c src/session/progname.h src/session/session.h src/tls/confine.h src/tls/failure.h src/tls/file.h src/tls/inherit.h src/tls/key.h src/tls/signer.h
src/tls/text.o: src/tls/text.c src/tls/text.h
src/tls/tickets.o: src/tls/tickets.c src/tls/tickets.h
src/tls/tls-engine.o: src/tls/tls-engine.c src/session/help.h src/session/progname.h src/session/session.h src/tls/crash.h src/tls/failure.h src/tls/inherit.h src/tls/serve.h src/tls/settings.h
src/tls/tls-engined.o: src/tls/tls-engined.c src/session/help.h src/session/progname.h src/session/session.h src/tls/door.h src/tls/inherit.h src/tls/keeper.h src/tls/worker.h
src/tls/trust.o: src/tls/trust.c src/session/session.h src/tls/config.h src/tls/confine.h src/tls/failure.h src/tls/file.h src/tls/pem.h src/tls/text.h src/tls/trust.h
src/tls/watch.o: src/tls/watch.c src/session/session.h src/tls/failure.h src/tls/trust.h src/tls/watch.h
src/tls/worker.o: src/tls/worker.c src/session/progname.h src/session/session.h src/tls/confine.h src/tls/door.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/keypairs.h src/tls/places.h src/tls/rehearse.h src/tls/serve.h src/tls/settings.h src/tls/signer.h src/tls/worker.h
tests/unit/calls.o: tests/unit/calls.c src/session/session.h src/tls/confine.h src/tls/failure.h
tests/unit/places.o: tests/unit/places.c src/tls/places.h
tests/unit/session.o: tests/unit/session.c src/session/progname.h src/session/session.h
tests/unit/signer.o: tests/unit/signer.c src/session/session.h src/tls/failure.h src/tls/file.h src/tls/key.h src/tls/signer.h
tests/unit/tlsctl-app.o: tests/unit/tlsctl-app.c
tests/fuzz/hello.o: tests/fuzz/hello.c src/chain/hello.h src/session/hostname.h
tests/fuzz/relay.o: tests/fuzz/relay.c src/session/session.h src/tls/failure.h src/tls/file.h src/tls/hooks.h src/tls/key.h src/tls/serve.h src/tls/settings.h src/tls/signer.h tests/fuzz/world.h
tests/fuzz/replay.o: tests/fuzz/replay.c
tests/fuzz/session.o: tests/fuzz/session.c src/session/session.h
tests/fuzz/signer.o: tests/fuzz/signer.c src/session/session.h src/tls/failure.h src/tls/file.h src/tls/key.h src/tls/signer.h
tests/fuzz/unconfined.o: tests/fuzz/unconfined.c src/session/session.h src/tls/confine.h src/tls/failure.h
tests/fuzz/world.o: tests/fuzz/world.c tests/fuzz/world.h
tests/fuzz/world_clock.o: tests/fuzz/world_clock.c tests/fuzz/world.h
tests/fuzz/world_peer.o: tests/fuzz/world_peer.c tests/fuzz/world.h

OBJECTS_tls-ctl-open := src/chain/tls-ctl-open.o src/chain/chain_door.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/chain/chain_spawn.o src/session/session_facts.o src/session/help.o src/session/progname.o
LIBS_tls-ctl-open = $(LIB_EXECLINE) $(LIB_SKALIBS) $(LIB_SOCKET)
OBJECTS_tls-await := src/chain/tls-await.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/session/session_facts.o src/session/help.o src/session/progname.o
LIBS_tls-await = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-handshake := src/chain/tls-handshake.o src/chain/chain_door.o src/chain/chain_engine.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/chain/chain_peer.o src/chain/chain_spawn.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o src/session/help.o src/session/progname.o
LIBS_tls-handshake = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-io := src/chain/tls-io.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o src/session/help.o src/session/progname.o
LIBS_tls-io = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-ctl-start := src/chain/tls-ctl-start.o src/chain/chain_door.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/tlsctl/tlsctl.o src/session/session_facts.o src/session/help.o src/session/progname.o
LIBS_tls-ctl-start = $(LIB_SKALIBS) $(LIB_SOCKET)
OBJECTS_tls-engine-open := src/chain/tls-engine-open.o src/chain/chain_door.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/chain/chain_spawn.o src/session/session_facts.o src/session/help.o src/session/progname.o
LIBS_tls-engine-open = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-peek := src/chain/tls-peek.o src/chain/chain_env.o src/chain/chain_fd.o src/chain/chain_network.o src/chain/hello.o src/session/hostname.o src/session/session_facts.o src/session/help.o src/session/progname.o
LIBS_tls-peek = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-engine := src/tls/tls-engine.o src/tls/buf.o src/tls/config.o src/tls/confine.o src/tls/confine_linux.o src/tls/confine_openbsd.o src/tls/confine_other.o src/tls/connection.o src/tls/crash.o src/tls/facts.o src/tls/failure.o src/tls/file.o src/tls/filter.o src/tls/hooks.o src/session/hostname.o src/tls/inherit.o src/tls/key.o src/tls/keypairs.o src/tls/network.o src/tls/pem.o src/tls/pipe.o src/tls/relay.o src/tls/serve.o src/tls/settings.o src/tls/signer.o src/tls/text.o src/tls/tickets.o src/tls/trust.o src/session/help.o src/session/progname.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-engine = $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tls-engined := src/tls/tls-engined.o src/tls/buf.o src/tls/config.o src/tls/confine.o src/tls/confine_linux.o src/tls/confine_openbsd.o src/tls/confine_other.o src/tls/connection.o src/tls/door.o src/tls/facts.o src/tls/failure.o src/tls/file.o src/tls/filter.o src/tls/hooks.o src/session/hostname.o src/tls/inherit.o src/tls/keeper.o src/tls/key.o src/tls/keypairs.o src/tls/network.o src/tls/pem.o src/tls/pipe.o src/tls/places.o src/tls/rehearse.o src/tls/relay.o src/tls/serve.o src/tls/settings.o src/tls/signer.o src/tls/text.o src/tls/tickets.o src/tls/trust.o src/tls/watch.o src/tls/worker.o src/session/help.o src/session/progname.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tls-engined = $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/unit/session := tests/unit/session.o src/session/progname.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tests/unit/session = $(LIB_CMOCKA) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/unit/places := tests/unit/places.o src/tls/places.o
LIBS_tests/unit/places = $(LIB_CMOCKA) $(LIB_SKALIBS) $(LIB_CLOCK)
OBJECTS_tests/unit/signer := tests/unit/signer.o tests/fuzz/unconfined.o src/tls/failure.o src/tls/file.o src/tls/inherit.o src/tls/key.o src/tls/pem.o src/tls/signer.o src/tls/text.o src/session/progname.o
LIBS_tests/unit/signer = $(LIB_CMOCKA) $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/unit/calls := tests/unit/calls.o src/tls/confine_linux.o src/tls/confine_openbsd.o src/tls/confine_other.o src/tls/failure.o src/tls/filter.o src/tls/text.o
LIBS_tests/unit/calls = $(LIB_SKALIBS)
OBJECTS_tests/unit/tlsctl-app := tests/unit/tlsctl-app.o src/tlsctl/tlsctl.o
LIBS_tests/unit/tlsctl-app =
OBJECTS_tests/fuzz/session := tests/fuzz/session.o tests/fuzz/replay.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tests/fuzz/session = $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/fuzz/hello := tests/fuzz/hello.o tests/fuzz/replay.o src/chain/hello.o src/session/hostname.o
LIBS_tests/fuzz/hello = $(LIB_SKALIBS) $(LIB_SOCKET)
OBJECTS_tests/fuzz/relay := tests/fuzz/relay.o tests/fuzz/replay.o tests/fuzz/unconfined.o tests/fuzz/world.o tests/fuzz/world_clock.o tests/fuzz/world_peer.o src/tls/buf.o src/tls/config.o src/tls/connection.o src/tls/facts.o src/tls/failure.o src/tls/file.o src/tls/hooks.o src/session/hostname.o src/tls/inherit.o src/tls/key.o src/tls/keypairs.o src/tls/network.o src/tls/pem.o src/tls/pipe.o src/tls/relay.o src/tls/serve.o src/tls/settings.o src/tls/signer.o src/tls/text.o src/tls/tickets.o src/tls/trust.o src/session/progname.o src/session/session_facts.o src/session/session_io.o src/session/session_pack.o
LIBS_tests/fuzz/relay = $(LIB_TLS) $(LIB_SSL) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
OBJECTS_tests/fuzz/signer := tests/fuzz/signer.o tests/fuzz/replay.o tests/fuzz/unconfined.o src/tls/failure.o src/tls/file.o src/tls/inherit.o src/tls/key.o src/tls/pem.o src/tls/signer.o src/tls/text.o src/session/progname.o
LIBS_tests/fuzz/signer = $(LIB_TLS) $(LIB_SKALIBS) $(LIB_SOCKET) $(LIB_CLOCK)
