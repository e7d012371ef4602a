# SPDX-License-Identifier: GPL-3.0-or-later
#
# Driven by tests/bench/gdb.sh inside gdb: how long gdb waits for what it asks, in ms of wall time. The same for every
# stub that it talks to. STEPS_BACK: how many single steps back to time.
import os
import statistics
import time

import gdb

MIB = 1 << 20


def run(command):
    return gdb.execute(command, to_string=True)


def timed(action):
    began = time.monotonic()
    action()
    return (time.monotonic() - began) * 1000


def tell(name, times):
    print("figure %s %.3f %.3f %.3f" % (name, statistics.median(times), min(times), max(times)), flush=True)


run("set pagination off")
run("set confirm off")
run("tbreak nvlog_records")
run("continue")
end = int(gdb.parse_and_eval("$pc"))
tell("stepi", [timed(lambda: run("stepi")) for _ in range(100)])
tell("read-1MiB", [timed(lambda: gdb.selected_inferior().read_memory(MIB, MIB)) for _ in range(5)])
tell("reverse-stepi", [timed(lambda: run("reverse-stepi")) for _ in range(int(os.environ["STEPS_BACK"]))])
# Nothing stops it: all that was recorded before.
tell("reverse-continue", [timed(lambda: run("reverse-continue"))])
if int(gdb.parse_and_eval("$pc")) == end:
    raise gdb.GdbError("it has not gone back")
