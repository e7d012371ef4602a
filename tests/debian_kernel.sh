#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input: Debian's stock cloud kernel is recorded from its entry to its line "Memory: ...", twice with
# different quanta, and each trace verifies with every clock of the host.
#
#   tests/debian_kernel.sh VMLINUX
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

kernel=${1:?tests/debian_kernel.sh VMLINUX; examples/debian_kernel/fetch.sh gets one}
out=$BUILD/debian_kernel
append="console=ttyS0 earlyprintk=serial,ttyS0 panic=-1 lpj=1000 acpi=off nolapic noapic"
append+=" mitigations=off nopti clocksource=jiffies"
mkdir -p "$out"

# $1: quantum. Records, then verifies.
one() {
	local trace=$out/q$1.trace console=$out/q$1.console clock
	"$HINDSIGHT" record -o "$trace" --quantum "$1" --mem 64 --max-seconds 300 --until 'Memory: .*available' \
		--kernel "$kernel" --append "$append" >"$console"
	grep -q 'Linux version' "$console" || return 1
	grep -q 'Memory: .*available' "$console" || return 1
	for clock in $(host_clocks); do
		echo "quantum $1 ms, clock $clock"
		"$HINDSIGHT" verify --clock "$clock" "$trace" || return 1
	done
}

# Two at a time: they take their time on hosts that emulate kernel code.
one 0.7 >"$out/a.log" 2>&1 &
first=$!
# shellcheck disable=SC2119
if one 5 >"$out/b.log" 2>&1; then check_pass; else check_fail "quantum 5 ms"; fi
# shellcheck disable=SC2119
if wait "$first"; then check_pass; else check_fail "quantum 0.7 ms"; fi
cat "$out/a.log" "$out/b.log"
tail -n 1 "$out/q5.console"
finish
