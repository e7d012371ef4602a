/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the files of the timeline share. */
#ifndef DEBUGGER_TIMELINE_PRIVATE_H
#define DEBUGGER_TIMELINE_PRIVATE_H

#include "debugger/page_set.h"
#include "debugger/timeline.h"

/* A checkpoint for each so much work of replaying, so that a step back costs no more than about twice that. */
#define TIMELINE_SPACING_NS (20 * NSEC_PER_MSEC)

struct checkpoint {
	struct position at;
	bool exact;    /* stands at `at`; else in user code behind it, where no position is */
	bool kept;     /* the trace's own: for good */
	uint64_t work; /* ns of replaying from the start to it */
	struct snapshot *snapshot;
	struct page_set *written; /* since the checkpoint before it, also if nothing changed by it; NULL: that is not known */
};

struct timeline {
	struct timeline_options o;
	struct replay replay;
	struct snapshots *snapshots;
	struct checkpoint *checkpoint; /* in order of position */
	unsigned checkpoints, room, kept;
	uint64_t work;     /* ns of replaying from the start to the present */
	struct way {
		bool on;
		uint64_t from, to; /* boundaries; going back, `from` is the larger */
		uint64_t at;       /* the farthest that was seen */
		uint64_t began, told; /* host_ns; told 0: not yet */
	} way;
	uint64_t restores, retries;
	uint64_t failed;      /* the boundary behind which the last run that went too far began */
	const char *path;
	struct position last; /* 0: not known yet */
	uint64_t time;        /* that is sought; 0: none */
	/* Pages written since the machine was as in that snapshot, but for those since the last one was taken. */
	struct page_set written;
	uint64_t written_since; /* its number */
	struct position written_from; /* its place */

	/* While stops are looked for. */
	struct stops_seen seen;
	bool here;    /* the last run ended on its way: a breakpoint where it did counts */
	bool watched; /* KVM watches memory, which may disturb the guest: no checkpoints */
	struct memory_dirty *dirty; /* since the stretch began */
};

/* The last checkpoint that stands at `target` or before it. There is always one: the start. */
struct checkpoint *timeline_find_checkpoint(struct timeline *t, struct position target);
/* Between this checkpoint and a later one, at `limit`, none of the watched pages was written. */
bool timeline_is_untouched(const struct timeline *t, const struct checkpoint *c, struct position limit,
			   const struct timeline_stops *stops);
int timeline_restore_checkpoint(struct timeline *t, const struct checkpoint *c, struct err *err);
/* The steps of the present place are. */
bool timeline_position_known(const struct timeline *t);
bool timeline_in_user_mode(struct timeline *t);
/*
 * Run forward to the target, which is not behind the present, or to a stop before it (found; may be NULL). Then also
 * -EAGAIN: by a late timer it ran past a place, and behind t->failed stops may have been missed; the caller goes back and
 * has it run again.
 */
int timeline_run_until(struct timeline *t, struct position target, struct timeline_stop *stop, bool *found,
		       struct err *err);

/* Forward to the next stop, which may be where the machine stands if it is asked for; what is watched may have disturbed
 * the guest. */
int timeline_run_to_stop(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
			 struct err *err);

/* timeline_stops.c: the last run paused at something that was asked for. */
bool timeline_stopped(struct timeline *t, struct timeline_stop *stop);
/* For replay_options; ctx is the timeline. */
int timeline_on_watched(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old, uint64_t now,
			struct err *err);
int timeline_on_loaded(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err);

#endif
