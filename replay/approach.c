// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/approach.h"

/* The margin is what a kick has lately been late by, times this. */
#define LATE_SAFETY 2.0
/* Least lateness assumed, ns: timer interrupt, signal, and leaving the guest. */
#define LATE_MIN 20000.0
/* Lateness is forgotten slowly: an unlucky moment costs a few longer walks. */
#define LATE_DECAY 0.97
/* Stretches shorter than this say more about the timer than about the guest. */
#define MEASURE_COUNTS 200
/* Less than this to go before the margin is not worth a kick, which costs about as much as a few steps; nor is less than
 * kicks are late by: most of such a run would be coming and going. */
#define RUN_MIN_NS 20000.0

void approach_init(struct approach *a, double part, double ns_per_count, uint64_t (*now)(void))
{
	*a = (struct approach){.part = part, .ns_per_count = ns_per_count, .now = now};
}

void approach_begin(struct approach *a)
{
	/* Also where no run is free any more, or one late kick would make all that follows slow. */
	a->late *= LATE_DECAY;
	a->wait = 0;
}

uint64_t approach_run(struct approach *a, uint64_t left, double least_left, double caution, uint64_t count)
{
	double ns = a->ns_per_count / caution;
	double margin = (a->late > LATE_MIN ? a->late : LATE_MIN) * LATE_SAFETY * caution;
	double run;

	if (margin < least_left * ns)
		margin = least_left * ns;
	run = ((double)left * ns - margin) * a->part;
	a->wait = 0;
	if (caution >= APPROACH_CAUTION_MAX || run < RUN_MIN_NS || run < a->late)
		return 0;
	a->wait = run;
	a->from_ns = a->now();
	a->from_count = count;
	return (uint64_t)run;
}

void approach_stopped(struct approach *a, uint64_t count)
{
	uint64_t counts = count - a->from_count;
	double took, ns;

	if (a->wait <= 0)
		return;
	took = (double)(a->now() - a->from_ns);
	a->late *= LATE_DECAY;
	if (took - a->wait > a->late)
		a->late = took - a->wait;
	a->wait = 0;
	if (counts < MEASURE_COUNTS)
		return;
	ns = took / (double)counts;
	if (ns < a->ns_per_count)
		a->ns_per_count = ns;
}
