#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The real gdb against the stub, over a Unix socket and a TCP port: tests/gdb/remote.py has the session. What is
# behind the stub is a model (tests/gdb/fake_target.c), so this needs no KVM.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
command -v gdb >/dev/null || die "gdb is not installed"
work=$(mktemp -d)
server=
stop() {
	if [[ $server ]]; then
		kill "$server" 2>/dev/null || true
		wait "$server" || true
		server=
	fi
}
trap 'stop; rm -rf "$work"' EXIT

# run_gdb TESTS ADDRESS ROUNDS SLICE_US
run_gdb() {
	local address told

	: >"$work/server"
	"$BUILD/tests/fake_server" "$2" "$3" "$4" >>"$work/server" 2>&1 &
	server=$!
	for _ in {1..100}; do
		grep -q '^listening' "$work/server" && break
		sleep 0.05
	done
	address=$(sed -n 's/^listening on //p' "$work/server")
	if FAKE_ADDRESS=$address FAKE_TESTS=$1 HINDSIGHT_PY=$repo/gdbstub/hindsight.py \
		timeout 120 gdb -q -nx -batch -x "$repo/tests/gdb/ctrl_c.py" -x "$repo/tests/gdb/remote.py" "$BUILD/tests/fake_program.elf" >"$work/gdb" 2>&1; then
		check_pass "$(sed -n 's/^gdb checks: \([0-9]*\) passed.*/\1/p' "$work/gdb")"
		told=$(grep -c '^No more reverse-execution history' "$work/gdb" || true)
		if ! grep -q "passed, $told times out of history" "$work/gdb"; then
			check_fail "gdb said $told times that there is no more history"
		fi
	else
		check_fail "$1 over $2"
		tail -n 20 "$work/gdb" "$work/server"
	fi
	if ! kill -0 "$server"; then
		check_fail "the server has died"
	fi
	stop
	[[ ! -e $work/gdb.sock ]] || check_fail "the socket file is left"
}

run_gdb short "$work/gdb.sock" 100 0
run_gdb short 0 100 0
# So slow and long that nothing ends by itself.
run_gdb long "$work/gdb.sock" 100000000000 5000
finish
