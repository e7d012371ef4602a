/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A recording that can be walked both ways. The timeline replays forward, freezes the machine now and then (checkpoints),
 * and goes back by restoring a checkpoint before the place that is wanted and replaying forward from there. What is
 * kept is bounded: close together near the present, ever further apart away from it.
 */
#ifndef DEBUGGER_TIMELINE_H
#define DEBUGGER_TIMELINE_H

#include "replay/replay.h"
#include "snapshot/snapshot.h"

struct timeline_options {
	uint64_t memory;       /* bytes that checkpoints may take in all; 0: INDEX_MEMORY */
	const char *spill_dir; /* for what is over; NULL: /var/tmp */
	const char *disk;      /* see replay_options */
	/* Asked several times a second: true ends a long run where it is. May be NULL. */
	bool (*interrupt)(void *ctx);
	void *interrupt_ctx;
	/* Called a few times a second while a run goes on; may be NULL. */
	void (*progress)(void *ctx, struct position now, struct position target);
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

/* The tree that its checkpoints are in; for more of them. */
struct snapshots *timeline_snapshots(struct timeline *t);

/* The last boundary of the trace, which is read up to its end for it the first time. */
int timeline_last(struct timeline *t, struct position *last, struct err *err);

/*
 * Go to a position, before or after the present one. Where it does not exist, to the next one that does: a boundary with
 * fewer steps leads to the boundary after it; one behind the end, to the end. -EINTR: stopped on request, at a position
 * in between; -EILSEQ: the replay diverges.
 */
int timeline_seek(struct timeline *t, struct position target, struct err *err);
/* n instructions forward, or to the end. */
int timeline_step(struct timeline *t, uint64_t n, struct err *err);
/* n instructions back, or to the start. */
int timeline_reverse_step(struct timeline *t, uint64_t n, struct err *err);

/* What to stop at while going forward or back. */
struct timeline_stops {
	struct breakpoint_set breakpoints;
	bool here; /* going forward, the present place counts as well */
	/* Asked at each hit, with the machine standing there; false: it does not count. May be NULL. */
	bool (*wanted)(void *ctx, struct timeline *t);
	void *ctx;
	/* Stores to [watch, watch+watch_len) that change it; 0: none. */
	gpa_t watch;
	uint64_t watch_len;
	bool unchanged; /* also those that change nothing */
};

enum timeline_reason {
	TIMELINE_BREAKPOINT,
	TIMELINE_WATCH, /* forward: the store is made; back: it is about to be */
	TIMELINE_BEGIN, /* of the trace */
	TIMELINE_END,
};

struct timeline_stop {
	enum timeline_reason reason;
	struct position at; /* where it shows: a store, behind it */
	/* TIMELINE_WATCH: the store. */
	gpa_t gpa;
	unsigned len;
	uint64_t old, now;
	const char *device; /* whose DMA it was; NULL: an instruction's store */
	uint64_t rip;       /* behind the instruction, or of it */
	bool input;         /* the DMA of what came from outside: no instruction asked for it */
};

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
