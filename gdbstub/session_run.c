// SPDX-License-Identifier: GPL-3.0-or-later
/* Requests that move the guest, and the stop replies that answer them. */
#include "gdbstub/session_internal.h"

#include <errno.h>
#include <inttypes.h>

/* Names in stop replies, by type of point. */
static const char *const watch_names[GDB_POINT_TYPES] = {
	[GDB_POINT_WRITE] = "watch", [GDB_POINT_READ] = "rwatch", [GDB_POINT_ACCESS] = "awatch"};

/* gdb asks for these after each stop; in the stop reply they spare it a round trip. */
static void expedite(struct gdb_session *s)
{
	static const unsigned numbers[] = {GDB_REGNUM_RBP, GDB_REGNUM_RSP, GDB_REGNUM_RIP};
	struct gdb_registers regs;
	struct err err;

	if (session_read_registers(s, GDB_REGS_GENERAL, &regs, &err))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		gdb_put_text(&s->reply, "%02x:", numbers[i]);
		gdb_put_hex(&s->reply, gdb_reg_bytes(&regs, numbers[i]), gdb_reg_size(numbers[i]));
		gdb_put_text(&s->reply, ";");
	}
}

/* gdb keeps the last reason it reads, and has others to find out for itself (a breakpoint is where
 * RIP is; what a watched address holds, only the watch makes it look): so watches come last but for
 * the end of history. */
static void reply_stop(struct gdb_session *s, const struct gdb_stop *stop)
{
	struct buf *b = &s->reply;

	if (stop->exited) {
		gdb_put_text(b, "W%02x", stop->status);
		return;
	}
	/* gdb takes the thread of a stop for the one it has selected. */
	s->stopped_thread = stop->thread;
	s->general_thread = stop->thread;
	s->run_thread = GDB_THREAD_ANY;
	gdb_put_text(b, "T%02xthread:%x;", stop->signal, stop->thread);
	expedite(s);
	if (stop->soft && s->soft_stops)
		gdb_put_text(b, "swbreak:;");
	if (stop->hard && s->hard_stops)
		gdb_put_text(b, "hwbreak:;");
	for (unsigned i = 0; i < stop->n_watches; i++)
		gdb_put_text(b, "%s:%" PRIx64 ";", watch_names[stop->watches[i].type],
			     stop->watches[i].addr);
	if (stop->history_begin)
		gdb_put_text(b, "replaylog:begin;");
	if (stop->history_end)
		gdb_put_text(b, "replaylog:end;");
}

void session_stop_reason(struct gdb_session *s)
{
	const struct gdb_stop stop = {.thread = s->stopped_thread, .signal = GDB_SIGNAL_TRAP};

	reply_stop(s, &stop);
}

/* One command of gdb can be many runs ("stepi 1000", a breakpoint with a condition that gdb
 * evaluates), and a Ctrl-C can come between two of them. It stops the next run, unless that is so
 * late that a user has asked for it. */
#define LATE_BREAK_NS (200 * NSEC_PER_MSEC)

static bool take_late_break(struct gdb_session *s)
{
	bool late = s->late_break_ns && session_now() - s->late_break_ns < LATE_BREAK_NS;

	s->late_break_ns = 0;
	return late;
}

static void run(struct gdb_session *s, struct gdb_resume *r)
{
	struct gdb_stop stop = {.thread = s->stopped_thread, .signal = GDB_SIGNAL_TRAP};
	struct err err;
	int rc;

	if (take_late_break(s)) {
		stop.signal = GDB_SIGNAL_INT;
		reply_stop(s, &stop);
		return;
	}
	r->points = &s->points;
	r->skip_interrupts = (s->step_flags & (STEP_NO_IRQ | STEP_NO_TIMER)) != 0;
	session_begin(s, true);
	rc = s->target->ops->resume(s->target->ctx, s, r, &stop, &err);
	session_end(s);
	if (rc)
		session_reply_error_text(s, &err);
	else
		reply_stop(s, &stop);
}

