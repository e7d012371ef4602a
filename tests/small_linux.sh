#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input: the Linux of examples/linux. Each packing of its kernel starts as the vmlinux does; modules are
# rewritten before they run; the workload is recorded with several seeds and quanta, with and without disk,
# network and entropy, its results are right, and each trace verifies.
#
#   tests/small_linux.sh [-r RECORDINGS] LINUX_DIR      (5; examples/linux/build.sh makes the directory)
# shellcheck disable=SC2317 # functions are called by name
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

# Recordings of the workload: quantum in ms, guest's seconds for one of the host's, clock, devices. Where the
# host emulates kernel code, timer ticks at the host's pace would be a third of what is emulated, so most have
# fewer; the first is as a user would have it. By state each pass through a landmark's place is a stop, which
# takes its time there, so one recording is enough.
workloads=(
	'5 1 auto'
	'20 0.1 auto devices'
	'0.7 0.2 auto'
	'50 0.03 state'
	'2 0.3 auto devices'
)

recordings=${#workloads[@]}
while getopts r: option; do
	case $option in
	r) recordings=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
linux=${1:?tests/small_linux.sh LINUX_DIR; examples/linux/build.sh makes one}
out=$BUILD/linux-test
mkdir -p "$out"

# A recording of the small kernel: $1 names its files, the rest are options of record.
record() {
	local name=$1
	shift
	"$HINDSIGHT" record -o "$out/$name.trace" --initrd "$linux/initramfs.cpio" --max-seconds 900 "$@" \
		>"$out/$name.console" 2>"$out/$name.log"
}

# State and memory before the first instruction, and what was rewritten.
first_state() {
	"$HINDSIGHT" info --events "$out/$1.trace" | sed -n '/^ *0  digest/p; /^rewritten/p'
}

check_images() {
	local image want
	local early=(--append 'earlyprintk=serial,ttyS0' --until 'Linux version')

	record vmlinux --kernel "$linux/vmlinux" "${early[@]}"
	want=$(first_state vmlinux)
	grep -q digest <<<"$want"
	grep -q 'rdtsc .*hook for modules' <<<"$want"
	for image in bzImage.gzip bzImage.xz bzImage.zstd bzImage.lz4; do
		record "$image" --kernel "$linux/$image" "${early[@]}"
		[[ $(first_state "$image") == "$want" ]] || {
			echo "$image is not loaded as vmlinux is"
			return 1
		}
	done
}

check_parameters() {
	record defaults --kernel "$linux/bzImage" --append 'earlyprintk=serial parts=a' --until 'Command line'
	record none --kernel "$linux/bzImage" --append 'earlyprintk=serial nosmp' --no-default-append \
		--until 'Command line'
	grep -q '"console=ttyS0 ' "$out/defaults.log"
	"$HINDSIGHT" info "$out/defaults.trace" >"$out/defaults.info"
	grep -q '^cmdline *console=ttyS0 .* earlyprintk=serial parts=a$' "$out/defaults.info"
	"$HINDSIGHT" info "$out/none.trace" >"$out/none.info"
	grep -q '^cmdline *earlyprintk=serial nosmp$' "$out/none.info"
}

