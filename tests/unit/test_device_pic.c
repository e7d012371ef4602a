// SPDX-License-Identifier: GPL-3.0-or-later
/* The 8259 pair against a literal reading of the priority rules, and scenarios. */
#include "tests/unit/device_board.h"

#include <string.h>

struct model_chip {
	bool irr[8], isr[8], imr[8], line[8], level[8];
	int top; /* level of the highest priority */
	bool special_mask, nested, aeoi, rotate, poll, read_isr, need4, single;
	int step;
	int base;
};

/* Go down from the highest priority: whoever is served stops the search, whoever asks wins it. */
static int model_request(const struct model_chip *c, bool master)
{
	if (c->step)
		return -1;
	for (int i = 0; i < 8; i++) {
		int n = (c->top + i) % 8;
		bool asks = c->irr[n] && !c->imr[n];

		if (c->isr[n] && !(c->special_mask && c->imr[n]))
			return asks && c->nested && master && n == 2 ? 2 : -1;
		if (asks)
			return n;
	}
	return -1;
}

static void model_line(struct model_chip *c, int n, bool up)
{
	if (c->level[n])
		c->irr[n] = up;
	else if (up && !c->line[n])
		c->irr[n] = true;
	else if (!up)
		c->irr[n] = false;
	c->line[n] = up;
}

static void model_cascade(struct model_chip c[2])
{
	model_line(&c[0], 2, model_request(&c[1], false) >= 0);
}

static void model_serve(struct model_chip c[2], int which, int n)
{
	struct model_chip *chip = &c[which];

	if (!chip->level[n])
		chip->irr[n] = false;
	if (!chip->aeoi)
		chip->isr[n] = true;
	else if (chip->rotate)
		chip->top = (n + 1) % 8;
	if (which) {
		model_line(&c[0], 2, false);
		model_cascade(c);
	}
}

static int model_ack(struct model_chip c[2])
{
	int n = model_request(&c[0], true);

	if (n < 0)
		return c[0].base + 7;
	model_serve(c, 0, n);
	if (n != 2)
		return c[0].base + n;
	n = model_request(&c[1], false);
	if (n < 0)
		return c[1].base + 7;
	model_serve(c, 1, n);
	return c[1].base + n;
}

static void model_ocw2(struct model_chip *c, uint8_t v)
{
	bool rotate = v & 0x80, specific = v & 0x40, eoi = v & 0x20;
	int n = v & 7;

	if (!eoi) {
		if (specific && rotate)
			c->top = (n + 1) % 8;
		if (!specific)
			c->rotate = rotate;
		return;
	}
	if (!specific) {
		int i = 0;

		for (; i < 8; i++) {
			n = (c->top + i) % 8;
			if (c->isr[n] && !(c->special_mask && c->imr[n]))
				break;
		}
		if (i == 8)
			return;
	}
	c->isr[n] = false;
	if (rotate)
		c->top = (n + 1) % 8;
}

static void model_write(struct model_chip c[2], int which, bool odd, uint8_t v)
{
	struct model_chip *chip = &c[which];

	if (!odd && (v & 0x10)) {
		for (int i = 0; i < 8; i++) {
			chip->irr[i] = chip->level[i] && chip->line[i];
			chip->isr[i] = chip->imr[i] = false;
		}
		chip->top = 0;
		chip->special_mask = chip->nested = chip->aeoi = chip->rotate = false;
		chip->poll = chip->read_isr = false;
		chip->need4 = v & 1;
		chip->single = v & 2;
		chip->step = 2;
	} else if (!odd && (v & 8)) {
		if (v & 0x40)
			chip->special_mask = v & 0x20;
		chip->poll = v & 4;
		if (!chip->poll && (v & 2))
			chip->read_isr = v & 1;
	} else if (!odd) {
		model_ocw2(chip, v);
	} else if (!chip->step) {
		for (int i = 0; i < 8; i++)
			chip->imr[i] = v >> i & 1;
	} else {
		if (chip->step == 2)
			chip->base = v & 0xf8;
		if (chip->step == 4) {
			chip->aeoi = v & 2;
			chip->nested = v & 0x10;
		}
		chip->step++;
		if (chip->step == 3 && chip->single)
			chip->step++;
		if (chip->step == 5 || (chip->step == 4 && !chip->need4))
			chip->step = 0;
	}
	if (which)
		model_cascade(c);
}

