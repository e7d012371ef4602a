// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Echoes lines from the serial port until one says "quit", and tells for each how long it waited
 * for it, so that the time of arrival shows in the output. By turns it waits in a loop over memory
 * that an interrupt handler fills, polls the port, and sleeps.
 */
#include "test.h"

#define TICK_HZ 1000
#define SERIAL_LINE 4
#define LINE_MAX 80
#define RING 64
#define IER_RX 0x01

static volatile char ring[RING];
static volatile unsigned ring_head, ring_tail;
static uint64_t sum;

enum waiting { WAIT_MEMORY, WAIT_POLL, WAIT_HALT, WAITS };

static void on_serial(void)
{
	while (serial_ready()) {
		ring[ring_head % RING] = (char)inb(COM1);
		ring_head++;
	}
}

static char ring_take(void)
{
	char c = ring[ring_tail % RING];

	ring_tail++;
	return c;
}

static char wait_memory(uint64_t *waits)
{
	while (ring_head == ring_tail)
		++*waits;
	return ring_take();
}

static char wait_poll(uint64_t *waits)
{
	/* Some may have come by interrupt before polling began. */
	if (ring_head != ring_tail)
		return ring_take();
	while (!serial_ready())
		++*waits;
	return (char)inb(COM1);
}

/* Without the timer: only input ends the sleep. */
static char wait_halt(uint64_t *waits)
{
	irq_disable();
	irq_mask(0);
	while (ring_head == ring_tail) {
		++*waits;
		cpu_halt();
		irq_disable();
	}
	irq_unmask(0);
	irq_enable();
	return ring_take();
}

static size_t read_line(enum waiting how, char *line, uint64_t *waits)
{
	static char (*const wait[WAITS])(uint64_t *) = {wait_memory, wait_poll, wait_halt};
	size_t len = 0;

	outb(COM1 + 1, how == WAIT_POLL ? 0 : IER_RX);
	for (;;) {
		char c = wait[how](waits);

		if (c == '\n' || c == '\r')
			break;
		if (len < LINE_MAX - 1)
			line[len++] = c;
		sum = fold(sum, (uint8_t)c + *waits * 256);
	}
	line[len] = 0;
	return len;
}

void guest_main(void)
{
	static const char *const name[WAITS] = {"memory", "poll", "halt"};
	char line[LINE_MAX];
	uint64_t lines = 0, bytes = 0;

	irq_set_handler(SERIAL_LINE, on_serial);
	irq_unmask(SERIAL_LINE);
	timer_start(TICK_HZ);
	irq_enable();
	kprintf("ready\n");
	do {
		enum waiting how = (enum waiting)(lines++ % WAITS);
		uint64_t waits = 0;

		bytes += read_line(how, line, &waits);
		kprintf("%s %lu: %s\n", name[how], waits, line);
	} while (strcmp(line, "quit") != 0);
	irq_disable();
	kprintf("serial_in: %lu lines, %lu bytes, %lu ticks, sum %016lx\n", lines, bytes,
		timer_ticks, sum);
}
