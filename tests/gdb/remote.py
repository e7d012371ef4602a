# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run by tests/gdb_remote.sh inside gdb: a session with the fake target, as a user would have it. Each check
# compares what gdb made of the stub's answers with what the fake's program does by its nature. After ctrl_c.py.
import os
import struct
import sys
import traceback

import gdb

MAIN, CALL, AFTER_CALL, WORK, INC, STORE, STORE_AGAIN, LOAD = (
    0x1000, 0x1004, 0x1009, 0x1010, 0x1014, 0x1017, 0x101A, 0x101D)
COUNTER, TEXT, RAM = 0x9000, 0x20000, 0x40000
ROUND = 11
ADDRESS = os.environ["FAKE_ADDRESS"]

passed = 0
history_ends = 0


def check(what, got, expected):
    global passed
    if got != expected:
        raise AssertionError("%s: %r, not %r" % (what, got, expected))
    passed += 1


def run(command):
    return gdb.execute(command, to_string=True)


def reg(name):
    return int(gdb.parse_and_eval("(unsigned long)$" + name))


def counter():
    return struct.unpack("<Q", bytes(gdb.selected_inferior().read_memory(COUNTER, 8)))[0]


def position():
    return int(run("monitor when").split()[0])


def stopped_by(command, kind):
    """Run, and see what gdb makes of the stop."""
    stops.clear()
    run(command)
    return len(stops) == 1 and type(stops[0]) is kind


def out_of_history(command):
    """Of that gdb tells by a text only, on its terminal: tests/gdb_remote.sh counts it."""
    global history_ends
    history_ends += 1
    return stopped_by(command, gdb.StopEvent)


def jump(place):
    """The plain monitor command: gdb must be told to look again."""
    run("monitor seek %d" % place)
    run("maintenance flush register-cache")


def fails(command):
    try:
        return "no error: " + run(command)
    except gdb.error as error:
        return str(error)


def connect():
    run("target remote " + ADDRESS)


def registers():
    run("maintenance flush register-cache")
    return run("info registers") + run("info all-registers")


def test_description():
    check("real registers", reg("r8"), 0x8877665544332211)
    check("control register", run("p $cr0").strip()[-12:], "[ PE WP PG ]")
    check("efer", "LME LMA" in run("p $efer"), True)
    check("fs base", reg("fs_base"), 0x123456789ABC)
    check("sse", run("p/x $xmm0.uint128").split("=")[1].strip(), "0xf0e0d0c0b0a09080706050403020100")
    check("avx", "v8_float" in run("p $ymm0"), True)
    check("x87", run("p $fctrl").split("=")[1].strip(), "895")
    check("thread", "CPU 0" in run("info threads") and "kernel, at 0" in run("info threads"), True)
    check("disassembly", "call   0x1010 <work>" in run("x/3i $pc"), True)
    check("memory map", "0x8000000000000000" in run("info mem"), True)
    check("auxv", fails("info auxv"), "Auxiliary vector is empty.")


def test_program():
    """The assembler's idea of the program is the model's."""
    check("sections", "matched" in run("compare-sections .text"), True)
    check("symbol", "<work+4>" in run("x/i 0x%x" % INC), True)


def test_lines():
    """Lines of fake_program.S are instructions: what gdb does with ranges and step-resume breakpoints."""
    jump(2)
    run("step")
    check("step into a function", reg("pc") in (WORK, INC), True)
    run("reverse-step")
    check("reverse-step out of it", reg("pc"), CALL)
    run("next")
    check("next", reg("pc"), AFTER_CALL)
    run("reverse-next")
    check("reverse-next", reg("pc"), CALL)


def test_steps():
    """200 steps forward, 200 back, every register of every place compared."""
    seen = []
    for _ in range(200):
        seen.append(registers())
        run("stepi")
    check("position after 200", position(), 200)
    for there in reversed(seen):
        run("reverse-stepi")
        check("registers on the way back", registers(), there)
    check("begin of history", out_of_history("reverse-stepi"), True)


