# Bare `make` prints the targets. Everything here needs Go, make and a shell; only image, up, down and drill need Docker too.
# Tools are built from the pinned modules in tools/ into .cache/bin, once for each change of their go.mod and go.sum.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO       ?= go
PKG      ?= ./...
FUZZTIME ?= 20s
BENCH    ?= .
BIN      := $(CURDIR)/.cache/bin
IMAGES   := $(CURDIR)/.cache/image
ARCH     := $(shell $(GO) env GOARCH)

# What is tested is what is shipped: a static program without C. (The race detector alone needs cgo.)
export CGO_ENABLED := 0

# A tool's file name carries a checksum of what pins it, so that a changed pin builds anew and nothing else does.
tools_sum := $(shell cat tools/go.mod tools/go.sum | cksum | cut -d' ' -f1)
minio_sum := $(shell cat tools/minio/go.mod tools/minio/go.sum | cksum | cut -d' ' -f1)
STATICCHECK := $(BIN)/staticcheck-$(tools_sum)
PROTOTOOLS  := $(BIN)/proto-$(tools_sum)
MINIO       := $(BIN)/minio-$(minio_sum)

NODES   ?=
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) -p commutator
# One node a region, or three.
ONENODE := -f deploy/docker-compose.yml
THREENODES := -f deploy/docker-compose.3x3.yml

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary, bin/commutator
	$(GO) build -trimpath -ldflags '-s -w' -o bin/commutator ./cmd/commutator

.PHONY: test
test: lint $(MINIO) ## vet, staticcheck, every test, against a real MinIO too, the simulation, and every planted bug (the first run builds MinIO: some minutes)
	COMMUTATOR_MINIO=$(MINIO) $(GO) test -timeout 15m $$($(GO) list $(PKG) | grep -v -e '/test/sim$$' -e '/test/cluster$$')
	@# These measure or fill the machine: each has it for itself.
	$(GO) test -timeout 20m ./test/cluster
	$(GO) test -tags mutants -timeout 20m -skip '^Test(Seeds|Share|Soak|EveryPlantedBugIsCaught)$$' ./test/sim
	$(MAKE) -s sim FAMILIES=placed SEEDS=60
	$(MAKE) -s sim mutants

.PHONY: race
race: $(MINIO) ## the tests under the race detector, with fewer seeds and points (needs a C compiler)
	COMMUTATOR_MINIO=$(MINIO) CGO_ENABLED=1 $(GO) test -race -short -timeout 40m $(PKG)

.PHONY: lint
lint: $(STATICCHECK) ## gofmt, vet and staticcheck
	@unformatted=$$(gofmt -l */); if [ -n "$$unformatted" ]; then echo 'not formatted (run gofmt -w):'; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags drill,mutants $(PKG)
	$(STATICCHECK) -tags drill,mutants $(PKG)
	cd tools && $(GO) vet ./...

.PHONY: sim
sim: ## whole deployments simulated, broken and judged: SEEDS=1600 from FROM=1, or SEED=n replayed with its trace
	REGIONS='$(REGIONS)' NODES='$(NODES)' FAMILIES='$(FAMILIES)' CHAOS='$(CHAOS)' SEED='$(SEED)' SEEDS='$(SEEDS)' FROM='$(FROM)' $(GO) test -count=1 -timeout 0 -v -run '^TestSeeds$$' ./test/sim | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: soak
soak: ## the same for SOAK=3h (or SEEDS=n of them), from FROM=100000 on; the result goes to OUT=docs/reliability/soak.json
	CHAOS='$(CHAOS)' SOAK='$(or $(SOAK),3h)' SEEDS='$(SEEDS)' FROM='$(FROM)' OUT='$(abspath $(or $(OUT),docs/reliability/soak.json))' $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./test/sim | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: mutants
mutants: ## bugs planted in the code, one at a time: which check finds each, at which seed (MUTANT=name; FULL=1; OUT=file)
	MUTANT='$(MUTANT)' FULL='$(FULL)' OUT='$(and $(OUT),$(abspath $(OUT)))' $(GO) test -tags mutants -count=1 -timeout 0 -v -run '^TestEveryPlantedBugIsCaught$$' ./test/sim | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: bench
