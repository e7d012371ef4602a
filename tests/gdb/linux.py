# SPDX-License-Identifier: GPL-3.0-or-later
#
# Driven by tests/linux_gdb.sh inside gdb: Linux's own commands (scripts/gdb of the kernel) on a recording of the small
# Linux that ends when the module `leases` has been loaded. CONSOLE is what the guest printed, LEASES where it said that
# the module lies.
import os
import re

import gdb


def messages():
    """The kernel's log, a list of lines as on the console."""
    return run("lx-dmesg").splitlines()


def processes():
    return {line.split()[2] for line in run("lx-ps").splitlines()[1:]}


def halfway():
    """While it boots, most of whose boundaries are the timer being measured: some of the messages, no module yet."""
    seek("80%")
    early = messages()
    check("Linux version" in early[0] and len(early) > 20, "the log has begun")
    check(run("lx-version").startswith("Linux version 6."), "the version")
    check("leases" not in run("lx-lsmod"), "the module is not loaded yet")
    check("swapper" in processes(), "the first process is there")
    return early


def at_the_end(early):
    seek("100%")
    late = messages()
    check(late[:len(early)] == early and len(late) > len(early), "the log has grown")
    with open(os.environ["CONSOLE"], errors="replace") as console:
        printed = console.read().replace("\r", "").splitlines()
    # Without the time, which the kernel cuts off and the script rounds; what a process printed has none.
    on_console = [line[15:] for line in printed if re.match(r"\[ *[0-9]+\.[0-9]{6}\] ", line)]
    lost = set(on_console) - {line[15:] for line in late}
    check(len(on_console) > 20 and not lost, "all that the kernel printed is in its log, but for %r" % lost)
    check({"swapper", "init", "kthreadd"} <= processes(), "the processes of this system")
    check(run("p $lx_task_by_pid(1).comm").split('"')[1] == "init", "one of them by its number")
    check(run("p $lx_current().pid").split()[-1].isdigit(), "the one that runs")
    modules = run("lx-lsmod")
    check(re.search(r"^%s +leases " % os.environ["LEASES"], modules, re.M), "the module is where it says: " + modules)


def module():
    """Symbols of the module, and back to when it was made live."""
    directory = os.path.dirname(gdb.objfiles()[0].filename)
    run("lx-symbols " + directory)
    check(int(gdb.parse_and_eval("(unsigned long)&leases_tick")) >= int(os.environ["LEASES"], 16), "its symbols")
    run("tbreak do_init_module")
    run("reverse-continue")
    check(gdb.newest_frame().name() == "do_init_module", "back at its initialisation")
    check(gdb.parse_and_eval("mod->name").string() == "leases", "of this module")
    check(int(gdb.parse_and_eval("mod->state")) == int(gdb.parse_and_eval("MODULE_STATE_COMING")), "which is not live yet")


at_the_end(halfway())
module()
print("gdb checks: %d passed" % passed)
