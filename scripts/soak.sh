#!/usr/bin/env bash
# make soak [ROUNDS=300]: kills daemons with -9 that often while functions are changed
# and events are accepted, delivered and retried, cuts the power of a disk under daemons
# as often, and makes and removes environments,
# ten thousand of them. It takes hours; `make test` does less of the same.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"
need_go
need_moto
make -s build
export KILN_BINARY=$root/bin/kiln KILN_SOAK=${1:-300} KILN_SOAK_ENVIRONMENTS=${KILN_SOAK_ENVIRONMENTS:-10000}
go test ./test/crash -run '^TestKill' -v -timeout 12h | grep -E '^ *(---|===|ok|FAIL|PASS|.*_test.go)'
go test ./internal/state/jetstream -run '^Test(Kill|PowerLoss)$' -v -timeout 12h | grep -E '^ *(---|ok|FAIL|PASS|.*_test.go)'
go test ./internal/sandbox/linux -run '^TestSoak$' -v -timeout 12h | grep -E '^ *(---|ok|FAIL|PASS|.*_test.go)'
