// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * YMM registers of user code across system calls and ticks, in which the kernel saves them by XSAVE, spoils them and
 * gets them back by XRSTOR. Where CPUID shows no AVX there is nothing to do.
 */
#include "test.h"

#define TICK_HZ 1000
#define USER_STACK_BYTES 4096
#define CR4_OSFXSR (1UL << 9)
#define CR4_OSXMMEXCPT (1UL << 10)
#define CR4_OSXSAVE (1UL << 18)
#define CPUID_1_ECX_AVX (1U << 28)
#define XCR0_AVX 7U

#define SYS_YIELD 1
#define SYS_DONE 2

void user_run(void);
void kernel_spoil(uint64_t with);

extern uint64_t user_rounds, user_wrong, user_sum;

/*
 * user_run: each round fills the sixteen registers, lets the kernel have them, and doubles and adds up what is there.
 * All of it is exact, so the sum after a round is known from the round's number.
 */
__asm__(".text\n"
	".globl kernel_spoil\n"
	".type kernel_spoil, @function\n"
	"kernel_spoil:\n"
	"	vmovq %rdi, %xmm0\n"
	"	vbroadcastsd %xmm0, %ymm0\n"
	".irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	vpaddq %ymm0, %ymm0, %ymm\\n\n"
	".endr\n"
	"	ret\n"
	".size kernel_spoil, . - kernel_spoil\n"
	".section .user.text, \"ax\"\n"
	".globl user_run\n"
	".type user_run, @function\n"
	"user_run:\n"
	"	movq user_rounds(%rip), %r12\n"
	"user_again:\n"
	"	vmovq %r12, %xmm0\n"
	"	vpbroadcastq %xmm0, %ymm0\n"
	"	vpaddq user_lanes(%rip), %ymm0, %ymm0\n"
	".irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	vpaddq user_ones(%rip), %ymm0, %ymm\\n\n"
	"	vmovdqa %ymm\\n, %ymm0\n"
	".endr\n"
	"	movl $1, %eax\n" /* SYS_YIELD */
	"	syscall\n"
	/* ymm15 is n + 15 + lane, ymm14 one less, and so on down to ymm1; ymm0 equals ymm15. */
	".irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	vpaddq %ymm\\n, %ymm0, %ymm0\n"
	".endr\n"
	"	vmovdqu %ymm0, user_out(%rip)\n"
	/* 16 n + (1 + ... + 15) + 15 + 16 lane */
	"	movq %r12, %rax\n"
	"	shlq $4, %rax\n"
	"	addq $135, %rax\n"
	"	leaq user_out(%rip), %rbx\n"
	"	xorl %ecx, %ecx\n"
	"user_lane:\n"
	"	movq (%rbx, %rcx, 8), %rdx\n"
	"	addq %rdx, user_sum(%rip)\n"
	"	cmpq %rax, %rdx\n"
	"	je user_right\n"
	"	incq user_wrong(%rip)\n"
	"user_right:\n"
	"	addq $16, %rax\n"
	"	incl %ecx\n"
	"	cmpl $4, %ecx\n"
	"	jne user_lane\n"
	"	decq %r12\n"
	"	jnz user_again\n"
	"	movl $2, %eax\n" /* SYS_DONE */
	"	syscall\n"
	"	ud2\n"
	".size user_run, . - user_run\n"
	".section .user.data, \"aw\"\n"
	".balign 32\n"
	"user_lanes: .quad 0, 1, 2, 3\n"
	"user_ones: .quad 1, 1, 1, 1\n"
	"user_out: .quad 0, 0, 0, 0\n"
	".globl user_rounds, user_wrong, user_sum\n"
	"user_rounds: .quad 0\n"
	"user_wrong: .quad 0\n"
	"user_sum: .quad 0\n"
	".text\n");

static uint8_t save_area[2][832] __attribute__((aligned(64)));
static uint8_t user_stack[USER_STACK_BYTES] USER_DATA __attribute__((aligned(16)));
static uint64_t yields;

static void spoil(uint8_t *area)
{
	__asm__ volatile("xsave64 (%0)" ::"r"(area), "a"(XCR0_AVX), "d"(0) : "memory");
	kernel_spoil(timer_ticks * 3 + yields);
	__asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"(XCR0_AVX), "d"(0) : "memory");
}

static void tick(void)
{
	spoil(save_area[0]);
}

static uint64_t on_syscall(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	(void)a;
	(void)b;
	(void)c;
	if (nr == SYS_YIELD) {
		yields++;
		spoil(save_area[1]);
		return 0;
	}
	kprintf("avx: %lu rounds, %lu yields, %lu lanes wrong, sum %lx\n", user_rounds, yields, user_wrong,
		user_sum);
	guest_exit(user_wrong != 0);
}

static bool avx_enable(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;
	uint64_t cr4;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx & CPUID_1_ECX_AVX))
		return false;
	__asm__ volatile("movq %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("movq %0, %%cr4" ::"r"(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE));
	__asm__ volatile("xsetbv" ::"c"(0), "a"(XCR0_AVX), "d"(0));
	return true;
}

void guest_main(void)
{
	if (!avx_enable()) {
		kprintf("avx: none\n");
		guest_exit(0);
	}
	user_rounds = cmdline_get_u64("n", 60);
	timer_set_callback(tick);
	timer_start(TICK_HZ);
	user_pages_open();
	syscall_set_handler(on_syscall);
	user_enter(user_run, user_stack + USER_STACK_BYTES);
}
