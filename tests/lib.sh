# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Shared by the test scripts; sourced, from any directory. Sets HINDSIGHT, BUILD and repo, and counts
# checks. Works with busybox's tools too, because the scripts also run on the machine of npt-host.sh.

# shellcheck disable=SC2034  # for the scripts that source this
repo=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
BUILD=${BUILD:-build}
HINDSIGHT=${HINDSIGHT:-$BUILD/hindsight}

passed=0
failed=0

die() {
	echo "$(basename "$0" .sh): $*" >&2
	exit 1
}

check_pass() { passed=$((passed + ${1:-1})); }
check_fail() {
	failed=$((failed + 1))
	echo "FAIL $*"
}

ok() {
	check_pass
	echo "ok $*"
}

# What the last command left behind that tells why a check failed; each script names its own.
evidence=/dev/null

# check NAME CONDITION...: the condition is a command.
check() {
	local name=$1

	shift
	if "$@"; then
		ok "$name"
	else
		check_fail "$name"
		tail -c 2000 "$evidence" 2>/dev/null | tail -n 5 | LC_ALL=C tr -c '\n -~' . | sed 's/^/    /'
	fi
}

# Of the last command, whose status, $tmp/out and $tmp/err a script keeps.
# shellcheck disable=SC2154
is_status() { [[ $status == "$1" ]]; }
# shellcheck disable=SC2154
said() { grep -q -- "$1" "$tmp/err"; }
# shellcheck disable=SC2154
printed() { grep -q -- "$1" "$tmp/out"; }

# The last lines of a test script, for its reader and for the runner.
finish() {
	echo "$(basename "$0" .sh): $passed passed, $failed failed"
	echo "$passed passed, $failed failed"
	((failed == 0)) || exit 1
	exit 0
}

# Without KVM there is nothing to test; REQUIRE_KVM=1 makes that a failure.
require_kvm() {
	if [[ -r /dev/kvm && -w /dev/kvm ]]; then
		return
	fi
	echo "SKIP $(basename "$0" .sh): no /dev/kvm"
	[[ ${REQUIRE_KVM:-0} != 1 ]] || exit 1
	exit 0
}

# A number or a true/false from JSON on standard input, by its key; keys are told apart by name alone.
json_value() {
	sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1
}

# The clocks by which this host can find a place again.
host_clocks() {
	if [[ $("$HINDSIGHT" doctor --json 2>/dev/null | json_value emul_clock) == true ]]; then
		echo emul state
	else
		echo state
	fi
}

# The numbers of the CPUs that this shell may use, and how many they are.
cpus() {
	local range

	for range in $(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status | tr , ' '); do
		seq "${range%-*}" "${range#*-}"
	done
}
cpu_count() { cpus | wc -l; }

# To stay on one of these CPUs: a recording pins itself to the one that it is on, and two might choose the same.
stay_on() { taskset -p "$(printf '%x' $((1 << $1)))" "$BASHPID" >/dev/null 2>&1 || true; }

# COMMAND ITEM...: run COMMAND with each item, one at a time on each CPU, the next one wherever one has ended. workers:
# the processes meanwhile; ended_early: how many of them failed.
workers=()
ended_early=0
share_out() {
	local command=$1 claims cpu number item pid

	shift
	claims=$(mktemp -d)
	for cpu in $(cpus); do
		(
			trap - EXIT
			stay_on "$cpu"
			number=0
			for item; do
				# Making a directory succeeds once.
				mkdir "$claims/$((number++))" 2>/dev/null || continue
				"$command" "$item"
			done
		) &
		workers+=($!)
	done
	for pid in "${workers[@]}"; do
		wait "$pid" || ended_early=$((ended_early + 1))
	done
	workers=()
	rm -rf "$claims"
}

# COMMAND ITEM...: the same, and each is a check; what it prints is shown when all are done. Items are words.
each_on_a_cpu() {
	local checked=$1 item work

	shift
	work=$(mktemp -d)
	# shellcheck disable=SC2317 # share_out calls it
	check_one() {
		# A subshell of its own, where set -e holds.
		(
			set -e
			"$checked" "$1"
		) >"$work/$1.log" 2>&1 &
		if wait $!; then : >"$work/$1.good"; fi
	}
	share_out check_one "$@"
	for item; do
		sed "s/^/$item: /" "$work/$item.log"
		if [[ -e $work/$item.good ]]; then check_pass 1; else check_fail "$checked $item"; fi
	done
	rm -rf "$work"
}
