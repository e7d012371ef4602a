#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Real input: the Linux of examples/linux. Each packing of its kernel starts as the vmlinux does; modules are
# rewritten before they run; the workload is recorded with several seeds and quanta, its results are right,
# and each trace verifies.
#
#   tests/small_linux.sh [-r RECORDINGS] LINUX_DIR      (5; examples/linux/build.sh makes the directory)
set -euo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm

recordings=5
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
	"$HINDSIGHT" record -o "$out/$name.trace" --initrd "$linux/initramfs.cpio" --max-seconds 600 "$@" \
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
	if ! grep -q digest <<<"$want" || ! grep -q 'rdtsc .*hook for modules' <<<"$want"; then
		check_fail "vmlinux: no digest, or nothing was rewritten"
	fi
	for image in bzImage.gzip bzImage.xz bzImage.zstd bzImage.lz4; do
		record "$image" --kernel "$linux/$image" "${early[@]}"
		if [[ $(first_state "$image") == "$want" ]]; then
			check_pass 1
		else
			check_fail "$image is not loaded as vmlinux is"
		fi
	done
}

check_parameters() {
	record defaults --kernel "$linux/bzImage" --append 'earlyprintk=serial parts=a' --until 'Command line'
	record none --kernel "$linux/bzImage" --append 'earlyprintk=serial nosmp' --no-default-append \
		--until 'Command line'
	if grep -q '"console=ttyS0 ' "$out/defaults.log" &&
		"$HINDSIGHT" info "$out/defaults.trace" | grep -q '^cmdline *console=ttyS0 .* earlyprintk=serial parts=a$' &&
		"$HINDSIGHT" info "$out/none.trace" | grep -q '^cmdline *earlyprintk=serial nosmp$'; then
		check_pass 1
	else
		check_fail "kernel parameters"
	fi
}

# What the module got, in its parameter's handler and from an instruction that lies in two pages too, is what
# hindsight answers: a replay on a host whose own clock and generator answered would print something else.
check_modules() {
	local first again

	record clocks --kernel "$linux/bzImage" --append 'parts=none module=clocks options=early=1' --seed 7
	first=$(sed -n 's/.*clocks: \([pie].*\)\r$/\1/p' "$out/clocks.console")
	if [[ $(sed -n 1p <<<"$first") == 'parameter: vendor HindsightVMM' &&
		$(sed -n 2p <<<"$first") == 'init: tsc step '*', then '*', random '* &&
		$(sed -n 3p <<<"$first") == 'exit: random '* ]]; then
		check_pass 1
	else
		check_fail "module clocks: $first"
	fi
	"$HINDSIGHT" replay "$out/clocks.trace" >"$out/clocks.replayed" 2>>"$out/clocks.log" || true
	tail -n 3 "$out/clocks.log"
	again=$(sed -n 's/.*clocks: \([pie].*\)\r$/\1/p' "$out/clocks.replayed")
	if [[ $again == "$first" ]]; then check_pass 1; else check_fail "module clocks, replayed: $again"; fi
}

# $1: number of the recording.
check_workload() {
	local name=workload$1 quanta=(5 0.7 2 20 1) part

	record "$name" --kernel "$linux/bzImage" --seed "$1" --quantum "${quanta[$1 % 5]}" || {
		echo "recording $1 ended with status $?"
		return 1
	}
	for part in processes pipes files timers signals sockets modules; do
		grep -q "^workload: $part: ok" "$out/$name.console" || {
			echo "recording $1: $part"
			return 1
		}
	done
	grep -q '^workload: done, 0 wrong' "$out/$name.console" || return 1
	"$HINDSIGHT" verify "$out/$name.trace" >>"$out/$name.log" 2>&1 || {
		tail -n 20 "$out/$name.log"
		return 1
	}
}

check_images
check_parameters
check_modules
# Two at a time: they take their time on hosts that emulate kernel code.
for ((i = 1; i <= recordings; i += 2)); do
	second=
	if ((i < recordings)); then
		check_workload $((i + 1)) &
		second=$!
	fi
	if check_workload "$i"; then check_pass 1; else check_fail "workload $i"; fi
	[[ -z $second ]] || if wait "$second"; then check_pass 1; else check_fail "workload $((i + 1))"; fi
	tail -n 2 "$out/workload$i.log"
done
finish
