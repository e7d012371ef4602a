// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/step.h"

#include "vmm/paging.h"

#define RFLAGS_TF (1u << 8)

bool vcpu_after_shadow(const struct vcpu *v)
{
	struct kvm_sregs sregs;
	uint8_t b[2] = {0};

	if (vcpu_get_sregs(v, &sregs, NULL) < 0 ||
	    paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rip - 2), b, 2) < 0)
		return false;
	return b[1] == 0xfb || (b[0] == 0x8e && (b[1] & 0xf8) == 0xd0);
}

enum step_care step_care_find(const struct vcpu *v, gva_t *target)
{
	struct kvm_sregs sregs;
	uint8_t code[4] = {0};
	uint64_t frame[2] = {0};
	unsigned i = 0;

	if (vcpu_get_sregs(v, &sregs, NULL) < 0)
		return CARE_NONE;
	for (unsigned n = 0; n < sizeof(code); n++)
		if (paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rip + n), &code[n], 1) < 0)
			break;
	while (i < 2 && (code[i] == 0x66 || (code[i] & 0xf0) == 0x40))
		i++;
	if (code[i] == 0x9c)
		return CARE_PUSHF;
	if (code[i] == 0x0f && code[i + 1] == 0x05)
		return CARE_SYSCALL;
	if (sregs.ss.dpl != 0)
		return CARE_NONE;
	if (code[i] == 0xf4)
		return CARE_HLT;
	if (vcpu_returns_to_user(v))
		return CARE_TO_USER;
	/* IRETQ; the 16- and 32-bit forms are stepped. */
	if (code[i] == 0xcf && i == 1 && (code[0] & 0x48) == 0x48 && sregs.cs.l &&
	    paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rsp), frame, sizeof(frame)) == 0) {
		*target = GVA(frame[0]);
		return CARE_IRET;
	}
	return CARE_NONE;
}

void step_hide_flag(struct vcpu *v, enum step_care what)
{
	struct kvm_sregs sregs;
	uint8_t byte;

	if (what == CARE_SYSCALL) {
		if (vcpu_regs(v)->r11 & RFLAGS_TF)
			vcpu_regs_mut(v)->r11 &= ~(uint64_t)RFLAGS_TF;
	} else if (what == CARE_PUSHF && vcpu_get_sregs(v, &sregs, NULL) == 0) {
		gva_t at = GVA(vcpu_regs(v)->rsp + 1); /* TF is bit 0 of the second byte */

		if (paging_read(v->mem, &sregs, at, &byte, 1) == 0 && (byte & 1)) {
			byte &= 0xfe;
			paging_write(v->mem, &sregs, at, &byte, 1);
		}
	}
}

/* Take TF out of a frame at `at` if it is that of a fault of the instruction at rip. */
static void hide_flag_at(struct vcpu *v, const struct kvm_sregs *sregs, uint64_t at, uint64_t rip)
{
	uint64_t frame[3]; /* RIP, CS, RFLAGS */

	if (paging_read(v->mem, sregs, GVA(at), frame, sizeof(frame)) < 0 || frame[0] != rip ||
	    frame[1] > 0xffff || !(frame[2] & RFLAGS_TF))
		return;
	frame[2] &= ~(uint64_t)RFLAGS_TF;
	paging_write(v->mem, sregs, GVA(at + 16), &frame[2], sizeof(frame[2]));
}

/* An instruction that faulted under a step has pushed the host's TF into the exception's frame, which is known by the
 * address of the instruction and lies on top of the handler's stack, maybe below an error code. */
void step_hide_flag_in_frame(struct vcpu *v, const struct kvm_regs *before)
{
	struct kvm_sregs sregs;

	if ((before->rflags & RFLAGS_TF) || vcpu_regs(v)->rip == before->rip ||
	    vcpu_get_sregs(v, &sregs, NULL) < 0)
		return;
	hide_flag_at(v, &sregs, vcpu_regs(v)->rsp, before->rip);
	hide_flag_at(v, &sregs, vcpu_regs(v)->rsp + 8, before->rip);
}
