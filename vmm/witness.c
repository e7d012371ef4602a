// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/witness.h"

#include "vmm/paging.h"

#include <string.h>

#include <Zydis/Zydis.h>

/* Instructions looked at: a loop that is worth skipping through is short, or calls what is. */
#define INSTRUCTIONS 48
/* Targets of backward jumps that are followed: the heads of the loops around the place. */
#define HEADS 4
#define INSTRUCTION_MAX 15

struct scan {
	struct machine *m;
	struct kvm_sregs sregs;
	ZydisDecoder decoder;
	ZydisRegisterContext registers;
	uint64_t seen[INSTRUCTIONS];
	unsigned decoded;
	uint64_t head[HEADS];
	unsigned heads;
};

static void set_registers(ZydisRegisterContext *context, const struct kvm_regs *r)
{
	const uint64_t values[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				     r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

	memset(context, 0, sizeof(*context));
	for (int i = 0; i < 16; i++) {
		context->values[ZYDIS_REGISTER_RAX + i] = values[i];
		context->values[ZYDIS_REGISTER_EAX + i] = (uint32_t)values[i];
	}
}

static void add_operand(struct scan *s, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *op,
			uint64_t rip, struct witness *w)
{
	unsigned size = op->size / 8 < 8 ? op->size / 8 : 8;
	ZyanU64 address;

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type != ZYDIS_MEMOP_TYPE_MEM || !size ||
	    w->count == WITNESS_MAX ||
	    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(insn, op, rip, &s->registers, &address)))
		return;
	if (op->mem.segment == ZYDIS_REGISTER_FS)
		address += s->sregs.fs.base;
	else if (op->mem.segment == ZYDIS_REGISTER_GS)
		address += s->sregs.gs.base;
	for (unsigned i = 0; i < w->count; i++)
		if (w->at[i].v == address)
			return;
	w->at[w->count] = GVA(address);
	w->size[w->count++] = (uint8_t)size;
}

static bool seen(const struct scan *s, uint64_t rip)
{
	for (unsigned i = 0; i < s->decoded; i++)
		if (s->seen[i] == rip)
			return true;
	return false;
}

/* Where control goes next; 0: not known. */
static uint64_t follow(struct scan *s, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
		       uint64_t rip)
{
	ZyanU64 target;

	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSCALL:
		return 0;
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_COND_BR:
		if (ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
		    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(insn, &ops[0], rip, &target)))
			return 0;
		if (insn->meta.category == ZYDIS_CATEGORY_UNCOND_BR)
			return target;
		if (target <= rip && s->heads < HEADS)
			s->head[s->heads++] = target;
		break;
	default:
		break;
	}
	return rip + insn->length;
}

/* Straight on, through unconditional jumps, to where it was already or cannot be known. */
static void scan_from(struct scan *s, uint64_t rip, struct witness *w)
{
	while (rip && s->decoded < INSTRUCTIONS && !seen(s, rip)) {
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction insn;
		uint8_t code[INSTRUCTION_MAX];
		size_t have = sizeof(code);

		while (have && paging_read(s->m->mem, &s->sregs, GVA(rip), code, have) < 0)
			have--;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&s->decoder, code, have, &insn, ops)))
			return;
		s->seen[s->decoded++] = rip;
		for (int n = 0; n < insn.operand_count; n++)
			add_operand(s, &insn, &ops[n], rip, w);
		rip = follow(s, &insn, ops, rip);
	}
}

void witness_find(struct machine *m, const struct kvm_regs *regs, struct witness *w)
{
	struct scan s = {.m = m};
	bool wide;

	w->count = 0;
	if (vcpu_get_sregs(&m->vcpu[0], &s.sregs, NULL) < 0)
		return;
	wide = s.sregs.cs.l;
	ZydisDecoderInit(&s.decoder, wide ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	set_registers(&s.registers, regs);
	scan_from(&s, regs->rip, w);
	for (unsigned i = 0; i < s.heads; i++)
		scan_from(&s, s.head[i], w);
}

void witness_read(struct machine *m, const struct witness *w, uint64_t value[WITNESS_MAX])
{
	struct kvm_sregs sregs;
	bool readable = vcpu_get_sregs(&m->vcpu[0], &sregs, NULL) == 0;

	for (unsigned i = 0; i < w->count; i++) {
		value[i] = 0;
		if (readable && paging_read(m->mem, &sregs, w->at[i], &value[i], w->size[i]) < 0)
			value[i] = 0;
	}
}

uint16_t witness_hash(const uint64_t *value, unsigned count)
{
	return (uint16_t)XXH3_64bits(value, count * sizeof(*value));
}
