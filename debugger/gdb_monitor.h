/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Commands of gdb's "monitor" on a recording. */
#ifndef DEBUGGER_GDB_MONITOR_H
#define DEBUGGER_GDB_MONITOR_H

#include "debugger/gdb_target.h"

/* v->session is set. */
int gdb_monitor_run(struct gdb_view *v, const char *line, struct err *err);
/* Go to a position (POS, or N% of the boundaries of the trace). */
int gdb_monitor_seek(struct gdb_view *v, const char *where, struct err *err);

#endif
