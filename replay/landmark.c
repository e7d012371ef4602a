// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/landmark.h"

#include "vmm/kick.h"

#include <string.h>

/*
 * By clock, the last free run (approach.h) aims at a margin before the landmark. The rest is walked from one pass
 * through the landmark's RIP to the next, by breakpoint, which cannot miss it; or by single steps where passes come
 * too close together.
 */
/* A margin of this many passes costs little, and forgives a kick that is later than any before. */
#define WALK_PASSES 6.0
/* A pass costs as much as this many steps: getting off the breakpoint, arming it, running into it. */
#define SPACING_MIN 5
/* A search that takes longer than this has missed its place. Where by state nothing moves steadily, each pass is a
 * stop; with free runs a few dozen to a few thousand do. */
#define SEARCH_NS (120 * NSEC_PER_SEC)
#define SEARCH_FREE_NS (20 * NSEC_PER_SEC)
/* By state, less time in the guest than this, ns, is walked: about what a pass costs on hardware. */
#define FREE_MIN 500.0
/* A shorter timer fires before the guest is entered. */
#define TIMER_MIN 1000.0
/* Less cannot be told from the cost of entering the guest. */
#define GUEST_NS_MIN 500.0
/* How fast an unlucky moment is forgotten: with each free run, and with each pass that is walked because of it. */
#define DRIFT_DECAY 0.125
#define DRIFT_DECAY_WALK (1.0 / 512)
/* Other loops may be faster than any so far by this factor. */
#define PASS_MARGIN 2
/* From this caution on nothing is run freely by state. */
#define CAUTION_WALK 64.0

void landmark_init(struct landmark_search *s, const struct machine *m)
{
	*s = (struct landmark_search){.caution = 1};
	approach_init(&s->approach, APPROACH_LANDMARK, m->caps.ns_count, host_cpu_ns);
}

void landmark_base(struct landmark_search *s, const struct machine *m)
{
	s->clock_base = vcpu_clock(&m->vcpu[0]);
}

/* Registers in the order of struct kvm_regs up to R15, then operands. */
#define GENERAL_REGISTERS 16

static unsigned quantities(struct landmark_search *s, struct machine *m, const struct kvm_regs *regs,
			   uint64_t value[GENERAL_REGISTERS + WITNESS_MAX])
{
	memcpy(value, regs, GENERAL_REGISTERS * sizeof(*value));
	witness_read(m, &s->operands, value + GENERAL_REGISTERS);
	return GENERAL_REGISTERS + s->operands.count;
}

static void begin_by_state(struct landmark_search *s, struct machine *m)
{
	const struct event *e = s->e;
	uint64_t target[GENERAL_REGISTERS + WITNESS_MAX];

	s->at_pass = s->ran = false;
	s->entries = 0;
	s->drift -= s->drift * DRIFT_DECAY;
	if (e->landmark.has_clock) {
		/* Registers by hash only: nothing to go by. */
		progress_begin(&s->progress, NULL, 0, 0);
		return;
	}
	witness_find(m, &e->landmark.regs, &s->operands);
	/* Other code lies there now, or is not mapped yet. */
	if (s->operands.count != e->landmark.operands)
		s->operands.count = 0;
	memcpy(target, &e->landmark.regs, GENERAL_REGISTERS * sizeof(*target));
	memcpy(target + GENERAL_REGISTERS, e->landmark.operand, s->operands.count * sizeof(*target));
	progress_begin(&s->progress, target, GENERAL_REGISTERS + s->operands.count, s->pass_ns);
}

void landmark_begin(struct landmark_search *s, struct machine *m, const struct event *e,
		    enum clock_kind clock, bool at_boundary)
{
	s->by_clock = clock == CLOCK_EMUL && e->landmark.has_clock && m->caps.emul_clock;
	s->e = e;
	s->active = true;
	s->started = host_ns();
	s->run_wait = 0;
	s->free_runs = s->alike = 0;
	s->walking = s->crowded = false;
	approach_begin(&s->approach);
	if (at_boundary && s->by_clock)
		landmark_base(s, m);
	if (!s->by_clock)
		begin_by_state(s, m);
}

