#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# fetch.sh CACHE_DIR: take the kernel of Debian's linux-image-cloud-amd64 out of its package, without
# installing it, and leave it uncompressed as CACHE_DIR/vmlinux. Does nothing when that version is there.
set -euo pipefail

# shellcheck source=scripts/package.sh
. "$(dirname "$0")/../../scripts/package.sh"

META=linux-image-cloud-amd64

die()
{
	echo "fetch.sh: $*" >&2
	exit 1
}

note()
{
	echo "fetch.sh: $*" >&2
}

[ $# -eq 1 ] || die "usage: fetch.sh CACHE_DIR"
for tool in apt-get apt-cache dpkg-deb tar od dd; do
	command -v "$tool" >/dev/null || die "needs $tool (is this a Debian system?)"
done
mkdir -p "$1"
cache=$(cd "$1" && pwd)

# The package that the metapackage of the candidate version depends on, and its version.
find_package()
{
	local depends

	depends=$(package_field "$META" Depends) || return 1
	sed -n 's/^\(linux-image-[^ ,]*\) (= \([^)]*\)).*/\1 \2/p' <<<"$depends"
}

# PACKAGE VERSION: leave its kernel, still packed, as bzImage in the current directory.
fetch_package()
{
	package_file "$1=$2" "./boot/vmlinuz-${1#linux-image-}" >bzImage
}

# Little-endian number of $3 bytes at offset $2 of file $1.
read_number()
{
	od -A n -t "u$3" --endian=little -j "$2" -N "$3" "$1" | tr -d ' '
}

# The kernel inside the bzImage $1 to file $2. Fields: Documentation/arch/x86/boot.rst of Linux.
extract_vmlinux()
{
	local image=$1 out=$2 setup_sects offset length size magic unpack

	[ "$(dd if="$image" bs=1 skip=$((0x202)) count=4 status=none)" = HdrS ] ||
		die "no bzImage: $image"
	[ "$(read_number "$image" $((0x206)) 2)" -ge $((0x208)) ] ||
		die "boot protocol before 2.08, which does not say where the payload lies: $image"
	setup_sects=$(read_number "$image" $((0x1f1)) 1)
	[ "$setup_sects" -ne 0 ] || setup_sects=4
	offset=$(((setup_sects + 1) * 512 + $(read_number "$image" $((0x248)) 4)))
	length=$(read_number "$image" $((0x24c)) 4)
	# All but gzip end in a number the build adds, the uncompressed size; gzip's own trailer is one.
	size=$(read_number "$image" $((offset + length - 4)) 4)
	magic=$(od -A n -t x1 -j "$offset" -N 4 "$image" | tr -d ' ')
	case $magic in
	fd377a58) unpack=xz length=$((length - 4)) ;;
	28b52ffd) unpack=zstd length=$((length - 4)) ;;
	02214c18) unpack=lz4 length=$((length - 4)) ;;
	1f8b*) unpack=gzip ;;
	*) die "payload of unknown compression (starts with $magic): $image" ;;
	esac
	command -v "$unpack" >/dev/null || die "the kernel is packed with $unpack, which is not installed"
	dd if="$image" iflag=skip_bytes,count_bytes skip="$offset" count="$length" bs=1M status=none |
		"$unpack" -dc >"$out"
	[ "$(od -A n -t x1 -N 4 "$out" | tr -d ' ')" = 7f454c46 ] || die "payload is no ELF file: $image"
	[ "$(stat -c %s "$out")" -eq "$size" ] ||
		die "unpacked to $(stat -c %s "$out") bytes instead of $size: $image"
}

read -r package version <<<"$(find_package)"
if [ -z "$package" ]; then
	[ -s "$cache/vmlinux" ] || exit 1
	note "using the kernel fetched earlier"
	echo "$cache/vmlinux"
	exit 0
fi

kernel=vmlinux-${package#linux-image-}_$version
if [ ! -s "$cache/$kernel" ]; then
	work=$(mktemp -d "$cache/fetch.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	if ! fetch_package "$package" "$version"; then
		# The lists have been refreshed since.
		read -r package version <<<"$(find_package)"
		kernel=vmlinux-${package#linux-image-}_$version
		fetch_package "$package" "$version"
	fi
	extract_vmlinux bzImage vmlinux
	mv vmlinux "$cache/$kernel"
fi
ln -sf "$kernel" "$cache/vmlinux"
echo "$cache/vmlinux"
