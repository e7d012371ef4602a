#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The virtio devices under a real guest: tests/guests/virtio.c drives and checks each of them. What it records
# replays, its disk image is never written, and traces with and without the image behave as they should.
#
#   tests/virtio.sh [-r ROUNDS]     recordings of everything at once (3)
# shellcheck disable=SC2317,SC2119 # functions are called by others
set -uo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

failed_status=125
halted=121
limit=120 # seconds for any one command
rounds=3

while getopts r: option; do
	case $option in
	r) rounds=$OPTARG ;;
	*) die "usage: tests/virtio.sh [-r ROUNDS]" ;;
	esac
done
require_kvm
# shellcheck disable=SC2154
cd "$repo" || exit 1
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make first"
guest=$BUILD/guests/virtio.elf

tmp=$(mktemp -d)
evidence=$tmp/err
trap 'rm -rf "$tmp"' EXIT

# Run hindsight; status, $tmp/out and $tmp/err are what came of it.
hindsight() {
	timeout "$limit" "$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
}

image_untouched() { cmp -s "$tmp/image" "$tmp/image.before"; }

# Lines typed with pauses, so that some find the guest asleep.
type_lines() {
	for line in one two "a longer line, in more than one piece" quit; do
		sleep 0.2
		echo "$line"
	done
}

# 203 sectors: random, then zeros, then random, then zeros to an end within a block.
head -c 20480 /dev/urandom >"$tmp/image"
truncate -s 90112 "$tmp/image"
head -c 2560 /dev/urandom >>"$tmp/image"
truncate -s 103936 "$tmp/image"
cp "$tmp/image" "$tmp/image.before"

everything() {
	local i=$1 clock

	mkfifo "$tmp/fifo$i"
	type_lines >"$tmp/fifo$i" &
	hindsight record -o "$tmp/trace" --seed "$i" --quantum "$i" --kernel "$guest" --disk "$tmp/image" --rng \
		--ports 3 --port-input "0:$tmp/fifo$i" --port-output "$tmp/port" --net user --append echo=1 \
		--max-seconds 60
	wait
	check "everything, seed $i: the guest is content" is_status 0
	cp "$tmp/out" "$tmp/recorded"
	check "everything, seed $i: disk" printed '^disk: written'
	check "everything, seed $i: entropy" printed '^rng: '
	check "everything, seed $i: echo" printed '^heard a longer line, in more than one piece'
	check "everything, seed $i: port 2" grep -q 'this is port 2' "$tmp/port.2"
	check "everything, seed $i: network" printed 'is offered 10\.0\.2\.15'
	check "everything, seed $i: image untouched" image_untouched
	for clock in $(host_clocks); do
		hindsight verify --clock "$clock" "$tmp/trace"
		check "everything, seed $i: verify by $clock" said '; 0 divergences'
	done
	hindsight replay --port-output "$tmp/again" "$tmp/trace"
	check "everything, seed $i: replayed output" cmp -s "$tmp/out" "$tmp/recorded"
	check "everything, seed $i: replayed port" cmp -s "$tmp/again.2" "$tmp/port.2"
}

for ((i = 1; i <= rounds; i++)); do
	everything "$i"
done
hindsight info --events "$tmp/trace"
check "info: input of the network" printed 'to the network card'
check "info: parameters for Linux" printed 'virtio_mmio.device=4K@0xd0003000:9'

# Who wrote there last may be a device.
address() { tr -d '\r' <"$tmp/recorded" | sed -n "s/^$1 \(0x[0-9a-f]*\)$/\1/p"; }
hindsight last-write "$tmp/trace" "$(address 'rng: at'),8"
check "last-write: DMA is found" printed 'by virtio-rng, asked by .*tests/guests/virtio\.h:'
check "last-write: with the access that asked for it" printed '^ 0x[0-9a-f]*: mov '
before=$(sed -n 's/^Position \([0-9+]*\),.*/\1/p' "$tmp/out")
hindsight last-write --physical --before "$before" "$tmp/trace" "$(address 'rng: at'),8"
check "last-write: one write" said 'nobody wrote'
hindsight last-write "$tmp/trace" "$(address 'console: hears at')"
check "last-write: input is found" printed 'by a device, which received input'

# The trace alone is enough.
mv "$tmp/image" "$tmp/moved"
hindsight verify "$tmp/trace"
check "the image is in the trace" is_status 0
mv "$tmp/moved" "$tmp/image"

# Thin: the image must come along.
hindsight record --thin -o "$tmp/thin" --kernel "$guest" --disk "$tmp/image"
check "thin: recorded" is_status 0
check "thin: without the image" test "$(wc -c <"$tmp/thin")" -lt "$(($(wc -c <"$tmp/trace") - 15000))"
hindsight verify --disk "$tmp/image" "$tmp/thin"
check "thin: verified" is_status 0
hindsight verify "$tmp/thin"
check "thin: asks for the image" said 'give its disk image with --disk FILE'
check "thin: status $failed_status" is_status $failed_status
hindsight info "$tmp/thin"
check "thin: info without the image" is_status 0
cp "$tmp/image" "$tmp/other"
printf x | dd of="$tmp/other" bs=1 seek=100 conv=notrunc status=none
hindsight verify --disk "$tmp/other" "$tmp/thin"
check "thin: another image is refused" said 'is not the disk image that the trace was recorded with'
check "thin: image untouched" image_untouched

# Port 1 never gets a buffer from this guest: what might come there cannot wake it. (Its writer stays.)
mkfifo "$tmp/silent"
sleep 60 >"$tmp/silent" &
writer=$!
hindsight run --kernel "$guest" --ports 2 --port-input "1:$tmp/silent" --append echo=1 --max-seconds 50
check "input that the guest cannot take: halted for good" is_status $halted
kill $writer

# Nothing but what was asked for is there.
hindsight run --kernel "$guest"
check "no devices" printed '^virtio: 0 0 0 0 interrupts'

refuse() {
	local name=$1 text=$2

	shift 2
	hindsight "$@"
	check "$name: status $failed_status" is_status $failed_status
	check "$name: said" said "$text"
}

truncate -s 1000 "$tmp/odd"
refuse "an image of no whole sectors" 'disk image must have' run --kernel "$guest" --disk "$tmp/odd"
refuse "no image" 'cannot open' run --kernel "$guest" --disk "$tmp/nothing"
refuse "another network" 'net takes user' run --kernel "$guest" --net tap
refuse "too many ports" 'ports takes' run --kernel "$guest" --ports 5
refuse "no such port" 'there is no port 2' run --kernel "$guest" --ports 2 --port-input "2:$tmp/odd"
refuse "no port at all" 'port-input takes' run --kernel "$guest" --port-input "$tmp/odd"
refuse "thin without a disk" 'thin is about the disk' record -o "$tmp/t" --thin --kernel "$guest"
refuse "a disk for a whole trace" 'leave out --disk' verify --disk "$tmp/image" "$tmp/trace"
finish
