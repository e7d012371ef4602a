// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The assist table against the host's CPU: random instructions of every row are executed by
 * assist_execute on a vCPU and natively here, and must leave the same registers and memory. Then
 * faults, and a guest that runs such instructions at CPL0. Needs /dev/kvm; skipped without.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/assist_vcpu.h"

#define ROUNDS 1000 /* of each row, over all its forms */

struct form {
	ZydisMnemonic mnemonic;
	/* x: xmm, d: 32-bit register, q: 64-bit register, i: imm8, m: memory of 16 bytes, aligned,
	 * u: not aligned, 4 and 8: memory of so many bytes */
	const char *operands;
};

#define F(m, operands)                                                                             \
	{                                                                                          \
		ZYDIS_MNEMONIC_##m, operands                                                       \
	}
#define BOTH(m) F(m, "xx"), F(m, "xm")
#define SHIFT(m) BOTH(m), F(m, "xi")
#define MOVES(m, memory) F(m, "xx"), F(m, "x" memory), F(m, memory "x")

static const struct form forms[] = {
	F(MOVD, "xd"),	    F(MOVD, "dx"),	F(MOVD, "x4"),	    F(MOVD, "4x"),
	F(MOVQ, "xq"),	    F(MOVQ, "qx"),	MOVES(MOVQ, "8"),   MOVES(MOVSS, "4"),
	MOVES(MOVSD, "8"),  MOVES(MOVAPS, "m"), MOVES(MOVAPD, "m"), MOVES(MOVDQA, "m"),
	MOVES(MOVUPS, "u"), MOVES(MOVUPD, "u"), MOVES(MOVDQU, "u"), F(LDDQU, "xu"),
	F(MOVNTPS, "mx"),   F(MOVNTPD, "mx"),	F(MOVNTDQ, "mx"),   F(MOVLPS, "x8"),
	F(MOVLPS, "8x"),    F(MOVLPD, "x8"),	F(MOVLPD, "8x"),    F(MOVHPS, "x8"),
	F(MOVHPS, "8x"),    F(MOVHPD, "x8"),	F(MOVHPD, "8x"),    F(MOVLHPS, "xx"),
	F(MOVHLPS, "xx"),   BOTH(PAND),		BOTH(ANDPS),	    BOTH(ANDPD),
	BOTH(PANDN),	    BOTH(ANDNPS),	BOTH(ANDNPD),	    BOTH(POR),
	BOTH(ORPS),	    BOTH(ORPD),		BOTH(PXOR),	    BOTH(XORPS),
	BOTH(XORPD),	    BOTH(PADDB),	BOTH(PADDW),	    BOTH(PADDD),
	BOTH(PADDQ),	    BOTH(PSUBB),	BOTH(PSUBW),	    BOTH(PSUBD),
	BOTH(PSUBQ),	    BOTH(PCMPEQB),	BOTH(PCMPEQW),	    BOTH(PCMPEQD),
	BOTH(PCMPGTB),	    BOTH(PCMPGTW),	BOTH(PCMPGTD),	    SHIFT(PSLLW),
	SHIFT(PSLLD),	    SHIFT(PSLLQ),	SHIFT(PSRLW),	    SHIFT(PSRLD),
	SHIFT(PSRLQ),	    SHIFT(PSRAW),	SHIFT(PSRAD),	    F(PSLLDQ, "xi"),
	F(PSRLDQ, "xi"),    BOTH(PUNPCKLBW),	BOTH(PUNPCKLWD),    BOTH(PUNPCKLDQ),
	BOTH(PUNPCKLQDQ),   BOTH(PUNPCKHBW),	BOTH(PUNPCKHWD),    BOTH(PUNPCKHDQ),
	BOTH(PUNPCKHQDQ),   F(PSHUFD, "xxi"),	F(PSHUFD, "xmi"),   F(SHUFPS, "xxi"),
	F(SHUFPS, "xmi"),   F(SHUFPD, "xxi"),	F(SHUFPD, "xmi"),   F(CMPXCHG16B, "m"),
	F(LDMXCSR, "4"),    F(STMXCSR, "4"),
};

