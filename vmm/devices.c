// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Which devices the machine has and where: the one place where they are registered.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <string.h>

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

static bool env_dma_valid(void *ctx, gpa_t gpa, uint64_t len)
{
	return memory_at(((struct machine *)ctx)->mem, gpa, len);
}

static bool env_dma_read(void *ctx, gpa_t gpa, void *out, uint64_t len)
{
	return memory_read(((struct machine *)ctx)->mem, gpa, out, len) == 0;
}

/* Write a piece of at most 8 bytes that is RAM, and tell of it if it is watched. */
static void write_watched(struct machine *m, gpa_t gpa, const void *data, unsigned len)
{
	uint64_t old = 0, now = 0;
	int rc;

	memory_read(m->mem, gpa, &old, len);
	memory_write(m->mem, gpa, data, len);
	if (!memory_is_watched(m->mem, gpa, len) || !m->nondet->watched)
		return;
	memcpy(&now, data, len);
	m->dma = true;
	rc = m->nondet->watched(m->nondet_ctx, m, gpa, len, old, now, &m->watched_err);
	m->dma = false;
	if (!m->watched_rc)
		m->watched_rc = rc;
}

static bool env_dma_write(void *ctx, gpa_t gpa, const void *data, uint64_t len)
{
	struct machine *m = ctx;
	const uint8_t *p = data;

	if (!memory_is_watched(m->mem, gpa, len))
		return memory_write(m->mem, gpa, data, len) == 0;
	if (!env_dma_valid(ctx, gpa, len))
		return false;
	/* By aligned words, as large as the guest's own stores come. */
	for (uint64_t at = 0; at < len;) {
		uint64_t word = 8 - (gpa.v + at) % 8, left = len - at;
		unsigned n = (unsigned)(word < left ? word : left);

		write_watched(m, GPA(gpa.v + at), p + at, n);
		at += n;
	}
	return true;
}

static uint64_t env_entropy(void *ctx)
{
	return machine_next_entropy(&((struct machine *)ctx)->dev_entropy);
}

static void env_transmit(void *ctx, const uint8_t *frame, size_t len)
{
	struct machine *m = ctx;

	if (m->transmit)
		m->transmit(m->transmit_ctx, frame, len);
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

static void add_virtio(struct machine *m, const struct dev_ops *ops, struct virtio *v)
{
	struct device *d = &m->device[m->devices++];

	*d = (struct device){ops, v};
	m->mapped[m->mapped_ranges++] = (struct mapped_range){virtio_slot_range(v->slot), d};
}

static int add_disk(struct machine *m, const struct guest_image *image, struct err *err)
{
	int rc;

	if (!image->disk)
		return err_set(err, EINVAL, "this machine has a disk: give its image with --disk FILE");
	rc = virtio_blk_init(&m->blk, &m->env, image->disk, image->disk_size, err);
	if (rc == 0)
		add_virtio(m, &virtio_blk_ops, &m->blk.v);
	return rc;
}

/* Locally administered (bit 1 of the first byte), for one station (bit 0): IEEE 802. */
static void make_mac(uint64_t seed, uint8_t mac[6])
{
	uint64_t hash = XXH3_64bits(&seed, sizeof(seed));

	memcpy(mac, &hash, 6);
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
}

static int add_optional(struct machine *m, const struct guest_image *image, struct err *err)
{
	uint8_t mac[6];

	if (m->config.ports > VIRTIO_CONSOLE_PORTS)
		return err_set(err, EINVAL, "a console has at most %u ports", VIRTIO_CONSOLE_PORTS);
	if (m->config.rng) {
		virtio_rng_init(&m->rng, &m->env);
		add_virtio(m, &virtio_rng_ops, &m->rng.v);
	}
	if (m->config.ports) {
		virtio_console_init(&m->console, &m->env, m->config.ports);
		add_virtio(m, &virtio_console_ops, &m->console.v);
	}
	if (m->config.net) {
		make_mac(m->config.seed, mac);
		virtio_net_init(&m->net, &m->env, mac);
		add_virtio(m, &virtio_net_ops, &m->net.v);
	}
	return m->config.disk ? add_disk(m, image, err) : 0;
}

int devices_init(struct machine *m, const struct guest_image *image, struct err *err)
{
	int rc;

	m->env = (struct dev_env){.ctx = m,
				  .now = env_now,
				  .irq = env_irq,
				  .output = env_output,
				  .request = env_request,
				  .dma_valid = env_dma_valid,
				  .dma_read = env_dma_read,
				  .dma_write = env_dma_write,
				  .entropy = env_entropy,
				  .transmit = env_transmit};
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
	rc = add_optional(m, image, err);
	if (rc == 0)
		devices_update_deadline(m);
	return rc;
}

void devices_destroy(struct machine *m)
{
	virtio_blk_destroy(&m->blk);
}

void devices_parameters(const struct machine_config *config, char out[DEVICES_PARAMETERS_MAX])
{
	const bool has[] = {
		[VIRTIO_SLOT_BLK] = config->disk,
		[VIRTIO_SLOT_RNG] = config->rng,
		[VIRTIO_SLOT_CONSOLE] = config->ports > 0,
		[VIRTIO_SLOT_NET] = config->net,
	};
	size_t len = 0;

	out[0] = 0;
	for (unsigned slot = 0; slot < ARRAY_SIZE(has); slot++) {
		if (!has[slot])
			continue;
		if (len)
			out[len++] = ' ';
		virtio_slot_parameter(slot, out + len);
		len += strlen(out + len);
	}
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

const struct device *devices_find_mapped(const struct machine *m, gpa_t gpa, unsigned len,
					 uint64_t *offset)
{
	for (unsigned i = 0; i < m->mapped_ranges; i++) {
		const struct mapped_range *r = &m->mapped[i];

		*offset = gpa.v - r->range.base;
		if (*offset < r->range.size && len <= r->range.size - *offset)
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

size_t devices_room(const struct machine *m, unsigned channel)
{
	if (channel == INPUT_SERIAL)
		return uart_room(&m->uart);
	if (channel == INPUT_NET)
		return m->config.net ? virtio_net_room(&m->net) : 0;
	if (channel == INPUT_WINDOW)
		return m->config.ports && virtio_console_takes_size(&m->console) ? WINDOW_SIZE : 0;
	return channel - INPUT_PORT < m->config.ports
		       ? virtio_console_room(&m->console, channel - INPUT_PORT)
		       : 0;
}

void devices_receive(struct machine *m, unsigned channel, const uint8_t *bytes, size_t n)
{
	if (channel == INPUT_SERIAL)
		uart_receive(&m->uart, bytes, n);
	else if (channel == INPUT_NET)
		virtio_net_receive(&m->net, bytes, n);
	else if (channel == INPUT_WINDOW && n == WINDOW_SIZE)
		virtio_console_resize(&m->console, (uint16_t)(bytes[0] | bytes[1] << 8),
				      (uint16_t)(bytes[2] | bytes[3] << 8));
	else
		virtio_console_receive(&m->console, channel - INPUT_PORT, bytes, n);
	devices_update_deadline(m);
}
