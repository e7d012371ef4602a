// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/progress.h"

/* Passes in which a quantity must not turn back before it is believed: if it changes by the same each time; and if it
 * does not, so that no random values in a search of any length look like it. */
#define TRUST_EVEN 8
#define TRUST_UNEVEN 24
/* Passes after which one that does not move counts as moved by an outer loop. */
#define TRUST_STILL 64
/* Part of the least distance that is run at a time. */
#define FRACTION 0.5
/* A quantity that moves unevenly is believed for so many times the way it has been seen to go: some only begin
 * steadily. */
#define EVIDENCE 8
/* It may go faster than so far by this factor. */
#define UNEVEN 2
/* A run that is longer than a quantity allows by no more than this has not brought it to its target. */
#define WITHIN (1 / FRACTION)
/* No pass takes less, ns: a jump and another instruction at some 4 GHz. Holds until a search has shown better. */
#define PASS_NS_MIN 0.5
/* A quantity that has stood still for so long may be expected to do so for this part of that time again. Only in its
 * last round can the place be run past, with about this probability. */
#define STILL_PART (1.0 / 32)
/* A run shows the pace if it took so many times what its length is not known by; and until one did, it shows one that
 * is too high rather than too low if it took so many times that. */
#define TELLING 4
#define TELLING_LITTLE 2
/* No run is longer than the longest before by more than this factor, except by what is known from walking: the pace
 * that one run shows is too low if the host was busy. */
#define GROWTH 4
/* A run that is shorter than another by this factor is measured by the pace of that one: what is not known of the
 * other's length is then as much less. */
#define SHORTER 4

void progress_begin(struct progress *p, const uint64_t *target, unsigned count, double pass_ns)
{
	*p = (struct progress){.leader = -1, .pass_ns = pass_ns > PASS_NS_MIN ? pass_ns : PASS_NS_MIN};
	p->count = count < PROGRESS_MAX ? count : PROGRESS_MAX;
	for (unsigned i = 0; i < p->count; i++)
		p->q[i].target = target[i];
}

