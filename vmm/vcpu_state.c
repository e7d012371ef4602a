// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The vCPU's part of the state walk. What a host leaves undefined or fills in as it likes (hidden parts of
 * unusable segments, accessed bits of descriptors, x87 instruction pointers, components of the XSAVE area
 * in their initial state) is brought to one form first, so that equal machines digest equally.
 */
#include "vmm/vcpu.h"

#include "vmm/cpuid.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* XSAVE area, standard format (SDM 1, 13.4). Offsets in bytes. */
#define X87_FOP 6
#define X87_MXCSR 24
#define X87_ST 32
#define XMM_AREA 160
#define XSAVE_HEADER 512
#define XSAVE_HEADER_SIZE 64

/* RFLAGS.RF: set or clear by the way the host came out, not by the guest (SDM 3B 18.3.1.1). */
#define RFLAGS_RF (1ull << 16)
#define CR0_WP (1ull << 16)

static const struct {
	uint32_t index;
	const char *name;
} state_msrs[] = {
	{0x174, "sysenter_cs"},    {0x175, "sysenter_esp"}, {0x176, "sysenter_eip"},
	{0x277, "pat"},            {0xc0000081, "star"},    {0xc0000082, "lstar"},
	{0xc0000083, "cstar"},     {0xc0000084, "sfmask"},  {0xc0000102, "kernel_gs_base"},
};

/* struct kvm_msrs with a fixed array. */
struct msr_block {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry[ARRAY_SIZE(state_msrs)];
};

int vcpu_get_msr(const struct vcpu *v, uint32_t index, uint64_t *value, struct err *err)
{
	struct {
		uint32_t nmsrs, pad; /* struct kvm_msrs without its flexible array */
		struct kvm_msr_entry entry[1];
	} msrs = {.nmsrs = 1, .entry = {{.index = index}}};

	if (ioctl(v->fd, KVM_GET_MSRS, &msrs) != 1)
		return err_sys(err, errno, "cannot read the guest's MSR 0x%x", index);
	*value = msrs.entry[0].data;
	return 0;
}

int vcpu_get_xcr0(const struct vcpu *v, uint64_t *xcr0, struct err *err)
{
	struct kvm_xcrs xcrs;

	*xcr0 = XFEATURE_X87;
	if (!v->xfeatures)
		return 0;
	if (ioctl(v->fd, KVM_GET_XCRS, &xcrs) < 0)
		return err_sys(err, errno, "cannot read XCR0");
	for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (xcrs.xcrs[i].xcr == 0)
			*xcr0 = xcrs.xcrs[i].value;
	return 0;
}

static void walk_general(struct walker *w, struct kvm_regs *r)
{
	static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi",
					    "rsp", "rbp", "r8",  "r9",  "r10", "r11",
					    "r12", "r13", "r14", "r15", "rip", "rflags"};
	uint64_t *field = (uint64_t *)r; /* struct kvm_regs is these, in this order */

	_Static_assert(sizeof(struct kvm_regs) == ARRAY_SIZE(names) * sizeof(uint64_t),
		       "struct kvm_regs has another shape");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		walk_u64(w, names[i], &field[i]);
}

static void walk_segment(struct walker *w, const char *name, struct kvm_segment *s)
{
	char field[WALK_NAME_MAX];

	if (w->op != WALK_RESTORE) {
		s->padding = 0;
		s->type |= s->s ? 1 : 0; /* accessed */
		if (s->unusable || !s->present) {
			*s = (struct kvm_segment){.base = s->base, .selector = s->selector, .unusable = 1};
		}
	}
	snprintf(field, sizeof(field), "%s.base", name);
	walk_u64(w, field, (uint64_t *)&s->base);
	snprintf(field, sizeof(field), "%s.selector", name);
	walk_u16(w, field, &s->selector);
	snprintf(field, sizeof(field), "%s.limit", name);
	walk_u32(w, field, &s->limit);
	snprintf(field, sizeof(field), "%s.attributes", name);
	walk_bytes(w, field, &s->type, sizeof(*s) - offsetof(struct kvm_segment, type));
}

