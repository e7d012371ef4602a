#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run a command on a second kind of KVM host: kvm_amd with nested paging, in a Debian kernel that
# QEMU emulates (TCG, no /dev/kvm needed on the outside).
#
#   scripts/npt-host.sh [-t SECONDS] [-o OUTDIR] [-m MIB] [-c CPUS] [-e NAME=VALUE]... [-f PATH]...
#                       -- COMMAND [ARG]...
#
#   -t  time limit of the command (300), by the machine's clock, which is slower than ours, and by ours with two
#       minutes more for boot and the way back out
#   -o  where results go (build/npt/last), see below
#   -m  RAM of the machine in MiB; without it 2048, or more if the files ask for it
#   -c  CPUs of the machine (1; with 2, QEMU at times runs a breakpoint that the kernel has patched away)
#   -e  set an environment variable for the command; NPT_HOST=1 is always set
#   -f  file or directory the command needs. A path from the repository's root is at the same place
#       below the command's working directory; an absolute path (say /usr/bin/gdb) stays where it is.
#       Symbolic links are followed; shared libraries of programs come along by themselves.
#
# COMMAND runs in a copy of the named files, on a RAM disk, as root; if it is a file of the repository
# it need not be named with -f too. There are busybox's tools, bash, /tmp, /dev/shm, /proc and /sys.
# What it prints is shown on stderr as it comes. OUTDIR gets:
#
#   log          what the command printed, stdout and stderr in one
#   out/         what the command left in ./out/
#   status       its exit status; written only if all of the above is complete
#   dmesg, console.log, qemu.log    what the kernel and QEMU said
#
# Exit status: the command's; 124 if the time limit was hit; 125 if the machine did not come up, died,
# or has no /dev/kvm with nested paging.
set -euo pipefail

say() { printf 'npt-host: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 125
}
# The same with the last words of kernel and QEMU.
die_with_machine() {
	tail -n 30 "$outdir/console.log" "$outdir/qemu.log" >&2 || true
	die "$*; what its kernel and QEMU said last is above"
}
usage() {
	sed -n '/^# *scripts\/npt-host/,/^set -/{/^#/{s/^# \{0,1\}//;p;}}' "$0" >&2
	exit 125
}

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