static uint8_t bits(const bool *b)
{
	uint8_t v = 0;

	for (int i = 0; i < 8; i++)
		v = (uint8_t)(v | b[i] << i);
	return v;
}

static uint8_t model_read(struct model_chip c[2], int which, bool odd)
{
	struct model_chip *chip = &c[which];
	int n = model_request(chip, !which);

	if (chip->poll) {
		chip->poll = false;
		if (n < 0)
			return 0;
		model_serve(c, which, n);
		return (uint8_t)(0x80 | n);
	}
	if (odd)
		return bits(chip->imr);
	return bits(chip->read_isr ? chip->isr : chip->irr);
}

static void test_pic_model(void **state)
{
	static const uint8_t elcr[2] = {0xf8, 0xde};
	struct model_chip c[2] = {0};
	static struct board b;

	(void)state;
	board_init(&b, 0);
	memset(c[0].imr, 1, 8);
	memset(c[1].imr, 1, 8);
	for (int step = 0; step < 200000; step++) {
		int which = (int)rnd(2);
		uint16_t port = which ? 0xa0 : 0x20;
		bool odd = rnd(2);
		uint8_t v = rnd_byte();

		switch (rnd(12)) {
		case 0: /* OCW2 or OCW3 */
			out(&b, port, v & 0xef);
			model_write(c, which, false, v & 0xef);
			break;
		case 1: /* mask some */
			v &= rnd_byte();
			out(&b, port + 1, v);
			model_write(c, which, true, v);
			break;
		case 2: /* non-specific EOI, the usual way out */
			out(&b, port, 0x20);
			model_write(c, which, false, 0x20);
			break;
		case 3: /* now and then another initialisation, or a part of one */
			if (rnd(20))
				break;
			out(&b, port, v | 0x10);
			model_write(c, which, false, v | 0x10);
			for (unsigned i = rnd(8) ? 3 : rnd(4); i; i--) {
				v = rnd_byte();
				out(&b, port + 1, v);
				model_write(c, which, true, v);
			}
			break;
		case 4:
			if (rnd(20))
				break;
			v &= elcr[which];
			out(&b, (uint16_t)(0x4d0 + which), v);
			for (int i = 0; i < 8; i++) {
				c[which].level[i] = v >> i & 1;
				if (c[which].level[i])
					c[which].irr[i] = c[which].line[i];
			}
			if (which)
				model_cascade(c);
			break;
		case 5:
		case 6:
			assert_int_equal(in(&b, port + odd), model_read(c, which, odd));
			break;
		case 7:
			assert_int_equal(pic_acknowledge(&b.pic), model_ack(c));
			break;
		default: {
			unsigned line = rnd(16);

			pic_set_line(&b.pic, line, odd);
			if (line != 2)
				model_line(&c[line / 8], (int)line % 8, odd);
			if (line >= 8)
				model_cascade(c);
		}
		}
		assert_int_equal(b.pic.chip[0].irr, bits(c[0].irr));
		assert_int_equal(b.pic.chip[0].isr, bits(c[0].isr));
		assert_int_equal(b.pic.chip[1].irr, bits(c[1].irr));
		assert_int_equal(b.pic.chip[1].isr, bits(c[1].isr));
		assert_int_equal(pic_pending(&b.pic), model_request(&c[0], true) >= 0);
	}
}

/* As Linux' init_8259A, vectors 0x30 and 0x38. */
static void pic_setup(struct board *b, uint8_t master_icw4, uint8_t slave_icw4)
{
	static const uint16_t ports[2] = {0x20, 0xa0};

	board_init(b, 0);
	for (unsigned i = 0; i < 2; i++) {
		out(b, ports[i], 0x11);
		out(b, ports[i] + 1, (uint8_t)(0x30 + 8 * i));
		out(b, ports[i] + 1, i ? 2 : 4);
		out(b, ports[i] + 1, i ? slave_icw4 : master_icw4);
	}
}