/* Run freely while progress allows, but only from a pass that was sampled; else to the next pass. */
static void plan_by_state(struct landmark_search *s, struct machine *m, struct vcpu_request *req,
			  uint64_t *wait)
{
	double allowed = 0, timer;

	if (s->at_pass && !m->vcpu[0].event_queued && s->caution < CAUTION_WALK)
		allowed = progress_allow(&s->progress, s->caution);
	s->at_pass = false;
	s->entries++;
	timer = allowed - s->drift;
	if (timer < TIMER_MIN && s->drift <= 0)
		timer = TIMER_MIN;
	if (allowed >= FREE_MIN && timer < TIMER_MIN)
		s->drift -= s->drift * DRIFT_DECAY_WALK;
	if (allowed < FREE_MIN || timer < TIMER_MIN) {
		req->has_breakpoint = true;
		req->breakpoint = GVA(s->e->landmark.regs.rip);
		return;
	}
	s->run_wait = timer;
	*wait = (uint64_t)s->run_wait;
	s->ran = true;
	s->free_runs++;
}

/* How far the kick of a free run missed the time in the guest that it was meant for; that time is at least least_ns. */
static void measure_kick(struct landmark_search *s, double least_ns)
{
	double ran = s->progress.ran_ns;

	if (least_ns - s->run_wait > s->drift)
		s->drift = least_ns - s->run_wait;
	if (ran > 0 && ran - s->run_wait > s->drift)
		s->drift = ran - s->run_wait;
	else if (ran > 0)
		s->drift += (ran - s->run_wait - s->drift) * DRIFT_DECAY;
}

/* At a pass: let progress see it. */
static void sample(struct landmark_search *s, struct machine *m, const struct kvm_regs *regs)
{
	uint64_t now[GENERAL_REGISTERS + WITNESS_MAX];
	uint64_t ran = m->vcpu[0].free_ns - s->from_ns, cpu = host_cpu_ns() - s->from_cpu;
	/* Neither our own work nor time without a CPU moves the guest. */
	double took = (double)(ran < cpu ? ran : cpu), guest = took - s->entries * s->entry_ns;

	if (!s->ran)
		guest = 0;
	else if (guest < GUEST_NS_MIN)
		guest = GUEST_NS_MIN;
	if (s->progress.sampled && !s->ran && s->entries == 1 &&
	    (s->entry_ns <= 0 || took < s->entry_ns))
		s->entry_ns = took;
	quantities(s, m, regs, now);
	progress_sample(&s->progress, now, guest, s->entry_ns);
	if (s->ran)
		measure_kick(s, guest - s->entry_ns);
	s->ran = false;
	s->entries = 0;
	s->from_ns = m->vcpu[0].free_ns;
	s->from_cpu = host_cpu_ns();
	s->at_pass = true;
}

/* What the next search may take for granted. */
static void learn_pass(struct landmark_search *s)
{
	double ns = progress_pass_ns(&s->progress) / PASS_MARGIN;

	if (ns > 0 && (s->pass_ns <= 0 || ns < s->pass_ns))
		s->pass_ns = ns;
}

bool landmark_may_be_behind(const struct landmark_search *s)
{
	return s->by_clock ? s->caution < APPROACH_CAUTION_MAX : s->free_runs && s->caution < CAUTION_WALK;
}