# What the module got, in its parameter's handler and from an instruction that lies in two pages too, is what
# hindsight answers: a replay on a host whose own clock and generator answered would print something else.
check_modules() {
	local first again

	record clocks --kernel "$linux/bzImage" --append 'parts=none module=clocks options=early=1' --seed 7
	first=$(sed -n 's/.*clocks: \([pie].*\)\r$/\1/p' "$out/clocks.console")
	echo "$first"
	[[ $(sed -n 1p <<<"$first") == 'parameter: vendor HindsightVMM' ]]
	[[ $(sed -n 2p <<<"$first") == 'init: tsc step '*', then '*', random '* ]]
	[[ $(sed -n 3p <<<"$first") == 'exit: random '* ]]
	# Each of its instructions is listed, the module's name with it.
	"$HINDSIGHT" info "$out/clocks.trace" | tee "$out/clocks.info" | sed -n '/^in modules/,/^events/p'
	[[ $(sed -n 's/^ *0xffffffff[a-c][0-9a-f]* \(.*\) in clocks$/\1/p' "$out/clocks.info" | sort | uniq -c | xargs) == \
		'1 cpuid 2 rdrand (64 bits) 3 rdtsc' ]]
	"$HINDSIGHT" replay "$out/clocks.trace" >"$out/clocks.replayed" 2>>"$out/clocks.log" || true
	tail -n 3 "$out/clocks.log"
	again=$(sed -n 's/.*clocks: \([pie].*\)\r$/\1/p' "$out/clocks.replayed")
	[[ $again == "$first" ]]
}

# What no host lets us decide in user code is reported by name when recorded, by info, and by the replay, which
# cannot be right and does not say that it is.
check_untrapped() {
	local name status=0

	record untrapped --kernel "$linux/bzImage" --append 'parts=none program=untrapped' --time-rate 0.1
	sed -n 's/\r$//; /^untrapped: /p' "$out/untrapped.console" | tail -n 3
	"$HINDSIGHT" verify "$out/untrapped.trace" >"$out/untrapped.verified" 2>&1 || status=$?
	"$HINDSIGHT" info "$out/untrapped.trace" >"$out/untrapped.info"
	((status == 1))
	for name in rdtsc rdtscp rdrand; do
		grep -q "^untrapped: $name \(gave 0x\|is illegal\)" "$out/untrapped.console"
		grep -q "^  $name at 0x" "$out/untrapped.log"
		grep -q "^  $name at 0x" "$out/untrapped.verified"
		grep -q "^user code .*\<$name in" "$out/untrapped.info"
	done
}

keep() {
	mkdir -p "$BUILD/linux-failed"
	cp "$out/$1".* "$BUILD/linux-failed"
}

# $1: number of the recording. It runs in a shell of its own; what failed stays.
check_workload() {
	local name=workload$1 parts=(processes pipes files timers signals sockets modules)
	local quantum rate clock devices part options=()

	# shellcheck disable=SC2064 # the name of now
	trap "((\$? == 0)) || keep $name" EXIT
	read -r quantum rate clock devices <<<"${workloads[($1 - 1) % ${#workloads[@]}]}"
	if [[ -n $devices ]]; then
		truncate -s 1M "$out/$name.disk"
		options=(--disk "$out/$name.disk" --net user --rng)
		parts+=(disk network entropy)
	fi
	record "$name" --kernel "$linux/bzImage" --seed "$1" --quantum "$quantum" --time-rate "$rate" \
		--clock "$clock" "${options[@]}" || {
		echo "recording ended with status $?"
		grep WRONG "$out/$name.console" || tail -n 5 "$out/$name.log" "$out/$name.console"
		return 1
	}
	for part in "${parts[@]}"; do
		grep -q "^workload: $part: ok" "$out/$name.console" || {
			echo "workload: $part is not right"
			return 1
		}
	done
	grep -q '^workload: done, 0 wrong' "$out/$name.console"
	if [[ -n $devices ]]; then
		# Packets came in, and the disk's image is as it was.
		[[ $("$HINDSIGHT" info --json "$out/$name.trace" | json_value inputs) -ge 4 ]]
		cmp "$out/$name.disk" <(head -c 1048576 /dev/zero)
	fi
	"$HINDSIGHT" verify "$out/$name.trace" >>"$out/$name.log" 2>&1 || {
		tail -n 20 "$out/$name.log"
		return 1
	}
	tail -n 1 "$out/$name.log"
}

one_check() { "check_$1" "${@:2}"; }

# What takes longest begins first.
mapfile -t numbers < <(seq "$recordings")
each_on_a_cpu check_workload "${numbers[@]}"
each_on_a_cpu one_check untrapped images parameters modules
finish
