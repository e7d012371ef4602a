#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Record a race several times: some runs lose an update, some do not, and each recording replays as it
# went. For one that lost, ask who wrote the counter last. BUILD is the build directory, HINDSIGHT the
# program, OUT where traces go, RUNS how many recordings are tried at most.
set -euo pipefail

cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
HINDSIGHT=${HINDSIGHT:-$BUILD/hindsight}
OUT=${OUT:-$BUILD/demo}
RUNS=${RUNS:-24}
GUEST=$BUILD/guests/irq_race.elf
AT_LEAST=4 # recordings, even if the first two already differ

die()
{
	echo "session.sh: $*" >&2
	exit 1
}

mkdir -p "$OUT"
lost=
lost_count=0
kept_count=0
for seed in $(seq 1 "$RUNS"); do
	trace=$OUT/irq_race.$seed.trace
	console=$OUT/irq_race.$seed.console
	status=0
	"$HINDSIGHT" record -o "$trace" --seed "$seed" --max-seconds 60 --kernel "$GUEST" |
		tr -d '\r' >"$console" || status=${PIPESTATUS[0]}
	case $status in
	0)
		kept_count=$((kept_count + 1))
		echo "[seed $seed: consistent]"
		;;
	1)
		grep '^LOST UPDATE: ' "$console" || die "record failed"
		lost_count=$((lost_count + 1))
		lost=$seed
		echo "[seed $seed: lost an update]"
		;;
	*) die "record ended with status $status" ;;
	esac
	echo "\$ $HINDSIGHT verify $trace"
	"$HINDSIGHT" verify "$trace"
	[ "$seed" -lt $AT_LEAST ] || [ "$lost_count" -eq 0 ] || [ "$kept_count" -eq 0 ] || break
done
echo "[$lost_count lost an update, $kept_count did not]"
[ "$lost_count" -gt 0 ] || die "no recording lost an update"
[ "$kept_count" -gt 0 ] || die "every recording lost an update"

trace=$OUT/irq_race.$lost.trace
address=$(sed -n 's/^LOST UPDATE: counter at \(0x[0-9a-f]*\).*/\1/p' "$OUT/irq_race.$lost.console")
echo "\$ $HINDSIGHT last-write $trace $address,8"
answer=$("$HINDSIGHT" last-write "$trace" "$address,8")
echo "$answer"
grep -q 'flow_packet\|flow_keepalive' <<<"$answer" || die "last-write names neither writer"
grep -q 'flow\.c:[0-9]' <<<"$answer" || die "last-write does not name the source line"
