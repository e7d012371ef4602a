// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/replayer.h"

#include "replay/approach.h"
#include "replay/fault.h"
#include "replay/landmark.h"
#include "replay/mark.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A replay is looked at this often for the user's interrupt. */
#define LOOK_NS (100 * NSEC_PER_MSEC)

struct replayer {
	struct machine *m;
	struct replay_file *f;
	struct replay_options o;
	struct kick_timer timer;
	struct landmark_search search;

	struct event next;
	struct replay_file_place next_at; /* before `next` */
	bool have_next;         /* `next` is the event to come */
	uint64_t events;        /* read so far */
	struct event recent[REPLAY_RECENT];
	uint64_t passed;        /* events that happened */
	bool at_boundary;       /* the guest has not run since the last boundary */

	uint64_t steps;         /* made since the last boundary; where there is no count */
	bool ran;               /* freely since then: they are not all there is */
	uint64_t base;          /* vcpu_progress at the last boundary; with o.positions */
	uint64_t last_span;     /* what it grew by over the boundary before */
	struct approach approach;
	uint64_t slice_end;     /* host_ns */
	struct breakpoint_set breakpoints;
	bool hit;               /* at one of them */
	bool over;              /* the guest stands where the run began: that one does not count */
	bool count_here;
	struct kvm_regs began;  /* its registers and progress there */
	uint64_t began_progress;
	struct divergence divergence;
	struct replay_counts counts;
};

/* Positions are told by the clock. */
static bool counting(const struct replayer *r)
{
	return r->o.positions && r->o.clock == CLOCK_EMUL;
}

/* Steps since the last boundary. */
static uint64_t steps_here(const struct replayer *r)
{
	return counting(r) ? vcpu_progress(&r->m->vcpu[0]) - r->base : r->steps;
}

static int read_event(struct replayer *r, struct err *err)
{
	int rc;

	r->next_at = replay_file_tell(r->f);
	rc = replay_file_next(r->f, &r->next, err);
	if (rc > 0 && r->o.fault.kind == FAULT_DROP_EVENT && r->events == r->o.fault.where) {
		r->events++;
		rc = replay_file_next(r->f, &r->next, err);
	}
	r->have_next = rc > 0;
	r->events += rc > 0;
	r->search.active = false;
	r->search.alike = 0;
	return rc < 0 ? rc : 0;
}

/* The event happened as recorded: on to the next. */
static int event_done(struct replayer *r, struct err *err)
{
	r->recent[r->passed++ % REPLAY_RECENT] = r->next;
	/* Input and time happen without anything being compared. */
	if (r->next.type == EVENT_LANDMARK || r->next.type == EVENT_DIGEST)
		r->divergence.last_good = r->next.boundary;
	return read_event(r, err);
}

static int diverged(struct replayer *r, struct err *err)
{
	struct divergence *d = &r->divergence;

	d->found = true;
	d->at = (struct position){r->m->boundary, 0};
	d->event = r->have_next ? r->next.type : EVENT_END;
	return err_set(err, EILSEQ, "the replay diverges from the recording at boundary %" PRIu64 ": %s",
		       d->at.boundary, d->what);
}

#define DIVERGED(r, err, ...) \
	(snprintf((r)->divergence.what, sizeof((r)->divergence.what), __VA_ARGS__), diverged(r, err))

/* A landmark is behind us. That can be the fault of a free run that went too far, until with growing caution none
 * comes near the landmark. */
static int ran_past(struct replayer *r, struct err *err, const char *what)
{
	if (landmark_may_be_behind(&r->search))
		return err_set(err, EAGAIN, "the replay ran past a landmark");
	if (r->search.by_clock)
		return DIVERGED(r, err, "%s (RIP 0x%llx)", what, r->next.landmark.regs.rip);
	return DIVERGED(r, err, "%s (RIP 0x%llx; its registers were met %" PRIu64 " times, with other memory or devices)", what,
			r->next.landmark.regs.rip, r->search.alike);
}

