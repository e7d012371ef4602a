// SPDX-License-Identifier: GPL-3.0-or-later
/* The UART, the keyboard controller, the debug ports, and all devices together. */
#include "tests/unit/device_board.h"

/* --- UART ---------------------------------------------------------------------- */

#define COM(reg) ((uint16_t)(0x3f8 + (reg)))

static void test_uart_autoconfig(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	/* As Linux' 8250 driver: IER bits, loopback modem lines, FIFO kind. */
	out(&b, COM(1), 0);
	assert_int_equal(in(&b, COM(1)), 0);
	out(&b, COM(1), 0xff);
	assert_int_equal(in(&b, COM(1)), 0x0f);
	out(&b, COM(1), 0);
	out(&b, COM(4), 0x1a);
	assert_int_equal(in(&b, COM(6)) & 0xf0, 0x90);
	out(&b, COM(4), 0);
	out(&b, COM(3), 0xbf);
	out(&b, COM(2), 0);
	out(&b, COM(3), 0);
	assert_int_equal(in(&b, COM(2)), 0x01);
	out(&b, COM(2), 1);
	assert_int_equal(in(&b, COM(2)), 0xc1);
	out(&b, COM(2), 0x21); /* 64-byte FIFO of the 16750: not here */
	assert_int_equal(in(&b, COM(2)) >> 5, 6);
	/* Divisor and scratch. */
	out(&b, COM(3), 0x83);
	out(&b, COM(0), 0x01);
	out(&b, COM(1), 0x02);
	assert_int_equal(in(&b, COM(0)), 0x01);
	assert_int_equal(in(&b, COM(1)), 0x02);
	out(&b, COM(3), 0x03);
	assert_int_equal(in(&b, COM(1)), 0);
	out(&b, COM(7), 0x5a);
	assert_int_equal(in(&b, COM(7)), 0x5a);
	assert_int_equal(b.n_sent, 0);
	assert_int_equal(in(&b, COM(5)), 0x60);
	in(&b, COM(6));
	assert_int_equal(in(&b, COM(6)), 0xb0);
}

static void test_uart_transmit(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	out(&b, COM(2), 0x01);
	/* Enabling the THRE interrupt raises it each time; reading IIR takes it back. */
	for (int i = 0; i < 2; i++) {
		out(&b, COM(1), 2);
		assert_true(b.level[4]);
		assert_int_equal(in(&b, COM(2)), 0xc2);
		assert_false(b.level[4]);
		assert_int_equal(in(&b, COM(2)), 0xc1);
		out(&b, COM(1), 0);
	}
	out(&b, COM(1), 2);
	unsigned rises = b.rises[4];

	out(&b, COM(0), 'h');
	out(&b, COM(0), 'i');
	assert_int_equal(b.rises[4], rises + 2); /* an edge for each byte */
	assert_int_equal(in(&b, COM(5)), 0x60);
	assert_memory_equal(b.sent, "hi", 2);
	/* A wide access touches consecutive registers. */
	uart_ops.pio_write(&b.uart, COM(7), 4, 0x11223344);
	assert_int_equal(uart_ops.pio_read(&b.uart, COM(7), 2), 0xff44);
	assert_int_equal(uart_ops.pio_read(&b.uart, COM(6), 4), 0xffff44b0);
}

static void test_uart_receive(void **state)
{
	static struct board b;
	static const uint8_t text[] = "abcdefghijklmnopqrst";

	(void)state;
	board_init(&b, 0);
	assert_int_equal(uart_room(&b.uart), 1);
	out(&b, COM(2), 0x87); /* trigger level 8 */
	out(&b, COM(1), 5);
	assert_int_equal(uart_room(&b.uart), 16);
	assert_false(b.level[4]);
	uart_receive(&b.uart, text, 3);
	assert_int_equal(in(&b, COM(2)), 0xcc); /* time-out */
	assert_int_equal(in(&b, COM(5)), 0x61);
	uart_receive(&b.uart, text + 3, 5);
	assert_int_equal(in(&b, COM(2)), 0xc4);
	assert_int_equal(uart_room(&b.uart), 8);
	uart_receive(&b.uart, text + 8, 10);
	assert_int_equal(uart_room(&b.uart), 0);
	assert_int_equal(in(&b, COM(2)), 0xc6); /* overrun comes first */
	assert_int_equal(in(&b, COM(5)), 0x63);
	assert_int_equal(in(&b, COM(5)), 0x61);
	for (int i = 0; i < 16; i++) {
		assert_true(b.level[4]);
		assert_int_equal(in(&b, COM(0)), text[i]);
	}
	assert_false(b.level[4]);
	assert_int_equal(in(&b, COM(5)), 0x60);
	assert_int_equal(in(&b, COM(2)), 0xc1);
	/* Clearing the FIFO drops what is there. */
	uart_receive(&b.uart, text, 3);
	out(&b, COM(2), 0x83);
	assert_int_equal(in(&b, COM(5)), 0x60);
	/* Without FIFO: one byte, overwritten. */
	out(&b, COM(2), 0);
	uart_receive(&b.uart, text, 2);
	assert_int_equal(in(&b, COM(5)), 0x63);
	assert_int_equal(in(&b, COM(0)), 'b');
}

