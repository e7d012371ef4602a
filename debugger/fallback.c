// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/fallback.h"

#include "debugger/index.h"
#include "debugger/timeline.h"
#include "vmm/kick.h"

#include <errno.h>

/* The one at the start, the last, and one before it. */
#define KEPT_MAX 3

struct fallback {
	struct replay *r;
	struct snapshots *snapshots;
	struct snapshot *kept[KEPT_MAX]; /* oldest first */
	unsigned n_kept;
	unsigned tries;	 /* since the last snapshot was taken */
	uint64_t failed; /* the last boundary behind which a run was found to have gone too far */
	uint64_t stride; /* boundaries to the next look at the clock */
};

/* Not being able to is no error: a later boundary will do. Nor is want of room, behind the first: a late timer costs more
 * then, and no more than that. */
static int keep(struct fallback *f, struct err *err)
{
	struct snapshot *s;
	int rc = index_freeze(f->snapshots, f->r, NULL, &s, err);

	if (rc < 0)
		return rc == -EBUSY || f->n_kept ? 0 : rc;
	if (f->n_kept == KEPT_MAX) {
		snapshot_delete(f->snapshots, f->kept[1]);
		f->kept[1] = f->kept[2];
		f->n_kept--;
	}
	f->kept[f->n_kept++] = s;
	f->tries = 0;
	replay_set_caution(f->r, 1);
	return 0;
}

/* To the last snapshot with wider margins; if that did not help, to the one before it. */
static int go_back(struct fallback *f, struct err *err)
{
	int rc;

	if (f->failed < f->r->machine->boundary)
		f->failed = f->r->machine->boundary;
	if (!f->n_kept)
		return err_set(err, EIO, "the replay went too far before there was a snapshot to go back to; try again");
	rc = replay_widen(f->r, err);
	if (rc < 0)
		return rc;
	if (f->tries++ && f->n_kept > 1)
		snapshot_delete(f->snapshots, f->kept[--f->n_kept]);
	f->r->restarts++;
	return index_restore(f->snapshots, f->r, f->kept[f->n_kept - 1], err);
}

static bool is_over(const struct fallback *f, struct position target)
{
	const struct replay *r = f->r;

	return r->machine->end || position_order(replayer_position(r->replayer), target) >= 0 ||
	       (r->options.target_time && r->machine->vtime >= r->options.target_time);
}

/* Not before what failed is behind: with a snapshot the margins are narrow again, and it would fail for ever. */
static bool may_keep(const struct fallback *f)
{
	const struct machine *m = f->r->machine;

	return !m->end && replayer_position(f->r->replayer).steps == 0 && (!f->tries || m->boundary > f->failed);
}

/* Up to stride boundaries. */
static int run(struct fallback *f, struct position target, struct err *err)
{
	struct position next = {f->r->machine->boundary + f->stride, 0};
	int rc;

	replayer_set_target(f->r->replayer, next.boundary <= target.boundary ? next : target);
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