/* Compare the machine's digests with the recorded ones. 0, or -EILSEQ. */
static int compare_digest(struct replayer *r, const struct machine_digest *then, struct err *err)
{
	struct machine_digest now;
	int rc = machine_digest(r->m, &now, err);

	if (rc < 0)
		return rc;
	if (now.memory != then->memory)
		return DIVERGED(r, err, "guest memory (digest %016" PRIx64 ", recorded %016" PRIx64 ")",
				now.memory, then->memory);
	if (now.state != then->state)
		return DIVERGED(r, err,
				"device or system register state (digest %016" PRIx64 ", recorded %016" PRIx64 ")",
				now.state, then->state);
	return 0;
}

/* The same, registers first: they have names. */
static int compare(struct replayer *r, const struct kvm_regs *regs, const struct machine_digest *then,
		   struct err *err)
{
	struct kvm_regs here;
	int rc = vcpu_complete(&r->m->vcpu[0], err);

	if (rc < 0 || r->o.blind)
		return rc;
	here = event_regs(&r->m->vcpu[0]);
	if (event_regs_differ(&here, regs, r->divergence.what, sizeof(r->divergence.what)))
		return diverged(r, err);
	return compare_digest(r, then, err);
}

static int compare_landmark(struct replayer *r, struct err *err)
{
	const struct event *e = &r->next;
	struct kvm_regs here = event_regs(&r->m->vcpu[0]);

	if (!e->landmark.has_clock || r->o.blind)
		return compare(r, &e->landmark.regs, &e->landmark.digest, err);
	if (here.rip != e->landmark.regs.rip || here.rcx != e->landmark.regs.rcx)
		return DIVERGED(r, err,
				"register %s is 0x%llx, recorded 0x%llx, at the instruction count of a landmark",
				here.rip != e->landmark.regs.rip ? "rip" : "rcx",
				here.rip != e->landmark.regs.rip ? here.rip : here.rcx,
				here.rip != e->landmark.regs.rip ? e->landmark.regs.rip : e->landmark.regs.rcx);
	if (event_regs_hash(&here) != e->landmark.regs_hash)
		return DIVERGED(r, err, "a general register differs at a landmark (RIP and RCX agree)");
	return compare_digest(r, &e->landmark.digest, err);
}

static int give_input(struct replayer *r, struct err *err)
{
	struct event *e = &r->next;

	if (devices_room(r->m, e->input.channel) < e->input.len) {
		char name[CHANNEL_NAME_MAX];

		event_channel_name(e->input.channel, name);
		return DIVERGED(r, err, "%s has no room for input that it took when recorded", name);
	}
	devices_receive(r->m, e->input.channel, e->input.bytes, e->input.len);
	r->counts.inputs++;
	return event_done(r, err);
}

static bool next_is(const struct replayer *r, enum event_type type)
{
	return r->have_next && r->next.type == type && r->next.boundary == r->m->boundary;
}

/* Ends that came from outside happen because the trace says so; the others come by themselves. */
static void impose_end(struct replayer *r)
{
	if (!r->have_next)
		machine_end(r->m, END_OF_TRACE, 0);
	else if (next_is(r, EVENT_END) && machine_end_is_imposed(r->next.end.end) &&
		 r->next.end.vtime == r->m->vtime)
		machine_end(r->m, r->next.end.end, r->next.end.code);
}

/* Of a place right behind a boundary. */
static bool has_passed_target(const struct replayer *r)
{
	const struct position *to = &r->o.target;

	return r->o.has_target && (r->m->boundary > to->boundary || (r->m->boundary == to->boundary && !to->steps));
}

