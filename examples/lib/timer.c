// SPDX-License-Identifier: GPL-3.0-or-later
/* Periodic tick from channel 0 of the 8254. */
#include "guest.h"

#define PIT_HZ 1193182
#define PIT_CHANNEL0 0x40
#define PIT_COMMAND 0x43
#define TIMER_LINE 0

volatile uint64_t timer_ticks;
static void (*callback)(void);

static void timer_interrupt(void)
{
	timer_ticks++;
	if (callback)
		callback();
}

void timer_set_callback(void (*fn)(void))
{
	callback = fn;
}

void timer_start(unsigned hz)
{
	unsigned divisor = PIT_HZ / hz;

	irq_set_handler(TIMER_LINE, timer_interrupt);
	outb(PIT_COMMAND, 0x34); /* channel 0, low then high byte, mode 2 */
	outb(PIT_CHANNEL0, (uint8_t)divisor);
	outb(PIT_CHANNEL0, (uint8_t)(divisor >> 8));
	irq_unmask(TIMER_LINE);
}
