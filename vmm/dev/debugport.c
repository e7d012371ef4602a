// SPDX-License-Identifier: GPL-3.0-or-later
/* Debug console and exit port: the two ways in which a test guest talks to us in one instruction.
 */
#include "vmm/dev/devices.h"

const struct pio_range debugport_ranges[2] = {{DEBUG_PORT, 1}, {EXIT_PORT, 1}};

void debugport_init(struct debugport *d, const struct dev_env *env)
{
	*d = (struct debugport){.env = *env};
}

static uint8_t debugport_read_byte(void *dev, uint16_t port)
{
	(void)dev;
	/* Reading the port's own number back tells a guest that the console is there. */
	return port == DEBUG_PORT ? DEBUG_PORT : 0xff;
}

static uint32_t debugport_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(debugport_ranges, ARRAY_SIZE(debugport_ranges), debugport_read_byte,
			      dev, port, size);
}

static void debugport_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	struct debugport *d = dev;

	if (size < 4)
		value &= (1u << (8 * size)) - 1;
	/* Not split into bytes: the exit status is the whole value. */
	if (port == DEBUG_PORT)
		d->env.output(d->env.ctx, DEV_STREAM_DEBUG, (uint8_t)value);
	else if (port == EXIT_PORT)
		d->env.request(d->env.ctx, DEV_REQUEST_EXIT, value);
}

static void debugport_walk(void *dev, struct walker *w)
{
	(void)dev; /* no state */
	walk_component(w, "debugport");
}

const struct dev_ops debugport_ops = {
	.name = "debugport",
	.pio_read = debugport_read,
	.pio_write = debugport_write,
	.walk = debugport_walk,
};