static uint64_t magnitude(int64_t v)
{
	return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

static int sign(int64_t v)
{
	return (v > 0) - (v < 0);
}

static int64_t distance(const struct progress_quantity *q)
{
	return (int64_t)(q->target - q->last);
}

static bool even(const struct progress_quantity *q)
{
	return q->step && !q->uneven;
}

/* It moves in one direction. */
static bool trusted(const struct progress_quantity *q)
{
	return q->direction && q->agreed >= (even(q) ? TRUST_EVEN : TRUST_UNEVEN);
}

static bool ahead(const struct progress_quantity *q)
{
	return trusted(q) && sign(distance(q)) == q->direction;
}

static bool beyond(const struct progress_quantity *q)
{
	return trusted(q) && sign(distance(q)) == -q->direction;
}

/* It stands still, and must move before the place comes. */
static bool awaited(const struct progress_quantity *q)
{
	return q->still >= TRUST_STILL && distance(q) && !beyond(q);
}

static void turn(struct progress_quantity *q)
{
	q->agreed = 0;
	q->from = q->last;
	q->step = q->moved = 0;
	q->uneven = false;
}

/* A change in one pass. A counter that begins a new round turns once; what turns twice goes the other way. */
static void walked(struct progress_quantity *q, int direction, uint64_t size)
{
	if (q->direction == -direction) {
		turn(q);
		q->turned = !q->turned;
		if (q->turned)
			return;
		q->pace = 0;
	}
	q->turned = false;
	q->direction = direction;
	q->uneven |= q->agreed && size != q->step;
	q->step = size;
	q->moved += size;
	q->agreed++;
}

/*
 * A change in a free run. The pace is learnt only if the run was so short that by this quantity it could have been
 * made: in a longer one a counter may have begun a new round.
 */
static void ran(struct progress_quantity *q, int direction, uint64_t size, double free_ns, double slack_ns,
		bool within)
{
	bool telling = free_ns >= TELLING * slack_ns;
	double pace;

	if (q->direction == -direction) {
		turn(q);
		return;
	}
	if (q->direction && !within)
		return;
	q->direction = direction;
	if (free_ns < TELLING_LITTLE * slack_ns)
		return;
	pace = (double)(size + q->unit) / (free_ns - slack_ns);
	if (pace > q->pace || (telling && !q->told)) {
		q->pace = pace;
		q->pace_ns = free_ns;
		q->told = telling;
	}
}

static void change(const struct progress *p, struct progress_quantity *q, uint64_t now, double free_ns,
		   double slack_ns)
{
	int64_t by = (int64_t)(now - q->last);
	uint64_t size = magnitude(by);

	q->last = now;
	if (!by && free_ns > 0) {
		q->still_ns += free_ns > slack_ns + p->pass_ns ? free_ns - slack_ns : p->pass_ns;
	} else if (!by) {
		q->still_ns += p->pass_ns;
		q->uneven |= q->step != 0;
		q->agreed++;
		q->still++;
	} else {
		q->still = 0;
		q->still_ns = 0;
		if (!q->unit || size < q->unit)
			q->unit = size;
		if (free_ns > 0)
			ran(q, sign(by), size, free_ns, slack_ns, p->allowed <= q->may_ns * WITHIN);
		else
			walked(q, sign(by), size);
	}
}

/* What a free run brought: for the next one while the pace is not known, and how long it really was. */
static void judge_run(struct progress *p, struct progress_quantity *q, uint64_t before, double free_ns)
{
	double by = (double)magnitude((int64_t)(q->last - before));

	q->run_ns = trusted(q) && p->allowed <= q->may_ns * WITHIN ? p->allowed : 0;
	q->run_change = by;
	/* The longest by any of them: to take it for shorter would be to run too far the next time. */
	if (ahead(q) && q->run_ns > 0 && q->pace > 0 && free_ns * SHORTER <= q->pace_ns &&
	    by / q->pace > p->ran_ns)
		p->ran_ns = by / q->pace;
}

void progress_sample(struct progress *p, const uint64_t *now, double free_ns, double slack_ns)
{
	bool leads = p->leader >= 0 && ahead(&p->q[p->leader]);

	p->ran_ns = 0;
	if (free_ns > 0 && p->allowed > p->longest)
		p->longest = p->allowed;
	for (unsigned i = 0; i < p->count; i++) {
		struct progress_quantity *q = &p->q[i];
		uint64_t before = q->last;

		if (p->sampled)
			change(p, q, now[i], free_ns, slack_ns);
		else
			q->last = q->from = now[i];
		if (free_ns > 0)
			judge_run(p, q, before, free_ns);
	}
	/* What allowed the run was to stay ahead. */
	p->overrun = free_ns > 0 && leads && beyond(&p->q[p->leader]);
	p->leader = -1;
	p->sampled = true;
}

/* Without having seen it run: it changes by no more than this in a ns. */
static double fastest(const struct progress *p, const struct progress_quantity *q)
{
	double by_pass = even(q) ? (double)q->step : (double)q->moved / q->agreed * UNEVEN;

	return (by_pass > 0 ? by_pass : (double)q->unit) / p->pass_ns;
}

/* Time that may pass by the distance of a quantity that moves. */
static double allow_moving(const struct progress *p, const struct progress_quantity *q, double caution)
{
	double most = fastest(p, q), unit = (double)q->unit;
	double left = (double)magnitude(distance(q)), seen = (double)magnitude((int64_t)(q->last - q->from));
	/* The place may come as soon as the last change is made; and what moves now and then may do so early. */
	double spare = even(q) ? unit : 2 * unit, part = left - spare, surely, again, ns;

	if (part <= 0)
		return 0;
	part *= FRACTION / caution;
	if (!even(q) && part > seen * EVIDENCE)
		part = seen * EVIDENCE;
	surely = part / most;
	/* The last run again, and a little longer, until one tells the pace. */
	again = part > q->run_change + spare ? q->run_ns + (part - q->run_change - spare) / most : 0;
	ns = q->pace > 0 ? part / q->pace : 0;
	if (ns > p->longest * GROWTH)
		ns = p->longest * GROWTH;
	if (!q->told && again > ns)
		ns = again;
	return ns > surely ? ns : surely;
}

double progress_allow(struct progress *p, double caution)
{
	p->leader = -1;
	p->allowed = 0;
	for (unsigned i = 0; p->sampled && i < p->count; i++) {
		struct progress_quantity *q = &p->q[i];
		double still = awaited(q) ? q->still_ns * STILL_PART / caution : 0;

		q->may_ns = ahead(q) ? allow_moving(p, q, caution) : 0;
		if (still > q->may_ns)
			q->may_ns = still;
		if (q->may_ns > p->allowed) {
			p->allowed = q->may_ns;
			p->leader = (int)i;
		}
	}
	return p->allowed;
}

double progress_pass_ns(const struct progress *p)
{
	double least = 0;

	for (unsigned i = 0; i < p->count; i++) {
		const struct progress_quantity *q = &p->q[i];
		double ns = ahead(q) && even(q) && q->pace > 0 ? (double)q->step / q->pace : 0;

		if (ns > 0 && (least <= 0 || ns < least))
			least = ns;
	}
	return least;
}
