// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Execution on the host's CPU against that CPU: random encodings over the legacy, x87, VEX and EVEX opcode maps. What
 * assist_execute accepts is then run here by itself, from the same state, and must leave the same registers, flags,
 * x87, vector and mask registers and memory, or raise the same exception with the same flags in MXCSR. Needs /dev/kvm
 * and a CPU with XSAVE and AVX; skipped without.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/native_cpu.h"

#include <cpuid.h>

#define ACCEPTED 24000 /* instructions to compare */
#define TRIES (100 * ACCEPTED)

/* One that is no NOP of a register form too often: [RSI or R14 + disp32], or any register. */
static size_t put_operands(struct fixture *f, uint8_t *p, uint32_t disp)
{
	size_t n = 0;

	if (rnd(f) & 1) {
		p[n++] = (uint8_t)(0xc0 | (random_byte(f) & 0x3f));
	} else {
		p[n++] = (uint8_t)(0x86 | (random_byte(f) & 0x38));
		put32(p + n, disp);
		n += 4;
	}
	for (unsigned i = 0; i < 4; i++)
		p[n++] = random_byte(f); /* immediates */
	return n;
}

static size_t random_bytes(struct fixture *f, uint8_t *p, uint32_t disp)
{
	static const uint8_t mandatory[] = {0x66, 0xf2, 0xf3};
	size_t n = 0;

	switch (rnd(f) >> 16 & 3) {
	case 0:
		p[n++] = (uint8_t)(0xd8 | (random_byte(f) & 7));
		break;
	case 1:
		if (random_byte(f) & 3)
			p[n++] = mandatory[random_byte(f) % 3];
		if (random_byte(f) & 1)
			p[n++] = (uint8_t)(0x40 | (random_byte(f) & 0xd));
		p[n++] = 0x0f;
		if (random_byte(f) & 1)
			p[n++] = random_byte(f) & 1 ? 0x38 : 0x3a;
		p[n++] = random_byte(f);
		break;
	case 2:
		p[n++] = 0xc4;
		p[n++] = (uint8_t)((random_byte(f) & 0xa0) | 0x40 | (1 + random_byte(f) % 3));
		p[n++] = random_byte(f);
		p[n++] = random_byte(f);
		break;
	default:
		p[n++] = 0x62;
		p[n++] = (uint8_t)((random_byte(f) & 0xf0) | (1 + random_byte(f) % 3));
		p[n++] = (uint8_t)(random_byte(f) | 4);
		/* Masks with memory are not served; half without a mask. */
		p[n++] = (uint8_t)(random_byte(f) & (random_byte(f) & 1 ? 0x78 : 0xff));
		p[n++] = random_byte(f);
	}
	return n + put_operands(f, p + n, disp);
}

struct tally {
	unsigned accepted, refused, raised[32];
	bool seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned mnemonics;
};

