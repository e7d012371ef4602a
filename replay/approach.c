// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/approach.h"

#include "vmm/kick.h"

/* As for landmarks (landmark.c), where the same host is measured in the same way. */
#define LATE_SAFETY 2.0
#define LATE_MIN 20000.0
#define LATE_DECAY 0.97
#define NS_PER_COUNT_FIRST 50.0
#define MEASURE_COUNTS 200
#define RUN_MIN_NS 20000.0
/* Arrivals (vcpu_progress) and cheap instructions shorten the way: no run covers more than this part of it. */
#define PART 0.6

void approach_init(struct approach *a, double caution)
{
	*a = (struct approach){.ns_guess = NS_PER_COUNT_FIRST, .caution = caution};
}

uint64_t approach_run(struct approach *a, uint64_t left, uint64_t count)
{
	double ns = a->ns_per_count > 0 ? a->ns_per_count : a->ns_guess;
	double margin = (a->late > LATE_MIN ? a->late : LATE_MIN) * LATE_SAFETY * a->caution;
	double run = ((double)left * ns - margin) * PART;

	a->wait = 0;
	if (run < RUN_MIN_NS)
		return 0;
	a->wait = run;
	a->from_ns = host_cpu_ns();
	a->from_count = count;
	return (uint64_t)run;
}

void approach_stopped(struct approach *a, uint64_t count)
{
	uint64_t counts = count - a->from_count;
	double took, ns;

	if (a->wait <= 0)
		return;
	took = (double)(host_cpu_ns() - a->from_ns);
	a->late *= LATE_DECAY;
	if (took - a->wait > a->late)
		a->late = took - a->wait;
	a->wait = 0;
	if (counts < MEASURE_COUNTS) {
		a->ns_guess *= 2;
		return;
	}
	ns = took / (double)counts;
	if (a->ns_per_count <= 0 || ns < a->ns_per_count)
		a->ns_per_count = ns;
	else
		a->ns_per_count += (ns - a->ns_per_count) / 64;
}
