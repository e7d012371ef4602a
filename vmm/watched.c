// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/watched.h"

#include "vmm/breakpoint.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define X86_DOUBLE_FAULT 8
#define RFLAGS_RF (1u << 16)

/* If the memory is watched, make the store and report it. len: at most 8. */
static int watched_store(struct machine *m, gpa_t gpa, const void *data, unsigned len, bool *was,
			 struct err *err)
{
	uint64_t old = 0, now = 0;

	*was = memory_watched_store(m->mem, gpa, data, len, &old);
	if (!*was || !m->nondet->watched)
		return 0;
	memcpy(&now, data, len);
	return m->nondet->watched(m->nondet_ctx, m, gpa, len, old, now, err);
}

static int watched_load(struct machine *m, gpa_t gpa, void *data, unsigned len, bool *was, struct err *err)
{
	uint64_t value = 0;

	*was = memory_watched_load(m->mem, gpa, data, len);
	if (!*was || !m->nondet->loaded)
		return 0;
	memcpy(&value, data, len);
	return m->nondet->loaded(m->nondet_ctx, m, gpa, len, value, err);
}

/* struct vcpu.store. Reported in pieces of the size in which KVM lets them out. */
static int store_for_guest(void *ctx, gpa_t gpa, const void *data, size_t len, struct err *err)
{
	struct machine *m = ctx;
	const uint8_t *from = data;
	int rc = 0;

	for (size_t done = 0, n; rc == 0 && done < len; done += n) {
		gpa_t at = GPA(gpa.v + done);
		bool watched;

		n = len - done < 8 ? len - done : 8;
		rc = watched_store(m, at, from + done, (unsigned)n, &watched, err);
		if (rc == 0 && !watched && memory_write(m->mem, at, from + done, n))
			rc = err_set(err, EFAULT, "a store to 0x%" PRIx64 ", which is not RAM", at.v);
	}
	return rc;
}

/* struct vcpu.loaded. */
static void loaded_for_guest(void *ctx, gpa_t gpa, size_t len)
{
	struct machine *m = ctx;

	for (size_t done = 0, n; done < len; done += n) {
		uint8_t piece[8];
		bool was;
		int rc;

		n = len - done < 8 ? len - done : 8;
		rc = watched_load(m, GPA(gpa.v + done), piece, (unsigned)n, &was, &m->watched_err);
		if (!m->watched_rc)
			m->watched_rc = rc;
	}
}

void watched_attach(struct machine *m)
{
	struct vcpu *v = &m->vcpu[0];

	v->store = store_for_guest;
	v->loaded = loaded_for_guest;
	v->store_ctx = m;
}

/* The instruction clock is to count as if the access had not come out: KVM has emulated an instruction of user code, which
 * it would not have counted, or begins one anew. */
static int uncount(struct vcpu *v, struct err *err)
{
	int cpl = vcpu_cpl(v, err);

	if (cpl < 0 || v->exit_continues)
		return cpl < 0 ? cpl : 0;
	if ((cpl == 3 && !v->caps->emul_clock_cpl3) || (v->run->mmio.is_write && step_begins_again(v)))
		v->uncounted--;
	return 0;
}

int watched_try(struct machine *m, bool *was, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct kvm_run *run = v->run;
	gpa_t gpa = GPA(run->mmio.phys_addr);
	int rc;

	*was = false;
	if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.len > 8)
		return 0;
	rc = run->mmio.is_write ? watched_store(m, gpa, run->mmio.data, run->mmio.len, was, err)
				: watched_load(m, gpa, run->mmio.data, run->mmio.len, was, err);
	return rc == 0 && *was ? uncount(v, err) : rc;
}

bool watched_stops(struct vcpu *v, const struct vcpu_request *req, enum vcpu_stop *stop)
{
	if (req->step)
		*stop = VCPU_STEP;
	else if (req->has_breakpoint && vcpu_regs(v)->rip == req->breakpoint.v)
		*stop = VCPU_BREAK;
	else
		return false;
	return !v->exit_stashed;
}

/* An exception or interrupt whose frame ends at `top` writes to watched memory. */
static bool frame_is_watched(const struct machine *m, const struct kvm_sregs *sregs, gva_t top)
{
	/* It may lie in two pages. */
	for (unsigned i = 1; i <= WATCHED_WORDS; i += WATCHED_WORDS - 1) {
		gpa_t gpa;

		if (paging_translate(m->mem, sregs, GVA(top.v - 8 * i), &gpa) == 0 && memory_is_watched(m->mem, gpa, 8))
			return true;
	}
	return false;
}

static gva_t frame_top(const struct step_frame *frame)
{
	return GVA(frame->at.v + 8 * STEP_PUSHED_WORDS);
}

static bool any_frame_is_watched(const struct machine *m, const struct step_frames *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (frame_is_watched(m, &f->sregs, frame_top(&f->frame[i])))
			return true;
	return false;
}

