#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Linux's own commands for gdb (lx-dmesg, lx-ps, lx-lsmod, lx-symbols) on a recording of the small Linux of
# examples/linux, at several positions: what they say against what the guest printed. tests/gdb/linux.py is the session.
#
#   tests/linux_gdb.sh LINUX_DIR      (examples/linux/build.sh makes the directory)
# shellcheck disable=SC2317 # the function is called by name
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck disable=SC2154
cd "$repo"
require_kvm
command -v gdb >/dev/null || die "gdb is not installed"
linux=${1:?tests/linux_gdb.sh LINUX_DIR; examples/linux/build.sh makes one}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Up to where the module has been loaded. Few timer ticks: where kernel code is emulated they would take most of it.
check_session() {
	export CONSOLE=$tmp/console LEASES

	"$HINDSIGHT" record -o "$tmp/trace" --kernel "$linux/bzImage" --initrd "$linux/initramfs.cpio" \
		--append 'parts=none module=leases' --until 'leases: text at 0x................' --time-rate 0.1 \
		--max-seconds 900 >"$CONSOLE" 2>"$tmp/err" || {
		tail -n 3 "$tmp/err"
		return 1
	}
	LEASES=$(sed -n 's/^leases: text at \(0x[0-9a-f]*\).*/\1/p' "$CONSOLE")
	if ! timeout 900 "$HINDSIGHT" gdb --symbols "$linux/vmlinux" "$tmp/trace" -nx -batch \
		-iex "add-auto-load-safe-path $linux" -x tests/gdb/checks.py -x tests/gdb/linux.py >"$tmp/gdb" 2>&1 ||
		! grep '^gdb checks: ' "$tmp/gdb"; then
		tail -n 20 "$tmp/gdb"
		return 1
	fi
}

# On one CPU: where user code sees the host's CPUID it keeps the number of the CPU that it was recorded on.
each_on_a_cpu check_session "$(basename "$linux")"
finish
