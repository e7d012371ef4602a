#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   examples/memtest/fetch.sh DIR
#
# Take memtest86+ out of Debian's package, which is not installed, and leave it as DIR/memtest86+x64.bin.
# Needs a Debian system. What is there already stays.
set -euo pipefail

# shellcheck source=scripts/package.sh
. "$(dirname "$0")/../../scripts/package.sh"

PROGRAM=memtest86+x64.bin

(($# == 1)) || {
	echo "usage: fetch.sh DIR" >&2
	exit 1
}
mkdir -p "$1"
cd "$1"
if [[ ! -s $PROGRAM ]]; then
	package_file memtest86+ "./boot/$PROGRAM" >"$PROGRAM.new"
	mv "$PROGRAM.new" "$PROGRAM"
fi
