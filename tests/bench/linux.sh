#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What recording and replaying a Linux costs: the boot of examples/linux to its user space and out again, under
# run, record and replay; the same boot in QEMU's emulator, plain and with its record/replay; and beside it user
# code that only computes. Times are CPU time, as a busy host stretches wall time; the sides of a ratio alternate,
# and what is shown is the median of the ratios of neighbours with the smallest and the largest.
#
#   tests/bench/linux.sh [-n REPETITIONS] [-r ROUNDS] LINUX_DIR
#
#   -n  how often each is run (3)
#   -r  length of the computation in user mode (3000000)
#
# A missed bound is said and no failure, as in tests/bench/bench.c.
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

repetitions=3
rounds=3000000
while getopts n:r: option; do
	case $option in
	n) repetitions=$OPTARG ;;
	r) rounds=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
linux=${1:?tests/bench/linux.sh LINUX_DIR; examples/linux/build.sh makes one}
work=$(mktemp -d)
guest=
# shellcheck disable=SC2317  # it is called by the trap
cleanup() {
	[[ -z $guest ]] || kill "$guest" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

parameters="parts=compute rounds=$rounds"
expected=$(awk -v n="$rounds" 'BEGIN { for (i = 0; i < n; i++) s = (s * 31 + i) % 1000003; print s }')
hertz=$(getconf CLK_TCK)

# CPU time of the process $1 so far, in ms: fields 14 and 15 of its stat (proc(5)), counted behind the name.
cpu_of() {
	local line fields

	read -r line <"/proc/$1/stat"
	read -r -a fields <<<"${line##*) }"
	cpu=$(((fields[11] + fields[12]) * 1000 / hertz))
}

# Run COMMAND and watch its guest's console. boot and compute: CPU time in ms.
measure() {
	local name=$1 line cpu=0 from=0 to=0 last=0 status=0
	shift

	mkfifo "$work/console"
	"$@" >"$work/console" 2>"$work/log" </dev/null &
	guest=$!
	: >"$work/kept"
	while IFS= read -r line; do
		echo "$line" >>"$work/kept"
		cpu_of "$guest"
		case $line in
		*"compute: begins"*) from=$cpu ;;
		*"compute: "[0-9]*) to=$cpu ;;
		*"workload: done"*) last=$cpu ;;
		esac
	done <"$work/console"
	wait "$guest" || status=$?
	guest=
	rm "$work/console"
	if ! grep -q "compute: $expected" "$work/kept" || ((last == 0)); then
		tail -n 5 "$work/kept" "$work/log" >&2
		die "$name went wrong (status $status)"
	fi
	compute=$((to - from))
	boot=$((last - compute))
	echo "$name: boot $boot ms, computing $compute ms" >&2
	echo "$boot" >>"$work/boot.$name"
	echo "$compute" >>"$work/compute.$name"
}

hindsight_on() {
	local command=$1
	shift
	measure "$command" "$HINDSIGHT" "$command" --kernel "$linux/bzImage" --initrd "$linux/initramfs.cpio" \
		--append "$parameters" "$@"
}

# QEMU gets the port by which the guest ends; its kernel needs nothing else of the machine.
qemu_on() {
	local name=$1
	shift
	measure "$name" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M pc -m 64 \
		-accel tcg,thread=single -cpu qemu64 -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
		-kernel "$linux/bzImage" -initrd "$linux/initramfs.cpio" "$@" \
		-append "console=ttyS0 panic=-1 tsc=unstable mitigations=off $parameters"
}

# NAME BOUND FILE FILE: the ratios of neighbouring lines.
ratio() {
	paste "$work/$3" "$work/$4" | awk '{ print $1 / ($2 ? $2 : 1) }' | sort -g |
		awk -v name="$1" -v bound="$2" '
			{ v[NR] = $1 }
			END {
				m = v[int((NR + 1) / 2)]
				printf "%-44s %8s %9.3f  %.3f to %.3f%s\n", name, bound, m, v[1], v[NR],
					(bound != "-" && m > bound) ? "  OVER" : ""
			}'
}
median_of() { sort -n "$work/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for ((i = 0; i < repetitions; i++)); do
	hindsight_on run
	hindsight_on record -o "$work/trace"
	log_bytes=$(sed -n 's/.*; log \([0-9]*\) bytes.*/\1/p' "$work/log")
	measure replay "$HINDSIGHT" replay "$work/trace"
	qemu_on qemu
	qemu_on qemu-record -icount "shift=auto,rr=record,rrfile=$work/rr"
done
vtime=$("$HINDSIGHT" info --json "$work/trace" | json_value vtime)

printf '%-44s %8s %9s  %s\n' ratio bound median range
ratio 'boot, record / run' 1.10 boot.record boot.run
ratio 'boot, replay / record' 1.0 boot.replay boot.record
ratio 'computing in user mode, record / run' - compute.record compute.run
ratio 'boot, record / QEMU record' - boot.record boot.qemu-record
ratio 'computing in user mode, record / QEMU record' - compute.record compute.qemu-record
ratio 'boot, QEMU record / QEMU' - boot.qemu-record boot.qemu
echo
awk -v size="$(stat -c %s "$work/trace")" -v files="$(cat "$linux/bzImage" "$linux/initramfs.cpio" | wc -c)" \
	-v log_bytes="$log_bytes" -v rr="$(stat -c %s "$work/rr")" -v vtime="$vtime" 'BEGIN {
	printf "trace %d bytes, of which the guest has %d in its files before compression\n", size, files
	printf "log of %d bytes for %.2f guest seconds: %.0f bytes a guest second\n", log_bytes, vtime / 1e9, log_bytes * 1e9 / vtime
	printf "log of QEMU for the same: %d bytes, %.0f times as many\n", rr, rr / log_bytes
}'
awk -v ours="$(median_of boot.record)" -v theirs="$(median_of boot.qemu-record)" \
	-v ours_c="$(median_of compute.record)" -v theirs_c="$(median_of compute.qemu-record)" '
function say(what, a, b) {
	printf "%s: %.2f s recorded here, %.2f s in QEMU: we are %.1f times as %s\n", what, a / 1000, b / 1000,
		(a > b) ? a / (b ? b : 1) : b / (a ? a : 1), (a > b) ? "slow" : "fast"
}
BEGIN {
	say("boot, kernel code mostly", ours, theirs)
	say("computing in user mode", ours_c, theirs_c)
}'