/* --- a double fault in its stead --------------------------------------------------------------- */

/* Have the guest stopped if it comes to the handler of double faults. */
static int set_guard(struct machine *m, struct vcpu_request *req, struct watched_delivery *d, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct kvm_sregs sregs;
	uint64_t stack;
	int rc = vcpu_get_sregs(v, &sregs, err);

	d->wanted = req->set;
	d->stepped = req->step;
	if (rc < 0 || (d->wanted && d->wanted->len == BREAKPOINTS_MAX) ||
	    !step_handler_stack(v, &sregs, X86_DOUBLE_FAULT, &stack) ||
	    !step_handler(v, &sregs, X86_DOUBLE_FAULT, &d->double_fault) || d->double_fault.v == vcpu_regs(v)->rip)
		return rc;
	d->frame = GVA((stack & ~15ull) - 8 * WATCHED_WORDS);
	if (paging_read(m->mem, &sregs, d->frame, d->words, sizeof(d->words)) < 0)
		return 0;
	d->guarded = true;
	d->regs = *vcpu_regs(v);
	if (req->step)
		return 0;
	if (!m->guard)
		m->guard = calloc(BREAKPOINTS_MAX, sizeof(*m->guard));
	if (!m->guard)
		return err_set(err, ENOMEM, "no memory for the breakpoints");
	/* First, so that it has a debug register where there are any. */
	m->guard[0] = d->double_fault;
	d->set = (struct breakpoint_set){m->guard, 1};
	for (unsigned i = 0; d->wanted && i < d->wanted->len; i++)
		m->guard[d->set.len++] = d->wanted->address[i];
	req->set = &d->set;
	return 0;
}

/* The guest stands at the handler, or, where a step goes on into it, behind the handler's first instruction. */
static bool has_doubled(struct machine *m, const struct watched_delivery *d, const struct kvm_sregs *sregs,
			struct step_fault *f)
{
	const struct kvm_regs *now = vcpu_regs(&m->vcpu[0]);
	uint64_t words[WATCHED_WORDS];
	uint64_t at = d->frame.v + sizeof(words) - sizeof(*f);

	if (!(d->stepped ? now->rsp >= d->frame.v && now->rsp <= at : now->rip == d->double_fault.v && now->rsp == at) ||
	    paging_read(m->mem, sregs, d->frame, words, sizeof(words)) < 0)
		return false;
	memcpy(f, (uint8_t *)words + sizeof(words) - sizeof(*f), sizeof(*f));
	/* Of kernel code: with no change of level the segments stay. */
	return f->error == 0 && f->cs == sregs->cs.selector && f->ss == sregs->ss.selector &&
	       (!d->stepped || (f->rip == d->regs.rip && f->rsp == d->regs.rsp && memcmp(words, d->words, sizeof(words)) != 0));
}

static int take_back(struct machine *m, const struct watched_delivery *d, const struct kvm_sregs *sregs,
		     const struct step_fault *f, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct kvm_regs *now = vcpu_regs_mut(v);

	/* The instruction is made again, and counted again where instructions are; so is the handler's first, if a step
	 * went on into it. */
	if (v->caps->emul_clock)
		v->uncounted -= now->rip == d->double_fault.v ? 1 : 2;
	if (d->stepped) {
		*now = d->regs;
	} else {
		step_take_back(v, f);
		now->rflags &= ~(uint64_t)RFLAGS_RF;
	}
	if (paging_write(m->mem, sregs, d->frame, d->words, sizeof(d->words)) < 0)
		return err_set(err, EFAULT, "the stack for double faults at 0x%" PRIx64 " cannot be written", d->frame.v);
	m->watched_again = true;
	return 0;
}

static int try_double_fault(struct machine *m, const struct watched_delivery *d, enum vcpu_stop stop, bool *was,
			    struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct step_frames frames;
	struct step_fault f;
	int rc;

	if (!d->guarded || (stop != (d->stepped ? VCPU_STEP : VCPU_BREAK) && stop != VCPU_KICK))
		return 0;
	rc = vcpu_get_sregs(v, &frames.sregs, err);
	if (rc < 0)
		return rc;
	/* The guest's own double fault, if none of its stacks is watched: then there is only the guard to pass over. */
	if (has_doubled(m, d, &frames.sregs, &f)) {
		step_note_stacks(v, &frames, f.rsp);
		if (any_frame_is_watched(m, &frames)) {
			*was = true;
			if (stop == VCPU_KICK)
				vcpu_kick(v); /* for later */
			return take_back(m, d, &frames.sregs, &f, err);
		}
	}
	*was = stop == VCPU_BREAK && vcpu_regs(v)->rip == d->double_fault.v && !breakpoint_set_has(d->wanted, d->double_fault.v);
	return 0;
}

/* --- or injected and never delivered ----------------------------------------------------------- */

