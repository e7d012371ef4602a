# SPDX-License-Identifier: GPL-3.0-or-later
#
# Driven by tests/gdb_replay.sh inside gdb: a recording of examples/stale_pointer in which the guest panicked, walked
# forward and back. CORRUPTED is the address that the panic names.
import os
import re
import time

import gdb

STEPS = 200
REGISTERS = ("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags "
             "cs ss cr0 cr2 cr3 cr4 fs_base gs_base").split()


def registers():
    frame = gdb.newest_frame()
    return [int(frame.read_register(name).cast(gdb.lookup_type("unsigned long"))) if name != "eflags"
            else str(frame.read_register(name)) for name in REGISTERS]


def value(expression):
    return int(gdb.parse_and_eval(expression))


def position():
    return run("monitor when").split(",")[0]


def refused(command):
    try:
        run(command)
    except gdb.error:
        return True
    return False


def there_and_back():
    seek("50%")
    seen = [registers()]
    for _ in range(STEPS):
        run("stepi")
        seen.append(registers())
    for before in reversed(seen[:-1]):
        run("reverse-stepi")
        check(registers() == before, "a step back leads to the registers that were there")


def breakpoints():
    seek("0")
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
    seek("100%")
    run("reverse-continue")
    check(int(gdb.parse_and_eval("timer_ticks")) == 30, "and backward")
    run("delete")
    seek("90%")
    run("break nvlog_tick if timer_ticks == 30")
    run("continue")
    check(run("monitor when").endswith("the end of the recording\n") and not isinstance(stops[-1], gdb.BreakpointEvent),
          "where it holds no more, the recording ends")
    run("delete")


def line():
    return gdb.newest_frame().find_sal().line


def name():
    return gdb.newest_frame().name()


def lines_and_functions():
    """By line and by function, over and into and out of it, both ways."""
    seek("50%")
    run("tbreak session_open")
    run("continue")
    check(not gdb.breakpoints(), "a temporary breakpoint is gone")
    start, walk = position(), []
    for _ in range(4):
        run("next")
        walk.append((position(), line(), registers()))
        check(name() == "session_open", "next stays in the function")
    check(len({at for at, _, _ in walk}) == len(walk), "each line is another place")
    for place in reversed(walk[:-1]):
        run("reverse-next")
        check((position(), line(), registers()) == place, "reverse-next leads where next was")
    run("step")
    check(name() == "kzalloc", "step leads into a function")
    run("reverse-step")
    check((position(), line(), registers()) == walk[0], "reverse-step out of it")

    seek(start.split()[1])
    run("tbreak *kmalloc")
    run("continue")
    entry = position(), registers()
    run("finish")
    check(name() == "kzalloc" and position() != entry[0], "finish leads to the caller")
    run("reverse-stepi")
    check(name() == "kmalloc", "behind the return")
    for inside in ("from its end", "from its middle"):
        run("reverse-finish")
        check("call" in run("x/i $pc") and "<kmalloc>" in run("x/i $pc"), "reverse-finish leads to the call, " + inside)
        run("stepi")
        check((position(), registers()) == entry, "which is the way in")
        run("stepi 3")
    number = line()
    run("next")
    check(line() != number and name() == "kmalloc", "next from the middle of a line leads to another")


def interrupted():
    """Ctrl-C in all that runs: gdb gets its prompt back, and the guest stands at a place of the recording."""
    for command in ("continue", "reverse-continue", "stepi 1000000", "reverse-stepi 100000", "next 1000000",
                    "reverse-next 100000", "finish", "reverse-finish", "advance panic"):
        seek("60%")
        # In a function that neither returns nor was called for long.
        run("tbreak main.c:61")
        run("continue")
        run("delete")
        check(name() == "guest_main", "in the main loop")
        # Come by all the time and never stopped at, so that nothing is over soon.
        run("break *kmalloc if $rsp == 1")
        run("break trap_dispatch if $rsp == 1")
        sig, took = with_ctrl_c(command, 0.3)
        run("delete")
        # gdb may have been interrupted while it looked at frames, and remembers half of that.
        look_again()
        check(sig == "SIGINT" and took < 20, "Ctrl-C in %s: %s after %.1f s" % (command, sig, took))
        at, values = position(), registers()
        seek("10%")
        seek(at.split()[1])
        check(registers() == values, "the place where %s was stopped" % command)


def reconnect():
    seek("30%")
    at, before = position(), registers()
    for command in ("detach", "disconnect"):
        run(command)
        run("target remote " + os.environ["GDB_ADDRESS"])
        check((position(), registers()) == (at, before), "after %s all is as it was" % command)


def culprit():
    address = os.environ["CORRUPTED"]
    field = "*(unsigned long *)" + address
    seek("99%")
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


def checkpoints():
    seek("40%")
    at, before = position(), registers()
    run("hindsight checkpoint first")
    told = run("hindsight last-write nvlog.records")
    check(re.search(r"^changed at position .*Line [0-9]+ of \"examples/stale_pointer/nvlog.c\"", told, re.S),
          "last-write names the line")
    check(position() == at and registers() == before, "and stays here")
    run("watch nvlog.records")
    run("reverse-continue")
    found, line = position(), gdb.newest_frame().find_sal().line
    check(found in told and "Line %d of" % line in told, "where a watchpoint finds it")
    run("delete")
    run("hindsight restart 1")
    check(position() == at and registers() == before, "a checkpoint is come back to")
    check(run("hindsight diff 1").startswith("0 words"), "and nothing differs")
    check(len(run("hindsight events 3").splitlines()) == 3, "three events of the log")

    run("hindsight branch trial")
    run("set var timer_ticks = 5")
    run("stepi 20")
    changed = registers()
    run("hindsight checkpoint second")
    run("continue")
    told = run("hindsight tree")
    check("trial, from " + at + " (here)" in told and "first" in told and "second" in told, "a tree")
    run("hindsight restart 1")
    check(position() == at and registers() == before, "from a branch back to the recording")
    run("hindsight restart 2")
    check("trial" in run("monitor when") and registers() == changed and value("timer_ticks") == 5, "and into the branch")
    run("stepi 20")
    check(not refused("hindsight delete 2"), "a checkpoint is deleted")
    check(refused("hindsight restart 2") and "second" not in run("hindsight tree"), "and gone")
    run("hindsight branch leave")
    check(position() == at and registers() == before, "out of a branch that was come back to")
    check(refused("hindsight restart x") and refused("hindsight diff 7"), "nonsense is refused")
    run("hindsight delete 1")