static void random_cpu(struct fixture *f, struct cpu *c)
{
	for (unsigned i = 0; i < 16; i++)
		c->gpr[i] = rnd(f);
	c->rflags = 0x202 | (rnd(f) & ARITHMETIC);
	c->mxcsr = 0x1f80 | (rnd(f) & 0xe07f);
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned k = 0; k < 16; k++)
			c->xmm[i][k] = (uint8_t)(rnd(f) >> 20);
		/* Counts of shifts are small now and then, lanes are equal now and then. */
		if (rnd(f) & 1)
			memset(&c->xmm[i][1], 0, 15);
		else if (rnd(f) & 1)
			memcpy(c->xmm[i], c->xmm[0], 1 + (rnd(f) & 15));
	}
}

/* A memory operand that names DATA + offset: base, perhaps index and displacement. */
static unsigned random_address(struct fixture *f, struct cpu *c, ZydisEncoderOperand *op,
			       unsigned taken, uint64_t offset)
{
	unsigned base = pick_gpr(f, taken);

	op->mem.base = ZYDIS_REGISTER_RAX + base;
	c->gpr[base] = offset;
	if (rnd(f) & 1) {
		unsigned index = pick_gpr(f, taken | 1u << base);

		op->mem.index = ZYDIS_REGISTER_RAX + index;
		op->mem.scale = (uint8_t)(1u << (rnd(f) & 3));
		c->gpr[index] = rnd(f) & 0xfffff;
		c->gpr[base] -= c->gpr[index] * op->mem.scale;
	}
	if (rnd(f) & 1) {
		op->mem.displacement = (int32_t)rnd(f) >> (rnd(f) & 31);
		c->gpr[base] -= (uint64_t)op->mem.displacement;
	}
	return base;
}

/* Encode one random instruction of the form; returns its length, and the base register or 16. */
static size_t random_instruction(struct fixture *f, const struct form *form, struct cpu *c,
				 uint64_t *offset, unsigned *base, uint8_t *bytes)
{
	ZydisEncoderRequest req = {.machine_mode = ZYDIS_MACHINE_MODE_LONG_64,
				   .mnemonic = form->mnemonic};
	ZyanUSize len = ZYDIS_MAX_INSTRUCTION_LENGTH;
	unsigned taken = 0;

	*base = 16;
	*offset = 64 + (rnd(f) & 0xfff) % 3900;
	if (strchr(form->operands, 'm'))
		*offset &= ~15ull;
	if (form->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) {
		taken = 0xf;
		if (rnd(f) & 1)
			req.prefixes = ZYDIS_ATTRIB_HAS_LOCK;
	}
	req.operand_count = (uint8_t)strlen(form->operands);
	for (unsigned i = 0; i < req.operand_count; i++) {
		ZydisEncoderOperand *op = &req.operands[i];

		op->type = ZYDIS_OPERAND_TYPE_REGISTER;
		switch (form->operands[i]) {
		case 'x':
			op->reg.value = ZYDIS_REGISTER_XMM0 + (rnd(f) & 15);
			break;
		case 'd':
			op->reg.value = ZYDIS_REGISTER_EAX + pick_gpr(f, 0);
			break;
		case 'q':
			op->reg.value = ZYDIS_REGISTER_RAX + pick_gpr(f, 0);
			break;
		case 'i':
			op->type = ZYDIS_OPERAND_TYPE_IMMEDIATE;
			op->imm.u = rnd(f) & (rnd(f) & 1 ? 0xff : 0x1f);
			break;
		default:
			op->type = ZYDIS_OPERAND_TYPE_MEMORY;
			op->mem.size = form->operands[i] == '4'	  ? 4
				       : form->operands[i] == '8' ? 8
								  : 16;
			*base = random_address(f, c, op, taken, *offset);
		}
	}
	assert_true(ZYAN_SUCCESS(ZydisEncoderEncodeInstruction(&req, bytes, &len)));
	return len;
}

static void prepare_data(struct fixture *f, const struct form *form, struct cpu *c, uint64_t offset)
{
	for (unsigned i = 0; i < 4096; i += 8) {
		uint64_t word = rnd(f);

		memcpy(f->data + i, &word, 8);
	}
	if (form->mnemonic == ZYDIS_MNEMONIC_LDMXCSR) {
		uint32_t value = rnd(f) & 0xffff;

		memcpy(f->data + offset, &value, 4);
	} else if (form->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B && (rnd(f) & 1)) {
		memcpy(&c->gpr[0], f->data + offset, 8);
		memcpy(&c->gpr[2], f->data + offset + 8, 8);
		if (rnd(f) & 1)
			c->gpr[rnd(f) & 2] ^= 1ull << (rnd(f) & 63);
	}
	memcpy(f->ram + DATA, f->data, 4096);
}