/* RSP and RBP are the test's own; RSI and R14 differ by where the memory lies. */
static bool is_comparable(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *op)
{
	bool memory = false, address = false;

	for (unsigned i = 0; i < insn->operand_count; i++) {
		ZydisRegisterClass class;
		int id;

		memory |= op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
		if (op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		class = ZydisRegisterGetClass(op[i].reg.value);
		id = ZydisRegisterGetId(op[i].reg.value);
		if (class < ZYDIS_REGCLASS_GPR8 || class > ZYDIS_REGCLASS_GPR64)
			continue;
		if (id == GPR_RSP || id == GPR_RBP)
			return false;
		address |= id == GPR_RSI || id == GPR_R14;
	}
	return !memory || !address;
}

/* How many instructions the host's CPU has executed. */
static uint64_t executed(const struct fixture *f)
{
	const uint64_t *n = f->v.assists;

	return n[ASSIST_CMPXCHG16B] + n[ASSIST_X87] + n[ASSIST_SSE] + n[ASSIST_AVX] + n[ASSIST_INTEGER];
}

static void check_instruction(struct fixture *f, struct tally *tally)
{
	static struct full start, native;
	static struct kvm_xsave assisted;
	uint32_t disp = (uint32_t)rnd(f) & 0xffff;
	uint64_t at = 256 + rnd(f) % 3000;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;
	const struct kvm_regs *r = vcpu_regs(&f->v);
	const uint64_t before = executed(f);
	uint8_t bytes[24];
	char text[120];
	struct err err;
	int raises, injected;

	if (random_byte(f) & 1)
		at &= ~63ull;
	random_bytes(f, bytes, disp);
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, 15, &insn, op)) ||
	    !is_comparable(&insn, op))
		return;
	random_state(f, &start, disp, DATA + at);
	for (unsigned i = 0; i < 4096; i++)
		f->data[i] = random_byte(f);
	memcpy(f->ram + DATA, f->data, 4096);
	memcpy(f->ram + CODE, bytes, 15);
	memcpy(f->code, bytes, insn.length);
	f->code[insn.length] = 0xc3;
	set_vcpu(f, &start);
	switch (assist_execute(&f->v, &err)) {
	case 0:
		break;
	case -EOPNOTSUPP:
		tally->refused++;
		return;
	default:
		fail_msg("%s", err.text);
	}
	if (executed(f) == before) {
		take_exception(f);
		return;
	}
	native = start;
	native.code = f->code;
	if (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM && insn.raw.modrm.mod != 3)
		native.gpr[GPR_RSI] = native.gpr[GPR_R14] = (uintptr_t)f->data + at - disp;
	raises = run_native(&native);
	injected = take_exception(f);
	snprintf(text, sizeof(text), "%s (%02x %02x %02x %02x %02x %02x %02x)",
		 ZydisMnemonicGetString(insn.mnemonic), bytes[0], bytes[1], bytes[2], bytes[3],
		 bytes[4], bytes[5], bytes[6]);
	if (injected != raises)
		fail_msg("%s: exception %d, natively %d", text, injected, raises);
	tally->accepted++;
	tally->mnemonics += !tally->seen[insn.mnemonic];
	tally->seen[insn.mnemonic] = true;
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &assisted), 0);
	if (raises >= 0) {
		uint32_t mxcsr;

		tally->raised[raises & 31]++;
		memcpy(&mxcsr, (uint8_t *)&assisted + XSAVE_MXCSR, 4);
		if (mxcsr != raised_mxcsr)
			fail_msg("%s: raised with MXCSR %x, natively %x", text, mxcsr, raised_mxcsr);
		assert_int_equal(r->rip, CODE);
		assert_memory_equal(f->ram + DATA, f->data, 4096);
		return;
	}
	assert_int_equal(r->rip, CODE + insn.length);
	if (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM && insn.raw.modrm.mod != 3)
		native.gpr[GPR_RSI] = native.gpr[GPR_R14] = DATA + at - disp;
	const uint64_t gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				  r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

	for (unsigned i = 0; i < 16; i++)
		if (gpr[i] != native.gpr[i])
			fail_msg("%s: register %u is %llx, natively %llx", text, i,
				 (unsigned long long)gpr[i], (unsigned long long)native.gpr[i]);
	if ((r->rflags ^ native.rflags) & ARITHMETIC)
		fail_msg("%s: flags %llx, natively %llx", text, r->rflags,
			 (unsigned long long)native.rflags);
	if (memcmp(f->ram + DATA, f->data, 4096))
		fail_msg("%s: memory differs", text);
	compare_areas(&start, native.area, (uint8_t *)&assisted, text);
}

static void test_random_encodings(void **state)
{
	struct fixture *f = *state;
	static struct tally tally;

	enable(f);
	for (unsigned i = 0; i < TRIES && tally.accepted < ACCEPTED; i++)
		check_instruction(f, &tally);
	print_message("%u instructions of %u kinds; %u #UD, %u #GP, %u #MF, %u #XM; %u refused\n",
		      tally.accepted, tally.mnemonics, tally.raised[6], tally.raised[13],
		      tally.raised[16], tally.raised[19], tally.refused);
	assert_int_equal(tally.accepted, ACCEPTED);
	assert_true(tally.mnemonics > 500);
	assert_true(tally.raised[13] > 20 && tally.raised[16] > 20 && tally.raised[19] > 20);
	assert_true(f->v.assists[ASSIST_X87] && f->v.assists[ASSIST_SSE] &&
		    f->v.assists[ASSIST_AVX] && f->v.assists[ASSIST_INTEGER]);
}

/* Execute at CODE with RSI as given; -1, or the exception that is raised. */
static int execute(struct fixture *f, const char *bytes, size_t len, const struct full *s)
{
	struct err err = {""};

	memcpy(f->ram + CODE, bytes, len);
	set_vcpu(f, s);
	if (assist_execute(&f->v, &err))
		fail_msg("%s", err.text);
	return take_exception(f);
}

#define EXECUTE(f, bytes, s) execute(f, bytes, sizeof(bytes) - 1, s)

/* The register that points to the stack is one like the others. */
static void test_stack_pointer(void **state)
{
	static struct full s;
	struct fixture *f = *state;
	struct kvm_xsave x;

	enable(f);
	random_state(f, &s, 0, DATA);
	s.gpr[GPR_RSP] = 0x123456789abcdef0;
	assert_int_equal(EXECUTE(f, "\x66\x48\x0f\x6e\xec", &s), -1); /* movq xmm5, rsp */
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	assert_memory_equal((uint8_t *)&x + XSAVE_XMM + 5 * 16, &s.gpr[GPR_RSP], 8);
	put32(s.area + XSAVE_XMM, 0xcafebabe);
	assert_int_equal(EXECUTE(f, "\x66\x0f\x7e\xc4", &s), -1); /* movd esp, xmm0 */
	assert_int_equal(vcpu_regs(&f->v)->rsp, 0xcafebabe);
}

#define VPADDD_XMM "\xc5\xf9\xfe\xc1"
#define VPADDD_ZMM "\x62\xf1\x7d\x48\xfe\xc1"
#define ANDN "\xc4\xe2\x78\xf2\xc1"
#define FLD1 "\xd9\xe8"
#define PADDD_MMX "\x0f\xfe\xc1"
#define POPCNT "\xf3\x0f\xb8\xc1"

