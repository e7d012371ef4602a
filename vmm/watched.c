// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/watched.h"

#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

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

static bool frame_is_watched(const struct machine *m, const struct step_frames *f, const struct step_frame *frame)
{
	/* It may lie in two pages. */
	for (unsigned i = 0; i < STEP_PUSHED_WORDS; i += STEP_PUSHED_WORDS - 1) {
		gpa_t gpa;

		if (paging_translate(m->mem, &f->sregs, GVA(frame->at.v + 8 * i), &gpa) == 0 &&
		    memory_is_watched(m->mem, gpa, 8))
			return true;
	}
	return false;
}

int watched_deliver(struct machine *m, struct vcpu_request *req, struct watched_delivery *d, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	int rc;

	d->lifted = false;
	if (!v->event_queued || !memory_watches(m->mem))
		return 0;
	step_note_frames(v, &d->frames);
	for (unsigned i = 0; i < d->frames.n; i++) {
		if (frame_is_watched(m, &d->frames, &d->frames.frame[i]))
			d->lifted = true;
		if (paging_read(m->mem, &d->frames.sregs, d->frames.frame[i].at, d->before[i], sizeof(d->before[i])) < 0)
			d->frames.n = i;
	}
	if (!d->lifted)
		return 0;
	rc = memory_lift_watches(m->mem, true, err);
	req->step = true;
	req->window = false;
	return rc;
}

/* The words of the frame that are watched, in the order in which the CPU pushes them. */
static int tell_frame(struct machine *m, const struct watched_delivery *d, unsigned n, struct err *err)
{
	int rc = 0;

	for (unsigned i = STEP_PUSHED_WORDS; rc == 0 && i-- > 0;) {
		gpa_t gpa;
		uint64_t now;

		if (paging_translate(m->mem, &d->frames.sregs, GVA(d->frames.frame[n].at.v + 8 * i), &gpa) < 0 ||
		    memory_read(m->mem, gpa, &now, sizeof(now)) < 0 || !memory_is_watched(m->mem, gpa, 8))
			continue;
		rc = m->nondet->watched(m->nondet_ctx, m, gpa, 8, d->before[n][i], now, err);
	}
	return rc;
}

int watched_delivered(struct machine *m, const struct watched_delivery *d, int rc, struct err *err)
{
	const struct vcpu *v = &m->vcpu[0];

	if (!d->lifted)
		return rc;
	if (rc < 0) {
		(void)memory_lift_watches(m->mem, false, NULL);
		return rc;
	}
	rc = memory_lift_watches(m->mem, false, err);
	for (unsigned i = 0; rc == 0 && !v->event_queued && m->nondet->watched && i < d->frames.n; i++)
		if (d->frames.frame[i].at.v == vcpu_regs(v)->rsp)
			return tell_frame(m, d, i, err);
	return rc;
}