static void check_form(struct fixture *f, const struct form *form, unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		struct cpu start, native, assisted;
		uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
		uint64_t offset;
		unsigned base;
		struct err err = {""};

		random_cpu(f, &start);
		size_t len = random_instruction(f, form, &start, &offset, &base, bytes);

		prepare_data(f, form, &start, offset);
		memcpy(f->code, bytes, len);
		f->code[len] = 0xc3;
		memcpy(f->ram + CODE, bytes, len);

		native = start;
		native.code = f->code;
		if (base < 16) {
			native.gpr[base] += (uintptr_t)f->data;
			start.gpr[base] += DATA;
		}
		oracle_run(&native);
		if (base < 16)
			native.gpr[base] += DATA - (uintptr_t)f->data;

		set_cpu(f, &start);
		if (assist_execute(&f->v, &err))
			fail_msg("%s %s: %s", ZydisMnemonicGetString(form->mnemonic),
				 form->operands, err.text);
		get_cpu(f, &assisted);
		for (unsigned i = 0; i < 16; i++)
			if (i != 4 && i != 5)
				assert_int_equal(assisted.gpr[i], native.gpr[i]);
		if (memcmp(assisted.xmm, native.xmm, sizeof(native.xmm)))
			fail_msg("%s %s: xmm registers differ",
				 ZydisMnemonicGetString(form->mnemonic), form->operands);
		assert_int_equal(assisted.mxcsr, native.mxcsr);
		assert_int_equal(assisted.rflags & ARITHMETIC, native.rflags & ARITHMETIC);
		assert_memory_equal(f->ram + DATA, f->data, 4096);
		assert_int_equal(vcpu_regs(&f->v)->rip, CODE + len);
	}
}

static void test_against_cpu(void **state)
{
	struct fixture *f = *state;

	NEEDS_KVM(f);
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		unsigned of_row = 0;

		for (size_t k = 0; k < ARRAY_SIZE(forms); k++)
			of_row += forms[k].mnemonic == forms[i].mnemonic;
		check_form(f, &forms[i], (ROUNDS + of_row - 1) / of_row);
	}
	for (unsigned k = 0; k < ASSIST_KINDS; k++)
		assert_string_not_equal(assist_name((enum assist_kind)k), "unknown");
	assert_int_equal(f->v.assists[ASSIST_CMPXCHG16B], ROUNDS);
	assert_true(f->v.assists[ASSIST_SSE] > 50 * ROUNDS);
}

/* Execute bytes at CODE with RSI and RFLAGS as given; -1 or the vector that was injected. */
static int execute(struct fixture *f, const char *bytes, size_t len, uint64_t rsi, uint64_t rflags,
		   struct kvm_vcpu_events *events)
{
	struct cpu c = {.gpr[6] = rsi, .rflags = rflags, .mxcsr = 0x1f80};
	struct kvm_vcpu_events none;
	struct err err = {""};
	int ret;

	memcpy(f->ram + CODE, bytes, len);
	set_cpu(f, &c);
	ret = assist_execute(&f->v, &err);
	if (ret)
		fail_msg("%s", err.text);
	assert_int_equal(ioctl(f->v.fd, KVM_GET_VCPU_EVENTS, events), 0);
	none = *events;
	none.exception.injected = 0;
	none.interrupt.injected = 0;
	none.flags = 0;
	assert_int_equal(ioctl(f->v.fd, KVM_SET_VCPU_EVENTS, &none), 0);
	f->v.event_queued = false;
	if (events->interrupt.injected)
		return events->interrupt.nr;
	return events->exception.injected ? events->exception.nr : -1;
}

/* The instruction faults with this vector and error code, and has done nothing. */
#define check_fault(f, bytes, rsi, vector_, error_)                                                \
	do {                                                                                       \
		struct kvm_vcpu_events e_;                                                         \
		assert_int_equal(execute(f, bytes, sizeof(bytes) - 1, rsi, 0x10202, &e_),          \
				 vector_);                                                         \
		assert_int_equal(vcpu_regs(&(f)->v)->rip, CODE);                                   \
		assert_int_equal(e_.exception.error_code, error_);                                 \
	} while (0)

#define check_done(f, bytes, rsi)                                                                  \
	do {                                                                                       \
		struct kvm_vcpu_events e_;                                                         \
		assert_int_equal(execute(f, bytes, sizeof(bytes) - 1, rsi, 0x10202, &e_), -1);     \
		assert_int_equal(vcpu_regs(&(f)->v)->rip, CODE + sizeof(bytes) - 1);               \
		assert_int_equal(vcpu_regs(&(f)->v)->rflags &X86_EFLAGS_RF, 0);                    \
	} while (0)

