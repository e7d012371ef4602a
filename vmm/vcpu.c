// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/vcpu.h"

#include "vmm/assist.h"
#include "vmm/breakpoint.h"
#include "vmm/cpuid.h"
#include "vmm/paging.h"
#include "vmm/step.h"
#include "vmm/syscall_repair.h"
#include "vmm/user_return.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* DR7: bit 10 is always one; G0 and G1 enable execution breakpoints 0 and 1 (SDM 3B 18.2.4). */
#define DR7_ONE (1u << 10)
#define DR7_G0 (1u << 1)
#define DR7_G1 (1u << 3)

int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd, const struct host_caps *caps,
		struct memory *mem, uint64_t xfeatures, struct err *err)
{
	int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int rc;

	*v = (struct vcpu){.fd = -1,
			   .clock.fd = -1,
			   .faults.fd = -1,
			   .caps = caps,
			   .mem = mem,
			   .xfeatures = xfeatures};
	if (size < (int)sizeof(struct kvm_run))
		return err_sys(err, errno, "KVM gives no size for its run area");
	v->fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
	if (v->fd < 0)
		return err_sys(err, errno, "cannot create a virtual CPU");
	v->run_size = (size_t)size;
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		rc = err_sys(err, errno, "cannot map the virtual CPU's run area");
		goto fail;
	}
	cpuid_layout(xfeatures, &v->layout);
	rc = cpuid_set(v->fd, xfeatures, err);
	if (rc < 0)
		goto fail;
	if (caps->has_stats_fd)
		v->clock = kvm_stat_open(v->fd, "insn_emulation");
	v->faults = kvm_stat_open(v->fd, "pf_taken");
	return 0;
fail:
	vcpu_destroy(v);
	return rc;
}

void vcpu_destroy(struct vcpu *v)
{
	if (v->run)
		munmap(v->run, v->run_size);
	kvm_stat_close(&v->clock);
	kvm_stat_close(&v->faults);
	if (v->fd >= 0)
		close(v->fd);
	assist_exec_destroy(v->exec);
	free(v->plants);
	*v = (struct vcpu){.fd = -1, .clock.fd = -1, .faults.fd = -1};
}

void vcpu_kick(struct vcpu *v)
{
	v->kicked = 1;
	v->run->immediate_exit = 1;
}

uint64_t vcpu_clock(const struct vcpu *v)
{
	uint64_t count = 0;

	if (!kvm_stat_read(&v->clock, &count))
		return 0;
	return count + v->uncounted;
}

int vcpu_get_sregs(const struct vcpu *v, struct kvm_sregs *sregs, struct err *err)
{
	if (v->sregs_synced) {
		*sregs = v->run->s.regs.sregs;
		return 0;
	}
	if (ioctl(v->fd, KVM_GET_SREGS, sregs) < 0)
		return err_sys(err, errno, "cannot read the system registers");
	return 0;
}

int vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *sregs, struct err *err)
{
	struct kvm_sregs fit = *sregs;

	if (v->caps->tr_set_free && fit.tr.type == SEGMENT_TSS_BUSY)
		fit.tr.type = SEGMENT_TSS;
	v->sregs_synced = false;
	v->armed_stale = true;
	if (ioctl(v->fd, KVM_SET_SREGS, &fit) < 0)
		return err_sys(err, errno, "cannot set the system registers");
	return 0;
}

int vcpu_cpl(const struct vcpu *v, struct err *err)
{
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(v, &sregs, err);

	return rc < 0 ? rc : sregs.ss.dpl;
}

int vcpu_interrupt(struct vcpu *v, uint8_t vector, struct err *err)
{
	struct kvm_interrupt irq = {.irq = vector};

	if (ioctl(v->fd, KVM_INTERRUPT, &irq) < 0)
		return err_sys(err, errno, "cannot inject interrupt %u", vector);
	v->event_queued = true;
	v->event_vector = vector;
	return 0;
}

int vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error,
			  struct err *err)
{
	struct kvm_vcpu_events events;