/* What CR0, CR4 and XCR0 forbid, in the order in which a CPU looks at them. */
static void test_control(void **state)
{
	static struct full s;
	struct fixture *f = *state;
	const uint64_t cr0 = f->sregs.cr0, cr4 = f->sregs.cr4 | X86_CR4_OSXSAVE;
	const uint64_t xfeatures = f->v.xfeatures;
	static const struct {
		uint64_t cr0_set, cr4_clear, xcr0_clear;
		int sse, vex, evex, bmi, x87, mmx, popcnt;
	} rows[] = {
		{0, 0, 0, -1, -1, -1, -1, -1, -1, -1},
		{X86_CR0_TS, 0, 0, 7, 7, 7, -1, 7, 7, -1},
		{X86_CR0_EM, 0, 0, 6, -1, -1, -1, 7, 6, -1},
		{X86_CR0_EM | X86_CR0_TS, 0, 0, 6, 7, 7, -1, 7, 6, -1},
		{0, X86_CR4_OSFXSR, 0, 6, -1, -1, -1, -1, -1, -1},
		{0, X86_CR4_OSXSAVE, 0, -1, 6, 6, -1, -1, -1, -1},
		{X86_CR0_TS, X86_CR4_OSXSAVE, 0, 7, 6, 6, -1, 7, 7, -1},
		{0, 0, XFEATURE_AVX512, -1, -1, 6, -1, -1, -1, -1},
		{X86_CR0_TS, 0, XFEATURE_AVX512 | XFEATURE_AVX, 7, 6, 6, -1, 7, 7, -1},
	};
	struct err err;

	enable(f);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t xcr0 = xfeatures & ~rows[i].xcr0_clear;
		bool zmm = (xfeatures & XFEATURE_AVX512) || rows[i].evex == 6;

		random_state(f, &s, 0, DATA);
		s.area[2] = s.area[3] = 0;
		s.area[0] |= 0x3f;
		f->sregs.cr0 = cr0 | rows[i].cr0_set;
		f->sregs.cr4 = cr4 & ~rows[i].cr4_clear;
		assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
		s.xcr0 = xcr0;
		assert_int_equal(EXECUTE(f, "\x66\x0f\xfe\xc1", &s), rows[i].sse);
		assert_int_equal(EXECUTE(f, VPADDD_XMM, &s), rows[i].vex);
		if (zmm)
			assert_int_equal(EXECUTE(f, VPADDD_ZMM, &s), rows[i].evex);
		assert_int_equal(EXECUTE(f, ANDN, &s), rows[i].bmi);
		assert_int_equal(EXECUTE(f, FLD1, &s), rows[i].x87);
		assert_int_equal(EXECUTE(f, PADDD_MMX, &s), rows[i].mmx);
		assert_int_equal(EXECUTE(f, POPCNT, &s), rows[i].popcnt);
	}
}

/* CPUID leaf 7, ECX bit 8 (SDM 2A, CPUID). */
static bool host_has_gfni(void)
{
	unsigned eax, ebx, ecx = 0, edx;

	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 8));
}

/* Exceptions of arithmetic, and which of two comes first. */
static void test_exceptions(void **state)
{
	static struct full s;
	struct fixture *f = *state;
	uint64_t cr4 = f->sregs.cr4 | X86_CR4_OSXSAVE;
	struct err err;

	enable(f);
	random_state(f, &s, 0, DATA);
	memset(s.area + XSAVE_XMM, 0, 32);
	put32(s.area + XSAVE_MXCSR, 0x1f00); /* invalid operations are not masked */
	assert_int_equal(EXECUTE(f, "\x0f\x5e\xc1", &s), 19); /* divps xmm0, xmm1: 0/0 */
	f->sregs.cr4 = cr4 & ~(uint64_t)X86_CR4_OSXMMEXCPT;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	assert_int_equal(EXECUTE(f, "\x0f\x5e\xc1", &s), 6);
	f->sregs.cr4 = cr4;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	/* addps xmm0, [rsi] in a page that is not there: aligned or not. */
	s.gpr[GPR_RSI] = PAGES + 0x1010;
	assert_int_equal(EXECUTE(f, "\x0f\x58\x06", &s), 14);
	/* gf2p8affineqb xmm0, [rsi], 0 there: a CPU that does not have it says so first. */
	assert_int_equal(EXECUTE(f, "\x66\x0f\x3a\xce\x06\x00", &s), host_has_gfni() ? 14 : 6);
	s.gpr[GPR_RSI] = PAGES + 0x1014;
	assert_int_equal(EXECUTE(f, "\x0f\x58\x06", &s), 13);
	assert_int_equal(EXECUTE(f, "\xc5\xf8\x58\x06", &s), 14); /* vaddps need not be */
	/* fld dword [rsi] with an exception pending. */
	s.area[0] = 0;
	s.area[2] = 0x81;
	assert_int_equal(EXECUTE(f, "\xd9\x06", &s), 16);
	s.area[2] = 0;
	assert_int_equal(EXECUTE(f, "\xd9\x06", &s), 14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random_encodings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stack_pointer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exceptions, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
