#!/usr/bin/env bash
# make lint: formatting, vet and staticcheck, on every system that Kiln is built for.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"
need_go

unformatted=$(gofmt -l cmd internal test examples)
[ -z "$unformatted" ] || die "not formatted (run gofmt -w): $unformatted"
go vet ./...
GOOS=darwin GOARCH=arm64 go vet ./cmd/... ./internal/...
GOFLAGS=-mod=mod go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
say "lint: ok"
