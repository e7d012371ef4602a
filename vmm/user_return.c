// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/user_return.h"

#include "vmm/paging.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define EFER_SCE 1u
#define EFER_LMA (1u << 10)
#define MSR_STAR 0xc0000081u
/* What IRETQ at CPL0 takes from the frame (SDM 2A, IRET): all flags but VM. */
#define IRET_FLAGS 0x3d7fd5u
/* What SYSRET takes from R11 (SDM 2B, SYSRET). */
#define SYSRET_FLAGS 0x3c7fd7u
#define FLAGS_ONE 0x2u

/* Type bit 0 of a code or data segment descriptor (SDM 3A 3.4.5). */
#define DESC_ACCESSED (1ull << 40)

struct user_state {
	struct kvm_sregs sregs;
	struct kvm_regs regs;
};

static bool is_canonical(uint64_t address, const struct kvm_sregs *s)
{
	unsigned bits = s->cr4 & X86_CR4_LA57 ? 57 : 48;
	int64_t top = (int64_t)address >> (bits - 1);

	return top == 0 || top == -1;
}

/* Read the descriptor that a selector names and mark it accessed, as loading it does. */
static bool load_descriptor(struct vcpu *v, const struct kvm_sregs *s, uint16_t selector,
			    struct kvm_segment *seg)
{
	bool local = selector & 4;
	uint64_t base = local ? s->ldt.base : s->gdt.base;
	uint32_t limit = local ? s->ldt.limit : s->gdt.limit;
	gva_t at = GVA(base + (selector & 0xfff8u));
	uint64_t d;

	if ((selector & 0xfffcu) == 0 || (selector | 7u) > limit ||
	    paging_read(v->mem, s, at, &d, sizeof(d)) < 0)
		return false;
	*seg = (struct kvm_segment){
		.base = (d >> 16 & 0xffffff) | (d >> 56) << 24,
		.limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
		.selector = selector,
		.type = (d >> 40 & 0xf) | 1,
		.s = d >> 44 & 1,
		.dpl = d >> 45 & 3,
		.present = d >> 47 & 1,
		.avl = d >> 52 & 1,
		.l = d >> 53 & 1,
		.db = d >> 54 & 1,
		.g = d >> 55 & 1,
	};
	if (seg->g)
		seg->limit = seg->limit << 12 | 0xfff;
	if (!seg->s || !seg->present)
		return false;
	if (!(d & DESC_ACCESSED)) {
		d |= DESC_ACCESSED;
		return paging_write(v->mem, s, at, &d, sizeof(d)) == 0;
	}
	return true;
}

static bool is_user_code(const struct kvm_segment *cs)
{
	bool conforming = cs->type & 4;

	return (cs->type & 8) && (conforming || cs->dpl == 3) && !(cs->l && cs->db);
}

static bool is_user_stack(const struct kvm_segment *ss)
{
	return !(ss->type & 8) && (ss->type & 2) && ss->dpl == 3;
}

enum return_kind { RETURN_NONE, RETURN_IRET, RETURN_SYSRET };

/* The instruction at RIP, and its operand size: 4 or 8. */
static enum return_kind decode(const struct vcpu *v, const struct kvm_sregs *s, unsigned *size)
{
	uint8_t code[3] = {0};
	unsigned i = 0;
	bool wide;

	for (unsigned n = 0; n < sizeof(code); n++)
		if (paging_read(v->mem, s, GVA(s->cs.base + vcpu_regs(v)->rip + n), &code[n], 1) < 0)
			break;
	wide = s->cs.l && (code[0] & 0xf8) == 0x48;
	i = s->cs.l && (code[0] & 0xf0) == 0x40;
	*size = wide ? 8 : 4;
	if (code[i] == 0xcf && (s->cs.l || s->cs.db))
		return RETURN_IRET;
	return code[i] == 0x0f && code[i + 1] == 0x07 ? RETURN_SYSRET : RETURN_NONE;
}

/* The first n values that IRET would pop: RIP, CS, RFLAGS, RSP, SS. */
static bool read_frame(const struct vcpu *v, const struct kvm_sregs *s, unsigned size, unsigned n,
		       uint64_t frame[5])
{
	uint64_t rsp = vcpu_regs(v)->rsp + (s->cs.l ? 0 : s->ss.base);

	for (unsigned i = 0; i < n; i++) {
		frame[i] = 0;
		if (paging_read(v->mem, s, GVA(rsp + i * size), &frame[i], size) < 0)
			return false;
	}
	return true;
}