static int on_boundary(void *ctx, struct machine *m, struct err *err)
{
	struct replayer *r = ctx;
	int rc = fault_inject(&r->o.fault, m, false, err);

	r->at_boundary = true;
	r->over = false;
	r->search.active = false;
	if (counting(r)) {
		uint64_t now = vcpu_progress(&m->vcpu[0]);

		r->last_span = now - r->base;
		r->base = now;
	} else {
		/* The last step led here, and was none that stops. */
		r->last_span = r->ran ? 0 : r->steps + 1;
	}
	r->steps = 0;
	r->ran = false;
	if (r->o.interrupted && *r->o.interrupted)
		machine_end(m, END_INTERRUPTED, 0);
	if (rc == 0 && r->o.watch_len && m->boundary == r->o.watch_from)
		rc = memory_watch(m->mem, r->o.watch, r->o.watch_len, err);
	while (rc == 0) {
		if (r->have_next && r->next.boundary < m->boundary && r->next.type == EVENT_LANDMARK)
			return ran_past(r, err, "the place of a landmark was not reached before this boundary");
		if (r->have_next && r->next.boundary < m->boundary)
			return DIVERGED(r, err, "the guest went on where the recording has another event");
		if (next_is(r, EVENT_INPUT) && r->next.input.when == INPUT_AT_BOUNDARY) {
			rc = give_input(r, err);
		} else if (next_is(r, EVENT_TIME)) {
			machine_pass_time(m, r->next.time.advance);
			r->counts.times++;
			rc = event_done(r, err);
		} else if (next_is(r, EVENT_DIGEST)) {
			rc = compare(r, &r->next.digest.regs, &r->next.digest.digest, err);
			r->counts.digests += rc == 0;
			if (rc == 0)
				rc = event_done(r, err);
		} else {
			break;
		}
	}
	if (rc < 0)
		return rc;
	impose_end(r);
	if (has_passed_target(r) || (r->o.target_time && m->vtime >= r->o.target_time))
		m->pause = true;
	return 0;
}

static int on_halted(void *ctx, struct machine *m, uint64_t deadline, struct err *err)
{
	struct replayer *r = ctx;
	bool given = false;

	/* All that came at one time: the first of it may have woken the guest. */
	while (next_is(r, EVENT_INPUT) && r->next.input.when == INPUT_HALTED &&
	       r->next.input.vtime < deadline && (!given || r->next.input.vtime == m->vtime)) {
		int rc;

		if (r->next.input.vtime < m->vtime)
			return DIVERGED(r, err, "time has passed further than when input came");
		machine_pass_time(m, r->next.input.vtime - m->vtime);
		rc = give_input(r, err);
		if (rc < 0)
			return rc;
		given = true;
	}
	if (given)
		return 0;
	if (r->o.interrupted && *r->o.interrupted)
		machine_end(m, END_INTERRUPTED, 0);
	impose_end(r);
	return 0;
}

/* The landmark is here: let its time pass. */
static int land(struct replayer *r, struct err *err)
{
	struct machine *m = r->m;
	int rc = fault_inject(&r->o.fault, m, true, err);
	uint64_t advance = r->next.landmark.advance;

	if (rc == 0)
		rc = compare_landmark(r, err);
	if (rc < 0)
		return rc;
	r->counts.landmarks++;
	machine_land(m, advance);
	rc = event_done(r, err);
	while (rc == 0 && next_is(r, EVENT_INPUT) && r->next.input.when == INPUT_AT_LANDMARK)
		rc = give_input(r, err);
	if (rc == 0)
		impose_end(r);
	return rc;
}

/* Is this the place? Lands if so. */
static int look(struct replayer *r, bool at_breakpoint, struct err *err)
{
	enum landmark_verdict verdict;
	int rc;

	if (!r->search.active || machine_interrupt_waits(r->m))
		return 0;
	rc = landmark_check(&r->search, r->m, at_breakpoint, &verdict, err);
	if (rc < 0)
		return rc;
	r->counts.stops = r->search.stops;
	r->counts.ambiguous = r->search.ambiguous;
	switch (verdict) {
	case LANDMARK_HERE:
		return land(r, err);
	case LANDMARK_PASSED:
		return ran_past(r, err, "more instructions were executed than before the landmark");
	case LANDMARK_LOST:
		return ran_past(r, err, "a landmark's place was not found within the time allowed");
	case LANDMARK_DIFFERS:
		return r->o.blind ? land(r, err) : compare_landmark(r, err);
	case LANDMARK_AHEAD:
		break;
	}
	return 0;
}

