/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A trace being replayed: file, machine and replayer together. If a late timer makes the replayer run past a
 * landmark, which cannot be undone, the replay is begun again with wider margins; its user notices
 * nothing but the time.
 */
#ifndef REPLAY_REPLAY_H
#define REPLAY_REPLAY_H

#include "replay/replayer.h"

struct replay {
	struct replay_file *file;
	struct machine *machine;   /* may be another one after replay_run */
	struct replayer *replayer; /* likewise */
	unsigned restarts;
	/* private */
	/* Boundaries behind which runs have gone too far since there last were none, and how much wider margins are there;
	 * 1: there are none. */
	uint64_t hard_from, hard_to;
	double caution;
	const char *path;
	struct replay_options options;
	enum clock_kind clock;
	void (*output)(void *ctx, enum dev_stream stream, uint8_t byte);
	void *output_ctx;
	uint64_t output_bytes, output_skip;
};

/*
 * Open the trace at path (kept, not copied) and make its machine. use_clock: use instruction clocks where
 * the host has them; options->clock is filled in from it. output may be NULL.
 */
int replay_open(struct replay *r, const char *path, bool use_clock, const struct replay_options *options,
		void (*output)(void *ctx, enum dev_stream stream, uint8_t byte), void *output_ctx,
		struct err *err);
void replay_close(struct replay *r);
/* To the target, which is not behind the present, or to the end. Never -EAGAIN. */
int replay_run(struct replay *r, struct err *err);
/*
 * As replayer_run, towards this target, but with margins before the places where runs must stop that are wide where runs
 * have gone too far, and narrow elsewhere, since wide ones are slow; it pauses too where they change. -EAGAIN: this one
 * went too far; the caller brings the replay back to an earlier place (replay_restore) and goes on. -EIO: margins are the
 * widest already.
 */
int replay_advance(struct replay *r, struct position target, struct err *err);
/* The target has been reached, or the time, or the end. */
bool replay_is_over(const struct replay *r);
/* As replayer_save and replayer_restore; what was printed up to the present is not printed again. What follows behind
 * the bytes of replay_save is the caller's. */
#define REPLAY_SAVED_SIZE 281
int replay_save(const struct replay *r, struct buf *out, struct err *err);
int replay_restore(struct replay *r, const void *data, size_t len, struct err *err);
/* As replayer_set_target. */
void replay_set_target(struct replay *r, struct position target);

#endif