limit=300
grace=120
boot_limit=60
outdir=build/npt/last
mib=
cpus=1
env_lines=('export NPT_HOST=1')
paths=()
while getopts t:o:m:c:e:f: option; do
	case $option in
	t) limit=$OPTARG ;;
	o) outdir=$OPTARG ;;
	m) mib=$OPTARG ;;
	c) cpus=$OPTARG ;;
	e)
		[[ $OPTARG =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || die "-e takes NAME=VALUE, not '$OPTARG'"
		env_lines+=("export ${OPTARG%%=*}=$(printf %q "${OPTARG#*=}")")
		;;
	f) paths+=("$OPTARG") ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
(($# > 0)) || usage
[[ $limit =~ ^[1-9][0-9]*$ ]] || die "-t takes a number of seconds, not '$limit'"
[[ $mib =~ ^([1-9][0-9]*)?$ ]] || die "-m takes a number of MiB, not '$mib'"
[[ $cpus =~ ^[1-9][0-9]*$ ]] || die "-c takes a number of CPUs, not '$cpus'"
if [[ -f $1 && $1 != /* ]]; then
	paths+=("$1")
fi

scripts/deps.sh npt

cache=build/npt
mkdir -p "$cache" "$outdir"
rm -rf "$outdir"/{log,console.log,qemu.log,dmesg,status,out}
work=$(mktemp -d "$cache/run.XXXXXX")
qemu_pid=
# The machine must not outlive the harness, however that ends.
# shellcheck disable=SC2317  # it is called by the trap
cleanup() {
	if [[ -n $qemu_pid ]]; then
		kill "$qemu_pid" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- The kernel: from Debian's package, unpacked and never installed --------------------------------

modules=(virtio_pci virtio_console kvm-amd)

# linux-image-amd64 is empty and depends on the package of the day.
kernel_package() {
	apt-cache depends linux-image-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# Leaves boot/vmlinuz and the few modules with their closure in $1, which appears whole or not at all:
# two harnesses may get here at once.
fetch_kernel() {
	local dest=$1 package=$2 tmp=$work/kernel version deb

	mkdir -p "$tmp/deb" "$tmp/tree" "$tmp/slim/lib/modules"
	say "fetching $package"
	(cd "$tmp/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package") >&2 || return 1
	deb=$(echo "$tmp"/deb/*.deb)
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tmp/tree" ./boot ./lib/modules
	version=$(basename "$tmp"/tree/lib/modules/*)
	# The package has no modules.dep; it is made when the package is configured.
	depmod -b "$tmp/tree" "$version"
	modprobe -d "$tmp/tree" -S "$version" -a -D "${modules[@]}" >"$tmp/closure"
	mkdir -p "$tmp/slim/lib/modules/$version"
	sed -n 's/^insmod \([^ ]*\).*/\1/p' "$tmp/closure" | sort -u |
		xargs cp -t "$tmp/slim/lib/modules/$version"
	cp "$tmp/tree/lib/modules/$version"/modules.{order,builtin*} "$tmp/slim/lib/modules/$version"
	depmod -b "$tmp/slim" "$version"
	cp "$tmp/tree/boot/vmlinuz-$version" "$tmp/slim/vmlinuz"
	mv -T "$tmp/slim" "$dest" 2>/dev/null || [[ -d $dest ]] || return 1
	rm -rf "$tmp"
}

package=$(kernel_package)
if [[ -z $package ]]; then
	# Offline, or lists never fetched: a kernel from an earlier run is as good.
	package=$(find "$cache" -maxdepth 1 -name 'linux-image-*' -printf '%f\n' | sort -V | tail -n 1)
fi
if [[ -z $package || ! -d $cache/$package ]]; then
	# Lists may be missing or point at a file that the mirror has replaced.
	if [[ -z $package ]] || ! fetch_kernel "$cache/$package" "$package"; then
		if ((EUID == 0)); then
			apt-get -qq update >&2 || true
		else
			sudo apt-get -qq update >&2 || true
		fi
		package=$(kernel_package)
		[[ -n $package ]] || die "apt knows no linux-image-amd64: is this Debian, and amd64?"
		fetch_kernel "$cache/$package" "$package" ||
			die "could not get $package from the Debian mirror"
	fi
fi
kernel=$cache/$package

# --- The initramfs ---------------------------------------------------------------------------------

stage=$work/initramfs
# One directory for programs and one for libraries, whichever of the historic names is used.
mkdir -p "$stage"/usr/{bin,lib,lib64} "$stage"/{repo,npt,etc}
ln -s bin "$stage/usr/sbin"
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$stage"
cp -r "$kernel/lib/modules" "$stage/lib/"
cp "$(command -v busybox)" "$(command -v bash)" "$stage/bin/"
cp scripts/npt-init.sh "$stage/init"
chmod +x "$stage/init"
echo 'root:x:0:0:root:/root:/bin/sh' >"$stage/etc/passwd"
echo 'root:x:0:' >"$stage/etc/group"

for path in "${paths[@]}"; do
	[[ -e $path ]] || die "there is no file or directory '$path'"
	case $path in
	/*) from=/ to=$stage path=${path#/} ;;
	.. | ../* | */..*) die "'$path' leads out of the repository: give an absolute path" ;;
	*) from=. to=$stage/repo ;;
	esac
	tar -C "$from" -c -h --hard-dereference --exclude="$cache" -f - -- "$path" |
		tar -x -C "$to" --keep-directory-symlink -f - ||
		die "could not copy '$path'"
done

# Programs name their libraries only to the dynamic loader; ask it. It refuses static programs and
# guest kernels, which is an answer too.
programs=()
while IFS= read -r -d '' file; do
	magic=
	LC_ALL=C IFS= read -r -N 4 magic <"$file" || true
	if [[ $magic == $'\x7fELF' ]]; then
		programs+=("$file")
	fi
done < <(find "$stage/repo" "$stage/usr" -name modules -prune -o -type f -perm -u+x -size +0 -print0)
{ ldd "${programs[@]}" 2>/dev/null || true; } >"$work/libraries"
if grep -F 'not found' "$work/libraries" >&2; then
	die "a shared library of the files to run is missing here"
fi
while IFS= read -r library; do
	if [[ ! -e $stage$library ]]; then
		mkdir -p "$stage${library%/*}"
		cp -L "$library" "$stage$library"
	fi
done < <(sed -n 's/^\t\(.* => \)\{0,1\}\(\/[^ ]*\) (0x.*/\2/p' "$work/libraries" | sort -u)

{
	printf '%s\n' "${env_lines[@]}"
	printf '%q ' "$@"
	echo
} >"$stage/npt/command"
echo "$limit $(date +%s)" >"$stage/npt/config"
(cd "$stage" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$work/initrd"
if [[ -z $mib ]]; then
	# In memory at once while booting: the archive and what was unpacked from it.
	mib=$((3 * $(stat -c %s "$work/initrd") / 1048576 + 1024))
	mib=$((mib > 2048 ? mib : 2048))
fi

# --- The machine -----------------------------------------------------------------------------------

# q35 has an HPET and a PM timer. On microvm, which boots half a second faster, the kernel can only
# measure the TSC against the PIT, fails at that as soon as the CPUs here are busy, and then hangs.
# tsc=reliable, because it would drop the TSC anyway and take a clock that costs an exit to QEMU.
# Time goes by instructions, 4 ns each (-icount), and a sleeping machine skips to its next timer. Else QEMU's
# timers run in a thread of their own: on a busy machine an interrupt comes milliseconds of guest
# progress late, which no host does whose timers interrupt the CPU they are meant for.
# An oops ends the machine, so that a broken kernel is never taken for a passing test.
append="console=ttyS0 quiet panic=-1 oops=panic tsc=reliable mitigations=off nokaslr"
append+=" random.trust_cpu=on audit=0 reboot=triple"
qemu=(
	qemu-system-x86_64 -nodefaults -no-user-config -nographic -no-reboot
	-M q35 -smp "$cpus" -m "$mib"
	-accel "tcg,thread=single,tb-size=512" -icount "shift=2,sleep=off" -cpu "max,svm=on,npt=on"
	-kernel "$kernel/vmlinuz" -initrd "$work/initrd" -append "$append"
	-chardev "file,id=console,path=$outdir/console.log" -serial chardev:console
	-device virtio-serial-pci
	-chardev "file,id=log,path=$outdir/log" -device "virtserialport,chardev=log,name=log"
	-chardev "file,id=result,path=$work/result.tar"
	-device "virtserialport,chardev=result,name=result"
)
# Start the machine and wait until it says that it is up. 0 if it did.
boot() {
	local deadline=$((SECONDS + boot_limit))

	: >"$outdir/log"
	rm -f "$work/result.tar"
	timeout --kill-after=10 $((limit + grace)) "${qemu[@]}" </dev/null >"$outdir/qemu.log" 2>&1 &
	qemu_pid=$!
	while [[ ! -s $outdir/log ]]; do
		if ! kill -0 "$qemu_pid" 2>/dev/null || ((SECONDS >= deadline)); then
			kill "$qemu_pid" 2>/dev/null || true
			wait "$qemu_pid" || true
			return 1
		fi
		sleep 0.1
	done
}

# It is up in some three seconds. What goes wrong before that is QEMU's or the host's doing and says
# nothing about the command, so it may be tried again; from then on nothing is.
attempt=1
until boot; do
	((attempt < 3)) || die_with_machine "the machine did not come up in $attempt attempts"
	attempt=$((attempt + 1))
	say "the machine did not come up; attempt $attempt"
done
tail -n +1 -s 0.2 -f --pid="$qemu_pid" "$outdir/log" >&2 &
tail_pid=$!
qemu_status=0
wait "$qemu_pid" || qemu_status=$?
qemu_pid=
wait "$tail_pid" || true

# status is the archive's last member, so it is there only if everything before it is.
if [[ -s $work/result.tar ]]; then
	tar -x -C "$outdir" --no-same-owner -f "$work/result.tar" 2>"$work/tar.log" || rm -f "$outdir/status"
fi
if [[ ! -s $outdir/status ]]; then
	if ((qemu_status == 124)); then
		die_with_machine "the machine was still busy $grace s past the limit of $limit s"
	fi
	die_with_machine "the machine died before the results were out"
fi
exit "$(<"$outdir/status")"