def watchpoints():
    """All kinds at once: what stops on the way there stops on the way back, before the access."""
    seek("50%")
    run("rwatch timer_ticks")
    run("watch nvlog")
    run("awatch nvlog.head")
    places, met = [], set()

    def on_stop(event):
        met.update(b.type for b in getattr(event, "breakpoints", []))

    gdb.events.stop.connect(on_stop)
    while len(met) < 3 and len(places) < 60:
        run("continue")
        places.append(position())
    gdb.events.stop.disconnect(on_stop)
    check(met == {gdb.BP_HARDWARE_WATCHPOINT, gdb.BP_READ_WATCHPOINT, gdb.BP_ACCESS_WATCHPOINT},
          "each kind of watchpoint is hit")
    for at in reversed(places):
        run("reverse-continue")
        check(position() != at, "back, the access is not made yet")
        run("stepi")
        check(position() == at, "and is the next thing to happen")
        run("reverse-stepi")
    run("delete")


def watched_stack():
    """Interrupts push their frames to a page that is watched, and the guest does not notice."""
    seen = []
    for watched in (False, True):
        seek("50%")
        stack = value("$rsp") & ~4095
        if watched:
            run("watch *(unsigned long *)%d" % (stack + 16))
        run("break trap_dispatch")
        for i in range(20):
            run("continue")
            seen.append((position(), registers()))
        run("delete")
    check(seen[:20] == seen[20:], "handlers run where they did")
    check(value("$rsp") & ~4095 == stack, "on that stack")


def ends_and_refusals():
    seek("0")
    run("stepi 20")
    run("reverse-continue")
    check(position() == "position 0+0", "there is a beginning")
    run("continue")
    check("the end of the recording" in run("monitor when"), "and an end")
    at, before = position(), registers()
    run("monitor branch late")
    run("monitor branch leave")
    check("the end of the recording" in run("monitor when"), "which a branch can leave and come back to")
    look_again()
    check((position(), registers()) == (at, before), "as it was")
    check(refused("monitor seek nowhere"), "a wrong position is refused")
    check(len(gdb.selected_inferior().read_memory(0x100000, 65536)) == 65536, "64 KiB of memory at once")


def branches():
    seek("50%")
    run("tbreak nvlog_tick")
    run("continue")
    at, before, ticks = position(), registers(), value("timer_ticks")

    run("set var timer_ticks = timer_ticks - 30")
    check("branch-" in run("monitor when"), "a write begins a branch")
    check(value("timer_ticks") == ticks - 30, "and is made there")
    run("stepi 100")
    check(registers() != before, "which goes on")
    run("break nvlog_tick if timer_ticks == %d" % (ticks - 25))
    run("continue")
    check(gdb.newest_frame().name() == "nvlog_tick", "to a breakpoint")
    check(value("timer_ticks") == ticks - 25, "in its own time")
    run("delete")
    run("monitor branch leave")
    look_again()
    check(position() == at and registers() == before, "the recording is where it was left")
    check(value("timer_ticks") == ticks, "and as it was")

    run("set $rax = 0x123456789")
    check("branch-" in run("monitor when"), "a write to a register begins one too")
    check(value("$rax") == 0x123456789, "and is made")
    run("set $xmm3.v2_int64[1] = 0x1234")
    check(value("$xmm3.v2_int64[1]") == 0x1234, "also to the vector registers")
    run("stepi")
    run("reverse-stepi")
    check(position() == at and registers() == before, "back from a branch leads to where it began")
    check(refused("set $cs = 0x33"), "a segment register is refused")
    run("monitor seek 0")
    check(position() == "position 0+0", "seek leaves a branch")

    run("monitor seek " + at.split()[1])
    look_again()
    records = value("nvlog_records()")
    check(position() == at and registers() == before, "a call leaves nothing behind")
    check(records == value("nvlog_records()"), "twice the same")
    run("call (void)nvlog_tick()")
    check(position() == at and registers() == before, "also one that changes the guest")
    run("monitor branch what-if")
    check("what-if" in run("monitor when"), "a branch with a name")
    run("set var timer_ticks = 7")
    run("call (void)nvlog_tick()")
    check("what-if" in run("monitor when") and value("timer_ticks") == 7, "a call in a branch stays in it")
    check(refused("monitor branch again"), "no branch of a branch")
    run("continue")
    check("over" in run("monitor when"), "a branch has an end of its own")
    run("reverse-continue")
    check(position() == at and registers() == before, "and then the recording is there again")


run("source gdbstub/hindsight.py")
for part in (there_and_back, breakpoints, lines_and_functions, checkpoints, watchpoints, watched_stack, branches, interrupted, reconnect,
             culprit, ends_and_refusals):
    began = time.monotonic()
    part()
    print("%s: %.1f s, %d checks so far" % (part.__name__, time.monotonic() - began, passed), flush=True)
print("gdb checks: %d passed" % passed)