static void walk_system(struct walker *w, struct kvm_sregs *s)
{
	walk_segment(w, "cs", &s->cs);
	walk_segment(w, "ds", &s->ds);
	walk_segment(w, "es", &s->es);
	walk_segment(w, "fs", &s->fs);
	walk_segment(w, "gs", &s->gs);
	walk_segment(w, "ss", &s->ss);
	walk_segment(w, "tr", &s->tr);
	walk_segment(w, "ldt", &s->ldt);
	walk_u64(w, "gdt.base", (uint64_t *)&s->gdt.base);
	walk_u16(w, "gdt.limit", &s->gdt.limit);
	walk_u64(w, "idt.base", (uint64_t *)&s->idt.base);
	walk_u16(w, "idt.limit", &s->idt.limit);
	walk_u64(w, "cr0", (uint64_t *)&s->cr0);
	walk_u64(w, "cr2", (uint64_t *)&s->cr2);
	walk_u64(w, "cr3", (uint64_t *)&s->cr3);
	walk_u64(w, "cr4", (uint64_t *)&s->cr4);
	walk_u64(w, "cr8", (uint64_t *)&s->cr8);
	walk_u64(w, "efer", (uint64_t *)&s->efer);
}

/* Bring the XSAVE area to one form: components in their initial state spelled out, and what the
 * CPU may or may not store (last x87 instruction and operand) cleared. */
static void canonical_xsave(uint8_t *x, const struct xsave_layout *layout)
{
	uint64_t present, canonical;

	memcpy(&present, x + XSAVE_HEADER, sizeof(present));
	if (!(present & XFEATURE_X87)) {
		static const uint8_t init[8] = {0x7f, 0x03}; /* FCW after FNINIT */

		memcpy(x, init, sizeof(init));
		memset(x + X87_ST, 0, XMM_AREA - X87_ST);
	}
	memset(x + X87_FOP, 0, X87_MXCSR - X87_FOP);
	memset(x + 28, 0, 4); /* MXCSR_MASK: a property of the CPU */
	for (int i = 0; i < 8; i++)
		memset(x + X87_ST + 16 * i + 10, 0, 6);
	if (!(present & XFEATURE_SSE))
		memset(x + XMM_AREA, 0, 256);
	memset(x + XMM_AREA + 256, 0, XSAVE_HEADER - XMM_AREA - 256);
	canonical = XFEATURE_X87 | XFEATURE_SSE;
	for (unsigned n = 2; n < XSAVE_COMPONENTS; n++) {
		uint8_t *at = x + layout->offset[n];

		if (!(present >> n & 1))
			memset(at, 0, layout->size[n]);
		for (uint32_t i = 0; i < layout->size[n]; i++)
			if (at[i])
				canonical |= 1ull << n;
	}
	memset(x + XSAVE_HEADER, 0, XSAVE_HEADER_SIZE);
	memcpy(x + XSAVE_HEADER, &canonical, sizeof(canonical));
}

/* AVX state is visited always; AVX-512 where the guest's CPU has it. */
static void walk_fpu(struct walker *w, uint8_t *x, const struct xsave_layout *layout)
{
	static const char *const names[] = {
		[2] = "ymm", [5] = "opmask", [6] = "zmm0-15", [7] = "zmm16-31"};

	if (w->op != WALK_RESTORE)
		canonical_xsave(x, layout);
	walk_bytes(w, "x87", x, X87_MXCSR);
	walk_bytes(w, "mxcsr", x + X87_MXCSR, 4);
	walk_bytes(w, "st", x + X87_ST, XMM_AREA - X87_ST);
	walk_bytes(w, "xmm", x + XMM_AREA, 256);
	walk_bytes(w, "xsave_header", x + XSAVE_HEADER, 8);
	for (unsigned n = 2; n < ARRAY_SIZE(names); n++)
		if (layout->size[n])
			walk_bytes(w, names[n], x + layout->offset[n], layout->size[n]);
}

static void walk_events(struct walker *w, struct kvm_vcpu_events *e)
{
	walk_u8(w, "exception.injected", &e->exception.injected);
	walk_u8(w, "exception.vector", &e->exception.nr);
	walk_u8(w, "exception.has_error", &e->exception.has_error_code);
	walk_u32(w, "exception.error", &e->exception.error_code);
	walk_u8(w, "interrupt.injected", &e->interrupt.injected);
	walk_u8(w, "interrupt.vector", &e->interrupt.nr);
	walk_u8(w, "interrupt.shadow", &e->interrupt.shadow);
}

/* All of the vCPU as KVM gives it. */
struct vcpu_image {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct msr_block msrs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	uint64_t xcr0;
	struct kvm_xsave xsave; /* may have more behind it: not here */
};

