# GNU make. ./configure writes config.mak; package/targets.mak names the programs;
# package/deps.mak, made by tools/gen-deps.sh, tells what they are made of.

all:

ifneq ($(filter-out %clean dist,$(or $(MAKECMDGOALS),all)),) # these need no configuration
-include config.mak
endif
include package/targets.mak
include package/deps.mak

CC ?= $(error run ./configure first)
PROVE := prove
INSTALL := install
SOURCES := $(wildcard src/*/*.c tests/*/*.c)

all: $(BIN_TARGETS) $(ENGINE_TARGETS) $(LIBEXEC_TARGETS) libtlsctl.a

config.mak:
	@echo 'run ./configure first' >&2; exit 1

%.o: %.c config.mak
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

src/chain/chain_engine.o: CPPFLAGS += -DTLS_ENGINE_PATH='"$(libexecdir)/tls-engine"'
src/chain/tls-engine-open.o: CPPFLAGS += -DTLS_ENGINED_PATH='"$(bindir)/tls-engined"'
src/tls/confine.o: CPPFLAGS += -DEMPTY_DIR='"$(libexecdir)/empty"'

link = $(CC) $(CFLAGS) $(LDFLAGS) $(1) -o $@ $(filter %.o,$^) $(LIBS_$(@:tests/bin/%=%))

.SECONDEXPANSION:

$(BIN_TARGETS): $$(OBJECTS_$$@)
	$(call link,$(LDFLAGS_CHAIN))

$(ENGINE_TARGETS) $(LIBEXEC_TARGETS): $$(OBJECTS_$$@)
	$(call link,$(LDFLAGS_ENGINE))

$(TEST_TARGETS): $$(OBJECTS_$$@)
	$(call link)

tests/unit/tlsctl-app.o: CPPFLAGS += -Isrc/tlsctl

libtlsctl.a: src/tlsctl/tlsctl.o
	rm -f $@
	$(AR) rcs $@ $^

# The tests run the programs as built, from tests/bin. Those that know a path are linked again
# there: of tls-engine, of tls-engined, of the empty directory.

tests/bin/chain_engine.o: src/chain/chain_engine.c src/chain/chain.h config.mak | tests/bin
	$(CC) $(CPPFLAGS) $(CFLAGS) -DTLS_ENGINE_PATH='"$(CURDIR)/tests/bin/tls-engine"' -c -o $@ $<

tests/bin/tls-engine-open.o: src/chain/tls-engine-open.c src/chain/chain.h config.mak | tests/bin
	$(CC) $(CPPFLAGS) $(CFLAGS) -DTLS_ENGINED_PATH='"$(CURDIR)/tests/bin/tls-engined"' -c -o $@ $<

tests/bin/confine.o: src/tls/confine.c src/tls/confine.h config.mak | tests/bin
	$(CC) $(CPPFLAGS) $(CFLAGS) -DEMPTY_DIR='"$(CURDIR)/tests/bin/empty"' -c -o $@ $<

tests/bin/tls-handshake: $(subst src/chain/chain_engine,tests/bin/chain_engine,$(OBJECTS_tls-handshake))
	$(call link,$(LDFLAGS_CHAIN))

tests/bin/tls-engine-open: $(subst src/chain/tls-engine-open.o,tests/bin/tls-engine-open.o,$(OBJECTS_tls-engine-open))
	$(call link,$(LDFLAGS_CHAIN))

ENGINES_CHECKED := $(ENGINE_TARGETS:%=tests/bin/%) $(LIBEXEC_TARGETS:%=tests/bin/%)

$(ENGINES_CHECKED): $$(subst src/tls/confine.o,tests/bin/confine.o,$$(OBJECTS_$$(@F))) | tests/bin/empty
	$(call link,$(LDFLAGS_ENGINE))

tests/bin:
	mkdir -p $@

tests/bin/empty: | tests/bin
	$(INSTALL) -d -m 555 $@

check-programs: all $(TEST_TARGETS) tests/bin/tls-handshake tests/bin/tls-engine-open $(ENGINES_CHECKED)
	@for i in $(filter-out tls-handshake tls-engine-open,$(BIN_TARGETS)); do ln -sf ../../$$i tests/bin/$$i; done

