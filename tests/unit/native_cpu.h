/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * For tests of assists with floating-point state: the CPU that runs the test as the oracle, with x87, vector and mask
 * registers, and the exceptions it raises. Include cmocka.h first.
 */
#ifndef TESTS_UNIT_NATIVE_CPU_H
#define TESTS_UNIT_NATIVE_CPU_H

#include "tests/unit/assist_vcpu.h"

#include <signal.h>
#include <stdio.h>
#include <ucontext.h>

#define AREA 4096
#define X87_FOP 6
#define XSAVE_ST 32
#define GPR_RSP 4
#define GPR_RBP 5
#define GPR_RSI 6
#define GPR_R14 14

/* Offsets are known to native_run. */
struct full {
	uint64_t gpr[16];
	uint64_t rflags;
	const void *code;
	uint64_t components;
	uint64_t xcr0; /* of the vCPU; the process has its own */
	uint8_t area[AREA] __attribute__((aligned(64)));
	uint8_t saved[AREA] __attribute__((aligned(64)));
};

_Static_assert(offsetof(struct full, code) == 136, "native_run");
_Static_assert(offsetof(struct full, area) == 192, "native_run");
_Static_assert(offsetof(struct full, saved) == 4288, "native_run");

/* Load everything but RSP and RBP, call the code, store everything. */
void native_run(struct full *f);
/* After an exception in it: the state of this process again. */
void native_recover(struct full *f);

__asm__(".text\n"
	"native_run:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rax\n"
	"mov %rdi, %rbp\n"
	"mov 144(%rbp), %eax; mov 148(%rbp), %edx\n"
	"xsave64 4288(%rbp)\n"
	"xrstor64 192(%rbp)\n"
	"pushq 128(%rbp); popfq\n"
	"mov 0(%rbp), %rax; mov 8(%rbp), %rcx; mov 16(%rbp), %rdx; mov 24(%rbp), %rbx\n"
	"mov 48(%rbp), %rsi; mov 56(%rbp), %rdi\n"
	".irp n, 8,9,10,11,12,13,14,15\n"
	"mov 8*\\n(%rbp), %r\\n\n"
	".endr\n"
	"call *136(%rbp)\n"
	"pushfq; popq 128(%rbp)\n"
	"mov %rax, 0(%rbp); mov %rcx, 8(%rbp); mov %rdx, 16(%rbp); mov %rbx, 24(%rbp)\n"
	"mov %rsi, 48(%rbp); mov %rdi, 56(%rbp)\n"
	".irp n, 8,9,10,11,12,13,14,15\n"
	"mov %r\\n, 8*\\n(%rbp)\n"
	".endr\n"
	"mov 144(%rbp), %eax; mov 148(%rbp), %edx\n"
	"xsave64 192(%rbp)\n"
	"xrstor64 4288(%rbp)\n"
	"pop %rax; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n"
	"native_recover:\n"
	"mov 144(%rdi), %eax; mov 148(%rdi), %edx\n"
	"xrstor64 4288(%rdi)\n"
	"ret\n");

/* Signal handlers have nothing but globals. */
static sigjmp_buf raised;
static volatile sig_atomic_t running, vector;
static volatile uint32_t raised_mxcsr;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;

	(void)info;
	if (!running) {
		signal(sig, SIG_DFL);
		return;
	}
	running = 0;
	vector = (sig_atomic_t)uc->uc_mcontext.gregs[REG_TRAPNO];
	raised_mxcsr = uc->uc_mcontext.fpregs->mxcsr;
	siglongjmp(raised, 1);
}

/* -1, or the exception that the code raises. */
static inline int run_native(struct full *f)
{
	static const int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	struct sigaction saved[ARRAY_SIZE(signals)];

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, &saved[i]);
	vector = -1;
	if (sigsetjmp(raised, 1) == 0) {
		running = 1;
		native_run(f);
		running = 0;
	} else {
		native_recover(f);
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &saved[i], NULL);
	return vector;
}

static inline void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline uint8_t random_byte(struct fixture *f)
{
	return (uint8_t)(rnd(f) >> 24);
}