	/* SET_REGS drops a pending exception, so the registers go first. */
	if (v->regs_dirty) {
		if (ioctl(v->fd, KVM_SET_REGS, &v->run->s.regs.regs) < 0)
			return err_sys(err, errno, "cannot set the registers");
		v->regs_dirty = false;
		v->armed_stale = true;
	}
	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return err_sys(err, errno, "cannot read pending events");
	events.exception.injected = 1;
	events.exception.nr = vector;
	events.exception.has_error_code = has_error;
	events.exception.error_code = error;
	events.flags = 0;
	if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		return err_sys(err, errno, "cannot inject exception %u", vector);
	v->event_queued = true;
	v->event_vector = vector;
	return 0;
}

int vcpu_queue_exception(struct vcpu *v, bool *was, struct err *err)
{
	struct kvm_vcpu_events e;

	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
		return err_sys(err, errno, "cannot read pending events");
	*was = e.exception.injected || e.exception.pending;
	return *was ? vcpu_inject_exception(v, e.exception.nr, e.exception.has_error_code, e.exception.error_code, err) : 0;
}

int vcpu_is_clean(const struct vcpu *v, bool *clean, struct err *err)
{
	struct kvm_vcpu_events e;

	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
		return err_sys(err, errno, "cannot read pending events");
	*clean = !v->event_queued && !v->exit_stashed && !e.exception.injected &&
		 !e.exception.pending && !e.interrupt.injected && !e.interrupt.shadow &&
		 !e.nmi.injected && !e.nmi.pending;
	return 0;
}

static int set_debug(struct vcpu *v, const struct kvm_guest_debug *want, struct err *err)
{
	bool same = memcmp(want, &v->armed, sizeof(*want)) == 0;

	/* KVM re-applies TF only at the RIP it saw when stepping was armed, so after anything else
	 * than a completed step it must be armed again (x86 kvm_set_rflags, singlestep_rip). */
	if (same && !(v->armed_stale && (want->control & KVM_GUESTDBG_SINGLESTEP)))
		return 0;
	if (v->regs_dirty) {
		if (ioctl(v->fd, KVM_SET_REGS, &v->run->s.regs.regs) < 0)
			return err_sys(err, errno, "cannot set the registers");
		v->regs_dirty = false;
	}
	if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, want) < 0)
		return err_sys(err, errno, "KVM refuses single-stepping or breakpoints");
	v->armed = *want;
	v->armed_stale = false;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

void vcpu_after_sync(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	v->sregs_synced = (run->kvm_valid_regs & KVM_SYNC_X86_SREGS) != 0;
	if (!v->sregs_synced)
		return;
	/* KVM sets bits here and never clears them (x86.c, __get_sregs): an interrupt that was
	 * delivered long ago would be queued again by the next KVM_SET_SREGS. */
	memset(run->s.regs.sregs.interrupt_bitmap, 0, sizeof(run->s.regs.sregs.interrupt_bitmap));
	if (!v->caps->syscall_works)
		syscall_repair_update(v);
}

/* One KVM_RUN. Returns 1 if an exit came, 0 on a kick. */
static int enter(struct vcpu *v, struct err *err)
{
	struct kvm_run *run = v->run;
	uint64_t began;
	int rc, saved_errno;

	v->exit_continues = v->exit_stashed;
	if (v->exit_stashed) {
		v->exit_stashed = false;
		return 1;
	}
	run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	if (!v->caps->syscall_works)
		run->kvm_valid_regs |= KVM_SYNC_X86_SREGS;
	if (v->event_queued)
		run->kvm_valid_regs |= KVM_SYNC_X86_EVENTS;
	run->kvm_dirty_regs = v->regs_dirty ? KVM_SYNC_X86_REGS : 0;
	if (v->regs_dirty)
		v->armed_stale = true;
	v->regs_dirty = false;
	if (v->kicked)
		run->immediate_exit = 1;
	v->entries++;
	began = now_ns();
	rc = ioctl(v->fd, KVM_RUN, 0);
	saved_errno = errno;
	if (!(v->armed.control & KVM_GUESTDBG_SINGLESTEP))
		v->free_ns += now_ns() - began;
	errno = saved_errno;
	v->completion_pending = false;
	vcpu_after_sync(v);
	if (rc < 0 && errno != EINTR && errno != EAGAIN) {
		if (errno == EFAULT)
			return err_set(err, EFAULT,
				       "the guest at 0x%llx touched memory that the host could not "
				       "provide",
				       run->s.regs.regs.rip);
		return err_sys(err, errno, "KVM cannot run the guest");
	}
	if (v->event_queued) {
		const struct kvm_vcpu_events *e = &run->s.regs.events;

		if (rc == 0 ||
		    (!e->interrupt.injected && !e->exception.injected && !e->exception.pending)) {
			v->event_queued = false;
			v->arrivals++;
		}
	}
	if (rc < 0) {
		v->kicked = 0;
		run->immediate_exit = 0;
		v->armed_stale = true;
		return 0;
	}
	/* Where no emulator keeps TF apart from the guest, POPF and IRET clear it. */
	if (run->exit_reason != KVM_EXIT_DEBUG || !v->caps->emul_clock)
		v->armed_stale = true;
	return 1;
}

