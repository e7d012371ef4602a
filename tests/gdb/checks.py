# SPDX-License-Identifier: GPL-3.0-or-later
#
# Sourced by gdb before replay.py and linux.py: what they check and how they go from place to place.
import gdb

passed = 0


def run(command):
    return gdb.execute(command, to_string=True)


def check(condition, what):
    global passed
    if not condition:
        raise gdb.GdbError("FAIL " + what)
    passed += 1


def look_again():
    run("maintenance flush register-cache")
    run("maintenance flush dcache")


def seek(where):
    """What cannot be replayed says why on the terminal."""
    gdb.execute("monitor seek " + where)
    look_again()
