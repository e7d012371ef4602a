/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Coming close to a count of the instruction clock by free runs: how long the guest may run without passing it. Running
 * past cannot be undone in place, so each run covers part of the way and the last ones end at a margin, which is
 * learnt from how late kicks come.
 */
#ifndef REPLAY_APPROACH_H
#define REPLAY_APPROACH_H

#include <stdbool.h>
#include <stdint.h>

/* No run covers more than this part of the way: instructions differ in cost, and the way is measured with the fastest
 * stretch seen; arrivals (vcpu_progress), which count for targets, shorten it. A slower stretch says nothing about what
 * follows it: a string instruction can take a second for a few counts. */
#define APPROACH_LANDMARK 0.8
#define APPROACH_TARGET 0.6

/* From this caution on no run is free: what is passed then has not been run past. */
#define APPROACH_CAUTION_MAX 4096.0

struct approach {
	double part;         /* one of those */
	double ns_per_count; /* least seen so far */
	double late;         /* ns by which kicks have lately come late */
	double wait;         /* of the run under way; 0: none */
	uint64_t from_ns, from_count;
	uint64_t (*now)(void); /* ns */
};

/* ns_per_count: no count takes less on this host (host_caps.ns_count), for want of anything seen. now: ns, as
 * host_cpu_ns: while this thread waits for a CPU, the guest stands still as well. */
void approach_init(struct approach *a, double part, double ns_per_count, uint64_t (*now)(void));
/* For another count; what was learnt on the way to earlier ones is kept. */
void approach_begin(struct approach *a);
/* ns until a kick is wanted when `left` counts are to go; 0: so near that the rest is to be walked or stepped, as are the
 * last least_left counts. caution: factor on the margin and on the pace. Begins a run at `count`, as of now. */
uint64_t approach_run(struct approach *a, uint64_t left, double least_left, double caution, uint64_t count);
/* The guest stopped at `count`: learn from the run, if there was one. */
void approach_stopped(struct approach *a, uint64_t count);

#endif
