#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What goes wrong around a recording must not cost the recording: the recorder killed at any moment, the disk
# full, Ctrl-C; and files that are no traces or kernels get one sentence and the documented status.
#
#   tests/robustness.sh [-n KILLS] [-m LATEST] [-d DAMAGES]
#
#   -n  recordings to kill (50)
#   -m  latest moment of killing, in ms (800); the earliest is 50
#   -d  snapshot files to damage (400)
#
# HINDSIGHT and BUILD name the program and the directory of build products.
# shellcheck disable=SC2317 # functions are called by others
set -uo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

kills=50
index_kills=10
import_kills=40
damages=400
latest=800
earliest=50
failed_status=125
interrupted_status=130
limit=120 # seconds for any one command

while getopts n:m:d: option; do
	case $option in
	n) kills=$OPTARG ;;
	m) latest=$OPTARG ;;
	d) damages=$OPTARG ;;
	*) die "usage: tests/robustness.sh [-n KILLS] [-m LATEST] [-d DAMAGES]" ;;
	esac
done
require_kvm
cd "$repo" || exit 1
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make first"

tmp=$(mktemp -d)
evidence=$tmp/err
mounted=
cleanup() {
	[[ -z $mounted ]] || umount "$mounted"
	rm -rf "$tmp"
}
trap cleanup EXIT

# Never ends by itself in the time of a test; interrupts come and go all the while.
guest=$BUILD/guests/tasks.elf
endless="ms=1000000 ticks=1000000"
short=$BUILD/guests/stale_pointer.elf

# Run hindsight; status, $tmp/out and $tmp/err are what came of it.
hindsight() {
	timeout "$limit" "$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
}

tell() { sed 's/^/    /' "$tmp/err"; }

sleep_ms() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }

# --- killed at any moment ---------------------------------------------------------------------

# One line: how the trace of a killed recorder verifies.
kill_one() {
	local n=$1 trace=$tmp/kill$1.trace err=$tmp/kill$1.err pid ms verdict status

	ms=$((earliest + (n * 7919 + RANDOM) % (latest - earliest + 1)))
	"$HINDSIGHT" record -o "$trace" --seed "$n" --quantum 2 --append "$endless" --kernel "$guest" \
		>/dev/null 2>&1 &
	pid=$!
	sleep_ms "$ms"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	timeout "$limit" "$HINDSIGHT" verify "$trace" >/dev/null 2>"$err"
	status=$?
	if [[ ! -e $trace ]]; then
		verdict=early
	elif [[ $status == 0 ]] && grep -q 'the recorder was cut off' "$err"; then
		verdict=whole
	elif [[ $status == "$failed_status" ]] && grep -Eq 'nothing to replay|shorter than a trace' "$err"; then
		verdict=early
	else
		verdict="bad: killed after $ms ms, verify gives $status: $(tail -n 1 "$err")"
	fi
	echo "$verdict"
	# Evidence stays.
	if [[ $verdict == bad* ]]; then
		mkdir -p "$BUILD/robustness-failed"
		mv "$trace" "$BUILD/robustness-failed/"
	fi
	rm -f "$trace"
}

kill_lane() {
	local n

	for ((n = $1; n <= kills; n += lanes)); do
		kill_one "$n"
	done >"$tmp/lane$1"
}

killed_recorders() {
	local lane pids=() whole early

	lanes=$(cpu_count)
	for ((lane = 1; lane <= lanes; lane++)); do
		kill_lane "$lane" 2>/dev/null &
		pids+=($!)
	done
	wait "${pids[@]}"
	cat "$tmp"/lane* >"$tmp/kills"
	whole=$(grep -c '^whole' "$tmp/kills")
	early=$(grep -c '^early' "$tmp/kills")
	grep '^bad' "$tmp/kills" | while read -r line; do echo "FAIL $line"; done
	check_pass "$whole"
	failed=$((failed + $(grep -c '^bad' "$tmp/kills")))
	echo "ok $whole of $kills killed recordings replay up to where they were cut, $early had not begun"
	check "most recordings had begun when they were killed" test "$whole" -ge $((kills / 2))
}

# --- full disk --------------------------------------------------------------------------------

# A limit on file sizes holds for the guest's RAM as well, so the trace must be larger: a kernel with this much
# behind it.
padding_mib=9
ram_mib=8

