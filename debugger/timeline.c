// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/timeline_private.h"

#include "debugger/begin.h"
#include "debugger/index.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A run forward comes back this often, for a checkpoint, for the user, and for progress. */
#define SLICE_NS (20 * NSEC_PER_MSEC)
#define PROGRESS_NS (250 * NSEC_PER_MSEC)
/* Going back, a checkpoint is left this many steps before the place: the steps back that follow begin there. */
#define LEAD_STEPS 64
/* No boundary has so many: to seek there is to come to the next one, over steps that are counted. */
#define STEPS_BEYOND (1ull << 40)
/* Of the way from a checkpoint to the present, its distance to the next may be at least one part in so many. */
#define THINNING 6
#define CHECKPOINTS_MAX 512

struct machine *timeline_machine(struct timeline *t)
{
	return t->replay.machine;
}

struct position timeline_position(const struct timeline *t)
{
	return replayer_position(t->replay.replayer);
}

const struct trace_machine *timeline_trace(const struct timeline *t)
{
	return &t->replay.file->tm;
}

const char *timeline_path(const struct timeline *t)
{
	return t->path;
}

struct snapshots *timeline_snapshots(struct timeline *t)
{
	return t->snapshots;
}

bool timeline_at_end(const struct timeline *t)
{
	return t->replay.machine->end != END_NONE;
}

int timeline_last(struct timeline *t, struct position *last, struct err *err)
{
	int rc = t->last.boundary ? 0 : replay_file_last(t->path, &t->last.boundary, err);

	*last = t->last;
	return rc;
}

/* --- checkpoints ----------------------------------------------------------------------------- */

struct checkpoint *timeline_find_checkpoint(struct timeline *t, struct position target)
{
	unsigned low = 0, high = t->checkpoints;

	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;
		const struct checkpoint *c = &t->checkpoint[middle];
		int order = position_order(c->at, target);

		if (order < 0 || (order == 0 && c->exact))
			low = middle;
		else
			high = middle;
	}
	return &t->checkpoint[low];
}

/* What was written before it was then written before the next one. */
static void pass_on_written(struct timeline *t, unsigned i)
{
	struct page_set *here = t->checkpoint[i].written, **next;

	if (i + 1 < t->checkpoints) {
		next = &t->checkpoint[i + 1].written;
		if (here && *next) {
			page_set_join(*next, here);
		} else {
			free(*next);
			*next = NULL;
		}
	}
	free(here);
}

static void drop_checkpoint(struct timeline *t, unsigned i)
{
	pass_on_written(t, i);
	snapshot_delete(t->snapshots, t->checkpoint[i].snapshot);
	t->checkpoints--;
	memmove(&t->checkpoint[i], &t->checkpoint[i + 1],
		(t->checkpoints - i) * sizeof(t->checkpoint[0]));
}

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* Far from the present, gaps may be wide: drop what leaves no gap wider than its part of the way here. The first one
 * stays. */
static void thin(struct timeline *t)
{
	for (unsigned i = t->checkpoints; i-- > 1;) {
		uint64_t before = t->checkpoint[i - 1].work, after;

		if (t->checkpoint[i].kept)
			continue;
		after = i + 1 < t->checkpoints ? t->checkpoint[i + 1].work : t->checkpoint[i].work;
		if (distance(after, before) * THINNING < distance(t->work, t->checkpoint[i].work))
			drop_checkpoint(t, i);
	}
	if (t->checkpoints - t->kept >= CHECKPOINTS_MAX)
		for (unsigned i = t->checkpoints - 1; i > 1; i -= 2)
			if (!t->checkpoint[i - 1].kept)
				drop_checkpoint(t, i - 1);
}

static void on_written(void *ctx, uint64_t page)
{
	struct timeline *t = ctx;

	page_set_add(&t->written, page);
}

/* The machine is as in this snapshot, at this place. */
static void begin_written(struct timeline *t, const struct snapshot *s, struct position at)
{
	page_set_clear(&t->written);
	t->written_since = s->number;
	t->written_from = at;
}

