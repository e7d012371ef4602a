// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * SSE moves and SSE2 integer operations, as kernels use them between kernel_fpu_begin and _end and
 * as compilers emit them in kernels built without -mno-sse. Legacy encodings on xmm registers only:
 * the guest's CPU has no AVX.
 */
#include "vmm/assist_internal.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <string.h>

/* All bits but the reserved ones, with DAZ (SDM 1, 10.2.3). */
#define MXCSR_VALID 0xffffu

/* An xmm register in all its lane widths, unsigned and signed. */
union xmm {
	uint8_t b __attribute__((vector_size(16)));
	uint16_t w __attribute__((vector_size(16)));
	uint32_t d __attribute__((vector_size(16)));
	uint64_t q __attribute__((vector_size(16)));
	int8_t sb __attribute__((vector_size(16)));
	int16_t sw __attribute__((vector_size(16)));
	int32_t sd __attribute__((vector_size(16)));
	uint8_t byte[16];
};

/* New value of the destination from its old one, the source and the immediate. */
typedef union xmm sse_op(union xmm d, union xmm s, unsigned imm);

#define OP(name, lanes, expr)                                                                      \
	static union xmm name(union xmm d, union xmm s, unsigned imm)                              \
	{                                                                                          \
		(void)imm;                                                                         \
		(void)s;                                                                           \
		d.lanes = (expr);                                                                  \
		return d;                                                                          \
	}

OP(op_move, q, s.q)
OP(op_low4, d[0], s.d[0])
OP(op_low8, q[0], s.q[0])
OP(op_high8, q[1], s.q[0])
OP(op_movhlps, q[0], s.q[1])

/* MOVQ between registers clears the upper half. */
static union xmm op_movq(union xmm d, union xmm s, unsigned imm)
{
	(void)imm;
	d.q[0] = s.q[0];
	d.q[1] = 0;
	return d;
}

OP(op_and, q, d.q &s.q)
OP(op_andn, q, ~d.q &s.q)
OP(op_or, q, d.q | s.q)
OP(op_xor, q, d.q ^ s.q)
OP(op_addb, b, d.b + s.b)
OP(op_addw, w, d.w + s.w)
OP(op_addd, d, d.d + s.d)
OP(op_addq, q, d.q + s.q)
OP(op_subb, b, d.b - s.b)
OP(op_subw, w, d.w - s.w)
OP(op_subd, d, d.d - s.d)
OP(op_subq, q, d.q - s.q)
OP(op_eqb, sb, d.b == s.b)
OP(op_eqw, sw, d.w == s.w)
OP(op_eqd, sd, d.d == s.d)
OP(op_gtb, sb, d.sb > s.sb)
OP(op_gtw, sw, d.sw > s.sw)
OP(op_gtd, sd, d.sd > s.sd)

/* Shifts take their count from the low 64 bits of the source; an immediate has been put there. */
#define SHIFT(name, lanes, width, operator)                                                        \
	static union xmm name(union xmm d, union xmm s, unsigned imm)                              \
	{                                                                                          \
		(void)imm;                                                                         \
		if (s.q[0] >= (width))                                                             \
			return (union xmm){.q = {0, 0}};                                           \
		for (unsigned i = 0; i < 128 / (width); i++)                                       \
			d.lanes[i] = (__typeof__(d.lanes[i]))(d.lanes[i] operator s.q[0]);         \
		return d;                                                                          \
	}

SHIFT(op_sllw, w, 16, <<)
SHIFT(op_slld, d, 32, <<)
SHIFT(op_sllq, q, 64, <<)
SHIFT(op_srlw, w, 16, >>)
SHIFT(op_srld, d, 32, >>)
SHIFT(op_srlq, q, 64, >>)

/* Arithmetic shifts stop at the sign. */
#define SHIFT_SIGNED(name, lanes, width)                                                           \
	static union xmm name(union xmm d, union xmm s, unsigned imm)                              \
	{                                                                                          \
		unsigned n = s.q[0] < (width) ? (unsigned)s.q[0] : (width)-1;                      \
                                                                                                   \
		(void)imm;                                                                         \
		for (unsigned i = 0; i < 128 / (width); i++)                                       \
			d.lanes[i] = (__typeof__(d.lanes[i]))(d.lanes[i] >> n);                    \
		return d;                                                                          \
	}

SHIFT_SIGNED(op_sraw, sw, 16)
SHIFT_SIGNED(op_srad, sd, 32)

