// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Two 8259A interrupt controllers as in a PC/AT: the slave's INT output is the master's input 2.
 * Section names in comments are those of the Intel 8259A data sheet (231468-003). Departures from
 * it are those of every PC chipset: edge or level is chosen per line in ELCR and not by ICW1's
 * LTIM, ICW3 is fixed by the wiring, and only the 8086 mode exists.
 *
 * A request is the line's rising edge for as long as the line stays up: if it falls before the
 * acknowledge cycle, the request is gone, INTR falls with it, and an acknowledge cycle that comes
 * nevertheless gets level 7 ("default IR7" in section "Edge and level triggered modes").
 */
#include "vmm/dev/devices.h"

#include <stdio.h>

enum {
	PIC_MASTER,
	PIC_SLAVE,
};

#define PIC_CASCADE 2

/* Lines that a PC chipset allows to be level triggered: not 0 (timer), 1 (keyboard), 2 (cascade),
 * 8 (RTC), 13 (FPU). Intel 82371SB (PIIX3) data sheet, ELCR1 and ELCR2. */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

#define ICW1_SELECT 0x10
#define ICW1_SINGLE 0x02
#define ICW1_NEED_ICW4 0x01
#define ICW4_AUTO_EOI 0x02
#define ICW4_SPECIAL_FULLY_NESTED 0x10
#define OCW3_SELECT 0x08
#define OCW3_SPECIAL_MASK_ENABLE 0x40
#define OCW3_SPECIAL_MASK 0x20
#define OCW3_POLL 0x04
#define OCW3_READ_ENABLE 0x02
#define OCW3_READ_ISR 0x01

/* Which word of the initialisation sequence is expected at the odd port (init_step). */
enum {
	INIT_DONE,
	INIT_ICW2,
	INIT_ICW3,
	INIT_ICW4,
};

const struct pio_range pic_ranges[3] = {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}};

/* How many levels below the highest one this level is: 0 is the most urgent. */
static unsigned chip_rank(const struct pic_chip *c, unsigned level)
{
	return (level - c->lowest_priority - 1u) & 7;
}

static unsigned chip_level_of_rank(const struct pic_chip *c, unsigned rank)
{
	return (rank + c->lowest_priority + 1u) & 7;
}

/* The level in the set with the highest priority, or -1 if the set is empty. */
static int chip_highest(const struct pic_chip *c, uint8_t set)
{
	for (unsigned rank = 0; rank < 8; rank++) {
		unsigned level = chip_level_of_rank(c, rank);

		if (set & (1u << level))
			return (int)level;
	}
	return -1;
}

/* In-service levels that hold back others. In special mask mode a masked level holds back nothing.
 */
static uint8_t chip_inhibitors(const struct pic_chip *c)
{
	return c->special_mask ? (uint8_t)(c->isr & ~c->imr) : c->isr;
}

/* The level for which the chip drives its INT output, or -1. */
static int chip_request(const struct pic_chip *c, bool master)
{
	int request = chip_highest(c, (uint8_t)(c->irr & ~c->imr));
	int serving = chip_highest(c, chip_inhibitors(c));

	/* Between ICW1 and the last ICW the chip has no vectors to give. */
	if (request < 0 || c->init_step != INIT_DONE)
		return -1;
	if (serving < 0)
		return request;
	if (chip_rank(c, (unsigned)request) < chip_rank(c, (unsigned)serving))
		return request;
	/* Special fully nested mode: the slave in service may ask again, for a higher level of its
	 * own ("The special fully nested mode"). */
	if (master && c->special_fully_nested && request == serving && request == PIC_CASCADE)
		return request;
	return -1;
}

static void chip_set_line(struct pic_chip *c, unsigned level, bool up)
{
	uint8_t bit = (uint8_t)(1u << level);

	if (!up)
		c->irr &= (uint8_t)~bit;
	else if ((c->elcr & bit) || !(c->lines & bit))
		c->irr |= bit;
	c->lines = up ? c->lines | bit : c->lines & (uint8_t)~bit;
}

/* The slave's INT output is the master's line 2: to be called after any change to the slave. */
static void pic_update_cascade(struct pic *pic)
{
	chip_set_line(&pic->chip[PIC_MASTER], PIC_CASCADE,
		      chip_request(&pic->chip[PIC_SLAVE], false) >= 0);
}

/* The chip's half of an acknowledge cycle or of a poll: serve `level`. */
static void chip_serve(struct pic_chip *c, unsigned level)
{
	uint8_t bit = (uint8_t)(1u << level);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_auto_eoi)
		c->lowest_priority = (uint8_t)level;
}

/* INT goes down in an acknowledge cycle even if the slave has more to ask for; the master would
 * miss the edge of the next request otherwise. */
static void pic_slave_served(struct pic *pic)
{
	chip_set_line(&pic->chip[PIC_MASTER], PIC_CASCADE, false);
	pic_update_cascade(pic);
}

