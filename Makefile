# `make run` and `make test` need nothing before them: their scripts install what
# is missing. See README.md and CONTRIBUTING.md.

.PHONY: run test build generate lint bench soak fuzz clean

run: ; @scripts/run.sh $(ARGS)

test: ; @scripts/test.sh

build: ; go generate ./internal/sandbox/program ./internal/state/objects/program && CGO_ENABLED=0 go build -trimpath -o bin/kiln ./cmd/kiln

generate: ; go generate ./...

lint: ; @scripts/lint.sh

bench: ; @scripts/bench.sh $(ARGS)

soak: ; @scripts/soak.sh $(ROUNDS)

fuzz: ; @scripts/fuzz.sh $(TIME)

clean: ; rm -rf bin .cache
