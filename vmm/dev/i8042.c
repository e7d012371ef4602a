// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * i8042 keyboard controller with nothing plugged in and no auxiliary port, and the two chipset
 * ports that reset the machine. References: IBM PS/2 hardware interface technical reference,
 * "Keyboard and auxiliary device controller"; port 0x92 "System control port A" there; port 0xcf9
 * "Reset control register", Intel 82371SB (PIIX3).
 */
#include "vmm/dev/devices.h"

#define PORT_DATA 0x60
#define PORT_COMMAND 0x64
#define PORT_CONTROL_A 0x92
#define PORT_RESET 0xcf9

#define STATUS_OUT_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08 /* the last write went to the command port */
#define STATUS_UNLOCKED 0x10

#define CTR_IRQ 0x01
#define CTR_SYSTEM 0x04
#define CTR_DISABLED 0x10

#define CMD_READ_CTR 0x20  /* 0x20-0x3f: read controller RAM; only byte 0 exists */
#define CMD_WRITE_CTR 0x60 /* 0x60-0x7f: write it */
#define CMD_TEST_AUX 0xa9
#define CMD_SELF_TEST 0xaa
#define CMD_TEST_KEYBOARD 0xab
#define CMD_DISABLE 0xad
#define CMD_ENABLE 0xae
#define CMD_READ_INPUT 0xc0
#define CMD_READ_OUTPUT 0xd0
#define CMD_WRITE_OUTPUT 0xd1
#define CMD_WRITE_OUT_BUFFER 0xd2
#define CMD_WRITE_AUX_BUFFER 0xd3
#define CMD_WRITE_AUX 0xd4

#define SELF_TEST_PASSED 0x55
#define TEST_PASSED 0x00
#define TEST_CLOCK_HIGH 0x02 /* "clock line is stuck high": nobody there to pull it */

#define INPUT_UNLOCKED 0x80

#define OUTPUT_NOT_RESET 0x01
#define OUTPUT_A20 0x02
#define OUTPUT_IRQ 0x10
#define OUTPUT_IDLE 0xc0 /* clock and data line, as pulled up */

#define CONTROL_A_RESET 0x01
#define CONTROL_A_A20 0x02

#define RESET_HARD 0x02
#define RESET_CPU 0x04

#define KEYBOARD_LINE 1

const struct pio_range i8042_ranges[4] = {
	{PORT_DATA, 1},
	{PORT_COMMAND, 1},
	{PORT_CONTROL_A, 1},
	{PORT_RESET, 1},
};

static void i8042_update_line(struct i8042 *k)
{
	bool level = (k->status & STATUS_OUT_FULL) && (k->ctr & CTR_IRQ);

	k->env.irq(k->env.ctx, KEYBOARD_LINE, level);
}

static void i8042_answer(struct i8042 *k, uint8_t byte)
{
	k->out = byte;
	k->status |= STATUS_OUT_FULL;
	i8042_update_line(k);
}

static void i8042_reset_machine(struct i8042 *k)
{
	k->env.request(k->env.ctx, DEV_REQUEST_RESET, 0);
}

void i8042_init(struct i8042 *k, const struct dev_env *env)
{
	/* As firmware leaves it: self test passed, A20 open. */
	*k = (struct i8042){
		.env = *env,
		.status = STATUS_UNLOCKED | STATUS_SYSTEM,
		.ctr = CTR_SYSTEM | CTR_DISABLED,
		.a20 = 1,
	};
}

static void i8042_write_ctr(struct i8042 *k, uint8_t value)
{
	k->ctr = value;
	k->status &= (uint8_t)~STATUS_SYSTEM;
	if (value & CTR_SYSTEM)
		k->status |= STATUS_SYSTEM;
	i8042_update_line(k);
}

static uint8_t i8042_output_port(const struct i8042 *k)
{
	return (uint8_t)(OUTPUT_NOT_RESET | OUTPUT_IDLE | (k->a20 ? OUTPUT_A20 : 0) |
			 ((k->status & STATUS_OUT_FULL) ? OUTPUT_IRQ : 0));
}