#define MOVUPS_LOAD "\x0f\x10\x06"  /* movups xmm0, [rsi] */
#define MOVUPS_STORE "\x0f\x11\x06" /* movups [rsi], xmm0 */
#define MOVAPS_LOAD "\x0f\x28\x06"
#define CMPXCHG16B "\x48\x0f\xc7\x0e"
#define LDMXCSR "\x0f\xae\x16"

static uint64_t cr2(struct fixture *f)
{
	struct kvm_sregs sregs;
	struct err err;

	assert_int_equal(vcpu_get_sregs(&f->v, &sregs, &err), 0);
	return sregs.cr2;
}

static void set_sregs(struct fixture *f)
{
	struct err err;

	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
}

static void test_memory_faults(void **state)
{
	struct fixture *f = *state;
	uint64_t entry;

	NEEDS_KVM(f);
	check_fault(f, MOVUPS_LOAD, PAGES + 0x1008, 14, 0);
	assert_int_equal(cr2(f), PAGES + 0x1008);
	check_fault(f, MOVUPS_STORE, PAGES + 0x1010, 14, 2);
	assert_int_equal(cr2(f), PAGES + 0x1010);
	check_fault(f, MOVUPS_STORE, PAGES + 0x2ff8, 14, 3);
	assert_int_equal(cr2(f), PAGES + 0x2ff8);
	/* Over the end of a good page: the first byte of the bad one is named, nothing is stored.
	 */
	memset(f->ram + PAGES_GPA + 0xff0, 0x55, 16);
	check_fault(f, MOVUPS_STORE, PAGES + 0xff8, 14, 2);
	assert_int_equal(cr2(f), PAGES + 0x1000);
	assert_int_equal(f->ram[PAGES_GPA + 0xff8], 0x55);
	/* A compare that fails still writes. */
	check_fault(f, CMPXCHG16B, PAGES + 0x2000, 14, 3);
	check_done(f, MOVUPS_LOAD, PAGES + 0x2ff8);
	check_done(f, MOVUPS_STORE, PAGES + 0xff0);
	memcpy(&entry, f->ram + PT, 8);
	assert_int_equal(entry, PAGES_GPA | 0x63);
	memcpy(&entry, f->ram + PT + 16, 8);
	assert_int_equal(entry, (PAGES_GPA + 0x2000) | 0x21);
	/* Alignment, canonical form, reserved bits. */
	check_fault(f, MOVAPS_LOAD, DATA + 8, 13, 0);
	check_fault(f, CMPXCHG16B, DATA + 8, 13, 0);
	check_fault(f, MOVUPS_LOAD, 0x800000000000, 13, 0);
	check_fault(f, MOVUPS_LOAD, 0x7ffffffffff8, 13, 0);
	check_fault(f, "\x48\x0f\x10\x04\x34", 0x800000000000, 12, 0); /* [rsp+rsi] */
	memset(f->ram + DATA, 0, 16);
	f->ram[DATA + 2] = 1;
	check_fault(f, LDMXCSR, DATA, 13, 0);
	/* SMAP: a supervisor access to user pages. */
	f->sregs.cr4 |= X86_CR4_SMAP;
	put64(f, PT, PAGES_GPA | 7);
	put64(f, PD + 8, PT | 7);
	put64(f, PDPT, PD | 7);
	put64(f, PML4, PDPT | 7);
	if (ioctl(f->v.fd, KVM_SET_SREGS, &f->sregs) == 0)
		check_fault(f, MOVUPS_LOAD, PAGES, 14, 1);
	f->sregs.cr4 &= ~(uint64_t)X86_CR4_SMAP;
	set_sregs(f);
}

