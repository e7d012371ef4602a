/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The replayer: nondet_ops that make the events of a trace happen where they happened, and compare the
 * machine with what was recorded at every event.
 */
#ifndef REPLAY_REPLAYER_H
#define REPLAY_REPLAYER_H

#include "replay/event.h"
#include "replay/trace.h"
#include "vmm/machine.h"

#include <signal.h>

/* A trace opened for replay: its head, read and checked, and its events still to come. */
struct replay_file {
	struct trace_reader *reader;
	struct trace_machine tm;
	struct guest_image image; /* its files are mapped, and unmapped by replay_file_close */
	int begin_fd; /* snapshot file with the first state, if tm.begun; else -1 */
	/* Position in the events. */
	struct reader frame;
	struct event_codec codec;
	bool pending;  /* `frame` has been begun */
	struct trace_end end; /* once the end mark has been read */
	struct trace_place frame_at; /* where `frame` begins */
};

/* A place among the events of one file. */
struct replay_file_place {
	struct trace_place frame;
	uint64_t consumed; /* bytes of it; without `pending` none */
	bool pending;
	struct event_codec codec;
};

/* -EBADMSG with what is damaged. */
int replay_file_open(struct replay_file **f, const char *path, struct err *err);
void replay_file_close(struct replay_file *f);
/* Before the machine is made: the disk image at `path` for a trace that has only its hash, NULL for one that needs
 * none. -EINVAL if it is the other way round, or another image. */
int replay_file_attach_disk(struct replay_file *f, const char *path, struct err *err);
/* The next event: 1, 0 at the end of what is whole, negative on damage. */
int replay_file_next(struct replay_file *f, struct event *e, struct err *err);
/* The boundary of the last event of the trace at path, of what is whole of it. */
int replay_file_last(const char *path, uint64_t *boundary, struct err *err);
struct replay_file_place replay_file_tell(const struct replay_file *f);
/* Read on from a place that replay_file_tell gave for this file; -EBADMSG if it cannot be one. */
int replay_file_seek(struct replay_file *f, const struct replay_file_place *at, struct err *err);
/* Whether the recorder was cut off before it wrote its end; known after replay_file_next gave 0. */
bool replay_file_truncated(const struct replay_file *f);
/* 0 if this host can replay the trace, else one sentence that says why not. Where user code can tell the host's CPUs
 * apart, this thread moves to the one on which the trace was recorded, if there is such a one. */
int replay_file_check_host(const struct replay_file *f, const struct machine *m, struct err *err);

/* A replay deliberately made wrong, to show that it is noticed. */
enum fault_kind {
	FAULT_NONE,
	FAULT_MEMORY,
	FAULT_REGISTER,
	FAULT_DROP_EVENT,
	FAULT_LATE, /* as if a late timer had made a run go past a landmark */
};

struct replay_fault {
	enum fault_kind kind;
	uint64_t boundary; /* where: behind it */
	bool at_landmark;  /* not there, but at the landmark that comes then, before that is compared */
	uint64_t where;    /* gpa; register (index in struct kvm_regs); number of the event in the trace; of FAULT_LATE,
			    * how often the boundary is come to before */
	unsigned again;    /* of FAULT_LATE, how often it comes once more */
	uint64_t apart;    /* and so many boundaries further on each time */
};

/* A place found where the replay is not what was recorded. */
struct divergence {
	bool found;
	struct position at;        /* where it was noticed */
	uint64_t last_good;        /* boundary of the last event that agreed */
	enum event_type event;     /* what was being compared */
	char what[256];            /* first differing thing */
};

#define REPLAY_RECENT 8

