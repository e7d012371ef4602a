// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Reads the time from devices over and over: counter and status of the PIT, seconds and the
 * update flag of the RTC. Sleeps in between, so that seconds do pass.
 */
#include "test.h"

#define TICK_HZ 50
#define FAST_HZ 2000
#define PIT_CHANNEL0 0x40
#define PIT_CHANNEL2 0x42
#define PIT_COMMAND 0x43
#define LATCH_0 0x00
#define LATCH_2 0x80
#define READ_BACK_STATUS_0 0xe2
#define PORT_B 0x61
#define RTC_SECONDS 0x00
#define RTC_A 0x0a
#define RTC_UPDATING 0x80

static uint64_t sum, wrong, updating, seconds_seen;

static uint8_t cmos_read(uint8_t reg)
{
	outb(CMOS_INDEX, reg);
	return inb(CMOS_DATA);
}

static uint16_t pit_read(uint8_t latch, uint16_t port)
{
	uint16_t low;

	outb(PIT_COMMAND, latch);
	low = inb(port);
	return (uint16_t)(low | inb(port) << 8);
}

/* Channel 2 free-running from 65536: counts down by less than it takes to wrap. */
static void poll_pit(void)
{
	uint16_t before = pit_read(LATCH_2, PIT_CHANNEL2);
	uint16_t after = pit_read(LATCH_2, PIT_CHANNEL2);

	sum = fold(sum, (uint64_t)before << 16 | after);
	sum = fold(sum, pit_read(LATCH_0, PIT_CHANNEL0));
	outb(PIT_COMMAND, READ_BACK_STATUS_0);
	/* Mode 2, low then high byte, binary; OUT and the null count come and go. */
	wrong += (inb(PIT_CHANNEL0) & 0x3f) != 0x34;
}

static void poll_rtc(void)
{
	static uint8_t last = 0xff;
	uint8_t second;

	if (cmos_read(RTC_A) & RTC_UPDATING) {
		updating++;
		return;
	}
	second = cmos_read(RTC_SECONDS);
	wrong += second > 0x59 || (second & 15) > 9;
	seconds_seen += second != last;
	last = second;
	sum = fold(sum, second);
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 200);

	outb(PORT_B, (inb(PORT_B) & 0x0c) | 1); /* gate of channel 2, speaker off */
	outb(PIT_COMMAND, 0xb4);		/* channel 2, low then high byte, mode 2 */
	outb(PIT_CHANNEL2, 0);
	outb(PIT_CHANNEL2, 0);
	timer_start(FAST_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		poll_pit();
		poll_rtc();
		/* Mostly fast ticks; every fourth round a slow one brings the second forward. */
		if (i % 4 == 0) {
			timer_start(TICK_HZ);
			cpu_halt();
			timer_start(FAST_HZ);
		}
	}
	irq_disable();
	kprintf("poll: %s, %lu rounds, %lu seconds, %lu times updating, %lu ticks, sum %016lx\n",
		wrong ? "WRONG" : "ok", n, seconds_seen, updating, timer_ticks, sum);
	guest_exit(wrong != 0);
}