static void test_uart_loopback(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	out(&b, COM(2), 1);
	out(&b, COM(4), 0x10);
	assert_int_equal(uart_room(&b.uart), 0);
	out(&b, COM(0), 'x');
	out(&b, COM(0), 'y');
	uart_receive(&b.uart, (const uint8_t *)"z", 1);
	assert_int_equal(b.n_sent, 0);
	assert_int_equal(in(&b, COM(0)), 'x');
	assert_int_equal(in(&b, COM(0)), 'y');
	assert_int_equal(in(&b, COM(5)), 0x60);
	/* Each modem output on its input; ring notes only its end. */
	in(&b, COM(6));
	out(&b, COM(1), 8);
	out(&b, COM(4), 0x14);
	assert_false(b.level[4]);
	assert_int_equal(in(&b, COM(6)), 0x40);
	out(&b, COM(4), 0x11);
	assert_true(b.level[4]);
	assert_int_equal(in(&b, COM(2)), 0xc0);
	assert_int_equal(in(&b, COM(6)), 0x26);
	assert_false(b.level[4]);
}

/* --- Keyboard controller, reset and debug ports ------------------------------ */

static void test_i8042(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	assert_int_equal(in(&b, 0x64) & 1, 0);
	out(&b, 0x64, 0xaa);
	assert_int_equal(in(&b, 0x64) & 3, 1);
	assert_int_equal(in(&b, 0x60), 0x55);
	out(&b, 0x64, 0xab);
	assert_int_equal(in(&b, 0x60), 0);
	out(&b, 0x64, 0x60);
	out(&b, 0x60, 0x65);
	out(&b, 0x64, 0x20);
	assert_true(b.level[1]);
	assert_int_equal(in(&b, 0x60), 0x65);
	assert_false(b.level[1]);
	out(&b, 0x60, 0xf2); /* identify: nobody there */
	assert_int_equal(in(&b, 0x64) & 1, 0);
	out(&b, 0x64, 0xd4);
	out(&b, 0x60, 0xf2);
	assert_int_equal(in(&b, 0x64) & 1, 0);
	out(&b, 0x64, 0xd1);
	out(&b, 0x60, 0xdd);
	out(&b, 0x64, 0xd0);
	assert_int_equal(in(&b, 0x60) & 3, 1);
	out(&b, 0x92, 2);
	assert_int_equal(in(&b, 0x92), 2);
	assert_int_equal(b.requests, 0);
	out(&b, 0x64, 0xfe);
	assert_int_equal(b.requests, 1);
	out(&b, 0x92, 3);
	assert_int_equal(b.requests, 2);
	out(&b, 0xcf9, 2);
	out(&b, 0xcf9, 4);
	assert_int_equal(b.requests, 2);
	out(&b, 0xcf9, 6);
	out(&b, 0xcf9, 0x0e);
	assert_int_equal(b.requests, 4);
	assert_int_equal(b.request, DEV_REQUEST_RESET);
}

static void test_debugport(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	assert_int_equal(in(&b, 0xe9), 0xe9);
	assert_int_equal(debugport_ops.pio_read(&b.debugport, 0xe9, 4), 0xffffffe9);
	assert_int_equal(in(&b, 0xf4), 0xff);
	debugport_ops.pio_write(&b.debugport, 0xe9, 2, 0x4241);
	assert_int_equal(b.n_sent, 1);
	assert_int_equal(b.sent[0], 'A');
	debugport_ops.pio_write(&b.debugport, 0xf4, 4, 0xdeadbeef);
	assert_int_equal(b.request, DEV_REQUEST_EXIT);
	assert_true(b.code == 0xdeadbeef);
	debugport_ops.pio_write(&b.debugport, 0xf4, 1, 0xdeadbeef);
	assert_int_equal(b.code, 0xef);
}

/* --- All together ------------------------------------------------------------ */

