// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Running to breakpoints and watched memory, forward and back. Memory is watched through protected pages, which KVM is
 * not quite true to: where such a page serves as a page table, say, accessed bits are not set in it. So a stretch of
 * the recording is always run without watches too, and what was seen with them is believed only if both came out
 * alike. Else the stretch is gone through by comparing what the memory holds.
 */
#include "debugger/timeline_private.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Boundaries of the first stretch forward. Each is twice as long as the one before, up to where it is a checkpoint's work:
 * a stop near by is found soon, and one far away at little cost. */
#define STRETCH_MIN 4

static const struct position the_end = {UINT64_MAX, 0};

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

static int begin_stops(struct timeline *t, const struct timeline_stops *stops, bool watch, struct err *err)
{
	int rc = 0;

	t->seen = (struct stops_seen){.stops = stops};
	t->here = false;
	if (stops->breakpoints.len > BREAKPOINTS_MAX)
		return err_set(err, E2BIG, "more than %u breakpoints at a time are not supported", BREAKPOINTS_MAX);
	replayer_set_breakpoints(t->replay.replayer, &stops->breakpoints);
	if (watch && stops->n_watches) {
		rc = stops_arm(stops, t->replay.machine->mem, err);
		t->watched = rc == 0;
	}
	return rc;
}

static int end_stops(struct timeline *t, int rc, struct err *err)
{
	const struct breakpoint_set none = {0};

	replayer_set_breakpoints(t->replay.replayer, &none);
	if (t->watched)
		rc = stops_disarm(t->seen.stops, t->replay.machine->mem, rc, err);
	t->watched = false;
	t->seen = (struct stops_seen){0};
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
	if (!replayer_hit_breakpoint(t->replay.replayer) ||
	    (t->seen.stops->wanted && !t->seen.stops->wanted(t->seen.stops->ctx, t)))
		return false;
	*stop = (struct timeline_stop){.reason = TIMELINE_BREAKPOINT};
	return true;
}

/* Go to a position near by, also if the user wants to stop. */
static int go_back(struct timeline *t, struct position to, struct err *err)
{
	bool (*interrupt)(void *ctx) = t->o.interrupt;
	int rc;

	t->o.interrupt = NULL;
	rc = timeline_seek(t, to, err);
	t->o.interrupt = interrupt;
	return rc;
}

static int run_to_stop(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop, struct err *err)
{
	bool found = false;
	int rc = begin_stops(t, stops, true, err);

	*stop = (struct timeline_stop){.reason = TIMELINE_END};
	if (stops->here)
		replayer_count_here(t->replay.replayer);
	if (rc == 0)
		rc = timeline_run_until(t, the_end, stop, &found, err);
	return end_stops(t, rc, err);
}

/* A run has gone too far (*rc -EAGAIN): to where it is to begin again. False if it has not, or this fails. */
static bool is_again(struct timeline *t, struct position from, int *rc, struct err *err)
{
	if (*rc != -EAGAIN)
		return false;
	*rc = timeline_seek(t, from, err);
	return *rc == 0;
}

/* A run that went too far met no stop before that. It need not be made again from where it began, but from the checkpoint
 * before what went wrong, where a stop counts then. */
static void begin_later(struct timeline *t, struct position *from, bool *here)
{
	struct position at = timeline_find_checkpoint(t, (struct position){t->failed, 0})->at;

	if (position_order(at, *from) > 0) {
		*from = at;
		*here = true;
	}
}

int timeline_run_to_stop(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
			 struct err *err)
{
	struct position from = timeline_position(t);
	struct timeline_stops s = *stops;
	int rc;

	do {
		rc = run_to_stop(t, &s, stop, err);
		if (rc == -EAGAIN)
			begin_later(t, &from, &s.here);
	} while (is_again(t, from, &rc, err));
	if (rc == 0 && !timeline_at_end(t) && !timeline_position_known(t))
		rc = timeline_learn_position(t, err);
	stop->at = timeline_position(t);
	return rc;
}

