// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Interrupts at the edges: shadows after STI and MOV SS, POPF, IRET, and interrupts that are
 * enabled for a moment only, with one waiting already or not. Places where the architecture allows
 * no interrupt are checked; all others go into the checksum.
 */
#include "test.h"

#define TICK_HZ 20000
#define PIC_READ_IRR 0x0a

enum { SEQUENCES = 9, FORBIDDEN_MAX = 16 };

extern char shadow_begin[], shadow_end[];
extern void (*const shadow_sequence[SEQUENCES])(void);
/* Addresses at which no interrupt may be taken; 0 ends the list. */
extern const uint64_t shadow_forbidden[FORBIDDEN_MAX];

/*
 * All are called and return with interrupts off. "sti" is always executed with IF = 0, so its
 * shadow covers the next instruction. No two shadows overlap: only the first is guaranteed then.
 */
__asm__(".macro forbid\n"
	"9:\n"
	".pushsection .rodata.forbidden, \"a\"\n"
	"	.quad 9b\n"
	".popsection\n"
	".endm\n"
	".macro sequence name\n"
	".pushsection .rodata.sequences, \"a\"\n"
	"	.quad \\name\n"
	".popsection\n"
	".type \\name, @function\n"
	"\\name:\n"
	".endm\n"
	".pushsection .rodata.forbidden, \"a\"\n"
	".globl shadow_forbidden\n"
	".balign 8\n"
	"shadow_forbidden:\n"
	".popsection\n"
	".pushsection .rodata.sequences, \"a\"\n"
	".globl shadow_sequence\n"
	".balign 8\n"
	"shadow_sequence:\n"
	".popsection\n"
	".text\n"
	".globl shadow_begin, shadow_end\n"
	"shadow_begin:\n"
	"sequence shadow_sti_nop\n"
	"	sti\n"
	"	forbid\n"
	"	nop\n"
	"	nop\n"
	"	nop\n"
	"	cli\n"
	"	ret\n"
	".size shadow_sti_nop, . - shadow_sti_nop\n"
	/* IF is on, and yet no interrupt fits in. */
	"sequence shadow_flicker\n"
	".rept 4\n"
	"	sti\n"
	"	forbid\n"
	"	cli\n"
	"	nop\n"
	".endr\n"
	"	ret\n"
	".size shadow_flicker, . - shadow_flicker\n"
	"sequence shadow_sti_hlt\n"
	"	sti\n"
	"	forbid\n"
	"	hlt\n"
	"	cli\n"
	"	ret\n"
	".size shadow_sti_hlt, . - shadow_sti_hlt\n"
	"sequence shadow_mov_ss\n"
	"	movl %ss, %eax\n"
	"	sti\n"
	"	forbid\n"
	"	nop\n"
	"	movl %eax, %ss\n"
	"	forbid\n"
	"	nop\n"
	"	movl %eax, %ss\n"
	"	forbid\n"
	"	incl %ecx\n"
	"	nop\n"
	"	cli\n"
	"	ret\n"
	".size shadow_mov_ss, . - shadow_mov_ss\n"
	/* Interrupts go off within the shadow. */
	"sequence shadow_mov_ss_cli\n"
	"	movl %ss, %eax\n"
	"	sti\n"
	"	forbid\n"
	"	nop\n"
	"	movl %eax, %ss\n"
	"	forbid\n"
	"	cli\n"
	"	ret\n"
	".size shadow_mov_ss_cli, . - shadow_mov_ss_cli\n"
	/* POPF has no shadow: a waiting interrupt comes at once. */
	"sequence shadow_popf\n"
	"	pushfq\n"
	"	pushfq\n"
	"	orl $0x200, (%rsp)\n"
	"	popfq\n"
	"	popfq\n"
	"	ret\n"
	".size shadow_popf, . - shadow_popf\n"
	"sequence shadow_sti_popf\n"
	"	pushfq\n"
	"	sti\n"
	"	forbid\n"
	"	popfq\n"
	"	ret\n"
	".size shadow_sti_popf, . - shadow_sti_popf\n"
	"sequence shadow_iret\n"
	"	movq %rsp, %rcx\n"
	"	movl %ss, %eax\n"
	"	pushq %rax\n"
	"	pushq %rcx\n"
	"	pushfq\n"
	"	orl $0x200, (%rsp)\n"
	"	movl %cs, %eax\n"
	"	pushq %rax\n"
	"	leaq 1f(%rip), %rax\n"
	"	pushq %rax\n"
	"	iretq\n"
	"1:	cli\n"
	"	ret\n"
	".size shadow_iret, . - shadow_iret\n"
	/* A shadow over a return and over a memory access. */
	"sequence shadow_sti_call\n"
	"	call 2f\n"
	"	cli\n"
	"	ret\n"
	"2:	sti\n"
	"	forbid\n"
	"	ret\n"
	".size shadow_sti_call, . - shadow_sti_call\n"
	"shadow_end:\n"
	".pushsection .rodata.forbidden, \"a\"\n"
	"	.quad 0\n"
	".popsection\n");

static uint64_t trail, inside, violations;

static void tick(struct trap_frame *frame)
{
	timer_ticks++;
	outb(PIC_MASTER, PIC_EOI);
	trail = fold(trail, frame->rip);
	inside += frame->rip >= (uint64_t)shadow_begin && frame->rip < (uint64_t)shadow_end;
	for (unsigned i = 0; shadow_forbidden[i]; i++)
		violations += frame->rip == shadow_forbidden[i];
	violations += !(frame->rflags & 0x200);
}

/* With interrupts off, until one waits. */
static void wait_pending(void)
{
	do
		outb(PIC_MASTER, PIC_READ_IRR);
	while (!(inb(PIC_MASTER) & 1));
}

static void delay(uint64_t n)
{
	while (n--)
		__asm__ volatile("");
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 300), x = 5;

	timer_start(TICK_HZ);
	trap_set_handler(IRQ_BASE, tick);
	for (uint64_t i = 0; i < n; i++) {
		x = lcg(x);
		switch (x >> 61) {
		case 0:
		case 1:
			wait_pending();
			break;
		case 2:
			irq_enable();
			delay(x >> 40 & 0xff);
			irq_disable();
			break;
		default:
			delay(x >> 40 & 0xff);
		}
		shadow_sequence[(x >> 32) % SEQUENCES]();
	}
	kprintf("shadows: %s, %lu ticks, %lu of them in sequences, %lu at forbidden places, "
		"trail %016lx\n",
		violations ? "VIOLATED" : "ok", timer_ticks, inside, violations, trail);
	guest_exit(violations != 0 || !inside);
}