void pic_init(struct pic *pic)
{
	*pic = (struct pic){0};
	for (unsigned i = 0; i < 2; i++) {
		/* Undefined by the data sheet; masked, so that nothing interrupts a guest before it
		 * has initialised the pair. */
		pic->chip[i].imr = 0xff;
		pic->chip[i].lowest_priority = 7;
	}
}

void pic_set_line(struct pic *pic, unsigned line, bool level)
{
	if (line > 15 || line == PIC_CASCADE)
		return;
	chip_set_line(&pic->chip[line >> 3], line & 7, level);
	if (line >= 8)
		pic_update_cascade(pic);
}

bool pic_pending(const struct pic *pic)
{
	return chip_request(&pic->chip[PIC_MASTER], true) >= 0;
}

/* A chip without a request answers with level 7 and puts nothing in service. */
static unsigned chip_acknowledge(struct pic_chip *c, bool master)
{
	int level = chip_request(c, master);

	if (level < 0)
		return 7;
	chip_serve(c, (unsigned)level);
	return (unsigned)level;
}

uint8_t pic_acknowledge(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[PIC_MASTER];
	struct pic_chip *slave = &pic->chip[PIC_SLAVE];
	unsigned level = chip_acknowledge(master, true);

	if (level != PIC_CASCADE)
		return (uint8_t)(master->vector_base | level);
	level = chip_acknowledge(slave, false);
	pic_slave_served(pic);
	return (uint8_t)(slave->vector_base | level);
}

bool pic_line_enabled(const struct pic *pic, unsigned line)
{
	const struct pic_chip *master = &pic->chip[PIC_MASTER];
	const struct pic_chip *chip;

	if (line > 15)
		return false;
	chip = &pic->chip[line >> 3];
	/* What completes an initialisation is a write to the mask register's port, too. */
	if (master->init_step != INIT_DONE || chip->init_step != INIT_DONE)
		return false;
	if (chip->imr & (1u << (line & 7)))
		return false;
	return line < 8 || !(master->imr & (1u << PIC_CASCADE));
}

/* "Initialization command words 1 and 2": what ICW1 does by itself. */
static void chip_write_icw1(struct pic_chip *c, uint8_t value)
{
	c->irr = c->lines & c->elcr; /* the edge sense circuit is reset */
	c->isr = 0;
	c->imr = 0;
	c->lowest_priority = 7;
	c->special_mask = 0;
	c->read_isr = 0;
	c->poll = 0;
	c->need_icw4 = (value & ICW1_NEED_ICW4) != 0;
	c->single = (value & ICW1_SINGLE) != 0;
	/* "If IC4 = 0, then all functions selected in ICW4 are set to zero." */
	c->auto_eoi = 0;
	c->special_fully_nested = 0;
	c->rotate_on_auto_eoi = 0;
	c->init_step = INIT_ICW2;
}

static void chip_end_of_interrupt(struct pic_chip *c, bool specific, bool rotate, unsigned level)
{
	if (!specific) {
		/* "An IS bit that is masked by an IMR bit will not be cleared by a non-specific EOI
		 * if the 8259A is in the special mask mode." */
		int highest = chip_highest(c, chip_inhibitors(c));

		if (highest < 0)
			return;
		level = (unsigned)highest;
	}
	c->isr &= (uint8_t) ~(1u << level);
	if (rotate)
		c->lowest_priority = (uint8_t)level;
}

/* "Operation command word 2": R, SL and EOI are bits 7 to 5. */
static void chip_write_ocw2(struct pic_chip *c, uint8_t value)
{
	unsigned level = value & 7;

	switch (value >> 5) {
	case 0: /* rotate in automatic EOI mode (clear) */
		c->rotate_on_auto_eoi = 0;
		break;
	case 1: /* non-specific EOI */
		chip_end_of_interrupt(c, false, false, 0);
		break;
	case 2: /* no operation */
		break;
	case 3: /* specific EOI */
		chip_end_of_interrupt(c, true, false, level);
		break;
	case 4: /* rotate in automatic EOI mode (set) */
		c->rotate_on_auto_eoi = 1;
		break;
	case 5: /* rotate on non-specific EOI */
		chip_end_of_interrupt(c, false, true, 0);
		break;
	case 6: /* set priority */
		c->lowest_priority = (uint8_t)level;
		break;
	case 7: /* rotate on specific EOI */
		chip_end_of_interrupt(c, true, true, level);
		break;
	}
}

static void chip_write_ocw3(struct pic_chip *c, uint8_t value)
{
	if (value & OCW3_SPECIAL_MASK_ENABLE)
		c->special_mask = (value & OCW3_SPECIAL_MASK) != 0;
	c->poll = (value & OCW3_POLL) != 0;
	/* "Poll command overrides RR." */
	if (!c->poll && (value & OCW3_READ_ENABLE))
		c->read_isr = (value & OCW3_READ_ISR) != 0;
}