/* How long KVM may try in vain before the guest is looked at: short beside a search, long beside what a kick costs. */
#define STUCK_NS (1 * NSEC_PER_MSEC)

static int begin_stuck_timer(struct machine *m, struct err *err)
{
	int rc = m->watch_timer.made ? 0 : kick_timer_create(&m->watch_timer, &m->vcpu[0], err);

	if (rc == 0)
		kick_timer_set(&m->watch_timer, STUCK_NS, STUCK_NS);
	return rc;
}

static int try_injected(struct machine *m, enum vcpu_stop stop, bool *was, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct step_frames frames;
	int rc = vcpu_get_sregs(v, &frames.sregs, err);

	if (rc < 0)
		return rc;
	step_note_stacks(v, &frames, vcpu_regs(v)->rsp);
	if (any_frame_is_watched(m, &frames)) {
		rc = vcpu_queue_exception(v, was, err);
		if (*was && stop == VCPU_KICK)
			vcpu_kick(v); /* for later */
	}
	if (rc == 0 && !*was && stop == VCPU_UNDELIVERED)
		return err_set(err, EIO, "KVM cannot deliver an exception of the guest at 0x%llx", vcpu_regs(v)->rip);
	return rc;
}

int watched_unfinished(struct machine *m, const struct watched_delivery *d, enum vcpu_stop stop, bool *was, struct err *err)
{
	int rc;

	*was = false;
	if (!memory_watches(m->mem))
		return 0;
	rc = try_double_fault(m, d, stop, was, err);
	/* Elsewhere what a kick finds injected will be a double fault, which counts no arrival (vcpu_progress). */
	if (rc == 0 && !*was && ((stop == VCPU_KICK && d->timed) || stop == VCPU_UNDELIVERED))
		rc = try_injected(m, stop, was, err);
	return rc;
}

/* --- deliveries --------------------------------------------------------------------------------- */

int watched_deliver(struct machine *m, struct vcpu_request *req, struct watched_delivery *d, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	int rc;

	d->lifted = d->guarded = d->timed = false;
	d->again = m->watched_again;
	m->watched_again = false;
	if (!memory_watches(m->mem))
		return 0;
	if (!v->event_queued && !d->again) {
		d->timed = !v->caps->emul_clock;
		rc = d->timed ? begin_stuck_timer(m, err) : 0;
		return rc < 0 ? rc : set_guard(m, req, d, err);
	}
	step_note_frames(v, &d->frames);
	if (!any_frame_is_watched(m, &d->frames))
		return 0;
	for (unsigned i = 0; i < d->frames.n; i++) {
		gva_t at = GVA(frame_top(&d->frames.frame[i]).v - sizeof(d->before[i]));

		if (paging_read(m->mem, &d->frames.sregs, at, d->before[i], sizeof(d->before[i])) < 0)
			d->frames.n = i;
	}
	d->lifted = true;
	rc = memory_lift_watches(m->mem, true, err);
	req->step = true;
	req->window = false;
	return rc;
}

/* The words down to the stack pointer that are watched, in the order in which they are pushed. */
static int tell_frame(struct machine *m, const struct watched_delivery *d, unsigned n, struct err *err)
{
	gva_t top = frame_top(&d->frames.frame[n]);
	uint64_t rsp = vcpu_regs(&m->vcpu[0])->rsp;
	int rc = 0;

	for (unsigned i = 1; rc == 0 && top.v - 8 * i >= rsp; i++) {
		gpa_t gpa;
		uint64_t now;

		if (paging_translate(m->mem, &d->frames.sregs, GVA(top.v - 8 * i), &gpa) < 0 ||
		    memory_read(m->mem, gpa, &now, sizeof(now)) < 0 || !memory_is_watched(m->mem, gpa, 8))
			continue;
		rc = m->nondet->watched(m->nondet_ctx, m, gpa, 8, d->before[n][WATCHED_WORDS - i], now, err);
	}
	return rc;
}

int watched_delivered(struct machine *m, const struct watched_delivery *d, int rc, struct err *err)
{
	const struct vcpu *v = &m->vcpu[0];

	if (d->timed)
		kick_timer_set(&m->watch_timer, 0, 0);
	if (!d->lifted)
		return rc;
	/* Kicked before it moved. */
	m->watched_again = d->again && vcpu_regs(v)->rip == d->frames.rip;
	if (rc < 0) {
		(void)memory_lift_watches(m->mem, false, NULL);
		return rc;
	}
	rc = memory_lift_watches(m->mem, false, err);
	for (unsigned i = 0; rc == 0 && !v->event_queued && m->nondet->watched && i < d->frames.n; i++) {
		uint64_t pushed = frame_top(&d->frames.frame[i]).v - vcpu_regs(v)->rsp;

		if (pushed >= 8 * STEP_PUSHED_WORDS && pushed <= 8 * WATCHED_WORDS)
			return tell_frame(m, d, i, err);
	}
	return rc;
}
