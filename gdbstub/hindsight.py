# SPDX-License-Identifier: GPL-3.0-or-later
#
# hindsight's commands as commands of gdb: "hindsight seek 40%" for "monitor seek 40%". Load with
# "source hindsight.py" once gdb is connected or before. It lives with the stub because it knows nothing but the
# protocol: what commands there are, it asks the other side ("monitor help": one a line, the name first).
#
# What it adds to "monitor": completion, and a gdb that looks again. gdb remembers registers, frames and memory
# from one stop to the next, and a jump in time is no stop to it.
import gdb


def _ask(line):
    """What a monitor command prints; gdb.error if it fails."""
    return gdb.execute("monitor " + line, to_string=True)


def _names(prefix):
    """Commands that begin with the prefix, from the other side's help."""
    try:
        lines = _ask("help").splitlines()
    except gdb.error:
        return []
    names = [line.split()[0] for line in lines if line[:1].isalpha()]
    return sorted({name for name in names if name.startswith(prefix)})


def _position():
    try:
        return _ask("when")
    except gdb.error:
        return None


def look_again():
    """Make gdb forget what it has read of the machine."""
    gdb.execute("maintenance flush register-cache", to_string=True)
    gdb.execute("maintenance flush dcache", to_string=True)


class Hindsight(gdb.Command):
    """Ask hindsight: hindsight COMMAND [ARGUMENT]...

    "hindsight help" lists the commands."""

    def __init__(self):
        super().__init__("hindsight", gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        before = _position()
        try:
            print(_ask(argument or "help"), end="")
        except gdb.error as error:
            # gdb calls a refusal a protocol error; the reason has been printed before it.
            if "Protocol error" not in str(error):
                raise
            raise gdb.GdbError("hindsight: the command failed") from None
        if _position() != before:
            look_again()
            gdb.execute("frame", from_tty)

    def complete(self, text, word):
        if text.strip() != (word or "") or " " in text.lstrip():
            return gdb.COMPLETE_NONE
        return _names(word or "")


Hindsight()
