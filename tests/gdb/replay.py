# SPDX-License-Identifier: GPL-3.0-or-later
#
# Driven by tests/gdb_replay.sh inside gdb: a recording of examples/stale_pointer in which the guest panicked, walked
# forward and back. CORRUPTED is the address that the panic names.
import os
import gdb

passed = 0
STEPS = 200
REGISTERS = ("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags "
             "cs ss cr0 cr2 cr3 cr4 fs_base gs_base").split()


def run(command):
    return gdb.execute(command, to_string=True)


def check(condition, what):
    global passed
    if not condition:
        raise gdb.GdbError("FAIL " + what)
    passed += 1


def registers():
    frame = gdb.newest_frame()
    return [int(frame.read_register(name).cast(gdb.lookup_type("unsigned long"))) if name != "eflags"
            else str(frame.read_register(name)) for name in REGISTERS]


def position():
    return run("monitor when").split(",")[0]


def refused(command):
    try:
        run(command)
    except gdb.error:
        return True
    return False


def there_and_back():
    run("monitor seek 50%")
    run("maintenance flush register-cache")
    seen = [registers()]
    for _ in range(STEPS):
        run("stepi")
        seen.append(registers())
    for before in reversed(seen[:-1]):
        run("reverse-stepi")
        check(registers() == before, "a step back leads to the registers that were there")


def breakpoints():
    run("monitor seek 0")
    run("maintenance flush register-cache")
    run("break nvlog_tick")
    visits = []
    for _ in range(5):
        run("continue")
        visits.append((position(), registers()))
    check(len({at for at, _ in visits}) == 5, "each visit is another position")
    for at, values in reversed(visits[:-1]):
        run("reverse-continue")
        check((position(), registers()) == (at, values), "a breakpoint is met again on the way back")
    run("delete")
    run("break nvlog_tick if timer_ticks == 30")
    run("continue")
    check(int(gdb.parse_and_eval("timer_ticks")) == 30, "a condition holds forward")
    run("monitor seek 100%")
    run("maintenance flush register-cache")
    run("reverse-continue")
    check(int(gdb.parse_and_eval("timer_ticks")) == 30, "and backward")
    run("delete")


def culprit():
    address = os.environ["CORRUPTED"]
    field = "*(unsigned long *)" + address
    run("continue")
    run("watch " + field)
    now = int(gdb.parse_and_eval(field))
    run("reverse-continue")
    check(gdb.newest_frame().name() == "nvlog_tick", "the culprit is found")
    check(gdb.newest_frame().find_sal().line == 90, "and its line")
    check(int(gdb.parse_and_eval(field)) != now, "it has not written yet")
    run("delete")
    run("stepi")
    check(int(gdb.parse_and_eval(field)) == now, "now it has")


def ends_and_refusals():
    run("monitor seek 0")
    run("maintenance flush register-cache")
    run("stepi 20")
    run("reverse-continue")
    check(position() == "position 0+0", "there is a beginning")
    run("continue")
    check("the end of the recording" in run("monitor when"), "and an end")
    check(refused("set var timer_ticks = 0x123456789"), "the recording cannot be written to")
    check(refused("set $rax = 0x123456789"), "nor its registers")
    check(refused("monitor seek nowhere"), "a wrong position is refused")
    check(len(gdb.selected_inferior().read_memory(0x100000, 65536)) == 65536, "64 KiB of memory at once")


there_and_back()
breakpoints()
run("monitor seek 99%")
run("maintenance flush register-cache")
culprit()
ends_and_refusals()
print("gdb checks: %d passed" % passed)
