// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A small gateway: for every connection an audit record goes to non-volatile memory, then a session
 * is opened; sessions are swept now and then; the CPU sleeps in between. Connections come from a
 * generator, in bursts.
 */
#include "guest.h"
#include "nvlog.h"
#include "session.h"

#define TICK_HZ 1000
#define BURST_MIN 60
#define BURST_SPREAD 120
#define PAUSE_TICKS_MIN 5
#define PAUSE_TICKS_SPREAD 32
#define SWEEP_TICKS 250
#define SESSION_TICKS 200
#define WATCHDOG_TICKS 8

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	return (xorshift64(&random_state) >> 16) % n;
}

static void connection_accept(void)
{
	uint64_t r = xorshift64(&random_state);
	uint32_t peer = 0x0a000000 | (uint32_t)(r >> 40);
	uint16_t port = (uint16_t)r;
	struct {
		uint32_t peer;
		uint16_t port;
		char user[8];
	} __attribute__((packed)) record = {peer, port, "operator"};

	nvlog_write(&record, 6 + (size_t)(r >> 16) % (sizeof(record.user) + 1));
	session_open(peer, port);
}

void guest_main(void)
{
	uint64_t ticks = cmdline_get_u64("ticks", 800);
	uint64_t next_burst = 0, next_sweep = SWEEP_TICKS;
	size_t closed = 0;

	random_state = random_seed();
	nvlog_init(cmdline_get_u64("watchdog", WATCHDOG_TICKS));
	session_init();
	timer_set_callback(nvlog_tick);
	timer_start(TICK_HZ);
	irq_enable();
	kprintf("gateway up, %d ticks a second\n", TICK_HZ);
	while (timer_ticks < ticks) {
		if (timer_ticks >= next_burst) {
			for (uint64_t n = BURST_MIN + random_below(BURST_SPREAD); n; n--)
				connection_accept();
			next_burst =
				timer_ticks + PAUSE_TICKS_MIN + random_below(PAUSE_TICKS_SPREAD);
		}
		if (timer_ticks >= next_sweep) {
			closed += session_sweep(timer_ticks - SESSION_TICKS);
			next_sweep += SWEEP_TICKS;
		}
		cpu_halt();
	}
	irq_disable();
	closed += session_sweep(~0ul);
	kprintf("%lu records, %lu sessions closed\n", nvlog_records(), closed);
}