static bool is_boundary(uint32_t reason)
{
	return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_HLT ||
	       reason == KVM_EXIT_X86_RDMSR || reason == KVM_EXIT_X86_WRMSR ||
	       reason == KVM_EXIT_SHUTDOWN;
}

/* What one pass through KVM meant. */
enum pass {
	PASS_BOUNDARY,
	PASS_KICK,
	PASS_STEP,
	PASS_BREAK,
	PASS_WINDOW,
	PASS_PF_ENTRY, /* stopped at the #PF handler for the SYSCALL repair */
	PASS_ENTRY,    /* past that: in the kernel, asked for */
	PASS_UNDELIVERED,
	PASS_ASSISTED  /* one instruction was completed in user space */
};

struct aim {
	bool step, window, has_breakpoint;
	gva_t breakpoint;
	bool no_pf_entry;		  /* leave the repair's breakpoint off for this pass */
	const struct breakpoint_set *set; /* NULL with a step */
};

static bool reads_are_watched(const struct vcpu *v, uint64_t address)
{
	struct kvm_sregs sregs;
	uint8_t byte;
	gpa_t gpa;

	return vcpu_get_sregs(v, &sregs, NULL) == 0 &&
	       paging_translate(v->mem, &sregs, GVA(address), &gpa) == 0 &&
	       memory_watched_load(v->mem, gpa, &byte, 1);
}

