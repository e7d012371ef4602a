#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Find the writer of a corrupted list pointer: record until it happens, check that the recording replays,
# ask it who wrote there last. BUILD is the build directory, HINDSIGHT the program, OUT where traces go.
set -euo pipefail

cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
HINDSIGHT=${HINDSIGHT:-$BUILD/hindsight}
OUT=${OUT:-$BUILD/demo}
GUEST=$BUILD/guests/stale_pointer.elf
SEEDS=20

die()
{
	echo "session.sh: $*" >&2
	exit 1
}

show()
{
	echo "\$ $*"
	"$@"
}

mkdir -p "$OUT"
trace=$OUT/stale_pointer.trace
console=$OUT/stale_pointer.console
found=
for seed in $(seq 1 $SEEDS); do
	echo "\$ $HINDSIGHT record -o $trace --seed $seed --max-seconds 60 --kernel $GUEST"
	status=0
	"$HINDSIGHT" record -o "$trace" --seed "$seed" --max-seconds 60 --kernel "$GUEST" |
		tr -d '\r' | tee "$console" || status=${PIPESTATUS[0]}
	case $status in
	0) echo "[seed $seed: no panic]" ;;
	1)
		grep -q '^PANIC: ' "$console" || die "record failed"
		found=$seed
		break
		;;
	*) die "record ended with status $status" ;;
	esac
done
[ -n "$found" ] || die "none of $SEEDS recordings panicked"

address=$(sed -n 's/^corrupted field at \(0x[0-9a-f]*\).*/\1/p' "$console")
[ -n "$address" ] || die "the panic names no address"
echo "[seed $found panics; the pointer at $address is wrong]"

show "$HINDSIGHT" verify "$trace"
show "$HINDSIGHT" verify "$trace"

echo "\$ $HINDSIGHT last-write $trace $address,8"
answer=$("$HINDSIGHT" last-write "$trace" "$address,8")
echo "$answer"
grep -q nvlog_tick <<<"$answer" || die "last-write does not name nvlog_tick"
grep -q 'nvlog\.c:[0-9]' <<<"$answer" || die "last-write does not name the source line"
echo "[written by the watchdog of the audit log, through a pointer to a request that was freed]"
