#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run tests, one at a time on each CPU, and then those that take all CPUs for themselves, one after the other:
#
#   tests/run.sh RESULTS TEST... [-- TEST...]
#
# A TEST is a program or script, with arguments if quoted. RESULTS receives a line "NAME pass|fail|skip SECONDS"
# for each, which tests/side_by_side.sh compares between hosts; what a test prints goes to the log beside it
# and, if it fails, to the terminal. Prints the number of skips always.
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

results=$1
shift
mkdir -p "$(dirname "$results")"
: >"$results"

# shellcheck disable=SC2317 # share_out calls it
run_test() {
	local words name log verdict=pass start took

	read -ra words <<<"$1"
	name=$(basename "${words[0]}" .sh)
	[[ $name == example ]] && name=${words[1]}
	log=$(dirname "$results")/$name.log
	start=$(date +%s)
	if ! "${words[@]}" >"$log" 2>&1; then
		verdict=fail
	elif grep -Eq '^(SKIP|\[  SKIPPED \] [1-9])' "$log"; then
		# A test that could not run says so on a line of its own.
		verdict=skip
	fi
	took=$(($(date +%s) - start))
	echo "$name $verdict $took" >>"$results"
	# The last line that says how much was checked.
	printf '%-24s %s  %4d s  %s\n' "$name" "$verdict" "$took" \
		"$(grep -E '^[a-z_]+: .*passed|^\[  PASSED  \]|landmarks' "$log" | tail -n 1 | cut -c1-110)"
	if [[ $verdict == fail ]]; then
		sed 's/^/    /' "$log" | tail -n 60
	fi
}

# What runs in the background does not hear Ctrl-C.
trap 'trap "" TERM; kill -TERM 0; exit 130' INT

shared=()
while (($#)) && [[ $1 != -- ]]; do
	shared+=("$1")
	shift
done
(($# == 0)) || shift
share_out run_test "${shared[@]}"
for test; do
	run_test "$test"
done

# A test without a result, because whoever was to run it ended, has failed.
passed=$(grep -c ' pass ' "$results" || true)
skipped=$(grep -c ' skip ' "$results" || true)
failed=$((${#shared[@]} + $# - passed - skipped))
echo "skipped: $skipped"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