/* --- a stretch ------------------------------------------------------------------------------- */

/* A stretch of the recording, and which of the stops in it is wanted. */
struct search {
	struct timeline *t;
	const struct timeline_stops *stops;
	struct position from, limit; /* a breakpoint at the limit is not in it ... */
	bool here;		     /* ... and one at `from` is, if this is set */
	bool last;		     /* the last one is wanted, else the first */
	uint64_t length;	     /* boundaries, forward */
	uint8_t *held;		     /* what the watched memory held, when it is compared */

	bool found;
	struct timeline_place at;
	struct timeline_stop stop;
};

static void note_stop(struct search *s, const struct timeline_stop *stop)
{
	struct timeline *t = s->t;
	struct timeline_place *at = &s->at;
	struct position from = s->found ? at->from : s->from, now = timeline_position(t);

	if (s->found && !s->last)
		return;
	if (from.boundary != now.boundary)
		from = (struct position){now.boundary, 0};
	at->nth = s->found && position_order(from, at->from) == 0 ? at->nth + 1 : 1;
	at->from = from;
	at->position = now;
	at->known = timeline_position_known(t);
	at->regs = event_regs(&t->replay.machine->vcpu[0]);
	at->in_user = timeline_in_user_mode(t) && !t->replay.machine->caps.step[1];
	s->stop = *stop;
	s->stop.at = now;
	s->found = true;
}

typedef int run_fn(struct search *s, struct timeline_stop *stop, bool *hit, struct err *err);

static int collect(struct search *s, run_fn *run, struct err *err)
{
	int rc = 0;

	s->found = false;
	if (s->here)
		replayer_count_here(s->t->replay.replayer);
	while (rc == 0) {
		struct timeline_stop stop;
		bool hit = false;
		int order;

		rc = run(s, &stop, &hit, err);
		order = position_order(timeline_position(s->t), s->limit);
		/* An access lies before the place where it shows. */
		if (rc < 0 || !hit || order > 0 || (order == 0 && stop.reason != TIMELINE_WATCH))
			break;
		note_stop(s, &stop);
		/* What is compared needs no belief that only the end of the stretch could give. */
		if (s->held && !s->last)
			break;
	}
	return rc;
}

/* --- by comparing ---------------------------------------------------------------------------- */

static bool loads_are_watched(const struct timeline_stops *stops)
{
	for (size_t i = 0; i < stops->n_watches; i++)
		if (stops->watches[i].kinds & WATCH_LOADS)
			return true;
	return false;
}

/* Bytes of all watches. */
static size_t watched_len(const struct timeline_stops *stops)
{
	size_t len = 0;

	for (size_t i = 0; i < stops->n_watches; i++)
		len += stops->watches[i].len;
	return len;
}

/* From now on it counts what is written. */
static int forget_written(struct timeline *t, struct err *err)
{
	int rc = memory_sync_dirty(t->replay.machine->mem, err);

	if (rc == 0)
		memory_dirty_clear(t->dirty);
	return rc;
}

/* A page that is watched was written since then; also if it holds what it did. */
static int watched_written(struct timeline *t, const struct timeline_stops *stops, bool *written, struct err *err)
{
	struct memory *mem = t->replay.machine->mem;
	int rc = 0;

	for (size_t i = 0; rc == 0 && !*written && i < stops->n_watches; i++) {
		const struct timeline_watch *w = &stops->watches[i];

		for (uint64_t at = w->gpa.v & PAGE_MASK; rc == 0 && !*written && at < w->gpa.v + w->len; at += PAGE_SIZE)
			rc = memory_page_written(mem, t->dirty, GPA(at), written, err);
	}
	return rc;
}

