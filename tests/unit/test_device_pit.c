// SPDX-License-Identifier: GPL-3.0-or-later
/* The 8254 against a counter that is clocked pulse by pulse, and its deadlines. */
#include "tests/unit/device_board.h"

/* First ns of a PIT clock. */
static uint64_t clock_ns(uint64_t clock)
{
	return (uint64_t)(((unsigned __int128)clock * 1000000000u + PIT_HZ - 1) / PIT_HZ);
}

/* Counter of channel 2, moved by pulse(). */
struct model_pit {
	unsigned mode;
	bool bcd, gate, out, running, load, trigger, strobe;
	uint32_t register_, counter, top;
};

static void pit_model_reload(struct model_pit *m)
{
	m->top = m->register_;
	m->counter = m->mode == 3 ? m->top & ~1u : m->top;
	m->running = true;
	m->load = m->trigger = false;
}

static void pit_model_down(struct model_pit *m, unsigned by)
{
	m->counter = m->counter ? m->counter - by : (m->bcd ? 10000 : 65536) - by;
}

static void pit_model_pulse(struct model_pit *m)
{
	switch (m->mode) {
	case 0:
		if (m->load) {
			pit_model_reload(m);
		} else if (m->running && m->gate) {
			pit_model_down(m, 1);
			m->out |= !m->counter;
		}
		break;
	case 1:
		if (m->trigger) {
			pit_model_reload(m);
			m->out = false;
		} else if (m->running) {
			pit_model_down(m, 1);
			m->out |= !m->counter;
		}
		break;
	case 2:
		if (m->load || m->trigger || (m->running && m->gate && m->counter == 1)) {
			pit_model_reload(m);
			m->out = true;
		} else if (m->running && m->gate) {
			pit_model_down(m, 1);
			m->out = m->counter != 1;
		}
		break;
	case 3:
		if (m->load || m->trigger) {
			pit_model_reload(m);
			m->out = true;
		} else if (m->running && m->gate) {
			if (m->counter == ((m->top & 1) && m->out ? 0 : 2)) {
				pit_model_reload(m);
				m->out = !m->out;
			} else {
				m->counter -= 2;
			}
		}
		break;
	default:
		if (m->mode == 4 ? m->load : m->trigger) {
			pit_model_reload(m);
			m->strobe = true;
			m->out = true;
		} else if (m->running && (m->gate || m->mode == 5)) {
			pit_model_down(m, 1);
			m->out = m->counter || !m->strobe;
			if (!m->counter)
				m->strobe = false;
		}
	}
}

