/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Leaving the recording: from its present position the same machine goes on live, with whatever is changed in it, and
 * comes back to where it left. Neither the trace nor the timeline notices. One branch at a time.
 */
#ifndef DEBUGGER_BRANCH_H
#define DEBUGGER_BRANCH_H

#include "debugger/live.h"

#define BRANCH_NAME_MAX 63
/* Calls within calls that can be undone. */
#define BRANCH_CALLS_MAX 16

/*
 * A debugger calls a function of the guest by writing registers, running, and writing back what they were. To the place
 * before the first write the branch returns then: what the call did is thrown away.
 */
struct branch_call {
	struct kvm_regs before;
	struct snapshot *snapshot; /* NULL: the recording itself */
	bool ran;
};

/* Where the recording was left; kept while a checkpoint needs it. */
struct branch {
	char name[BRANCH_NAME_MAX + 1];
	struct position from;
	struct snapshot *origin;
	unsigned users; /* the present, and checkpoints */
};

/* A place that the user wants to come back to. */
struct branch_mark {
	uint64_t id;		/* 1 for the first, never used again */
	struct branch *branch;	/* NULL: in the recording */
	struct position at;	/* in a branch: its boundary */
	struct snapshot *snapshot; /* with the label that it was given */
};

struct branches {
	struct timeline *timeline;
	struct live_options options;
	/* What the guest of a branch prints; may be NULL. */
	void (*output)(void *ctx, enum dev_stream stream, uint8_t byte);
	void *output_ctx;
	/* The machine's own, kept while there is a branch. */
	void (*recorded_output)(void *ctx, enum dev_stream stream, uint8_t byte);
	void *recorded_output_ctx;
	struct live *live;	   /* NULL: in the recording */
	struct branch *current;	   /* likewise */
	uint64_t begun;		   /* how many in all */
	bool ran;		   /* the guest has run since the branch began */
	struct branch_mark *marks; /* by id */
	size_t n_marks;
	uint64_t marked; /* ids given out */
	struct branch_call calls[BRANCH_CALLS_MAX];
	unsigned n_calls;
	bool registers_written; /* since it last ran */
};

/* The timeline stays the caller's and must outlive it; interrupt: see struct live_options. */
void branches_init(struct branches *b, struct timeline *t, bool (*interrupt)(void *ctx), void *ctx);
/* Before the timeline is closed. */
void branches_close(struct branches *b);

/* From the present. name: NULL for "branch-N". */
int branch_begin(struct branches *b, const char *name, struct err *err);
/* Back to the position that the branch began at; nothing if there is none. */
int branch_leave(struct branches *b, struct err *err);

/* Keep the present. label: up to SNAPSHOT_LABEL_MAX bytes, "" for none. */
int branch_mark(struct branches *b, const char *label, uint64_t *id, struct err *err);
/* Go where that was kept, in the recording or in a branch, which goes on from there. -ENOENT: there is none. */
int branch_restart(struct branches *b, uint64_t id, struct err *err);
int branch_unmark(struct branches *b, uint64_t id, struct err *err);
/* NULL if there is none. */
const struct branch_mark *branch_find_mark(const struct branches *b, uint64_t id);

/* A call of a function is being prepared: the present is to come back when it is over. Begins a branch if need be. */
int branch_note_call(struct branches *b, struct err *err);
/*
 * Before registers are written to what `now` says, which can be for a call (branch_note_call). *done: the branch, or the recording, has
 * been brought back to where they were so: there is nothing left to write.
 */
int branch_registers(struct branches *b, const struct kvm_regs *now, bool *done, struct err *err);
/* Before the guest of the branch runs. */
void branch_runs(struct branches *b);

#endif
