#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A guest that means harm (tests/guests/hostile.c) under a program built with sanitizers: no finding, no hang, no
# unbounded memory; and what it does replays like everything else.
#
#   tests/hostile.sh [-n ACCESSES] [-g GUESTS] [-s SEED] [-t SECONDS]
#
#   -n  random accesses (20000)
#   -g  guests that share them and run at the same time (1)
#   -s  seed of the first guest's choices (1); the others' follow it
#   -t  seconds that they may take (600)
#
# HINDSIGHT names the program: make SAN=1 all builds build-san/hindsight. Guests are those of $BUILD.
# shellcheck disable=SC2317,SC2119 # functions are called by others
set -uo pipefail

HINDSIGHT=${HINDSIGHT:-build-san/hindsight}
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

accesses=20000
guests=1
seed=1
limit=600
memory_max=$((256 << 10)) # KiB that the program may have at once, what ASan keeps included
replayed=2000              # accesses of the recording that is verified

while getopts n:g:s:t: option; do
	case $option in
	n) accesses=$OPTARG ;;
	g) guests=$OPTARG ;;
	s) seed=$OPTARG ;;
	t) limit=$OPTARG ;;
	*) die "usage: tests/hostile.sh [-n ACCESSES] [-g GUESTS] [-s SEED] [-t SECONDS]" ;;
	esac
done
require_kvm
# shellcheck disable=SC2154
cd "$repo" || exit 1
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make SAN=1 all first"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
head -c 131072 /dev/urandom >"$tmp/image"
devices=(--disk "$tmp/image" --rng --ports 4 --net user)

# Run hindsight, noting the most memory that it had; one that hangs is killed. $1 names the run, whose output is in
# $tmp/$1.out, its messages in $tmp/$1.err, its end in $tmp/$1.status: the exit status and the memory in KiB. The
# guest's output is noise but for its last line.
watched() {
	local name=$1 pid now peak=0 status end=$((SECONDS + limit + 30))

	shift
	"$HINDSIGHT" "$@" >"$tmp/$name.out" 2>"$tmp/$name.err" &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null)
		((${now:-0} <= peak)) || peak=$now
		((SECONDS < end)) || kill -KILL "$pid"
		sleep 0.3
	done
	wait "$pid"
	status=$?
	echo "$status $peak" >"$tmp/$name.status"
}

# What the checks look at: the run of this name.
look_at() {
	read -r status peak <"$tmp/$1.status"
	out=$tmp/$1.out
	evidence=$tmp/$1.err
}
ended() { grep -aq "^hostile: $1 accesses" "$out"; }
no_finding() { ! grep -aqE 'Sanitizer|runtime error' "$evidence"; }

share=$(((accesses + guests - 1) / guests))
for ((i = 0; i < guests; i++)); do
	watched "guest$i" run --max-seconds "$limit" --kernel "$BUILD/guests/hostile.elf" "${devices[@]}" \
		--append "accesses=$share seed=$((seed + i))" &
done
wait
for ((i = 0; i < guests; i++)); do
	look_at "guest$i"
	name="$share accesses, seed $((seed + i))"
	check "$name: no finding" no_finding
	check "$name: status 0" is_status 0
	check "$name: the guest came to its end" ended "$share"
	check "$name: $((peak >> 10)) MiB at most" test "$peak" -gt 0 -a "$peak" -lt "$memory_max"
done

watched record record -o "$tmp/trace" --max-seconds "$limit" --quantum 1 --kernel "$BUILD/guests/hostile.elf" \
	"${devices[@]}" --append "accesses=$replayed seed=$((seed + guests))"
look_at record
check "recorded: status 0" is_status 0
watched verify verify "$tmp/trace"
look_at verify
check "verified: status 0" is_status 0
check "verified: no finding" no_finding
finish
