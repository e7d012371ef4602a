#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Records the guests of tests/guests many times, interrupted at other places each time, and verifies
# every recording by every way in which this host can find those places again.
#
#   tests/battery.sh [-r ROUNDS] [-q QUANTA] [-c CLOCKS] [-m MIN] [-s GUEST]... [-a TEXT]... [GUEST]...
#
#   -r  recordings of each guest (20), with the seeds 1 to ROUNDS
#   -q  quanta in ms, taken by turns ("0.2 0.5 1 2 5 10 20")
#   -c  clocks to verify with: "emul state", "state" (all that the host has)
#   -m  fail if there are fewer landmarks in all (1000 if all guests run 20 rounds or more, else 0)
#   -s  a guest that this host does not interrupt, so that its outcomes may be alike. May be given several times
#   -a  command line of all guests, say "ticks=20 ms=20" on a host where they run too long; a word like
#       "paging:n=5000" is for one of them. May be given several times
#
# A guest whose head says "timing: dependent" must print something else in at least one of several
# recordings, or the test has not shown anything; one that says "independent" must always print the
# same. Every fourth recording is made without an instruction clock. Traces that failed stay in
# $BUILD/battery-failed. HINDSIGHT and BUILD name the program and the directory of build products.
# shellcheck disable=SC2317 # functions are called by a trap and by share_out
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

limit=60 # seconds; a guest takes less than one
default_rounds=20

usage() {
	sed -n '/^# *tests\/battery/,/^# shellcheck/{/^# shellcheck/!{s/^# \{0,1\}//;p;}}' "$0" >&2
	exit 2
}

rounds=$default_rounds
quanta="0.2 0.5 1 2 5 10 20"
clocks=
min=
append=
spared=" "
while getopts r:q:c:m:s:a: option; do
	case $option in
	r) rounds=$OPTARG ;;
	q) quanta=$OPTARG ;;
	c) clocks=$OPTARG ;;
	m) min=$OPTARG ;;
	s) spared+="$OPTARG " ;;
	a) append+=" $OPTARG" ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
require_kvm
cd "$repo"
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make first"
clocks=${clocks:-$(host_clocks)}
read -r -a quanta <<<"$quanta"
read -r -a clocks <<<"$clocks"

timing_of() { sed -n 's,^/\* timing: \([a-z]*\) \*/$,\1,p' "tests/guests/$1.c"; }

guests=("$@")
if ((${#guests[@]} == 0)); then
	for file in tests/guests/*.c; do
		guests+=("$(basename "$file" .c)")
	done
	if [[ -z $min ]] && ((rounds >= default_rounds)); then
		min=1000
	fi
fi
for guest in "${guests[@]}"; do
	[[ -f $BUILD/guests/$guest.elf ]] || die "there is no $BUILD/guests/$guest.elf; run make guests first"
	[[ $(timing_of "$guest") =~ ^(in)?dependent$ ]] || die "tests/guests/$guest.c has no line about its timing"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/battery.XXXXXX")
kept=$BUILD/battery-failed
cleanup() {
	for pid in "${workers[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Those words of -a that are for a guest.
append_for() {
	local word

	for word in $append; do
		case $word in
		"$1":*) echo -n "${word#*:} " ;;
		*:*) ;;
		*) echo -n "$word " ;;
		esac
	done
}

# --- One recording and its verifications -----------------------------------------------------------

# Types into a FIFO, with pauses that the seed decides; blocks until somebody reads.
feed() {
	local fifo=$1 words=(x hello "" "a line longer than the sixteen bytes of the FIFO" 42 "two words")

	RANDOM=$2
	exec >"$fifo"
	for ((i = 0; i < 6 + RANDOM % 5; i++)); do
		sleep "0.0$((RANDOM % 40 + 10))"
		printf '%s' "${words[RANDOM % ${#words[@]}]}"
		if ((RANDOM % 3 == 0)); then
			sleep "0.00$((RANDOM % 9 + 1))"
		fi
		printf '\n'
	done
	sleep "0.0$((RANDOM % 40 + 10))"
	printf 'quit\n'
}

# The message of a failed step: what was done, and all that was said.
complain() {
	local trace=$1 what=$2 log=$3

	if [[ -f $trace ]]; then
		mkdir -p "$kept"
		cp "$trace" "$kept/"
		what+=" (trace $kept/${trace##*/})"
	fi
	{
		echo "$what"
		sed 's/^/    /' "$log" | tail -n 25
	} >>"${trace%.trace}.failures"
}