static void test_control_bits(void **state)
{
	struct fixture *f = *state;
	const uint64_t cr0 = f->sregs.cr0, cr4 = f->sregs.cr4;

	NEEDS_KVM(f);
	f->sregs.cr0 = cr0 | X86_CR0_TS;
	set_sregs(f);
	check_fault(f, MOVUPS_LOAD, DATA, 7, 0);
	check_fault(f, LDMXCSR, DATA, 7, 0);
	check_fault(f, "\x9b", 0, 7, 0);
	f->sregs.cr0 = (cr0 | X86_CR0_TS) & ~(uint64_t)X86_CR0_MP;
	set_sregs(f);
	check_done(f, "\x9b", 0);
	f->sregs.cr0 = cr0 | X86_CR0_EM;
	set_sregs(f);
	check_fault(f, MOVUPS_LOAD, DATA, 6, 0);
	f->sregs.cr0 = cr0;
	f->sregs.cr4 = cr4 & ~(uint64_t)X86_CR4_OSFXSR;
	set_sregs(f);
	check_fault(f, MOVUPS_LOAD, DATA, 6, 0);
	f->sregs.cr4 = cr4;
	set_sregs(f);
	check_done(f, MOVUPS_LOAD, DATA);
	/* No SMAP, no XSAVE. */
	check_fault(f, "\x0f\x01\xca", 0, 6, 0);
	check_fault(f, "\x0f\x01\xcb", 0, 6, 0);
	check_fault(f, "\x0f\x01\xd0", 0, 6, 0);
}

static void test_fwait(void **state)
{
	struct fixture *f = *state;

	NEEDS_KVM(f);
	check_done(f, "\x9b", 0);
	/* Only division by zero is unmasked: flags of all the others, then of just that. */
	f->fcw = 0x37b;
	f->fsw = 0x003b;
	check_done(f, "\x9b", 0);
	f->fsw = 0x8084;
	check_fault(f, "\x9b", 0, 16, 0);
}

static void test_traps(void **state)
{
	struct fixture *f = *state;
	struct kvm_vcpu_events e;
	struct kvm_debugregs debug;

	NEEDS_KVM(f);
	assert_int_equal(execute(f, "\xcc", 1, 0, 2, &e), 3);
	assert_int_equal(vcpu_regs(&f->v)->rip, CODE + 1);
	assert_false(e.exception.has_error_code);
	for (int n = 0; n < 256; n++) {
		const char bytes[2] = {(char)0xcd, (char)n};

		assert_int_equal(execute(f, bytes, 2, 0, 2, &e), n);
		assert_int_equal(vcpu_regs(&f->v)->rip, CODE + 2);
	}
	/* The guest single-steps itself. */
	assert_int_equal(execute(f, "\x9b", 1, 0, 0x102, &e), 1);
	assert_int_equal(vcpu_regs(&f->v)->rip, CODE + 1);
	assert_int_equal(ioctl(f->v.fd, KVM_GET_DEBUGREGS, &debug), 0);
	assert_true(debug.dr6 & 1u << 14);
}

static void test_addressing(void **state)
{
	struct fixture *f = *state;
	struct kvm_xsave x;
	const uint8_t *xmm0 = (const uint8_t *)&x + XSAVE_XMM;

	NEEDS_KVM(f);
	memcpy(f->ram + DATA + 0x100, "relative to RIP!", 16);
	check_done(f, "\x0f\x10\x05\xf9\x80\x00\x00", 0); /* movups xmm0, [rip+0x80f9] */
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal(xmm0, "relative to RIP!", 16);
	f->sregs.gs.base = 0xffff800000000000;
	f->sregs.fs.base = DATA - 0x1000;
	set_sregs(f);
	memcpy(f->ram + DATA + 0x200, "FS base is added", 16);
	check_done(f, "\x64\x0f\x10\x06", 0x1200);
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal(xmm0, "FS base is added", 16);
	check_fault(f, "\x65\x0f\x10\x06", 0x10, 14, 0);
	assert_int_equal(cr2(f), 0xffff800000000010);
	/* 32-bit addresses wrap before the segment's base is added. */
	check_done(f, "\x67\x0f\x10\x86\x00\x00\x00\x80", 0x80000000 + DATA + 0x100);
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal(xmm0, "relative to RIP!", 16);
}

/* 32-bit code: EIP, segment bases and limits. */
static void test_32bit(void **state)
{
	struct fixture *f = *state;
	struct kvm_xsave x;

	NEEDS_KVM(f);
	f->sregs.efer = 0;
	f->sregs.cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_ET;
	f->sregs.cr4 = X86_CR4_OSFXSR;
	f->sregs.cs.l = 0;
	f->sregs.cs.db = 1;
	f->sregs.ds.base = 0x1000;
	f->sregs.ds.limit = 0x1ffff;
	set_sregs(f);
	memcpy(f->ram + DATA + 0x300, "segment base too", 16);
	check_done(f, MOVUPS_LOAD, DATA + 0x300 - 0x1000);
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal((uint8_t *)&x + XSAVE_XMM, "segment base too", 16);
	check_done(f, MOVUPS_LOAD, 0x1fff0);
	check_fault(f, MOVUPS_LOAD, 0x1fff1, 13, 0);
	check_done(f, "\x66\x0f\x6e\xc6", 0x12345678); /* movd xmm0, esi */
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal((uint8_t *)&x + XSAVE_XMM, "\x78\x56\x34\x12\0\0\0\0", 8);
}