bench: ## a node against a bare server, replication lag, a page of a Query, idle cost; then every benchmark (BENCH=regexp, PKG=./crdt to choose)
	$(GO) run ./test/bench
	$(GO) run ./test/bench -links -seed-bytes 300000000
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME=20s each (PKG=./crdt to choose)
	@for pkg in $$($(GO) list $(PKG)); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: cover
cover: $(MINIO) ## statement coverage of all tests, as .cache/cover.html and a total
	@mkdir -p .cache
	COMMUTATOR_MINIO=$(MINIO) $(GO) test -coverpkg=./... -coverprofile=.cache/cover.out $(PKG)
	$(GO) tool cover -html=.cache/cover.out -o .cache/cover.html
	$(GO) tool cover -func=.cache/cover.out | tail -n 1

.PHONY: proto
proto: $(PROTOTOOLS) ## generated Go from proto/**/*.proto, without protoc
	cd tools && $(GO) run ./protogen -plugins $(PROTOTOOLS) $(CURDIR)

.PHONY: image
image: $(IMAGES)/minio/minio ## the container images commutator:dev and commutator-minio:dev
	@deploy/engine.sh check
	mkdir -p $(IMAGES)/commutator/data
	GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath -ldflags '-s -w' -o $(IMAGES)/commutator/commutator ./cmd/commutator
	@# Made once: nodes that run have the directory. For trying things out: the container's user, who is not this one, reads its key. The
	@# authority's is for nobody.
	if [ ! -f $(IMAGES)/tls/us-east-1-us-east-1-d.pem ]; then \
		rm -rf $(IMAGES)/tls; \
		$(GO) run ./cmd/commutator certs --dir $(IMAGES)/tls $(foreach r,us-east-1 eu-west-1 ap-northeast-1,$(foreach n,a b c d,$(r)/$(r)-$(n))) && \
		rm $(IMAGES)/tls/ca-key.pem && chmod 0755 $(IMAGES)/tls && chmod 0644 $(IMAGES)/tls/*.pem; \
	fi
	docker build -q -t commutator:dev -f deploy/Dockerfile $(IMAGES)/commutator
	docker build -q -t commutator-minio:dev -f deploy/Dockerfile.minio $(IMAGES)/minio

.PHONY: up
up: image ## three regions and MinIO in containers, at 127.0.0.1:8000, 8001 and 8002; NODES=3: of three nodes each
	$(COMPOSE) $(if $(filter 3,$(NODES)),$(THREENODES),$(ONENODE)) up -d
	@deploy/ready.sh

.PHONY: one
one: ## one node of the deployment of three nodes a region: NODE=us-east-1-d, which joins
	$(COMPOSE) $(THREENODES) --profile join up -d --no-deps $(NODE)
	@deploy/ready.sh $(NODE)

.PHONY: down
down: ## stops them and removes their data
	$(COMPOSE) $(THREENODES) --profile join down -v --remove-orphans
	$(COMPOSE) $(ONENODE) down -v --remove-orphans

.PHONY: drill
drill: image ## rehearses losing a region, and each kind of accident of a node, on containers, and a restore (needs Docker; DRILL=regexp to choose)
	$(GO) test -tags drill -count=1 -v -timeout 30m -run '$(DRILL)' ./test/drill/...

$(STATICCHECK):
	@mkdir -p $(BIN) && rm -f $(BIN)/staticcheck-*
	cd tools && $(GO) build -trimpath -buildvcs=false -o $@ honnef.co/go/tools/cmd/staticcheck

$(PROTOTOOLS):
	@mkdir -p $(BIN) && rm -rf $(BIN)/proto-*
	cd tools && $(GO) build -trimpath -buildvcs=false -o $@/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

$(MINIO):
	@mkdir -p $(BIN) && rm -f $(BIN)/minio-*
	cd tools/minio && $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $@ github.com/minio/minio

# The image's server is a Linux program whatever this machine runs; on Linux it is the one that the tests use.
# Its data folder holds a folder named as the bucket: MinIO takes it for one.
$(IMAGES)/minio/minio: $(MINIO)
	mkdir -p $(IMAGES)/minio/data/commutator
	if [ "$$($(GO) env GOOS)" = linux ]; then cp $(MINIO) $@; \
	else cd tools/minio && GOOS=linux $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $@ github.com/minio/minio; fi
	cd tools && GOOS=linux $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(IMAGES)/minio/healthcheck ./healthcheck
	touch $@
