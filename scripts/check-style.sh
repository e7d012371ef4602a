#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What a compiler does not see: every source file names its licence in an SPDX line near the top and
# is no longer than 700 lines. Prints each file that fails, and fails. Also runs shellcheck over the
# shell scripts where it is installed.
set -euo pipefail

max_lines=700

cd "$(dirname "$0")/.."

# Files that git ignores are not ours; without git (a release tarball) all but build output is.
list_files() {
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -z --cached --others --exclude-standard
	else
		find . -type d \( -name 'build*' -o -name .git \) -prune -o -type f -printf '%P\0'
	fi
}

sources=()
shells=()
while IFS= read -r -d '' file; do
	# Listed by git but deleted in the work tree.
	[[ -f $file ]] || continue
	case $file in
	*.c | *.h | *.S | *.py | *.gdb | *.ld | *.lds | *.mk | Makefile | */Makefile)
		sources+=("$file")
		;;
	*.sh)
		sources+=("$file")
		shells+=("$file")
		;;
	*)
		# Scripts without a suffix, such as .ci/run, are known by their first line.
		first=
		IFS= read -r -n 80 first <"$file" 2>/dev/null || true
		case $first in
		'#!'*bash* | '#!'*/sh*)
			sources+=("$file")
			shells+=("$file")
			;;
		'#!'*) sources+=("$file") ;;
		esac
		;;
	esac
done < <(list_files)

status=0
if ((${#sources[@]})); then
	awk -v max="$max_lines" '
	FNR == 1 { spdx[FILENAME] = 0 }
	FNR <= 3 && /SPDX-License-Identifier: / { spdx[FILENAME] = 1 }
	{ lines[FILENAME] = FNR }
	END {
		for (i = 1; i < ARGC; i++) {
			file = ARGV[i]
			if (!spdx[file]) {
				print file ": no SPDX-License-Identifier in the first three lines"
				bad = 1
			}
			if (lines[file] > max) {
				print file ": " lines[file] " lines, more than " max
				bad = 1
			}
		}
		exit bad
	}' "${sources[@]}" >&2 || status=1
fi
if ((${#shells[@]})) && command -v shellcheck >/dev/null; then
	shellcheck "${shells[@]}" >&2 || status=1
fi
exit "$status"
