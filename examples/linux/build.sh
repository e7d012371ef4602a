#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   examples/linux/build.sh OUT_DIR
#
# Build the guest of this example: the kernel (kernel.sh), our modules, and an initial RAM disk with
# busybox. Leaves in OUT_DIR:
#
#   vmlinux                              the kernel as ELF file with symbols and line numbers
#   bzImage, bzImage.{gzip,xz,zstd,lz4}  the same kernel packed in each way; bzImage is the first
#   initramfs.cpio                       examples/linux/guest/ and the modules
#   *.ko                                 the modules with line numbers
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

(($# == 1)) || {
	echo "usage: build.sh OUT_DIR" >&2
	exit 1
}
mkdir -p "$1"
out=$(cd "$1" && pwd)

# busybox, our programs and the modules, without what only a debugger reads.
build_initramfs() {
	local root=$out/initramfs ko

	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt,lib/modules}
	cp "$(command -v busybox)" "$root/bin/busybox"
	# Links made here: busybox --install would be hundreds of system calls in the guest.
	"$root/bin/busybox" --list | sed 's/^busybox$//' | while read -r name; do
		[ -z "$name" ] || ln -sf busybox "$root/bin/$name"
	done
	gcc -O2 -Wall -Wextra -Werror -static -s -o "$root/bin/exit-machine" "$here/guest/exit-machine.c"
	cp "$here/guest/init" "$root/init"
	cp "$here/guest/dhcp-event" "$root/bin/"
	for ko in "$out"/*.ko; do
		objcopy --strip-debug "$ko" "$root/lib/modules/$(basename "$ko")"
	done
	(cd "$root" && find . -exec touch -h -d @0 {} + && find . | LC_ALL=C sort |
		cpio -o -H newc -R 0:0 --reproducible --quiet) >"$out/initramfs.cpio"
	rm -rf "$root"
}

kept=$("$here/kernel.sh")
for file in vmlinux bzImage.gzip bzImage.xz bzImage.zstd bzImage.lz4; do
	ln -f "$kept/$file" "$out/$file" 2>/dev/null || cp "$kept/$file" "$out/$file"
done
ln -sf bzImage.gzip "$out/bzImage"
cp "$kept"/*.ko "$out/"
build_initramfs
