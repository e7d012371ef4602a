#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run tests one after the other: tests/run.sh RESULTS TEST...
#
# A TEST is a program or script, with arguments if quoted. RESULTS receives a line "NAME pass|fail|skip SECONDS"
# for each, which tests/side_by_side.sh compares between hosts; what a test prints goes to the log beside it
# and, if it fails, to the terminal. Prints the number of skips always.
set -euo pipefail

results=$1
shift
mkdir -p "$(dirname "$results")"
: >"$results"
passed=0
failed=0
skipped=0

for test in "$@"; do
	read -ra words <<<"$test"
	name=$(basename "${words[0]}" .sh)
	[[ $name == example ]] && name=${words[1]}
	log=$(dirname "$results")/$name.log
	start=$(date +%s)
	printf '%-24s ' "$name"
	if "${words[@]}" >"$log" 2>&1; then
		verdict=pass
		passed=$((passed + 1))
		# A test that could not run says so on a line of its own.
		if grep -Eq '^(SKIP|\[  SKIPPED \] [1-9])' "$log"; then
			verdict=skip
			passed=$((passed - 1))
			skipped=$((skipped + 1))
		fi
	else
		verdict=fail
		failed=$((failed + 1))
	fi
	took=$(($(date +%s) - start))
	echo "$name $verdict $took" >>"$results"
	# The last line that says how much was checked.
	printf '%s  %4d s  %s\n' "$verdict" "$took" "$(grep -E '^[a-z_]+: .*passed|^\[  PASSED  \]|landmarks' "$log" | tail -n 1 | cut -c1-110)"
	if [[ $verdict == fail ]]; then
		sed 's/^/    /' "$log" | tail -n 60
	fi
done
echo "skipped: $skipped"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
