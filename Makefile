# csm: one Makefile, no recursion. `make help` lists the targets.
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

VERSION := 0.1.0
PREFIX ?= /usr
DESTDIR ?=
# Asked for late: before scripts/deps.sh has run there may be no compiler.
TRIPLET = $(shell $(CC) -print-multiarch 2>/dev/null)
LIBDIR = $(PREFIX)/lib/$(TRIPLET)
B := build
Q := $(if $(V),,@)

CC := gcc
CLANG := clang-14
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough
BASE_CFLAGS = -std=gnu11 -g -fPIC -pthread -fvisibility=hidden -fno-strict-aliasing -I. -I$(B)/gen -isystem /usr/include/p11-kit-1 \
	-D_GNU_SOURCE -DCSM_VERSION='"$(VERSION)"' -DCSM_TRIPLET='"$(TRIPLET)"' $(WARN)
HARDEN := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection
HARDEN_LD := -Wl,-z,relro,-z,now,-z,noexecstack

# Libraries that may be absent before scripts/deps.sh has run: asked for late.
pc = $(shell pkg-config --libs $(1) 2>/dev/null)
LIBS_BASE := -lsodium
LIBS_WIRE := -lmsgpackc
LIBS_DAEMON = -levent_core -levent_pthreads -llmdb -lyaml -lseccomp -ljansson $(LIBS_TPMFMT) $(LIBS_WIRE) $(LIBS_BASE) -ldl
LIBS_HTTP := -levent_extra -levent_openssl -lssl
LIBS_PLUGHOST = -lseccomp $(LIBS_WIRE) $(LIBS_BASE) -ldl
LIBS_DELIVER = -lseccomp -lyaml -ljansson $(LIBS_WIRE) $(LIBS_BASE)
LIBS_IDENT = -lseccomp -lcrypto $(LIBS_WIRE) $(LIBS_BASE)
LIBS_REST := -lcurl -lssl -lcrypto -ljansson
LIBS_ENROL = $(LIBS_REST) -lcares -lseccomp $(LIBS_WIRE) $(LIBS_BASE)
LIBS_TPMFMT := -ltss2-mu -lcrypto
LIBS_CLI = $(LIBS_REST) $(LIBS_TPMFMT) $(LIBS_WIRE) $(LIBS_BASE)
LIBS_P11 := $(LIBS_WIRE) $(LIBS_BASE) -lcrypto
LIBS_soft := $(LIBS_TPMFMT) $(LIBS_WIRE) $(LIBS_BASE)
LIBS_fake := -lcrypto $(LIBS_BASE)
LIBS_pkcs11 := -lp11-kit -lcrypto $(LIBS_BASE) -ldl
LIBS_hwpluginif := -lcrypto $(LIBS_BASE) -ldl
LIBS_tpm2 := -ltss2-sys -ltss2-mu -ltss2-rc -lcrypto $(LIBS_WIRE) $(LIBS_BASE)