/* All that was written since checkpoint c, and perhaps more; NULL: not known, or no memory for it. */
static struct page_set *written_since(const struct timeline *t, const struct checkpoint *c)
{
	struct page_set *copy;

	if (!c || (t->written_since != c->snapshot->number && position_order(t->written_from, c->at) >= 0))
		return NULL;
	copy = malloc(sizeof(*copy));
	if (copy)
		*copy = t->written;
	return copy;
}

static bool is_written(const struct page_set *set, const struct timeline_watch *w)
{
	uint64_t last = memory_page_number(GPA(w->gpa.v + w->len - 1));

	for (uint64_t page = memory_page_number(w->gpa); page <= last; page++)
		if (page_set_has(set, page))
			return true;
	return false;
}

bool timeline_is_untouched(const struct timeline *t, const struct checkpoint *c, struct position limit,
			   const struct timeline_stops *stops)
{
	const struct checkpoint *end = t->checkpoint + t->checkpoints;

	if (stops->breakpoints.len)
		return false;
	do {
		if (++c == end || !c->written)
			return false;
		for (size_t i = 0; i < stops->n_watches; i++)
			if ((stops->watches[i].kinds & WATCH_LOADS) || is_written(c->written, &stops->watches[i]))
				return false;
	} while (position_order(c->at, limit) < 0);
	return position_order(c->at, limit) == 0;
}

bool timeline_in_user_mode(struct timeline *t)
{
	return vcpu_cpl(&t->replay.machine->vcpu[0], NULL) == 3;
}

/* Put a checkpoint behind the i-th that are before it. */
static int insert_checkpoint(struct timeline *t, unsigned i, const struct checkpoint *c, struct err *err)
{
	if (t->checkpoints == t->room) {
		unsigned room = t->room ? 2 * t->room : 64;
		struct checkpoint *more = realloc(t->checkpoint, room * sizeof(*more));

		if (!more)
			return err_set(err, ENOMEM, "out of memory for checkpoints");
		t->checkpoint = more;
		t->room = room;
	}
	memmove(&t->checkpoint[i + 1], &t->checkpoint[i],
		(t->checkpoints - i) * sizeof(t->checkpoint[0]));
	t->checkpoint[i] = *c;
	t->checkpoints++;
	t->kept += c->kept;
	return 0;
}

int timeline_freeze(struct timeline *t, const char *label, struct snapshot **s, struct err *err)
{
	return index_freeze(t->snapshots, &t->replay, label, s, err);
}

bool timeline_position_known(const struct timeline *t)
{
	return replayer_position_known(t->replay.replayer);
}

/* Freeze the present, if that can be. Not being able to is no error: later places will do. */
static int add_checkpoint(struct timeline *t, struct err *err)
{
	struct position at = timeline_position(t);
	struct checkpoint *c = t->checkpoints ? timeline_find_checkpoint(t, at) : NULL;
	struct page_set *written;
	unsigned i = c ? (unsigned)(c - t->checkpoint) + 1 : 0;
	struct snapshot *s;
	int rc;

	if (c && position_order(c->at, at) == 0)
		return 0;
	rc = timeline_freeze(t, NULL, &s, err);
	if (rc == -EBUSY)
		return 0;
	if (rc < 0)
		return rc;
	/* What machine_save completed may have been counted. */
	at = timeline_position(t);
	written = written_since(t, c);
	rc = insert_checkpoint(t, i,
			       &(struct checkpoint){.at = at,
						    .exact = at.steps == 0 || !timeline_in_user_mode(t),
						    .work = t->work,
						    .snapshot = s,
						    .written = written},
			       err);
	if (rc < 0) {
		free(written);
		snapshot_delete(t->snapshots, s);
		return rc;
	}
	begin_written(t, s, at);
	thin(t);
	return 0;
}