struct replay_options {
	enum clock_kind clock; /* used for landmarks that have a clock reading */
	bool has_target;
	struct position target; /* pause there */
	uint64_t target_time;   /* and at the first boundary with this vtime, or a later one; 0: none */
	struct replay_fault fault;
	uint64_t slice; /* ns of host time after which a run pauses in any case; 0: never */
	bool blind;     /* compare nothing with what was recorded: for replays that are compared with each other */
	bool positions; /* keep count of steps, with a clock: see replayer_position */
	const volatile sig_atomic_t *interrupted; /* ends the run; may be NULL */
	const char *disk; /* image for a trace that has only its hash; else NULL */
	/* Bring a fresh machine into the first state of a trace that begins with a snapshot. NULL: such are refused. */
	int (*begin)(struct machine *m, const struct replay_file *f, struct err *err);
	/* Watched memory; len 0: none. */
	gpa_t watch;
	uint64_t watch_len;
	uint64_t watch_from; /* boundary from which on it is watched */
	/* Called for stores to watched memory; see nondet_ops.watched. May be NULL. */
	int (*watched)(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old,
		       uint64_t now, struct err *err);
	/* Likewise for nondet_ops.loaded; watched_ctx is its ctx as well. */
	int (*loaded)(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err);
	/* The replay begins again: stores reported so far will be reported once more. May be NULL. */
	void (*restarted)(void *watched_ctx);
	void *watched_ctx;
};

struct replay_counts {
	uint64_t landmarks, digests, inputs, times; /* events reached, and found equal where that can be */
	uint64_t stops;     /* times the guest was stopped in search of a landmark */
	uint64_t ambiguous; /* places with a landmark's registers that were not it */
};

struct replayer;

/* f and m stay the caller's and must outlive it. The calling thread must run the machine. */
int replayer_create(struct replayer **r, struct machine *m, struct replay_file *f,
		    const struct replay_options *options, struct err *err);
void replayer_destroy(struct replayer *r);
/*
 * Run to the target, or to the end of the trace. 0: the machine ended as recorded (m->end) or
 * paused at the target (m->pause); -EILSEQ: divergence, see replayer_divergence; -EAGAIN: ran past a
 * landmark by mischance, which only a new replay with more caution can mend (replay/replay.h does).
 */
int replayer_run(struct replayer *r, struct err *err);
/*
 * Pause before executing any of these addresses from now on (len 0: none); the memory stays the caller's. The place where
 * replayer_run begins does not count. Where user code cannot be stopped (see doctor), kernel addresses only.
 */
void replayer_set_breakpoints(struct replayer *r, const struct breakpoint_set *set);
/* For the next replayer_run the place where it begins counts as well. */
void replayer_count_here(struct replayer *r);
/* The last run ended, for another reason, at a place that it came to: whether there is a breakpoint it has not looked. */
bool replayer_has_not_looked(const struct replayer *r);
/* The last replayer_run paused at a breakpoint. */
bool replayer_hit_breakpoint(const struct replayer *r);
/* Where to pause next time; must lie ahead. */
void replayer_set_target(struct replayer *r, struct position target);
/* See target_time, which also must lie ahead. */
void replayer_set_target_time(struct replayer *r, uint64_t vtime);
const struct divergence *replayer_divergence(const struct replayer *r);
const struct replay_counts *replayer_counts(const struct replayer *r);
/* The position now. Its steps are known at boundaries, after a target with steps, and, on hosts with a clock with
 * options.positions, everywhere. */
struct position replayer_position(const struct replayer *r);
/* Its steps are known. Where nothing counts them, all since the boundary must have been made one by one. */
bool replayer_position_known(const struct replayer *r);
/* Factor on the margins from now on; for a new try after -EAGAIN. */
void replayer_set_caution(struct replayer *r, double caution);
/* Steps that the boundary before this one had, its last one included; 0: not known. */
uint64_t replayer_last_span(const struct replayer *r);
/*
 * The replayer's place in the log, to be kept with a snapshot of the machine as it is now. After the machine was put
 * back into that state, replayer_restore goes on from there; r may be another replayer of the same trace.
 */
int replayer_save(const struct replayer *r, struct buf *out, struct err *err);
/* Reads no more than replayer_save wrote, and believes nothing of it: it may come from a file. Events that came before
 * are no longer among the recent ones. */
int replayer_restore(struct replayer *r, struct reader *in, struct err *err);
/* Up to REPLAY_RECENT events that came last, oldest first; returns how many. */
unsigned replayer_recent(const struct replayer *r, struct event out[REPLAY_RECENT]);

#endif
