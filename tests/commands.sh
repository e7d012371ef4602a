#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every command as a user meets it: help, options, exit statuses, what goes to stdout and what to stderr.
# HINDSIGHT and BUILD name the program and the directory of build products.
# shellcheck disable=SC2317 # functions are called by others
set -uo pipefail

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

limit=120 # seconds for any one command
halted=121
triple_fault=122
time_limit=124
failed_status=125
not_found=1
seeds=20

require_kvm
cd "$repo" || exit 1
[[ -x $HINDSIGHT ]] || die "there is no $HINDSIGHT; run make first"

tmp=$(mktemp -d)
evidence=$tmp/err
trap 'rm -rf "$tmp"' EXIT
trace=$tmp/t.trace
guests=$BUILD/guests

# Run hindsight; status, $tmp/out and $tmp/err are what came of it.
hindsight() {
	timeout "$limit" "$HINDSIGHT" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
	status=$?
}

silent() { [[ ! -s $tmp/$1 ]]; }
one_sentence() { [[ $(wc -l <"$tmp/err") == 1 ]] && grep -q '^hindsight: ' "$tmp/err"; }

# expect NAME STATUS ARGUMENT...
expect() {
	local name=$1 want=$2

	shift 2
	hindsight "$@"
	check "$name: status $want" is_status "$want"
}

# refuse NAME TEXT ARGUMENT...: bad usage, explained by a sentence with the text.
refuse() {
	local name=$1 text=$2

	shift 2
	hindsight "$@"
	if is_status "$failed_status" && one_sentence && silent out && said "$text"; then
		ok "$name"
	else
		check_fail "$name: status $status"
		sed 's/^/    /' "$tmp/err"
	fi
}

# --- help and usage ---------------------------------------------------------------------------