/* LAR, LSL, VERR or VERW with a selector: ZF, and what comes out. */
static bool look_up(struct fixture *f, const char *bytes, size_t len, uint16_t selector, uint64_t *out)
{
	struct cpu c = {.gpr = {[0] = 0x5555555555555555, [1] = selector}, .rflags = 2, .mxcsr = 0x1f80};
	struct err err = {""};

	memcpy(f->ram + CODE, bytes, len);
	set_cpu(f, &c);
	if (assist_execute(&f->v, &err))
		fail_msg("%s", err.text);
	assert_int_equal(vcpu_regs(&f->v)->rip, CODE + len);
	*out = vcpu_regs(&f->v)->rax;
	return vcpu_regs(&f->v)->rflags & X86_EFLAGS_ZF;
}

#define LAR "\x0f\x02\xc1" /* lar eax, cx */
#define LSL "\x0f\x03\xc1" /* lsl eax, cx */
#define VERR "\x0f\x00\xe1" /* verr cx */
#define VERW "\x0f\x00\xe9" /* verw cx */
#define LOOK_UP(f, bytes, selector, out) look_up(f, bytes, sizeof(bytes) - 1, selector, out)

#define NATIVE(name, selector, out, zf)                                                            \
	__asm__(name " %2, %0; setz %1" : "+r"(out), "=qm"(zf) : "r"((uint32_t)(selector)))

/* The descriptors of the process that runs the test say the same in the guest. */
static void check_host_descriptors(struct fixture *f)
{
	unsigned seen = 0;

	for (uint16_t at = 8; at < 0x100; at += 8) {
		uint32_t rights = 0, limit = 0;
		bool lar, lsl, readable, writable;
		uint64_t out;

		NATIVE("lar", at | 3, rights, lar);
		NATIVE("lsl", at | 3, limit, lsl);
		if (!lar || !lsl)
			continue;
		__asm__("verr %w1; setz %0" : "=qm"(readable) : "r"((uint32_t)at | 3));
		__asm__("verw %w1; setz %0" : "=qm"(writable) : "r"((uint32_t)at | 3));
		uint32_t raw = rights & 0x800000 ? limit >> 12 : limit;

		put64(f, GDT + 24, (uint64_t)((rights & 0xf0ff00) | (raw & 0xf0000)) << 32 | (raw & 0xffff));
		assert_true(LOOK_UP(f, LAR, 24 | 3, &out));
		assert_int_equal(out & 0xf0ff00, rights & 0xf0ff00);
		assert_true(LOOK_UP(f, LSL, 24 | 3, &out));
		assert_int_equal(out, limit);
		assert_int_equal(LOOK_UP(f, VERR, 24 | 3, &out), readable);
		assert_int_equal(LOOK_UP(f, VERW, 24 | 3, &out), writable);
		seen++;
	}
	assert_true(seen >= 2);
}

