// SPDX-License-Identifier: GPL-3.0-or-later
#include "flow.h"

#include "guest.h"

#define REPORT_BYTES 16384
#define KEEPALIVE_BYTES 28
#define HEADER_BYTES 20

struct flow flow = {.next_report = REPORT_BYTES};
static volatile uint16_t last_checksum;

/* Internet checksum (RFC 1071); in IPv4 it covers the header only. */
static uint16_t checksum(const uint8_t *data, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

void flow_packet(const uint8_t *data, uint32_t len)
{
	uint64_t total;

	last_checksum = checksum(data, HEADER_BYTES);
	flow.packet_bytes += len;
	total = flow.bytes + len;
	if (total >= flow.next_report) {
		flow.reports++;
		flow.next_report = total + REPORT_BYTES;
	}
	flow.bytes = total;
}

void flow_keepalive(void)
{
	flow.keepalive_bytes += KEEPALIVE_BYTES;
	flow.bytes += KEEPALIVE_BYTES;
}

bool flow_consistent(void)
{
	uint64_t flags = irq_save();
	bool same = flow.bytes == flow.packet_bytes + flow.keepalive_bytes;

	irq_restore(flags);
	return same;
}
