// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * SSE registers across interrupts whose handler uses them too: first kernel code that moves them
 * about, then user code that computes with them, with system calls in between.
 */
#include "test.h"

#define TICK_HZ 1000
#define USER_STACK_BYTES 4096
#define CR0_MP (1UL << 1)
#define CR0_EM (1UL << 2)
#define CR4_OSFXSR (1UL << 9)
#define CR4_OSXMMEXCPT (1UL << 10)

#define SYS_YIELD 1
#define SYS_DONE 2

struct xmm_file {
	uint64_t word[16][2];
} __attribute__((aligned(16)));

void kernel_round(const struct xmm_file *in, struct xmm_file *out);
uint64_t kernel_arithmetic(uint64_t a, uint64_t b);
void handler_spoil(const struct xmm_file *with, struct xmm_file *save);
void handler_restore(const struct xmm_file *save);
void user_run(void);

extern struct xmm_file user_in, user_reference;
extern uint64_t user_rounds, user_mismatches;

/*
 * kernel_round: fill all sixteen registers, keep them for a while, shuffle, store. The moves are
 * those that KVM's instruction emulator knows; what kernel_arithmetic uses it does not, and the
 * assist table serves it.
 */
__asm__(".macro sse_all op:req, from=, to=\n"
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	".ifnb \\from\n"
	"	\\op 16*\\n(\\from), %xmm\\n\n"
	".else\n"
	"	\\op %xmm\\n, 16*\\n(\\to)\n"
	".endif\n"
	".endr\n"
	".endm\n"
	".macro sse_wait\n"
	"	movl $40, %ecx\n"
	"1:	decl %ecx\n"
	"	jnz 1b\n"
	".endm\n"
	".text\n"
	".globl kernel_round\n"
	".type kernel_round, @function\n"
	"kernel_round:\n"
	"	sse_all movups, from=%rdi\n"
	"	sse_wait\n"
	"	sse_all movaps, to=%rsi\n"
	"	sse_all movdqu, from=%rdi\n"
	"	sse_wait\n"
	"	movaps %xmm0, %xmm3\n"
	"	movdqa %xmm1, %xmm2\n"
	"	movups %xmm15, %xmm9\n"
	"	sse_wait\n"
	"	sse_all movdqu, to=%rsi\n"
	"	ret\n"
	".size kernel_round, . - kernel_round\n"
	".globl kernel_arithmetic\n"
	".type kernel_arithmetic, @function\n"
	"kernel_arithmetic:\n"
	"	movq %rdi, %xmm4\n"
	"	movq %rsi, %xmm5\n"
	"	paddq %xmm5, %xmm4\n"
	"	sse_wait\n"
	"	pxor %xmm5, %xmm4\n"
	"	movd %esi, %xmm6\n"
	"	paddd %xmm6, %xmm4\n"
	"	movq %xmm4, %rax\n"
	"	ret\n"
	".size kernel_arithmetic, . - kernel_arithmetic\n"
	".globl handler_spoil\n"
	".type handler_spoil, @function\n"
	"handler_spoil:\n"
	"	sse_all movups, to=%rsi\n"
	"	sse_all movups, from=%rdi\n"
	"	ret\n"
	".size handler_spoil, . - handler_spoil\n"
	".globl handler_restore\n"
	".type handler_restore, @function\n"
	"handler_restore:\n"
	"	sse_all movdqa, from=%rdi\n"
	"	ret\n"
	".size handler_restore, . - handler_restore\n");

/* user_run: the first pass gives the reference, all others must agree with it to the bit. */
__asm__(".section .user.text, \"ax\"\n"
	".globl user_run\n"
	".type user_run, @function\n"
	"user_run:\n"
	"	leaq user_reference(%rip), %rbx\n"
	"	movq user_rounds(%rip), %r12\n"
	"user_again:\n"
	"	leaq user_in(%rip), %r13\n"
	"	sse_all movups, from=%r13\n"
	"	movl $12, %r14d\n"
	"user_step:\n"
	"	mulps %xmm1, %xmm0\n"
	"	addps %xmm2, %xmm0\n"
	"	sqrtps %xmm0, %xmm3\n"
	"	subpd %xmm5, %xmm4\n"
	"	divpd %xmm6, %xmm4\n"
	"	paddq %xmm8, %xmm7\n"
	"	pmuludq %xmm7, %xmm9\n"
	"	pshufd $0x1b, %xmm9, %xmm10\n"
	"	pxor %xmm10, %xmm7\n"
	"	cvtdq2ps %xmm7, %xmm11\n"
	"	maxps %xmm11, %xmm12\n"
	"	cvttsd2si %xmm4, %r15\n"
	"	cvtsi2sdq %r15, %xmm13\n"
	"	addsd %xmm13, %xmm14\n"
	"	unpcklps %xmm0, %xmm15\n"
	"	movl $1, %eax\n" /* SYS_YIELD */
	"	syscall\n"
	"	decl %r14d\n"
	"	jnz user_step\n"
	"	leaq user_out(%rip), %r13\n"
	"	sse_all movaps, to=%r13\n"
	"	movl $31, %ecx\n"
	"	cmpq user_rounds(%rip), %r12\n"
	"	je user_first\n"
	"user_compare:\n"
	"	movq (%r13, %rcx, 8), %rax\n"
	"	cmpq (%rbx, %rcx, 8), %rax\n"
	"	je user_same\n"
	"	incq user_mismatches(%rip)\n"
	"user_same:\n"
	"	decl %ecx\n"
	"	jns user_compare\n"
	"	jmp user_next\n"
	"user_first:\n"
	"	movq (%r13, %rcx, 8), %rax\n"
	"	movq %rax, (%rbx, %rcx, 8)\n"
	"	decl %ecx\n"
	"	jns user_first\n"
	"user_next:\n"
	"	decq %r12\n"
	"	jnz user_again\n"
	"	movl $2, %eax\n" /* SYS_DONE */
	"	syscall\n"
	"	ud2\n"
	".size user_run, . - user_run\n"
	".section .user.data, \"aw\"\n"
	".balign 16\n"
	".globl user_in, user_out, user_reference, user_rounds, user_mismatches\n"
	"user_in: .fill 256, 1, 0\n"
	"user_out: .fill 256, 1, 0\n"
	"user_reference: .fill 256, 1, 0\n"
	"user_rounds: .quad 0\n"
	"user_mismatches: .quad 0\n"
	".text\n");

