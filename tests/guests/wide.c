// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * Stores of every width to one page, under a tick: by plain moves, by string instructions, from SSE registers and
 * by CMPXCHG16B. A model of the page, written by plain moves only, must agree in the end.
 * at=ADDRESS: the page, for a test that watches it.
 */
#include "test.h"

#define TICK_HZ 1000
#define PAGE_BYTES 4096
#define KINDS 8

static uint8_t own_page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
static uint8_t model[PAGE_BYTES];

/* At `to` (aligned to 16 bytes) with `value`; returns how many of its bytes were stored, 0: the
 * upper half. */
static unsigned store(uint8_t *to, unsigned kind, const uint64_t value[2])
{
	uint64_t low = value[0], high = value[1];
	const uint64_t *from = value;
	uint64_t *words = (uint64_t *)to;

	switch (kind) {
	case 0:
		__asm__ volatile("movb %b0, (%1)" ::"r"(low), "r"(to) : "memory");
		return 1;
	case 1:
		__asm__ volatile("movl %k0, (%1)" ::"r"(low), "r"(to) : "memory");
		return 4;
	case 2:
		__asm__ volatile("movq %0, (%1)" ::"r"(low), "r"(to) : "memory");
		return 8;
	case 3:
		__asm__ volatile("movsq; movsq" : "+S"(from), "+D"(to)::"memory");
		return 16;
	case 4:
		__asm__ volatile("movups (%0), %%xmm1; movups %%xmm1, (%1)" ::"r"(value), "r"(to) : "memory");
		return 16;
	case 5:
		__asm__ volatile("movq %0, %%xmm1; movd %%xmm1, (%1)" ::"r"(low), "r"(to) : "memory");
		return 4;
	case 6:
		__asm__ volatile("movups (%0), %%xmm1; movhps %%xmm1, (%1)" ::"r"(value), "r"(to) : "memory");
		return 0;
	default: {
		uint64_t old_low = words[0], old_high = words[1];

		__asm__ volatile("lock cmpxchg16b (%4)"
				 : "+a"(old_low), "+d"(old_high)
				 : "b"(low), "c"(high), "r"(to)
				 : "memory", "cc");
		return 16;
	}
	}
}

static void sse_enable(void)
{
	uint64_t cr4;

	__asm__ volatile("movq %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("movq %0, %%cr4" ::"r"(cr4 | 1UL << 9));
}

void guest_main(void)
{
	uint8_t *page = (uint8_t *)cmdline_get_u64("at", (uint64_t)own_page);
	uint64_t n = cmdline_get_u64("n", 400);
	uint64_t x = 5, sum = 0;
	unsigned wrong = 0;

	sse_enable();
	timer_start(TICK_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t value[2];
		unsigned at, kind, bytes;

		x = lcg(x);
		at = (unsigned)(x >> 40) % (PAGE_BYTES / 16) * 16;
		kind = (unsigned)(x >> 20) % KINDS;
		value[0] = x = lcg(x);
		value[1] = x = lcg(x);
		bytes = store(page + at, kind, value);
		memcpy(model + at, bytes ? value : value + 1, bytes ? bytes : 8);
	}
	irq_disable();
	for (unsigned i = 0; i < PAGE_BYTES; i++) {
		wrong += page[i] != model[i];
		sum = fold(sum, page[i]);
	}
	kprintf("wide: %lu stores, %u bytes wrong, sum %016lx\n", n, wrong, sum);
	guest_exit(wrong != 0);
}
