// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * System instructions: those that look at segment descriptors (VERW is also how kernels clear CPU buffers on the way
 * to user mode), SMAP's, and those that the guest's CPU does not have.
 */
#include "vmm/assist_internal.h"

#include <asm/processor-flags.h>
#include <string.h>

#define SELECTOR_TABLE 4u /* TI: the LDT */
#define SELECTOR_RPL 3u

/* Second word of a descriptor (SDM 3A 3.4.5). */
#define DESCRIPTOR_DPL(high) ((high) >> 13 & 3)
#define DESCRIPTOR_CODE_OR_DATA 0x1000u
#define DESCRIPTOR_CODE 0x800u
#define DESCRIPTOR_CONFORMING 0x400u /* of code */
#define DESCRIPTOR_READ_WRITE 0x200u /* code: readable; data: writable */
#define DESCRIPTOR_TYPE(high) ((high) >> 8 & 0xf)
#define DESCRIPTOR_BIG 0x800000u
/* What LAR gives: attributes. Bits 19:16 are the limit's; CPUs may give them or not (SDM 2A, LAR). */
#define DESCRIPTOR_RIGHTS 0xffff00u

/* System descriptors that LAR and LSL accept, bit by type (SDM 2A, LAR table 3-53, LSL table 3-57). */
#define LAR_TYPES 0x1a3eu
#define LAR_TYPES_LONG 0x1a04u
#define LSL_TYPES 0x0a0eu
#define LSL_TYPES_LONG 0x0a04u

/* The descriptor that a selector names. *found: false if the selector is null or beyond its table. */
static int load_descriptor(struct assist *a, uint16_t selector, uint32_t descriptor[2], bool *found)
{
	bool local = selector & SELECTOR_TABLE;
	uint64_t base = local ? a->sregs.ldt.base : a->sregs.gdt.base;
	uint32_t limit = local ? a->sregs.ldt.limit : a->sregs.gdt.limit;
	uint32_t at = selector & ~7u;

	*found = false;
	if (!(selector & ~SELECTOR_RPL) || at + 7 > limit ||
	    (local && (a->sregs.ldt.unusable || !a->sregs.ldt.present)))
		return 0;
	*found = true;
	return assist_load_system(a, GVA(base + at), descriptor, 8);
}

/* May code at this CPL, with this selector, see the descriptor? */
static bool is_visible(const struct assist *a, uint16_t selector, uint32_t high)
{
	const uint32_t conforming = DESCRIPTOR_CODE_OR_DATA | DESCRIPTOR_CODE | DESCRIPTOR_CONFORMING;

	if ((high & conforming) == conforming)
		return true;
	return a->sregs.ss.dpl <= DESCRIPTOR_DPL(high) &&
	       (selector & SELECTOR_RPL) <= DESCRIPTOR_DPL(high);
}

static bool is_accepted(const struct assist *a, uint32_t high)
{
	bool code = high & DESCRIPTOR_CODE, access = high & DESCRIPTOR_READ_WRITE;
	bool lar = a->insn.mnemonic == ZYDIS_MNEMONIC_LAR;
	bool long_mode = a->sregs.efer & EFER_LMA;
	uint32_t types;

	switch (a->insn.mnemonic) {
	case ZYDIS_MNEMONIC_VERR:
		return (high & DESCRIPTOR_CODE_OR_DATA) && (!code || access);
	case ZYDIS_MNEMONIC_VERW:
		return (high & DESCRIPTOR_CODE_OR_DATA) && !code && access;
	default:
		if (high & DESCRIPTOR_CODE_OR_DATA)
			return true;
		if (long_mode)
			types = lar ? LAR_TYPES_LONG : LSL_TYPES_LONG;
		else
			types = lar ? LAR_TYPES : LSL_TYPES;
		return types >> DESCRIPTOR_TYPE(high) & 1;
	}
}

static uint32_t limit_of(const uint32_t descriptor[2])
{
	uint32_t limit = (descriptor[0] & 0xffff) | (descriptor[1] & 0xf0000);

	return descriptor[1] & DESCRIPTOR_BIG ? limit << 12 | 0xfff : limit;
}

static int load_selector(struct assist *a, const ZydisDecodedOperand *op, uint16_t *selector)
{
	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return assist_load(a, op, selector, sizeof(*selector), 1);
	*selector = (uint16_t)*assist_gpr(a, op->reg.value);
	return 0;
}

int assist_descriptor(struct assist *a)
{
	bool verifies = a->insn.mnemonic == ZYDIS_MNEMONIC_VERR ||
			a->insn.mnemonic == ZYDIS_MNEMONIC_VERW;
	uint32_t descriptor[2], value;
	uint16_t selector;
	uint64_t *to;
	bool found;
	int ret;

	if (!(a->sregs.cr0 & X86_CR0_PE) || (a->regs.rflags & X86_EFLAGS_VM))
		return assist_raise(a, VECTOR_UD, 0);
	ret = load_selector(a, &a->op[verifies ? 0 : 1], &selector);
	if (!ret)
		ret = load_descriptor(a, selector, descriptor, &found);
	if (ret)
		return ret;
	a->regs.rflags &= ~(uint64_t)X86_EFLAGS_ZF;
	if (!found || !is_visible(a, selector, descriptor[1]) || !is_accepted(a, descriptor[1]))
		return 0;
	a->regs.rflags |= X86_EFLAGS_ZF;
	if (verifies)
		return 0;
	value = a->insn.mnemonic == ZYDIS_MNEMONIC_LAR ? descriptor[1] & DESCRIPTOR_RIGHTS
						       : limit_of(descriptor);
	to = assist_gpr(a, a->op[0].reg.value);
	*to = a->insn.operand_width == 16 ? (*to & ~0xffffull) | (value & 0xffff) : value;
	return 0;
}

int assist_clac_stac(struct assist *a)
{
	if (!(a->sregs.cr4 & X86_CR4_SMAP) || a->sregs.ss.dpl)
		return assist_raise(a, VECTOR_UD, 0);
	if (a->insn.mnemonic == ZYDIS_MNEMONIC_STAC)
		a->regs.rflags |= X86_EFLAGS_AC;
	else
		a->regs.rflags &= ~(uint64_t)X86_EFLAGS_AC;
	return 0;
}

int assist_undefined(struct assist *a)
{
	return assist_raise(a, VECTOR_UD, 0);
}
