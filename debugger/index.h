/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The index of a trace: checkpoints that lie in it, made by one replay, so that later sessions come to any place without
 * replaying from the start. They stand at boundaries, where every kind of host finds itself again.
 */
#ifndef DEBUGGER_INDEX_H
#define DEBUGGER_INDEX_H

#include "replay/replay.h"
#include "snapshot/snapshot.h"

/* Bytes that checkpoints may take, and where lies what is over. */
#define INDEX_MEMORY (1ull << 30)
#define INDEX_SPILL_DIR "/var/tmp"

struct index_options {
	uint64_t every;     /* ns of replaying from one checkpoint to the next */
	uint64_t memory;    /* bytes that they may take while they are made */
	const char *output; /* file to write; NULL: the trace itself */
	bool use_clock;
	const char *disk;   /* see replay_options */
	struct replay_fault fault; /* on purpose, for tests */
	const volatile sig_atomic_t *interrupted;
};

struct index_figures {
	uint64_t checkpoints;
	uint64_t pages; /* that are not equal to another */
	uint64_t bytes; /* in the file */
};

/*
 * Replay the trace and write it anew with an index, in place of the one that it may have. It appears whole or not at
 * all. -EILSEQ: the replay diverges; -EINTR.
 */
int index_make(const char *trace, const struct index_options *o, struct index_figures *f, struct err *err);

/* Add the checkpoints of the trace to the tree, in their order; none if it has no index. -EBADMSG: it is damaged. */
int index_load(struct snapshots *t, const char *trace, struct index_figures *f, struct err *err);

/* What a checkpoint holds besides the machine and the place in the log (replay_save). */
struct index_note {
	uint64_t work;         /* ns of replaying from the start to it */
	struct reader printed; /* by the guest since the checkpoint before; stream and byte by turns */
};

int index_read_note(const struct snapshot *s, struct index_note *note, struct err *err);
/* Freeze the present with its place in the log, as a debugger's checkpoint. label: may be NULL. -EBUSY: see machine_save. */
int index_freeze(struct snapshots *t, const struct replay *r, const char *label, struct snapshot **s, struct err *err);
/* The machine and the replay are to be as at this checkpoint. */
int index_restore(struct snapshots *t, struct replay *r, struct snapshot *s, struct err *err);
/* Bring a replay that has not run to the last checkpoint at or before this boundary and before this guest time (0: any),
 * if there is one; what the guest printed up to there goes to the replay's output. memory: see index_options. */
int index_enter(struct replay *r, uint64_t boundary, uint64_t vtime, uint64_t memory, struct err *err);

#endif
