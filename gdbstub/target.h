/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the stub needs of the machine that gdb looks at. The debugger implements it over the
 * timeline of a recording, or over a live machine; the tests, over a model. The stub calls one
 * operation at a time, from the thread that called gdb_session_serve, and never while the guest
 * runs.
 *
 * Operations return 0 or a negative errno with a sentence in err, which the user of gdb is shown
 * where gdb has a place for it. "Linear" addresses are what the CPU makes of CS:RIP and the like,
 * before paging.
 */
#ifndef GDBSTUB_TARGET_H
#define GDBSTUB_TARGET_H

#include "base/err.h"
#include "gdbstub/point.h"
#include "gdbstub/regs.h"

/* gdb's connection, to the operations that take time; they call the three functions at the end. */
struct gdb_session;

/* Signals by gdb's numbers (gdb's include/gdb/signals.def). */
enum { GDB_SIGNAL_NONE = 0, GDB_SIGNAL_INT = 2, GDB_SIGNAL_TRAP = 5 };

/* Threads are vCPUs, numbered from 1; or one of these. */
enum { GDB_THREAD_ANY = 0, GDB_THREAD_ALL = -1 };

enum gdb_space { GDB_LINEAR, GDB_PHYSICAL };

enum gdb_run {
	GDB_RUN_CONTINUE,
	GDB_RUN_STEP,	    /* one instruction of the thread */
	GDB_RUN_STEP_RANGE, /* step the thread while its RIP is in [start, end) */
};

struct gdb_resume {
	enum gdb_run run;
	bool reverse;
	int thread;  /* that steps; to continue: the only one that may run, or GDB_THREAD_ALL */
	bool others; /* the other threads run meanwhile */
	bool skip_interrupts; /* a step passes over a handler that an interrupt starts */
	uint64_t start, end;
	/* All that is set now. Going forward, a breakpoint on RIP is hit at once by "continue", not
	 * by a step. In reverse the place where it starts is no hit; the last hit before it is
	 * where to stop. */
	const struct gdb_points *points;
};

#define GDB_WATCH_HITS_MAX 16

/*
 * Where the run ended, and why; several reasons can hold at once. A watchpoint stops behind the
 * access when going forward, and before it in reverse, with the old value in memory. A
 * GDB_POINT_WRITE is hit only by a store that changes a watched byte.
 */
struct gdb_stop {
	int thread;
	unsigned signal; /* GDB_SIGNAL_TRAP unless the run was interrupted (GDB_SIGNAL_INT) */
	bool soft, hard; /* at a breakpoint of that type */
	unsigned n_watches;
	struct {
		enum gdb_point_type type;
		uint64_t addr; /* of the first byte that was accessed and is watched */
	} watches[GDB_WATCH_HITS_MAX];
	/* There is nothing before or behind this place. gdb takes it as the only reason there is,
	 * so they are for when there is no other. */
	bool history_begin, history_end;
	bool exited; /* the guest is over, with this status; a recording has an end instead */
	uint8_t status;
};

struct gdb_target_ops {
	/* groups: GDB_REGS_*, what is wanted of r. */
	int (*read_registers)(void *ctx, int thread, unsigned groups, struct gdb_registers *r,
			      struct err *err);
	/* r holds all of groups. Writing to the past starts a branch, and says so by
	 * gdb_session_print. */
	int (*write_registers)(void *ctx, struct gdb_session *s, int thread, unsigned groups,
			       const struct gdb_registers *r, struct err *err);
	/* Original bytes where the machine has patched its own in. *done may be less than n if the
	 * rest is not there; it is an error only if nothing is. */
	int (*read_memory)(void *ctx, int thread, enum gdb_space space, uint64_t addr, void *data,
			   size_t n, size_t *done, struct err *err);
	/* All of it or nothing. */
	int (*write_memory)(void *ctx, struct gdb_session *s, int thread, enum gdb_space space,
			    uint64_t addr, const void *data, size_t n, struct err *err);
	/* Can this point be had? Setting it is for resume; NULL if all can. */
	int (*check_point)(void *ctx, const struct gdb_point *p, struct err *err);
	/* Run, and stop with *stop filled. Asks gdb_session_interrupted several times a second, and
	 * stops at once when it says so, wherever that is; in reverse, where it began or anywhere
	 * before. */
	int (*resume)(void *ctx, struct gdb_session *s, const struct gdb_resume *r,
		      struct gdb_stop *stop, struct err *err);
	/* Go where args say, or to the start if empty; gdb's "run". NULL if the target cannot. */
	int (*restart)(void *ctx, struct gdb_session *s, const char *args, struct err *err);
	/* gdb's "monitor LINE": prints by gdb_session_print. -EINTR if interrupted. */
	int (*monitor)(void *ctx, struct gdb_session *s, const char *line, struct err *err);
	/* gdb's "kill"; NULL if nothing is to be done. */
	void (*kill)(void *ctx);
	/* A word on the thread for "info threads": mode, position. */
	void (*describe_thread)(void *ctx, int thread, char *text, size_t size);
};

struct gdb_target {
	const struct gdb_target_ops *ops;
	void *ctx;
	int threads;
	bool can_reverse;
	bool can_skip; /* gdb_resume.skip_interrupts */
	bool avx;
};

/* --- For the operations --------------------------------------------------------------------- */

/* The user has pressed Ctrl-C, or gdb is gone: come back. One system call, so not after each
 * instruction. */
bool gdb_session_interrupted(struct gdb_session *s);
/* Show text to the user of gdb: at once while a run or a command of the monitor goes on, else
 * before the next stop. At most 1,023 bytes a call. */
void gdb_session_print(struct gdb_session *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The conditions of a breakpoint that the thread stands at hold, as the machine is now. */
bool gdb_target_point_holds(const struct gdb_target *t, int thread, const struct gdb_point *p);

#endif
