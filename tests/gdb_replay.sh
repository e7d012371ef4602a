#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The real gdb on a real recording: tests/gdb/replay.py walks it forward and back. A gdb that is killed in the middle
# leaves the recording to the next one.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm
command -v gdb >/dev/null || die "gdb is not installed"
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
kernel=$BUILD/guests/stale_pointer.elf

for seed in {1..40}; do
	"$HINDSIGHT" record -o "$work/trace" --seed "$seed" --kernel "$kernel" >"$work/out" 2>"$work/err" || true
	! grep -q '^PANIC: list corruption' "$work/out" || break
done
CORRUPTED=$(sed -n 's/^corrupted field at \(0x[0-9a-f]*\).*/\1/p' "$work/out")
[[ $CORRUPTED ]] || die "no recording with a panic in 40 tries"
export CORRUPTED GDB_ADDRESS=$work/gdb.sock

: >"$work/server"
"$HINDSIGHT" replay "$work/trace" --gdb "$work/gdb.sock" 2>"$work/server" &
server=$!
for _ in {1..200}; do
	! grep -q '^hindsight: gdb can connect' "$work/server" || break
	sleep 0.05
done

# One is killed while it searches backwards, the next must find all as it should be.
{ timeout -s KILL 2 gdb -q -nx -batch -ex "target remote $work/gdb.sock" -ex 'monitor seek 100%' \
	-ex 'hbreak *0x1' -ex 'reverse-continue' -ex 'continue' -ex 'reverse-continue' "$kernel" >"$work/killed" 2>&1; } 2>/dev/null || true
if timeout 300 gdb -q -nx -batch -ex "target remote $work/gdb.sock" -x tests/gdb/ctrl_c.py -x tests/gdb/checks.py -x tests/gdb/replay.py "$kernel" >"$work/gdb" 2>&1 &&
	grep -q '^gdb checks: ' "$work/gdb"; then
	check_pass "$(sed -n 's/^gdb checks: \([0-9]*\) passed/\1/p' "$work/gdb")"
else
	check_fail "the session with gdb"
	tail -n 20 "$work/gdb" "$work/server"
fi
if kill -0 "$server" 2>/dev/null; then check_pass; else check_fail "the server has died"; fi
kill "$server" 2>/dev/null || true
wait "$server" || true
server=
if [[ ! -e $work/gdb.sock ]]; then check_pass; else check_fail "the socket file is left"; fi

# And all in one: hindsight gdb, as in the README of the example.
if "$HINDSIGHT" gdb "$work/trace" -batch -ex 'hindsight seek 99%' -ex continue -ex "watch *(unsigned long *)$CORRUPTED" \
	-ex reverse-continue -ex 'hindsight when' >"$work/gdb" 2>&1 &&
	grep -q 'in nvlog_tick () at examples/stale_pointer/nvlog.c:90' "$work/gdb" &&
	grep -q '^position [0-9]*+[0-9]*, guest time' "$work/gdb"; then
	check_pass
else
	check_fail "hindsight gdb"
	tail -n 20 "$work/gdb"
fi
# With a file of symbols of one's own; one only.
if "$HINDSIGHT" gdb --symbols "$kernel" "$work/trace" -batch -ex 'info symbol nvlog_tick' -ex 'info files' >"$work/gdb" 2>&1 &&
	grep -q '^nvlog_tick in section .text' "$work/gdb" && grep -q "^Symbols from \".*/$(basename "$kernel")\"" "$work/gdb" &&
	! "$HINDSIGHT" gdb --symbols "$kernel" --symbols "$kernel" "$work/trace" -batch 2>"$work/gdb"; then
	check_pass
else
	check_fail "hindsight gdb --symbols"
	tail -n 20 "$work/gdb"
fi
finish
