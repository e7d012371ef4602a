/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * For test_assist.c: a vCPU in a small identity-mapped memory, ways to set and get its registers,
 * and the same for the CPU that runs the test. Include cmocka.h first.
 */
#ifndef TESTS_UNIT_ASSIST_VCPU_H
#define TESTS_UNIT_ASSIST_VCPU_H

#include "vmm/assist.h"
#include "vmm/cpuid.h"

#include <Zydis/Zydis.h>
#include <asm/processor-flags.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM (4ull << 20)
#define ARITHMETIC 0x8d5u /* CF PF AF ZF SF OF */

/* Guest memory: 2 MiB mapped one to one, then single pages. */
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define PT 0x4000u
#define GDT 0x5000u
#define IDT 0x6000u
#define CODE 0x8000u
#define STACK 0xa000u
#define DATA 0x10000u
#define PAGES 0x200000u /* page 0: present; 1: not; 2: read-only; 3: present */
#define PAGES_GPA 0x100000u

#define XSAVE_MXCSR 24
#define XSAVE_XMM 160
#define XSAVE_XMM_SIZE 256
#define XSAVE_HEADER 512

/* Offsets are known to oracle_run. */
struct cpu {
	uint64_t gpr[16]; /* x86 numbering */
	uint64_t rflags;
	const void *code;
	uint32_t mxcsr;
	uint32_t unused[3];
	uint8_t xmm[16][16];
};

_Static_assert(offsetof(struct cpu, rflags) == 128, "oracle_run");
_Static_assert(offsetof(struct cpu, mxcsr) == 144, "oracle_run");
_Static_assert(offsetof(struct cpu, xmm) == 160, "oracle_run");

/* Load everything but RSP and RBP, call the code, store everything. */
void oracle_run(struct cpu *cpu);

__asm__(".text\n"
	"oracle_run:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rax\n"
	"stmxcsr (%rsp)\n"
	"mov %rdi, %rbp\n"
	".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"movups 160+16*\\n(%rbp), %xmm\\n\n"
	".endr\n"
	"ldmxcsr 144(%rbp)\n"
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
	"stmxcsr 144(%rbp)\n"
	".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"movups %xmm\\n, 160+16*\\n(%rbp)\n"
	".endr\n"
	"ldmxcsr (%rsp)\n"
	"pop %rax; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n");

struct fixture {
	int kvm, vm;
	struct host_caps caps;
	struct memory *mem;
	struct vcpu v;
	struct kvm_sregs sregs;
	uint8_t *ram;
	uint8_t *code; /* executable page of this process */
	uint8_t *data; /* its counterpart of DATA */
	uint64_t random;
	uint16_t fcw, fsw;
};

static uint64_t rnd(struct fixture *f)
{
	f->random ^= f->random << 13;
	f->random ^= f->random >> 7;
	f->random ^= f->random << 17;
	return f->random;
}

static void put64(struct fixture *f, uint64_t gpa, uint64_t value)
{
	memcpy(f->ram + gpa, &value, sizeof(value));
}

