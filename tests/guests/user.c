// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * User mode under a kernel that pages on demand: user code computes, counts in pages that are often
 * not there, and makes system calls. The kernel has fewer frames than pages and keeps the contents
 * of those it takes away. A tick that user code can see makes its result depend on the timing.
 */
#include "test.h"

#define TICK_HZ 1000
#define WINDOW 0x40000000UL /* just above the identity map */
#define PAGES 256
#define FRAMES 24
#define WORDS 4 /* of a page that are in use */
#define USER_STACK_BYTES 4096
#define VECTOR_PAGE_FAULT 14
#define ERROR_PRESENT 1
#define ERROR_WRITE 2
#define ERROR_USER 4

#define SYS_STEP 1
#define SYS_DONE 2

#define PRIVATE_START 0xabcdefUL

static volatile uint64_t user_tick USER_DATA = 0;
static uint64_t user_steps USER_DATA = 0;
static uint8_t user_stack[USER_STACK_BYTES] USER_DATA __attribute__((aligned(16)));

static uint8_t frame_memory[FRAMES][PAGE_SIZE] __attribute__((aligned(4096)));
static uint64_t frame_page[FRAMES]; /* + 1; 0: free */
static uint64_t swapped[PAGES][WORDS];
static uint64_t next_frame, faults, evictions, calls;
static uint64_t kernel_sum;

/* Never called: hindsight must find it in this code's pages all the same, and say so. */
__asm__(".section .user.text, \"ax\"\n"
	".balign 16\n"
	".type user_clock, @object\n" /* so that it is not rewritten as the kernel's text is */
	"user_clock:\n"
	"	rdtsc\n"
	"	ret\n"
	".size user_clock, . - user_clock\n"
	/* Not rewritten either: uint64_t user_cpu(void), CPUID leaf 1 EBX, which has the CPU's number. */
	".type user_cpu, @object\n"
	"user_cpu:\n"
	"	push %rbx\n"
	"	mov $1, %eax\n"
	"	cpuid\n"
	"	mov %ebx, %eax\n"
	"	pop %rbx\n"
	"	ret\n"
	".size user_cpu, . - user_cpu\n"
	".balign 16\n"
	".text\n");

uint64_t user_cpu(void);

static USER_TEXT void user_main(void)
{
	uint64_t own = PRIVATE_START, mixed = user_cpu();

	for (uint64_t step = 0; step < user_steps; step++) {
		uint64_t page, answer;

		for (unsigned i = 0; i < 500; i++)
			own = lcg(own);
		/* A few pages for a while, then a few others. */
		page = (step / 32 * 37 + (own >> 60)) % PAGES;
		((volatile uint64_t *)(WINDOW + page * PAGE_SIZE))[own >> 40 & (WORDS - 1)] += 1;
		mixed = (mixed ^ user_tick) * 0x9e3779b97f4a7c15UL + page;
		answer = usyscall(SYS_STEP, step, own, mixed);
		if (answer != (step ^ own))
			usyscall(SYS_DONE, 1, own, mixed);
	}
	usyscall(SYS_DONE, 0, own, mixed);
}

static void tick(void)
{
	user_tick++;
}

static void page_in(struct trap_frame *frame)
{
	uint64_t gva = read_cr2() & ~(PAGE_SIZE - 1), page = (gva - WINDOW) / PAGE_SIZE;
	uint64_t f = next_frame++ % FRAMES;
	uint64_t *words = (uint64_t *)frame_memory[f];

	if (gva < WINDOW || page >= PAGES || (frame->error & ~ERROR_WRITE) != ERROR_USER)
		panic("page fault at %lx, error %lx, rip %lx", read_cr2(), frame->error,
		      frame->rip);
	faults++;
	if (frame_page[f]) {
		uint64_t old = frame_page[f] - 1;

		page_unmap(WINDOW + old * PAGE_SIZE);
		memcpy(swapped[old], words, sizeof(swapped[old]));
		evictions++;
	}
	memcpy(words, swapped[page], sizeof(swapped[page]));
	frame_page[f] = page + 1;
	page_map(gva, (uint64_t)words, PAGE_PRESENT | PAGE_WRITE | PAGE_USER);
}

/* What user mode has counted, wherever it is now. */
static uint64_t count_all(void)
{
	uint64_t total = 0;

	for (unsigned f = 0; f < FRAMES; f++)
		if (frame_page[f])
			memcpy(swapped[frame_page[f] - 1], frame_memory[f], sizeof(swapped[0]));
	for (unsigned p = 0; p < PAGES; p++)
		for (unsigned w = 0; w < WORDS; w++)
			total += swapped[p][w];
	return total;
}

static uint64_t on_syscall(uint64_t nr, uint64_t a, uint64_t own, uint64_t mixed)
{
	bool ok;

	if (nr == SYS_STEP) {
		if (a != calls++)
			panic("system call %lu comes as number %lu", a, calls - 1);
		kernel_sum = fold(kernel_sum, mixed);
		return a ^ own;
	}
	ok = a == 0 && calls == user_steps && count_all() == user_steps &&
	     own == lcg_jump(PRIVATE_START, 500 * user_steps);
	kprintf("user: %s, %lu calls, %lu faults, %lu evictions, %lu ticks, sums %016lx %016lx\n",
		ok ? "ok" : "CORRUPTED", calls, faults, evictions, timer_ticks, mixed, kernel_sum);
	guest_exit(!ok);
}

void guest_main(void)
{
	user_steps = cmdline_get_u64("n", 400);
	user_pages_open();
	trap_set_handler(VECTOR_PAGE_FAULT, page_in);
	syscall_set_handler(on_syscall);
	timer_set_callback(tick);
	timer_start(TICK_HZ);
	user_enter(user_main, user_stack + USER_STACK_BYTES);
}
