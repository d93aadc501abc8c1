#!/usr/bin/env bash
# make bench: measures Kiln beside bare servers, in the same run. ARGS are the
# flags of test/bench, such as ARGS="-requests 500 -rounds 1".
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"
need_go
need_python
need_node
(need_java) || say "Java is left out"
make -s build
runsc=
[ "$(id -u)" != 0 ] || { need_runsc && runsc=$RUNSC; }
CGO_ENABLED=0 go run ./test/bench -runsc "$runsc" "$@"
# table PACKAGE BENCHMARK FLAGS… prints the tables of one that prints some.
table() {
	go test "$1" -run '^$' -bench "^($2)\$" "${@:3}" | sed -n '/^[#|]/p; /^$/p'
}
table ./internal/sandbox/linux BenchmarkSealing -benchtime 300x
table ./internal/state/jetstream 'BenchmarkQueue|BenchmarkBatch|BenchmarkRestart' -benchtime 1x
(need_moto) && table ./test/events BenchmarkSources -benchtime 1x