static uint64_t look_ns(const struct replayer *r)
{
	return r->o.slice && r->o.slice < LOOK_NS ? r->o.slice : LOOK_NS;
}

/* In the boundary of the target: run freely while it is far, then step. A landmark on the way is searched for as well;
 * whichever is nearer decides. */
static void plan_target(struct replayer *r, struct machine *m, struct vcpu_request *req, uint64_t *wait)
{
	uint64_t here = steps_here(r), run = 0, landmark = 0;
	bool free = counting(r) && !req->step && !m->vcpu[0].event_queued &&
		    r->o.target.steps > here;

	if (free)
		run = approach_run(&r->approach, r->o.target.steps - here, 0, r->search.caution, here);
	if (!run) {
		req->step = true;
		req->window = false;
		return;
	}
	*wait = run;
	if (r->search.active)
		landmark_plan(&r->search, m, req, &landmark);
	if (landmark && landmark < run)
		*wait = landmark;
}

/* Is the guest no longer where the run began? */
static bool has_moved(const struct replayer *r)
{
	const struct vcpu *v = &r->m->vcpu[0];

	return memcmp(vcpu_regs(v), &r->began, sizeof(r->began)) != 0 || vcpu_progress(v) != r->began_progress;
}

/* Is the guest about to execute an instruction with a breakpoint? However it came here: by one, by a step, over a boundary. */
static int look_for_breakpoint(struct replayer *r, struct machine *m, struct err *err)
{
	const struct kvm_regs *regs = vcpu_regs(&m->vcpu[0]);
	int rc = vcpu_complete(&m->vcpu[0], err);

	/* A watched store moves the guest without a stop. */
	if (rc == 0 && has_moved(r))
		r->over = false;
	if (rc < 0 || r->over)
		return rc;
	for (unsigned i = 0; i < r->breakpoints.len; i++)
		if (r->breakpoints.address[i].v == regs->rip)
			r->hit = m->pause = true;
	return 0;
}

static int on_plan(void *ctx, struct machine *m, struct vcpu_request *req, struct err *err)
{
	struct replayer *r = ctx;
	uint64_t wait = 0;
	bool fresh = r->at_boundary;

	r->at_boundary = false;
	/* A landmark can lie at the very place where the search for it begins. */
	while (!r->search.active && next_is(r, EVENT_LANDMARK) && !machine_interrupt_waits(m)) {
		int rc;

		landmark_begin(&r->search, m, &r->next, r->o.clock, fresh);
		rc = look(r, false, err);
		if (rc < 0 || m->end)
			return rc;
	}
	if (fresh && !r->search.active && next_is(r, EVENT_LANDMARK))
		landmark_base(&r->search, m);
	if (r->breakpoints.len) {
		int rc = look_for_breakpoint(r, m, err);

		if (rc < 0)
			return rc;
		req->set = &r->breakpoints;
		req->over = r->over;
	}
	/* Landing may have raised an interrupt: the machine delivers it before anything runs. */
	if (machine_interrupt_waits(m) && !req->step && !req->window)
		return 0;
	if (r->o.has_target && m->boundary == r->o.target.boundary) {
		plan_target(r, m, req, &wait);
	} else if (r->search.active && !machine_interrupt_waits(m)) {
		landmark_plan(&r->search, m, req, &wait);
	}
	if (wait)
		kick_timer_set(&r->timer, wait, look_ns(r));
	r->ran = r->ran || !req->step;
	return 0;
}

/* Is this the target? In user mode the count stands still, so after a free run an equal count says nothing there. */
static int check_target(struct replayer *r, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	uint64_t here;
	bool stepped = stop == VCPU_STEP;
	int cpl;

	here = steps_here(r);
	approach_stopped(&r->approach, here);
	if (here < r->o.target.steps)
		return 0;
	cpl = stepped ? 0 : vcpu_cpl(&m->vcpu[0], err);
	if (cpl < 0)
		return cpl;
	if (!stepped && (here > r->o.target.steps || cpl != 0))
		return err_set(err, EAGAIN, "a late timer made the replay run past a position");
	m->pause = true;
	return 0;
}