# What a recording without events takes, and a little: the disk is full soon after the guest has begun.
small_disk_kib() {
	hindsight record -o "$tmp/head.trace" --mem $ram_mib --max-seconds 0.001 --append "$endless" \
		--kernel "$1"
	echo $(($(wc -c <"$tmp/head.trace") / 1024 + 4))
	rm -f "$tmp/head.trace"
}

# check_cut_short NAME TRACE: the recording just made failed for lack of room.
check_cut_short() {
	local name=$1 trace=$2

	check "$name: status $failed_status" is_status "$failed_status"
	check "$name: says what happened" said 'cannot write the trace (it stays usable up to here'
	hindsight verify "$trace"
	check "$name: what was written verifies" is_status 0
	check "$name: verify says that it was cut off" said 'the recorder was cut off'
	is_status 0 || tell
}

# limited KIB ARGUMENT...: run hindsight unable to write files larger than that. SIGXFSZ ignored, a write
# beyond the limit fails with EFBIG.
limited() {
	local kib=$1

	shift
	(
		trap '' XFSZ
		set +o posix # in POSIX mode bash counts in half KiB
		ulimit -f "$kib"
		exec timeout "$limit" "$HINDSIGHT" "$@" >/dev/null
	) 2>"$tmp/err"
	status=$?
}

full_disk() {
	local big=$tmp/padded.elf

	{
		cat "$guest"
		head -c $((padding_mib << 20)) /dev/urandom
	} >"$big"
	limited "$(small_disk_kib "$big")" record -o "$tmp/limited.trace" --mem $ram_mib --quantum 0.5 \
		--max-seconds 60 --append "$endless" --kernel "$big"
	check_cut_short "file size limit" "$tmp/limited.trace"

	limited $((ram_mib << 10)) record -o "$tmp/tiny.trace" --mem $ram_mib --kernel "$big"
	check "no room for the head: status $failed_status" is_status "$failed_status"
	check "no room for the head: says so" said 'cannot write the trace'
	hindsight verify "$tmp/tiny.trace"
	check "no room for the head: nothing to replay" said 'nothing to replay'
	rm -f "$tmp/limited.trace" "$tmp/tiny.trace" "$big"

	(
		ulimit -v $((200 << 10))
		exec timeout "$limit" "$HINDSIGHT" run --mem 4096 --kernel "$guest" >/dev/null
	) 2>"$tmp/err"
	status=$?
	check "no room for guest RAM: status $failed_status" is_status "$failed_status"
	check "no room for guest RAM: says so" said 'guest RAM'

	hindsight record -o /dev/full --kernel "$guest"
	check "/dev/full: status $failed_status" is_status "$failed_status"
	check "/dev/full: make room" said 'make room'

	mkdir "$tmp/disk"
	if mount -t tmpfs -o size="$(small_disk_kib "$guest")k" tmpfs "$tmp/disk" 2>/dev/null; then
		mounted=$tmp/disk
		hindsight record -o "$tmp/disk/t.trace" --quantum 0.5 --max-seconds 60 --append "$endless" \
			--kernel "$guest"
		check "full disk: make room" said 'make room on the disk'
		check_cut_short "full disk" "$tmp/disk/t.trace"
		umount "$tmp/disk"
		mounted=
		index_on_full_disk
	else
		echo "(no full disk: tmpfs cannot be mounted here)"
	fi
}

# There is room for the trace, but not for a second one with an index.
index_on_full_disk() {
	hindsight record -o "$tmp/short.trace" --max-seconds 2 --append "$endless" --kernel "$guest"
	mount -t tmpfs -o size="$((($(stat -c %s "$tmp/short.trace") >> 10) + 24))k" tmpfs "$tmp/disk" || return
	mounted=$tmp/disk
	cp "$tmp/short.trace" "$tmp/disk/t.trace"
	hindsight index --every 0.1 "$tmp/disk/t.trace"
	check "index on a full disk: status $failed_status" is_status "$failed_status"
	check "index on a full disk: says that the trace is as it was" said 't\.trace is as it was'
	check "index on a full disk: it is" cmp -s "$tmp/short.trace" "$tmp/disk/t.trace"
	check "index on a full disk: nothing else is left" test "$(ls "$tmp/disk")" = t.trace
	umount "$tmp/disk"
	mounted=
}