static void set_tables(struct fixture *f)
{
	put64(f, PML4, PDPT | 3);
	put64(f, PDPT, PD | 3);
	put64(f, PD, 0x83);
	put64(f, PD + 8, PT | 3);
	put64(f, PT, PAGES_GPA | 3);
	put64(f, PT + 8, 0);
	put64(f, PT + 16, (PAGES_GPA + 0x2000) | 1);
	put64(f, PT + 24, (PAGES_GPA + 0x3000) | 3);
	put64(f, GDT + 8, 0x00af9b000000ffff);
	put64(f, GDT + 16, 0x00cf93000000ffff);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	*state = f;
	f->random = 88172645463325252ull;
	f->fcw = 0x37f;
	f->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (f->kvm < 0)
		return 0;
	f->vm = ioctl(f->kvm, KVM_CREATE_VM, 0);
	assert_true(f->vm >= 0);
	f->caps.syscall_works = true;
	assert_int_equal(memory_create(&f->mem, f->vm, RAM, false, &err), 0);
	assert_int_equal(vcpu_create(&f->v, f->kvm, f->vm, &f->caps, f->mem,
				     cpuid_choose_xfeatures(&f->caps), &err),
			 0);
	f->ram = memory_at_dirty(f->mem, GPA(0), RAM);
	f->code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	f->data = aligned_alloc(4096, 4096);
	assert_true(f->code != MAP_FAILED && f->data);
	set_tables(f);
	assert_int_equal(vcpu_get_sregs(&f->v, &f->sregs, &err), 0);
	f->sregs.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_MP | X86_CR0_ET;
	f->sregs.cr3 = PML4;
	f->sregs.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	f->sregs.efer = 0x500;
	f->sregs.cs = (struct kvm_segment){
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	f->sregs.ds = (struct kvm_segment){
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	f->sregs.es = f->sregs.fs = f->sregs.gs = f->sregs.ss = f->sregs.ds;
	f->sregs.gdt.base = GDT;
	f->sregs.gdt.limit = 0xff;
	f->sregs.idt.base = IDT;
	f->sregs.idt.limit = 0xfff;
	assert_int_equal(vcpu_set_sregs(&f->v, &f->sregs, &err), 0);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->kvm >= 0) {
		vcpu_destroy(&f->v);
		memory_destroy(f->mem);
		close(f->vm);
		close(f->kvm);
		munmap(f->code, 4096);
		free(f->data);
	}
	free(f);
	return 0;
}

#define NEEDS_KVM(f)                                                                               \
	do {                                                                                       \
		if ((f)->kvm < 0)                                                                  \
			skip();                                                                    \
	} while (0)

static inline void set_cpu(struct fixture *f, const struct cpu *c)
{
	struct kvm_regs *r = vcpu_regs_mut(&f->v);
	struct kvm_xsave x;
	uint64_t present = 3;

	*r = (struct kvm_regs){.rax = c->gpr[0],
			       .rcx = c->gpr[1],
			       .rdx = c->gpr[2],
			       .rbx = c->gpr[3],
			       .rsp = STACK,
			       .rbp = c->gpr[5],
			       .rsi = c->gpr[6],
			       .rdi = c->gpr[7],
			       .r8 = c->gpr[8],
			       .r9 = c->gpr[9],
			       .r10 = c->gpr[10],
			       .r11 = c->gpr[11],
			       .r12 = c->gpr[12],
			       .r13 = c->gpr[13],
			       .r14 = c->gpr[14],
			       .r15 = c->gpr[15],
			       .rip = CODE,
			       .rflags = c->rflags};
	memset(&x, 0, sizeof(x));
	memcpy(&x, &f->fcw, 2);
	memcpy((uint8_t *)&x + 2, &f->fsw, 2);
	memcpy((uint8_t *)&x + XSAVE_MXCSR, &c->mxcsr, 4);
	memcpy((uint8_t *)&x + XSAVE_XMM, c->xmm, sizeof(c->xmm));
	memcpy((uint8_t *)&x + XSAVE_HEADER, &present, 8);
	assert_int_equal(ioctl(f->v.fd, KVM_SET_XSAVE, &x), 0);
}

static inline void get_cpu(struct fixture *f, struct cpu *c)
{
	const struct kvm_regs *r = vcpu_regs(&f->v);
	struct kvm_xsave x;

	*c = (struct cpu){.gpr = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				  r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15},
			  .rflags = r->rflags};
	assert_int_equal(ioctl(f->v.fd, KVM_GET_XSAVE, &x), 0);
	memcpy(&c->mxcsr, (uint8_t *)&x + XSAVE_MXCSR, 4);
	memcpy(c->xmm, (uint8_t *)&x + XSAVE_XMM, sizeof(c->xmm));
}

static inline void set_gate(struct fixture *f, unsigned vector, uint64_t handler)
{
	put64(f, IDT + 16 * vector,
	      (handler & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48);
	put64(f, IDT + 16 * vector + 8, handler >> 32);
}

/* A register that neither the oracle nor the stack needs, and none of those in `taken`. */
static inline unsigned pick_gpr(struct fixture *f, unsigned taken)
{
	unsigned n;

	do
		n = rnd(f) & 15;
	while (n == 4 || n == 5 || (taken >> n & 1));
	return n;
}

#endif
