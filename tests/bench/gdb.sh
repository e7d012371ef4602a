#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# How long gdb waits: the same session (gdb.py) with a recording of hindsight's and with QEMU's record/replay under TCG
# (QEMU's docs/system/replay.rst: an image for its snapshots, one taken at the start), of the same guest, at its end. The
# times are wall time in ms. QEMU is killed after QEMU_SECONDS; what it has not done by then is not shown.
set -euo pipefail

repo=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
BUILD=${BUILD:-$repo/build}
[[ $BUILD == /* ]] || BUILD=$repo/$BUILD
kernel=$BUILD/guests/stale_pointer_pvh.elf
seconds=${QEMU_SECONDS:-60}
work=$(mktemp -d)
server=
stop() {
	[[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
	wait 2>/dev/null || true
	server=
}
trap 'stop; rm -rf "$work"' EXIT

# session STEPS_BACK SECONDS RESULT
session() {
	for _ in {1..100}; do
		[[ ! -S $work/gdb.sock ]] || break
		sleep 0.1
	done
	STEPS_BACK=$1 timeout -s KILL "$2" gdb -q -nx -batch -ex 'set remotetimeout 60' -ex "target remote $work/gdb.sock" \
		-x "$repo/tests/bench/gdb.py" "$kernel" >"$work/out" 2>&1 || true
	sed -n 's/^figure //p' "$work/out" >"$3"
	stop
	rm -f "$work/gdb.sock"
}

# A run that does not hit the guest's bug.
for seed in {1..40}; do
	"$BUILD/hindsight" record -o "$work/trace" --seed "$seed" --kernel "$kernel" --append ticks=1000 >"$work/guest" 2>"$work/told" || true
	! grep -q 'sessions closed' "$work/guest" || break
done
"$BUILD/hindsight" replay "$work/trace" --gdb "$work/gdb.sock" 2>/dev/null &
server=$!
session 50 120 "$work/hindsight"

qemu=(qemu-system-x86_64 -M pc -accel tcg -m 64 -nodefaults -display none -no-reboot -serial "file:$work/serial"
	-device 'isa-debug-exit,iobase=0xf4,iosize=4' -kernel "$kernel" -append ticks=1000
	-drive "file=$work/rr.qcow2,if=none,id=rr")
rr="shift=4,rrfile=$work/rr.bin,rrsnapshot=init"
qemu-img create -q -f qcow2 "$work/rr.qcow2" 64M
timeout -s KILL 30 "${qemu[@]}" -icount "$rr,rr=record" || true
"${qemu[@]}" -icount "$rr,rr=replay" -gdb "unix:$work/gdb.sock,server=on,wait=off" -S &
server=$!
session 1 "$seconds" "$work/qemu"

printf 'gdb, ms of wall time; the guest ran %s\n' "$(sed -n 's/.*guest time \([0-9.]*\) s.*/\1 s of its time here/p' "$work/told")"
printf '%-20s %12s %12s %10s  %s\n' figure hindsight QEMU times verdict
while read -r name median _; do
	other=$(awk -v n="$name" '$1 == n { print $2 }' "$work/qemu")
	awk -v n="$name" -v a="$median" -v b="${other:--}" 'BEGIN {
		times = b == "-" ? "-" : sprintf("%.1f", b / a)
		verdict = n != "reverse-stepi" ? "info" : b == "-" ? "no figure of QEMU" : b >= 10 * a ? "ok" : "less than 10 times"
		printf "%-20s %12s %12s %10s  %s\n", n, a, b, times, verdict
	}'
done <"$work/hindsight"
[[ $(wc -l <"$work/hindsight") == 4 ]] || { echo "the session with hindsight failed:"; tail -n 5 "$work/out"; exit 1; }
