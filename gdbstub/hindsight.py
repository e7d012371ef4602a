# SPDX-License-Identifier: GPL-3.0-or-later
#
# hindsight's commands as commands of gdb: "hindsight seek 40%" for "monitor seek 40%". Load with
# "source hindsight.py" once gdb is connected or before. It lives with the stub because it knows nothing but the
# protocol: what commands there are, it asks the other side ("monitor help": one a line, the name first).
#
# What it adds to "monitor": completion, and a gdb that looks again. gdb remembers registers, frames and memory
# from one stop to the next, and a jump in time is no stop to it. And symbols that follow a kernel that moves.
import re

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


class Slide:
    """Has gdb's symbols follow a Linux that has moved itself (KASLR).

    How far, the CPU's entries for system calls and page faults tell: they must agree. Early in the guest's life they do
    not, so each stop looks again until they do."""

    FAULT_NAMES = ("asm_exc_page_fault", "page_fault")

    def __init__(self):
        self._linked = {}  # file: where it says that the entry for system calls lies
        self._settled = False
        gdb.events.new_objfile.connect(self._begin_anew)
        gdb.events.stop.connect(self.follow)

    def _begin_anew(self, _event):
        self._settled = False

    @staticmethod
    def _value(expression):
        return int(gdb.parse_and_eval("(unsigned long)" + expression))

    def _page_fault_gate(self):
        gate = bytes(gdb.selected_inferior().read_memory(self._value("$idt_base") + 14 * 16, 16))
        return int.from_bytes(gate[0:2] + gate[6:12], "little")

    def _moved(self, entry):
        """How far everything lies from where gdb has it; None if that cannot be told."""
        try:
            moved = self._value("$lstar") - entry
            gate = self._page_fault_gate()
        except gdb.error:
            return None
        for name in self.FAULT_NAMES:
            try:
                if gate - self._value("&" + name) == moved and moved % 4096 == 0:
                    return moved
            except gdb.error:
                pass
        return None

    def follow(self, _event=None):
        name = gdb.current_progspace().filename
        if self._settled or not name:
            return
        try:
            entry = self._value("&entry_SYSCALL_64")
        except gdb.error:
            self._settled = True  # another kernel, or no symbols
            return
        linked = self._linked.setdefault(name, entry)
        moved = self._moved(entry)
        if moved:
            slide = entry + moved - linked
            gdb.execute("symbol-file -o %d %s" % (slide, name), to_string=True)
            print("hindsight: the kernel runs 0x%x above where its file says" % (slide % (1 << 64)))
        self._settled = moved is not None


# Commands that take an address: an expression will do, which has one, or is one.
_OF_ADDRESS = ("translate", "last-write")


def _address(expression):
    """What to ask for an expression: address and length."""
    value = gdb.parse_and_eval(expression)
    if value.address is not None and value.type.strip_typedefs().code != gdb.TYPE_CODE_FUNC:
        return "0x%x %d" % (int(value.address.cast(gdb.lookup_type("unsigned long"))), value.type.sizeof)
    return "0x%x 8" % int(value.cast(gdb.lookup_type("unsigned long")))


def _translated(line):
    """The line with its expression, if it has one, made an address."""
    command, _, rest = line.strip().partition(" ")
    if command not in _OF_ADDRESS or not rest:
        return line
    address = _address(rest)
    return command + " " + (address if command == "last-write" else address.split()[0])


def _last_write(line):
    """Ask, and name the instruction that the answer speaks of."""
    try:
        answer = _ask(line)
    except gdb.error:
        # What was printed is lost with the error: once more, for the user to read.
        gdb.execute("monitor " + line)
        return
    print(answer, end="")
    place = re.search(r"instruction (?:at|of user code before) (0x[0-9a-f]+)", answer)
    if place:
        gdb.execute("info line *" + place.group(1))


class Hindsight(gdb.Command):
    """Ask hindsight: hindsight COMMAND [ARGUMENT]...

    "hindsight help" lists the commands."""

    def __init__(self):
        super().__init__("hindsight", gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        before = _position()
        line = _translated(argument or "help")
        try:
            if line.startswith("last-write"):
                _last_write(line)
            else:
                gdb.execute("monitor " + line)
        except gdb.error as error:
            # gdb calls a refusal a protocol error; the reason has been printed before it.
            if "Protocol error" not in str(error):
                raise
            raise gdb.GdbError("hindsight: the command failed") from None
        if _position() != before:
            look_again()
            _slide.follow()
            gdb.execute("frame", from_tty)

    def complete(self, text, word):
        command, space, _ = text.lstrip().partition(" ")
        if space:
            return gdb.COMPLETE_EXPRESSION if command in _OF_ADDRESS else gdb.COMPLETE_NONE
        if text.strip() != (word or ""):
            return gdb.COMPLETE_NONE
        return _names(word or "")


Hindsight()
_slide = Slide()