/* What the actions of the packet mean for the thread; the first that fits counts. */
static const struct gdb_action *action_of(const struct gdb_request *q, int thread)
{
	for (unsigned i = 0; i < q->n_actions; i++) {
		const struct gdb_action *a = &q->actions[i];

		if (a->thread == thread || a->thread == GDB_THREAD_ALL ||
		    a->thread == GDB_THREAD_ANY)
			return a;
	}
	return NULL;
}

/* c and s are for the thread of Hc; others run too unless gdb has chosen one. */
static void select_threads(struct gdb_session *s, struct gdb_resume *r)
{
	bool chosen = s->run_thread > 0;

	r->others = !chosen;
	r->thread = chosen ? s->run_thread : s->stopped_thread;
	if (s->request.actions[0].kind == GDB_STEP)
		r->run = GDB_RUN_STEP;
	else if (!chosen)
		r->thread = GDB_THREAD_ALL;
}

/* False if no thread is to run. */
static bool assign_actions(struct gdb_session *s, struct gdb_resume *r)
{
	const struct gdb_action *stepping = NULL;
	int running = 0;

	for (int t = 1; t <= s->target->threads; t++) {
		const struct gdb_action *a = action_of(&s->request, t);

		if (!a || a->kind == GDB_STAY)
			continue;
		if (a->kind == GDB_CONTINUE) {
			running++;
			if (!stepping)
				r->thread = t;
		} else if (!stepping) {
			stepping = a;
			r->thread = t;
		}
	}
	if (stepping) {
		r->run = stepping->kind == GDB_STEP ? GDB_RUN_STEP : GDB_RUN_STEP_RANGE;
		r->start = stepping->start;
		r->end = stepping->end;
		r->others = running > 0;
		return true;
	}
	/* gdb holds all but one, or none (its scheduler-locking); some held are as none. */
	r->others = running > 1 || running == s->target->threads;
	if (r->others)
		r->thread = GDB_THREAD_ALL;
	return running > 0;
}

static int set_pc(struct gdb_session *s, uint64_t pc, struct err *err)
{
	struct gdb_registers regs;
	int rc = session_read_registers(s, GDB_REGS_GENERAL, &regs, err);

	if (rc)
		return rc;
	regs.rip = pc;
	return s->target->ops->write_registers(s->target->ctx, s, s->general_thread,
					       GDB_REGS_GENERAL, &regs, err);
}

void session_run_forward(struct gdb_session *s)
{
	struct gdb_resume r = {.run = GDB_RUN_CONTINUE};
	struct err err;

	if (s->request.has_pc) {
		int rc = set_pc(s, s->request.addr, &err);

		if (rc) {
			session_reply_error(s, rc, &err);
			return;
		}
	}
	if (s->request.selected) {
		select_threads(s, &r);
	} else if (!assign_actions(s, &r)) {
		const struct gdb_stop stop = {.thread = s->stopped_thread,
					      .signal = GDB_SIGNAL_NONE};

		reply_stop(s, &stop);
		return;
	}
	run(s, &r);
}

void session_run_reverse(struct gdb_session *s, enum gdb_run kind)
{
	struct gdb_resume r = {.run = kind, .reverse = true, .others = true};

	if (!s->target->can_reverse) {
		struct err err;

		err_set(&err, ENOTSUP, "only a recording can run backwards");
		session_reply_error_text(s, &err);
		return;
	}
	r.thread = s->run_thread > 0 ? s->run_thread : s->stopped_thread;
	if (kind == GDB_RUN_CONTINUE)
		r.thread = GDB_THREAD_ALL;
	run(s, &r);
}

void session_restart(struct gdb_session *s)
{
	struct err err;
	int rc;

	if (!s->target->ops->restart)
		return; /* an empty reply */
	s->silent = !s->request.number;
	buf_put_u8(&s->request.data, 0);
	if (s->request.data.failed)
		return;
	session_begin(s, false);
	rc = s->target->ops->restart(s->target->ctx, s, (const char *)s->request.data.data, &err);
	session_end(s);
	if (rc) {
		session_reply_error(s, rc, &err);
		return;
	}
	s->end = GDB_END_LOST; /* a kill or detach before it is history */
	session_stop_reason(s);
}