static int fetch(struct vcpu *v, struct vcpu_image *i, struct err *err)
{
	int rc = vcpu_get_xcr0(v, &i->xcr0, err);

	if (rc < 0)
		return rc;
	i->regs = *vcpu_regs(v);
	if (ioctl(v->fd, KVM_GET_SREGS, &i->sregs) < 0 ||
	    ioctl(v->fd, KVM_GET_XSAVE, &i->xsave) < 0 ||
	    ioctl(v->fd, KVM_GET_VCPU_EVENTS, &i->events) < 0 ||
	    ioctl(v->fd, KVM_GET_DEBUGREGS, &i->debug) < 0)
		return err_sys(err, errno, "cannot read the virtual CPU's state");
	i->msrs.nmsrs = ARRAY_SIZE(state_msrs);
	for (size_t n = 0; n < ARRAY_SIZE(state_msrs); n++)
		i->msrs.entry[n] = (struct kvm_msr_entry){.index = state_msrs[n].index};
	if (ioctl(v->fd, KVM_GET_MSRS, &i->msrs) != (int)ARRAY_SIZE(state_msrs))
		return err_sys(err, errno, "cannot read the virtual CPU's MSRs");
	/* The events below say it too, and better. */
	memset(i->sregs.interrupt_bitmap, 0, sizeof(i->sregs.interrupt_bitmap));
	/* An event that is not there leaves its number behind; drop it. */
	if (!i->events.exception.injected) {
		i->events.exception.nr = 0;
		i->events.exception.has_error_code = 0;
		i->events.exception.error_code = 0;
	}
	if (!i->events.interrupt.injected)
		i->events.interrupt.nr = 0;
	return 0;
}

static int put_xcr0(struct vcpu *v, uint64_t xcr0, struct err *err)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = xcr0}};

	if (v->xfeatures && ioctl(v->fd, KVM_SET_XCRS, &xcrs) < 0)
		return err_sys(err, errno, "cannot set XCR0");
	return 0;
}

/* Bring the run area in line with what KVM_SET_* have changed behind it, without executing anything. */
static int refresh(struct vcpu *v, struct err *err)
{
	int rc;

	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	v->run->kvm_dirty_regs = 0;
	v->run->immediate_exit = 1;
	rc = ioctl(v->fd, KVM_RUN, 0);
	v->run->immediate_exit = v->kicked ? 1 : 0;
	if (rc == 0 || errno != EINTR)
		return err_sys(err, rc == 0 ? EIO : errno, "KVM does not take the virtual CPU's state");
	v->regs_dirty = false;
	v->completion_pending = false;
	v->exit_stashed = false;
	v->armed_stale = true;
	vcpu_after_sync(v);
	return 0;
}

/* KVM takes MXCSR only along with SSE or AVX state that is in use (arch/x86/kernel/fpu/xstate.c, copy_uabi_to_xstate),
 * and leaves the old one otherwise: give it first with registers that are in use and zero. */
static int put_xsave(struct vcpu *v, const struct kvm_xsave *xsave, struct err *err)
{
	struct kvm_xsave first = *xsave;
	uint8_t *x = (uint8_t *)&first;
	uint64_t present;

	memcpy(&present, x + XSAVE_HEADER, sizeof(present));
	if (!(present & (XFEATURE_SSE | XFEATURE_AVX))) {
		present |= XFEATURE_SSE;
		memcpy(x + XSAVE_HEADER, &present, sizeof(present));
		memset(x + XMM_AREA, 0, 256);
		if (ioctl(v->fd, KVM_SET_XSAVE, &first) < 0)
			return err_sys(err, errno, "cannot set the virtual CPU's MXCSR");
	}
	if (ioctl(v->fd, KVM_SET_XSAVE, xsave) < 0)
		return err_sys(err, errno, "cannot set the virtual CPU's vector state");
	return 0;
}

