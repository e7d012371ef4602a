#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Traces move: what one checkout has recorded, from files that are gone since, verifies in other directories, with
# a copy of the program, and answers there.
# shellcheck disable=SC2119,SC2317 # check_pass alone counts one; functions are called by name
set -uo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
require_kvm
# shellcheck disable=SC2154
cd "$repo" || exit 1

tmp=$(mktemp -d)
evidence=$tmp/log
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/one/build" "$tmp/two/other/build" "$tmp/desk"
cp "$HINDSIGHT" "$tmp/one/build/hindsight"
cp "$HINDSIGHT" "$tmp/two/other/build/hindsight"
cp "$BUILD/guests/stale_pointer.elf" "$tmp/one/kernel"

# The program of checkout $1, run there; the rest are its arguments.
in_checkout() { (cd "$tmp/$1" && shift && build/hindsight "$@") >"$tmp/log" 2>&1; }

(cd "$tmp/one" && build/hindsight record -o bug.trace --kernel kernel --seed 3 --max-seconds 60) >"$tmp/log" 2>&1
mv "$tmp/one/bug.trace" "$tmp/desk/moved.trace"
rm "$tmp/one/kernel"
check "where it was recorded, without the kernel's file" in_checkout one verify "$tmp/desk/moved.trace"
check "in another checkout" in_checkout two/other verify ../../desk/moved.trace
rm -r "$tmp/one"
check "when the first checkout is gone" in_checkout two/other verify ../../desk/moved.trace
# By the symbols of the kernel that is in the trace.
names_the_writer() {
	in_checkout two/other last-write ../../desk/moved.trace --physical 0x117300,8 &&
		grep -q 'by [a-z_]*+0x.*\.[ch]:[0-9]' "$tmp/log"
}
check "last-write there, with names" names_the_writer
finish
