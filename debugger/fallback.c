// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/fallback.h"

#include "debugger/index.h"
#include "vmm/kick.h"

#include <errno.h>

/* Boundaries; no spacing is as long. */
#define STRIDE_MAX (1ull << 40)

struct fallback {
	struct replay *r;
	struct snapshots *snapshots;
	struct snapshot *last; /* to go back to */
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
	return 0;
}

static int go_back(struct fallback *f, struct err *err)
{
	if (!f->last)
		return err_set(err, EIO, "the replay went too far before there was a snapshot to go back to; try again");
	f->r->restarts++;
	return index_restore(f->snapshots, f->r, f->last, err);
}

/* Up to stride boundaries. */
static int run(struct fallback *f, struct err *err)
{
	const struct replay *r = f->r;
	struct position target = {r->machine->boundary + f->stride, 0};
	int rc;

	if (r->options.has_target && position_order(r->options.target, target) < 0)
		target = r->options.target;
	rc = replay_advance(f->r, target, err);
	return rc == -EAGAIN ? go_back(f, err) : rc;
}

/* Between boundaries a landmark may have been passed unnoticed. */
static bool may_keep(const struct replay *r)
{
	return !r->machine->end && replayer_position(r->replayer).steps == 0;
}

static int run_all(struct fallback *f, uint64_t spacing, struct err *err)
{
	uint64_t kept_ns;
	int rc;

	f->stride = 0;
	rc = run(f, err);
	if (rc == 0)
		rc = keep(f, err);
	f->stride = 1;
	kept_ns = host_cpu_ns();
	while (rc == 0 && !replay_is_over(f->r)) {
		uint64_t began = host_cpu_ns(), now;

		rc = run(f, err);
		now = host_cpu_ns();
		/* A tenth of the spacing from look to look. */
		if (now - began >= spacing / 10)
			f->stride = f->stride > 1 ? f->stride / 2 : 1;
		else if (f->stride < STRIDE_MAX)
			f->stride *= 2;
		if (rc == 0 && now - kept_ns >= spacing && may_keep(f->r)) {
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
