#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input that is no Linux: Debian's memtest86+ (examples/memtest) gets as far as its cleared screen, its TSC and
# CPUID are rewritten, and the recording verifies.
#
#   tests/memtest.sh PROGRAM
# shellcheck disable=SC2317 # functions are called by name
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

program=${1:?tests/memtest.sh PROGRAM; examples/memtest/fetch.sh gets it}
out=$BUILD/memtest-test
mkdir -p "$out"

check_as_far_as() {
	local status=0

	"$HINDSIGHT" record -o "$out/trace" --kernel "$program" --mem 16 --append console=ttyS0,115200 \
		--max-seconds "$1" >"$out/console" 2>"$out/log" || status=$?
	tail -n 2 "$out/log"
	# The time limit's: it still waits.
	((status == 124))
	grep -aq $'\e\\[2J' "$out/console"
	"$HINDSIGHT" info "$out/trace" >"$out/info"
	grep -q '^guest *Linux boot protocol$' "$out/info"
	grep -q '^rewritten .*rdtsc [1-9].*cpuid [1-9]' "$out/info"
	"$HINDSIGHT" verify "$out/trace"
}

each_on_a_cpu check_as_far_as 20
finish
