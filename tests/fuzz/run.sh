#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run fuzzers one after the other: tests/fuzz/run.sh DIRECTORY SECONDS NAME...
#
# A finding fails, and so does an input that takes longer than 10 s or a fuzzer that takes more than 1 GiB. The
# input that did it is in DIRECTORY/findings; run the fuzzer with its name to see it again.
set -euo pipefail

dir=$1
seconds=$2
shift 2
status=0

mkdir -p "$dir/findings"
for name in "$@"; do
	log=$dir/$name.log
	mkdir -p "$dir/corpus/$name"
	if "$dir/$name" -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=1024 -use_value_profile=1 \
		-artifact_prefix="$dir/findings/$name-" "$dir/corpus/$name" >"$log" 2>&1; then
		printf '%-10s %s\n' "$name" "$(grep -E '^Done ' "$log")"
	else
		printf '%-10s FAILED\n' "$name"
		tail -n 40 "$log" | sed 's/^/    /'
		status=1
	fi
done
exit $status