static int put(struct vcpu *v, struct vcpu_image *i, struct err *err)
{
	struct kvm_sregs other = i->sregs;
	int rc;

	/* Order: registers drop pending exceptions, so events come last (x86.c, __set_regs). */
	i->events.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
	/* Only a change makes KVM look at page tables anew (x86.c, __set_sregs_common). */
	other.cr0 ^= CR0_WP;
	rc = v->caps->table_flush == TABLES_BY_SREGS ? vcpu_set_sregs(v, &other, err) : 0;
	if (rc == 0)
		rc = vcpu_set_sregs(v, &i->sregs, err);
	if (rc == 0 && ioctl(v->fd, KVM_SET_REGS, &i->regs) < 0)
		rc = err_sys(err, errno, "cannot set the virtual CPU's registers");
	/* Components that XCR0 does not have would be refused. */
	if (rc == 0)
		rc = put_xcr0(v, i->xcr0, err);
	if (rc == 0)
		rc = put_xsave(v, &i->xsave, err);
	if (rc < 0)
		return rc;
	if (ioctl(v->fd, KVM_SET_DEBUGREGS, &i->debug) < 0 ||
	    ioctl(v->fd, KVM_SET_MSRS, &i->msrs) != (int)ARRAY_SIZE(state_msrs) ||
	    ioctl(v->fd, KVM_SET_VCPU_EVENTS, &i->events) < 0)
		return err_sys(err, errno, "cannot set the virtual CPU's state");
	v->event_queued = i->events.interrupt.injected || i->events.exception.injected;
	v->event_vector = i->events.interrupt.injected ? i->events.interrupt.nr
						       : i->events.exception.nr;
	return refresh(v, err);
}

/* The form that is the same on every host: what digests and comparisons see. */
static void walk_comparable(struct walker *w, struct vcpu_image *i, const struct xsave_layout *layout)
{
	i->regs.rflags &= ~RFLAGS_RF;
	walk_general(w, &i->regs);
	walk_system(w, &i->sregs);
	walk_u64(w, "xcr0", &i->xcr0);
	walk_fpu(w, (uint8_t *)&i->xsave, layout);
	for (size_t n = 0; n < ARRAY_SIZE(state_msrs); n++)
		walk_u64(w, state_msrs[n].name, (uint64_t *)&i->msrs.entry[n].data);
	walk_events(w, &i->events);
	for (int n = 0; n < 4; n++)
		walk_u64(w, "db", (uint64_t *)&i->debug.db[n]);
	walk_u64(w, "dr7", (uint64_t *)&i->debug.dr7);
}

static void walk_exact(struct walker *w, struct vcpu_image *i)
{
	walk_bytes(w, "regs", &i->regs, sizeof(i->regs));
	walk_bytes(w, "sregs", &i->sregs, sizeof(i->sregs));
	walk_u64(w, "xcr0", &i->xcr0);
	walk_bytes(w, "xsave", &i->xsave, sizeof(i->xsave));
	for (size_t n = 0; n < ARRAY_SIZE(state_msrs); n++)
		walk_u64(w, state_msrs[n].name, (uint64_t *)&i->msrs.entry[n].data);
	walk_bytes(w, "events", &i->events, sizeof(i->events));
	walk_bytes(w, "debug", &i->debug, sizeof(i->debug));
}

int vcpu_walk(struct vcpu *v, struct walker *w, struct err *err)
{
	struct vcpu_image image = {0};
	int rc = 0;

	/* An exact image has everything; over any other, what it lacks stays as it is. */
	if (w->op == WALK_RESTORE && w->exact) {
		image.msrs.nmsrs = ARRAY_SIZE(state_msrs);
		for (size_t n = 0; n < ARRAY_SIZE(state_msrs); n++)
			image.msrs.entry[n].index = state_msrs[n].index;
	} else {
		rc = fetch(v, &image, err);
	}
	if (rc < 0)
		return rc;
	walk_component(w, "vcpu0");
	if (w->exact) {
		walk_exact(w, &image);
		walk_bool(w, "pf_judged", &v->pf_judged);
	} else {
		walk_comparable(w, &image, &v->layout);
	}
	if (w->op != WALK_RESTORE)
		return 0;
	if (walker_failed(w))
		return err_set(err, EINVAL, "the saved state is damaged, or of another version of hindsight");
	return put(v, &image, err);
}

/* What a saved state has no word for ends in a few fragments: an access of two pages, one of 64 bytes in eights. */
#define ABANDON_MAX 64

int vcpu_abandon(struct vcpu *v, struct err *err)
{
	int rc = vcpu_complete(v, err);

	for (unsigned i = 0; rc == 0 && v->exit_stashed; i++) {
		if (i == ABANDON_MAX)
			return err_set(err, EIO, "the guest's access at 0x%llx does not come to an end",
				       vcpu_regs(v)->rip);
		v->exit_stashed = false;
		v->completion_pending = true;
		rc = vcpu_complete(v, err);
	}
	return rc;
}
