#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input: Debian's stock cloud kernel is recorded twice with different quanta, and each trace verifies with
# every clock of the host. Where the host's KVM emulates kernel code, which would take long, from its entry to its
# line "Memory: ..."; elsewhere, given an initial RAM disk, through its user space, whose work must come out right.
#
#   tests/debian_kernel.sh VMLINUX [INITRAMFS]
# shellcheck disable=SC2317 # functions are called by name
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

kernel=${1:?tests/debian_kernel.sh VMLINUX [INITRAMFS]; examples/debian_kernel/fetch.sh gets one}
initramfs=${2:-}
out=$BUILD/debian_kernel
append="earlyprintk=serial,ttyS0 lpj=1000 nolapic noapic acpi=off"
mkdir -p "$out"

if [[ -n $initramfs && $(host_clocks) != *emul* ]]; then
	# No module of the small kernel fits this one.
	goal=(--mem 256 --initrd "$initramfs" --append "$append parts=processes,pipes,files,timers,signals")
	expected='workload: done, 0 wrong'
else
	goal=(--mem 64 --until 'Memory: .*available' --append "$append nopti clocksource=jiffies")
	expected='Memory: .*available'
fi

# $1: quantum. Records, then verifies.
check_quantum() {
	local trace=$out/q$1.trace console=$out/q$1.console clock

	"$HINDSIGHT" record -o "$trace" --quantum "$1" --max-seconds 300 --kernel "$kernel" "${goal[@]}" >"$console"
	grep -q 'Linux version' "$console"
	grep -q "$expected" "$console"
	for clock in $(host_clocks); do
		"$HINDSIGHT" verify --clock "$clock" "$trace"
	done
	grep -a "$expected" "$console"
}

each_on_a_cpu check_quantum 0.7 5
finish
