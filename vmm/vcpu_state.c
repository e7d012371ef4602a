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

static int fetch(struct vcpu *v, struct kvm_sregs *sregs, struct kvm_xsave *xsave,
		 struct msr_block *msrs, struct kvm_vcpu_events *events,
		 struct kvm_debugregs *debug, struct err *err)
{
	if (ioctl(v->fd, KVM_GET_SREGS, sregs) < 0 || ioctl(v->fd, KVM_GET_XSAVE, xsave) < 0 ||
	    ioctl(v->fd, KVM_GET_VCPU_EVENTS, events) < 0 ||
	    ioctl(v->fd, KVM_GET_DEBUGREGS, debug) < 0)
		return err_sys(err, errno, "cannot read the virtual CPU's state");
	msrs->nmsrs = ARRAY_SIZE(state_msrs);
	for (size_t i = 0; i < ARRAY_SIZE(state_msrs); i++)
		msrs->entry[i] = (struct kvm_msr_entry){.index = state_msrs[i].index};
	if (ioctl(v->fd, KVM_GET_MSRS, msrs) != (int)ARRAY_SIZE(state_msrs))
		return err_sys(err, errno, "cannot read the virtual CPU's MSRs");
	/* An event that is not there leaves its number behind; drop it. */
	if (!events->exception.injected) {
		events->exception.nr = 0;
		events->exception.has_error_code = 0;
		events->exception.error_code = 0;
	}
	if (!events->interrupt.injected)
		events->interrupt.nr = 0;
	return 0;
}

static int put_xcr0(struct vcpu *v, uint64_t xcr0, struct err *err)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = xcr0}};

	if (v->xfeatures && ioctl(v->fd, KVM_SET_XCRS, &xcrs) < 0)
		return err_sys(err, errno, "cannot set XCR0");
	return 0;
}

static int put(struct vcpu *v, struct kvm_regs *regs, struct kvm_sregs *sregs,
	       struct kvm_xsave *xsave, struct msr_block *msrs, struct kvm_vcpu_events *events,
	       struct kvm_debugregs *debug, struct err *err)
{
	/* Order: registers drop pending exceptions, so events come last (x86.c, __set_regs). */
	events->flags = KVM_VCPUEVENT_VALID_SHADOW;
	if (ioctl(v->fd, KVM_SET_SREGS, sregs) < 0 || ioctl(v->fd, KVM_SET_REGS, regs) < 0 ||
	    ioctl(v->fd, KVM_SET_XSAVE, xsave) < 0 || ioctl(v->fd, KVM_SET_DEBUGREGS, debug) < 0 ||
	    ioctl(v->fd, KVM_SET_MSRS, msrs) != (int)ARRAY_SIZE(state_msrs) ||
	    ioctl(v->fd, KVM_SET_VCPU_EVENTS, events) < 0)
		return err_sys(err, errno, "cannot set the virtual CPU's state");
	v->run->s.regs.regs = *regs;
	v->regs_dirty = false;
	v->completion_pending = false;
	v->exit_stashed = false;
	v->sregs_synced = false;
	v->armed_stale = true;
	v->event_queued = events->interrupt.injected || events->exception.injected;
	v->event_vector = events->interrupt.injected ? events->interrupt.nr : events->exception.nr;
	return 0;
}

int vcpu_walk(struct vcpu *v, struct walker *w, struct err *err)
{
	struct kvm_regs regs = *vcpu_regs(v);
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_xsave xsave;
	struct msr_block msrs;
	uint64_t xcr0;
	int rc = fetch(v, &sregs, &xsave, &msrs, &events, &debug, err);

	if (rc == 0)
		rc = vcpu_get_xcr0(v, &xcr0, err);
	if (rc < 0)
		return rc;
	regs.rflags &= ~RFLAGS_RF;
	walk_component(w, "vcpu0");
	walk_general(w, &regs);
	walk_system(w, &sregs);
	walk_u64(w, "xcr0", &xcr0);
	walk_fpu(w, (uint8_t *)&xsave, &v->layout);
	for (size_t i = 0; i < ARRAY_SIZE(state_msrs); i++)
		walk_u64(w, state_msrs[i].name, (uint64_t *)&msrs.entry[i].data);
	walk_events(w, &events);
	for (int i = 0; i < 4; i++)
		walk_u64(w, "db", (uint64_t *)&debug.db[i]);
	walk_u64(w, "dr7", (uint64_t *)&debug.dr7);
	if (w->op == WALK_RESTORE) {
		if (walker_failed(w))
			return err_set(err, EINVAL, "the saved state of the virtual CPU is cut short");
		rc = put_xcr0(v, xcr0, err);
		return rc < 0 ? rc
			      : put(v, &regs, &sregs, &xsave, &msrs, &events, &debug, err);
	}
	return 0;
}
