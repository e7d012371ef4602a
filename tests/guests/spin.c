// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * Computes: arithmetic, loads, stores, calls and branches, n=N iterations, with a timer of 100 Hz
 * beside it (hz=N; 0: none). For benchmarks; the checksum does not depend on time.
 */
#include "test.h"

#define TICK_HZ 100
#define WORDS 512

static uint64_t table[WORDS];

static __attribute__((noinline)) uint64_t mix(uint64_t x, uint64_t y)
{
	return (x >> 17 | x << 47) + (y ^ x >> 5);
}

static __attribute__((noinline)) uint64_t visit(uint64_t x, unsigned depth)
{
	uint64_t *slot = &table[x % WORDS];

	if (*slot & 1)
		x += *slot;
	else
		x ^= *slot << 1;
	*slot = mix(*slot, x);
	return depth ? visit(x, depth - 1) : x;
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 2500), hz = cmdline_get_u64("hz", TICK_HZ), x = 1;

	for (unsigned i = 0; i < WORDS; i++)
		table[i] = i;
	if (hz)
		timer_start((unsigned)hz);
	irq_enable();
	for (uint64_t i = 0; i < n; i++)
		x = visit(lcg(x), (unsigned)(x >> 62));
	irq_disable();
	kprintf("spin: %lu iterations, sum %016lx\n", n, x);
}
