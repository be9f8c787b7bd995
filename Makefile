# jailtap. `make test` and `make demo` need Go, make and root (or sudo), and
# install on Debian and Ubuntu what else is missing.

SHELL := /bin/bash
# sudo often leaves Go's usual place out.
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
# A work tree of another user, as under sudo, has no version that git would tell.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)
# Tests are built as the caller and run as root, who finds the modules where
# the caller has them.
AS_ROOT = $(if $(SUDO),-exec "$(SUDO) env 'PATH=$$PATH' 'GOFLAGS=$$GOFLAGS' 'GOMODCACHE=$$(go env GOMODCACHE)' JAILTAP_MUST_RUN=1")

BIN    ?= bin
OTHERS := freebsd darwin windows
FUZZTIME ?= 1m
DEMO   ?= demo-captures

.PHONY: help build build-freebsd test demo bench profile escape fuzz lint cross setup clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '%-13s %s\n' $$name "$$text"; done

build: setup ## make bin/jailtap
	go build -o bin/jailtap ./cmd/jailtap

build-freebsd: ## make static FreeBSD binaries in BIN, bin/jailtap-freebsd-amd64 and -arm64
	@set -e; for arch in amd64 arm64; do \
		echo "$(BIN)/jailtap-freebsd-$$arch"; \
		CGO_ENABLED=0 GOOS=freebsd GOARCH=$$arch go build -trimpath -o $(BIN)/jailtap-freebsd-$$arch ./cmd/jailtap; \
	done

test: build lint cross ## all checks and tests, as root; nothing is skipped
	JAILTAP_MUST_RUN=1 go test -count 1 -p 2 -timeout 20m $(AS_ROOT) ./...

demo: build ## capture in namespaces of its own and check every frame (DEMO=directory)
	go build -o bin/demo ./integration/demo
	$(SUDO) bin/demo -jailtap bin/jailtap -o $(DEMO)

bench: build ## measure, and write docs/BENCH.md
	go build -o bin/bench ./integration/bench
	$(SUDO) env "PATH=$$PATH" bin/bench -jailtap bin/jailtap -o docs/BENCH.md

profile: setup ## profile a packet's way from the ring to the file, into bin/profile.cpu
	@mkdir -p bin
	go test -run '^$$' -bench FromTheRingToTheFile -benchtime 100000000x -cpuprofile bin/profile.cpu -o bin/loader.test ./loader
	go tool pprof -top bin/loader.test bin/profile.cpu

escape: build ## attempts to get out of captive sockets, in a table
	go test -c -o bin/escape.test ./integration/escape
	$(SUDO) env "PATH=$$PATH" JAILTAP_MUST_RUN=1 bin/escape.test -jailtap bin/jailtap -table -

fuzz: setup ## run every fuzz test for FUZZTIME
	@set -e; for pkg in $$(go list ./...); do \
		for name in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

lint: setup ## gofmt, go vet, staticcheck, actionlint
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt these: $$out" >&2; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go tool actionlint .github/workflows/*.yml

cross: ## vet for the other systems, and without cgo
	CGO_ENABLED=0 go vet ./...
	@set -e; for os in $(OTHERS); do echo "GOOS=$$os go vet ./..."; CGO_ENABLED=0 GOOS=$$os go vet ./...; done

setup: # install what is missing
	@.ci/setup

clean: ## remove what was built
	rm -rf bin $(DEMO)
