#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Find the writer of a corrupted list pointer in a Linux module: record until the kernel oopses, check that
# the recording replays, ask it who wrote there last. BUILD is the build directory, HINDSIGHT the program,
# LINUX what examples/linux/build.sh made, OUT where traces go.
set -euo pipefail

cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
HINDSIGHT=${HINDSIGHT:-$BUILD/hindsight}
LINUX=${LINUX:-$BUILD/linux}
OUT=${OUT:-$BUILD/demo}

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
trace=$OUT/leases.trace
console=$OUT/leases.console

show "$HINDSIGHT" record -o "$trace" --kernel "$LINUX/bzImage" --initrd "$LINUX/initramfs.cpio" \
	--append "parts=none module=leases options=rounds=4000" --until oops --retry 19 --max-seconds 600 |
	tr -d '\r' >"$console" || die "no recording ended in an oops (status ${PIPESTATUS[0]})"
# Of the recordings before the last only the number matters.
tac "$console" | sed '/Linux version/q' | tac | sed -n '/BUG: /,$p'

# The instruction that faulted is "mov %rdx,0x8(%rax)" of list_del: RAX is the job's next pointer, which is
# none, and RDI the job. Its list node lies behind a number of eight bytes.
job=$(sed -n 's/.*RDI: \([0-9a-f]\{16\}\).*/0x\1/p' "$console" | head -n 1)
bad=$(sed -n 's/.*RAX: \([0-9a-f]\{16\}\).*/0x\1/p' "$console" | head -n 1)
if [ -z "$job" ] || [ -z "$bad" ]; then
	die "the oops shows no registers"
fi
address=$(printf '0x%x' $((job + 8)))
echo "[job $job has next = $bad, which looks like a time in jiffies; the pointer is at $address]"

show "$HINDSIGHT" verify "$trace"

answer=$(show "$HINDSIGHT" last-write "$trace" "$address,8" --symbols "$LINUX/vmlinux" \
	--symbols "$LINUX/leases.ko")
echo "$answer"
grep -q "became $bad" <<<"$answer" || die "last-write does not show the pointer's value"
grep -q 'by leases_tick+.* examples/linux/module/leases\.c:[0-9]' <<<"$answer" ||
	die "last-write does not name the timer's callback and its line"
line=$(grep -n 'latest->renewed = jiffies' examples/linux/module/leases.c | cut -d : -f 1)
grep -q "leases\.c:$line\$" <<<"$(sed -n 's/ *$//; /^Write of/p' <<<"$answer")" ||
	die "last-write names another line than $line"
echo "[written by the timer that keeps the latest lease fresh, through a pointer to a lease that has expired]"
