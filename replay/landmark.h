/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finding a landmark again. With an instruction clock: run to a little before the recorded count, then step.
 * Without: a breakpoint on the landmark's RIP, and on each hit compare registers, then a hash of the memory that
 * the next instructions refer to, then the digest of everything. Two places with equal full state have
 * equal futures, so the first place found is as good as the recorded one.
 */
#ifndef REPLAY_LANDMARK_H
#define REPLAY_LANDMARK_H

#include "replay/event.h"

struct landmark_search {
	bool active;
	bool by_clock;
	const struct event *e;
	uint64_t clock_base;     /* clock at the boundary */
	uint64_t started;        /* host_ns */
	double ns_per_count;     /* least seen so far; 0: nothing seen */
	double ns_guess;         /* used until then */
	double late;             /* ns by which kicks have lately come late */
	double caution;          /* factor on the margin; grows when a landmark was run past */
	double run_wait;
	double spacing;          /* instructions between two passes through a landmark's place */
	bool crowded;            /* this landmark's passes are not worth walking by */
	bool walking;            /* the guest was last let run to the next pass */
	uint64_t walk_clock;     /* clock then, if it stood at a pass; else 0 */
	uint64_t run_from, run_clock; /* CPU time and clock when the guest was last let run */
	/* Over all searches. */
	uint64_t stops, ambiguous;
};

enum landmark_verdict {
	LANDMARK_AHEAD,
	LANDMARK_HERE,
	LANDMARK_PASSED,  /* the clock is beyond */
	LANDMARK_DIFFERS, /* the clock agrees, the registers do not */
	LANDMARK_LOST,    /* searched for too long */
};

/* The guest stands at a boundary: counts are taken from here. */
void landmark_base(struct landmark_search *s, const struct machine *m);
/* e stays the caller's. at_boundary: as landmark_base; else the guest stands after an earlier landmark of the
 * same boundary. */
void landmark_begin(struct landmark_search *s, const struct machine *m, const struct event *e,
		    enum clock_kind clock, bool at_boundary);
/* How to run next; wait: ns until a kick is wanted. */
void landmark_plan(struct landmark_search *s, struct machine *m, struct vcpu_request *req,
		   uint64_t *wait);
int landmark_check(struct landmark_search *s, struct machine *m, enum landmark_verdict *verdict,
		   struct err *err);

#endif
