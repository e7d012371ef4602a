#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# gdb on a guest that runs: before its first instruction, later and again while it computes or sleeps, and at its end.
# Patterns and gdb expressions hold dollars; no function of lib.sh means the script's arguments.
# shellcheck disable=SC2016,SC2119
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm
command -v gdb >/dev/null || die "gdb is not installed"
work=$(mktemp -d)
guest=
trap '[[ -z $guest ]] || kill -KILL "$guest" 2>/dev/null || true; rm -rf "$work"' EXIT

# start ARGUMENTS...
start() {
	: >"$work/told"
	"$HINDSIGHT" run --gdb "$work/gdb.sock" "$@" >"$work/said" 2>"$work/told" &
	guest=$!
	for _ in {1..200}; do
		! grep -q '^hindsight: gdb can connect' "$work/told" || break
		sleep 0.05
	done
}

# session KERNEL GDB-ARGUMENTS...
session() {
	timeout -s KILL 60 gdb -q -nx -batch -ex 'set remotetimeout 30' -ex "target remote $work/gdb.sock" "${@:2}" "$1" \
		>"$work/gdb" 2>&1 || true
}

# ends STATUS
ends() {
	local status=0

	wait "$guest" || status=$?
	guest=
	[[ $status == "$1" ]] || wrong "status $status, not $1"
	check_pass
}

wrong() {
	check_fail "$*"
	tail -n 20 "$work/gdb" "$work/said" "$work/told"
}

# expect FILE PATTERN...
expect() {
	local pattern

	for pattern in "${@:2}"; do
		if grep -q -- "$pattern" "$work/$1"; then check_pass; else wrong "no \"$pattern\""; fi
	done
}

kernel=$BUILD/guests/stale_pointer.elf
start --wait --seed 2 --append "ticks=300 watchdog=0" --kernel "$kernel"
session "$kernel" -ex 'p $pc' -ex 'break nvlog_tick' -ex continue -ex 'p timer_ticks == 1' -ex 'set var timer_ticks = 290' \
	-ex delete -ex 'stepi 20' -ex 'p (int)nvlog_records()' -ex 'watch nvlog.records' -ex continue -ex 'monitor when' \
	-ex reverse-stepi -ex 'monitor seek 0'
expect gdb '<_start>' 'hit Breakpoint\|^Breakpoint 1, nvlog_tick' '^\$2 = 1' '^\$3 = 0' \
	'^The guest is live: what a function does' '^New value = 1' '^a live guest, ' \
	'does not support this command' '"seek" is no command here'
ends 0
# Ten of its 300 ticks were left to it.
records=$(sed -n 's/^\([0-9]*\) records.*/\1/p' "$work/said")
if [[ $records && $records -lt 100 ]]; then check_pass; else wrong "$records records in ten ticks"; fi

# Asleep nearly all of the time: a halt is left, and gone on with.
start --realtime --append ms=6000 --kernel "$BUILD/guests/idle.elf"
for _ in 1 2 3; do
	session "$BUILD/guests/idle.elf" -ex 'monitor when' -ex 'stepi' -ex 'stepi' -ex 'x/i $pc'
	expect gdb '^a live guest, ' '^=> 0x'
done
ends 0
expect said '^idle: 600 ticks of 10 ms'

# Nothing ever wakes it but input that does not come; a kill ends it.
mkfifo "$work/fifo"
sleep 1000 >"$work/fifo" &
feeder=$!
start --input "$work/fifo" --kernel "$BUILD/guests/serial_in.elf"
session "$BUILD/guests/serial_in.elf" -ex 'bt 3'
expect gdb 'guest_main ()'
session "$BUILD/guests/serial_in.elf" -ex kill
ends 130
kill "$feeder"

# At its end it can still be looked at.
start --wait --append "ticks=5 watchdog=0" --kernel "$kernel"
session "$kernel" -ex continue -ex 'p timer_ticks' -ex continue -ex 'monitor when'
expect gdb '^The guest is over: the guest wrote its exit port' '^\$1 = [1-9]' ', over$'
ends 0
finish