/* The trace's own checkpoints are there from the start. */
static int adopt_index(struct timeline *t, struct err *err)
{
	struct index_figures f;
	int rc = index_load(t->snapshots, t->path, &f, err);

	for (struct snapshot *s = t->checkpoint[0].snapshot->next; rc == 0 && s; s = s->next) {
		struct checkpoint c = {.at = {s->boundary, 0}, .exact = true, .kept = true, .snapshot = s};
		struct index_note note;

		rc = index_read_note(s, &note, err);
		c.work = note.work;
		if (rc == 0)
			rc = insert_checkpoint(t, t->checkpoints, &c, err);
	}
	return rc;
}

int timeline_thaw(struct timeline *t, struct snapshot *s, struct err *err)
{
	int rc = index_restore(t->snapshots, &t->replay, s, err);

	begin_written(t, s, timeline_position(t));
	t->work = timeline_find_checkpoint(t, timeline_position(t))->work;
	t->restores++;
	return rc;
}

int timeline_restore_checkpoint(struct timeline *t, const struct checkpoint *c, struct err *err)
{
	return timeline_thaw(t, c->snapshot, err);
}

/* --- going ----------------------------------------------------------------------------------- */

bool timeline_begin_way(struct timeline *t, uint64_t to)
{
	uint64_t from = timeline_position(t).boundary;
	struct position last;

	if (!t->o.progress || t->way.on)
		return false;
	/* Where the end is is told by the trace; if it cannot be read, that is told by who needs it. */
	if (timeline_last(t, &last, NULL) == 0 && to > last.boundary)
		to = last.boundary;
	t->way = (struct way){.on = to != from, .from = from, .to = to, .at = from, .began = host_ns()};
	return t->way.on;
}

void timeline_end_way(struct timeline *t, bool began)
{
	if (!began)
		return;
	if (t->way.told)
		t->o.progress(t->o.progress_ctx, 1, 0);
	t->way.on = false;
}

static void tell_progress(struct timeline *t)
{
	struct way *w = &t->way;
	uint64_t now = host_ns(), at = timeline_position(t).boundary;
	bool back = w->to < w->from;
	double part;

	if (!w->on)
		return;
	/* Each bit of a search goes forward, and a run may begin again. */
	if (back ? at < w->at : at > w->at)
		w->at = at;
	if (now - (w->told ? w->told : w->began) < PROGRESS_NS)
		return;
	w->told = now;
	part = (double)distance(w->at, w->from) / (double)distance(w->to, w->from);
	if (part > 1)
		part = 1;
	t->o.progress(t->o.progress_ctx, part,
		      part > 0 ? (double)(now - w->began) / (double)NSEC_PER_SEC * (1 - part) / part : INFINITY);
}

/* On request, at the last place whose position is known. */
static int be_interrupted(struct timeline *t, struct err *err)
{
	if (!timeline_at_end(t) && !timeline_position_known(t) &&
	    timeline_restore_checkpoint(t, timeline_find_checkpoint(t, timeline_position(t)), NULL) < 0)
		return err_set(err, EIO, "the machine cannot be brought back to a known position");
	return err_set(err, EINTR, "interrupted");
}

/* A run that began at `from` went too far: back to before the boundary, since in it a landmark may have been passed
 * unnoticed. */
static int try_again(struct timeline *t, struct position from, struct err *err)
{
	from.steps = 0;
	return timeline_restore_checkpoint(t, timeline_find_checkpoint(t, from), err);
}

/* At the boundary with the time that is sought. */
static bool is_time(const struct timeline *t)
{
	return t->time && t->replay.machine->vtime >= t->time && timeline_position_known(t) &&
	       timeline_position(t).steps == 0;
}

/* Not where KVM watches memory: see timeline.watched. */
static bool checkpoint_is_due(struct timeline *t)
{
	const struct checkpoint *last = timeline_find_checkpoint(t, timeline_position(t));

	return t->work - last->work >= t->o.spacing && !timeline_at_end(t) && !t->watched;
}

int timeline_run_until(struct timeline *t, struct position target, struct timeline_stop *stop, bool *found,
		     struct err *err)
{
	bool due = checkpoint_is_due(t);
	int rc = 0;

