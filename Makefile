# Factum. "make" alone lists what there is.
GO        ?= go
BIN       := $(CURDIR)/.bin
ARGS      ?=
PACKAGES  ?= ./...
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -X main.version=$(VERSION)

GOLANGCI  := $(BIN)/golangci-lint-v2.15.0
GOFUMPT   := $(BIN)/gofumpt-v0.12.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What "make run" and "make test" need beyond Go: PostgreSQL's server programs and openssl. On Debian as root they are installed;
# the package postgresql-common is told first not to start a cluster of its own.
.PHONY: setup
setup:
	@missing=""; \
	  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	  command -v openssl >/dev/null 2>&1 || missing="$$missing openssl"; \
	  command -v jq >/dev/null 2>&1 || missing="$$missing jq"; \
	  command -v curl >/dev/null 2>&1 || missing="$$missing curl"; \
	  if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	      echo "installing$$missing"; \
	      if [ ! -e /etc/postgresql-common/createcluster.conf ]; then mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf; fi; \
	      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	    else \
	      echo "not installed:$$missing  (Debian: apt-get install$$missing); without PostgreSQL, factum downloads one" >&2; \
	    fi; \
	  fi

.PHONY: build
build: ## build the binary ./factum
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o factum ./cmd/factum

.PHONY: run
run: setup build ## start the whole platform on http://127.0.0.1:4999 (ARGS="--listen … --data … --reset")
	@exec ./factum dev $(ARGS)

.PHONY: demo
demo: setup build ## show the main job step by step; starts the platform if it is not running
	@exec ./factum demo $(ARGS)

.PHONY: test
test: setup ## run all tests with the race detector; they bring their own PostgreSQL, S3 and authority
	$(GO) test -race -p 2 -timeout 9m $(PACKAGES)

.PHONY: bench
bench: ## measure the log against bare PostgreSQL in the same run
	$(GO) test -run '^$$' -bench . -benchtime 2s ./bench/...

.PHONY: openapi
openapi: build ## write docs/openapi.json (3.1) and docs/openapi.yaml (3.0.3)
	./factum openapi --dir docs

.PHONY: check
check: $(GOLANGCI) $(GOFUMPT) ## formatting, linter, import arrows, tidy modules, generated files up to date
	@out=$$($(GOFUMPT) -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofumpt-ed (run $(GOFUMPT) -w):"; echo "$$out"; exit 1; fi
	$(GOLANGCI) run ./...
	$(GO) test -count=1 -run TestArrows ./cmd/factum
	$(GO) mod tidy -diff
	@$(GO) build -o $(BIN)/factum-check ./cmd/factum && mkdir -p $(BIN)/openapi && $(BIN)/factum-check openapi --dir $(BIN)/openapi && \
	  for f in openapi.json openapi.yaml; do cmp -s docs/$$f $(BIN)/openapi/$$f || { echo "docs/$$f is not up to date: run make openapi"; exit 1; }; done
	@echo "check: all good"

$(GOLANGCI):
	GOBIN=$(BIN)/tmp $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 && mv $(BIN)/tmp/golangci-lint $@

$(GOFUMPT):
	GOBIN=$(BIN)/tmp $(GO) install mvdan.cc/gofumpt@v0.12.0 && mv $(BIN)/tmp/gofumpt $@