# Results go to files next to the trace: .failures, and .result with "status landmarks hash clock..."
# where status is the guest's and the clocks are those that verified it.
one() {
	local guest=$1 seed=$2 base=$work/$1-$2
	local trace=$base.trace log=$base.log
	local quantum=${quanta[(seed - 1) % ${#quanta[@]}]} clock=auto feeder='' status=0 recorded=0 verify=("${clocks[@]}")
	local what info good=() input=()

	if ((seed % 4 == 0)); then
		clock=state
		verify=(state)
	fi
	if [[ $guest == serial_in ]]; then
		mkfifo "$base.fifo"
		feed "$base.fifo" "$seed" 2>/dev/null &
		feeder=$!
		input=(--input "$base.fifo")
	fi
	what="$guest seed $seed quantum $quantum recorded with --clock $clock"
	timeout -s INT -k 10 "$limit" "$HINDSIGHT" record -o "$trace" --kernel "$BUILD/guests/$guest.elf" \
		--seed "$seed" --quantum "$quantum" --clock "$clock" --append "$(append_for "$guest")" \
		--max-seconds $((limit - 10)) "${input[@]}" >"$base.out" 2>"$log" </dev/null || recorded=$?
	if [[ -n $feeder ]]; then
		kill "$feeder" 2>/dev/null || true
		wait "$feeder" 2>/dev/null || true
	fi
	if ((recorded)); then
		cat "$base.out" >>"$log"
		complain "$trace" "$what: status $recorded" "$log"
	fi
	[[ -f $trace ]] || return 0
	info=$("$HINDSIGHT" info --json "$trace" 2>>"$log") ||
		complain "$trace" "$what: hindsight info fails" "$log"
	for clock in "${verify[@]}"; do
		status=0
		timeout -s INT -k 10 "$limit" "$HINDSIGHT" verify --clock "$clock" "$trace" >"$log" 2>&1 </dev/null ||
			status=$?
		if ((status)); then
			complain "$trace" "$what: verify --clock $clock gives status $status" "$log"
		else
			good+=("$clock")
		fi
	done
	echo "$recorded $(json_value landmarks <<<"$info") $(md5sum <"$base.out" | cut -d ' ' -f 1) ${good[*]}" \
		>"$base.result"
	rm -f "$trace"
}

# "GUEST SEED", as share_out gives it.
one_of() {
	local guest seed

	read -r guest seed <<<"$1"
	one "$guest" "$seed"
}

# --- All of them -------------------------------------------------------------------------------------

echo "battery: ${#guests[@]} guests, $rounds recordings each, verified by: ${clocks[*]}"
start=$SECONDS
all=()
for guest in "${guests[@]}"; do
	for ((seed = 1; seed <= rounds; seed++)); do
		all+=("$guest $seed")
	done
done
share_out one_of "${all[@]}"
((ended_early == 0)) || check_fail "a worker of the battery ended early"

count() { wc -l | tr -d ' '; }

format='%-10s %10s %9s %8s %8s %8s %8s  %s\n'
# shellcheck disable=SC2059  # the format is above
row() { printf "$format" "$@"; }

row guest recordings landmarks emul state failures outcomes timing
total_landmarks=0
for guest in "${guests[@]}"; do
	landmarks=0
	recordings=0
	recorded_well=0
	verified_emul=0
	verified_state=0
	for ((seed = 1; seed <= rounds; seed++)); do
		base=$work/$guest-$seed
		if [[ ! -f $base.result ]]; then
			[[ -f $base.failures ]] || echo "$guest seed $seed: nothing recorded" >"$base.failures"
			continue
		fi
		read -r recorded n hash good <"$base.result"
		echo "$hash" >>"$work/$guest.hashes"
		landmarks=$((landmarks + ${n:-0}))
		recordings=$((recordings + 1))
		recorded_well=$((recorded_well + (recorded == 0)))
		[[ " $good " != *" emul "* ]] || verified_emul=$((verified_emul + 1))
		[[ " $good " != *" state "* ]] || verified_state=$((verified_state + 1))
	done
	# Each failure begins with a line that is not indented.
	failures=$(cat "$work/$guest"-*.failures 2>/dev/null | grep -c -v '^    ' || true)
	outcomes=$(sort -u "$work/$guest.hashes" 2>/dev/null | count)
	timing=$(timing_of "$guest")
	row "$guest" "$recordings" "$landmarks" "$verified_emul" "$verified_state" "$failures" "$outcomes" \
		"$timing"
	check_pass $((recorded_well + verified_emul + verified_state))
	failed=$((failed + failures))
	if [[ $timing == independent && $outcomes != 1 ]]; then
		check_fail "$guest: the outcome is called independent of timing, but there are $outcomes"
	elif [[ $timing == dependent && $outcomes -lt 2 && $spared != *" $guest "* ]] && ((recordings > 1)); then
		check_fail "$guest: all $recordings recordings came out alike, so nothing was put to the test"
	else
		check_pass
	fi
	total_landmarks=$((total_landmarks + landmarks))
	total_recordings=$((${total_recordings:-0} + recordings))
	total_emul=$((${total_emul:-0} + verified_emul))
	total_state=$((${total_state:-0} + verified_state))
done
row total "$total_recordings" "$total_landmarks" "$total_emul" "$total_state" "$failed" "" ""
echo "battery: took $((SECONDS - start)) s"
for file in "$work"/*.failures; do
	[[ ! -f $file ]] || sed '/^    /!s/^/FAIL /' "$file"
done
if ((total_landmarks < ${min:-0})); then
	check_fail "only $total_landmarks landmarks in all, fewer than $min"
else
	check_pass
fi
finish