void landmark_plan(struct landmark_search *s, struct machine *m, struct vcpu_request *req,
		   uint64_t *wait)
{
	uint64_t done, left;

	if (!s->by_clock) {
		plan_by_state(s, m, req, wait);
		return;
	}
	done = vcpu_clock(&m->vcpu[0]) - s->clock_base;
	left = s->e->landmark.clock > done ? s->e->landmark.clock - done : 0;
	/* Count and place belong together only once the event has been delivered. */
	if (m->vcpu[0].event_queued) {
		s->approach.wait = 0;
		req->step = true;
		return;
	}
	*wait = approach_run(&s->approach, left, WALK_PASSES * s->spacing, s->caution, done);
	if (*wait == 0) {
		/* User code is not counted, and cannot be stepped everywhere: wait for the kernel to come to
		 * the landmark's instruction. */
		bool user = vcpu_cpl(&m->vcpu[0], NULL) != 0 || vcpu_returns_to_user(&m->vcpu[0]);

		s->walking = user || (!s->crowded && left > SPACING_MIN &&
				      caps_breakpoint(&m->caps) != BP_NONE);
		s->walk_clock = vcpu_regs(&m->vcpu[0])->rip == s->e->landmark.regs.rip ? done : 0;
		req->step = !s->walking;
		req->has_breakpoint = s->walking;
		req->breakpoint = GVA(s->e->landmark.regs.rip);
	}
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

/* With equal registers: the same memory, and then the same everything? */
static int compare_state(struct landmark_search *s, struct machine *m, const struct kvm_regs *regs,
			 enum landmark_verdict *verdict, struct err *err)
{
	const struct event *e = s->e;
	uint64_t operand[WITNESS_MAX];
	struct machine_digest digest;
	struct witness w;
	int rc;

	witness_find(m, regs, &w);
	witness_read(m, &w, operand);
	if (witness_hash(operand, w.count) == e->landmark.witness) {
		rc = machine_digest(m, &digest, err);
		if (rc < 0)
			return rc;
		if (digest.state == e->landmark.digest.state &&
		    digest.memory == e->landmark.digest.memory) {
			*verdict = LANDMARK_HERE;
			return 0;
		}
	}
	s->ambiguous++;
	s->alike++;
	return 0;
}

static int check_by_state(struct landmark_search *s, struct machine *m, bool at_breakpoint,
			  enum landmark_verdict *verdict, struct err *err)
{
	struct kvm_regs regs = event_regs(&m->vcpu[0]);
	int rc;

	if (event_landmark_has_regs(s->e, &regs)) {
		rc = compare_state(s, m, &regs, verdict, err);
		if (rc == 0 && *verdict == LANDMARK_HERE)
			learn_pass(s);
		if (rc < 0 || *verdict == LANDMARK_HERE)
			return rc;
	}
	if (at_breakpoint && regs.rip == s->e->landmark.regs.rip)
		sample(s, m, &regs);
	if (progress_overrun(&s->progress))
		*verdict = LANDMARK_PASSED;
	else if (host_ns() - s->started > (s->free_runs ? SEARCH_FREE_NS : SEARCH_NS))
		*verdict = LANDMARK_LOST;
	return 0;
}

static void check_by_clock(struct landmark_search *s, struct machine *m, enum landmark_verdict *verdict)
{
	uint64_t done = vcpu_clock(&m->vcpu[0]) - s->clock_base;
	struct kvm_regs regs = event_regs(&m->vcpu[0]);

	approach_stopped(&s->approach, done);
	measure_walk(s, m, done);
	if (done > s->e->landmark.clock)
		*verdict = LANDMARK_PASSED;
	if (done != s->e->landmark.clock)
		return;
	/* In user mode the count stands still, so an equal count says nothing. */
	*verdict = event_landmark_has_regs(s->e, &regs)    ? LANDMARK_HERE
		   : vcpu_cpl(&m->vcpu[0], NULL) == 0	   ? LANDMARK_DIFFERS
		   : host_ns() - s->started > SEARCH_NS    ? LANDMARK_LOST
							   : LANDMARK_AHEAD;
}

int landmark_check(struct landmark_search *s, struct machine *m, bool at_breakpoint,
		   enum landmark_verdict *verdict, struct err *err)
{
	int rc;

	*verdict = LANDMARK_AHEAD;
	s->stops++;
	rc = vcpu_complete(&m->vcpu[0], err);
	if (rc < 0 || m->vcpu[0].event_queued)
		return rc;
	if (!s->by_clock)
		return check_by_state(s, m, at_breakpoint, verdict, err);
	check_by_clock(s, m, verdict);
	return 0;
}
