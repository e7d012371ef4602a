/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the test guests share beside the guest library. */
#ifndef TEST_H
#define TEST_H

#include "guest.h"

#define PIC_MASTER 0x20
#define PIC_SLAVE 0xa0
#define PIC_EOI 0x20

#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71

/* Mix a value into a checksum; order matters. */
static inline uint64_t fold(uint64_t sum, uint64_t v)
{
	sum = (sum ^ v) * 0x9e3779b97f4a7c15UL;
	return sum ^ sum >> 29;
}

#define LCG_MUL 6364136223846793005UL
#define LCG_ADD 1442695040888963407UL

static inline __attribute__((always_inline)) uint64_t lcg(uint64_t x)
{
	return x * LCG_MUL + LCG_ADD;
}

/* n steps of lcg() at once: verifies a long computation at the cost of a short one. */
static inline uint64_t lcg_jump(uint64_t x, uint64_t n)
{
	uint64_t mul = LCG_MUL, add = LCG_ADD;

	for (; n; n >>= 1) {
		if (n & 1)
			x = x * mul + add;
		add *= mul + 1;
		mul *= mul;
	}
	return x;
}

/* Under hindsight one count is one ns of virtual time. */
static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}

/*
 * How long a guest runs that has no end of its own: ms=N of virtual time or ticks=N handled timer
 * interrupts, whichever is over first. Ticks alone would not do: how many of them a second brings
 * depends on how often the host looks.
 */
struct span {
	uint64_t end_tsc;
	uint64_t ticks;
};

static inline struct span span_begin(uint64_t ms, uint64_t ticks)
{
	return (struct span){
		.end_tsc = rdtsc() + cmdline_get_u64("ms", ms) * 1000000,
		.ticks = cmdline_get_u64("ticks", ticks),
	};
}

/* To be called once a tick. */
static inline bool span_is_over(struct span *span)
{
	if (span->ticks)
		span->ticks--;
	return !span->ticks || rdtsc() >= span->end_tsc;
}

#endif
