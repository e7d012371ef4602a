#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   examples/linux/build.sh [-p PROGRAM.c]... OUT_DIR [MODULE.c]...
#
# Build the guest of this example: the kernel (kernel.sh), its modules and ours (module/ and those
# named), and an initial RAM disk with busybox and the programs named. Leaves in OUT_DIR:
#
#   vmlinux                              the kernel as ELF file with symbols and line numbers
#   bzImage, bzImage.{gzip,xz,zstd,lz4}  the same kernel packed in each way; bzImage is the first
#   initramfs.cpio                       examples/linux/guest/ and the modules
#   *.ko                                 the modules with line numbers
#   vmlinux-gdb.py, scripts/gdb/         Linux's own commands for gdb
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

usage() {
	echo "usage: build.sh [-p PROGRAM.c]... OUT_DIR [MODULE.c]..." >&2
	exit 1
}

programs=("$here/guest/exit-machine.c")
while getopts p: option; do
	case $option in
	p) programs+=("$OPTARG") ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
(($# >= 1)) || usage
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
modules=("$here"/module/*.c "$@")

# Out of tree, in a copy: the kernel's build leaves much behind. Sources are named in the modules' line
# tables as they are here, from the repository's root on.
build_modules() {
	local work=$out/modules source

	rm -rf "$work"
	mkdir -p "$work"
	for source in "${modules[@]}"; do
		cp "$source" "$work/"
		echo "obj-m += $(basename "$source" .c).o"
		echo "CFLAGS_$(basename "$source" .c).o := -ffile-prefix-map=$work=$(realpath \
			--relative-to="$here/../.." "$(dirname "$source")")"
	done >"$work/Makefile"
	make -s -C "$kept/linux" M="$work" ARCH=x86_64 modules >&2
	cp "$work"/*.ko "$out/"
	rm -rf "$work"
}

# busybox, our programs and the modules, without what only a debugger reads.
build_initramfs() {
	local root=$out/initramfs ko source

	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt,lib/modules}
	cp "$(command -v busybox)" "$root/bin/busybox"
	# Links made here: busybox --install would be hundreds of system calls in the guest.
	"$root/bin/busybox" --list | sed 's/^busybox$//' | while read -r name; do
		[ -z "$name" ] || ln -sf busybox "$root/bin/$name"
	done
	for source in "${programs[@]}"; do
		gcc -O2 -Wall -Wextra -Werror -static -s -o "$root/bin/$(basename "$source" .c)" "$source"
	done
	cp "$here/guest/init" "$root/init"
	cp "$here/guest/dhcp-event" "$root/bin/"
	for ko in "$out"/*.ko; do
		objcopy --strip-debug "$ko" "$root/lib/modules/$(basename "$ko")"
	done
	(cd "$root" && find . -exec touch -h -d @0 {} + && find . | LC_ALL=C sort |
		cpio -o -H newc -R 0:0 --reproducible --quiet) >"$out/initramfs.cpio"
	rm -rf "$root"
}

# lx-ps, lx-dmesg and the like, where vmlinux-gdb.py looks for them. What they know of the configuration is generated in
# the way of the kernel's own build, which takes them for a module without objects.
build_gdb_scripts() {
	local from=$kept/linux/scripts/gdb to=$out/scripts/gdb/linux

	rm -rf "$out/scripts"
	mkdir -p "$to"
	cp "$from/vmlinux-gdb.py" "$out/"
	cp "$from"/linux/{Makefile,constants.py.in} "$to/"
	make -s -C "$kept/linux" M="$to" ARCH=x86_64 >&2
	find "$to" ! -name constants.py -type f -delete
	cp "$from"/linux/*.py "$to/"
}

kept=$("$here/kernel.sh")
for file in vmlinux bzImage.gzip bzImage.xz bzImage.zstd bzImage.lz4; do
	ln -f "$kept/$file" "$out/$file" 2>/dev/null || cp "$kept/$file" "$out/$file"
done
ln -sf bzImage.gzip "$out/bzImage"
rm -f "$out"/*.ko
cp "$kept"/*.ko "$out/"
build_modules
build_initramfs
build_gdb_scripts
