/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What gdb sees of a recording: the timeline as a target of the gdb stub. */
#ifndef DEBUGGER_GDB_TARGET_H
#define DEBUGGER_GDB_TARGET_H

#include "debugger/timeline.h"
#include "gdbstub/target.h"

struct gdb_view {
	struct gdb_target target;
	struct timeline *timeline;
	/* While a run goes on. */
	struct gdb_session *session;
	const struct gdb_resume *resume;
	const struct gdb_point *hit; /* of the last breakpoint found wanted */
};

/* The view must stay where it is; the timeline is the caller's. */
void gdb_view_init(struct gdb_view *v, struct timeline *t);
/* For timeline_options.interrupt: has gdb's user pressed Ctrl-C? ctx is the view. */
bool gdb_view_interrupted(void *ctx);

#endif