def test_breakpoints():
    run("break *0x%x" % INC)
    for i in range(5):
        run("continue")
        check("breakpoint", (reg("pc"), reg("rax")), (INC, i))
    for i in range(3, -1, -1):
        run("reverse-continue")
        check("breakpoint in reverse", (reg("pc"), reg("rax")), (INC, i))
    check("begin", out_of_history("reverse-continue"), True)
    check("place of begin", reg("pc"), MAIN)
    run("delete")
    run("tbreak *0x%x" % LOAD)
    run("continue")
    check("tbreak", reg("pc"), LOAD)
    run("hbreak *0x%x if $rax == 9 && *(long *)0x%x == 8" % (STORE, COUNTER))
    run("continue")
    check("condition", (reg("pc"), reg("rax")), (STORE, 9))
    check("the stub evaluates it", "(target evals)" in run("info breakpoints"), True)
    run("delete")
    run("break *0x%x if $rax == 4" % INC)
    run("reverse-continue")
    check("condition in reverse", (reg("pc"), reg("rax")), (INC, 4))
    run("delete")
    run("set breakpoint always-inserted on")
    run("break *0x%x" % STORE)
    run("continue")
    run("continue")
    check("always inserted", (reg("pc"), reg("rax")), (STORE, 6))
    run("set breakpoint always-inserted off")
    run("delete")


def test_watchpoints():
    jump(0)
    run("watch *(long *)0x%x" % COUNTER)
    for i in range(1, 5):
        check("watch", (stopped_by("continue", gdb.BreakpointEvent), counter()), (True, i))
        check("place behind the store", reg("pc"), STORE_AGAIN)
    for i in range(4, 1, -1):
        run("reverse-continue")
        check("watch in reverse", (reg("pc"), counter()), (STORE, i - 1))
    run("delete")
    run("rwatch *(long *)0x%x" % COUNTER)
    run("continue")
    check("rwatch", reg("pc"), LOAD + 3)
    run("delete")
    run("awatch *(char *)0x%x" % COUNTER)
    run("continue")
    check("awatch", reg("pc"), STORE_AGAIN)
    run("delete")
    # As long as one likes: four debug registers would have 32 bytes.
    run("watch *(char (*)[0x1000])0x%x" % COUNTER)
    run("continue")
    check("long watch", reg("pc"), STORE_AGAIN)
    run("delete")
    # A watch that cannot be had.
    run("watch *(long *)0x%x" % (RAM + 0x1000))
    check("bad watch", fails("continue"), "Command aborted.")
    run("delete")


def test_functions():
    run("break *0x%x" % INC)
    run("continue")
    run("delete")
    check("frames", "0x0000000000001009" in run("backtrace"), True)
    run("finish")
    check("finish", reg("pc"), AFTER_CALL)
    run("reverse-stepi")
    run("reverse-stepi")
    run("reverse-finish")
    check("reverse-finish", reg("pc"), CALL)
    run("nexti")
    check("nexti over a call", reg("pc"), AFTER_CALL)
    run("reverse-nexti")
    check("reverse-nexti over a call", reg("pc"), CALL)
    run("stepi 3")
    run("advance *0x%x" % LOAD)
    check("advance", reg("pc"), LOAD)


def test_end():
    check("end of history", out_of_history("continue"), True)
    check("place of the end", position(), int(run("monitor when").split()[2]))


def test_memory():
    inferior = gdb.selected_inferior()
    big = bytes(inferior.read_memory(0x10000, 0x20000))
    check("128 KiB", (len(big), big[TEXT - 0x10000:][:9]), (0x20000, b"hindsight"))
    check("outside", fails("x/x 0x%x" % RAM), "Cannot access memory at address 0x%x" % RAM)
    check("find", "0x%x" % TEXT in run("find 0x0, 0x3ffff, 'h', 'i', 'n', 'd'"), True)
    check("physical", "ENABLE=1" in run("maintenance packet Qqemu.sstepbits"), True)
    run("maintenance packet Qqemu.PhyMemMode:1")
    check("physical memory", bytes(inferior.read_memory(TEXT - 0x1000, 4)), b"hind")
    run("maintenance packet Qqemu.PhyMemMode:0")


