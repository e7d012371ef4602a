// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * XSAVE, XRSTOR, XGETBV and XSETBV as assists against the host's CPU, and a guest that uses them at CPL0. Needs
 * /dev/kvm and a CPU with XSAVE and AVX; skipped without.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/native_cpu.h"

#define ROUNDS 1500
#define XSAVE "\x0f\xae\x26"
#define XSAVE64 "\x48\x0f\xae\x26"
#define XRSTOR "\x0f\xae\x2e"
#define XRSTOR64 "\x48\x0f\xae\x2e"

/* Execute on the vCPU with its memory as f->data; -1, or the exception that is raised. */
static int execute(struct fixture *f, const char *bytes, size_t len, const struct full *s)
{
	struct err err = {""};

	memcpy(f->ram + DATA, f->data, 4096);
	memcpy(f->ram + CODE, bytes, len);
	set_vcpu(f, s);
	if (assist_execute(&f->v, &err))
		fail_msg("%s", err.text);
	return take_exception(f);
}

/* The same on the CPU. */
static int execute_native(struct fixture *f, const char *bytes, size_t len, const struct full *s,
			  struct full *after)
{
	memcpy(f->code, bytes, len);
	f->code[len] = 0xc3;
	*after = *s;
	after->code = f->code;
	after->gpr[GPR_RSI] += (uintptr_t)f->data - DATA;
	return run_native(after);
}

/* A state of which some components are the initial ones, and what EDX:EAX ask for. */
static void random_start(struct fixture *f, struct full *s)
{
	uint64_t asked = random_byte(f) & 3 ? rnd(f) & f->v.xfeatures : f->v.xfeatures;
	uint64_t present = f->v.xfeatures & (rnd(f) | rnd(f));

	random_state(f, s, 0, DATA);
	/* What is not present gets its initial state. KVM takes MXCSR only with SSE state: let that be zeros. */
	present |= XFEATURE_SSE;
	if (random_byte(f) & 1)
		memset(s->area + XSAVE_XMM, 0, XSAVE_XMM_SIZE);
	memcpy(s->area + XSAVE_HEADER, &present, sizeof(present));
	s->gpr[0] = asked;
	s->gpr[2] = asked >> 32;
	for (unsigned i = 0; i < 4096; i++)
		f->data[i] = random_byte(f);
}

static void test_xsave(void **state)
{
	static struct full s, native;
	struct fixture *f = *state;

	enable(f);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const char *bytes = i & 1 ? XSAVE64 : XSAVE;
		const size_t len = i & 1 ? 4 : 3;
		uint64_t said[2], old;
		uint8_t *area = f->ram + DATA;

		random_start(f, &s);
		memcpy(&old, f->data + XSAVE_HEADER, sizeof(old));
		assert_int_equal(execute(f, bytes, len, &s), -1);
		assert_int_equal(execute_native(f, bytes, len, &s, &native), -1);
		memcpy(&said[0], f->data + XSAVE_HEADER, 8);
		memcpy(&said[1], area + XSAVE_HEADER, 8);
		/* A CPU may call a component used that is in its initial state; the assist never does. */
		assert_int_equal(said[1] & ~said[0], 0);
		assert_int_equal((said[0] ^ said[1]) & ~s.gpr[0], 0);
		for (unsigned n = 1; n < 64; n++) {
			uint32_t offset = XSAVE_XMM, size = XSAVE_XMM_SIZE;
			bool any = false;

			if (!(s.gpr[0] >> n & 1) || (n > 1 && !cpuid_component(n, &offset, &size)))
				continue;
			for (uint32_t k = 0; k < size; k++)
				any |= area[offset + k] != 0;
			assert_int_equal(said[1] >> n & 1, any);
		}
		memcpy(f->data + XSAVE_HEADER, &said[1], 8);
		for (unsigned k = 0; k < 4096; k++)
			if (area[k] != f->data[k])
				fail_msg("asked for %llx: byte %u is %02x, natively %02x",
					 (unsigned long long)s.gpr[0], k, area[k], f->data[k]);
		assert_int_equal(vcpu_regs(&f->v)->rip, CODE + len);
	}
}

