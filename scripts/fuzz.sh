#!/usr/bin/env bash
# make fuzz [TIME=10s]: runs every fuzz target of the repository for that long, one
# after the other. What it finds lies in the package's testdata/fuzz; commit it with
# the fix.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"
need_go

time=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	package=./$(dirname "$file")
	say "── $target ($package), $time"
	if ! go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x 2>&1 | tee "$log" >&2; then
		# Go sometimes fails with nothing found, when the time ends during an input
		# (golang.org/issue/75804).
		if grep -q 'Failing input' "$log" || ! grep -q '^    context deadline exceeded' "$log"; then
			failed+=("$package $target")
		fi
	fi
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' cmd internal test | sed 's/func //' | sort)
[ "$found" -gt 0 ] || die "there are no fuzz targets"
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
say "fuzz: $found targets, ok"
