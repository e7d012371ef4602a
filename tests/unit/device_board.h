/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A board with all devices and nothing else, for the tests of the devices: time is a variable,
 * lines go to the PIC and are counted, everything a device says is kept.
 */
#ifndef TESTS_UNIT_DEVICE_BOARD_H
#define TESTS_UNIT_DEVICE_BOARD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "vmm/dev/devices.h"

struct board {
	uint64_t now;
	struct pic pic;
	struct pit pit;
	struct uart uart;
	struct rtc rtc;
	struct i8042 i8042;
	struct debugport debugport;
	bool level[16];
	unsigned rises[16];
	uint8_t sent[64];
	size_t n_sent;
	unsigned requests;
	enum dev_request request;
	uint32_t code;
};

static inline uint64_t board_now(void *ctx)
{
	return ((struct board *)ctx)->now;
}

static inline void board_irq(void *ctx, unsigned line, bool level)
{
	struct board *b = ctx;

	assert_true(line < 16);
	b->rises[line] += level && !b->level[line];
	b->level[line] = level;
	pic_set_line(&b->pic, line, level);
}

static inline void board_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct board *b = ctx;

	(void)stream;
	b->sent[b->n_sent++ % sizeof(b->sent)] = byte;
}

static inline void board_request(void *ctx, enum dev_request what, uint32_t code)
{
	struct board *b = ctx;

	b->requests++;
	b->request = what;
	b->code = code;
}

static inline void board_init(struct board *b, int64_t epoch)
{
	struct dev_env env = {.ctx = b,
			      .now = board_now,
			      .irq = board_irq,
			      .output = board_output,
			      .request = board_request};

	*b = (struct board){0};
	pic_init(&b->pic);
	pit_init(&b->pit, &env);
	uart_init(&b->uart, &env);
	rtc_init(&b->rtc, &env, epoch, 6ull << 30);
	i8042_init(&b->i8042, &env);
	debugport_init(&b->debugport, &env);
}

#define N_DEVICES 6

struct device {
	const struct dev_ops *ops;
	void *dev;
	const struct pio_range *ranges;
	size_t n_ranges;
};

static inline struct device board_device(struct board *b, unsigned i)
{
	const struct device all[N_DEVICES] = {
		{&pic_ops, &b->pic, pic_ranges, ARRAY_SIZE(pic_ranges)},
		{&pit_ops, &b->pit, pit_ranges, ARRAY_SIZE(pit_ranges)},
		{&uart_ops, &b->uart, uart_ranges, ARRAY_SIZE(uart_ranges)},
		{&rtc_ops, &b->rtc, rtc_ranges, ARRAY_SIZE(rtc_ranges)},
		{&i8042_ops, &b->i8042, i8042_ranges, ARRAY_SIZE(i8042_ranges)},
		{&debugport_ops, &b->debugport, debugport_ranges, ARRAY_SIZE(debugport_ranges)},
	};

	return all[i];
}

static inline struct device board_find(struct board *b, uint16_t port)
{
	for (unsigned i = 0; i < N_DEVICES; i++) {
		struct device d = board_device(b, i);

		if (pio_in_ranges(d.ranges, d.n_ranges, port))
			return d;
	}
	fail_msg("no device at port 0x%x", port);
	return (struct device){0};
}

static inline void out(struct board *b, uint16_t port, uint8_t value)
{
	struct device d = board_find(b, port);

	d.ops->pio_write(d.dev, port, 1, value);
}

static inline uint8_t in(struct board *b, uint16_t port)
{
	struct device d = board_find(b, port);

	return (uint8_t)d.ops->pio_read(d.dev, port, 1);
}

static inline void board_walk(struct board *b, struct walker *w)
{
	for (unsigned i = 0; i < N_DEVICES; i++) {
		struct device d = board_device(b, i);

		d.ops->walk(d.dev, w);
	}
}

static inline void assert_same_state(struct board *a, struct board *b)
{
	struct walker save, compare;

	walker_init_save(&save);
	board_walk(a, &save);
	walker_init_compare(&compare, save.out.data, save.out.len);
	board_walk(b, &compare);
	assert_false(walker_failed(&compare));
	if (compare.differs)
		fail_msg("%s differs", compare.diff);
	walker_fini(&compare);
	walker_fini(&save);
}

/* Own generator: the same tests on every C library. xorshift64* (Vigna 2016). */
static inline uint32_t rnd(uint32_t below)
{
	static uint64_t seed = 88172645463325252ull;

	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (uint32_t)((seed * 0x2545f4914f6cdd1dull) >> 32) % below;
}

static inline uint8_t rnd_byte(void)
{
	return (uint8_t)rnd(256);
}

static inline uint8_t cmos(struct board *b, uint8_t reg)
{
	out(b, 0x70, reg);
	return in(b, 0x71);
}

static inline void cmos_set(struct board *b, uint8_t reg, uint8_t v)
{
	out(b, 0x70, reg);
	out(b, 0x71, v);
}

/* Go to the deadline of a device: nothing rises before it, the line rises at it. */
static inline void check_deadline(struct board *b, const struct dev_ops *ops, void *dev,
				  unsigned line)
{
	unsigned named = 99;
	uint64_t at = ops->deadline(dev, &named);
	unsigned rises;

	assert_int_equal(named, line);
	if (at == TIME_NEVER) {
		b->now += rnd(2000000000);
		rises = b->rises[line];
		ops->tick(dev);
		assert_int_equal(b->rises[line], rises);
		return;
	}
	assert_true(at > b->now);
	rises = b->rises[line];
	b->now += (at - 1 - b->now) / 2;
	ops->tick(dev);
	assert_true(ops->deadline(dev, &named) == at);
	b->now = at - 1;
	ops->tick(dev);
	assert_int_equal(b->rises[line], rises);
	b->now = at;
	ops->tick(dev);
	assert_int_equal(b->rises[line], rises + 1);
	assert_true(b->level[line]);
	ops->tick(dev);
	assert_int_equal(b->rises[line], rises + 1);
}

#endif
