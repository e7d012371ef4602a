/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finding a landmark again. With an instruction clock: run to a little before the recorded count, then step.
 * Without: a breakpoint on the landmark's RIP, and on each hit compare registers, then a hash of the memory that
 * the next instructions refer to, then the digest of everything; between hits run freely as far as
 * registers and memory operands show that the place is still off (replay/progress.h). Two places with equal full
 * state have equal futures, so the first place found is as good as the recorded one.
 */
#ifndef REPLAY_LANDMARK_H
#define REPLAY_LANDMARK_H

#include "replay/approach.h"
#include "replay/event.h"
#include "replay/progress.h"

struct landmark_search {
	bool active;
	bool by_clock;
	const struct event *e;
	uint64_t started;        /* host_ns */
	double caution;          /* factor on the margin; grows when a landmark was run past */
	uint64_t free_runs;      /* in this search */
	uint64_t alike;          /* places in this search with the registers and other memory or devices */

	/* By clock. */
	uint64_t clock_base;     /* clock at the boundary */
	struct approach approach;
	double spacing;          /* instructions between two passes through a landmark's place */
	bool crowded;            /* this landmark's passes are not worth walking by */
	bool walking;            /* the guest was last let run to the next pass */
	uint64_t walk_clock;     /* clock then, if it stood at a pass; else 0 */

	/* By state. */
	struct progress progress;
	struct witness operands; /* of the code at the place */
	bool at_pass;            /* stands at a pass that was sampled */
	bool ran;                /* freely, since the last sample */
	unsigned entries;        /* into the guest since the last sample, without steps */
	uint64_t from_ns, from_cpu; /* the vCPU's free_ns and our CPU time at the last sample */
	double run_wait;         /* the timer of the last free run, ns */
	double entry_ns;         /* least time a pass took: what an entry costs; 0: not known */
	double drift;            /* ns in the guest beyond what the timer was set to; often negative */
	double pass_ns;          /* no pass has taken less; 0: not known */

	/* Over all searches. */
	uint64_t stops, ambiguous;
};

enum landmark_verdict {
	LANDMARK_AHEAD,
	LANDMARK_HERE,
	LANDMARK_PASSED,  /* the clock, or all that moves, is beyond */
	LANDMARK_DIFFERS, /* the clock agrees, the registers do not */
	LANDMARK_LOST,    /* searched for too long */
};

/* Before the first search on m. */
void landmark_init(struct landmark_search *s, const struct machine *m);
/* The guest stands at a boundary: counts are taken from here. */
void landmark_base(struct landmark_search *s, const struct machine *m);
/* e stays the caller's. at_boundary: as landmark_base; else the guest stands after an earlier landmark of the
 * same boundary. */
void landmark_begin(struct landmark_search *s, struct machine *m, const struct event *e,
		    enum clock_kind clock, bool at_boundary);
/* How to run next; wait: ns until a kick is wanted. */
void landmark_plan(struct landmark_search *s, struct machine *m, struct vcpu_request *req,
		   uint64_t *wait);
/* at_breakpoint: the guest came here by the breakpoint that was planned. */
int landmark_check(struct landmark_search *s, struct machine *m, bool at_breakpoint,
		   enum landmark_verdict *verdict, struct err *err);
/* A landmark was run past; could that be the fault of a free run? */
bool landmark_may_be_behind(const struct landmark_search *s);

#endif