static void i8042_write_command(struct i8042 *k, uint8_t command)
{
	k->status |= STATUS_COMMAND;
	k->pending_command = 0;
	switch (command) {
	case CMD_READ_CTR:
		i8042_answer(k, k->ctr);
		break;
	case CMD_TEST_AUX:
		i8042_answer(k, TEST_CLOCK_HIGH);
		break;
	case CMD_SELF_TEST:
		i8042_write_ctr(k, k->ctr | CTR_SYSTEM | CTR_DISABLED);
		i8042_answer(k, SELF_TEST_PASSED);
		break;
	case CMD_TEST_KEYBOARD:
		i8042_answer(k, TEST_PASSED);
		break;
	case CMD_DISABLE:
		k->ctr |= CTR_DISABLED;
		break;
	case CMD_ENABLE:
		k->ctr &= (uint8_t)~CTR_DISABLED;
		break;
	case CMD_READ_INPUT:
		i8042_answer(k, INPUT_UNLOCKED);
		break;
	case CMD_READ_OUTPUT:
		i8042_answer(k, i8042_output_port(k));
		break;
	case CMD_WRITE_OUTPUT:
	case CMD_WRITE_OUT_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
	case CMD_WRITE_AUX:
		k->pending_command = command;
		break;
	default:
		if ((command & 0xe0) == CMD_WRITE_CTR)
			k->pending_command = command;
		/* 0xf0-0xff pulse the output port's low four bits that are 0 here; bit 0 is reset,
		 * the other ones have no wire. */
		else if ((command & 0xf1) == 0xf0)
			i8042_reset_machine(k);
		break;
	}
}

static void i8042_write_data(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->pending_command;

	k->status &= (uint8_t)~STATUS_COMMAND;
	k->pending_command = 0;
	switch (command) {
	case CMD_WRITE_CTR:
		i8042_write_ctr(k, value);
		break;
	case CMD_WRITE_OUTPUT:
		k->a20 = (value & OUTPUT_A20) != 0;
		if (!(value & OUTPUT_NOT_RESET))
			i8042_reset_machine(k);
		break;
	case CMD_WRITE_OUT_BUFFER:
		i8042_answer(k, value);
		break;
	default:
		break; /* for a keyboard or mouse that is not there: no answer ever comes */
	}
}

static void i8042_write_byte(void *dev, uint16_t port, uint8_t value)
{
	struct i8042 *k = dev;

	switch (port) {
	case PORT_DATA:
		i8042_write_data(k, value);
		break;
	case PORT_COMMAND:
		i8042_write_command(k, value);
		break;
	case PORT_CONTROL_A:
		k->a20 = (value & CONTROL_A_A20) != 0;
		if (value & CONTROL_A_RESET)
			i8042_reset_machine(k);
		break;
	case PORT_RESET:
		k->reset_control = value;
		if ((value & RESET_HARD) && (value & RESET_CPU))
			i8042_reset_machine(k);
		break;
	}
}

static uint8_t i8042_read_byte(void *dev, uint16_t port)
{
	struct i8042 *k = dev;

	switch (port) {
	case PORT_DATA:
		k->status &= (uint8_t)~STATUS_OUT_FULL;
		i8042_update_line(k);
		return k->out;
	case PORT_COMMAND:
		return k->status;
	case PORT_CONTROL_A:
		return k->a20 ? CONTROL_A_A20 : 0;
	case PORT_RESET:
		return k->reset_control;
	}
	return 0xff;
}

static uint32_t i8042_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(i8042_ranges, ARRAY_SIZE(i8042_ranges), i8042_read_byte, dev, port,
			      size);
}

static void i8042_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	pio_write_lanes(i8042_ranges, ARRAY_SIZE(i8042_ranges), i8042_write_byte, dev, port, size,
			value);
}

static void i8042_walk(void *dev, struct walker *w)
{
	struct i8042 *k = dev;

	walk_component(w, "i8042");
	walk_u8(w, "status", &k->status);
	walk_u8(w, "ctr", &k->ctr);
	walk_u8(w, "out", &k->out);
	walk_u8(w, "pending_command", &k->pending_command);
	walk_u8(w, "a20", &k->a20);
	walk_u8(w, "reset_control", &k->reset_control);
}

const struct dev_ops i8042_ops = {
	.name = "i8042",
	.pio_read = i8042_read,
	.pio_write = i8042_write,
	.walk = i8042_walk,
};
