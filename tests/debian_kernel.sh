#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input: Debian's stock cloud kernel is recorded with different quanta from its entry to its line
# "Memory: ...", and each trace verifies with every clock of the host. Where the host's KVM does not emulate kernel
# code, which would take long, it is also recorded, given an initial RAM disk, through its user space, whose work must
# come out right, and that trace verifies too.
#
#   tests/debian_kernel.sh [-q QUANTA] VMLINUX [INITRAMFS]      ("0.7 5", in ms)
# shellcheck disable=SC2317 # functions are called by name
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

quanta="0.7 5"
while getopts q: option; do
	case $option in
	q) quanta=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
kernel=${1:?tests/debian_kernel.sh [-q QUANTA] VMLINUX [INITRAMFS]; examples/debian_kernel/fetch.sh gets one}
initramfs=${2:-}
out=$BUILD/debian_kernel
append="earlyprintk=serial,ttyS0 lpj=1000 nolapic noapic acpi=off"
mkdir -p "$out"

# $1: names the recording; the rest are options of record. Records what ends with a line like $expected, and verifies.
check_recording() {
	local trace=$out/$1.trace console=$out/$1.console clock

	shift
	"$HINDSIGHT" record -o "$trace" --max-seconds 300 --kernel "$kernel" "$@" >"$console"
	grep -q 'Linux version' "$console"
	grep -q "$expected" "$console"
	for clock in $(host_clocks); do
		"$HINDSIGHT" verify --clock "$clock" "$trace"
	done
	grep -a "$expected" "$console"
}

# $1: quantum.
check_quantum() {
	local expected='Memory: .*available'

	check_recording "q$1" --quantum "$1" --mem 64 --until "$expected" \
		--append "$append nopti clocksource=jiffies"
}

# No module of the small kernel fits this one. The pace is slow, so that few ticks fall into the long computations of
# this kernel's start (keys, self-tests): a place in the midst of one is found again by looking at each pass through its
# loop, where nothing counts instructions.
check_user_space() {
	local expected='workload: done, 0 wrong'

	check_recording user --time-rate 0.001 --mem 256 --initrd "$initramfs" \
		--append "$append parts=processes,pipes,files,timers,signals"
}

check_part() {
	case $1 in
	user) check_user_space ;;
	*) check_quantum "$1" ;;
	esac
}

read -ra parts <<<"$quanta"
if [[ -n $initramfs && $(host_clocks) != *emul* ]]; then
	parts=(user "${parts[@]}")
fi
each_on_a_cpu check_part "${parts[@]}"
finish