static int on_stopped(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	struct replayer *r = ctx;
	int rc;

	r->steps += stop == VCPU_STEP;
	if (r->o.interrupted && *r->o.interrupted)
		machine_end(m, END_INTERRUPTED, 0);
	if (stop != VCPU_KICK || has_moved(r))
		r->over = false;
	if (r->o.slice && stop == VCPU_KICK && host_ns() >= r->slice_end)
		m->pause = true;
	if (r->o.has_target && m->boundary == r->o.target.boundary) {
		rc = check_target(r, m, stop, err);
		if (rc < 0)
			return rc;
	}
	return look(r, stop == VCPU_BREAK, err);
}

static int on_watched(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old,
		      uint64_t now, struct err *err)
{
	struct replayer *r = ctx;

	return r->o.watched ? r->o.watched(r->o.watched_ctx, m, gpa, len, old, now, err) : 0;
}

static int on_loaded(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err)
{
	struct replayer *r = ctx;

	return r->o.loaded ? r->o.loaded(r->o.watched_ctx, m, gpa, len, value, err) : 0;
}

static const struct nondet_ops replayer_ops = {
	.plan = on_plan,
	.stopped = on_stopped,
	.boundary = on_boundary,
	.halted = on_halted,
	.watched = on_watched,
	.loaded = on_loaded,
};

int replayer_create(struct replayer **out, struct machine *m, struct replay_file *f,
		    const struct replay_options *options, struct err *err)
{
	struct replayer *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->m = m;
	r->f = f;
	r->o = *options;
	landmark_init(&r->search, m);
	approach_init(&r->approach, APPROACH_TARGET, m->caps.ns_count, host_cpu_ns);
	r->base = vcpu_progress(&m->vcpu[0]);
	/* With a snapshot the run begins as if behind a boundary, wherever that was. */
	r->at_boundary = m->started;
	rc = replay_file_check_host(f, m, err);
	if (rc == 0)
		rc = kick_timer_create(&r->timer, &m->vcpu[0], err);
	if (rc == 0)
		rc = read_event(r, err);
	if (rc < 0) {
		replayer_destroy(r);
		return rc;
	}
	m->nondet = &replayer_ops;
	m->nondet_ctx = r;
	*out = r;
	return 0;
}

void replayer_destroy(struct replayer *r)
{
	if (!r)
		return;
	kick_timer_destroy(&r->timer);
	free(r);
}

/* The machine ended: as recorded? */
static int check_end(struct replayer *r, struct err *err)
{
	struct machine *m = r->m;
	const struct event *e = &r->next;
	int rc;

	if (m->end == END_INTERRUPTED && r->o.interrupted && *r->o.interrupted)
		return 0;
	if (m->end == END_OF_TRACE && !r->have_next)
		return 0;
	if (!next_is(r, EVENT_END))
		return DIVERGED(r, err, "the run ended (%s) where the recording went on",
				machine_end_name(m->end));
	if (e->end.end != m->end || e->end.code != m->end_code)
		return DIVERGED(r, err, "the run ended otherwise: %s, status %u; recorded: %s, status %u",
				machine_end_name(m->end), m->end_code, machine_end_name(e->end.end),
				e->end.code);
	if (e->end.has_digest) {
		rc = compare(r, &e->end.regs, &e->end.digest, err);
		if (rc < 0)
			return rc;
	}
	rc = event_done(r, err);
	if (rc == 0 && r->have_next)
		rc = DIVERGED(r, err, "the recording goes on behind its end");
	return rc;
}

/* Only a machine that begins with a snapshot can begin at or behind a target. */
static bool begins_at_target(const struct replayer *r)
{
	return r->m->started && !r->passed && r->at_boundary && has_passed_target(r);
}

