// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/fallback.h"

#include "debugger/index.h"
#include "debugger/timeline.h"
#include "vmm/kick.h"

#include <errno.h>

struct fallback {
	struct replay *r;
	struct snapshots *snapshots;
	struct snapshot *last; /* to go back to */
	/* Boundaries behind which runs went too far since then, and the margins there; elsewhere they are narrow, since wide
	 * ones are slow, and all that is between the snapshot and here went well without. */
	bool failed;
	uint64_t failed_from, failed_to;
	double caution;
	uint64_t stride; /* boundaries to the next look at the clock */
};

/* Not being able to is no error: a later boundary will do. Nor is want of room, behind the first: a late timer costs more
 * then, and no more than that. */
static int keep(struct fallback *f, struct err *err)
{
	struct snapshot *s;
	int rc = index_freeze(f->snapshots, f->r, NULL, &s, err);

	if (rc < 0)
		return rc == -EBUSY || f->last ? 0 : rc;
	if (f->last)
		snapshot_delete(f->snapshots, f->last);
	f->last = s;
	f->failed = false;
	return 0;
}

/* The place that was not stopped at lies behind this boundary or, if that was noticed here, the one before. */
static void note_failure(struct fallback *f)
{
	uint64_t to = f->r->machine->boundary, from = to ? to - 1 : 0;

	if (!f->failed) {
		f->failed_from = from;
		f->failed_to = to;
		f->caution = 1;
	}
	f->failed = true;
	if (from < f->failed_from)
		f->failed_from = from;
	if (to > f->failed_to)
		f->failed_to = to;
}

static int go_back(struct fallback *f, struct err *err)
{
	int rc;

	if (!f->last)
		return err_set(err, EIO, "the replay went too far before there was a snapshot to go back to; try again");
	note_failure(f);
	replay_set_caution(f->r, f->caution);
	rc = replay_widen(f->r, err);
	if (rc < 0)
		return rc;
	f->caution = f->r->caution;
	f->r->restarts++;
	return index_restore(f->snapshots, f->r, f->last, err);
}

static bool is_over(const struct fallback *f, struct position target)
{
	const struct replay *r = f->r;

	return r->machine->end || position_order(replayer_position(r->replayer), target) >= 0 ||
	       (r->options.target_time && r->machine->vtime >= r->options.target_time);
}

/* Not before what failed is behind: else margins would be narrow there again, and it would fail for ever. */
static bool may_keep(const struct fallback *f)
{
	const struct machine *m = f->r->machine;

	return !m->end && replayer_position(f->r->replayer).steps == 0 && (!f->failed || m->boundary > f->failed_to);
}

/* Up to stride boundaries, or to where margins change. */
static int run(struct fallback *f, struct position target, struct err *err)
{
	uint64_t now = f->r->machine->boundary;
	bool before = f->failed && now < f->failed_from, within = f->failed && !before && now <= f->failed_to;
	struct position next = {now + f->stride, 0};
	int rc;

	if (before && next.boundary > f->failed_from)
		next.boundary = f->failed_from;
	if (within && next.boundary > f->failed_to + 1)
		next.boundary = f->failed_to + 1;
	replay_set_caution(f->r, within ? f->caution : 1);
	replayer_set_target(f->r->replayer, position_order(next, target) < 0 ? next : target);
	rc = replayer_run(f->r->replayer, err);
	return rc == -EAGAIN ? go_back(f, err) : rc;
}

static int run_all(struct fallback *f, uint64_t spacing, struct err *err)
{
	const struct position target = f->r->options.has_target ? f->r->options.target : (struct position){UINT64_MAX, 0};
	uint64_t kept_ns;
	int rc;

	f->stride = 0;
	rc = run(f, target, err);
	if (rc == 0)
		rc = keep(f, err);
	f->stride = 1;
	kept_ns = host_cpu_ns();
	while (rc == 0 && !is_over(f, target)) {
		uint64_t began = host_cpu_ns(), now;

		rc = run(f, target, err);
		now = host_cpu_ns();
		/* A tenth of the spacing from look to look. */
		if (now - began < spacing / 10)
			f->stride *= 2;
		else if (f->stride > 1)
			f->stride /= 2;
		if (rc == 0 && now - kept_ns >= spacing && may_keep(f)) {
			rc = keep(f, err);
			kept_ns = host_cpu_ns();
		}
	}
	return rc;
}

int fallback_run(struct replay *r, const struct fallback_options *o, struct err *err)
{
	struct fallback f = {.r = r};
	int rc = snapshots_create(&f.snapshots, o->memory, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = snapshots_attach(f.snapshots, r->machine, err);
	if (rc == 0)
		rc = run_all(&f, o->spacing ? o->spacing : FALLBACK_SPACING_NS, err);
	else if (rc == -ENOTSUP)
		rc = replay_run(r, err);
	snapshots_destroy(f.snapshots);
	return rc;
}