/* Whole register by bytes; positive: to the left. */
static union xmm shift_bytes(union xmm d, uint64_t count, bool left)
{
	union xmm out = {.q = {0, 0}};

	for (unsigned i = 0; i < 16 && count + i < 16; i++) {
		if (left)
			out.byte[i + count] = d.byte[i];
		else
			out.byte[i] = d.byte[i + count];
	}
	return out;
}

static union xmm op_slldq(union xmm d, union xmm s, unsigned imm)
{
	(void)imm;
	return shift_bytes(d, s.q[0], true);
}

static union xmm op_srldq(union xmm d, union xmm s, unsigned imm)
{
	(void)imm;
	return shift_bytes(d, s.q[0], false);
}

/* Lanes of `width` bytes alternately from d and s, from byte `from` on. */
static union xmm interleave(union xmm d, union xmm s, unsigned from, unsigned width)
{
	union xmm out;

	for (unsigned i = 0; i < 8; i += width) {
		memcpy(&out.byte[2 * i], &d.byte[from + i], width);
		memcpy(&out.byte[2 * i + width], &s.byte[from + i], width);
	}
	return out;
}

#define UNPACK(name, from, width)                                                                  \
	static union xmm name(union xmm d, union xmm s, unsigned imm)                              \
	{                                                                                          \
		(void)imm;                                                                         \
		return interleave(d, s, from, width);                                              \
	}

UNPACK(op_unpcklbw, 0, 1)
UNPACK(op_unpcklwd, 0, 2)
UNPACK(op_unpckldq, 0, 4)
UNPACK(op_unpcklqdq, 0, 8)
UNPACK(op_unpckhbw, 8, 1)
UNPACK(op_unpckhwd, 8, 2)
UNPACK(op_unpckhdq, 8, 4)
UNPACK(op_unpckhqdq, 8, 8)

static union xmm op_pshufd(union xmm d, union xmm s, unsigned imm)
{
	for (unsigned i = 0; i < 4; i++)
		d.d[i] = s.d[imm >> 2 * i & 3];
	return d;
}

static union xmm op_shufps(union xmm d, union xmm s, unsigned imm)
{
	return (union xmm){
		.d = {d.d[imm & 3], d.d[imm >> 2 & 3], s.d[imm >> 4 & 3], s.d[imm >> 6 & 3]}};
}

static union xmm op_shufpd(union xmm d, union xmm s, unsigned imm)
{
	return (union xmm){.q = {d.q[imm & 1], s.q[imm >> 1 & 1]}};
}

struct sse_row {
	ZydisMnemonic mnemonic;
	enum assist_kind kind;
	uint8_t size;	/* bytes of a memory operand or general register; 0: as the register's */
	bool unaligned; /* a 16-byte memory operand may lie anywhere */
	uint8_t store_from;    /* first byte of the register that a store takes */
	sse_op *from_register; /* NULL: no such form */
	sse_op *from_memory;   /* or from a general register; the source is zero-extended */
};

#define M(name) ZYDIS_MNEMONIC_##name
#define MOVE(name, size, unaligned, from, reg, mem)                                                \
	{                                                                                          \
		M(name), ASSIST_SSE_MOVE, size, unaligned, from, reg, mem                          \
	}
#define LOGIC(name, op)                                                                            \
	{                                                                                          \
		M(name), ASSIST_SSE_LOGIC, 16, false, 0, op, op                                    \
	}