/* See what the watched memory holds now. Returns whether it is other than it was, and describes the first word of it. */
static bool compare(struct search *s, struct timeline_stop *change)
{
	struct memory *mem = s->t->replay.machine->mem;
	uint8_t *held = s->held;
	bool changed = false;

	for (size_t i = 0; i < s->stops->n_watches; i++) {
		const struct timeline_watch *w = &s->stops->watches[i];

		for (uint64_t at = 0; at < w->len; at += 8) {
			size_t len = w->len - at < 8 ? w->len - at : 8;
			uint64_t old = 0, now = 0;

			memcpy(&old, held + at, len);
			(void)memory_read(mem, GPA(w->gpa.v + at), &now, len);
			if (old == now)
				continue;
			memcpy(held + at, &now, len);
			if (!changed && change)
				*change = (struct timeline_stop){.reason = TIMELINE_WATCH,
								 .compared = true,
								 .gpa = GPA(w->gpa.v + at),
								 .len = (unsigned)len,
								 .old = old,
								 .now = now};
			changed = true;
		}
		held += w->len;
	}
	return changed;
}

/* Something may change between the present and the limit, which lies in the same boundary: step to it. */
static int step_to_change(struct search *s, struct position limit, struct timeline_stop *stop, bool *hit, struct err *err)
{
	struct timeline *t = s->t;
	int rc = 0;

	while (rc == 0 && !*hit && !timeline_at_end(t) && position_order(timeline_position(t), limit) < 0) {
		uint64_t rip = vcpu_regs(&t->replay.machine->vcpu[0])->rip;
		struct position next = timeline_position(t);
		struct timeline_stop change;
		bool breakpoint;

		next.steps++;
		rc = timeline_run_until(t, next, stop, hit, err);
		breakpoint = *hit && stop->reason == TIMELINE_BREAKPOINT;
		if (rc < 0 || !compare(s, &change) || (*hit && !breakpoint))
			continue;
		/* It lies before the breakpoint, which comes next. */
		if (breakpoint)
			replayer_count_here(t->replay.replayer);
		*stop = change;
		stop->rip = rip + 1;
		*hit = true;
	}
	return rc;
}

/* As run_freely, but KVM watches nothing: what devices store is told all the same. */
static int run_comparing(struct search *s, struct timeline_stop *stop, bool *hit, struct err *err)
{
	struct timeline *t = s->t;
	int rc = 0;

	while (rc == 0 && !*hit && !timeline_at_end(t) && position_order(timeline_position(t), s->limit) < 0) {
		struct position before, next;
		bool written;

		if (!timeline_position_known(t))
			rc = timeline_learn_position(t, err);
		before = timeline_position(t);
		next = (struct position){before.boundary + 1, 0};
		if (position_order(s->limit, next) < 0)
			next = s->limit;
		if (rc == 0)
			rc = forget_written(t, err);
		if (rc == 0)
			rc = timeline_run_until(t, next, stop, hit, err);
		written = *hit && stop->reason == TIMELINE_WATCH;
		if (rc == 0)
			rc = watched_written(t, s->stops, &written, err);
		if (rc < 0 || !written)
			continue;
		*hit = false;
		rc = timeline_seek(t, before, err);
		t->seen.hit = false;
		if (rc == 0)
			rc = step_to_change(s, next, stop, hit, err);
	}
	return rc;
}

/* --- believing ------------------------------------------------------------------------------- */

static int run_freely(struct search *s, struct timeline_stop *stop, bool *hit, struct err *err)
{
	return timeline_run_until(s->t, s->limit, stop, hit, err);
}

/* The machine stands at `from`. */
static int collect_once(struct search *s, struct err *err)
{
	struct memory *mem = s->t->replay.machine->mem;
	int rc;

	if (s->held)
		(void)compare(s, NULL);
	rc = begin_stops(s->t, s->stops, true, err);
	if (rc == 0 && s->held)
		rc = memory_lift_watches(mem, true, err);
	if (rc == 0)
		rc = collect(s, s->held ? run_comparing : run_freely, err);
	if (s->held)
		(void)memory_lift_watches(mem, false, NULL);
	return end_stops(s->t, rc, err);
}

static int collect_cautiously(struct search *s, struct err *err)
{
	int rc;

	do {
		rc = collect_once(s, err);
	} while (is_again(s->t, s->from, &rc, err));
	return rc;
}