static void test_xrstor(void **state)
{
	static struct full s, native;
	static struct kvm_xsave assisted;
	struct fixture *f = *state;
	unsigned raised_gp = 0;

	enable(f);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const char *bytes = i & 1 ? XRSTOR64 : XRSTOR;
		const size_t len = i & 1 ? 4 : 3;
		uint64_t present = rnd(f) & f->v.xfeatures;
		int expected;

		random_start(f, &s);
		memset(f->data + XSAVE_HEADER, 0, 64);
		memcpy(f->data + XSAVE_HEADER, &present, sizeof(present));
		put32(f->data + XSAVE_MXCSR, (uint32_t)rnd(f) & 0xffff);
		for (unsigned k = 0; k < 8; k++)
			memset(f->data + XSAVE_ST + 16 * k + 10, 0, 6);
		/* Pointers that would be those of a pending exception, and no pending exception. */
		memset(f->data, 0, XSAVE_MXCSR);
		f->data[0] = 0x7f;
		f->data[1] = 3;
		f->data[4] = random_byte(f);
		switch (random_byte(f) & 15) {
		case 0:
			put32(f->data + XSAVE_MXCSR, 1u << (20 + random_byte(f) % 12));
			break;
		case 1:
			f->data[XSAVE_HEADER + 8 + random_byte(f) % 16] = 1;
			break;
		case 2:
			f->data[XSAVE_HEADER + 7] = 1;
			break;
		}
		expected = execute_native(f, bytes, len, &s, &native);
		assert_int_equal(execute(f, bytes, len, &s), expected);
		assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &assisted), 0);
		raised_gp += expected == 13;
		if (expected < 0)
			compare_areas(&s, native.area, (uint8_t *)&assisted, "xrstor");
		assert_int_equal(vcpu_regs(&f->v)->rip, expected < 0 ? CODE + len : CODE);
	}
	assert_in_range(raised_gp, ROUNDS / 16, ROUNDS / 4);
}

static void test_faults(void **state)
{
	static struct full s;
	struct fixture *f = *state;
	struct kvm_sregs sregs;
	struct err err;

	enable(f);
	random_start(f, &s);
	s.gpr[0] = f->v.xfeatures;
	s.gpr[GPR_RSI] = DATA + 32;
	assert_int_equal(execute(f, XSAVE64, 4, &s), 13);
	assert_int_equal(execute(f, XRSTOR64, 4, &s), 13);
	/* Legacy region and header fit before a page that is missing; AVX state does not. */
	memset(f->ram + PAGES_GPA, 0, 4096);
	s.gpr[GPR_RSI] = PAGES + 0x1000 - 576;
	assert_int_equal(execute(f, XSAVE64, 4, &s), 14);
	assert_int_equal(vcpu_get_sregs(&f->v, &sregs, &err), 0);
	assert_int_equal(sregs.cr2, PAGES + 0x1000);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(f->ram[PAGES_GPA + i], 0);
	s.gpr[0] = 3;
	assert_int_equal(execute(f, XSAVE64, 4, &s), -1);
	f->sregs.cr0 |= X86_CR0_TS;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	assert_int_equal(execute(f, XSAVE64, 4, &s), 7);
	assert_int_equal(execute(f, XRSTOR64, 4, &s), 7);
	f->sregs.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	assert_int_equal(execute(f, XSAVE64, 4, &s), 6);
	assert_int_equal(execute(f, XRSTOR64, 4, &s), 6);
	assert_int_equal(execute(f, "\x0f\x01\xd0", 3, &s), 6);
	assert_int_equal(execute(f, "\x0f\x01\xd1", 3, &s), 6);
}