static const struct sse_row rows[] = {
	MOVE(MOVD, 4, true, 0, NULL, op_move),
	MOVE(MOVQ, 8, true, 0, op_movq, op_move),
	MOVE(MOVSS, 4, true, 0, op_low4, op_move),
	MOVE(MOVSD, 8, true, 0, op_low8, op_move),
	MOVE(MOVAPS, 16, false, 0, op_move, op_move),
	MOVE(MOVAPD, 16, false, 0, op_move, op_move),
	MOVE(MOVDQA, 16, false, 0, op_move, op_move),
	MOVE(MOVUPS, 16, true, 0, op_move, op_move),
	MOVE(MOVUPD, 16, true, 0, op_move, op_move),
	MOVE(MOVDQU, 16, true, 0, op_move, op_move),
	MOVE(LDDQU, 16, true, 0, NULL, op_move),
	MOVE(MOVNTPS, 16, false, 0, NULL, NULL),
	MOVE(MOVNTPD, 16, false, 0, NULL, NULL),
	MOVE(MOVNTDQ, 16, false, 0, NULL, NULL),
	MOVE(MOVLPS, 8, true, 0, NULL, op_low8),
	MOVE(MOVLPD, 8, true, 0, NULL, op_low8),
	MOVE(MOVHPS, 8, true, 8, NULL, op_high8),
	MOVE(MOVHPD, 8, true, 8, NULL, op_high8),
	MOVE(MOVLHPS, 0, true, 0, op_high8, NULL),
	MOVE(MOVHLPS, 0, true, 0, op_movhlps, NULL),
	LOGIC(PAND, op_and),
	LOGIC(ANDPS, op_and),
	LOGIC(ANDPD, op_and),
	LOGIC(PANDN, op_andn),
	LOGIC(ANDNPS, op_andn),
	LOGIC(ANDNPD, op_andn),
	LOGIC(POR, op_or),
	LOGIC(ORPS, op_or),
	LOGIC(ORPD, op_or),
	LOGIC(PXOR, op_xor),
	LOGIC(XORPS, op_xor),
	LOGIC(XORPD, op_xor),
	LOGIC(PADDB, op_addb),
	LOGIC(PADDW, op_addw),
	LOGIC(PADDD, op_addd),
	LOGIC(PADDQ, op_addq),
	LOGIC(PSUBB, op_subb),
	LOGIC(PSUBW, op_subw),
	LOGIC(PSUBD, op_subd),
	LOGIC(PSUBQ, op_subq),
	LOGIC(PCMPEQB, op_eqb),
	LOGIC(PCMPEQW, op_eqw),
	LOGIC(PCMPEQD, op_eqd),
	LOGIC(PCMPGTB, op_gtb),
	LOGIC(PCMPGTW, op_gtw),
	LOGIC(PCMPGTD, op_gtd),
	LOGIC(PSLLW, op_sllw),
	LOGIC(PSLLD, op_slld),
	LOGIC(PSLLQ, op_sllq),
	LOGIC(PSRLW, op_srlw),
	LOGIC(PSRLD, op_srld),
	LOGIC(PSRLQ, op_srlq),
	LOGIC(PSRAW, op_sraw),
	LOGIC(PSRAD, op_srad),
	LOGIC(PSLLDQ, op_slldq),
	LOGIC(PSRLDQ, op_srldq),
	LOGIC(PUNPCKLBW, op_unpcklbw),
	LOGIC(PUNPCKLWD, op_unpcklwd),
	LOGIC(PUNPCKLDQ, op_unpckldq),
	LOGIC(PUNPCKLQDQ, op_unpcklqdq),
	LOGIC(PUNPCKHBW, op_unpckhbw),
	LOGIC(PUNPCKHWD, op_unpckhwd),
	LOGIC(PUNPCKHDQ, op_unpckhdq),
	LOGIC(PUNPCKHQDQ, op_unpckhqdq),
	LOGIC(PSHUFD, op_pshufd),
	LOGIC(SHUFPS, op_shufps),
	LOGIC(SHUFPD, op_shufpd),
};

static const struct sse_row *find_row(ZydisMnemonic mnemonic)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].mnemonic == mnemonic)
			return &rows[i];
	return NULL;
}

static bool is_class(const ZydisDecodedOperand *op, ZydisRegisterClass class)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(op->reg.value) == class;
}

static bool is_xmm(const ZydisDecodedOperand *op)
{
	return is_class(op, ZYDIS_REGCLASS_XMM);
}

static bool is_gpr(const ZydisDecodedOperand *op)
{
	return is_class(op, ZYDIS_REGCLASS_GPR32) || is_class(op, ZYDIS_REGCLASS_GPR64);
}

