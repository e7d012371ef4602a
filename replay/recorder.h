/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The recorder: nondet_ops that let things happen and, with a trace to write to, log them. Without one it is
 * `hindsight run`: the same machine, the same timing, nothing logged.
 */
#ifndef REPLAY_RECORDER_H
#define REPLAY_RECORDER_H

#include "replay/event.h"
#include "replay/input.h"
#include "replay/trace.h"
#include "vmm/machine.h"
#include "vmm/user_code.h"

struct recorder;

struct recorder_options {
	enum clock_kind clock;
	uint64_t quantum;     /* ns of host time between looks at whether the guest lags behind */
	double time_rate;     /* vtime per host time at landmarks */
	uint64_t max_ns;      /* host time limit; 0: none */
	/* Where input comes from, one source a channel at most. Copied; what they point to stays in use. */
	const struct input_source *sources;
	unsigned n_sources;
	bool realtime;        /* at HLT, sleep until the deadline is due by host time */
	const volatile sig_atomic_t *interrupted; /* set by the user's Ctrl-C; may be NULL */
	/* Asked while the guest sleeps at HLT: true pauses the machine there. May be NULL. */
	bool (*wake)(void *ctx);
	void *wake_ctx;
};

struct recorder_counts {
	uint64_t landmarks, digests, inputs;
	uint64_t times;      /* times that time passed at a boundary */
	uint64_t kicks;      /* how often the guest was looked at */
	uint64_t deferred;   /* kicks at places that are no landmark (user code, interrupt shadow) */
	uint64_t log_bytes;  /* encoded events before compression */
	uint64_t landmark_bytes; /* of these, landmarks */
};

/* Attach to a machine that has not run yet, but may have been restored from a snapshot, or, without w, that has run. w may
 * be NULL (nothing is logged) and stays the caller's. The calling thread must be the one that runs the machine. */
int recorder_create(struct recorder **r, struct machine *m, const struct recorder_options *options,
		    struct trace_writer *w, struct err *err);
/* After machine_run: log the end of the run (m->end) and flush. */
int recorder_finish(struct recorder *r, struct err *err);
void recorder_destroy(struct recorder *r);
/* For a machine that is paused for a while: no kicks until recorder_go_on. */
void recorder_rest(struct recorder *r);
void recorder_go_on(struct recorder *r);
const struct recorder_counts *recorder_counts(const struct recorder *r);
/* Instructions that no host lets us decide, USER_INSTRUCTIONS of them, in user code that was there at boundaries. */
const struct user_code_found *recorder_user_code(const struct recorder *r);

/* Write the machine description and the guest's files: the head of every trace. tm's sizes are filled in. */
int recorder_write_head(struct trace_writer *w, struct trace_machine *tm,
			const struct guest_image *image, struct err *err);
/* What the whole run had in it: how often assists were needed, modules' rewritten instructions, user code's (as many as
 * recorder_user_code gives). The last frame of a trace whose run ended. */
int recorder_write_end(struct trace_writer *w, const struct machine *m, const struct user_code_found *user_code,
		       struct err *err);

#endif
