#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   examples/linux/kernel.sh
#
# Build a small Linux from Debian's source package linux-source-6.1 with the options of
# examples/linux/config, and print the directory that holds the result:
#
#   vmlinux                        the kernel as ELF file with symbols and line numbers
#   bzImage.{gzip,xz,zstd,lz4}     the same kernel packed in each way
#   *.ko                           its modules with line numbers
#   linux/                         what is needed to build further modules (KDIR)
#
# This takes some minutes. The result is kept in ${XDG_CACHE_HOME:-~/.cache}/hindsight under a name
# made of all that goes into it, so it is built again only when that changes. Needs a Debian system;
# the package is unpacked, not installed.
set -euo pipefail

PACKAGE=linux-source-6.1
PACKINGS='gzip xz zstd lz4'

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hindsight

note() { echo "examples/linux/kernel.sh: $*" >&2; }

die() {
	note "$@"
	exit 1
}

# shellcheck source=scripts/package.sh
. "$here/../../scripts/package.sh"
"$here/../../scripts/deps.sh" linux
mkdir -p "$cache"

# All that decides what the kernel's bytes are.
key_of_version() {
	{
		echo "$1"
		gcc --version
		ld --version
		cat "$here/kernel.sh" "$here/config"
	} | sha256sum | cut -c 1-16
}

unpack_source() {
	mkdir source
	package_file "$PACKAGE=$1" "./usr/src/$PACKAGE.tar.xz" | xz -dc | tar -x --strip-components=1 -C source
}

# allnoconfig drops silently what it does not know or whose dependencies are off.
configure() {
	local line wrong=0

	make -s KCONFIG_ALLCONFIG="$here/config" allnoconfig >&2
	while read -r line; do
		if ! grep -qxF -- "$line" .config; then
			note "the kernel's configuration does not take: $line"
			wrong=1
		fi
	done < <(grep -E '^(CONFIG_|# CONFIG_.* is not set)' "$here/config")
	((wrong == 0)) || die "examples/linux/config does not fit this kernel"
}

build_kernel() {
	local jobs packing

	jobs=$(nproc)
	# Whoever builds it, wherever and whenever: the same bytes.
	export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
	export KBUILD_BUILD_USER=hindsight KBUILD_BUILD_HOST=hindsight KBUILD_BUILD_VERSION=1
	export ARCH=x86_64 KCFLAGS="-ffile-prefix-map=$PWD/="
	configure
	note "building the kernel ($jobs jobs, some minutes)"
	make -s -j"$jobs" vmlinux modules >&2
	cp vmlinux ../result/
	cp lib/*.ko ../result/
	for packing in $PACKINGS; do
		scripts/config -d KERNEL_GZIP -d KERNEL_XZ -d KERNEL_ZSTD -d KERNEL_LZ4 \
			-e "KERNEL_${packing^^}"
		make -s olddefconfig >&2
		# Not the target bzImage, which would link vmlinux again.
		make -s -j"$jobs" bzImage >&2
		cp arch/x86/boot/bzImage "../result/bzImage.$packing"
	done
}

# What building a module against this kernel needs: as Debian's linux-headers packages have it.
keep_headers() {
	local to=$1

	mkdir -p "$to"
	cp -a --parents .config Makefile Module.symvers scripts include arch/x86/Makefile* \
		arch/x86/include tools/objtool/objtool "$to"
	find "$to" \( -name '*.o' -o -name '.*.cmd' \) -delete
}

build_cached() {
	local version=$1 kept=$2 work

	work=$(mktemp -d "$cache/build.XXXXXX")
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$work'" EXIT
	(
		cd "$work"
		mkdir result
		unpack_source "$version"
		cd source
		build_kernel
		keep_headers ../result/linux
	)
	rm -rf "$kept"
	mv "$work/result" "$kept"
	rm -rf "$work"
	trap - EXIT
	# One kernel is kept: CI would pile them up.
	find "$cache" -maxdepth 1 -name 'linux-*' ! -path "$kept" -exec rm -rf {} +
}

version=$(package_field "$PACKAGE" Version)
kept=$cache/linux-$(key_of_version "$version")
[[ -d $kept ]] || build_cached "$version" "$kept"

echo "$kept"
