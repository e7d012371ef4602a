// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/landmark.h"

#include "vmm/kick.h"

#include <string.h>

/*
 * Running past a landmark cannot be undone in place, so the last free run aims at a margin before it. The rest is
 * walked from one pass through the landmark's RIP to the next, by breakpoint, which cannot miss it; or by single
 * steps where passes come too close together. The margin is what a kick has lately been late by, times this.
 */
#define LATE_SAFETY 2.0
/* Least lateness assumed, ns: timer interrupt, signal, and leaving the guest. */
#define LATE_MIN 20000.0
/* Lateness is forgotten slowly: an unlucky moment costs a few longer walks. */
#define LATE_DECAY 0.97
/* Instructions differ in cost: the way is measured with the fastest stretch seen, cut by this. */
#define APPROACH 0.8
/* Before any stretch was measured: faster than any emulator. Doubled until one is long enough. */
#define NS_PER_COUNT_FIRST 50.0
/* Stretches shorter than this say more about the timer than about the guest. */
#define MEASURE_COUNTS 200
/* Less than this to go before the margin is not worth a kick, which costs about as much as a few steps. */
#define RUN_MIN_NS 20000.0
/* A margin of this many passes costs little, and forgives a kick that is later than any before. */
#define WALK_PASSES 6.0
/* A pass costs as much as this many steps: getting off the breakpoint, arming it, running into it. */
#define SPACING_MIN 5
/* A search by state that takes longer than this has missed its place. */
#define SEARCH_NS (120 * NSEC_PER_SEC)

void landmark_base(struct landmark_search *s, const struct machine *m)
{
	s->clock_base = vcpu_clock(&m->vcpu[0]);
}

void landmark_begin(struct landmark_search *s, const struct machine *m, const struct event *e,
		    enum clock_kind clock, bool at_boundary)
{
	s->by_clock = clock == CLOCK_EMUL && e->landmark.has_clock && m->caps.emul_clock;
	s->e = e;
	s->active = true;
	s->started = host_ns();
	s->run_from = 0;
	s->walking = s->crowded = false;
	s->ns_guess = NS_PER_COUNT_FIRST;
	/* Also where no run is free any more, or one late kick would make all landmarks after it slow. */
	s->late *= LATE_DECAY;
	if (at_boundary && s->by_clock)
		landmark_base(s, m);
}

void landmark_plan(struct landmark_search *s, struct machine *m, struct vcpu_request *req,
		   uint64_t *wait)
{
	uint64_t done, left;
	double ns, margin, run;

	if (!s->by_clock) {
		req->has_breakpoint = true;
		req->breakpoint = GVA(s->e->landmark.regs.rip);
		return;
	}
	done = vcpu_clock(&m->vcpu[0]) - s->clock_base;
	left = s->e->landmark.clock > done ? s->e->landmark.clock - done : 0;
	ns = s->ns_per_count > 0 ? s->ns_per_count : s->ns_guess;
	margin = (s->late > LATE_MIN ? s->late : LATE_MIN) * LATE_SAFETY * s->caution;
	if (margin < WALK_PASSES * s->spacing * ns)
		margin = WALK_PASSES * s->spacing * ns;
	/* Count and place belong together only once the event has been delivered. */
	if (m->vcpu[0].event_queued) {
		s->run_from = 0;
		req->step = true;
		return;
	}
	run = ((double)left * ns - margin) * APPROACH;
	if (run < RUN_MIN_NS) {
		/* User code is not counted, and cannot be stepped everywhere: wait for the kernel to come to
		 * the landmark's instruction. */
		bool user = vcpu_cpl(&m->vcpu[0], NULL) != 0 || vcpu_returns_to_user(&m->vcpu[0]);

		s->walking = user || (!s->crowded && left > SPACING_MIN &&
				      caps_breakpoint(&m->caps) != BP_NONE);
		s->walk_clock = vcpu_regs(&m->vcpu[0])->rip == s->e->landmark.regs.rip ? done : 0;
		req->step = !s->walking;
		req->has_breakpoint = s->walking;
		req->breakpoint = GVA(s->e->landmark.regs.rip);
		s->run_from = 0;
		return;
	}
	*wait = (uint64_t)run;
	s->run_wait = run;
	s->run_from = host_cpu_ns();
	s->run_clock = done;
}

/* Learn from a free run how fast the guest is and how late kicks come. CPU time: while this thread waits for a
 * CPU, the guest stands still as well. */
static void measure(struct landmark_search *s, uint64_t done)
{
	uint64_t counts = done - s->run_clock;
	double took, ns;

	if (!s->run_from)
		return;
	took = (double)(host_cpu_ns() - s->run_from);
	s->late *= LATE_DECAY;
	if (took - s->run_wait > s->late)
		s->late = took - s->run_wait;
	if (counts < MEASURE_COUNTS) {
		s->ns_guess *= 2;
		return;
	}
	ns = took / (double)counts;
	if (s->ns_per_count <= 0 || ns < s->ns_per_count)
		s->ns_per_count = ns;
	else
		s->ns_per_count += (ns - s->ns_per_count) / 64;
}

/* Learn from a walk from pass to pass how far apart they are. */
static void measure_walk(struct landmark_search *s, const struct machine *m, uint64_t done)
{
	uint64_t counts = done - s->walk_clock;

	if (!s->walking || !s->walk_clock || vcpu_regs(&m->vcpu[0])->rip != s->e->landmark.regs.rip)
		return;
	s->walking = false;
	s->crowded = counts < SPACING_MIN;
	s->spacing += ((double)counts - s->spacing) / 4;
}

int landmark_check(struct landmark_search *s, struct machine *m, enum landmark_verdict *verdict,
		   struct err *err)
{
	const struct event *e = s->e;
	struct machine_digest digest;
	struct kvm_regs regs;
	int rc;

	*verdict = LANDMARK_AHEAD;
	s->stops++;
	rc = vcpu_complete(&m->vcpu[0], err);
	if (rc < 0)
		return rc;
	if (m->vcpu[0].event_queued)
		return 0;
	if (s->by_clock) {
		uint64_t done = vcpu_clock(&m->vcpu[0]) - s->clock_base;

		measure(s, done);
		measure_walk(s, m, done);
		s->run_from = 0;
		if (done < e->landmark.clock)
			return 0;
		if (done > e->landmark.clock) {
			*verdict = LANDMARK_PASSED;
			return 0;
		}
	}
	regs = event_regs(&m->vcpu[0]);
	if (!event_landmark_has_regs(e, &regs)) {
		/* In user mode the count stands still, so an equal count says nothing. */
		bool wrong = s->by_clock && vcpu_cpl(&m->vcpu[0], NULL) == 0;

		*verdict = wrong				     ? LANDMARK_DIFFERS
			   : host_ns() - s->started > SEARCH_NS	     ? LANDMARK_LOST
								     : LANDMARK_AHEAD;
		return 0;
	}
	if (s->by_clock) {
		*verdict = LANDMARK_HERE;
		return 0;
	}
	if (machine_witness(m) != e->landmark.witness) {
		s->ambiguous++;
		return 0;
	}
	rc = machine_digest(m, &digest, err);
	if (rc < 0)
		return rc;
	if (digest.state == e->landmark.digest.state && digest.memory == e->landmark.digest.memory)
		*verdict = LANDMARK_HERE;
	else
		s->ambiguous++;
	return 0;
}