static void test_pic_nesting(void **state)
{
	static struct board b;

	(void)state;
	pic_setup(&b, 1, 1);
	assert_false(pic_pending(&b.pic));
	pic_set_line(&b.pic, 4, true);
	assert_true(pic_pending(&b.pic));
	assert_int_equal(pic_acknowledge(&b.pic), 0x34);
	pic_set_line(&b.pic, 7, true);
	assert_false(pic_pending(&b.pic)); /* less urgent */
	pic_set_line(&b.pic, 12, true);
	assert_int_equal(pic_acknowledge(&b.pic), 0x3c); /* through level 2: more urgent */
	pic_set_line(&b.pic, 8, true);
	assert_false(pic_pending(&b.pic)); /* the master's level 2 is in service */
	out(&b, 0x20, 0x62);
	assert_int_equal(pic_acknowledge(&b.pic), 0x38);
	out(&b, 0xa0, 0x20);
	out(&b, 0xa0, 0x20);
	out(&b, 0x20, 0x20);
	out(&b, 0x20, 0x0b);
	assert_int_equal(in(&b, 0x20), 0x10);
	out(&b, 0x20, 0x20);
	assert_int_equal(pic_acknowledge(&b.pic), 0x37);
	out(&b, 0x20, 0x20);
	/* Lines are still up: edges count once. */
	assert_false(pic_pending(&b.pic));
	assert_true(pic_line_enabled(&b.pic, 12));
	out(&b, 0x21, 0x04);
	assert_int_equal(in(&b, 0x21), 0x04);
	assert_false(pic_line_enabled(&b.pic, 12));
	assert_true(pic_line_enabled(&b.pic, 4));
}

static void test_pic_spurious_and_modes(void **state)
{
	static struct board b;

	(void)state;
	pic_setup(&b, 1, 1);
	pic_set_line(&b.pic, 5, true);
	pic_set_line(&b.pic, 5, false);
	assert_false(pic_pending(&b.pic));
	assert_int_equal(pic_acknowledge(&b.pic), 0x37);
	out(&b, 0x20, 0x0b);
	assert_int_equal(in(&b, 0x20), 0); /* nothing in service */

	/* Special mask mode: level 3 in service and masked lets level 6 through. */
	pic_set_line(&b.pic, 3, true);
	assert_int_equal(pic_acknowledge(&b.pic), 0x33);
	pic_set_line(&b.pic, 6, true);
	assert_false(pic_pending(&b.pic));
	out(&b, 0x21, 0x08);
	assert_false(pic_pending(&b.pic));
	out(&b, 0x20, 0x68);
	assert_int_equal(pic_acknowledge(&b.pic), 0x36);

	/* Automatic EOI on the slave: two requests at once, both come through. */
	pic_setup(&b, 3, 3);
	pic_set_line(&b.pic, 9, true);
	pic_set_line(&b.pic, 14, true);
	assert_int_equal(pic_acknowledge(&b.pic), 0x39);
	assert_int_equal(pic_acknowledge(&b.pic), 0x3e);
	assert_false(pic_pending(&b.pic));

	/* Level triggered: asks as long as it is up. */
	pic_set_line(&b.pic, 9, false);
	pic_set_line(&b.pic, 14, false);
	out(&b, 0x4d1, 0xff);
	assert_int_equal(in(&b, 0x4d1), 0xde);
	pic_set_line(&b.pic, 11, true);
	assert_int_equal(pic_acknowledge(&b.pic), 0x3b);
	assert_true(pic_pending(&b.pic));
	pic_set_line(&b.pic, 11, false);
	assert_false(pic_pending(&b.pic));

	/* Poll. */
	pic_setup(&b, 1, 1);
	out(&b, 0x20, 0x0c);
	assert_int_equal(in(&b, 0x20), 0);
	pic_set_line(&b.pic, 1, true);
	out(&b, 0x20, 0x0c);
	assert_int_equal(in(&b, 0x20), 0x81);
	assert_int_equal(b.pic.chip[0].isr, 2);
	/* Line numbers that do not exist. */
	pic_set_line(&b.pic, 16, true);
	pic_set_line(&b.pic, UINT32_MAX, true);
	assert_false(pic_line_enabled(&b.pic, 16));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pic_model),
		cmocka_unit_test(test_pic_nesting),
		cmocka_unit_test(test_pic_spurious_and_modes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