static void test_descriptors(void **state)
{
	static const struct {
		uint8_t access, rpl;
		bool lar, lsl, verr, verw;
	} rows[] = {
		{0x9a, 0, 1, 1, 1, 0}, /* code, readable */
		{0x98, 0, 1, 1, 0, 0}, /* code, not readable */
		{0x92, 0, 1, 1, 1, 1}, /* data, writable */
		{0x90, 0, 1, 1, 1, 0}, /* data, not writable */
		{0x96, 0, 1, 1, 1, 1}, /* data that expands down */
		{0x9a, 3, 0, 0, 0, 0}, /* less privileged than it may be */
		{0xfa, 3, 1, 1, 1, 0},
		{0x9e, 3, 1, 1, 1, 0}, /* conforming code */
		{0x1a, 0, 1, 1, 1, 0}, /* not present: not looked at */
		{0x89, 0, 1, 1, 0, 0}, /* TSS */
		{0x82, 0, 1, 1, 0, 0}, /* LDT */
		{0x8c, 0, 1, 0, 0, 0}, /* call gate */
		{0x8e, 0, 0, 0, 0, 0}, /* interrupt gate */
		{0x81, 0, 0, 0, 0, 0}, /* 16-bit TSS, in long mode */
	};
	struct fixture *f = *state;
	uint64_t out;

	NEEDS_KVM(f);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint16_t selector = 24 | rows[i].rpl;

		put64(f, GDT + 24, (uint64_t)rows[i].access << 40 | 0x1234);
		assert_int_equal(LOOK_UP(f, LAR, selector, &out), rows[i].lar);
		assert_int_equal(out, rows[i].lar ? (uint64_t)rows[i].access << 8 : 0x5555555555555555);
		assert_int_equal(LOOK_UP(f, LSL, selector, &out), rows[i].lsl);
		assert_int_equal(out, rows[i].lsl ? 0x1234 : 0x5555555555555555);
		assert_int_equal(LOOK_UP(f, VERR, selector, &out), rows[i].verr);
		assert_int_equal(LOOK_UP(f, VERW, selector, &out), rows[i].verw);
	}
	check_host_descriptors(f);
	/* Null, beyond the table, in an LDT that is not there. */
	assert_false(LOOK_UP(f, LAR, 3, &out));
	assert_false(LOOK_UP(f, LAR, 0x100, &out));
	assert_false(LOOK_UP(f, LAR, 24 | 4, &out));
	/* The selector in memory, and a 16-bit result. */
	f->ram[DATA] = 16;
	f->ram[DATA + 1] = 0;
	check_done(f, "\x0f\x00\x2e", DATA); /* verw [rsi] */
	assert_true(vcpu_regs(&f->v)->rflags & X86_EFLAGS_ZF);
	check_fault(f, "\x0f\x00\x2e", PAGES + 0x1000, 14, 0);
	assert_true(LOOK_UP(f, "\x66\x0f\x02\xc1", 16, &out));
	assert_int_equal(out, 0x5555555555559300);
	/* What the guest's CPU does not have. */
	check_fault(f, "\x66\x0f\x38\x82\x06", DATA, 6, 0); /* invpcid */
	check_fault(f, "\x0f\xb9\xc0", 0, 6, 0);		 /* ud1 */
}

static void check_refused(struct fixture *f, const char *bytes, size_t len, uint64_t rip, int code,
			  const char *text)
{
	struct err err = {""};
	struct cpu c = {.rflags = 2, .mxcsr = 0x1f80};
	uint64_t counted = 0;

	set_cpu(f, &c);
	vcpu_regs_mut(&f->v)->rip = rip;
	if (len)
		memcpy(f->ram + rip, bytes, len);
	for (unsigned k = 0; k < ASSIST_KINDS; k++)
		counted += f->v.assists[k];
	assert_int_equal(assist_execute(&f->v, &err), code);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.text);
	assert_int_equal(vcpu_regs(&f->v)->rip, rip);
	for (unsigned k = 0; k < ASSIST_KINDS; k++)
		counted -= f->v.assists[k];
	assert_int_equal(counted, 0);
}

#define REFUSED(f, bytes, code, text) check_refused(f, bytes, sizeof(bytes) - 1, CODE, code, text)

static void test_refused(void **state)
{
	struct fixture *f = *state;

	NEEDS_KVM(f);
	REFUSED(f, "\x0f\x01\xf9", -EOPNOTSUPP, "`rdtscp` (0f 01 f9) at 0x8000");
	REFUSED(f, "\xa5", -EOPNOTSUPP, "`movsd` (a5)");
	REFUSED(f, "\xf2\xa5", -EOPNOTSUPP, "movsd` (f2 a5)");
	REFUSED(f, "\x0f\xae\x06", -EOPNOTSUPP, "`fxsave ");
	REFUSED(f, "\x66\x0f\xf7\xc1", -EOPNOTSUPP, "`maskmovdqu xmm0, xmm1`");
	REFUSED(f, "\xc4\xe2\x79\x2c\x06", -EOPNOTSUPP, "`vmaskmovps ");
	REFUSED(f, "\xc4\xe2\x69\x90\x04\x0e", -EOPNOTSUPP, "`vpgatherdd ");
	REFUSED(f, "\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06", -EOPNOTSUPP,
		"06 06");
	check_refused(f, "", 0, PAGES + 0x1000, -EFAULT, "cannot read the instruction at 0x201000");
	/* The last bytes of the last mapped page. */
	struct cpu c = {.gpr[1] = 5, .rflags = 2, .mxcsr = 0x1f80};
	struct err err;

	memcpy(f->ram + PAGES_GPA + 0xffc, "\x66\x0f\x6e\xc1", 4);
	set_cpu(f, &c);
	vcpu_regs_mut(&f->v)->rip = PAGES + 0xffc;
	assert_int_equal(assist_execute(&f->v, &err), 0);
	assert_int_equal(vcpu_regs(&f->v)->rip, PAGES + 0x1000);
}

