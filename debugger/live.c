// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/live.h"

#include "debugger/landing.h"
#include "vmm/breakpoint.h"
#include "vmm/kick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The user's interrupt is looked for this often. */
#define LOOK_NS (50 * NSEC_PER_MSEC)

struct live {
	struct machine *m;
	struct live_options o;
	struct recorder *recorder;
	/* Whose hooks they were before, and the recorder's. */
	const struct nondet_ops *outer, *inner;
	void *outer_ctx, *inner_ctx;

	/* While running. */
	struct stops_seen seen; /* without stops one step is made */
	struct landing landing;
	bool stepped, at_breakpoint, interrupted;
	bool over; /* stands where the run began: a breakpoint there does not count */
	struct kvm_regs began;
	uint64_t next_look; /* host_ns */
};

/* Is the guest no longer where the run began? */
static bool has_moved(const struct live *l)
{
	return memcmp(vcpu_regs(&l->m->vcpu[0]), &l->began, sizeof(l->began)) != 0;
}

/* *over: stands at a breakpoint that does not count. */
static int look_for_breakpoint(struct live *l, bool *over, struct err *err)
{
	struct vcpu *v = &l->m->vcpu[0];
	int rc = vcpu_complete(v, err);

	*over = false;
	if (rc == 0)
		rc = landing_look(&l->landing, l->m, over, err);
	/* A watched store moves the guest without a stop. */
	if (rc == 0 && has_moved(l))
		l->over = false;
	*over |= l->over;
	if (rc == 0 && !l->over && breakpoint_set_has(&l->seen.stops->breakpoints, vcpu_regs(v)->rip))
		l->at_breakpoint = l->m->pause = true;
	return rc;
}

static int on_plan(void *ctx, struct machine *m, struct vcpu_request *req, struct err *err)
{
	struct live *l = ctx;
	int rc = l->inner->plan(l->inner_ctx, m, req, err);

	if (rc < 0 || m->end)
		return rc;
	if (!l->seen.stops) {
		req->step = true;
		req->window = false;
		return 0;
	}
	if (!l->seen.stops->breakpoints.len)
		return 0;
	rc = look_for_breakpoint(l, &req->over, err);
	req->set = &l->landing.set;
	return rc;
}

static void look_for_interrupt(struct live *l)
{
	uint64_t now = host_ns();

	if (!l->o.interrupt || now < l->next_look)
		return;
	l->next_look = now + LOOK_NS;
	if (l->o.interrupt(l->o.interrupt_ctx))
		l->interrupted = l->m->pause = true;
}

static int on_stopped(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	struct live *l = ctx;

	if (stop != VCPU_KICK || has_moved(l))
		l->over = false;
	if (stop == VCPU_KICK)
		look_for_interrupt(l);
	else if (stop == VCPU_STEP && !l->seen.stops)
		l->stepped = m->pause = true;
	return l->inner->stopped(l->inner_ctx, m, stop, err);
}

static int on_boundary(void *ctx, struct machine *m, struct err *err)
{
	struct live *l = ctx;

	l->over = false;
	if (!l->seen.stops)
		l->stepped = m->pause = true;
	return l->inner->boundary(l->inner_ctx, m, err);
}

static int on_halted(void *ctx, struct machine *m, uint64_t deadline, struct err *err)
{
	struct live *l = ctx;

	return l->inner->halted(l->inner_ctx, m, deadline, err);
}

static int on_watched(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old, uint64_t now,
		      struct err *err)
{
	struct live *l = ctx;

	(void)err;
	stops_note_store(&l->seen, m, gpa, len, old, now);
	return 0;
}

static int on_loaded(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err)
{
	struct live *l = ctx;

	(void)err;
	stops_note_load(&l->seen, m, gpa, len, value);
	return 0;
}

static const struct nondet_ops live_ops = {
	.plan = on_plan,
	.stopped = on_stopped,
	.boundary = on_boundary,
	.halted = on_halted,
	.watched = on_watched,
	.loaded = on_loaded,
};

/* Until something stops it. */
static int run(struct live *l, struct timeline_stop *stop, struct err *err)
{
	struct machine *m = l->m;
	int rc;

	l->stepped = l->at_breakpoint = l->seen.hit = l->interrupted = false;
	l->began = *vcpu_regs(&m->vcpu[0]);
	l->next_look = host_ns() + LOOK_NS;
	m->pause = false;
	recorder_go_on(l->recorder);
	rc = machine_run(m, err);
	recorder_rest(l->recorder);
	if (rc < 0)
		return rc;
	if (l->seen.hit)
		*stop = l->seen.first;
	else if (m->end)
		*stop = (struct timeline_stop){.reason = TIMELINE_END};
	else if (l->at_breakpoint || l->stepped)
		*stop = (struct timeline_stop){.reason = TIMELINE_BREAKPOINT};
	else
		return err_set(err, EINTR, "interrupted");
	return 0;
}

int live_step(struct live *l, struct timeline_stop *stop, struct err *err)
{
	l->seen.stops = NULL;
	return run(l, stop, err);
}

int live_continue(struct live *l, const struct timeline_stops *stops, struct timeline_stop *stop, struct err *err)
{
	struct memory *mem = l->m->mem;
	int rc = stops_arm(stops, mem, err);

	if (rc < 0)
		return rc;
	rc = landing_begin(&l->landing, l->m, &stops->breakpoints, err);
	l->seen.stops = stops;
	l->over = !stops->here;
	while (rc == 0) {
		rc = run(l, stop, err);
		l->over = true;
		if (rc < 0 || stop->reason != TIMELINE_BREAKPOINT || !stops->wanted || stops->wanted(stops->ctx, NULL))
			break;
	}
	l->seen.stops = NULL;
	landing_end(&l->landing);
	return stops_disarm(stops, mem, rc, err);
}

int live_open(struct live **out, struct machine *m, const struct live_options *o, struct err *err)
{
	struct live *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return err_set(err, ENOMEM, "out of memory");
	l->m = m;
	l->o = *o;
	l->o.recorder.wake = o->interrupt;
	l->o.recorder.wake_ctx = o->interrupt_ctx;
	l->outer = m->nondet;
	l->outer_ctx = m->nondet_ctx;
	rc = recorder_create(&l->recorder, m, &l->o.recorder, NULL, err);
	if (rc < 0) {
		free(l);
		return rc;
	}
	recorder_rest(l->recorder);
	l->inner = m->nondet;
	l->inner_ctx = m->nondet_ctx;
	m->nondet = &live_ops;
	m->nondet_ctx = l;
	*out = l;
	return 0;
}

void live_close(struct live *l)
{
	if (!l)
		return;
	l->m->nondet = l->outer;
	l->m->nondet_ctx = l->outer_ctx;
	recorder_destroy(l->recorder);
	free(l);
}
