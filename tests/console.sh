#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# record --console in a terminal of script(1): what is typed reaches the guest and is in the recording, so is the
# window's size; the escape key ends the run and shows the position; and the terminal is afterwards as it was,
# whatever ended the program.
# shellcheck disable=SC2119,SC2317 # check_pass alone counts one; functions are called by name
set -uo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
require_kvm
# shellcheck disable=SC2154
cd "$repo" || exit 1
command -v script >/dev/null || {
	echo "SKIP console: no script(1)"
	exit 0
}

interrupted=130
tmp=$(mktemp -d)
evidence=$tmp/typescript
trap 'rm -rf "$tmp"' EXIT

# What runs in the terminal: the settings before and after, and the status.
cat >"$tmp/inside" <<END
stty rows 33 cols 101
stty -g >"$tmp/before"
bash -c 'echo \$\$ >"$tmp/pid"; exec "\$0" "\$@"' "$HINDSIGHT" record --console -o "$tmp/trace" --max-seconds 60 "\$@"
echo \$? >"$tmp/status"
stty -g >"$tmp/after"
END

# in_terminal TYPIST OPTION...: the function TYPIST writes what is typed.
in_terminal() {
	local typist=$1

	shift
	rm -f "$tmp"/{before,after,status,trace,pid}
	"$typist" | script -qec "bash $tmp/inside $*" "$tmp/typescript" >/dev/null 2>&1
	status=$(cat "$tmp/status" 2>/dev/null)
}

showed() { grep -qa -- "$1" "$tmp/typescript"; }
terminal_restored() { [[ -s $tmp/after ]] && cmp -s "$tmp/before" "$tmp/after"; }
verifies() { "$HINDSIGHT" verify "$tmp/trace" >"$tmp/typescript" 2>&1; }
recorded() { "$HINDSIGHT" info --events "$tmp/trace" | grep -- "$1" >/dev/null; }

# Until the recording has begun.
wait_for_guest() {
	for ((i = 0; i < 100; i++)); do
		[[ -s $tmp/trace ]] && break
		sleep 0.1
	done
	sleep 0.5
}

type_lines() {
	wait_for_guest
	printf 'hello\n'
	sleep 0.3
	printf 'quit\n'
	sleep 2
}
in_terminal type_lines --kernel "$BUILD/guests/serial_in.elf"
check "typed lines end the guest" is_status 0
check "the guest echoes what was typed" showed 'hello'
check "what was typed is recorded" recorded 'bytes to the serial line'
check "the recording verifies" verifies
check "the terminal is restored" terminal_restored

type_escapes() {
	wait_for_guest
	printf '\001c'
	sleep 0.5
	printf '\001h'
	sleep 0.5
	printf '\001x'
	sleep 2
}
in_terminal type_escapes --kernel "$BUILD/guests/serial_in.elf"
check "Ctrl-A x ends the run" is_status "$interrupted"
check "Ctrl-A c shows the position" showed 'hindsight: position [0-9]*, guest time'
check "Ctrl-A and another key helps" showed 'Ctrl-A x ends the run'
check "the recording that was ended verifies" verifies
check "the terminal is restored after Ctrl-A x" terminal_restored

# $1: a signal.
send() {
	wait_for_guest
	kill "-$1" "$(cat "$tmp/pid")"
	sleep 2
}
for signal in TERM HUP SEGV ABRT; do
	type_nothing() { send "$signal"; }
	in_terminal type_nothing --kernel "$BUILD/guests/serial_in.elf"
	check "the terminal is restored after SIG$signal" terminal_restored
	case $signal in
	TERM | HUP) check "SIG$signal ends the recording" is_status "$interrupted" ;;
	*) check "SIG$signal kills" is_status $((128 + $(kill -l "$signal"))) ;;
	esac
done

in_terminal type_lines --kernel "$BUILD/guests/none.elf"
check "the terminal is restored after an error" terminal_restored

in_terminal type_lines --kernel "$BUILD/guests/virtio.elf" --ports 2
check "the window's size is recorded" recorded "the window's size"

"$HINDSIGHT" record --console -o "$tmp/trace" --kernel "$BUILD/guests/serial_in.elf" </dev/null >"$tmp/typescript" 2>&1
status=$?
check "without a terminal it is refused" is_status 125
check "with a sentence" showed 'needs a terminal'
finish
