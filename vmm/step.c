// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/step.h"

#include "vmm/paging.h"

#include <string.h>

#define RFLAGS_TF (1u << 8)
#define RFLAGS_DF (1u << 10)
#define INSTRUCTION_MAX 15 /* bytes (SDM 2A 2.3.11) */
#define EFER_LMA (1u << 10)
/* KVM's emulator begins and counts a REP instruction anew when this many elements are left, or a multiple (emulate.c,
 * x86_emulate_insn). */
#define REP_ELEMENTS_MASK 0x3ffu
/* The 64-bit TSS (SDM 3A, figure 8-11). */
#define TSS_RSP0 4u
#define TSS_IST1 36u

bool vcpu_after_shadow(const struct vcpu *v)
{
	struct kvm_sregs sregs;
	uint8_t b[2] = {0};

	if (vcpu_get_sregs(v, &sregs, NULL) < 0 ||
	    paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rip - 2), b, 2) < 0)
		return false;
	return b[1] == 0xfb || (b[0] == 0x8e && (b[1] & 0xf8) == 0xd0);
}

bool vcpu_in_string_instruction(const struct vcpu *v, unsigned *element)
{
	struct kvm_sregs sregs;
	bool rep = false, narrow = false, wide = false;
	uint8_t b;

	if (vcpu_get_sregs(v, &sregs, NULL) < 0)
		return false;
	for (unsigned i = 0; i < INSTRUCTION_MAX; i++) {
		if (paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rip + i), &b, 1) < 0)
			return false;
		if (b == 0xf2 || b == 0xf3)
			rep = true;
		else if (b == 0x66)
			narrow = true;
		else if ((b & 0xf0) == 0x40)
			wide = b & 8; /* REX.W */
		else if (b != 0x67 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26 && b != 0x64 && b != 0x65)
			break;
	}
	if (element)
		*element = !(b & 1) ? 1 : wide ? 8 : narrow ? 2 : 4;
	return rep && ((b >= 0x6c && b <= 0x6f) || (b >= 0xa4 && b <= 0xa7) || (b >= 0xaa && b <= 0xaf));
}

bool step_handler(const struct vcpu *v, const struct kvm_sregs *sregs, unsigned vector,
		  gva_t *entry)
{
	uint8_t gate[16] = {0};
	size_t size = sregs->efer & EFER_LMA ? 16 : 8;

	if ((vector + 1) * size - 1 > sregs->idt.limit ||
	    paging_read(v->mem, sregs, GVA(sregs->idt.base + vector * size), gate, size) < 0)
		return false;
	entry->v = (uint64_t)gate[0] | (uint64_t)gate[1] << 8 | (uint64_t)gate[6] << 16 |
		   (uint64_t)gate[7] << 24;
	for (unsigned i = 0; i < 4 && size == 16; i++)
		entry->v |= (uint64_t)gate[8 + i] << (32 + 8 * i);
	return (gate[5] & 0x80) != 0;
}

bool step_handler_stack(const struct vcpu *v, const struct kvm_sregs *sregs, unsigned vector, uint64_t *stack)
{
	uint8_t ist;

	/* The gate's byte 4 (SDM 3A, figure 6-8). */
	if (!(sregs->efer & EFER_LMA) ||
	    paging_read(v->mem, sregs, GVA(sregs->idt.base + vector * 16 + 4), &ist, 1) < 0 || !(ist & 7))
		return false;
	return paging_read(v->mem, sregs, GVA(sregs->tr.base + TSS_IST1 + 8 * ((ist & 7u) - 1)), stack, sizeof(*stack)) == 0;
}

void step_take_back(struct vcpu *v, const struct step_fault *f)
{
	struct kvm_regs *regs = vcpu_regs_mut(v);

	regs->rip = f->rip;
	regs->rsp = f->rsp;
	regs->rflags = f->rflags;
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

bool step_begins_again(const struct vcpu *v)
{
	const struct kvm_regs *regs = vcpu_regs(v);
	struct kvm_sregs sregs;
	unsigned size;
	gpa_t last;

	return (regs->rcx & REP_ELEMENTS_MASK) && vcpu_in_string_instruction(v, &size) && vcpu_get_sregs(v, &sregs, NULL) == 0 &&
	       paging_translate(v->mem, &sregs,
				GVA(regs->rflags & RFLAGS_DF ? regs->rdi + size : regs->rdi - size), &last) == 0 &&
	       v->run->mmio.phys_addr >= last.v && v->run->mmio.phys_addr < last.v + size;
}

static void note_frame(struct step_frames *f, const struct vcpu *v, uint64_t stack)
{
	struct step_frame *frame = &f->frame[f->n];

	/* SS, RSP, RFLAGS, CS and RIP are pushed below a stack aligned to 16, in this order. */
	frame->at = GVA((stack & ~15ull) - 8 * STEP_PUSHED_WORDS);
	if (paging_read(v->mem, &f->sregs, frame->at, frame->words, sizeof(frame->words)) == 0)
		f->n++;
}

void step_note_stacks(const struct vcpu *v, struct step_frames *f, uint64_t rsp)
{
	const struct kvm_sregs *sregs = &f->sregs;
	uint64_t stack;

	f->n = 0;
	if (sregs->ss.dpl == 0)
		note_frame(f, v, rsp);
	else if (paging_read(v->mem, sregs, GVA(sregs->tr.base + TSS_RSP0), &stack,
			     sizeof(stack)) == 0)
		note_frame(f, v, stack);
	for (unsigned i = 0; i < TSS_ISTS; i++)
		if (paging_read(v->mem, sregs, GVA(sregs->tr.base + TSS_IST1 + 8 * i), &stack,
				sizeof(stack)) == 0 &&
		    stack)
			note_frame(f, v, stack);
}

void step_note_frames(const struct vcpu *v, struct step_frames *f)
{
	const struct kvm_regs *regs = vcpu_regs(v);

	f->n = 0;
	if ((regs->rflags & RFLAGS_TF) || vcpu_get_sregs(v, &f->sregs, NULL) < 0 ||
	    !(f->sregs.efer & EFER_LMA))
		return;
	f->rip = regs->rip;
	step_note_stacks(v, f, regs->rsp);
}

void step_hide_flag_in_frames(struct vcpu *v, const struct step_frames *f)
{
	uint64_t words[STEP_FRAME_WORDS]; /* RIP, CS, RFLAGS */

	for (unsigned i = 0; i < f->n; i++) {
		const struct step_frame *old = &f->frame[i];

		/* What was there before is the guest's own, whatever it looks like. */
		if (paging_read(v->mem, &f->sregs, old->at, words, sizeof(words)) < 0 ||
		    memcmp(words, old->words, sizeof(words)) == 0 || words[0] != f->rip ||
		    words[1] > 0xffff || !(words[2] & RFLAGS_TF))
			continue;
		words[2] &= ~(uint64_t)RFLAGS_TF;
		paging_write(v->mem, &f->sregs, GVA(old->at.v + 16), &words[2], sizeof(words[2]));
	}
}