/* One random thing to do to a board; equal arguments do equal things. Returns what it saw. */
static uint32_t board_step(struct board *b, uint64_t r)
{
	struct device d = board_device(b, (unsigned)(r % N_DEVICES));
	const struct pio_range *range = &d.ranges[(r >> 8) % d.n_ranges];
	uint16_t port = (uint16_t)(range->base + (r >> 12) % range->count);
	unsigned size = 1u << (r >> 16) % 3;
	uint32_t value = (uint32_t)(r >> 32), seen = 0;
	unsigned line = 0;

	switch ((r >> 20) % 16) {
	case 0:
		b->now += (r >> 40) % ((r >> 24) % 4 ? 1000000 : 3000000000);
		break;
	case 1:
		if (!((r >> 24) % 32))
			b->now += (r >> 32) << 20;
		break;
	case 2:
		if (d.ops->tick)
			d.ops->tick(d.dev);
		break;
	case 3:
		if (d.ops->deadline)
			seen = (uint32_t)d.ops->deadline(d.dev, &line) + line;
		break;
	case 4:
		if (pic_pending(&b->pic))
			seen = pic_acknowledge(&b->pic);
		break;
	case 5:
		pic_set_line(&b->pic, (r >> 32) % 16, (r >> 40) & 1);
		break;
	case 6:
		uart_receive(&b->uart, (const uint8_t *)&value, (r >> 24) % 5);
		seen = (uint32_t)uart_room(&b->uart);
		break;
	case 7:
	case 8:
	case 9:
		seen = d.ops->pio_read(d.dev, port, size);
		break;
	default:
		d.ops->pio_write(d.dev, port, size, value);
	}
	return seen;
}

static uint64_t rnd64(void)
{
	uint64_t high = rnd(UINT32_MAX);

	return high << 32 | rnd(UINT32_MAX);
}

/* Random accesses, and from time to time a second board that begins with the first one's saved
 * state: both must see the same from there on. */
static void test_fuzz_and_restore(void **state)
{
	static struct board a, b;

	(void)state;
	board_init(&a, 1234567890);
	for (int round = 0; round < 100; round++) {
		struct walker save, restore;

		for (int i = 0; i < 8000; i++)
			board_step(&a, rnd64());
		walker_init_save(&save);
		board_walk(&a, &save);
		board_init(&b, 0);
		walker_init_restore(&restore, save.out.data, save.out.len);
		board_walk(&b, &restore);
		assert_false(walker_failed(&restore));
		assert_int_equal(restore.in.pos, restore.in.len);
		walker_fini(&restore);
		walker_fini(&save);
		b.now = a.now;
		for (int i = 0; i < 2000; i++) {
			uint64_t r = rnd64();

			assert_int_equal(board_step(&a, r), board_step(&b, r));
		}
		assert_same_state(&a, &b);
	}
}

/* A damaged trace can put anything into any field. */
static void test_hostile_state(void **state)
{
	static struct board b;
	static uint8_t garbage[4096];

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct walker restore;

		board_init(&b, 0);
		for (size_t i = 0; i < sizeof(garbage); i++)
			garbage[i] = rnd_byte();
		walker_init_restore(&restore, garbage, sizeof(garbage));
		board_walk(&b, &restore);
		assert_false(walker_failed(&restore));
		walker_fini(&restore);
		for (int i = 0; i < 500; i++)
			board_step(&b, rnd64());
	}
}

/* How often a device is ticked, and whether its deadline is asked, must leave no trace. */
static void test_ticks_leave_no_trace(void **state)
{
	static struct board a, b;
	unsigned line;

	(void)state;
	board_init(&a, 1000);
	board_init(&b, 1000);
	for (int round = 0; round < 3000; round++) {
		uint64_t then = a.now + (rnd(2) ? rnd(10000000) : (uint64_t)rnd(2000) << 24);

		for (int i = 0; i < 4; i++) {
			uint8_t v = rnd_byte(), reg = (uint8_t)rnd(14);
			uint16_t port = (uint16_t)(0x40 + rnd(4));

			out(&a, port, v);
			out(&b, port, v);
			cmos_set(&a, reg, v);
			cmos_set(&b, reg, v);
		}
		while (a.now < then) {
			uint64_t step = 1 + (then - a.now) / 3;

			a.now += step;
			pit_ops.deadline(&a.pit, &line);
			rtc_ops.deadline(&a.rtc, &line);
			pit_ops.tick(&a.pit);
			rtc_ops.tick(&a.rtc);
		}
		b.now = a.now;
		pit_ops.tick(&b.pit);
		rtc_ops.tick(&b.rtc);
		assert_same_state(&a, &b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uart_autoconfig),
		cmocka_unit_test(test_uart_transmit),
		cmocka_unit_test(test_uart_receive),
		cmocka_unit_test(test_uart_loopback),
		cmocka_unit_test(test_i8042),
		cmocka_unit_test(test_debugport),
		cmocka_unit_test(test_fuzz_and_restore),
		cmocka_unit_test(test_hostile_state),
		cmocka_unit_test(test_ticks_leave_no_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