# Names of the commands as the help lists them.
command_names() { "$HINDSIGHT" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'; }

help_texts() {
	local name option

	for option in --help -h help; do
		expect "hindsight $option" 0 $option
		check "hindsight $option: on stdout" printed '^usage: hindsight'
	done
	check "the help lists the commands" test "$(command_names | wc -l)" -ge 7
	for name in $(command_names); do
		for option in --help -h; do
			expect "$name $option" 0 "$name" $option
			check "$name $option: on stdout" printed "^usage: hindsight $name"
			check "$name $option: nothing on stderr" silent err
		done
	done
	expect "no command" $failed_status
	check "no command: usage on stderr" said '^usage: hindsight'
}

usage_errors() {
	local name

	refuse "an unknown command" 'not a command' frobnicate
	expect "doctor with an unknown option" $failed_status doctor --frobnicate
	for name in $(command_names | grep -v doctor); do
		refuse "$name with an unknown option" "not an option of $name" "$name" --frobnicate
	done
	refuse "run without a guest" 'give a guest' run
	refuse "record without a trace" 'give the trace' record --kernel "$guests/hello.elf"
	refuse "verify without a trace" 'give a trace' verify
	refuse "last-write without an address" 'give an address' last-write "$trace"
	refuse "one argument too many" 'too many' verify "$trace" "$trace"
	refuse "an option without its value" 'lacks its value' run --kernel
	refuse "too little memory" 'mem takes' run --mem 0 --kernel "$guests/hello.elf"
	refuse "memory that is no number" 'mem takes' run --mem lots --kernel "$guests/hello.elf"
	refuse "a negative seed" 'seed takes' run --seed -1 --kernel "$guests/hello.elf"
	refuse "a time rate of nan" 'time-rate takes' run --time-rate nan --kernel "$guests/hello.elf"
	refuse "no clock of that name" 'clock takes' verify --clock sundial "$trace"
	refuse "no position" 'not a position' replay --to here "$trace"
	refuse "half a position" 'not a position' replay --to 12+ "$trace"
	refuse "more than all" 'not a position' replay --to 101% "$trace"
	refuse "a time without a unit" 'not a position' replay --to 1.5 "$trace"
	refuse "a time before the start" 'not a position' replay --to -1s "$trace"
	refuse "no address" 'not an address' last-write "$trace" here
	refuse "an address of no length" 'not an address' last-write "$trace" 0x1000,0
	refuse "no regular expression" 'regular expression' run --until '(' --kernel "$guests/hello.elf"
}

# --- run, record, replay, verify --------------------------------------------------------------

recording() {
	expect "record" 0 record -o "$trace" --append "ticks=20 watchdog=0" --seed 5 --kernel "$guests/stale_pointer.elf"
	cp "$tmp/out" "$tmp/recorded"
	check "record: the console is on stdout" printed 'gateway up'
	check "record: only the console is on stdout" test "$(grep -c hindsight "$tmp/out")" = 0
	check "record: tells how it ended" said '^hindsight: recorded: the guest wrote its exit port (status 0)'
	expect "replay" 0 replay "$trace"
	check "replay: the same output, byte for byte" cmp -s "$tmp/out" "$tmp/recorded"
	check "replay: tells how it ended" said '^hindsight: replayed: the guest wrote its exit port'
	expect "verify" 0 verify "$trace"
	check "verify: 0 divergences" said '; 0 divergences$'
	check "verify: no output of the guest" silent out
	expect "verify by state" 0 verify --clock state "$trace"
	check "verify by state: 0 divergences" said '(clock state, .*; 0 divergences$'
	expect "info" 0 info "$trace"
	check "info: on stdout" printed '^events '
}

positions() {
	local boundaries boundary at

	boundaries=$("$HINDSIGHT" info --json "$trace" | json_value boundaries)
	expect "replay --to a boundary" 0 replay --to 100 "$trace"
	check "replay --to a boundary: stops there" said 'stopped at position 100+0'
	check "replay --to a boundary: registers" said '^rax  *[0-9a-f]\{16\}'
	cp "$tmp/err" "$tmp/first"
	hindsight replay --to 100 "$trace"
	check "replay --to twice is the same" cmp -s "$tmp/err" "$tmp/first"
	# Between some two boundaries there are so many instructions.
	for ((boundary = 100; boundary < 130; boundary++)); do
		hindsight replay --to "$boundary+5" "$trace"
		said "stopped at position $boundary+5" && break
	done
	check "replay --to an instruction: stops there" said "stopped at position $boundary+5"
	check "replay --to an instruction: status 0" is_status 0
	expect "replay --to a part" 0 replay --to 50% "$trace"
	check "replay --to a part: stops there" said "stopped at position $((boundaries / 2))+0"
	boundary=$((boundaries / 2))
	at=$("$HINDSIGHT" replay --to "$boundary" "$trace" 2>&1 >"$tmp/out" | sed -n 's/.*guest time \(.*\) s$/\1/p')
	hindsight replay --to "${at}s" "$trace"
	check "replay --to a time: not before it" said "stopped at position [0-9]*+0, guest time ${at%?}"
	expect "replay --to no time at all" 0 replay --to 0ms "$trace"
	check "replay --to no time at all: the start" said 'stopped at position 0+0'
	expect "last-write --before a time" 0 last-write --physical --before "${at}s" "$trace" 0x10bf60,64
	cp "$tmp/out" "$tmp/first"
	hindsight replay --to "${at}s" "$trace"
	boundary=$(sed -n 's/.*position \([0-9]*\)+0.*/\1/p' "$tmp/err")
	hindsight last-write --physical --before "$boundary" "$trace" 0x10bf60,64
	check "last-write --before a time: as before its position" cmp -s "$tmp/out" "$tmp/first"
	hindsight replay --to 100+100000000 "$trace"
	check "replay --to where nothing is: says so" said 'there is no position 100+100000000'
	expect "replay --to the end" 0 replay --to "$boundaries" "$trace"
	check "replay --to the end: the guest's own end" said 'replayed: the guest wrote its exit port'
	hindsight replay --to 50 "$trace"
	cp "$tmp/out" "$tmp/part"
	check "replay --to prints what came before" test \
		"$(head -c "$(wc -c <"$tmp/part")" "$tmp/recorded" | cmp - "$tmp/part" && echo same)" = same
}

# With checkpoints in it, a trace gives the same answers.
index() {
	local boundaries at every=0.05

	boundaries=$("$HINDSIGHT" info --json "$trace" | json_value boundaries)
	# Several, however long a replay takes here.
	[[ $(host_clocks) == state ]] && every=0.001
	expect "index" 0 index --every "$every" -o "$tmp/indexed.trace" "$trace"
	check "index: tells what it made" said '^hindsight: .*/indexed.trace: [1-9][0-9]* checkpoints'
	check "index: the trace itself stays" test "$(grep -c '^index' <("$HINDSIGHT" info "$trace"))" = 0
	expect "info of an index" 0 info "$tmp/indexed.trace"
	check "info of an index: names it" printed '^index  *[1-9]'
	for at in 0 1 $((boundaries / 2)) $((boundaries - 1)); do
		hindsight replay --to "$at" "$trace"
		cp "$tmp/out" "$tmp/plain.out"
		cp "$tmp/err" "$tmp/plain.err"
		expect "replay --to $at with an index" 0 replay --to "$at" "$tmp/indexed.trace"
		check "replay --to $at with an index: the same place" cmp -s "$tmp/err" "$tmp/plain.err"
		check "replay --to $at with an index: the same output" cmp -s "$tmp/out" "$tmp/plain.out"
	done
	at=$(sed -n 's/.*guest time \(.*\) s$/\1s/p' "$tmp/plain.err")
	hindsight replay --to "$at" "$trace"
	cp "$tmp/err" "$tmp/plain.err"
	hindsight replay --to "$at" "$tmp/indexed.trace"
	check "replay --to a time with an index: the same place" cmp -s "$tmp/err" "$tmp/plain.err"
	expect "verify of an indexed trace" 0 verify "$tmp/indexed.trace"
	expect "index in place" 0 index --every "$every" "$tmp/indexed.trace"
	expect "verify of a trace indexed twice" 0 verify "$tmp/indexed.trace"
	refuse "too little memory for checkpoints" 'snapshot-memory takes' replay --snapshot-memory 4K "$trace"
	refuse "no number of bytes" 'snapshot-memory takes' replay --snapshot-memory 1T "$trace"
	expect "replay --to in little memory" 0 replay --snapshot-memory 16M --to 1 "$tmp/indexed.trace"
	truncate -s -100 "$tmp/indexed.trace"
	refuse "info of a cut index" 'checkpoints are cut off' info "$tmp/indexed.trace"
	refuse "no time between checkpoints" 'every takes' index --every 0 "$trace"
}

# Live from a state in a recording, and what if something were otherwise there.
snapshots() {
	local rip n at pids=() state=$tmp/state.snapshot other=$tmp/other.snapshot branch=$tmp/branch.trace

	for n in take info export import diff run; do
		expect "snapshot $n --help" 0 snapshot "$n" --help
		check "snapshot $n --help: on stdout" printed "^usage: hindsight snapshot $n"
	done
	# A boundary with some instructions behind it.
	for ((at = 200; at < 240; at++)); do
		hindsight snapshot take -o "$state" "$trace" "$at+2"
		said "position $at+2," && break
	done
	check "snapshot take: status 0" is_status 0
	check "snapshot take: says where" said "position $at+2,"
	expect "snapshot info" 0 snapshot info "$state"
	check "snapshot info: the position" printed "^position  *$at+2\$"
	rip=0x$(sed -n 's/^rip *\([0-9a-f]*\).*/\1/p' "$tmp/out")
	hindsight replay --to "$at+2" "$trace"
	check "snapshot info: the registers" test "$(grep -c "^$(grep ^rip "$tmp/err")" <("$HINDSIGHT" snapshot info "$state"))" = 1
	expect "snapshot take elsewhere" 0 snapshot take -o "$other" "$trace" $((at + 60))
	expect "snapshot diff of the same" 0 snapshot diff "$state" "$state"
	expect "snapshot diff of others" 1 snapshot diff "$state" "$other"
	check "snapshot diff: pages" printed '^page 0x[0-9a-f]*: [0-9]* bytes differ'
	hindsight snapshot take -o "$other" "$trace" "$at"
	expect "snapshot diff two instructions apart" 1 snapshot diff "$state" "$other"
	check "snapshot diff: registers" printed '^register rip: '
	cp "$state" "$tmp/state.before"

	# Whether the guest panics depends on when it is interrupted.
	hindsight snapshot run "$state"
	check "snapshot run: goes on to the guest's end" said '^hindsight: run: the guest wrote its exit port'
	hindsight snapshot run --record "$branch" "$state"
	check "snapshot run --record: goes on to the guest's end" said '^hindsight: recorded: the guest wrote its exit port'
	n=$status
	cp "$tmp/out" "$tmp/branch.out"
	expect "replay of a branch" "$n" replay "$branch"
	check "replay of a branch: the same output" cmp -s "$tmp/out" "$tmp/branch.out"
	for n in auto state; do
		expect "verify of a branch, clock $n" 0 verify --clock "$n" "$branch"
		check "verify of a branch, clock $n: 0 divergences" said '; 0 divergences$'
	done
	expect "replay of a branch to a position" 0 replay --to $((at + 50)) "$branch"
	check "replay of a branch to a position: stops there" said "stopped at position $((at + 50))+0"
	expect "replay of a branch to before it began" 0 replay --to 100 "$branch"
	check "replay of a branch to before it began: stops where it did" said "stopped at position $at+0"
	expect "index of a branch" 0 index --every 0.01 "$branch"
	expect "verify of an indexed branch" 0 verify "$branch"
	expect "snapshot of a branch" 0 snapshot take -o "$tmp/second.snapshot" "$branch" $((at + 60))
	hindsight snapshot run "$tmp/second.snapshot"
	check "snapshot run of a branch's snapshot" said '^hindsight: run: the guest wrote its exit port'

	# mov al,N; out 0xf4,al. Several at once: none sees what another writes.
	for n in 41 42 43; do
		"$HINDSIGHT" snapshot run --poke "$rip=b0$(printf %x "$n")e6f4" --record "$branch.$n" "$state" \
			>/dev/null 2>&1 </dev/null &
		pids+=($!)
	done
	for n in 41 42 43; do
		wait "${pids[n - 41]}"
		status=$?
		check "snapshot run --poke: what if it ended with $n" is_status "$n"
		expect "verify of that branch" 0 verify "$branch.$n"
	done
	check "snapshot run: the snapshot is as it was" cmp -s "$state" "$tmp/state.before"

	refuse "snapshot without a command" 'take, info, export, import, diff or run' snapshot
	refuse "snapshot take without a file" 'give the snapshot' snapshot take "$trace" 200
	refuse "snapshot take without a position" 'give a position' snapshot take -o "$other" "$trace"
	hindsight snapshot take -o "$tmp/none" "$trace" 100000000
	check "snapshot take at the end: status $failed_status" is_status "$failed_status"
	check "snapshot take at the end: says why" said 'run is over'
	check "snapshot take at the end: no file" test ! -e "$tmp/none"
	refuse "snapshot run of a recording" 'hindsight snapshot take' snapshot run "$trace"
	refuse "snapshot diff of a recording" 'hindsight snapshot take' snapshot diff "$state" "$trace"
	refuse "snapshot diff of one" 'give two' snapshot diff "$state"
	refuse "nothing to poke" 'nothing to poke' snapshot run --poke 0x1000=xyz "$state"
	refuse "poke where nothing is" 'no memory' snapshot run --poke 0xdead00000000=00 "$state"
	refuse "input for a port that is not there" 'no port 1' snapshot run --port-input 1:/dev/null "$state"
	truncate -s -2000 "$state"
	refuse "a snapshot that is cut off" 'ends inside the snapshot' snapshot run "$state"
}

# state_digest FILE: of the snapshot, in the words of info --events.
state_digest() { "$HINDSIGHT" snapshot info "$1" 2>/dev/null | sed -n 's/^digest  *//p'; }
# A node's parent, as a row of the tree has it.
parent_of() { "$HINDSIGHT" snapshot info "$1" 2>/dev/null | awk -v n="$2" 'NF >= 4 && $1 == n { print $2; exit }'; }

# Several snapshots in a file: each is the recorded state, however it came there.
snapshot_trees() {
	local boundary digest n=0 single=0 all chain=$tmp/chain tree=$tmp/tree events=$tmp/events long=$tmp/long.trace

	hindsight record -o "$long" --append ticks=100 --seed 5 --kernel "$guests/stale_pointer.elf"
	"$HINDSIGHT" info --events "$long" | sed -n 's/^ *\([1-9][0-9]*\)  digest *\(state .*\)/\1 \2/p' >"$events"
	all=$(wc -l <"$events")
	check "snapshot take: there are digests to compare with" test "$all" -ge 2
	# In any order.
	# shellcheck disable=SC2046 # the positions are words
	expect "snapshot take of many" 0 snapshot take -o "$chain" "$long" $(cut -d ' ' -f 1 "$events" | sort -R)
	while read -r boundary digest; do
		n=$((n + 1))
		check "snapshot $n of a chain: the state that was recorded" test "$(state_digest "$chain@$n")" = "$digest"
		hindsight snapshot take -o "$tmp/single" "$long" "$boundary"
		single=$((single + $(stat -c %s "$tmp/single")))
		hindsight snapshot export -o "$tmp/node" "$chain@$n"
		check "snapshot $n of a chain: exported alone" test "$(state_digest "$tmp/node")" = "$digest"
		check "snapshot $n of a chain: descends from the one before" \
			test "$(parent_of "$chain" "$n")" = "$([[ $n == 1 ]] && echo - || echo $((n - 1)))"
	done <"$events"
	check "a chain is less than half as large as its snapshots alone" test $((2 * $(stat -c %s "$chain"))) -lt "$single"

	# Sent in two parts, and put together again.
	expect "snapshot export --chain" 0 snapshot export --chain -o "$tree" "$chain@2"
	check "snapshot export --chain: what it descends from" test "$(parent_of "$tree" 2)" = 1
	expect "snapshot export --since" 0 snapshot export --since 2 -o "$tmp/rest" "$chain"
	refuse "snapshot info of what is only a difference" 'import that first' snapshot info "$tmp/rest"
	expect "snapshot import" 0 snapshot import "$tree" "$tmp/rest"
	check "snapshot import: tells what is new" said ": $all snapshots, $((all - 2)) of them new"
	check "snapshot import: both parts are the whole" cmp -s "$tree" "$chain"
	expect "snapshot import of what is there" 0 snapshot import "$tree" "$chain"
	check "snapshot import of what is there: nothing is added" cmp -s "$tree" "$chain"

	# A branch, whose snapshots are below the one that it went on from.
	hindsight snapshot run --record "$tmp/off.trace" "$chain@1"
	boundary=$(($(head -n 1 "$events" | cut -d ' ' -f 1) + 30))
	expect "snapshot take --chain of a branch" 0 snapshot take --chain -o "$tmp/off" "$tmp/off.trace" "$boundary"
	digest=$(state_digest "$tmp/off")
	expect "snapshot import of a branch" 0 snapshot import "$tree" "$tmp/off"
	check "snapshot import of a branch: it is where it began" test "$(parent_of "$tree" $((all + 1)))" = 1
	check "snapshot import of a branch: its state" test "$(state_digest "$tree@$((all + 1))")" = "$digest"
	expect "snapshot diff of two in one file" 1 snapshot diff "$tree@1" "$tree@2"
	expect "snapshot diff of one in two files" 0 snapshot diff "$tree@2" "$chain@2"
	expect "replay of a chain" 0 replay --to 0 "$chain"
	check "replay of a chain: from the last on" said "stopped at position $(tail -n 1 "$events" | cut -d ' ' -f 1)+0"

	refuse "no such snapshot" 'no number 99' snapshot info "$chain@99"
	refuse "no such file, nor with a number" 'cannot open' snapshot info "$tmp/none@1"
	refuse "no number of a snapshot" 'no number of a snapshot' snapshot info "$chain@1x"
	refuse "snapshot export without a file" 'give the snapshot' snapshot export "$chain"
	refuse "snapshot export since none" 'no snapshot 99' snapshot export --since 99 -o "$tmp/none" "$chain"
	refuse "snapshot export of nothing" 'no snapshot to export' snapshot export --since 2 -o "$tmp/none" "$chain@2"
	check "snapshot export of nothing: no file" test ! -e "$tmp/none"
	refuse "snapshot import into a recording" 'is a recording' snapshot import "$tmp/off.trace" "$chain"
	refuse "snapshot import of a recording" 'hindsight snapshot take' snapshot import "$tree" "$long"
	hindsight record -o "$tmp/other.trace" --append ticks=20 --seed 6 --kernel "$guests/stale_pointer.elf"
	hindsight snapshot take -o "$tmp/other" "$tmp/other.trace" 100
	cp "$tree" "$tmp/before"
	refuse "snapshot import of another guest" 'differ' snapshot import "$tree" "$tmp/other"
	check "snapshot import of another guest: the file is as it was" cmp -s "$tree" "$tmp/before"
}

info() {
	local kind text json plural=(landmarks digests inputs) type=(landmark digest input)

	hindsight info --json "$trace"
	cp "$tmp/out" "$tmp/json"
	if command -v python3 >/dev/null; then
		check "info --json is JSON" python3 -m json.tool "$tmp/json" /dev/null
	else
		echo "(info --json not parsed: there is no python3)"
	fi
	hindsight info --events "$trace"
	for kind in 0 1 2; do
		json=$(json_value "${plural[kind]}" <"$tmp/json")
		text=$(grep -Ec "^ +[0-9]+  ${type[kind]} " "$tmp/out")
		check "info: ${plural[kind]} listed ($text) and counted ($json)" test "$text" = "$json"
	done
	check "info --events: the end" printed '^ *[0-9]*  end '
	expect "info --json of odd text" 0 record -o "$tmp/odd.trace" --append $'a"b\\c\x01 ticks=2 watchdog=0' \
		--kernel "$guests/stale_pointer.elf"
	if command -v python3 >/dev/null; then
		"$HINDSIGHT" info --json "$tmp/odd.trace" >"$tmp/json"
		check "info --json of odd text is JSON" python3 -m json.tool "$tmp/json" /dev/null
	fi
}

# Instructions that cannot be decided are found in user code, and only there.
user_code() {
	hindsight record -o "$tmp/user.trace" --append n=20 --kernel "$guests/user.elf"
	check "record names an RDTSC in user code" said '^  rdtsc at 0x'
	hindsight record -o "$tmp/user.trace" --kernel "$guests/instrs.elf"
	check "record says nothing of those in kernel code" test "$(grep -c 'user code holds' "$tmp/err")" = 0
}

# Where user code sees the host's CPUs by number, a replay finds the one of the recording.
other_cpu() {
	if taskset -c 0 true && taskset -c 1 true; then
		taskset -c 1 "$HINDSIGHT" record -o "$tmp/cpu.trace" --append n=20 --kernel "$guests/user.elf" \
			>"$tmp/out" 2>"$tmp/err"
		taskset -c 0 "$HINDSIGHT" verify "$tmp/cpu.trace" >"$tmp/out" 2>"$tmp/err"
		check "recorded on one CPU, verified from another" said '0 divergences'
	fi
}

# What does not depend on timing comes out the same, recorded or not.
same_output() {
	local guest want

	for guest in hello idle sse; do
		hindsight run --kernel "$guests/$guest.elf"
		cp "$tmp/out" "$tmp/run"
		want=$status
		check "run $guest: prints something" test -s "$tmp/out"
		hindsight record -o "$tmp/same.trace" --kernel "$guests/$guest.elf"
		check "record $guest: the same status as run" is_status "$want"
		check "record $guest: the same output as run" cmp -s "$tmp/out" "$tmp/run"
		hindsight replay "$tmp/same.trace"
		check "replay $guest: the same output as run" cmp -s "$tmp/out" "$tmp/run"
	done
}

# --- how a run ends ---------------------------------------------------------------------------

# shellcheck disable=SC2059 # the code is a format: its octal escapes are meant
# A kernel of a few bytes of code: an ELF64 file with one segment, loaded at 1 MiB.
tiny_kernel() {
	local code=$1 size

	size=$(printf "$code" | wc -c)
	{
		printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0'        # 64 bit, little endian
		printf '\2\0\76\0\1\0\0\0'                      # executable, x86-64
		printf '\170\0\20\0\0\0\0\0'                    # entry: 0x100078
		printf '\100\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'     # program headers at 64, no sections
		printf '\0\0\0\0\100\0\70\0\1\0\100\0\0\0\0\0' # one of them
		printf '\1\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0'       # PT_LOAD, rwx, from offset 0
		printf '\0\0\20\0\0\0\0\0\0\0\20\0\0\0\0\0'     # to 0x100000
		printf "$(printf '\\%03o\\0\\0\\0\\0\\0\\0\\0' $((size + 120)) $((size + 120)))"
		printf '\0\20\0\0\0\0\0\0'
		printf "$code"
	} >"$tmp/tiny.elf"
}

# ends NAME STATUS TEXT ARGUMENT...: recorded, replayed and verified, it ends in the same way.
ends() {
	local name=$1 want=$2 text=$3

	shift 3
	hindsight record -o "$tmp/end.trace" "$@"
	check "$name: record gives $want" is_status "$want"
	check "$name: record says \"$text\"" said "^hindsight: recorded: $text"
	cp "$tmp/out" "$tmp/ended"
	hindsight replay "$tmp/end.trace"
	check "$name: replay gives $want" is_status "$want"
	check "$name: replay prints the same" cmp -s "$tmp/out" "$tmp/ended"
	hindsight verify "$tmp/end.trace"
	check "$name: verify gives 0" is_status 0
	check "$name: verify says \"$text\"" said "^hindsight: verified: $text"
}

endings() {
	tiny_kernel '\260\52\346\364\364' # mov al,42; out 0xf4,al
	ends "exit port" 42 'the guest wrote its exit port (status 42)' --kernel "$tmp/tiny.elf"
	tiny_kernel '\372\364' # cli; hlt
	ends "halted" $halted 'halted with nothing' --kernel "$tmp/tiny.elf"
	tiny_kernel '\372\17\13' # cli; ud2 without an IDT
	ends "triple fault" $triple_fault 'triple fault' --kernel "$tmp/tiny.elf"
	tiny_kernel '\260\376\346\144\364' # mov al,0xfe; out 0x64,al
	ends "reset" 123 'the guest reset' --kernel "$tmp/tiny.elf"
	tiny_kernel '\353\376' # jmp to itself
	ends "time limit in a loop" $time_limit 'time limit' --max-seconds 0.3 --kernel "$tmp/tiny.elf"
	tiny_kernel '\373\220\353\376' # sti; nop; jmp to itself
	hindsight record -o "$tmp/loop.trace" --max-seconds 2.5 --kernel "$tmp/tiny.elf"
	# An emulated host's timers are late: there the second one may not come before the end.
	local seconds='[23]'
	[[ $(host_clocks) == state ]] && seconds='[1-3]'
	check "a loop with nothing due has a landmark each second" said " $seconds landmarks"
	ends "time limit" $time_limit 'time limit' --max-seconds 0.5 --append "ms=1000000 ticks=1000000" \
		--kernel "$guests/tasks.elf"
	ends "until" 0 'the awaited output' --until '^gateway u[p]' --kernel "$guests/stale_pointer.elf"
	check "until: nothing after what was awaited" test "$(tail -n 1 "$tmp/ended" | tr -d '\r')" = "gateway up"
	ends "until not met" 0 'the guest wrote its exit port' --until '^no such line$' --append "ticks=2 watchdog=0" \
		--kernel "$guests/stale_pointer.elf"
}

input() {
	local fifo=$tmp/fifo

	mkfifo "$fifo"
	{
		sleep 0.3
		echo one
		sleep 0.2
		echo two
		sleep 0.1
		echo quit
	} >"$fifo" &
	hindsight record -o "$tmp/input.trace" --max-seconds 60 --input "$fifo" --kernel "$guests/serial_in.elf"
	wait
	check "input from a FIFO: status 0" is_status 0
	check "input from a FIFO: echoed" printed 'two'
	cp "$tmp/out" "$tmp/ended"
	hindsight replay "$tmp/input.trace"
	check "input from a FIFO: replayed without it" cmp -s "$tmp/out" "$tmp/ended"
	expect "input from a FIFO: verify" 0 verify "$tmp/input.trace"
	printf 'a\nb\nquit\n' >"$tmp/lines"
	expect "input from a file" 0 record -o "$tmp/input.trace" --max-seconds 60 --input "$tmp/lines" \
		--kernel "$guests/serial_in.elf"
	expect "input from a file: verify" 0 verify "$tmp/input.trace"
	timeout "$limit" "$HINDSIGHT" run --max-seconds 60 --input - --kernel "$guests/serial_in.elf" \
		<"$tmp/lines" >"$tmp/out" 2>"$tmp/err"
	status=$?
	check "input from standard input" is_status 0
}

# --- last-write -------------------------------------------------------------------------------

last_write() {
	local seed address boundary position

	for ((seed = 1; seed <= seeds; seed++)); do
		hindsight record -o "$trace" --seed "$seed" --max-seconds 60 --kernel "$guests/stale_pointer.elf"
		is_status 1 && break
	done
	check "a recording in which the guest panics" printed '^PANIC: '
	address=$(tr -d '\r' <"$tmp/out" | sed -n 's/^corrupted field at \(0x[0-9a-f]*\).*/\1/p')
	expect "last-write" 0 last-write "$trace" "$address,8"
	check "last-write names the function" printed nvlog_tick
	check "last-write names the line" printed 'nvlog\.c:[0-9]'
	cp "$tmp/out" "$tmp/last"
	position=$(sed -n 's/^Position \([0-9+]*\),.*/\1/p' "$tmp/out")
	boundary=${position%+*}
	expect "last-write --before" 0 last-write --before "$boundary" "$trace" "$address,8"
	check "last-write --before gives an earlier write" test \
		"$(sed -n 's/^Position \([0-9]*\).*/\1/p' "$tmp/out")" -lt "$boundary"
	# The first write after the one before is the last one.
	expect "first-write" 0 first-write --after $((boundary - 1)) "$trace" "$address,8"
	check "first-write finds what last-write found" test \
		"$(grep -v '^HINDSIGHT\|^Position' "$tmp/out")" = "$(grep -v '^HINDSIGHT\|^Position' "$tmp/last")"
	check "first-write: at the same position" test \
		"$(sed -n 's/^Position \([0-9+]*\),.*/\1/p' "$tmp/out")" = "$position"
	expect "first-write where nobody wrote" $not_found first-write --after 1 --physical "$trace" 0x100000
	check "first-write where nobody wrote: says so" said 'nobody wrote'
	refuse "first-write without a position" 'give --after' first-write "$trace" "$address"
	# With an index, the same.
	hindsight index --every 0.2 "$trace"
	expect "last-write with an index" 0 last-write "$trace" "$address,8"
	check "last-write with an index: the same answer" cmp -s "$tmp/out" "$tmp/last"
	# String stores come out element by element where they are watched, and must count as elsewhere.
	expect "a guest of string stores" 0 record -o "$tmp/strings.trace" --kernel "$BUILD/guests/strings.elf" \
		--quantum 0.2 --time-rate 3
	for buffer in b in_handler; do
		address=0x$(nm "$BUILD/guests/strings.elf" | sed -n "s/ b $buffer\$//p")
		expect "last-write of $buffer by state" 0 last-write --clock state "$tmp/strings.trace" "$address,64"
		grep -e '^Write of' -e '^ was' "$tmp/out" >"$tmp/by_state"
		expect "last-write of $buffer" 0 last-write "$tmp/strings.trace" "$address,64"
		grep -e '^Write of' -e '^ was' "$tmp/out" >"$tmp/by_clock"
		check "last-write of $buffer is the same by each clock" cmp -s "$tmp/by_clock" "$tmp/by_state"
		check "last-write of $buffer names its writer" grep -q 'by [a-z_]*+0x.*strings.c' "$tmp/by_clock"
	done
	# The first bytes of the guest's text.
	expect "last-write where nobody wrote" $not_found last-write --physical "$trace" 0x100000
	check "last-write where nobody wrote: says so" said 'nobody wrote'
	hindsight last-write "$trace" 0xdead00000000
	check "last-write where nothing is mapped: status $failed_status" is_status $failed_status
	check "last-write where nothing is mapped: says so" said 'not mapped'
	hindsight last-write --physical "$trace" 0xdead00000000
	check "last-write where no RAM is: status $failed_status" is_status $failed_status
}

help_texts
recording
usage_errors
positions
index
snapshots
snapshot_trees
info
user_code
other_cpu
same_output
endings
input
last_write
finish