static inline void random_state(struct fixture *f, struct full *s, uint32_t disp, uint64_t data)
{
	uint16_t fcw, fsw;

	memset(s->area, 0, sizeof(s->area));
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = rnd(f) >> (rnd(f) & 63);
	s->gpr[GPR_RSI] = s->gpr[GPR_R14] = data - disp;
	s->rflags = 0x202 | (rnd(f) & ARITHMETIC);
	s->components = s->xcr0 = f->v.xfeatures;
	for (unsigned n = 0; n < 64; n++) {
		uint32_t offset = n == 1 ? XSAVE_XMM : XSAVE_ST, size = n == 1 ? 256 : 128;

		if (!(s->components >> n & 1) || (n > 1 && !cpuid_component(n, &offset, &size)))
			continue;
		for (uint32_t i = 0; i < size; i++)
			s->area[offset + i] = rnd(f) & 0x100 ? random_byte(f) : 0;
	}
	/* Numbers of ordinary size in x87 registers, more often than not. */
	for (unsigned i = 0; i < 8; i++) {
		uint8_t *st = s->area + XSAVE_ST + 16 * i;

		memset(st + 10, 0, 6);
		if (random_byte(f) & 3) {
			st[7] |= 0x80;
			st[8] = random_byte(f);
			st[9] = (uint8_t)(random_byte(f) & 1 ? 0x40 : 0x3f);
		}
	}
	fcw = (uint16_t)(0x340 | (random_byte(f) & 3 ? 0x3f : random_byte(f) & 0x3f) |
			 (random_byte(f) & 0xc) << 8);
	fsw = (uint16_t)(random_byte(f) << 8 & 0x7800);
	fsw |= random_byte(f) & 3 ? 0 : random_byte(f) & 0x3f;
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	memcpy(s->area, &fcw, 2);
	memcpy(s->area + 2, &fsw, 2);
	s->area[4] = random_byte(f); /* abridged tags */
	put32(s->area + XSAVE_MXCSR,
	      random_byte(f) & 3 ? 0x1f80 | (rnd(f) & 0xe07f) : rnd(f) & 0xffff);
	memcpy(s->area + XSAVE_HEADER, &s->components, sizeof(s->components));
}

static inline void set_vcpu(struct fixture *f, const struct full *s)
{
	struct kvm_regs *r = vcpu_regs_mut(&f->v);
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = s->xcr0}};
	struct cpu c;

	memset(&c, 0, sizeof(c));
	memcpy(c.gpr, s->gpr, sizeof(c.gpr));
	c.rflags = s->rflags;
	set_cpu(f, &c);
	r->rsp = s->gpr[GPR_RSP];
	assert_int_equal(ioctl(f->v.fd, KVM_SET_XCRS, &xcrs), 0);
	assert_int_equal(ioctl(f->v.fd, KVM_SET_XSAVE, s->area), 0);
}

/* The injected exception, which is taken away again, or -1. */
static inline int take_exception(struct fixture *f)
{
	struct kvm_vcpu_events e;
	int nr;

	assert_int_equal(ioctl(f->v.fd, KVM_GET_VCPU_EVENTS, &e), 0);
	nr = e.exception.injected ? e.exception.nr : -1;
	e.exception.injected = 0;
	e.flags = 0;
	if (nr >= 0)
		assert_int_equal(ioctl(f->v.fd, KVM_SET_VCPU_EVENTS, &e), 0);
	f->v.event_queued = false;
	return nr;
}

/* Everything in the areas but what a CPU may store as it likes, or what says only that. */
static inline void compare_areas(const struct full *s, uint8_t *native, uint8_t *assisted, const char *text)
{
	uint64_t has[2];

	memcpy(&has[0], native + XSAVE_HEADER, 8);
	memcpy(&has[1], assisted + XSAVE_HEADER, 8);
	for (unsigned k = 0; k < 2; k++) {
		uint8_t *area = k ? assisted : native;

		memset(area + X87_FOP, 0, XSAVE_MXCSR - X87_FOP);
		memset(area + XSAVE_MXCSR + 4, 0, 4);
		if (!(has[k] & 2))
			memset(area + XSAVE_XMM, 0, 256);
		if (!(has[k] & 1)) {
			memset(area, 0, X87_FOP);
			area[0] = 0x7f;
			area[1] = 3;
			memset(area + XSAVE_ST, 0, 128);
		}
		for (unsigned n = 2; n < 64; n++) {
			uint32_t offset, size;

			if ((s->components >> n & 1) && !(has[k] >> n & 1) &&
			    cpuid_component(n, &offset, &size))
				memset(area + offset, 0, size);
		}
		memset(area + XSAVE_XMM + 256, 0, 576 - XSAVE_XMM - 256);
	}
	for (unsigned i = 0; i < AREA; i++)
		if (native[i] != assisted[i])
			fail_msg("%s: byte %u of the XSAVE area is %02x, natively %02x", text, i,
				 assisted[i], native[i]);
}

/* All of the guest's CPU switched on, or the test skipped. */
static inline void enable(struct fixture *f)
{
	struct err err;

	NEEDS_KVM(f);
	if (!f->v.xfeatures)
		skip();
	f->sregs.cr4 |= X86_CR4_OSXSAVE;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
}

#endif