static struct xmm_file handler_values, handler_save;
static uint64_t kernel_rounds, kernel_mismatches, arithmetic_mismatches, yields;
static uint8_t user_stack[USER_STACK_BYTES] USER_DATA __attribute__((aligned(16)));
static uint8_t fx_save[512] __attribute__((aligned(16)));

static void tick(void)
{
	/* By turns the two ways in which kernels save these registers. */
	if (timer_ticks & 1) {
		handler_spoil(&handler_values, &handler_save);
		handler_restore(&handler_save);
	} else {
		__asm__ volatile("fxsaveq %0" : "=m"(fx_save));
		handler_spoil(&handler_values, &handler_save);
		__asm__ volatile("fxrstorq %0" ::"m"(fx_save));
	}
	handler_values.word[timer_ticks & 15][0] += timer_ticks;
}

static uint64_t on_syscall(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t sum = 0;

	(void)a;
	(void)b;
	(void)c;
	if (nr == SYS_YIELD)
		return ++yields;
	for (unsigned i = 0; i < 32; i++)
		sum = fold(sum, user_reference.word[i / 2][i % 2]);
	kprintf("sse: kernel %lu rounds, %lu wrong, %lu wrong sums; user %lu rounds, %lu yields, "
		"%lu wrong, reference %016lx\n",
		kernel_rounds, kernel_mismatches, arithmetic_mismatches, user_rounds, yields,
		user_mismatches, sum);
	guest_exit(kernel_mismatches || arithmetic_mismatches || user_mismatches);
}

static void sse_enable(void)
{
	uint64_t cr0, cr4;

	__asm__ volatile("movq %%cr0, %0" : "=r"(cr0));
	__asm__ volatile("movq %0, %%cr0" ::"r"((cr0 & ~CR0_EM) | CR0_MP));
	__asm__ volatile("movq %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("movq %0, %%cr4" ::"r"(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT));
}

static void kernel_part(uint64_t rounds)
{
	static struct xmm_file in, out;
	uint64_t x = 42;

	for (uint64_t r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < 32; i++)
			in.word[i / 2][i % 2] = x = lcg(x);
		kernel_round(&in, &out);
		for (unsigned k = 0; k < 2; k++) {
			in.word[3][k] = in.word[0][k];
			in.word[2][k] = in.word[1][k];
			in.word[9][k] = in.word[15][k];
		}
		kernel_mismatches += memcmp(&in, &out, sizeof(in)) != 0;
		/* PADDD adds to the low half only, without carry. */
		uint64_t sum = (x + r) ^ r;

		sum = (sum & ~0xffffffffUL) | (uint32_t)(sum + r);
		arithmetic_mismatches += kernel_arithmetic(x, r) != sum;
	}
	kernel_rounds = rounds;
}

void guest_main(void)
{
	static const float single[8] = {1.5f, 0.75f, 3.25f, 0.5f, 1.25f, 0.875f, 2.5f, 7.0f};
	uint64_t n = cmdline_get_u64("n", 40);
	uint64_t x = 7;

	sse_enable();
	for (unsigned i = 0; i < 32; i++)
		handler_values.word[i / 2][i % 2] = ~(uint64_t)i << 32 | 0xbad;
	timer_set_callback(tick);
	timer_start(TICK_HZ);
	irq_enable();
	kernel_part(n);
	irq_disable();
	user_rounds = n;
	for (unsigned i = 0; i < 64; i++)
		((float *)&user_in)[i] = single[i % 8];
	for (unsigned i = 14; i < 20; i++)
		user_in.word[i / 2][i % 2] = x = lcg(x);
	/* Two doubles each: 1e9, 2.5, 1.0625. */
	for (unsigned k = 0; k < 2; k++) {
		user_in.word[4][k] = 0x41cdcd6500000000;
		user_in.word[5][k] = 0x4004000000000000;
		user_in.word[6][k] = 0x3ff1000000000000;
	}
	user_pages_open();
	syscall_set_handler(on_syscall);
	user_enter(user_run, user_stack + USER_STACK_BYTES);
}
