# Everything that a person or a machine does with this repository; `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
ARGS ?=
TOOLS := $(CURDIR)/.bin
ROOMS := bench cmd commands domain eventstore infra projections readapi # all that hold Go; the arrows test knows no other
GOLANGCI_LINT_VERSION := 2.15.0
GOFUMPT_VERSION := 0.12.0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The race detector needs a C compiler; without one the tests run all the same, only without it.
RACE := $(if $(shell command -v gcc clang 2>/dev/null),-race)

.PHONY: help
help: ## Say what can be done here
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Flags for factum go into ARGS:  make run ARGS="--listen 127.0.0.1:5000 --data /tmp/factum"'

.PHONY: run
run: setup build ## Start the whole platform on http://127.0.0.1:4999 (Ctrl-C stops it)
	@exec ./factum dev $(ARGS)

.PHONY: demo
demo: setup build ## Run the main job step by step; uses what runs, else starts it
	@exec ./factum demo $(ARGS)

# Without go vet, which make check runs among the linters, and without debug data, which a stack trace does not need: both take minutes on a
# machine that has built nothing yet. With the race detector every process sleeps for a second before it ends unless told otherwise.
.PHONY: test
test: setup ## Run all tests; they bring their own servers up and down
	@echo 'testing $(if $(RACE),with,without) the race detector; the first run also compiles everything'
	@GORACE='atexit_sleep_ms=20' $(GO) test $(RACE) -p 2 -vet=off -ldflags='-s -w' -timeout 25m ./...

.PHONY: check
check: check-format check-modules check-arrows check-openapi check-lint ## Formatting, modules, import arrows, OpenAPI, linters
	@echo 'check: all is well'

.PHONY: bench-log
bench-log: setup ## Measure the log beside pgbench, COPY and message-db, in under 10 minutes; needs npm for message-db
	@$(GO) run ./bench/log $(ARGS)

.PHONY: soak-log
soak-log: setup ## Torture the log with 1,000,000 events twice (about 5 minutes); progress is shown
	@FACTUM_SOAK_EVENTS=$${FACTUM_SOAK_EVENTS:-1000000} $(GO) test -run '^TestTorture$$' -count 1 -v -timeout 15m ./eventstore/pgstore

.PHONY: bench-projections
bench-projections: setup build ## Measure read models and 1,000 tenants beside COPY and one tenant, in under 15 minutes
	@$(GO) run ./bench/projections --factum ./factum $(ARGS)

.PHONY: bench-api
bench-api: setup build ## Measure the REST API beside the same SQL, the parts of an upload and the bare hash, in under 10 minutes
	@$(GO) run ./bench/api --factum ./factum $(ARGS)

.PHONY: soak-rebuild
soak-rebuild: setup build ## Serve 200 requests/s while a read model of 1,000,000 events is rebuilt; progress is shown
	@$(GO) run ./bench/projections/soak rebuild --factum ./factum --events $${FACTUM_SOAK_EVENTS:-1000000} $(ARGS)

.PHONY: soak-projectors
soak-projectors: setup build ## Kill four projectors at random for two minutes, then compare with the logs
	@$(GO) run ./bench/projections/soak projectors --factum ./factum $(ARGS)

.PHONY: fuzz-api
fuzz-api: setup ## Drive every route with 100,000 valid and hostile requests of a random seed (some minutes); a table is shown
	@FACTUM_FUZZ_REQUESTS=$${FACTUM_FUZZ_REQUESTS:-100000} FACTUM_FUZZ_SEED=$${FACTUM_FUZZ_SEED:-$$RANDOM$$RANDOM} \
		$(GO) test $(RACE) -run '^TestFuzzTheAPI$$' -count 1 -v -timeout 60m ./cmd/factum/apitest

.PHONY: build
build: ## Build ./factum
	@test -x factum || echo 'building factum; the first time this takes some minutes …'
	@$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o factum ./cmd/factum

.PHONY: openapi
openapi: ## Write docs/openapi.json and docs/openapi.yaml from the routes
	@$(GO) run ./cmd/factum openapi --dir docs