# Whenever the indexer is killed, the trace is the old one or a new one, whole in either case.
killed_indexers() {
	local n pid old=0 new=0

	hindsight record -o "$tmp/short.trace" --max-seconds 2 --append "$endless" --kernel "$guest"
	for ((n = 0; n < index_kills; n++)); do
		cp "$tmp/short.trace" "$tmp/killed.trace"
		"$HINDSIGHT" index --every 0.1 "$tmp/killed.trace" >/dev/null 2>&1 &
		pid=$!
		sleep_ms $((n * 4000 / index_kills))
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
		if cmp -s "$tmp/short.trace" "$tmp/killed.trace"; then
			old=$((old + 1))
		elif hindsight info "$tmp/killed.trace" && is_status 0 && grep -q '^index ' "$tmp/out"; then
			new=$((new + 1))
		fi
		rm -f "$tmp"/killed.trace*
	done
	check "$index_kills killed indexers leave the old trace ($old) or the new one ($new)" \
		test $((old + new)) = "$index_kills"
}

# --- snapshot files ---------------------------------------------------------------------------

# Two files to put together, small ones, and what comes of it.
snapshot_files() {
	hindsight record -o "$tmp/snap.trace" --mem 8 --append ticks=100 --kernel "$short"
	hindsight snapshot take -o "$tmp/chain" "$tmp/snap.trace" 500 1000 1500 2000 2500 3000
	check "snapshots to be damaged" is_status 0
	"$HINDSIGHT" snapshot export --chain -o "$tmp/begin" "$tmp/chain@2" 2>/dev/null
	"$HINDSIGHT" snapshot export --since 2 -o "$tmp/rest" "$tmp/chain" 2>/dev/null
}

# Whenever an import is killed, the file is the old one or the new one.
killed_imports() {
	local n pid old=0 new=0

	for ((n = 0; n < import_kills; n++)); do
		cp "$tmp/begin" "$tmp/into"
		"$HINDSIGHT" snapshot import "$tmp/into" "$tmp/rest" >/dev/null 2>&1 &
		pid=$!
		sleep "0.$(printf %04d $((n * 100 / import_kills)))"
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
		if cmp -s "$tmp/into" "$tmp/begin"; then
			old=$((old + 1))
		elif cmp -s "$tmp/into" "$tmp/chain"; then
			new=$((new + 1))
		fi
		rm -f "$tmp"/into*
	done
	check "$import_kills killed imports leave the old file ($old) or the new one ($new)" test $((old + new)) = "$import_kills"
}

snapshots_on_full_disk() {
	mount -t tmpfs -o size="$((($(stat -c %s "$tmp/begin") >> 10) + 8))k" tmpfs "$tmp/disk" 2>/dev/null || return
	mounted=$tmp/disk
	cp "$tmp/begin" "$tmp/disk/file"
	hindsight snapshot import "$tmp/disk/file" "$tmp/rest"
	check "import on a full disk: status $failed_status" is_status "$failed_status"
	check "import on a full disk: make room" said 'make room on the disk'
	check "import on a full disk: the file is as it was" cmp -s "$tmp/disk/file" "$tmp/begin"
	hindsight snapshot export -o "$tmp/disk/file" "$tmp/chain"
	check "export on a full disk: status $failed_status" is_status "$failed_status"
	check "export on a full disk: the file is as it was" cmp -s "$tmp/disk/file" "$tmp/begin"
	hindsight snapshot take -o "$tmp/disk/file" "$tmp/snap.trace" 500
	check "take on a full disk: the file is as it was" cmp -s "$tmp/disk/file" "$tmp/begin"
	check "on a full disk: nothing else is left" test "$(ls "$tmp/disk")" = file
	umount "$tmp/disk"
	mounted=
}

# A bit of each of many copies is turned, or the copy is cut short.
damaged_snapshots() {
	local n size at bit byte pages=0 bad=0

	size=$(stat -c %s "$tmp/chain")
	for ((n = 0; n < damages; n++)); do
		at=$(((RANDOM << 15 | RANDOM) % size))
		if ((n % 4 == 0)); then
			head -c "$at" "$tmp/chain" >"$tmp/damaged"
		else
			bit=$((1 << RANDOM % 8))
			byte=$(od -An -tu1 -j "$at" -N 1 "$tmp/chain")
			cp "$tmp/chain" "$tmp/damaged"
			# shellcheck disable=SC2059 # the format is the byte
			printf "$(printf '\\%03o' $((byte ^ bit)))" |
				dd of="$tmp/damaged" bs=1 seek="$at" conv=notrunc status=none
		fi
		hindsight snapshot export -o "$tmp/exported" "$tmp/damaged"
		if is_status "$failed_status" && [[ $(wc -l <"$tmp/err") == 1 && ! -e $tmp/exported ]] &&
			grep -Eq 'at byte |ends (inside|before)|shorter than|no(t a)? hindsight|cut off|header of' "$tmp/err"; then
			! said 'page 0x' || pages=$((pages + 1))
		else
			bad=$((bad + 1))
			echo "byte $at of $size, status $status: $(cat "$tmp/err")"
		fi
	done
	check "$damages damaged snapshot files are refused with a place, $pages of them a page" test $bad = 0
	check "damaged pages are named" test $pages -gt 0
}

