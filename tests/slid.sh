#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A kernel that has moved itself (KASLR): last-write and the real gdb name its code where it runs, and where it ran before
# it moved.
# shellcheck disable=SC2016,SC2034,SC2119,SC2317 # check_pass alone counts one; functions are called by name
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm
command -v gdb >/dev/null || die "gdb is not installed"
work=$(mktemp -d)
evidence=$work/out
trap 'rm -rf "$work"' EXIT
kernel=$BUILD/guests/slid.elf

in_gdb() { "$HINDSIGHT" gdb "$work/trace" -batch "$@" >"$work/out" 2>&1; }
says() { grep -q -- "$1" "$work/out"; }
says_not() { ! says "$1"; }
moved='^hindsight: the kernel runs 0x41000000 above where its file says$'

"$HINDSIGHT" record -o "$work/trace" --kernel "$kernel" >"$work/out" 2>&1
check "the guest runs" says '^slid: ok, 20 rounds'
# What it stores to, as gdb's symbols and as the file have it.
word=$(gdb -nx -batch -ex 'print &slid_word' "$kernel" | sed -n 's/.*) \(0x[0-9a-f]*\) <slid_word>$/\1/p')

"$HINDSIGHT" last-write "$work/trace" "$word,8" >"$work/out" 2>&1
check "last-write says how far it has moved" says "$moved"
check "last-write names function and line" says ' by slid_store+0x[0-9a-f/x]* tests/guests/slid.c:[0-9]*$'
check "last-write names the caller" says '^ slid_store\|^ slid_run'

in_gdb -ex 'info symbol $pc' -ex 'hindsight seek 100%' -ex 'break slid_store' -ex reverse-continue -ex 'print value'
check "names before it moves" says '^_start in section .text'
check "gdb says how far, once" test "$(grep -c "$moved" "$work/out")" = 1
check "a breakpoint by name, backwards" says '^Breakpoint 1, slid_store (value='
check "the last of its values" says '^\$1 = 20$'

in_gdb -ex "watch *(unsigned long *)$word" -ex continue -ex bt -ex 'print (unsigned long)&slid_word'
check "a watchpoint before it has moved" says '^New value = 1$'
check "names at the first stop after it" says '^#0 .* slid_store (value=value@entry=1) at tests/guests/slid.c'
check "its caller" says '^#1 .* slid_run () at tests/guests/slid.c'
check "data have moved as well" says "^\\\$1 = $((word + 0x41000000))\$"

"$HINDSIGHT" record -o "$work/trace" --kernel "$BUILD/guests/hello.elf" >"$work/out" 2>&1 || true
in_gdb -ex "hindsight seek 100%" -ex bt || true
check "a kernel that stays is left alone" says_not 'above where its file says'
finish
