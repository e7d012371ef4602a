/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Byte accounting of a traffic meter. */
#ifndef FLOW_H
#define FLOW_H

#include <stdbool.h>
#include <stdint.h>

struct flow {
	uint64_t bytes;	      /* everything seen, the number that is billed */
	uint64_t next_report; /* at how many bytes the next report is due */
	uint64_t reports;
	uint64_t packet_bytes;	  /* share of the packets */
	uint64_t keepalive_bytes; /* share of the keep-alives */
};

extern struct flow flow;

void flow_packet(const uint8_t *data, uint32_t len);
/* To be called on every timer tick. */
void flow_keepalive(void);
/* Compare the total with its parts. */
bool flow_consistent(void);

#endif