static int internal_error(struct vcpu *v, struct err *err)
{
	const struct kvm_regs *regs = vcpu_regs(v);
	int rc;

	/* KVM does not fetch from there; our assists would, and blame the instruction. */
	if (reads_are_watched(v, regs->rip))
		return err_set(err, ENOTSUP,
			       "the guest runs code at 0x%llx, in a page whose reads are watched, which KVM cannot do; "
			       "watch for writes there",
			       regs->rip);
	if (v->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
		return err_set(err, EIO, "KVM internal error %u at 0x%llx; see the kernel log",
			       v->run->internal.suberror, regs->rip);
	rc = assist_execute(v, err);
	if (rc < 0 && reads_are_watched(v, regs->rsp))
		return err_set(err, ENOTSUP,
			       "KVM cannot execute the instruction at 0x%llx, which uses the stack, while reads of the "
			       "stack's page are watched; watch for writes there",
			       regs->rip);
	return rc;
}

static int classify_debug(struct vcpu *v, const struct aim *aim, enum pass *pass, struct err *err)
{
	uint64_t pc = v->run->debug.arch.pc;

	/* Judged by address, not by DR6: one kind of host reports a stray B0 with every step. */
	if (v->syscall_repair && !aim->no_pf_entry && pc == v->pf_entry.v &&
	    (v->armed.control & KVM_GUESTDBG_USE_HW_BP))
		*pass = PASS_PF_ENTRY;
	else if (aim->step)
		*pass = PASS_STEP;
	else if ((aim->has_breakpoint && pc == aim->breakpoint.v) ||
		 breakpoint_set_has(aim->set, pc))
		*pass = PASS_BREAK;
	else
		return err_set(err, EIO, "unexpected debug exit at 0x%" PRIx64 " (DR6 0x%llx)", pc,
			       v->run->debug.arch.dr6);
	return 0;
}

/* Arm, enter once, disarm what lies in memory, and say what came back. */
static int run_armed(struct vcpu *v, const struct aim *aim, enum step_care care, enum pass *pass,
		     struct err *err)
{
	struct kvm_guest_debug debug = {0};
	enum bp_mechanism how = caps_breakpoint(v->caps);
	bool planted = aim->has_breakpoint && how != BP_HW && !v->exit_stashed;
	struct plant p = {0};
	struct step_frames frames = {0};
	int rc = 0;

	if (aim->has_breakpoint && how == BP_NONE)
		return err_set(
			err, ENOTSUP,
			"this host has no breakpoints that reach user space; see hindsight doctor");
	if (aim->step)
		debug.control |=
			KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
	if (aim->has_breakpoint && how == BP_HW) {
		debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		debug.arch.debugreg[0] = aim->breakpoint.v;
		debug.arch.debugreg[7] |= DR7_ONE | DR7_G0;
	}
	if (v->syscall_repair && !aim->no_pf_entry) {
		debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		debug.arch.debugreg[1] = v->pf_entry.v;
		debug.arch.debugreg[7] |= DR7_ONE | DR7_G1;
	}
	if (planted && v->caps->int3[0] == INT3_DEBUG && how == BP_INT3)
		debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	if (aim->set && !v->exit_stashed)
		rc = breakpoint_set_arm(v, aim->set, &debug, err);
	if (rc == 0)
		rc = set_debug(v, &debug, err);
	if (rc < 0) {
		breakpoint_set_disarm(v);
		return rc;
	}
	if (planted) {
		rc = breakpoint_plant(v, aim->breakpoint, how == BP_INT3 ? 0xcc : 0xf4, &p, err);
		if (rc < 0) {
			breakpoint_set_disarm(v);
			return rc;
		}
	}
	v->run->request_interrupt_window = aim->window;
	if (aim->step)
		step_note_frames(v, &frames);
	rc = enter(v, err);
	breakpoint_unplant(&p);
	breakpoint_set_disarm(v);
	if (rc < 0)
		return rc;
	step_hide_flag_in_frames(v, &frames);
	if (rc == 0) {
		*pass = PASS_KICK;
		return 0;
	}
	if (planted && how == BP_HLT && v->run->exit_reason == KVM_EXIT_HLT &&
	    vcpu_regs(v)->rip == aim->breakpoint.v + 1) {
		vcpu_regs_mut(v)->rip--;
		*pass = PASS_BREAK;
		return 0;
	}
	if (aim->set && v->run->exit_reason == KVM_EXIT_HLT &&
	    caps_breakpoint_planted(v->caps) == BP_HLT &&
	    breakpoint_set_has(aim->set, vcpu_regs(v)->rip - 1)) {
		vcpu_regs_mut(v)->rip--;
		*pass = PASS_BREAK;
		return 0;
	}
	if (is_boundary(v->run->exit_reason)) {
		v->completion_pending = v->run->exit_reason != KVM_EXIT_HLT &&
					v->run->exit_reason != KVM_EXIT_SHUTDOWN;
		*pass = PASS_BOUNDARY;
		return 0;
	}
	switch (v->run->exit_reason) {
	case KVM_EXIT_DEBUG:
		if (care != CARE_NONE)
			step_hide_flag(v, care);
		return classify_debug(v, aim, pass, err);
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		*pass = PASS_WINDOW;
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		if (planted && how == BP_INT3 && vcpu_regs(v)->rip == aim->breakpoint.v) {
			*pass = PASS_BREAK;
			return 0;
		}
		if (breakpoint_set_has(aim->set, vcpu_regs(v)->rip)) {
			/* The byte that was planted has been counted as an instruction. */
			v->uncounted--;
			*pass = PASS_BREAK;
			return 0;
		}
		if (v->run->internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV && memory_watches(v->mem)) {
			*pass = PASS_UNDELIVERED;
			return 0;
		}
		*pass = PASS_ASSISTED;
		return internal_error(v, err);
	case KVM_EXIT_FAIL_ENTRY:
		return err_set(err, EIO, "the CPU refuses the guest's state (reason 0x%llx)",
			       v->run->fail_entry.hardware_entry_failure_reason);
	default:
		return err_set(err, EIO, "KVM came back with exit reason %u, which is not expected",
			       v->run->exit_reason);
	}
}

/*
 * As run_armed; a step is made in the way that the instruction needs. Where user code cannot be
 * stepped, the TF of a step would go to the guest: the step ends when the guest enters its kernel
 * by SYSCALL or page fault, or at the next boundary.
 */
static int run_once(struct vcpu *v, const struct aim *aim, enum pass *pass, struct err *err)
{
	struct aim how = *aim;
	enum step_care care = CARE_NONE;
	bool made;
	int rc;

	if (aim->step) {
		/* Else it depends on the host whether the step ends with the access or behind it.
		 */
		rc = vcpu_complete(v, err);
		if (rc < 0)
			return rc;
		care = step_care_find(v, &how.breakpoint);
	}
	if (care == CARE_TO_USER && !v->caps->step[1] && !v->exit_stashed) {
		rc = vcpu_return_to_user(v, &made, err);
		if (rc < 0 || made) {
			*pass = PASS_STEP;
			return rc;
		}
	}
	if (care == CARE_HLT) {
		how.step = false;
	} else if (care == CARE_IRET && caps_breakpoint(v->caps) != BP_NONE) {
		how.step = false;
		how.has_breakpoint = true;
	} else if (aim->step && !v->caps->step[1]) {
		rc = vcpu_cpl(v, err);
		if (rc < 0)
			return rc;
		how.step = rc != 3;
		care = how.step ? care : CARE_NONE;
	}
	rc = run_armed(v, &how, care, pass, err);
	if (rc == 0 && aim->step && *pass == PASS_BREAK)
		*pass = PASS_STEP;
	return rc;
}

/* The guest stands at its #PF handler. Repair, or get past the breakpoint. */
static int pass_pf_entry(struct vcpu *v, const struct vcpu_request *req, enum pass *pass,
			 struct err *err)
{
	struct aim over = {.step = true, .no_pf_entry = true};
	bool repaired, from_user, kicked = false;
	int rc = syscall_repair_try(v, &from_user, &repaired, err);

	if (rc < 0)
		return rc;
	v->arrivals += from_user;
	if (repaired) {
		*pass = req->entry ? PASS_ENTRY : PASS_ASSISTED;
		return 0;
	}
	if (req->step || req->entry ||
	    (req->has_breakpoint && req->breakpoint.v == v->pf_entry.v)) {
		*pass = req->step ? PASS_STEP : req->entry ? PASS_ENTRY : PASS_BREAK;
		v->pf_judged = true;
		return 0;
	}
	/* A kick waits until it is past: a timer that is as short as this takes would come each
	 * time. */
	do {
		rc = run_once(v, &over, pass, err);
		kicked = kicked || *pass == PASS_KICK;
	} while (rc == 0 && *pass == PASS_KICK);
	if (kicked)
		vcpu_kick(v);
	/* Past the handler's first instruction: to the caller that is like an assist. */
	if (rc == 0 && *pass == PASS_STEP)
		*pass = PASS_ASSISTED;
	return rc;
}

/* Aim of the first pass: a step that begins with the delivery of an event stops at the handler,
 * because a step across a delivery would push TF into the frame. */
static int first_aim(struct vcpu *v, const struct vcpu_request *req, struct aim *aim,
		     struct err *err)
{
	struct kvm_sregs sregs;
	bool at_pf_entry = v->pf_judged && v->syscall_repair && vcpu_regs(v)->rip == v->pf_entry.v;
	int rc;

	v->pf_judged = false;
	*aim = (struct aim){.step = req->step, .window = req->window};
	if (at_pf_entry && !v->event_queued) {
		/* Over the repair's breakpoint first. */
		aim->step = true;
		aim->no_pf_entry = true;
	} else if (req->step && v->event_queued && caps_breakpoint(v->caps) != BP_NONE) {
		rc = vcpu_get_sregs(v, &sregs, err);
		if (rc < 0)
			return rc;
		if (step_handler(v, &sregs, v->event_vector, &aim->breakpoint)) {
			aim->step = false;
			aim->has_breakpoint = true;
		}
	} else if (req->has_breakpoint && !req->step) {
		/* Standing on it: get over it first. */
		aim->step = req->breakpoint.v == vcpu_regs(v)->rip && !v->event_queued;
		aim->has_breakpoint = !aim->step;
		aim->breakpoint = req->breakpoint;
	}
	if (!aim->step && !req->step && req->set && req->over && !v->event_queued &&
	    breakpoint_set_has(req->set, vcpu_regs(v)->rip)) {
		aim->step = true;
		aim->has_breakpoint = false;
	}
	if (!aim->step && !req->step)
		aim->set = req->set;
	return 0;
}

int vcpu_run(struct vcpu *v, const struct vcpu_request *req, enum vcpu_stop *stop, struct err *err)
{
	struct aim aim;
	enum pass pass;
	bool in_syscall, kicked = false;
	int rc = first_aim(v, req, &aim, err);

	while (rc == 0) {
		rc = run_once(v, &aim, &pass, err);
		if (rc == 0 && pass == PASS_KICK) {
			rc = syscall_repair_is_halfway(v, &in_syscall, err);
			if (rc == 0 && in_syscall) {
				kicked = true;
				continue;
			}
		}
		if (rc == 0 && kicked) {
			vcpu_kick(v);
			kicked = false;
		}
		if (rc == 0 && pass == PASS_PF_ENTRY)
			rc = pass_pf_entry(v, req, &pass, err);
		if (rc < 0)
			break;
		/* Kicked before it moved: what was judged stays judged. */
		if (pass == PASS_KICK && aim.no_pf_entry)
			v->pf_judged = true;
		if (pass == PASS_BOUNDARY || pass == PASS_KICK || pass == PASS_WINDOW || pass == PASS_UNDELIVERED) {
			*stop = pass == PASS_BOUNDARY ? VCPU_BOUNDARY
				: pass == PASS_KICK   ? VCPU_KICK
				: pass == PASS_WINDOW ? VCPU_WINDOW
						      : VCPU_UNDELIVERED;
			return 0;
		}
		if (req->step) {
			*stop = VCPU_STEP;
			return 0;
		}
		if (pass == PASS_BREAK || pass == PASS_ENTRY) {
			*stop = pass == PASS_BREAK ? VCPU_BREAK : VCPU_ENTRY;
			return 0;
		}
		/* A step over the breakpoint, an assist or a repair: go on as asked. */
		aim = (struct aim){.window = req->window,
				   .has_breakpoint = req->has_breakpoint,
				   .breakpoint = req->breakpoint,
				   .set = req->set};
	}
	return rc;
}

int vcpu_complete(struct vcpu *v, struct err *err)
{
	const struct kvm_guest_debug none = {0};
	int rc;

	if (!v->completion_pending)
		return 0;
	/* A step would end here. Breakpoints are looked for where an instruction begins, and none does. */
	if (v->armed.control & KVM_GUESTDBG_SINGLESTEP) {
		rc = set_debug(v, &none, err);
		if (rc < 0)
			return rc;
	}
	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	v->run->kvm_dirty_regs = 0;
	v->run->immediate_exit = 1;
	rc = ioctl(v->fd, KVM_RUN, 0);
	v->run->immediate_exit = v->kicked ? 1 : 0;
	v->completion_pending = false;
	v->sregs_synced = false;
	if (rc < 0 && errno != EINTR)
		return err_sys(err, errno, "KVM cannot complete the guest's access");
	/* An exit here: the same instruction goes on with its next element or fragment. */
	v->exit_stashed = rc == 0;
	return 0;
}