check: check-programs
	$(PROVE) $(PROVEFLAGS) tests/

PROGRAMS := $(BIN_TARGETS) $(ENGINE_TARGETS)
MANPAGES := $(wildcard doc/man/*.[1378])
DOCS := $(wildcard doc/html/*) $(shell cd $(CURDIR) && find examples ! -type d 2>/dev/null)

# Installs a file, in a directory that may not be there yet; a script stays one.
put = d=$(2); mode=644; [ ! -x $(1) ] || mode=755; \
  $(INSTALL) -d $${d%/*} && $(INSTALL) -m $$mode $(1) $$d

install: all
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(libexecdir)
	$(INSTALL) -m 755 $(PROGRAMS) $(DESTDIR)$(bindir)/
	@for i in $(LIBEXEC_TARGETS); do \
	  $(INSTALL) -m 755 $$i $(DESTDIR)$(libexecdir)/ || exit 1; done
	$(INSTALL) -d -m 555 $(DESTDIR)$(libexecdir)/empty
	@$(call put,libtlsctl.a,$(DESTDIR)$(libdir)/libtlsctl.a)
	@$(call put,src/tlsctl/tlsctl.h,$(DESTDIR)$(includedir)/tlsctl.h)
	$(INSTALL) -d $(DESTDIR)$(libdir)/pkgconfig
	sed -e 's,@prefix@,$(prefix),; s,@version@,$(version),' -e 's,@libdir@,$(libdir),' \
	  -e 's,@includedir@,$(includedir),' package/tlsctl.pc.in \
	  > $(DESTDIR)$(libdir)/pkgconfig/tlsctl.pc
	chmod 644 $(DESTDIR)$(libdir)/pkgconfig/tlsctl.pc
	@for i in $(COMMANDS); do \
	  sed 's,^lib=.*,lib=$(libexecdir),' examples/$$i > $(DESTDIR)$(bindir)/$$i && \
	  chmod 755 $(DESTDIR)$(bindir)/$$i || exit 1; done
	@for i in $(PARTS); do $(call put,examples/$$i,$(DESTDIR)$(libexecdir)/$$i) || exit 1; done
	@for i in $(MANPAGES); do \
	  d=$(DESTDIR)$(mandir)/man$${i##*.}; \
	  $(INSTALL) -d $$d && $(INSTALL) -m 644 $$i $$d/ || exit 1; done
	@for i in $(DOCS); do $(call put,$$i,$(DESTDIR)$(docdir)/$${i#doc/}) || exit 1; done

uninstall:
	rm -f $(patsubst %,$(DESTDIR)$(bindir)/%,$(PROGRAMS) $(COMMANDS))
	rm -f $(patsubst %,$(DESTDIR)$(libexecdir)/%,$(LIBEXEC_TARGETS) $(PARTS))
	rm -f $(DESTDIR)$(libdir)/libtlsctl.a $(DESTDIR)$(libdir)/pkgconfig/tlsctl.pc
	rm -f $(DESTDIR)$(includedir)/tlsctl.h
	-rmdir $(DESTDIR)$(libexecdir)/policy $(DESTDIR)$(libexecdir)/starttls 2>/dev/null
	rm -f $(foreach i,$(MANPAGES),$(DESTDIR)$(mandir)/man$(subst .,,$(suffix $i))/$(notdir $i))
	rm -f $(patsubst %,$(DESTDIR)$(docdir)/%,$(patsubst doc/%,%,$(DOCS)))
	-cd $(DESTDIR)$(docdir) 2>/dev/null && find . -depth -type d -exec rmdir {} + 2>/dev/null
	-rmdir $(DESTDIR)$(docdir) $(DESTDIR)$(libexecdir)/empty $(DESTDIR)$(libexecdir) 2>/dev/null

doc:
	tools/doc.sh

dist:
	tools/dist

clean:
	rm -rf $(BIN_TARGETS) $(ENGINE_TARGETS) $(LIBEXEC_TARGETS) $(TEST_TARGETS) $(SOURCES:.c=.o) libtlsctl.a tests/bin

distclean: clean
	rm -f config.mak

.PHONY: all check check-programs clean dist distclean doc install uninstall