def test_changes():
    """Writing to the past starts a branch, which gdb is told of at the next stop."""
    gdb.selected_inferior().write_memory(TEXT, b"X" * 70000)
    check("written", bytes(gdb.selected_inferior().read_memory(TEXT + 69990, 10)), b"X" * 10)
    run("set $r9 = 0x1234")
    run("set $xmm3.uint128 = 5")
    check("notice", "branch 1 starts at" in run("reverse-stepi"), True)
    run("stepi")
    check("register", (reg("r9"), run("p $xmm3.uint128").split("=")[1].strip()), (0x1234, "5"))
    check("only to be read", "Could not write register" in fails("set $tr = 5"), True)
    # A function call: registers are back afterwards.
    jump(20)
    before = run("info registers")
    # work adds one to RAX, in which the ABI has the caller pass the number of vector registers: none.
    check("function call", int(run("call ((long (*)(void))0x%x)()" % WORK).split("=")[1]), 1)
    check("what the function did", counter(), 1)
    check("registers after a call", run("info registers"), before)


def test_monitor():
    check("monitor", run("monitor seek 33"), "now at 33\n")
    check("refusal", fails("monitor bogus"), "Protocol error with Rcmd")
    check("lx-version", run("monitor info version"), "1\n")


def test_python():
    run("source " + os.environ["HINDSIGHT_PY"])
    jump(2)
    check("before the jump", reg("pc"), CALL)
    text = run("hindsight seek 6")
    check("the jump", ("now at 6" in text, reg("pc")), (True, STORE))
    check("the frame is shown", "work () at" in text, True)
    check("no jump, no frame", run("hindsight when").startswith("6 of "), True)
    check("refusal", fails("hindsight seek x"), "hindsight: the command failed")
    check("completion", run("complete hindsight s"), "hindsight seek\n")
    check("completion of several", run("complete hindsight w"), "hindsight wait\nhindsight when\n")
    check("no completion of arguments", run("complete hindsight seek 4"), "")


def test_ctrl_c():
    for command in ("continue", "reverse-continue", "stepi 100000000", "reverse-stepi 100000",
                    "nexti 100000000"):
        jump(3000000)  # in reverse, fifteen seconds of a slow machine lie before
        sig, took = with_ctrl_c(command)
        check("Ctrl-C in " + command, (sig, took < 5), ("SIGINT", True))
    jump(3000000)
    run("break *0x%x if $rax == 0x7fffffff" % INC)
    sig, took = with_ctrl_c("continue")
    check("Ctrl-C with a condition that never holds", (sig, took < 5), ("SIGINT", True))
    sig, took = with_ctrl_c("reverse-continue")
    check("the same in reverse", (sig, took < 5), ("SIGINT", True))
    run("delete")


def test_kill_and_reconnect():
    where = position()
    run("kill")
    connect()
    check("where the last gdb left it", position(), where)
    run("detach")
    connect()
    check("after detach", position(), where)
    run("disconnect")
    run("target extended-remote " + ADDRESS)
    check("extended", position(), where)
    run("starti")
    check("from the start", (position(), reg("pc")), (0, MAIN))
    run("starti 5")
    check("from a place", position(), 5)
    run("tbreak *0x%x" % LOAD)
    run("run 5")
    check("run from a place", (position(), reg("pc")), (8, LOAD))
    run("kill")
    run("disconnect")


TESTS = {
    "short": [test_program, test_description, test_steps, test_breakpoints, test_watchpoints, test_functions,
              test_lines, test_end, test_memory, test_changes, test_monitor, test_python,
              test_kill_and_reconnect],
    "long": [test_ctrl_c],
}

run("set pagination off")
run("set confirm off")
run("set width 0")
try:
    connect()
    for test in TESTS[os.environ["FAKE_TESTS"]]:
        test()
except BaseException:  # gdb's exit status says nothing of it, and a Ctrl-C too late is none of them
    traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    os._exit(1)
print("gdb checks: %d passed, %d times out of history" % (passed, history_ends))
