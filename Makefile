# Two commands do everything on a fresh Debian machine with Go: `make demo` and `make test`.

SHELL   := /bin/bash
NAME    := docker-netcheck
PKG     := ./cli-plugins/docker-netcheck
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/docker-netcheck/docker-netcheck/internal/metadata.Version=$(VERSION)
BUILD   := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
# What the lab needs on the machine beside Go (it builds Debian roots and enters namespaces), and what the
# tests that work in bare namespaces compare with.
LAB_DEPS := mmdebstrap util-linux debian-archive-keyring ca-certificates \
	iproute2 procps iptables nftables ipset conntrack
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

FOR     ?= 10m

.PHONY: help build install dist test test-all fuzz lint bench demo lab-deps docs clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static plugin, bin/docker-netcheck
	$(BUILD) -o bin/$(NAME) $(PKG)

install: build ## install it for you, or with PREFIX=/usr/local (and DESTDIR) for everybody
ifdef PREFIX
	install -D -m 0755 bin/$(NAME) "$(DESTDIR)$(PREFIX)/libexec/docker/cli-plugins/$(NAME)"
else
	install -D -m 0755 bin/$(NAME) "$${DOCKER_CONFIG:-$$HOME/.docker}/cli-plugins/$(NAME)"
endif

# What an engine elsewhere runs stands beside each plugin: macOS and Windows have no other way, and a Linux
# client meets engines of the other architecture. Not docker-…: docker would take it for a broken plugin.
dist: ## build for Linux, macOS and Windows into dist/, each with the helpers for other hosts beside it
	@rm -rf dist && set -e; for arch in amd64 arm64; do \
	  echo linux-$$arch; GOOS=linux GOARCH=$$arch $(BUILD) -o dist/linux-$$arch/$(NAME) $(PKG); \
	  echo darwin-$$arch; GOOS=darwin GOARCH=$$arch $(BUILD) -o dist/darwin-$$arch/$(NAME) $(PKG); \
	  echo windows-$$arch; GOOS=windows GOARCH=$$arch $(BUILD) -o dist/windows-$$arch/$(NAME).exe $(PKG); \
	done; \
	for dir in dist/*; do for arch in amd64 arm64; do \
	  [ $$dir = dist/linux-$$arch ] || ln dist/linux-$$arch/$(NAME) $$dir/netcheck-agent-linux-$$arch; \
	done; done; \
	cd dist && sha256sum */* >SHA256SUMS

test: lab-deps build ## run every test, those on a real engine in namespaces included
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CI="$${CI:-}" go test -timeout 60m ./...

test-all: lab-deps build ## the same with every fault and setting on every engine, not in rotation
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CI="$${CI:-}" NETCHECK_TEST_ALL=1 go test -timeout 180m ./...

# Half of the time is the differential test's, the other half all fuzz targets' alike. What they find stays:
# internal/packet/testdata/found and each package's testdata/fuzz, which `make test` tries again.
fuzz: lab-deps ## look for disagreements with this kernel and for input that breaks a parser, FOR=10m
	@case $(FOR) in *h) one=3600;; *m) one=60;; *) one=1;; esac; n=$(FOR); seconds=$$(($${n%[hms]} * one)); \
	targets=$$(grep -ro --include=*_test.go '^func Fuzz[A-Za-z0-9]*' . | sed 's|/[^/]*:func |:|'); \
	each=$$((seconds / 2 / $$(wc -w <<<"$$targets"))); \
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CI=1 PACKET_DIFF_SEED=$$(date +%s) PACKET_DIFF_SECONDS=$$((seconds / 2)) PACKET_DIFF_ROUNDS=1 \
	  go test -count=1 -timeout 0 -v -run '^TestAgreesWithTheKernel$$' ./internal/packet || exit; \
	for t in $$targets; do echo $$t; \
	  go test -run '^$$' -fuzz "^$${t#*:}$$" -fuzztime $${each}s -fuzzminimizetime 1x $${t%:*} || exit; \
	done

lint: ## check format and code
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'gofmt -w the files above'; exit 1; }
	go vet ./...
	@for os in darwin windows; do echo GOOS=$$os; GOOS=$$os go vet ./... || exit 1; done
	go run honnef.co/go/tools/cmd/staticcheck@v0.6.1 ./...

bench: lab-deps build ## measure side by side in one run, print ratios
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" go run ./internal/lab/cmd/bench
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" go run ./internal/lab/cmd/bench -size

demo: lab-deps build ## start a real engine in namespaces, break it, diagnose, fix, prove, clean up
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" go run ./internal/lab/cmd/demo --plugin bin/$(NAME)

lab-deps: # install what the lab needs, if anything is missing
	@missing=$$(for p in $(LAB_DEPS); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

docs: ## write docs/checks.md and docs/snapshot.md anew from the code's own words
	go test ./cli-plugins/docker-netcheck -run TestChecksPage -update
	go test ./internal/netstate -run TestSnapshotPage -update

clean: ## remove what was built
	rm -rf bin dist