static void chip_write_even(struct pic_chip *c, uint8_t value)
{
	if (value & ICW1_SELECT)
		chip_write_icw1(c, value);
	else if (value & OCW3_SELECT)
		chip_write_ocw3(c, value);
	else
		chip_write_ocw2(c, value);
}

static void chip_write_odd(struct pic_chip *c, uint8_t value)
{
	switch (c->init_step) {
	case INIT_ICW2:
		c->vector_base = value & 0xf8;
		if (!c->single)
			c->init_step = INIT_ICW3;
		else
			c->init_step = c->need_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW3:
		c->init_step = c->need_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		c->auto_eoi = (value & ICW4_AUTO_EOI) != 0;
		c->special_fully_nested = (value & ICW4_SPECIAL_FULLY_NESTED) != 0;
		c->init_step = INIT_DONE;
		break;
	default:
		c->imr = value;
		break;
	}
}

static void chip_write_elcr(struct pic_chip *c, uint8_t value)
{
	/* A line that becomes level triggered requests if it is up; one that becomes edge triggered
	 * keeps a request it has. */
	c->elcr = value;
	c->irr |= c->lines & c->elcr;
}

/* "Poll command": the read works as an acknowledge cycle of this chip alone. */
static uint8_t pic_poll(struct pic *pic, unsigned which)
{
	struct pic_chip *c = &pic->chip[which];
	int level = chip_request(c, which == PIC_MASTER);

	c->poll = 0;
	if (level < 0)
		return 0;
	chip_serve(c, (unsigned)level);
	if (which == PIC_SLAVE)
		pic_slave_served(pic);
	return (uint8_t)(0x80 | level);
}

static uint8_t pic_read_byte(void *dev, uint16_t port)
{
	struct pic *pic = dev;
	unsigned which = port >= 0x4d0 ? port & 1 : (port & 0x80) != 0;
	const struct pic_chip *c = &pic->chip[which];

	if (port >= 0x4d0)
		return c->elcr;
	if (c->poll)
		return pic_poll(pic, which);
	if (port & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static void pic_write_byte(void *dev, uint16_t port, uint8_t value)
{
	struct pic *pic = dev;
	unsigned which = port >= 0x4d0 ? port & 1 : (port & 0x80) != 0;
	struct pic_chip *c = &pic->chip[which];

	if (port >= 0x4d0)
		chip_write_elcr(c, value & elcr_writable[which]);
	else if (port & 1)
		chip_write_odd(c, value);
	else
		chip_write_even(c, value);
	if (which == PIC_SLAVE)
		pic_update_cascade(pic);
}

static uint32_t pic_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(pic_ranges, ARRAY_SIZE(pic_ranges), pic_read_byte, dev, port, size);
}

static void pic_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	pio_write_lanes(pic_ranges, ARRAY_SIZE(pic_ranges), pic_write_byte, dev, port, size, value);
}

static void chip_walk_u8(struct walker *w, const char *chip, const char *field, uint8_t *v)
{
	char name[48];

	snprintf(name, sizeof(name), "%s.%s", chip, field);
	walk_u8(w, name, v);
}

static void chip_walk(struct walker *w, const char *name, struct pic_chip *c)
{
	chip_walk_u8(w, name, "irr", &c->irr);
	chip_walk_u8(w, name, "isr", &c->isr);
	chip_walk_u8(w, name, "imr", &c->imr);
	chip_walk_u8(w, name, "elcr", &c->elcr);
	chip_walk_u8(w, name, "lines", &c->lines);
	chip_walk_u8(w, name, "vector_base", &c->vector_base);
	chip_walk_u8(w, name, "init_step", &c->init_step);
	chip_walk_u8(w, name, "read_isr", &c->read_isr);
	chip_walk_u8(w, name, "poll", &c->poll);
	chip_walk_u8(w, name, "special_mask", &c->special_mask);
	chip_walk_u8(w, name, "rotate_on_auto_eoi", &c->rotate_on_auto_eoi);
	chip_walk_u8(w, name, "auto_eoi", &c->auto_eoi);
	chip_walk_u8(w, name, "lowest_priority", &c->lowest_priority);
	chip_walk_u8(w, name, "need_icw4", &c->need_icw4);
	chip_walk_u8(w, name, "single", &c->single);
	chip_walk_u8(w, name, "special_fully_nested", &c->special_fully_nested);
}

static void pic_walk(void *dev, struct walker *w)
{
	struct pic *pic = dev;

	walk_component(w, "pic");
	chip_walk(w, "master", &pic->chip[PIC_MASTER]);
	chip_walk(w, "slave", &pic->chip[PIC_SLAVE]);
}

const struct dev_ops pic_ops = {
	.name = "pic",
	.pio_read = pic_read,
	.pio_write = pic_write,
	.walk = pic_walk,
};