# --- what is no trace, no kernel, not allowed -------------------------------------------------

# refuse NAME ARGUMENT...: status 125 and one sentence on stderr.
refuse() {
	local name=$1 lines

	shift
	hindsight "$@"
	lines=$(wc -l <"$tmp/err")
	# The commands that replay several times say so before each.
	[[ $1 != *-write ]] || lines=$(grep -vc ' \.\.\.$' "$tmp/err")
	if is_status "$failed_status" && [[ $lines == 1 ]] &&
		! grep -qv '^hindsight: ..........' "$tmp/err"; then
		ok "$name"
	else
		check_fail "$name: status $status"
		tell
	fi
}

# refuse_trace NAME FILE: by every command that reads traces.
refuse_trace() {
	refuse "$1: verify" verify "$2"
	refuse "$1: replay" replay "$2"
	refuse "$1: info" info "$2"
	refuse "$1: info --json" info --json "$2"
	refuse "$1: last-write" last-write "$2" 0x1000
}

# The version in the header counted up, and its checksum (XXH64 of 24 bytes) made right.
patch_version() {
	python3 - "$1" "$2" <<-'END'
		import struct, sys
		P1, P2, P3, P4, P5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
		                      0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
		M = 2**64 - 1
		rol = lambda x, n: (x << n | x >> 64 - n) & M
		def xxh64(data):
		    h = (P5 + len(data)) & M
		    for (k,) in struct.iter_unpack("<Q", data):
		        k = rol(k * P2 & M, 31) * P1 & M
		        h = (rol(h ^ k, 27) * P1 + P4) & M
		    h = (h ^ h >> 33) * P2 & M
		    h = (h ^ h >> 29) * P3 & M
		    return h ^ h >> 32
		data = bytearray(open(sys.argv[1], "rb").read())
		assert struct.unpack_from("<Q", data, 24)[0] == xxh64(bytes(data[:24]))
		data[16] += 1
		struct.pack_into("<Q", data, 24, xxh64(bytes(data[:24])))
		open(sys.argv[2], "wb").write(data)
	END
}

bad_files() {
	local good=$tmp/good.trace size

	hindsight record -o "$good" --append ticks=5 --kernel "$short"
	# Its bug may strike: then the guest ends with status 1.
	check "a recording to be damaged" test "$status" -le 1
	size=$(wc -c <"$good")

	refuse_trace "missing file" "$tmp/nowhere/x.trace"
	refuse_trace "directory" "$tmp"
	: >"$tmp/empty.trace"
	refuse_trace "empty file" "$tmp/empty.trace"
	refuse_trace "/dev/null" /dev/null
	refuse_trace "a kernel instead" "$short"
	head -c 20000 /dev/urandom >"$tmp/garbage"
	refuse_trace "garbage" "$tmp/garbage"
	head -c 31 "$good" >"$tmp/cut.trace"
	refuse_trace "half a header" "$tmp/cut.trace"
	head -c 200 "$good" >"$tmp/cut.trace"
	refuse_trace "cut in the guest's kernel" "$tmp/cut.trace"
	{
		head -c $((size / 2)) "$good"
		printf X
		tail -c +$((size / 2 + 2)) "$good"
	} >"$tmp/damaged.trace"
	refuse_trace "one byte damaged" "$tmp/damaged.trace"
	{
		cat "$good"
		echo more
	} >"$tmp/longer.trace"
	refuse "something behind the end: info" info "$tmp/longer.trace"
	refuse "something behind the end: verify" verify "$tmp/longer.trace"
	if command -v python3 >/dev/null && patch_version "$good" "$tmp/version.trace"; then
		refuse_trace "another version" "$tmp/version.trace"
		check "another version is named" said "trace format $(($(od -An -tu4 -j16 -N4 "$good") + 1)),"
	else
		echo "(no trace of another version: there is no python3)"
	fi

	refuse "no such kernel" record -o "$tmp/t" --kernel "$tmp/nowhere/vmlinux"
	refuse "a directory as kernel" record -o "$tmp/t" --kernel "$tmp"
	refuse "an empty kernel" run --kernel "$tmp/empty.trace"
	refuse "/dev/null as kernel" run --kernel /dev/null
	refuse "garbage as kernel" run --kernel "$tmp/garbage"
	head -c 3000 "$short" >"$tmp/short.elf"
	refuse "half a kernel" run --kernel "$tmp/short.elf"
	refuse "a trace as kernel" run --kernel "$good"
	refuse "no such initrd" run --initrd "$tmp/nowhere/initrd" --kernel "$short"
	refuse "no such input" run --input "$tmp/nowhere/input" --kernel "$short"
	refuse "a trace in no directory" record -o "$tmp/nowhere/t" --kernel "$short"
	refuse "a directory as trace" record -o "$tmp" --kernel "$short"
}

