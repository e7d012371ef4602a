// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Interrupts within interrupts: the handlers of the PIT and of the RTC's periodic interrupt enable
 * interrupts while they work. The order and depth of all goes into a checksum; the interrupted
 * computation must not notice.
 */
#include "test.h"

#define TICK_HZ 1000
#define RTC_LINE 8
#define RTC_RATE_1024HZ 6
#define RTC_A 0x0a
#define RTC_B 0x0b
#define RTC_C 0x0c
#define RTC_PERIODIC 0x40
#define DEPTH_MAX 4
#define WORK 60

static unsigned depth, deepest;
static uint64_t pit_count, rtc_count, trail, misnested;
static struct span span;
static volatile bool done;

static uint8_t cmos_read(uint8_t reg)
{
	outb(CMOS_INDEX, reg);
	return inb(CMOS_DATA);
}

static void cmos_write(uint8_t reg, uint8_t value)
{
	outb(CMOS_INDEX, reg);
	outb(CMOS_DATA, value);
}

/* The part of a handler that others may interrupt. */
static void work(uint64_t who)
{
	unsigned mine = ++depth;
	uint64_t x = who;

	if (mine > deepest)
		deepest = mine;
	trail = fold(trail, who << 8 | mine);
	if (mine < DEPTH_MAX)
		irq_enable();
	for (unsigned i = 0; i < WORK; i++)
		x = lcg(x);
	irq_disable();
	misnested += depth != mine || x != lcg_jump(who, WORK);
	depth--;
}

static void on_pit(struct trap_frame *frame)
{
	(void)frame;
	timer_ticks++;
	pit_count++;
	/* Told to be finished at once: its own next tick may come in between as well. */
	outb(PIC_MASTER, PIC_EOI);
	work(1);
	if (span_is_over(&span))
		done = true;
}

static void on_rtc(struct trap_frame *frame)
{
	(void)frame;
	rtc_count++;
	cmos_read(RTC_C);
	/* Still in service: only the PIT, which has priority, can interrupt this. */
	work(2);
	outb(PIC_SLAVE, PIC_EOI);
	outb(PIC_MASTER, PIC_EOI);
}

void guest_main(void)
{
	uint64_t x = 1, steps = 0;
	bool ok;

	span = span_begin(110, 600);
	trap_set_handler(IRQ_BASE, on_pit);
	trap_set_handler(IRQ_BASE + RTC_LINE, on_rtc);
	cmos_write(RTC_A, (cmos_read(RTC_A) & 0x70) | RTC_RATE_1024HZ);
	cmos_write(RTC_B, cmos_read(RTC_B) | RTC_PERIODIC);
	cmos_read(RTC_C);
	irq_unmask(RTC_LINE);
	timer_start(TICK_HZ);
	irq_enable();
	for (; !done; steps++)
		x = lcg(x);
	irq_disable();
	ok = x == lcg_jump(1, steps) && !depth && !misnested && pit_count && rtc_count;
	kprintf("nested: %s, PIT %lu, RTC %lu, depth %u, %lu misnested, %lu steps, trail %016lx\n",
		ok ? "ok" : "CORRUPTED", pit_count, rtc_count, deepest, misnested, steps, trail);
	guest_exit(!ok);
}
