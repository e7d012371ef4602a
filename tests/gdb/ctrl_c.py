# SPDX-License-Identifier: GPL-3.0-or-later
#
# Sourced by gdb before remote.py and replay.py: a Ctrl-C while gdb waits for the guest.
import os
import signal
import threading
import time

import gdb

stops = []
gdb.events.stop.connect(stops.append)


def with_ctrl_c(command, seconds=0.3):
    """Press Ctrl-C while gdb waits: what it stopped for, and how long that took."""
    pressed = []

    def press():
        time.sleep(seconds)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    stops.clear()
    reason = None
    try:
        try:
            gdb.execute(command, to_string=True)
            reason = stops[-1].stop_signal if isinstance(stops[-1], gdb.SignalEvent) else "it ended by itself"
        except KeyboardInterrupt:
            reason = "SIGINT"  # gdb was thinking, and stopped by itself
        thread.join()
    except KeyboardInterrupt:
        thread.join()
    return reason, time.monotonic() - pressed[0]