# What root may do anyway must be tried as somebody else.
permissions() {
	local as=()

	if [[ $(id -u) == 0 ]]; then
		# By its path: busybox's timeout would take busybox's own, which has less.
		as=("$(command -v setpriv || echo none)" --reuid=65534 --regid=65534 --clear-groups)
		"${as[@]}" true 2>/dev/null || {
			echo "(no permissions: there is no setpriv to give them up)"
			return
		}
		cp "$HINDSIGHT" "$tmp/hindsight"
		chmod 755 "$tmp" "$tmp/hindsight"
		cp "$short" "$tmp/guest.elf"
		chmod 644 "$tmp/guest.elf"
	fi
	local HINDSIGHT=$HINDSIGHT
	[[ ${#as[@]} == 0 ]] || HINDSIGHT=$tmp/hindsight
	cp "$tmp/good.trace" "$tmp/secret.trace"
	chmod 000 "$tmp/secret.trace"
	hindsight() {
		timeout "$limit" "${as[@]}" "$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err"
		status=$?
	}
	refuse "a trace that may not be read" verify "$tmp/secret.trace"
	check "a trace that may not be read: says so" said 'Permission denied'
	if [[ ${#as[@]} != 0 && ! $("${as[@]}" head -c 0 /dev/kvm 2>&1) ]]; then
		echo "(everybody may use /dev/kvm here)"
	elif [[ ${#as[@]} != 0 ]]; then
		refuse "no access to KVM" run --kernel "$tmp/guest.elf"
		check "no access to KVM: names it" said '/dev/kvm'
	fi
	chmod 600 "$tmp/secret.trace"
}

# --- Ctrl-C -----------------------------------------------------------------------------------

# interrupt MS SIGNAL ARGUMENT...: run hindsight and send it the signal.
interrupt() {
	local ms=$1 signal=$2 pid

	shift 2
	"$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err" &
	pid=$!
	sleep_ms "$ms"
	kill "-$signal" "$pid"
	wait "$pid"
	status=$?
}

ctrl_c() {
	local trace=$tmp/interrupted.trace signal

	for signal in INT TERM; do
		interrupt 2500 $signal record -o "$trace" --append "$endless" --kernel "$guest"
		check "SIG$signal during record: status $interrupted_status" is_status "$interrupted_status"
		check "SIG$signal during record: says so" said 'interrupted at boundary'
		hindsight verify "$trace"
		check "SIG$signal during record: the trace verifies" is_status 0
		check "SIG$signal during record: to its end" said 'verified: interrupted'
		is_status 0 || tell
	done
	interrupt 700 INT verify "$trace"
	check "SIGINT during verify: status $interrupted_status" is_status "$interrupted_status"
	check "SIGINT during verify: says where" said 'interrupted at position [0-9]'
	interrupt 700 INT replay "$trace"
	check "SIGINT during replay: status $interrupted_status" is_status "$interrupted_status"
	interrupt 700 INT index "$trace"
	check "SIGINT during index: status $interrupted_status" is_status "$interrupted_status"
	check "SIGINT during index: says so" said 'interrupted'
	interrupt 700 INT run --append "$endless" --kernel "$guest"
	check "SIGINT during run: status $interrupted_status" is_status "$interrupted_status"
}

bad_files
permissions
full_disk
ctrl_c
killed_recorders
killed_indexers 2>/dev/null
snapshot_files
killed_imports 2>/dev/null
snapshots_on_full_disk
damaged_snapshots
finish
