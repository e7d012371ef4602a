#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Each test's result on two kinds of host, side by side: tests/side_by_side.sh HERE THERE
# where both are files written by tests/run.sh.
set -euo pipefail

for file in "$@"; do
	if [[ ! -s $file ]]; then
		echo "side_by_side.sh: no results in $file: run make test and make test-npt first"
		exit 0
	fi
done

awk '
FNR == NR { here[$1] = $2 " " $3 " s"; order[++n] = $1; next }
{ there[$1] = $2 " " $3 " s"; if (!($1 in here)) order[++n] = $1 }
END {
	printf "%-26s %-16s %-16s\n", "test", "this host", "kvm_amd, NPT"
	for (i = 1; i <= n; i++)
		printf "%-26s %-16s %-16s\n", order[i], (order[i] in here) ? here[order[i]] : "-",
			(order[i] in there) ? there[order[i]] : "-"
}' "$1" "$2"
