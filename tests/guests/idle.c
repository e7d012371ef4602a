// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/* Sleeps for ms=N of its time, woken by nothing but a timer of 100 Hz. */
#include "test.h"

#define TICK_HZ 100

void guest_main(void)
{
	uint64_t ms = cmdline_get_u64("ms", 300), ticks = ms * TICK_HZ / 1000;

	timer_start(TICK_HZ);
	while (timer_ticks < ticks)
		cpu_halt();
	irq_disable();
	kprintf("idle: %lu ticks of %u ms\n", timer_ticks, 1000 / TICK_HZ);
}
