#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A guest that means harm (tests/guests/hostile.c) under a program built with sanitizers: no finding, no hang, no
# unbounded memory; and what it does replays like everything else.
#
#   tests/hostile.sh [-n ACCESSES] [-s SEED] [-t SECONDS]
#
#   -n  random accesses (20000)
#   -s  seed of the guest's choices (1)
#   -t  seconds that they may take (600)
#
# HINDSIGHT names the program: make SAN=1 all builds build-san/hindsight. Guests are those of $BUILD.
# shellcheck disable=SC2317,SC2119 # functions are called by others
set -uo pipefail

HINDSIGHT=${HINDSIGHT:-build-san/hindsight}
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

accesses=20000
seed=1
limit=600
memory_max=$((256 << 10)) # KiB that the program may have at once, what ASan keeps included
replayed=2000              # accesses of the recording that is verified

while getopts n:s:t: option; do
	case $option in
	n) accesses=$OPTARG ;;
	s) seed=$OPTARG ;;
	t) limit=$OPTARG ;;
	*) die "usage: tests/hostile.sh [-n ACCESSES] [-s SEED] [-t SECONDS]" ;;
	esac
done
require_kvm
# shellcheck disable=SC2154
cd "$repo" || exit 1
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make SAN=1 all first"

tmp=$(mktemp -d)
evidence=$tmp/err
trap 'rm -rf "$tmp"' EXIT
head -c 131072 /dev/urandom >"$tmp/image"
devices=(--disk "$tmp/image" --rng --ports 4 --net user)

# Run hindsight, noting the most memory that it had; one that hangs is killed. The guest's output is noise but for
# its last line.
peak=0
watched() {
	local pid now end=$((SECONDS + limit + 30))

	"$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err" &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null)
		((${now:-0} <= peak)) || peak=$now
		((SECONDS < end)) || kill -KILL "$pid"
		sleep 0.3
	done
	wait "$pid"
	status=$?
}

ended() { grep -aq "^hostile: $1 accesses" "$tmp/out"; }
no_finding() { ! grep -aqE 'Sanitizer|runtime error' "$tmp/err"; }

watched run --max-seconds "$limit" --kernel "$BUILD/guests/hostile.elf" "${devices[@]}" \
	--append "accesses=$accesses seed=$seed"
check "$accesses accesses: no finding" no_finding
check "$accesses accesses: status 0" is_status 0
check "$accesses accesses: the guest came to its end" ended "$accesses"
check "$accesses accesses: $((peak >> 10)) MiB at most" test "$peak" -gt 0 -a "$peak" -lt "$memory_max"

watched record -o "$tmp/trace" --max-seconds "$limit" --quantum 1 --kernel "$BUILD/guests/hostile.elf" \
	"${devices[@]}" --append "accesses=$replayed seed=$((seed + 1))"
check "recorded: status 0" is_status 0
watched verify "$tmp/trace"
check "verified: status 0" is_status 0
check "verified: no finding" no_finding
finish
