/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How long the guest may run freely towards a place of which only the state is known. Between two passes through the
 * place's RIP registers and memory operands change: a loop counter by one, a pointer by a word, others wildly. Each
 * quantity that keeps moving towards its value at the place says how far that still is at least; one that stands
 * still at another value says that the place is not in this round of an inner loop. How fast they move is learnt from
 * the runs themselves. This is an estimate: a guest can defeat it, and then the place is run past. It is the caller
 * who must notice that, and begin again with more caution. Nothing here knows of KVM or of clocks.
 */
#ifndef REPLAY_PROGRESS_H
#define REPLAY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#define PROGRESS_MAX 32

/* What is known of one quantity since the search began. */
struct progress_quantity {
	uint64_t target, last;
	int direction;    /* of its movement: 1, -1, or 0 if it has not moved */
	bool turned;      /* its last change in a pass was against that */
	/* Since it last turned: */
	unsigned agreed;  /* passes */
	uint64_t from;    /* where it was */
	uint64_t step;    /* change in each pass, while it is the same in all; else 0 */
	bool uneven;      /* it is not */
	uint64_t moved;   /* in these passes, altogether */
	/* Since it last changed: */
	double still_ns;  /* time, at least */
	unsigned still;   /* passes */

	uint64_t unit;    /* least change seen, 0: none */
	double pace;      /* greatest change per ns that a run has shown, 0: none has */
	double pace_ns;   /* length of that run */
	bool told;        /* which was long enough to tell the pace well */
	double run_ns, run_change; /* the last free run that could not bring it past its target: its length and change */
	double may_ns;    /* how long a run may be by what is known of this one */
};

struct progress {
	struct progress_quantity q[PROGRESS_MAX];
	unsigned count;
	bool sampled;     /* `last` is valid */
	int leader;       /* whose distance allowed the last free run; -1: none did */
	double allowed;   /* ns, by progress_allow */
	double longest;   /* ns, of the free runs so far */
	double pass_ns;   /* no pass takes less */
	double ran_ns;    /* length of the last free run by its changes, if they tell it better than the clock; else 0 */
	bool overrun;
};

/* target: the quantities at the place; count is cut to PROGRESS_MAX. pass_ns: the least time that a pass may take, 0 if
 * that is not known. */
void progress_begin(struct progress *p, const uint64_t *target, unsigned count, double pass_ns);
/* The quantities at a pass through the place's RIP. free_ns: time in the guest since the last sample if it ran freely,
 * known to within slack_ns, and longer if the host was busy; 0 if it was let go to its next pass. */
void progress_sample(struct progress *p, const uint64_t *now, double free_ns, double slack_ns);
/* Time in the guest, ns, that will not bring it to the place; 0: not known, walk from pass to pass. caution: 1, or a
 * factor by which to stay further away. */
double progress_allow(struct progress *p, double caution);
/* The time that a pass takes at least, as this search has shown; 0: it has not. */
double progress_pass_ns(const struct progress *p);
/* The quantity that allowed the last free run is beyond its value at the place. */
static inline bool progress_overrun(const struct progress *p)
{
	return p->overrun;
}

#endif
