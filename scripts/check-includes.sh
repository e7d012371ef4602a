#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Hold the borders between modules: each #include "..." must be an edge of the table below, which is
# the one in the design (base <- vmm <- snapshot, replay <- debugger; base <- gdbstub <- debugger).
# Prints each edge that is not in it and fails. Tests and examples may include what they like.
set -euo pipefail

cd "$(dirname "$0")/.."

dirs=()
for dir in base vmm snapshot replay gdbstub debugger; do
	if [[ -d $dir ]]; then
		dirs+=("$dir")
	fi
done

# Sorted, so that the report is the same on every machine.
find "${dirs[@]}" -type f \( -name '*.c' -o -name '*.h' \) -print | LC_ALL=C sort | {
	mapfile -t files
	if ((${#files[@]} == 0)); then
		exit 0
	fi
	awk '
	BEGIN {
		may["base"] = " base "
		may["vmm/dev"] = " base vmm/dev vmm/walk.h "
		may["vmm"] = " base vmm vmm/dev "
		may["snapshot"] = " base vmm vmm/dev snapshot "
		may["replay"] = " base vmm vmm/dev replay "
		may["gdbstub"] = " base gdbstub "
		may["debugger"] = " base vmm vmm/dev snapshot replay gdbstub debugger "
	}

	function module_of(path) {
		if (path ~ /^vmm\/dev\//)
			return "vmm/dev"
		return substr(path, 1, index(path, "/") - 1)
	}

	function complain(why) {
		printf "%s:%d: %s\n", FILENAME, FNR, why
		bad = 1
	}

	/^[ \t]*#[ \t]*include[ \t]*"/ {
		split($0, quoted, "\"")
		target = quoted[2]
		own = module_of(FILENAME)
		if (target ~ /(^|\/)\.\.?\// || target !~ /\//) {
			complain("\"" target "\" must be written as a path from the root of the repository")
			next
		}
		if (index(may[own], " " module_of(target) " ") == 0 &&
		    index(may[own], " " target " ") == 0)
			complain(own " must not include " target)
	}

	END { exit bad }
	' "${files[@]}" >&2
}