/* Which values XCR0 takes: KVM's own check is the model. */
static void test_xcr0(void **state)
{
	static struct full s;
	struct fixture *f = *state;

	enable(f);
	random_start(f, &s);
	s.xcr0 = XFEATURE_X87;
	for (unsigned value = 0; value < 0x400; value++) {
		struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = value}};
		bool valid = ioctl(f->v.fd, KVM_SET_XCRS, &xcrs) == 0;
		uint64_t xcr0;
		struct err err;

		s.gpr[0] = 0xabcd000000000000 | value;
		s.gpr[1] = s.gpr[2] = 0;
		assert_int_equal(execute(f, "\x0f\x01\xd1", 3, &s), valid ? -1 : 13);
		assert_int_equal(vcpu_get_xcr0(&f->v, &xcr0, &err), 0);
		assert_int_equal(xcr0, valid ? value : 1);
		s.xcr0 = xcr0;
		s.gpr[1] = 0x100000000;
		assert_int_equal(execute(f, "\x0f\x01\xd0", 3, &s), -1);
		assert_int_equal(vcpu_regs(&f->v)->rax, xcr0);
		assert_int_equal(vcpu_regs(&f->v)->rdx, 0);
		s.gpr[1] = 1;
		assert_int_equal(execute(f, "\x0f\x01\xd0", 3, &s), 13);
		s.xcr0 = XFEATURE_X87;
		assert_int_equal(execute(f, "\x0f\x01\xd1", 3, &s), 13);
	}
}

/* A trace whose guest was shown what this host lacks is refused, and one that it has is not. */
static void test_host_check(void **state)
{
	struct fixture *f = *state;
	struct err err = {""};

	enable(f);
	assert_int_equal(cpuid_check_host(f->kvm, 0, &err), 0);
	assert_int_equal(cpuid_check_host(f->kvm, f->v.xfeatures, &err), 0);
	/* Bit 63 of XCR0 is reserved for good (SDM 1, 13.1). */
	assert_int_equal(cpuid_check_host(f->kvm, f->v.xfeatures | 1ull << 63, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "lacks vector registers"));
}

extern const char guest_program[], guest_program_end[];

__asm__(".pushsection .rodata\n"
	"guest_program:\n"
	"	mov %cr4, %rax\n"
	"	or $0x40000, %rax\n"
	"	mov %rax, %cr4\n"
	"	xor %ecx, %ecx\n"
	"	xor %edx, %edx\n"
	"	mov $7, %eax\n"
	"	xsetbv\n"
	"	vmovups (%rsi), %ymm3\n"
	"	vpaddd %ymm3, %ymm3, %ymm14\n"
	"	xsave64 (%rdi)\n"
	"	vzeroall\n"
	"	vmovups %ymm14, 64(%rsi)\n"
	"	xrstor64 (%rdi)\n"
	"	vmovups %ymm14, 32(%rsi)\n"
	"	xgetbv\n"
	"	hlt\n"
	"guest_program_end:\n"
	".popsection\n");

/* By emulation and assists here, natively elsewhere. */
static void test_guest(void **state)
{
	struct fixture *f = *state;
	const struct vcpu_request req = {0};
	struct cpu c = {.gpr = {[6] = DATA, [7] = DATA + 0x1000}, .rflags = 2, .mxcsr = 0x1f80};
	enum vcpu_stop stop;
	struct err err = {""};

	enable(f);
	f->sregs.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	memset(f->ram + DATA, 0, 0x3000);
	for (unsigned i = 0; i < 8; i++)
		put32(f->ram + DATA + 4 * i, 0x01010101 * (i + 1));
	memset(f->ram + DATA + 64, 0xff, 32);
	memcpy(f->ram + CODE, guest_program, (size_t)(guest_program_end - guest_program));
	set_cpu(f, &c);
	if (vcpu_run(&f->v, &req, &stop, &err))
		fail_msg("%s", err.text);
	assert_int_equal(f->v.run->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(vcpu_regs(&f->v)->rax, 7);
	for (unsigned i = 0; i < 8; i++) {
		uint32_t doubled, zero;

		memcpy(&doubled, f->ram + DATA + 32 + 4 * i, 4);
		memcpy(&zero, f->ram + DATA + 64 + 4 * i, 4);
		assert_int_equal(doubled, 0x02020202 * (i + 1));
		assert_int_equal(zero, 0);
	}
	assert_int_equal(f->ram[DATA + 0x1000 + XSAVE_HEADER], 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_xsave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xrstor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xcr0, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_check, setup, teardown),
		cmocka_unit_test_setup_teardown(test_guest, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
