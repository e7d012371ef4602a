#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Install what is missing for the named groups: scripts/deps.sh [GROUP]...   (default: build)
#
#   build  compiler and libraries of the program     test   unit tests, gdb, packers
#   npt    the second kind of host (npt-host.sh)     clang, fuzz  clang with its run-time library
#   linux  to build the kernel of examples/linux     bench  gdb and QEMU, for bench-gdb
#
# Every make target calls this, so with nothing missing it is one dpkg-query and no output. On
# Debian and its relatives it installs through apt, as root or with sudo; elsewhere it installs
# nothing, names what it does not find, and fails only if there is such a thing.
set -euo pipefail

say() { printf 'deps: %s\n' "$*" >&2; }

packages_of_group() {
	case $1 in
	build) echo gcc libc6-dev make pkg-config libzydis-dev zlib1g-dev liblzma-dev libzstd-dev \
		liblz4-dev libxxhash-dev libelf-dev libdwarf-dev libslirp-dev ;;
	test) echo libcmocka-dev gdb xz-utils zstd lz4 python3-minimal ;;
	bench) echo gdb qemu-system-x86 qemu-utils ;;
	npt) echo qemu-system-x86 busybox-static bash cpio kmod ;;
	clang | fuzz) echo clang libclang-rt-14-dev ;;
	linux) echo gcc libc6-dev make flex bison bc libelf-dev busybox-static cpio xz-utils zstd lz4 ;;
	*) return 1 ;;
	esac
}

# What proves a group present where there is no dpkg: "c:" a command, "h:" a header.
proofs_of_group() {
	case $1 in
	build) echo c:cc c:make h:Zydis/Zydis.h h:zlib.h h:lzma.h h:zstd.h h:lz4.h h:xxhash.h h:libelf.h h:libdwarf.h h:slirp/libslirp.h ;;
	test) echo h:cmocka.h c:gdb c:xz c:zstd c:lz4 c:python3 ;;
	bench) echo c:gdb c:qemu-system-x86_64 c:qemu-img ;;
	npt) echo c:qemu-system-x86_64 c:busybox c:bash c:cpio c:modprobe c:dpkg-deb c:apt-get ;;
	clang | fuzz) echo c:clang ;;
	linux) echo c:cc c:make c:flex c:bison c:bc c:busybox c:cpio c:xz c:zstd c:lz4 c:dpkg-deb \
		c:apt-get ;;
	esac
}

# Neither Zydis nor libdwarf ships a .pc file everywhere, so ask the compiler; libdwarf's header
# sits in a directory of its own on some systems.
have_header() {
	local dir

	for dir in '' libdwarf/ libdwarf-0/ libdwarf-2/; do
		if printf '#include <stddef.h>\n#include <stdarg.h>\n#include <setjmp.h>\n#include <stdint.h>\n#include <%s>\n' \
			"$dir$1" | cc -E -x c - >/dev/null 2>&1; then
			return 0
		fi
	done
	return 1
}

check_without_dpkg() {
	local group proof missing=()

	for group in "$@"; do
		for proof in $(proofs_of_group "$group"); do
			case $proof in
			c:*) command -v "${proof#c:}" >/dev/null || missing+=("${proof#c:}") ;;
			h:*) have_header "${proof#h:}" || missing+=("<${proof#h:}>") ;;
			esac
		done
	done
	if ((${#missing[@]} == 0)); then
		return 0
	fi
	say "this is no Debian system and ${missing[*]} is missing: please install a C17 compiler, make," \
		"Zydis 4, zlib, liblzma, libzstd, lz4, xxHash, libelf, libdwarf and libslirp (to test also cmocka, gdb and, for the second" \
		"kind of host, QEMU, busybox, cpio, kmod and dpkg) with your own package manager"
	return 1
}

# Packages of the list that dpkg does not hold as fully installed. A package that is unknown makes
# dpkg-query fail but the others are printed all the same.
missing_packages() {
	local have pkg

	have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
	for pkg in "$@"; do
		case $'\n'$have$'\n' in
		*$'\n'"$pkg installed"$'\n'*) ;;
		*) echo "$pkg" ;;
		esac
	done
}

apt() {
	# Other users of dpkg (unattended-upgrades, a parallel job) are waited for, not failed on.
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >&2
}

if (($# == 0)); then
	set -- build
fi
wanted=()
for group in "$@"; do
	if ! list=$(packages_of_group "$group"); then
		say "there is no group '$group'; groups are build, test, npt, linux, clang and fuzz"
		exit 2
	fi
	read -ra words <<<"$list"
	wanted+=("${words[@]}")
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	check_without_dpkg "$@"
	exit
fi

mapfile -t missing < <(missing_packages "${wanted[@]}")
if ((${#missing[@]} == 0)); then
	exit 0
fi

as_root=()
if ((EUID != 0)); then
	if ! command -v sudo >/dev/null; then
		say "missing: ${missing[*]}; run 'apt-get install ${missing[*]}' as root"
		exit 1
	fi
	as_root=(sudo)
fi

say "installing ${missing[*]}"
# Package lists may be absent (fresh container) or too old (the file is gone from the mirror): only
# when installing from them fails are they fetched.
if ! apt install -y --no-install-recommends "${missing[@]}" 2>/dev/null; then
	apt update
	apt install -y --no-install-recommends "${missing[@]}"
fi
