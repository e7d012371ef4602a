// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Which devices the machine has and at which ports: the one place where they are registered.
 */
#include "vmm/machine.h"

static uint64_t env_now(void *ctx)
{
	return ((struct machine *)ctx)->vtime;
}

static void env_irq(void *ctx, unsigned line, bool level)
{
	pic_set_line(&((struct machine *)ctx)->pic, line, level);
}

static void env_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct machine *m = ctx;

	if (m->output)
		m->output(m->output_ctx, stream, byte);
}

static void env_request(void *ctx, enum dev_request what, uint32_t code)
{
	machine_end(ctx, what == DEV_REQUEST_EXIT ? END_EXIT : END_RESET, code);
}

static void add(struct machine *m, const struct dev_ops *ops, void *state,
		const struct pio_range *ranges, size_t n)
{
	struct device *d = &m->device[m->devices++];

	*d = (struct device){ops, state};
	for (size_t i = 0; i < n; i++)
		m->ports[m->port_ranges++] = (struct port_range){ranges[i], d};
}

#define ADD(m, field, type) \
	add(m, &type##_ops, &(m)->field, type##_ranges, ARRAY_SIZE(type##_ranges))

void devices_init(struct machine *m)
{
	m->env = (struct dev_env){.ctx = m,
				  .now = env_now,
				  .irq = env_irq,
				  .output = env_output,
				  .request = env_request};
	pic_init(&m->pic);
	pit_init(&m->pit, &m->env);
	uart_init(&m->uart, &m->env);
	rtc_init(&m->rtc, &m->env, m->config.epoch, m->config.mem_size);
	i8042_init(&m->i8042, &m->env);
	debugport_init(&m->debugport, &m->env);
	/* The busiest first: ports are looked up in this order. */
	ADD(m, uart, uart);
	ADD(m, pic, pic);
	ADD(m, pit, pit);
	ADD(m, debugport, debugport);
	ADD(m, rtc, rtc);
	ADD(m, i8042, i8042);
	devices_update_deadline(m);
}

const struct device *devices_find_port(const struct machine *m, uint16_t port)
{
	for (unsigned i = 0; i < m->port_ranges; i++) {
		const struct port_range *r = &m->ports[i];

		if ((uint16_t)(port - r->range.base) < r->range.count)
			return r->device;
	}
	return NULL;
}

void devices_tick(struct machine *m)
{
	for (unsigned i = 0; i < m->devices; i++)
		if (m->device[i].ops->tick)
			m->device[i].ops->tick(m->device[i].state);
	devices_update_deadline(m);
}

void devices_update_deadline(struct machine *m)
{
	m->deadline = TIME_NEVER;
	for (unsigned i = 0; i < m->devices; i++) {
		const struct device *d = &m->device[i];
		unsigned line = 0;
		uint64_t when;

		if (!d->ops->deadline)
			continue;
		when = d->ops->deadline(d->state, &line);
		if (when < m->deadline && pic_line_enabled(&m->pic, line))
			m->deadline = when;
	}
}