# ---- what is built from what -------------------------------------------------
src = $(wildcard $(addsuffix /*.c,$(1)))
SRC_base := $(call src,libclient/base)
SRC_wire := $(call src,libclient/wire)
SRC_client := $(call src,libclient/client)
SRC_tpmfmt := $(call src,libclient/tpmfmt)
SRC_rest := $(call src,libclient/rest)
SRC_certdir := $(call src,libclient/certdir)
SRC_cli := $(call src,libclient/cli)
SRC_provider := $(call src,libclient/provider)
SRC_p11 := $(call src,libclient/p11)
SRC_pki := $(call src,daemon/pki)
SRC_svc := $(call src,daemon/svc)
SRC_node := $(call src,daemon/node)
SRC_ident := $(call src,daemon/ident)
SRC_plughost := $(call src,daemon/plughost)
SRC_deliver := $(call src,daemon/deliver)
SRC_enrol := $(call src,daemon/enrol)
SRC_central := $(call src,daemon/central)
SRC_remote := $(call src,plugins/remote)
SRC_alg := $(call src,plugins/alg)
PLUGINS := fake hwpluginif pkcs11 soft tpm2
$(foreach p,$(PLUGINS),$(eval SRC_$(p) := $(call src,plugins/$(p))))
SRC_hwlib := $(call src,plugins/tpm2/hwlib)
# What a back end has beside its own folder.
WITH_tpm2 := $(SRC_tpmfmt) $(SRC_wire)
WITH_soft := $(SRC_tpmfmt) $(SRC_wire)
LIB_SRC := $(SRC_base) $(SRC_wire) $(SRC_tpmfmt) $(SRC_rest) $(SRC_certdir) $(SRC_client) $(SRC_pki) $(SRC_svc) $(SRC_alg) $(SRC_remote)
PLUGIN_SRC := $(foreach p,$(PLUGINS),$(SRC_$(p)))
ALL_SRC := $(LIB_SRC) $(PLUGIN_SRC) $(SRC_hwlib) $(SRC_cli) $(SRC_provider) $(SRC_node) $(SRC_ident) $(SRC_plughost) $(SRC_deliver) $(SRC_enrol) $(SRC_central)
# Of the daemons' common parts no more than it needs.
SVC_plughost := $(patsubst %,daemon/svc/%.c,landlock log options sandbox seccomp)
SVC_enrol := $(patsubst %,daemon/svc/%.c,landlock lockheap lockheap_openssl log options sandbox seccomp thread)
SVC_deliver := $(patsubst %,daemon/svc/%.c,config_read landlock log options sandbox seccomp yaml)
SVC_central := $(patsubst %,daemon/svc/%.c,config_read journal landlock lmdb_file lockheap lockheap_openssl log notify options prk rates sandbox seccomp thread workq yaml) \
	$(wildcard daemon/svc/http*.c daemon/svc/engine*.c)
# csmd has no network.
SVC_node = $(filter-out daemon/svc/rates.c $(wildcard daemon/svc/http*.c daemon/svc/engine*.c),$(SRC_svc))
SVC_ident := $(patsubst %,daemon/svc/%.c,landlock log options sandbox seccomp workq)

GEN := $(B)/gen/csm/errors.h

# libgfshare, with its memory from csm's own: what it computes on is locked, and wiped when it is freed.
GFSHARE := $(B)/gen/gfshare.o
$(GFSHARE): | $(B)/.deps
	$(Q)mkdir -p $(@D)
	$(Q)cd $(@D) && ar x $$($(CC) -print-file-name=libgfshare.a) libgfshare.o && \
		objcopy --redefine-sym malloc=csm_lock_alloc --redefine-sym free=csm_lock_free libgfshare.o gfshare.o

# ---- variants: release in build/, others in build/<variant>/ --------------------
# $(1) variant, $(2) compiler, $(3) flags, $(4) link flags, $(5) output root
define variant
O_$(1) := $(B)/obj/$(1)
R_$(1) := $(5)
obj_$(1) = $$(patsubst %.c,$(B)/obj/$(1)/%.o,$$(1))
$(B)/obj/$(1)/%.o: %.c | $$(GEN)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $$(BASE_CFLAGS) $(3) -MMD -MP -c -o $$@ $$<

LIBCSM_OBJ_$(1) := $$(call obj_$(1),$$(SRC_client) $$(SRC_wire) $$(SRC_base))
$(5)/lib/libcsm.so.0: $$(LIBCSM_OBJ_$(1)) libclient/client/libcsm.map
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -shared -Wl,-soname,libcsm.so.0 -Wl,--version-script=libclient/client/libcsm.map -o $$@ \
		$$(LIBCSM_OBJ_$(1)) $$(LIBS_WIRE) $$(LIBS_BASE) -pthread
	$$(Q)ln -sf libcsm.so.0 $$(@D)/libcsm.so
# One object whose only global names are the public ones.
$(5)/lib/libcsm.a: $$(LIBCSM_OBJ_$(1))
	$$(Q)mkdir -p $$(@D)
	$$(Q)ld -r -o $$(O_$(1))/libcsm-all.o $$^ && objcopy --localize-hidden $$(O_$(1))/libcsm-all.o
	$$(Q)rm -f $$@; ar rcs $$@ $$(O_$(1))/libcsm-all.o

# What a program loads finds its own functions, whatever other modules it has loaded.
$(5)/lib/pkcs11/csm-pkcs11.so: $$(call obj_$(1),$$(SRC_p11) $$(SRC_client) $$(SRC_wire) $$(SRC_base)) libclient/p11/csm-pkcs11.map
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -shared -Wl,-Bsymbolic -Wl,--version-script=libclient/p11/csm-pkcs11.map -o $$@ \
		$$(filter %.o,$$^) $$(LIBS_P11) -pthread

$(5)/lib/csm/plugins/%.so:
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -shared -Wl,-Bsymbolic -o $$@ $$(filter %.o,$$^) $$(LIBS_$$*) -pthread
$$(foreach p,$$(PLUGINS),$$(eval $(5)/lib/csm/plugins/$$(p).so: \
	$$(call obj_$(1),$$(SRC_$$(p)) $$(WITH_$$(p)) $$(SRC_alg) $$(SRC_base))))

# The TPM, to hosts of hardware plugins.
$(5)/lib/csm/hwplugin/csm-tpm2-hwplugin.so: $$(call obj_$(1),$$(SRC_hwlib) $$(filter-out %/export.c,$$(SRC_tpm2)) $$(WITH_tpm2) \
	$$(SRC_alg) $$(SRC_base)) plugins/tpm2/hwlib/csm-tpm2-hwplugin.map
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -shared -Wl,-Bsymbolic -Wl,--version-script=plugins/tpm2/hwlib/csm-tpm2-hwplugin.map -o $$@ \
		$$(filter %.o,$$^) $$(LIBS_tpm2) -pthread

# OpenSSL's module has libcsm in it: nothing of it is seen from outside.
$(5)/lib/ossl-modules/csm.so: $$(call obj_$(1),$$(SRC_provider) $$(SRC_client) $$(SRC_wire) $$(SRC_base)) libclient/provider/csm.map
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -shared -Wl,-Bsymbolic -Wl,--version-script=libclient/provider/csm.map -o $$@ \
		$$(filter %.o,$$^) -lcrypto $$(LIBS_WIRE) $$(LIBS_BASE) -pthread

CSMD_OBJ_$(1) := $$(call obj_$(1),$$(SRC_node) $$(SVC_node) $$(SRC_remote) $$(SRC_pki) $$(SRC_alg) $$(SRC_tpmfmt) $$(SRC_wire) $$(SRC_base)) $(GFSHARE)
$(5)/bin/csmd: $$(CSMD_OBJ_$(1))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_DAEMON) -pthread
$(5)/bin/csm-ident: $$(call obj_$(1),$$(SRC_ident) $$(SVC_ident) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_IDENT) -pthread
$(5)/bin/csm-deliver: $$(call obj_$(1),$$(SRC_deliver) $$(SRC_certdir) $$(SVC_deliver) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_DELIVER) -pthread
$(5)/bin/csm-plughost: $$(call obj_$(1),$$(SRC_plughost) plugins/remote/channel.c $$(SVC_plughost) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_PLUGHOST) -pthread
$(5)/bin/csm-enrol: $$(call obj_$(1),$$(SRC_enrol) plugins/remote/channel.c $$(SVC_enrol) daemon/pki/certsonly.c daemon/pki/der.c $$(SRC_rest) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_ENROL) -pthread
$(5)/bin/csm-server: $$(call obj_$(1),$$(SRC_central) $$(SVC_central) $$(SRC_pki) $$(SRC_alg) $$(SRC_client) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_HTTP) $$(LIBS_DAEMON) -pthread
$(5)/bin/csm: $$(call obj_$(1),$$(SRC_cli) $$(SRC_certdir) $$(SRC_rest) $$(SRC_tpmfmt) $$(SRC_client) $$(SRC_wire) $$(SRC_base))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) -pie $(4) -o $$@ $$^ $$(LIBS_CLI) -pthread

# Tests: every tests/{unit,vectors,conformance}/test_*.c is a program over all of the code. lld: there are hundreds of links.
TESTLIB_OBJ_$(1) := $$(call obj_$(1),$$(LIB_SRC) $$(PLUGIN_SRC) $$(filter-out %/main.c,$$(SRC_node) $$(SRC_ident) $$(SRC_plughost) $$(SRC_deliver) $$(SRC_enrol) $$(SRC_central)) $$(call src,tests/lib)) $(GFSHARE)
$(5)/tests/%: $(B)/obj/$(1)/tests/%.o $$(TESTLIB_OBJ_$(1))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(2) $(3) $(4) -fuse-ld=lld -o $$@ $$^ -lcmocka $$(LIBS_more) $$(LIBS_HTTP) $$(LIBS_DAEMON) $$(LIBS_REST) -lcares $$(LIBS_tpm2) -lp11-kit $$(LIBS_CLI) -ltss2-esys -ltss2-tctildr -pthread
# Tests of the front ends load the module, and start a node.
$$(patsubst tests/%.c,$(5)/tests/%,$$(wildcard tests/unit/test_p11_*.c tests/unit/test_provider_*.c)): | programs-$(1)
-include $$(wildcard $(B)/obj/$(1)/*/*.d $(B)/obj/$(1)/*/*/*.d $(B)/obj/$(1)/*/*/*/*.d)
.PHONY: programs-$(1)
programs-$(1): $$(if $$(SRC_node),$(5)/bin/csmd $(5)/bin/csm-ident $(5)/bin/csm-plughost $(5)/bin/csm-deliver $(5)/bin/csm-enrol $(5)/bin/csm-server) $$(if $$(SRC_cli),$(5)/bin/csm) \
	$$(if $$(SRC_client),$(5)/lib/libcsm.so.0 $(5)/lib/libcsm.a) \
	$$(if $$(SRC_provider),$(5)/lib/ossl-modules/csm.so) \
	$$(if $$(SRC_p11),$(5)/lib/pkcs11/csm-pkcs11.so) $(5)/lib/csm/hwplugin/csm-tpm2-hwplugin.so $$(PLUGINS:%=$(5)/lib/csm/plugins/%.so)
endef

FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
FUZZ_LD := -fsanitize=fuzzer,address,undefined
SAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
$(eval $(call variant,release,$$(CC),$$(HARDEN),$$(HARDEN_LD),$(B)))
$(eval $(call variant,asan,$$(CC),-O1 $$(SAN) -DCSM_SANITIZED=1,$$(SAN),$(B)/asan))
$(eval $(call variant,tsan,$$(CC),-O1 -fsanitize=thread -DCSM_SANITIZED=1,-fsanitize=thread,$(B)/tsan))
$(eval $(call variant,cov,$$(CC),-O0 -g0 --coverage -DCSM_SANITIZED=1 -DCSM_COVERAGE=1,--coverage,$(B)/cov))
$(eval $(call variant,fuzz,$$(CLANG),-O1 $$(FUZZ_SAN) -Wno-unused-command-line-argument -Wno-missing-field-initializers,$$(FUZZ_LD),$(B)/fuzz))

.PHONY: all
all: programs-release ## build everything

$(B)/gen/csm/errors.h: proto-spec/errors.def scripts/gen-errors.sh | $(B)/.deps
	$(Q)mkdir -p $(@D)
	$(Q)scripts/gen-errors.sh $< >$@

# Missing packages are named once, with the command that installs them, before the compiler stumbles.
$(B)/.deps: scripts/deps.sh
	$(Q)scripts/deps.sh --have-build
	$(Q)mkdir -p $(@D) && touch $@

# ---- tests -------------------------------------------------------------------
UNIT := $(patsubst tests/%.c,%,$(wildcard tests/unit/test_*.c tests/vectors/test_*.c tests/conformance/test_*.c))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
# Helpers of the scripts in tests/system and tests/interop: programs over all of the code.
HELPERS := $(patsubst tests/%.c,%,$(wildcard tests/system/*.c tests/interop/*.c tests/bench/*.c) \
	$(filter-out tests/attack/attack.c,$(wildcard tests/attack/*.c)))
# Faults are put into a whole broker, under the sanitizers.
FAULTS := $(B)/asan/tests/fault/faults
$(FAULTS): $(call obj_asan,tests/fault/inject.c tests/fault/brokerproc.c)
# A library and a host of hardware plugins that have nothing of csm in them.
HWPLUGIN := $(B)/tests/interop/hwplugin/library.so $(B)/tests/interop/hwplugin/host
$(B)/tests/interop/hwplugin/host: tests/interop/hwplugin/host.c tests/interop/hwplugin/abi.h
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -g -O1 -D_GNU_SOURCE $(WARN) -o $@ $< -lcrypto -ldl -pthread
$(B)/tests/interop/hwplugin/%.so: tests/interop/hwplugin/%.c $(wildcard tests/interop/hwplugin/*.h)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -g -O1 -fPIC -fvisibility=hidden -D_GNU_SOURCE $(WARN) -shared -o $@ $< -lcrypto
$(foreach v,asan tsan cov,$(patsubst tests/%.c,$(B)/$(v)/tests/%,$(wildcard tests/unit/test_hwplugin*.c \
	tests/conformance/test_*.c))): | $(HWPLUGIN)
$(foreach v,asan tsan cov,$(B)/$(v)/tests/unit/test_hwpluginif_tpm): $(B)/%/tests/unit/test_hwpluginif_tpm: | $(B)/%/lib/csm/hwplugin/csm-tpm2-hwplugin.so
# Objects that tests load into the programs of the release.
PRELOADS := $(B)/tests/fault/powercut.so $(B)/tests/fault/badtoken.so
$(B)/tests/fault/%.so: tests/fault/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -shared -o $@ $< -lcrypto -ldl
$(foreach v,asan tsan cov,$(B)/$(v)/tests/unit/test_pkcs11): | $(B)/tests/fault/badtoken.so

.PHONY: unit
unit: $(UNIT:%=$(B)/asan/tests/%) ## build and run the unit, vector and conformance programs (sanitizers on)
	$(Q)for t in $^; do echo "== $$t"; timeout 300 $$t || exit 1; done

CONFORMANCE := $(patsubst tests/%.c,$(B)/asan/tests/%,$(wildcard tests/conformance/test_*.c))
.PHONY: check-plugin
check-plugin: $(CONFORMANCE) programs-asan ## conformance suite over one back end: P=soft, tpm2, fake, a path/to/x.so, or remote: before these
	$(Q)for t in $^; do $(if $(P),CSM_PLUGIN=$(P)) timeout 300 $$t || exit 1; done

# What scripts/check.sh runs; at full counts the parts with threads once more under the thread sanitizer.
TSAN_UNIT := $(filter unit/test_store% unit/test_db% unit/test_engine% unit/test_async unit/test_client% unit/test_lockmem unit/test_lockheap unit/test_workq unit/test_counts \
	unit/test_admit unit/test_fair unit/test_audit% unit/test_thread unit/test_backend unit/test_keycache unit/test_http% unit/test_dispatch unit/test_conn unit/test_proof unit/test_ident unit/test_do_% unit/test_p11_threads unit/test_provider_threads unit/test_remote%,$(UNIT))
.PHONY: tests-built tests-built-long
tests-built-long: tests-built programs-tsan $(TSAN_UNIT:%=$(B)/tsan/tests/%)
tests-built: all programs-asan $(UNIT:%=$(B)/asan/tests/%) $(HELPERS:%=$(B)/tests/%) $(HWPLUGIN) $(PRELOADS) $(FAULTS) \
	$(FUZZ:%=$(B)/fuzz/tests/fuzz/fuzz_%)

.PHONY: check check-long
check: ## install what is missing, run the tests (root; under 20 minutes on two cores)
	@scripts/deps.sh && scripts/check.sh
check-long: ## every test at its full count (root; at most 4 hours)
	@scripts/deps.sh && CSM_LONG=1 scripts/check.sh

T ?= $(FUZZ)
S ?= 60
.PHONY: fuzz
fuzz: $(FUZZ:%=$(B)/fuzz/tests/fuzz/fuzz_%) ## fuzz: T=target (default: all of them, one after the other) S=seconds
	$(Q)for t in $(T); do scripts/fuzz.sh $$t $(S) || exit 1; done

.PHONY: cov
cov: programs-cov $(UNIT:%=$(B)/cov/tests/%) $(HELPERS:%=$(B)/tests/%) ## line coverage; fails below the bar
	$(Q)scripts/cov.sh

# The attack programs are executed many times over: they have only what they need.
$(B)/tests/attack/%: $(B)/obj/release/tests/attack/%.o $(call obj_release,tests/attack/attack.c $(SRC_wire) $(SRC_base))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HARDEN) $(HARDEN_LD) -o $@ $^ $(LIBS_WIRE) $(LIBS_BASE) -pthread

export LINT_CFLAGS = $(BASE_CFLAGS)
.PHONY: lint
lint: $(GEN) ## clang-tidy, cppcheck, shellcheck, layers, calls, sizes, words
	$(Q)scripts/lint.sh

.PHONY: soak
soak: all $(HELPERS:%=$(B)/tests/%) ## load on a private node for S=seconds; memory, descriptors and handles stay bounded
	$(Q)scripts/soak.sh $(S)

# What the programs of tests/bench share.
$(B)/tests/bench/load: $(call obj_release,$(call src,tests/bench/gen))
$(B)/tests/bench/load: LIBS_more := -lssl
-include $(wildcard $(B)/obj/release/tests/bench/gen/*.d)
.PHONY: bench
bench: all $(HELPERS:%=$(B)/tests/%) ## benchmarks, with peers beside csm in the same run; build/bench.json
	$(Q)scripts/bench.sh

# ---- try it --------------------------------------------------------------------
.PHONY: demo run
demo: ## install what is missing, build, show the main job step by step on a private node (root)
	@scripts/deps.sh && scripts/demo.sh
run: all ## a private node in the foreground under build/node
	$(Q)scripts/run.sh

# ---- what the command tells of itself --------------------------------------------
$(B)/man/csm.1: $(B)/bin/csm
	$(Q)mkdir -p $(@D)
	$(Q)$< --dump-man >$@
$(B)/completion/csm: $(B)/bin/csm
	$(Q)mkdir -p $(@D)
	$(Q)$< --dump-completion >$@
all: $(B)/man/csm.1 $(B)/completion/csm

# ---- installation --------------------------------------------------------------
install: all ## install below DESTDIR (default: /) and PREFIX (default: /usr)
	$(Q)MAKE_PREFIX='$(PREFIX)' MAKE_DESTDIR='$(DESTDIR)' MAKE_LIBDIR='$(LIBDIR)' MAKE_VERSION='$(VERSION)' \
		scripts/install.sh
.PHONY: install

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{sub(/ .*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## remove build/
	$(Q)rm -rf $(B)