static uint16_t pit_model_shown(const struct model_pit *m)
{
	uint32_t v = m->counter;

	if (!m->bcd)
		return (uint16_t)v;
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static void test_pit_model(void **state)
{
	static struct board b;
	struct model_pit m = {0};
	uint64_t clock = 1000;
	unsigned compared = 0;
	uint8_t low;

	(void)state;
	board_init(&b, 0);
	for (int run = 0; run < 4000; run++) {
		uint32_t limit = rnd(3) ? 12 : 300;
		unsigned pulses = rnd(4) ? rnd(60) : rnd(700);

		b.now = clock_ns(clock) + rnd(800);
		if (!run || !rnd(3)) {
			m = (struct model_pit){.mode = rnd(6), .bcd = rnd(2), .gate = m.gate};
			m.out = m.mode != 0;
			out(&b, 0x43, (uint8_t)(0xb0 | m.mode << 1 | m.bcd));
			if (!rnd(4))
				goto pulse;
		}
		if (rnd(3)) { /* a count, at times the largest one */
			bool largest = !rnd(30);
			uint32_t count = 2 + rnd(limit);
			uint16_t raw = (uint16_t)(m.bcd ? count / 100 << 8 | count / 10 % 10 << 4 |
								  count % 10
							: count);

			if (largest) {
				count = m.bcd ? 10000 : 65536;
				raw = 0;
			}
			out(&b, 0x42, (uint8_t)raw);
			if (m.mode == 0)
				m.out = m.running = false;
			if (rnd(2)) { /* time passes between the two bytes */
				clock++;
				pit_model_pulse(&m);
				b.now = clock_ns(clock);
			}
			out(&b, 0x42, (uint8_t)(raw >> 8));
			m.register_ = count;
			m.load = m.mode == 0 || m.mode == 4 ||
				 (!m.running && (m.mode == 2 || m.mode == 3));
		} else {
			bool gate = rnd(2);

			out(&b, 0x61, gate);
			m.trigger |= gate && !m.gate && m.register_ && m.mode != 0 && m.mode != 4;
			m.gate = gate;
			if (!gate && (m.mode == 2 || m.mode == 3))
				m.out = true;
		}
	pulse:
		for (unsigned i = 0; i <= pulses; i++) {
			clock++;
			pit_model_pulse(&m);
			if (i && i < pulses && rnd(4))
				continue;
			b.now = clock_ns(clock) + rnd(838);
			assert_int_equal((in(&b, 0x61) & 0x20) != 0, m.out);
			if (!m.running || m.mode > 5)
				continue;
			out(&b, 0x43, 0x80);
			low = in(&b, 0x42);
			assert_int_equal(low | in(&b, 0x42) << 8, pit_model_shown(&m));
			compared++;
		}
	}
	assert_true(compared > 20000);
}

static void pit_program(struct board *b, unsigned mode, unsigned count)
{
	out(b, 0x43, (uint8_t)(0x30 | mode << 1));
	out(b, 0x40, (uint8_t)count);
	out(b, 0x40, (uint8_t)(count >> 8));
}

static void test_pit_deadline(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	assert_true(pit_ops.deadline(&b.pit, &(unsigned){0}) == TIME_NEVER);
	for (int i = 0; i < 20000; i++) {
		switch (rnd(6)) {
		case 0:
			pit_program(&b, rnd(8), rnd(3) ? rnd(65536) : rnd(8));
			break;
		case 1: /* a new count only, as Linux does in oneshot mode */
			out(&b, 0x40, rnd_byte());
			out(&b, 0x40, rnd_byte());
			break;
		case 2:
			b.now += rnd(60000000);
			pit_ops.tick(&b.pit);
			break;
		case 3:
			b.now += rnd(3) ? 1000 : (uint64_t)rnd(1000) << 40;
			pit_ops.tick(&b.pit);
			break;
		default:
			check_deadline(&b, &pit_ops, &b.pit, 0);
		}
	}
}

static bool pit_out(struct board *b)
{
	out(b, 0x43, 0xe2);
	return in(b, 0x40) & 0x80;
}

/* A deadline is where OUT, which the model test checks, goes from low to high. */
static void test_pit_deadline_is_edge(void **state)
{
	static const unsigned modes[] = {0, 2, 3, 4};
	static struct board b;
	unsigned line;

	(void)state;
	board_init(&b, 0);
	for (int i = 0; i < 4000; i++) {
		b.now += rnd(1000000);
		pit_program(&b, modes[rnd(4)], 2 + rnd(rnd(2) ? 10 : 5000));
		b.now = pit_ops.deadline(&b.pit, &line) - 1;
		assert_false(pit_out(&b));
		b.now++;
		assert_true(pit_out(&b));
	}
}

static void test_pit_no_drift(void **state)
{
	static struct board b;
	const uint64_t years_30 = 946080000000000000ull;
	unsigned line;

	(void)state;
	board_init(&b, 0);
	b.now = 12345;
	pit_program(&b, 2, 4772);					   /* 250 Hz */
	uint64_t start = clock_ns(0) + 12345ull * PIT_HZ / 1000000000 + 1; /* in clocks */

	for (uint64_t k = 1; k < 1000; k++) {
		b.now = pit_ops.deadline(&b.pit, &line);
		pit_ops.tick(&b.pit);
		assert_true(b.now == clock_ns(start + k * 4772));
	}
	b.now = years_30;
	pit_ops.tick(&b.pit);
	uint64_t clocks = (uint64_t)((unsigned __int128)years_30 * PIT_HZ / 1000000000);
	uint64_t k = (clocks - start) / 4772 + 1;

	assert_true(pit_ops.deadline(&b.pit, &line) == clock_ns(start + k * 4772));
	/* At the end of time: no overflow, no deadline. */
	b.now = UINT64_MAX - 1000;
	pit_ops.tick(&b.pit);
	assert_true(pit_ops.deadline(&b.pit, &line) == TIME_NEVER);
}

static void test_pit_access(void **state)
{
	static struct board b;

	(void)state;
	board_init(&b, 0);
	assert_int_equal(in(&b, 0x43), 0xff);
	pit_program(&b, 2, 0x1234);
	b.now += 900;
	/* Read-back of status and count: status first, then the count, latched once. */
	out(&b, 0x43, 0xc2);
	b.now += 100000;
	out(&b, 0x43, 0xc2);
	assert_int_equal(in(&b, 0x40), 0xb4);
	assert_int_equal(in(&b, 0x40), 0x34);
	assert_int_equal(in(&b, 0x40), 0x12);
	/* Null count while a count is still to come; one-byte access. */
	out(&b, 0x43, 0x54);
	out(&b, 0x43, 0xe4);
	assert_int_equal(in(&b, 0x41) & 0x40, 0x40);
	out(&b, 0x41, 18);
	b.now += 900;
	assert_in_range(in(&b, 0x41), 17, 18);
	/* The refresh bit toggles every 18 clocks. */
	unsigned toggles = 0;
	uint8_t last = in(&b, 0x61) & 0x10;

	for (unsigned i = 0; i < 1000; i++) {
		b.now += 1000;
		toggles += (in(&b, 0x61) & 0x10) != last;
		last = in(&b, 0x61) & 0x10;
	}
	assert_in_range(toggles, 66, 67);

	/* TSC calibration as in Linux: mode 0 on channel 2, OUT after the count, never before. */
	out(&b, 0x61, (uint8_t)((in(&b, 0x61) & ~2) | 1));
	out(&b, 0x43, 0xb0);
	out(&b, 0x42, 0x9c);
	out(&b, 0x42, 0x2e);
	uint64_t start = b.now;

	while (!(in(&b, 0x61) & 0x20))
		b.now += 100;
	assert_in_range(b.now - start, 0x2e9cull * 1000000000 / PIT_HZ,
			0x2e9full * 1000000000 / PIT_HZ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pit_model),
		cmocka_unit_test(test_pit_deadline),
		cmocka_unit_test(test_pit_deadline_is_edge),
		cmocka_unit_test(test_pit_no_drift),
		cmocka_unit_test(test_pit_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
