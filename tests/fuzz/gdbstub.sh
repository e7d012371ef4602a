#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run the stub's fuzzers one after the other: tests/fuzz/gdbstub.sh DIRECTORY LIMIT NAME...
# where LIMIT is libFuzzer's -max_total_time=SECONDS or -runs=COUNT. A finding fails; the input that did it is in
# DIRECTORY/findings, and DIRECTORY/NAME run with it shows it again.
set -euo pipefail

dir=$1
limit=$2
shift 2
status=0
# Memory is not given back to the host between inputs, and the corpus not looked at for what others put there: both cost
# more than the inputs.
export ASAN_OPTIONS=quarantine_size_mb=16:allocator_release_to_os_interval_ms=-1

mkdir -p "$dir/findings"
for name in "$@"; do
	log=$dir/$name.log
	mkdir -p "$dir/corpus/$name"
	if "$dir/$name" "$limit" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -use_value_profile=1 -reload=0 \
		-dict="${BASH_SOURCE[0]%/*}/gdb.dict" -artifact_prefix="$dir/findings/$name-" \
		"$dir/corpus/$name" >"$log" 2>&1; then
		printf 'fuzz_gdb_%-8s %s\n' "$name" "$(grep -E '^Done ' "$log")"
	else
		printf 'fuzz_gdb_%-8s FAILED\n' "$name"
		tail -n 40 "$log" | sed 's/^/    /'
		status=1
	fi
done
exit $status