# --- what the targets above are made of -------------------------------------------------------------------------------

# On Debian as root the missing packages are installed. Elsewhere factum helps itself to PostgreSQL, and says so if openssl is missing.
# Debian's postgresql package creates and starts a server of its own unless told not to; Factum wants the programs only. An
# administrator's own choice in createcluster.conf is left alone.
.PHONY: setup
setup: ## Install the Debian packages that are missing (root only); run, demo and test do it by themselves
	@missing=(); \
	command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql); \
	for tool in openssl curl jq; do command -v $$tool >/dev/null || missing+=($$tool); done; \
	if (($${#missing[@]} == 0)); then exit 0; fi; \
	if ! command -v apt-get >/dev/null || (($$(id -u) != 0)); then \
		echo "setup: not installed: $${missing[*]}. On Debian: sudo apt-get install $${missing[*]}" >&2; \
		echo 'setup: going on; factum downloads a PostgreSQL of its own if there is none' >&2; exit 0; \
	fi; \
	echo "setup: installing $${missing[*]} with apt-get …"; \
	export DEBIAN_FRONTEND=noninteractive; \
	install() { apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "$$@" >/dev/null; }; \
	explain='setup: apt-get failed; install these by hand:'; \
	apt-get update -q >/dev/null || { echo "$$explain $${missing[*]}" >&2; exit 1; }; \
	if [[ " $${missing[*]} " == *' postgresql '* ]]; then \
		install postgresql-common || { echo "$$explain $${missing[*]}" >&2; exit 1; }; \
		conf=/etc/postgresql-common/createcluster.conf; \
		grep -qsE '^[[:space:]]*create_main_cluster' $$conf || echo 'create_main_cluster = false # by the Makefile of Factum' >>$$conf; \
	fi; \
	install "$${missing[@]}" || { echo "$$explain $${missing[*]}" >&2; exit 1; }

.PHONY: check-format
check-format: tools
	@echo 'check: formatting'
	@files=$$($(TOOLS)/gofumpt -l $(ROOMS)); \
	if [[ -n $$files ]]; then printf 'not formatted; run .bin/gofumpt -w on:\n%s\n' "$$files" >&2; exit 1; fi

.PHONY: check-modules
check-modules:
	@echo 'check: go.mod and go.sum'
	@$(GO) mod tidy -diff || { echo 'go.mod or go.sum is not tidy; run go mod tidy' >&2; exit 1; }

.PHONY: check-arrows
check-arrows:
	@echo 'check: import arrows between the rooms'
	@$(GO) test -count=1 -run '^TestArrows' ./cmd/factum

.PHONY: check-openapi
check-openapi:
	@echo 'check: docs/openapi.* are what the routes say'
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(GO) run ./cmd/factum openapi --dir "$$fresh"; \
	for name in openapi.json openapi.yaml; do \
		diff -u docs/$$name "$$fresh/$$name" || { echo "docs/$$name is not what the routes say; run make openapi" >&2; exit 1; }; \
	done

.PHONY: check-lint
check-lint: tools
	@echo 'check: linters'
	@$(TOOLS)/golangci-lint run ./...

# The tools are built by their pinned versions; the first time takes some minutes.
.PHONY: tools
tools:
	@mkdir -p $(TOOLS); export GOBIN=$(TOOLS) GOFLAGS=; \
	$(TOOLS)/gofumpt --version 2>/dev/null | grep -qF 'v$(GOFUMPT_VERSION) ' || { \
		echo 'building gofumpt $(GOFUMPT_VERSION) …'; $(GO) install mvdan.cc/gofumpt@v$(GOFUMPT_VERSION); }; \
	$(TOOLS)/golangci-lint version 2>/dev/null | grep -qF ' $(GOLANGCI_LINT_VERSION) ' || { \
		echo 'building golangci-lint $(GOLANGCI_LINT_VERSION) (some minutes) …'; \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(GOLANGCI_LINT_VERSION); }

.PHONY: clean
clean: ## Delete what was built and what the demo downloaded; data folders stay
	@rm -rf factum demo-out .bin