	while (rc == 0 && !timeline_at_end(t) && position_order(timeline_position(t), target) < 0 && !is_time(t)) {
		struct position from = timeline_position(t), next = {from.boundary + 1, 0};
		uint64_t began = host_cpu_ns();

		/* Where nothing counts, a checkpoint is made at a boundary. */
		if (!due || position_order(target, next) < 0)
			next = target;
		if (found && t->here)
			replayer_count_here(t->replay.replayer);
		rc = replay_advance(&t->replay, next, err);
		t->here = found && replayer_has_not_looked(t->replay.replayer);
		t->work += host_cpu_ns() - began;
		if (rc == -EAGAIN) {
			t->retries++;
			t->failed = from.boundary;
			if (!found) {
				rc = try_again(t, from, err);
				continue;
			}
		}
		if (rc < 0)
			break;
		if (found && timeline_stopped(t, stop)) {
			*found = true;
			break;
		}
		if (t->o.interrupt && t->o.interrupt(t->o.interrupt_ctx))
			return be_interrupted(t, err);
		tell_progress(t);
		due = checkpoint_is_due(t);
		if (due && timeline_position_known(t))
			rc = add_checkpoint(t, err);
	}
	return rc;
}

static int run_to(struct timeline *t, struct position target, struct err *err)
{
	return timeline_run_until(t, target, NULL, NULL, err);
}

static int seek(struct timeline *t, struct position target, struct err *err)
{
	struct position here = timeline_position(t);
	int order = position_order(target, here);
	const struct checkpoint *c;
	int rc = 0;

	if (order == 0 && !timeline_at_end(t) && timeline_position_known(t))
		return 0;
	c = timeline_find_checkpoint(t, target);
	/* Behind the present, or perhaps so, or nearer to a checkpoint between. */
	if (order <= 0 || (!timeline_position_known(t) && target.boundary == here.boundary) || position_order(c->at, here) > 0)
		rc = timeline_restore_checkpoint(t, c, err);
	if (rc == 0 && order < 0 && target.steps > LEAD_STEPS) {
		struct position lead = {target.boundary, target.steps - LEAD_STEPS};

		if (position_order(timeline_position(t), lead) < 0) {
			rc = run_to(t, lead, err);
			if (rc == 0 && position_order(timeline_position(t), target) < 0)
				rc = add_checkpoint(t, err);
		}
	}
	return rc < 0 ? rc : run_to(t, target, err);
}

int timeline_seek(struct timeline *t, struct position target, struct err *err)
{
	bool way = timeline_begin_way(t, target.boundary);
	int rc = seek(t, target, err);

	timeline_end_way(t, way);
	return rc;
}

int timeline_seek_time(struct timeline *t, uint64_t vtime, struct err *err)
{
	const struct checkpoint *c = &t->checkpoint[0];
	bool way;
	int rc = 0;

	if (vtime <= c->snapshot->vtime)
		return timeline_seek(t, c->at, err);
	for (unsigned i = 1; i < t->checkpoints && t->checkpoint[i].snapshot->vtime < vtime; i++)
		c = &t->checkpoint[i];
	if (t->replay.machine->vtime >= vtime || position_order(c->at, timeline_position(t)) > 0)
		rc = timeline_restore_checkpoint(t, c, err);
	way = timeline_begin_way(t, UINT64_MAX);
	t->time = vtime;
	replayer_set_target_time(t->replay.replayer, vtime);
	if (rc == 0)
		rc = run_to(t, (struct position){UINT64_MAX, 0}, err);
	timeline_end_way(t, way);
	replayer_set_target_time(t->replay.replayer, 0);
	t->time = 0;
	return rc;
}

int timeline_step(struct timeline *t, uint64_t n, struct err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < n && rc == 0 && !timeline_at_end(t); i++) {
		struct position to = timeline_position(t);

		to.steps++;
		rc = run_to(t, to, err);
	}
	return rc;
}

