/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A recording that can be walked both ways. The timeline replays forward, freezes the machine now and then (checkpoints),
 * and goes back by restoring a checkpoint before the place that is wanted and replaying forward from there. What is
 * kept is bounded: close together near the present, ever further apart away from it.
 */
#ifndef DEBUGGER_TIMELINE_H
#define DEBUGGER_TIMELINE_H

#include "debugger/stops.h"
#include "replay/replay.h"
#include "snapshot/snapshot.h"

struct timeline_options {
	uint64_t memory;       /* bytes that checkpoints may take in all; 0: INDEX_MEMORY */
	const char *spill_dir; /* for what is over; NULL: /var/tmp */
	const char *disk;      /* see replay_options */
	uint64_t spacing;      /* ns of replaying from one checkpoint to the next; 0: TIMELINE_SPACING_NS */
	struct replay_fault fault;
	/* Asked several times a second: true ends a long run where it is. May be NULL. */
	bool (*interrupt)(void *ctx);
	void *interrupt_ctx;
	/* Called a few times a second on a long way (timeline_begin_way): which part of it is done, 0 to 1, and how many
	 * seconds the rest may take at this pace. 1 when it is over. May be NULL. */
	void (*progress)(void *ctx, double part, double seconds);
	void *progress_ctx;
};

struct timeline;

/* Open the trace at path (kept, not copied) and stand at position 0. use_clock, output: see replay_open. */
int timeline_open(struct timeline **t, const char *path, bool use_clock,
		  const struct timeline_options *options,
		  void (*output)(void *ctx, enum dev_stream stream, uint8_t byte), void *output_ctx,
		  struct err *err);
void timeline_close(struct timeline *t);

struct machine *timeline_machine(struct timeline *t);
struct position timeline_position(const struct timeline *t);
/* The end of the trace has been reached. */
bool timeline_at_end(const struct timeline *t);

/* What the trace says of the machine that was recorded. */
const struct trace_machine *timeline_trace(const struct timeline *t);
const char *timeline_path(const struct timeline *t);

/*
 * For a run that leaves the recording: the present frozen with its place in the log, in the tree of snapshots that the
 * timeline's checkpoints are in too. Between a freeze and a thaw the machine is the caller's; the timeline must not be
 * asked to go anywhere. -EBUSY: in the middle of an instruction (machine_save).
 */
struct snapshots *timeline_snapshots(struct timeline *t);
int timeline_freeze(struct timeline *t, const char *label, struct snapshot **s, struct err *err);
int timeline_thaw(struct timeline *t, struct snapshot *s, struct err *err);

/* The last boundary of the trace, which is read up to its end for it the first time. */
int timeline_last(struct timeline *t, struct position *last, struct err *err);

/*
 * For progress: what follows, up to timeline_end_way, is one way forward to that boundary, or back to it if a search leads
 * there. A seek is one by itself. Whether it has begun, for timeline_end_way: not if one is under way already.
 */
bool timeline_begin_way(struct timeline *t, uint64_t to);
void timeline_end_way(struct timeline *t, bool began);
/*
 * Go to a position, before or after the present one. Where it does not exist, to the next one that does: a boundary with
 * fewer steps leads to the boundary after it; one behind the end, to the end. -EINTR: stopped on request, at a position
 * in between; -EILSEQ: the replay diverges.
 */
int timeline_seek(struct timeline *t, struct position target, struct err *err);
/* Go to the first boundary at which so much guest time has passed; to the end where there is none. */
int timeline_seek_time(struct timeline *t, uint64_t vtime, struct err *err);
/* n instructions forward, or to the end. */
int timeline_step(struct timeline *t, uint64_t n, struct err *err);
/* n instructions back, or to the start. */
int timeline_reverse_step(struct timeline *t, uint64_t n, struct err *err);

/* Run to the next stop. -EINTR: stopped on request, at a position in between. */
int timeline_continue(struct timeline *t, const struct timeline_stops *stops, struct timeline_stop *stop,
		      struct err *err);
/* Go to the last stop before the present. */
int timeline_reverse_continue(struct timeline *t, const struct timeline_stops *stops,
			      struct timeline_stop *stop, struct err *err);

/* A place where there was a stop, and all by which it is found again. */
struct timeline_place {
	struct position position; /* not always that without the stops */
	bool known;               /* its steps are */
	struct kvm_regs regs;
	bool in_user;             /* in user code where the host cannot stop: no position of its own */
	struct position from;
	unsigned nth;             /* stop on the way from there */
};

/* timeline_place.c. The present is at a stop, in a boundary whose steps were not counted: come there again by steps.
 * -ENOTSUP: they do not lead to it. */
int timeline_learn_position(struct timeline *t, struct err *err);
/* Go to such a place. -ENOTSUP: steps do not lead to it. */
int timeline_find_place(struct timeline *t, const struct timeline_stops *stops, const struct timeline_place *place,
			struct err *err);

struct timeline_figures {
	unsigned checkpoints, kept; /* kept: those of the trace's index */
	uint64_t restores, retries; /* retries: a late timer made a run go past its target */
	struct snapshots_figures snapshots;
	uint64_t memory; /* what they may take */
};

void timeline_figures(const struct timeline *t, struct timeline_figures *f);

#endif
