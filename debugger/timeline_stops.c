// SPDX-License-Identifier: GPL-3.0-or-later
/* Running forward and back to breakpoints and to accesses of watched memory. */
#include "debugger/timeline_private.h"

#include <errno.h>

int timeline_on_watched(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old, uint64_t now,
		      struct err *err)
{
	struct timeline *t = ctx;

	(void)err;
	stops_note_store(&t->seen, m, gpa, len, old, now);
	return 0;
}

int timeline_on_loaded(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err)
{
	struct timeline *t = ctx;

	(void)err;
	stops_note_load(&t->seen, m, gpa, len, value);
	return 0;
}

static int begin_stops(struct timeline *t, const struct timeline_stops *stops, struct err *err)
{
	t->seen.stops = stops;
	t->seen.hit = false;
	if (stops->breakpoints.len > BREAKPOINTS_MAX)
		return err_set(err, E2BIG, "more than %u breakpoints at a time are not supported", BREAKPOINTS_MAX);
	replayer_set_breakpoints(t->replay.replayer, &stops->breakpoints);
	return stops_arm(stops, t->replay.machine->mem, err);
}

static int end_stops(struct timeline *t, int rc, struct err *err)
{
	const struct breakpoint_set none = {0};

	replayer_set_breakpoints(t->replay.replayer, &none);
	rc = stops_disarm(t->seen.stops, t->replay.machine->mem, rc, err);
	t->seen.stops = NULL;
	return rc;
}

/* The last run paused at something that was asked for. */
bool timeline_stopped(struct timeline *t, struct timeline_stop *stop)
{
	if (t->seen.hit) {
		*stop = t->seen.first;
		t->seen.hit = false;
		return true;
	}
	if (!replayer_hit_breakpoint(t->replay.replayer))
		return false;
	*stop = (struct timeline_stop){.reason = TIMELINE_BREAKPOINT};
	return !t->seen.stops->wanted || t->seen.stops->wanted(t->seen.stops->ctx, t);
}

static int run_to_stop(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
		       struct err *err)
{
	const struct position end = {UINT64_MAX, 0};
	bool found = false;
	int rc = begin_stops(t, stops, err);

	*stop = (struct timeline_stop){.reason = TIMELINE_END};
	if (stops->here)
		replayer_count_here(t->replay.replayer);
	if (rc == 0)
		rc = timeline_run_until(t, end, stop, &found, err);
	return end_stops(t, rc, err);
}

int timeline_continue(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
		      struct err *err)
{
	struct position start = timeline_position(t);
	int rc;

	while ((rc = run_to_stop(t, stops, stop, err)) == -EAGAIN) {
		double caution = t->caution;

		rc = timeline_seek(t, start, err);
		t->caution = caution;
		if (rc == 0)
			rc = timeline_widen(t, err);
		if (rc < 0)
			break;
	}
	timeline_narrow(t);
	if (!timeline_at_end(t) && !timeline_position_known(t)) {
		/* On request, at the last known place; at a stop, there. */
		if (rc == 0)
			rc = timeline_learn_position(t, err);
		else if (rc == -EINTR && timeline_restore_checkpoint(t, timeline_find_checkpoint(t, timeline_position(t)), NULL) < 0)
			rc = err_set(err, EIO, "the machine cannot be brought back to a known position");
	}
	stop->at = timeline_position(t);
	return rc;
}

/* The last stop at or behind the checkpoint where the machine stands and before `limit`. */
static int last_stop(struct timeline *t, struct position limit, struct timeline_place *at, struct timeline_stop *stop,
		     bool *found, struct err *err)
{
	struct position from = timeline_position(t);
	int rc = 0;

	while (rc == 0) {
		struct timeline_stop here;
		bool hit = false;
		int order;

		rc = timeline_run_until(t, limit, &here, &hit, err);
		order = position_order(timeline_position(t), limit);
		/* An access lies before the place where it shows. */
		if (rc < 0 || !hit || order > 0 || (order == 0 && here.reason != TIMELINE_WATCH))
			break;
		*stop = here;
		stop->at = at->position = timeline_position(t);
		at->known = timeline_position_known(t);
		if (from.boundary != at->position.boundary)
			from = (struct position){at->position.boundary, 0};
		at->nth = position_order(from, at->from) == 0 && *found ? at->nth + 1 : 1;
		at->from = from;
		at->regs = event_regs(&t->replay.machine->vcpu[0]);
		at->in_user = timeline_in_user_mode(t) && !t->replay.machine->caps.step[1];
		*found = true;
	}
	return rc;
}

/* The last stop between a checkpoint and `limit`. */
static int segment(struct timeline *t, const struct checkpoint *c, struct position limit, struct timeline_place *at,
		   struct timeline_stop *stop, bool *found, struct err *err)
{
	int rc = timeline_restore_checkpoint(t, c, err);

	t->seen.hit = *found = false;
	replayer_count_here(t->replay.replayer);
	if (rc == 0)
		rc = last_stop(t, limit, at, stop, found, err);
	if (rc == -EAGAIN)
		*found = false;
	return rc;
}

/* Segment by segment backwards: each from a checkpoint to the next. */
static int find_backwards(struct timeline *t, struct timeline_place *at, struct timeline_stop *stop, bool *found,
			  struct err *err)
{
	struct position limit = timeline_at_end(t) ? (struct position){UINT64_MAX, 0} : timeline_position(t);
	int rc = 0;

	while (rc == 0 && !*found && position_order(limit, t->checkpoint[0].at) > 0) {
		struct position before = limit;
		const struct checkpoint *nearest;
		struct checkpoint c;

		/* Strictly before: a checkpoint at the limit holds nothing of it. */
		if (before.steps)
			before.steps--;
		else
			before = (struct position){before.boundary - 1, UINT64_MAX};
		nearest = timeline_find_checkpoint(t, before);
		c = *nearest;
		if (timeline_is_untouched(t, nearest, limit, t->seen.stops)) {
			limit = c.at;
			continue;
		}
		rc = segment(t, &c, limit, at, stop, found, err);
		if (rc == -EAGAIN)
			rc = timeline_widen(t, err);
		else
			limit = c.at;
	}
	return rc;
}

int timeline_reverse_continue(struct timeline *t, const struct timeline_stops *stops,
			      struct timeline_stop *stop, struct err *err)
{
	struct timeline_place at = {0};
	bool found = false;
	int rc = begin_stops(t, stops, err);

	*stop = (struct timeline_stop){.reason = TIMELINE_BEGIN};
	if (rc == 0)
		rc = find_backwards(t, &at, stop, &found, err);
	timeline_narrow(t);
	rc = end_stops(t, rc, err);
	if (rc == 0)
		rc = found ? timeline_find_place(t, stops, &at, err) : timeline_seek(t, (struct position){0, 0}, err);
	/* The access has just been made there: back to before it. */
	if (rc < 0 || !found || stop->reason != TIMELINE_WATCH)
		return rc;
	if (!at.in_user)
		return timeline_reverse_step(t, 1, err);
	stop->user_rip = at.regs.rip;
	return 0;
}