/* The position before this one. */
static int step_back(struct timeline *t, struct err *err)
{
	struct position here = timeline_position(t), to = here;
	uint64_t span = replayer_last_span(t->replay.replayer);
	int rc = 0;

	if (position_order(here, t->checkpoint[0].at) <= 0 && timeline_position_known(t))
		return 0;
	if (!timeline_position_known(t) || (here.steps == 0 && !span)) {
		/* Over all of the boundary once more, so that its steps are known. */
		uint64_t boundary = timeline_position_known(t) ? here.boundary - 1 : here.boundary;

		rc = timeline_seek(t, (struct position){boundary, 0}, err);
		if (rc == 0)
			rc = run_to(t, (struct position){boundary, STEPS_BEYOND}, err);
		here = to = timeline_position(t);
		span = replayer_last_span(t->replay.replayer);
	}
	if (rc < 0)
		return rc;
	/* Counts have holes: an instruction that counts twice leads past a position that does not exist. */
	do {
		if (to.steps == 0) {
			to.boundary--;
			to.steps = span;
		}
		if (to.steps)
			to.steps--;
		rc = timeline_seek(t, to, err);
	} while (rc == 0 && position_order(timeline_position(t), here) >= 0);
	return rc;
}

int timeline_reverse_step(struct timeline *t, uint64_t n, struct err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < n && rc == 0; i++)
		rc = step_back(t, err);
	return rc;
}

/* --- making ---------------------------------------------------------------------------------- */

int timeline_open(struct timeline **out, const char *path, bool use_clock,
		  const struct timeline_options *options,
		  void (*output)(void *ctx, enum dev_stream stream, uint8_t byte), void *output_ctx,
		  struct err *err)
{
	struct replay_options ro = {.has_target = true, .positions = true, .slice = SLICE_NS};
	struct timeline *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return err_set(err, ENOMEM, "out of memory");
	t->o = *options;
	if (!t->o.memory)
		t->o.memory = INDEX_MEMORY;
	if (!t->o.spacing)
		t->o.spacing = TIMELINE_SPACING_NS;
	ro.fault = options->fault;
	t->path = path;
	ro.watched = timeline_on_watched;
	ro.loaded = timeline_on_loaded;
	ro.watched_ctx = t;
	ro.disk = options->disk;
	ro.begin = begin_restore;
	rc = replay_open(&t->replay, path, use_clock, &ro, output, output_ctx, err);
	if (rc < 0) {
		free(t);
		return rc;
	}
	rc = snapshots_create(&t->snapshots, t->o.memory,
			      options->spill_dir ? options->spill_dir : "/var/tmp", err);
	if (rc == 0)
		rc = snapshots_attach(t->snapshots, t->replay.machine, err);
	if (rc == 0)
		rc = memory_dirty_open(t->replay.machine->mem, &t->dirty, err);
	if (rc == 0)
		snapshots_tell_written(t->snapshots, on_written, t);
	if (rc == 0)
		rc = replayer_run(t->replay.replayer, err);
	if (rc == 0)
		rc = add_checkpoint(t, err);
	if (rc == 0 && !t->checkpoints)
		rc = err_set(err, EIO, "the start of the trace cannot be frozen");
	if (rc == 0)
		rc = adopt_index(t, err);
	if (rc < 0) {
		timeline_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void timeline_close(struct timeline *t)
{
	if (!t)
		return;
	snapshots_destroy(t->snapshots);
	if (t->dirty)
		memory_dirty_close(t->replay.machine->mem, t->dirty);
	replay_close(&t->replay);
	for (unsigned i = 0; i < t->checkpoints; i++)
		free(t->checkpoint[i].written);
	free(t->checkpoint);
	free(t);
}

void timeline_figures(const struct timeline *t, struct timeline_figures *f)
{
	*f = (struct timeline_figures){
		.checkpoints = t->checkpoints, .kept = t->kept, .restores = t->restores, .retries = t->retries,
		.memory = t->o.memory};
	snapshots_figures(t->snapshots, &f->snapshots);
}