static int collect_comparing(struct search *s, struct err *err)
{
	int rc;

	if (loads_are_watched(s->stops))
		return err_set(err, ENOTSUP,
			       "behind boundary %" PRIu64 " the guest uses the watched memory in a way in which reads of it "
			       "cannot be watched on this host; watch for writes",
			       s->from.boundary);
	s->held = calloc(1, watched_len(s->stops));
	if (!s->held)
		return err_set(err, ENOMEM, "out of memory for watches");
	rc = timeline_seek(s->t, s->from, err);
	if (rc == 0)
		rc = collect_cautiously(s, err);
	free(s->held);
	s->held = NULL;
	return rc;
}

/* What a disturbed guest would differ in. Not the devices: at a position they stand before or behind what comes to them
 * there. */
struct outcome {
	struct kvm_regs regs;
	uint64_t memory;
};

static int see_outcome(struct timeline *t, struct outcome *o, struct err *err)
{
	struct machine *m = t->replay.machine;
	int rc = vcpu_complete(&m->vcpu[0], err);

	o->regs = event_regs(&m->vcpu[0]);
	return rc < 0 ? rc : memory_digest(m->mem, &o->memory, err);
}

/* The machine stands at `from`. end: what it is like at the limit when nothing has disturbed it. */
static int search(struct search *s, const struct outcome *end, struct err *err)
{
	struct outcome now;
	int rc = collect_cautiously(s, err);

	if (!s->stops->n_watches || rc == -EINTR)
		return rc;
	/* Whatever goes wrong may be the watches' doing. */
	if (rc == 0) {
		rc = see_outcome(s->t, &now, err);
		if (rc < 0 || (now.memory == end->memory && memcmp(&now.regs, &end->regs, sizeof(now.regs)) == 0))
			return rc;
	}
	return collect_comparing(s, err);
}

/* --- forward --------------------------------------------------------------------------------- */

/* Without watches. possible: there may be a stop in it. */
static int run_stretch(struct search *s, bool *possible, struct err *err)
{
	struct timeline *t = s->t;
	uint64_t began = t->work;
	struct timeline_stop stop;
	bool hit;
	int rc = forget_written(t, err);

	if (rc < 0)
		return rc;
	s->from = timeline_position(t);
	s->limit = (struct position){s->from.boundary + s->length, 0};
	*possible = loads_are_watched(s->stops);
	rc = begin_stops(t, s->stops, false, err);
	if (s->here)
		replayer_count_here(t->replay.replayer);
	do {
		hit = false;
		if (rc == 0)
			rc = timeline_run_until(t, s->limit, &stop, &hit, err);
		*possible |= hit;
	} while (rc == 0 && hit);
	rc = end_stops(t, rc, err);
	if (timeline_at_end(t))
		s->limit = the_end;
	if (t->work - began < t->o.spacing)
		s->length *= 2;
	return rc == 0 ? watched_written(t, s->stops, possible, err) : rc;
}

static int search_forward(struct search *s, struct err *err)
{
	struct timeline *t = s->t;
	struct outcome end;
	bool possible;
	int rc;

	do {
		rc = run_stretch(s, &possible, err);
	} while (is_again(t, s->from, &rc, err));
	if (rc < 0 || !possible)
		return rc;
	rc = see_outcome(t, &end, err);
	if (rc == 0)
		rc = timeline_seek(t, s->from, err);
	return rc == 0 ? search(s, &end, err) : rc;
}

/* Stop there, as it was found. */
static int go_to_stop(struct search *s, struct timeline_stop *stop, struct err *err)
{
	struct timeline_stops stops = *s->stops;
	int rc;

	if (s->stop.compared)
		return timeline_seek(s->t, s->at.position, err);
	rc = timeline_seek(s->t, s->from, err);
	stops.here = s->here;
	return rc == 0 ? timeline_run_to_stop(s->t, &stops, stop, err) : rc;
}