int replayer_run(struct replayer *r, struct err *err)
{
	int rc;

	r->m->pause = r->hit = false;
	if (begins_at_target(r))
		return 0;
	r->over = !r->count_here;
	r->count_here = false;
	r->began = *vcpu_regs(&r->m->vcpu[0]);
	r->began_progress = vcpu_progress(&r->m->vcpu[0]);
	r->slice_end = host_ns() + r->o.slice;
	kick_timer_set(&r->timer, look_ns(r), look_ns(r));
	rc = machine_run(r->m, err);
	kick_timer_set(&r->timer, 0, 0);
	if (rc == 0 && r->m->end)
		rc = check_end(r, err);
	return rc;
}

void replayer_set_target(struct replayer *r, struct position target)
{
	r->o.has_target = true;
	/* Steps already made in this boundary count. */
	r->o.target = target;
}

void replayer_set_target_time(struct replayer *r, uint64_t vtime)
{
	r->o.target_time = vtime;
}

const struct divergence *replayer_divergence(const struct replayer *r)
{
	return &r->divergence;
}

const struct replay_counts *replayer_counts(const struct replayer *r)
{
	return &r->counts;
}

struct position replayer_position(const struct replayer *r)
{
	return (struct position){r->m->boundary, steps_here(r)};
}

bool replayer_position_known(const struct replayer *r)
{
	return counting(r) || !r->ran;
}

void replayer_set_breakpoints(struct replayer *r, const struct breakpoint_set *set)
{
	r->breakpoints = *set;
}

void replayer_count_here(struct replayer *r)
{
	r->count_here = true;
}

bool replayer_has_not_looked(const struct replayer *r)
{
	return !r->hit && !r->over;
}

bool replayer_hit_breakpoint(const struct replayer *r)
{
	return r->hit;
}

uint64_t replayer_last_span(const struct replayer *r)
{
	return r->last_span;
}

void replayer_set_caution(struct replayer *r, double caution)
{
	r->search.caution = caution;
}

int replayer_save(const struct replayer *r, struct buf *out, struct err *err)
{
	const struct vcpu *v = &r->m->vcpu[0];
	struct replay_mark mark = {
		.next = r->next_at,
		.counts = r->counts,
		.at_boundary = r->at_boundary,
		.counting = counting(r),
		.ran = r->ran,
		.events = r->events - r->have_next,
		.last_good = r->divergence.last_good,
		.steps = r->steps,
		.done = vcpu_progress(v) - r->base,
		.last_span = r->last_span,
		.searched = vcpu_clock(v) - r->search.clock_base,
	};

	replay_mark_encode(&mark, out);
	return out->failed ? err_set(err, ENOMEM, "out of memory") : 0;
}

int replayer_restore(struct replayer *r, struct reader *in, struct err *err)
{
	const struct vcpu *v = &r->m->vcpu[0];
	struct replay_mark mark;
	int rc = replay_mark_decode(in, &mark, err);

	if (rc == 0 && mark.counting != counting(r) && !mark.at_boundary)
		rc = err_set(err, ENOTSUP, "this place between boundaries is known only where it was saved");
	if (rc == 0)
		rc = replay_file_seek(r->f, &mark.next, err);
	if (rc < 0)
		return rc;
	r->counts = mark.counts;
	r->at_boundary = mark.at_boundary;
	r->events = mark.events;
	r->passed = 0;
	r->divergence = (struct divergence){.last_good = mark.last_good};
	r->steps = mark.steps;
	r->ran = mark.ran;
	r->base = vcpu_progress(v) - mark.done;
	r->last_span = mark.counting == counting(r) ? mark.last_span : 0;
	r->search.clock_base = vcpu_clock(v) - mark.searched;
	return read_event(r, err);
}

unsigned replayer_recent(const struct replayer *r, struct event out[REPLAY_RECENT])
{
	unsigned n = r->passed < REPLAY_RECENT ? (unsigned)r->passed : REPLAY_RECENT;

	for (unsigned i = 0; i < n; i++)
		out[i] = r->recent[(r->passed - n + i) % REPLAY_RECENT];
	return n;
}
