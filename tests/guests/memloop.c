// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * A loop that changes memory and no register: without an instruction clock, one round differs from
 * the next in the counter alone. The timer interrupt ends it.
 */
#include "test.h"

#define TICK_HZ 1000

extern char memloop_end[];
void memloop(void);
extern volatile uint32_t memloop_counter;

__asm__(".text\n"
	".globl memloop, memloop_end\n"
	".type memloop, @function\n"
	"memloop:\n"
	"1:	incl memloop_counter(%rip)\n"
	"	jmp 1b\n"
	"memloop_end:\n"
	"	ret\n"
	".size memloop, . - memloop\n");

volatile uint32_t memloop_counter;
static struct span span;
static struct trap_frame first;
static bool corrupted;
static uint64_t trail;

static void tick(struct trap_frame *frame)
{
	timer_ticks++;
	outb(PIC_MASTER, PIC_EOI);
	if (frame->rip < (uint64_t)memloop || frame->rip >= (uint64_t)memloop_end)
		return;
	if (!first.rip)
		first = *frame;
	/* All registers that lie before the vector. */
	corrupted |= memcmp(frame, &first, offsetof(struct trap_frame, vector)) != 0 ||
		     frame->rsp != first.rsp;
	trail = fold(trail, frame->rip ^ memloop_counter);
	if (span_is_over(&span))
		frame->rip = (uint64_t)memloop_end;
}

void guest_main(void)
{
	/* Short, because without a clock each round is a stop of the replay. */
	span = span_begin(50, 200);
	timer_start(TICK_HZ);
	trap_set_handler(IRQ_BASE, tick);
	irq_enable();
	memloop();
	irq_disable();
	kprintf("memloop: %s, %u rounds in %lu ticks, trail %016lx\n",
		corrupted ? "CORRUPTED" : "ok", memloop_counter, timer_ticks, trail);
	guest_exit(corrupted);
}
