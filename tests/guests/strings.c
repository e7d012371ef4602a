// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Long string instructions, by bytes and by quads, upwards and downwards, with interrupts in
 * between. What they leave is verified; the trail of where the ticks came is printed.
 */
#include "test.h"

#define TICK_HZ 1000
#define BUFFER_BYTES (104 * 1024UL)
#define GUARD 64

static uint8_t a[BUFFER_BYTES + 2 * GUARD] __attribute__((aligned(64)));
static uint8_t b[BUFFER_BYTES + 2 * GUARD] __attribute__((aligned(64)));
static uint64_t trail;
static volatile uint64_t operation;
static uint8_t in_handler[96];

static void tick(struct trap_frame *frame)
{
	uint8_t *p = in_handler;
	uint64_t n = sizeof(in_handler);

	timer_ticks++;
	outb(PIC_MASTER, PIC_EOI);
	trail = fold(trail, operation << 1 | (frame->rflags >> 10 & 1));
	/* Counts upwards even if the interrupted code has set DF. */
	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"((uint8_t)trail) : "memory");
}

/* One string instruction with REP; the pointers are those of the lowest byte. */
#define STRING(name, insn, unit)                                                                   \
	static void name(uint8_t *dst, const uint8_t *src, uint64_t value, uint64_t n, bool down)  \
	{                                                                                          \
		operation++;                                                                       \
		if (down) {                                                                        \
			dst += (n - 1) * (unit);                                                   \
			src += (n - 1) * (unit);                                                   \
			__asm__ volatile("std; rep " insn "; cld"                                  \
					 : "+D"(dst), "+S"(src), "+c"(n)                           \
					 : "a"(value)                                              \
					 : "memory", "cc");                                        \
		} else {                                                                           \
			__asm__ volatile("rep " insn                                               \
					 : "+D"(dst), "+S"(src), "+c"(n)                           \
					 : "a"(value)                                              \
					 : "memory", "cc");                                        \
		}                                                                                  \
	}

STRING(move_bytes, "movsb", 1)
STRING(move_quads, "movsq", 8)
STRING(store_bytes, "stosb", 1)
STRING(store_quads, "stosq", 8)

static bool equal_quads(const void *x, const void *y, uint64_t n)
{
	bool same;

	operation++;
	__asm__ volatile("repe cmpsq" : "+S"(x), "+D"(y), "+c"(n), "=@cce"(same) : : "memory");
	return same;
}

/* No byte in a block other than `value`. */
static bool only_bytes(const uint8_t *p, uint8_t value, uint64_t n)
{
	bool same;

	operation++;
	__asm__ volatile("repe scasb" : "+D"(p), "+c"(n), "=@cce"(same) : "a"(value) : "memory");
	return same;
}

static bool guards_hold(void)
{
	return only_bytes(a, 0xee, GUARD) && only_bytes(b, 0xdd, GUARD) &&
	       only_bytes(a + GUARD + BUFFER_BYTES, 0xee, GUARD) &&
	       only_bytes(b + GUARD + BUFFER_BYTES, 0xdd, GUARD);
}

/* Checksum over one byte in 61. */
static uint64_t sample(const uint8_t *p, uint64_t n)
{
	uint64_t sum = n;

	for (uint64_t i = 0; i < n; i += 61)
		sum = fold(sum, p[i]);
	return sum;
}

/* Blocks of `size` bytes, a multiple of 8, both ways. */
static bool exercise(uint64_t size, bool down, uint64_t *sum)
{
	uint8_t *x = a + GUARD, *y = b + GUARD;
	uint64_t pattern = lcg(size + down);
	bool ok = true;

	store_quads(x, x, pattern, size / 8, down);
	/* Else no error in order or length would show. */
	x[0] ^= 0x5a;
	x[size - 1] ^= 0xa5;
	move_quads(y, x, 0, size / 8, !down);
	ok &= equal_quads(x, y, size / 8);
	*sum = fold(*sum, sample(y, size));
	/* Overlapping by all but eight bytes, in the direction that keeps the contents. */
	if (down) {
		move_quads(x + 8, x, 0, size / 8 - 1, true);
		ok &= equal_quads(x + 8, y, size / 8 - 1);
	} else {
		move_quads(x, x + 8, 0, size / 8 - 1, false);
		ok &= equal_quads(x, y + 8, size / 8 - 1);
	}
	return ok && guards_hold();
}

static bool exercise_bytes(uint64_t size, bool down, uint64_t *sum)
{
	uint8_t *x = a + GUARD, *y = b + GUARD;
	uint8_t value = (uint8_t)(size >> 3);
	bool ok;

	store_bytes(x, x, value, size, down);
	ok = only_bytes(x, value, size);
	/* Overlapping by all but one byte, in the direction that spreads one byte over all. */
	if (down) {
		x[size - 1] = (uint8_t)~value;
		move_bytes(x, x + 1, 0, size - 1, true);
	} else {
		x[0] = (uint8_t)~value;
		move_bytes(x + 1, x, 0, size - 1, false);
	}
	ok &= only_bytes(x, (uint8_t)~value, size);
	move_bytes(y, x, 0, size, down);
	*sum = fold(*sum, sample(y, size));
	return ok && guards_hold();
}

void guest_main(void)
{
	static const uint64_t quads[] = {1024, 8192, 100 * 1024, 24 * 1024};
	static const uint64_t bytes[] = {1, 2, 1024, 3001};
	uint64_t sum = 0, n = cmdline_get_u64("n", 1);
	bool ok = true;

	store_quads(a, a, 0xeeeeeeeeeeeeeeee, sizeof(a) / 8, false);
	store_quads(b, b, 0xdddddddddddddddd, sizeof(b) / 8, true);
	timer_start(TICK_HZ);
	trap_set_handler(IRQ_BASE, tick);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		for (size_t k = 0; k < sizeof(quads) / sizeof(quads[0]); k++) {
			ok &= exercise(quads[k], (k + i) & 1, &sum);
			ok &= exercise_bytes(bytes[k], k & 1, &sum);
			ok &= exercise_bytes(bytes[k], !(k & 1), &sum);
		}
		ok &= exercise_bytes(16 * 1024, i & 1, &sum);
	}
	irq_disable();
	kprintf("strings: %s, %lu operations, sum %016lx, %lu ticks, trail %016lx\n",
		ok ? "ok" : "CORRUPTED", operation, sum, timer_ticks, trail);
	guest_exit(!ok);
}
