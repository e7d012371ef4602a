/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What gdb sees of a recording, of a branch that has left it, or of a guest that was never recorded. */
#ifndef DEBUGGER_GDB_TARGET_H
#define DEBUGGER_GDB_TARGET_H

#include "debugger/branch.h"
#include "gdbstub/target.h"

struct gdb_view {
	struct gdb_target target;
	struct timeline *timeline; /* NULL: a live guest ... */
	struct live *guest;	   /* ... which is this */
	struct machine *machine;
	struct branches branches;
	bool told_of_calls; /* that those in a live guest are not undone */
	/* While a run goes on. */
	struct gdb_session *session;
	const struct gdb_resume *resume;
	const struct gdb_point *hit; /* of the last breakpoint found wanted */
};

/* The view must stay where it is; the timeline is the caller's. */
void gdb_view_init(struct gdb_view *v, struct timeline *t);
/* A live guest as a target: forward only. The machine and `guest` are the caller's. */
void gdb_view_init_live(struct gdb_view *v, struct machine *m, struct live *guest);
/* Before the timeline is closed. */
void gdb_view_close(struct gdb_view *v);
/* Say that there is a branch now, or that it has been left. */
void gdb_view_tell_branch(struct gdb_view *v, struct gdb_session *s);
/* For timeline_options.interrupt: has gdb's user pressed Ctrl-C? ctx is the view. */
bool gdb_view_interrupted(void *ctx);

#endif