static int continue_watching(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
			     struct err *err)
{
	struct search s = {.t = t, .stops = stops, .here = stops->here, .length = STRETCH_MIN};
	int rc = 0;

	while (rc == 0 && !s.found && !timeline_at_end(t)) {
		rc = search_forward(&s, err);
		/* Where the next stretch begins, this one's stops do not count. */
		s.here = s.here || (rc == 0 && !s.found);
	}
	*stop = s.found ? s.stop : (struct timeline_stop){.reason = TIMELINE_END};
	if (rc == 0 && s.found)
		rc = go_to_stop(&s, stop, err);
	/* Not past a stop that has not been looked for. */
	if (rc == -EINTR && go_back(t, s.from, NULL) < 0)
		rc = err_set(err, EIO, "the machine cannot be brought back to a known position");
	stop->at = timeline_position(t);
	return rc;
}

int timeline_continue(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
		      struct err *err)
{
	return stops->n_watches ? continue_watching(t, stops, stop, err) : timeline_run_to_stop(t, stops, stop, err);
}

/* --- back ------------------------------------------------------------------------------------ */

/* The last checkpoint strictly before the limit; where watches are to be believed, one that can be come to again. */
static const struct checkpoint *checkpoint_before(struct timeline *t, struct position limit, bool exact)
{
	struct position before = {limit.boundary - 1, UINT64_MAX};
	struct checkpoint *c;

	if (limit.steps)
		before = (struct position){limit.boundary, limit.steps - 1};
	c = timeline_find_checkpoint(t, before);
	while (exact && !c->exact && c != t->checkpoint)
		c--;
	return c;
}

/* From a checkpoint to s->limit, which is the present or another one. */
static int search_segment(struct search *s, const struct checkpoint *c, struct err *err)
{
	struct timeline *t = s->t;
	struct outcome end;
	int rc = 0;

	s->from = c->at;
	if (s->stops->n_watches) {
		if (position_order(s->limit, the_end) != 0)
			rc = timeline_seek(t, s->limit, err);
		if (rc == 0)
			rc = see_outcome(t, &end, err);
	}
	if (rc == 0)
		rc = timeline_restore_checkpoint(t, c, err);
	return rc == 0 ? search(s, &end, err) : rc;
}

/* Segment by segment backwards: each from a checkpoint to the next. */
static int search_backwards(struct search *s, struct err *err)
{
	struct timeline *t = s->t;
	int rc = 0;

	s->limit = timeline_at_end(t) ? the_end : timeline_position(t);
	while (rc == 0 && !s->found && position_order(s->limit, t->checkpoint[0].at) > 0) {
		const struct checkpoint *nearest = checkpoint_before(t, s->limit, s->stops->n_watches != 0);
		struct checkpoint c = *nearest;

		if (!timeline_is_untouched(t, nearest, s->limit, s->stops))
			rc = search_segment(s, &c, err);
		if (rc == 0 && !s->found)
			s->limit = c.at;
	}
	return rc;
}

int timeline_reverse_continue(struct timeline *t, const struct timeline_stops *stops,
			      struct timeline_stop *stop, struct err *err)
{
	struct search s = {.t = t, .stops = stops, .here = true, .last = true};
	int rc = search_backwards(&s, err);

	*stop = s.found ? s.stop : (struct timeline_stop){.reason = TIMELINE_BEGIN};
	/* Between there and where it began nothing has been found. */
	if (rc == -EINTR && go_back(t, s.limit, NULL) < 0)
		rc = err_set(err, EIO, "the machine cannot be brought back to a known position");
	if (rc == 0)
		rc = s.found ? timeline_find_place(t, stops, &s.at, err)
			     : timeline_seek(t, (struct position){0, 0}, err);
	/* The access has just been made there: back to before it. */
	if (rc < 0 || !s.found || stop->reason != TIMELINE_WATCH)
		return rc;
	if (!s.at.in_user)
		return timeline_reverse_step(t, 1, err);
	stop->user_rip = s.at.regs.rip;
	return 0;
}