bool vcpu_returns_to_user(const struct vcpu *v)
{
	struct kvm_sregs sregs;
	uint64_t frame[5];
	unsigned size;

	if (vcpu_get_sregs(v, &sregs, NULL) < 0 || sregs.ss.dpl != 0 || !(sregs.cr0 & X86_CR0_PE))
		return false;
	switch (decode(v, &sregs, &size)) {
	case RETURN_IRET:
		return read_frame(v, &sregs, size, 2, frame) && (frame[1] & 3) == 3;
	case RETURN_SYSRET:
		return true;
	case RETURN_NONE:
		break;
	}
	return false;
}

static bool make_iret(struct vcpu *v, struct user_state *u, unsigned size)
{
	uint64_t frame[5];
	struct kvm_segment cs, ss;
	bool long_mode = u->sregs.efer & EFER_LMA;

	if ((u->regs.rflags & X86_EFLAGS_NT) || !read_frame(v, &u->sregs, size, 5, frame) ||
	    (!long_mode && (frame[2] & X86_EFLAGS_VM)) || (frame[1] & 3) != 3 || (frame[4] & 3) != 3 || !is_canonical(frame[0], &u->sregs) ||
	    !load_descriptor(v, &u->sregs, (uint16_t)frame[1], &cs) || !is_user_code(&cs) ||
	    !load_descriptor(v, &u->sregs, (uint16_t)frame[4], &ss) || !is_user_stack(&ss))
		return false;
	if (!cs.l && frame[0] > cs.limit)
		return false;
	u->regs.rip = cs.l ? frame[0] : (uint32_t)frame[0];
	u->regs.rsp = frame[3];
	u->regs.rflags = (frame[2] & IRET_FLAGS) | FLAGS_ONE;
	u->sregs.cs = cs;
	u->sregs.ss = ss;
	return true;
}

static int make_sysret(struct vcpu *v, struct user_state *u, bool to64, bool *made, struct err *err)
{
	uint64_t star;
	uint16_t base;
	int rc;

	if (!(u->sregs.efer & EFER_SCE) || (to64 && !is_canonical(u->regs.rcx, &u->sregs)))
		return 0;
	rc = vcpu_get_msr(v, MSR_STAR, &star, err);
	if (rc < 0)
		return rc;
	base = (uint16_t)(star >> 48);
	u->regs.rip = to64 ? u->regs.rcx : (uint32_t)u->regs.rcx;
	u->regs.rflags = (u->regs.r11 & SYSRET_FLAGS) | FLAGS_ONE;
	u->sregs.cs = (struct kvm_segment){.limit = 0xffffffff,
					   .selector = (uint16_t)((base + (to64 ? 16 : 0)) | 3),
					   .type = 11, .present = 1, .dpl = 3, .s = 1, .g = 1,
					   .l = to64, .db = !to64};
	u->sregs.ss = (struct kvm_segment){.limit = 0xffffffff,
					   .selector = (uint16_t)((base + 8) | 3),
					   .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1};
	*made = true;
	return 0;
}

int vcpu_return_to_user(struct vcpu *v, bool *made, struct err *err)
{
	struct user_state u = {.regs = *vcpu_regs(v)};
	unsigned size;
	int rc = vcpu_get_sregs(v, &u.sregs, err);

	*made = false;
	if (rc < 0)
		return rc;
	switch (decode(v, &u.sregs, &size)) {
	case RETURN_IRET:
		*made = make_iret(v, &u, size);
		break;
	case RETURN_SYSRET:
		rc = make_sysret(v, &u, size == 8, made, err);
		break;
	case RETURN_NONE:
		break;
	}
	if (rc < 0 || !*made)
		return rc;
	rc = vcpu_set_sregs(v, &u.sregs, err);
	if (rc < 0)
		return rc;
	*vcpu_regs_mut(v) = u.regs;
	/* As KVM would say at an exit here. */
	v->run->if_flag = (u.regs.rflags & X86_EFLAGS_IF) != 0;
	v->run->ready_for_interrupt_injection = 1;
	v->uncounted++;
	return 0;
}
