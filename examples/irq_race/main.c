// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A traffic meter: the main loop counts packets, the timer interrupt counts keep-alives. It polls
 * its packets and never sleeps, so interrupts come wherever the loop happens to be.
 */
#include "flow.h"
#include "guest.h"

#define TICK_HZ 250
#define PACKETS 8
#define PACKET_MAX 64

static uint8_t packet[PACKETS][PACKET_MAX];

void guest_main(void)
{
	uint64_t ticks = cmdline_get_u64("ticks", 30);
	uint64_t random_state = random_seed();
	bool consistent = true;

	for (size_t i = 0; i < PACKETS; i++)
		for (size_t j = 0; j < PACKET_MAX; j++)
			packet[i][j] = (uint8_t)xorshift64(&random_state);
	kprintf("metering for %lu ticks\n", ticks);
	timer_set_callback(flow_keepalive);
	timer_start(TICK_HZ);
	irq_enable();
	while (timer_ticks < ticks && consistent) {
		for (size_t i = 0; i < PACKETS; i++)
			flow_packet(packet[i], 20 + packet[i][0] % (PACKET_MAX - 19));
		consistent = flow_consistent();
	}
	irq_disable();
	kprintf("%lu bytes in packets, %lu in keep-alives, %lu counted, %lu reports\n",
		flow.packet_bytes, flow.keepalive_bytes, flow.bytes, flow.reports);
	if (!flow_consistent()) {
		kprintf("LOST UPDATE: counter at %p is %lu, expected %lu, after %lu ticks\n",
			(void *)&flow.bytes, flow.bytes, flow.packet_bytes + flow.keepalive_bytes,
			timer_ticks);
		guest_exit(1);
	}
	kprintf("consistent\n");
}