/* A guest that uses all of it at CPL0: by emulation and assist here, natively elsewhere. */
static void test_guest(void **state)
{
	static const char program[] = "\xb9\x78\x56\x34\x12" /* mov ecx, 0x12345678 */
				      "\x66\x0f\x6e\xc9"     /* movd xmm1, ecx */
				      "\x66\x0f\xfe\xc9"     /* paddd xmm1, xmm1 */
				      "\x66\x0f\x7e\xcf"     /* movd edi, xmm1 */
				      "\xcc"		     /* int3 */
				      "\xcd\x30"	     /* int 0x30 */
				      "\x9b"		     /* fwait */
				      "\x0f\xae\x5c\x24\xf0" /* stmxcsr [rsp-16] */
				      "\x8b\x6c\x24\xf0"     /* mov ebp, [rsp-16] */
				      "\x31\xc0\x31\xd2"     /* xor eax, eax; xor edx, edx */
				      "\xf0\x48\x0f\xc7\x0e" /* lock cmpxchg16b [rsi] */
				      "\x41\x0f\x94\xc4"     /* sete r12b */
				      "\x0f\x10\x86\x00\x10\x00\x00" /* movups xmm0, [rsi+0x1000] */
				      "\xfb"			     /* sti */
				      "\x66\x0f\x6e\xd1"	     /* movd xmm2, ecx */
				      "\xfa"			     /* cli */
				      "\xf4";			     /* hlt */
	static const char on_bp[] =
		"\x49\xff\xc0\x4c\x8b\x2c\x24\x48\xcf"; /* inc r8; mov r13, [rsp]; iretq */
	static const char on_int[] =
		"\x49\xff\xc1\x4c\x8b\x34\x24\x48\xcf"; /* inc r9; mov r14, [rsp]; iretq */
	/* mov r10, cr2; pop r11; add qword [rsp], 7; iretq */
	static const char on_pf[] = "\x41\x0f\x20\xd2\x41\x5b\x48\x83\x04\x24\x07\x48\xcf";
	struct fixture *f = *state;
	struct cpu c = {.gpr[6] = PAGES, .rflags = 2, .mxcsr = 0x1fa0};
	const struct vcpu_request req = {0};
	const struct kvm_regs *r;
	enum vcpu_stop stop;
	struct err err = {""};

	NEEDS_KVM(f);
	r = vcpu_regs(&f->v);
	memcpy(f->ram + CODE, program, sizeof(program) - 1);
	memcpy(f->ram + 0x9000, on_bp, sizeof(on_bp) - 1);
	memcpy(f->ram + 0x9100, on_int, sizeof(on_int) - 1);
	memcpy(f->ram + 0x9200, on_pf, sizeof(on_pf) - 1);
	set_gate(f, 3, 0x9000);
	set_gate(f, 0x30, 0x9100);
	set_gate(f, 14, 0x9200);
	memset(f->ram + PAGES_GPA, 0, 16);
	set_cpu(f, &c);
	if (vcpu_run(&f->v, &req, &stop, &err))
		fail_msg("%s", err.text);
	assert_int_equal(stop, VCPU_BOUNDARY);
	assert_int_equal(f->v.run->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(r->rip, CODE + sizeof(program) - 1);
	assert_int_equal(r->rdi, 0x2468acf0);
	assert_int_equal(r->r8, 1);
	assert_int_equal(r->r13, CODE + 18);
	assert_int_equal(r->r9, 1);
	assert_int_equal(r->r14, CODE + 20);
	assert_int_equal(r->rbp, 0x1fa0);
	assert_int_equal(r->r12, 1);
	assert_int_equal(r->r10, PAGES + 0x1000);
	assert_int_equal(r->r11, 0);
	assert_int_equal(r->rsp, STACK);
	assert_memory_equal(f->ram + PAGES_GPA, "\0\0\0\0\0\0\0\0\x78\x56\x34\x12\0\0\0\0", 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_against_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fwait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_traps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addressing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_32bit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_guest, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
