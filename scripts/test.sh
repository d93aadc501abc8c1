#!/usr/bin/env bash
# make test: installs what the tests need, then runs every check and every test.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"

need_go
# Built while the rest is looked for and checked.
(need_runsc) &
runsc=$!
need_aws
need_aws2
need_boto3
need_moto
need_nodes
need_js_sdk
need_node_clients
need_python_clients
need_java
need_dynamodb
need_ruby
need_cargo
need_powertools
need_browser
need_cc

say "── generated files"
before=$(git status --porcelain)
go generate ./...
after=$(git status --porcelain)
[ "$before" = "$after" ] || die "generated files are stale; run make generate and commit:"$'\n'"$(git diff --stat)"

say "── lint"
scripts/lint.sh

say "── builds"
for target in linux/amd64 linux/arm64 darwin/arm64; do
	GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0 go build -o /dev/null ./cmd/kiln
	say "built for $target"
done
make -s build
export KILN_BINARY=$root/bin/kiln

wait "$runsc" || die "runsc could not be built"
need_runsc # there by now: only its place is wanted
export KILN_RUNSC=$RUNSC

say "── tests"
export CGO_ENABLED=1 # for the race detector only
PATH=$cache/venv/bin:$PATH go run gotest.tools/gotestsum@v1.13.0 --format pkgname-and-test-fails --hide-summary=output -- \
	-race -timeout 30m -p 2 ./...
