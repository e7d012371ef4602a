#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   examples/memtest/fetch.sh DIR
#
# Take memtest86+ out of Debian's package, which is not installed, and leave it as DIR/memtest86+x64.bin.
# Needs a Debian system. What is there already stays.
set -euo pipefail

PACKAGE=memtest86+
PROGRAM=memtest86+x64.bin

die() {
	echo "examples/memtest/fetch.sh: $*" >&2
	exit 1
}

(($# == 1)) || die "usage: fetch.sh DIR"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[[ ! -s $dir/$PROGRAM ]] || exit 0
# Root's apt drops to the user _apt for downloads, which may not be able to enter the directory.
apt_options=()
as_root=()
if ((EUID == 0)); then
	apt_options=(-o APT::Sandbox::User=root)
elif command -v sudo >/dev/null; then
	as_root=(sudo -n)
fi
work=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get -qq "${apt_options[@]}" download "$PACKAGE" >&2; then
	"${as_root[@]}" apt-get -qq update >&2 || true
	apt-get -qq "${apt_options[@]}" download "$PACKAGE" >&2 || die "cannot download $PACKAGE: offline?"
fi
dpkg-deb --fsys-tarfile "$PACKAGE"_*.deb | tar -x -O "./boot/$PROGRAM" >program
mv program "$dir/$PROGRAM"