bool assist_sse_knows(const struct assist *a, enum assist_kind *kind)
{
	const struct sse_row *row = find_row(a->insn.mnemonic);
	const ZydisDecodedOperand *to = &a->op[0], *from = &a->op[1];
	bool from_other, to_other;

	if (!row || a->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	*kind = row->kind;
	from_other = from->type == ZYDIS_OPERAND_TYPE_MEMORY || is_gpr(from) ||
		     from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	to_other = to->type == ZYDIS_OPERAND_TYPE_MEMORY || is_gpr(to);
	/* The same mnemonics are used for MMX registers, and MOVSD for a string instruction. */
	if (is_xmm(to))
		return is_xmm(from) ? row->from_register != NULL
				    : from_other && row->from_memory != NULL;
	return to_other && is_xmm(from) && row->kind == ASSIST_SSE_MOVE && row->size;
}

/* May SSE instructions be executed at all (SDM 3A, table 13-1 ff.)? */
static int check_usable(struct assist *a)
{
	if ((a->sregs.cr0 & X86_CR0_EM) || !(a->sregs.cr4 & X86_CR4_OSFXSR))
		return assist_raise(a, VECTOR_UD, 0);
	if (a->sregs.cr0 & X86_CR0_TS)
		return assist_raise(a, VECTOR_NM, 0);
	return 0;
}

/* Where an xmm register lies in the XSAVE area. */
static uint8_t *xmm_at(struct kvm_xsave *area, const ZydisDecodedOperand *op)
{
	unsigned id = (unsigned)ZydisRegisterGetId(op->reg.value) & 15;

	return (uint8_t *)area + XSAVE_XMM + 16 * id;
}

static union xmm get_xmm(struct kvm_xsave *area, const ZydisDecodedOperand *op)
{
	union xmm value;

	memcpy(&value, xmm_at(area, op), sizeof(value));
	return value;
}

/* Store the bytes from `from` on in a destination that is no xmm register. */
static int put_other(struct assist *a, const struct sse_row *row, const uint8_t *from)
{
	const ZydisDecodedOperand *to = &a->op[0];
	size_t alignment = row->unaligned ? 1 : row->size;
	uint64_t value = 0;

	if (to->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return assist_store(a, to, from, row->size, alignment);
	/* A 32-bit result clears the upper half of the register. */
	memcpy(&value, from, row->size);
	*assist_gpr(a, to->reg.value) = value;
	return 0;
}

/* A source that is no xmm register, zero-extended. */
static int get_other(struct assist *a, const struct sse_row *row, union xmm *value)
{
	const ZydisDecodedOperand *from = &a->op[1];
	size_t alignment = row->unaligned ? 1 : row->size;

	*value = (union xmm){.q = {0, 0}};
	switch (from->type) {
	case ZYDIS_OPERAND_TYPE_MEMORY:
		return assist_load(a, from, value, row->size, alignment);
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		value->q[0] = from->imm.value.u & 0xff;
		return 0;
	default:
		memcpy(value, assist_gpr(a, from->reg.value), row->size);
		return 0;
	}
}

int assist_sse(struct assist *a)
{
	const struct sse_row *row = find_row(a->insn.mnemonic);
	const ZydisDecodedOperand *to = &a->op[0], *from = &a->op[1];
	struct kvm_xsave area;
	union xmm value;
	unsigned imm = 0;
	sse_op *op;
	int ret = check_usable(a);

	if (!ret)
		ret = assist_get_fpu(a, &area);
	if (ret)
		return ret;
	if (!is_xmm(to)) {
		value = get_xmm(&area, from);
		return put_other(a, row, value.byte + row->store_from);
	}
	if (is_xmm(from)) {
		op = row->from_register;
		value = get_xmm(&area, from);
	} else {
		op = row->from_memory;
		ret = get_other(a, row, &value);
		if (ret)
			return ret;
	}
	if (a->insn.operand_count_visible > 2)
		imm = (unsigned)a->op[2].imm.value.u & 0xff;
	value = op(get_xmm(&area, to), value, imm);
	memcpy(xmm_at(&area, to), &value, sizeof(value));
	return assist_set_fpu(a, &area);
}

int assist_ldmxcsr(struct assist *a)
{
	struct kvm_xsave area;
	uint32_t mxcsr;
	int ret = check_usable(a);

	if (!ret)
		ret = assist_load(a, &a->op[0], &mxcsr, sizeof(mxcsr), 1);
	if (ret)
		return ret;
	if (mxcsr & ~MXCSR_VALID)
		return assist_raise(a, VECTOR_GP, 0);
	ret = assist_get_fpu(a, &area);
	if (ret)
		return ret;
	memcpy((uint8_t *)&area + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	return assist_set_fpu(a, &area);
}

int assist_stmxcsr(struct assist *a)
{
	struct kvm_xsave area;
	int ret = check_usable(a);

	if (!ret)
		ret = assist_get_fpu(a, &area);
	if (ret)
		return ret;
	return assist_store(a, &a->op[0], (const uint8_t *)&area + XSAVE_MXCSR, sizeof(uint32_t),
			    1);
}
