// SPDX-License-Identifier: GPL-3.0-or-later
/* Console with several ports, section 5.3. Port 0 is a console, the others are plain streams. */
#include "vmm/dev/virtio_devices.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>

/* Queues, section 5.3.2: those of port 0, of control, then of the other ports, receiver first. */
enum { QUEUE_CONTROL_RX = 2, QUEUE_CONTROL_TX = 3 };

/* Linux gives no buffer larger than 32 KiB to a port. */
#define CHAIN_MAX (64u << 10)
#define OUTPUT_PIECE 256u

/* Messages to the driver, in the order in which it gets them. */
enum {
	OWED_ADD,
	OWED_CONSOLE,
	OWED_NAME,
	OWED_SIZE,
	OWED_OPEN,
	OWED_COUNT
};

struct message {
	struct virtio_console_control head;
	uint8_t more[16];
};

static unsigned port_of_queue(unsigned queue)
{
	return queue < QUEUE_CONTROL_RX ? 0 : queue / 2 - 1;
}

static unsigned receiver_of_port(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static bool is_multiport(const struct virtio_console *c)
{
	return virtio_has_feature(&c->v, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* --- Control messages, section 5.3.6.2 -------------------------------------------------------- */

/* Returns the message's length. */
static uint32_t compose(const struct virtio_console *c, unsigned port, unsigned what, struct message *m)
{
	static const uint16_t events[OWED_COUNT] = {
		[OWED_ADD] = VIRTIO_CONSOLE_PORT_ADD,
		[OWED_CONSOLE] = VIRTIO_CONSOLE_CONSOLE_PORT,
		[OWED_NAME] = VIRTIO_CONSOLE_PORT_NAME,
		[OWED_SIZE] = VIRTIO_CONSOLE_RESIZE,
		[OWED_OPEN] = VIRTIO_CONSOLE_PORT_OPEN,
	};
	const uint16_t size[2] = {c->columns, c->rows};
	uint32_t more = 0;

	*m = (struct message){.head = {.id = port, .event = events[what], .value = 1}};
	if (what == OWED_NAME)
		more = (uint32_t)snprintf((char *)m->more, sizeof(m->more), "hindsight.%u", port);
	if (what == OWED_SIZE) {
		memcpy(m->more, size, sizeof(size));
		more = sizeof(size);
	}
	return (uint32_t)sizeof(m->head) + more;
}

/* Send what the driver has room for. */
static void send_owed(struct virtio_console *c)
{
	bool sent = false;

	for (unsigned i = 0; i < c->ports * OWED_COUNT; i++) {
		unsigned port = i / OWED_COUNT, what = i % OWED_COUNT;
		struct virtio_chain chain;
		struct message m;
		uint32_t len;

		if (!(c->owed[port] >> what & 1))
			continue;
		if (!virtio_take(&c->v, QUEUE_CONTROL_RX, &chain))
			break;
		len = compose(c, port, what, &m);
		if (!virtio_chain_write(&c->v, &chain, 0, &m, len)) {
			virtio_break(&c->v); /* a buffer too small for any message */
			return;
		}
		c->owed[port] &= (uint8_t)~(1u << what);
		virtio_put(&c->v, QUEUE_CONTROL_RX, &chain, len);
		sent = true;
	}
	if (sent)
		virtio_signal(&c->v, QUEUE_CONTROL_RX);
}

static void take_message(struct virtio_console *c, const struct virtio_console_control *m)
{
	/* Section 5.3.6.2: value 0 says that the driver could not do it. */
	if (m->event == VIRTIO_CONSOLE_DEVICE_READY && m->value == 1) {
		for (unsigned port = 0; port < c->ports; port++)
			c->owed[port] |= 1u << OWED_ADD;
	}
	if (m->id >= c->ports)
		return;
	if (m->event == VIRTIO_CONSOLE_PORT_OPEN)
		c->open[m->id] = m->value != 0;
	if (m->event == VIRTIO_CONSOLE_PORT_READY && m->value == 1)
		c->owed[m->id] |= 1u << OWED_NAME | 1u << OWED_OPEN |
				  (m->id ? 0 : 1u << OWED_CONSOLE | 1u << OWED_SIZE);
}

static void control_notify(struct virtio_console *c)
{
	unsigned n = virtio_pending(&c->v, QUEUE_CONTROL_TX);
	struct virtio_chain chain;

	for (; n && virtio_take(&c->v, QUEUE_CONTROL_TX, &chain); n--) {
		struct virtio_console_control m;

		if (virtio_chain_read(&c->v, &chain, 0, &m, sizeof(m)))
			take_message(c, &m);
		virtio_put(&c->v, QUEUE_CONTROL_TX, &chain, 0);
	}
	virtio_signal(&c->v, QUEUE_CONTROL_TX);
	send_owed(c);
}

/* --- Ports --------------------------------------------------------------------------------------- */

static void output(struct virtio_console *c, unsigned port, const struct virtio_chain *chain)
{
	enum dev_stream stream = (enum dev_stream)(DEV_STREAM_PORT + port);
	uint8_t piece[OUTPUT_PIECE];

	for (uint32_t at = 0; at < chain->read_len;) {
		uint32_t left = chain->read_len - at;
		uint32_t n = left < sizeof(piece) ? left : (uint32_t)sizeof(piece);

		if (!virtio_chain_read(&c->v, chain, at, piece, n))
			return;
		for (uint32_t i = 0; i < n; i++)
			c->v.env.output(c->v.env.ctx, stream, piece[i]);
		at += n;
	}
}

static void output_notify(struct virtio_console *c, unsigned queue)
{
	unsigned n = virtio_pending(&c->v, queue);
	struct virtio_chain chain;

	for (; n && virtio_take(&c->v, queue, &chain); n--) {
		output(c, port_of_queue(queue), &chain);
		virtio_put(&c->v, queue, &chain, 0);
	}
	virtio_signal(&c->v, queue);
}

static void console_notify(void *dev, unsigned queue)
{
	struct virtio_console *c = dev;
	struct virtio_chain chain;

	if (queue >= QUEUE_CONTROL_RX && !is_multiport(c))
		return;
	if (queue == QUEUE_CONTROL_RX)
		send_owed(c);
	else if (queue == QUEUE_CONTROL_TX)
		control_notify(c);
	else if (queue % 2)
		output_notify(c, queue);
	else if (!virtio_peek(&c->v, queue, &chain))
		virtio_break(&c->v); /* better told now than when input comes */
}

size_t virtio_console_room(const struct virtio_console *c, unsigned port)
{
	struct virtio_chain chain;

	if (port >= c->ports || (is_multiport(c) ? !c->open[port] : port > 0) ||
	    !virtio_peek(&c->v, receiver_of_port(port), &chain))
		return 0;
	return chain.write_len < VIRTIO_CONSOLE_INPUT_MAX ? chain.write_len
							  : VIRTIO_CONSOLE_INPUT_MAX;
}

void virtio_console_receive(struct virtio_console *c, unsigned port, const uint8_t *bytes, size_t n)
{
	unsigned queue = receiver_of_port(port);
	struct virtio_chain chain;

	if (!virtio_take(&c->v, queue, &chain))
		return;
	virtio_chain_write(&c->v, &chain, 0, bytes, (uint32_t)n);
	virtio_put(&c->v, queue, &chain, (uint32_t)n);
	virtio_signal(&c->v, queue);
}

bool virtio_console_takes_size(const struct virtio_console *c)
{
	return is_multiport(c) && c->open[0];
}

void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows)
{
	c->columns = columns;
	c->rows = rows;
	c->owed[0] |= 1u << OWED_SIZE;
	send_owed(c);
}

/* --- The device -------------------------------------------------------------------------------- */

static void console_reset(void *dev)
{
	struct virtio_console *c = dev;

	memset(c->owed, 0, sizeof(c->owed));
	memset(c->open, 0, sizeof(c->open));
}

static void console_config(void *dev, uint8_t config[VIRTIO_CONFIG_SIZE])
{
	const struct virtio_console *c = dev;
	struct virtio_console_config f = {.cols = VIRTIO_CONSOLE_COLUMNS,
					  .rows = VIRTIO_CONSOLE_ROWS,
					  .max_nr_ports = c->ports};

	memcpy(config, &f, sizeof(f));
}

static void console_walk(void *dev, struct walker *w)
{
	struct virtio_console *c = dev;

	virtio_walk(&c->v, virtio_console_ops.name, w);
	walk_bytes(w, "owed", c->owed, sizeof(c->owed));
	walk_bytes(w, "open", c->open, sizeof(c->open));
	walk_u16(w, "columns", &c->columns);
	walk_u16(w, "rows", &c->rows);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.features = 1ull << VIRTIO_CONSOLE_F_SIZE | 1ull << VIRTIO_CONSOLE_F_MULTIPORT,
	.chain_max = CHAIN_MAX,
	.notify = console_notify,
	.reset = console_reset,
	.config = console_config,
};

const struct dev_ops virtio_console_ops = {
	.name = "virtio-console",
	.mmio_read = virtio_mmio_read,
	.mmio_write = virtio_mmio_write,
	.walk = console_walk,
};

_Static_assert(2 * VIRTIO_CONSOLE_PORTS + 2 <= VIRTIO_QUEUES, "two queues a port and two for control");

void virtio_console_init(struct virtio_console *c, const struct dev_env *env, unsigned ports)
{
	*c = (struct virtio_console){.ports = ports,
				     .columns = VIRTIO_CONSOLE_COLUMNS,
				     .rows = VIRTIO_CONSOLE_ROWS};
	virtio_init(&c->v, env, &ops, VIRTIO_SLOT_CONSOLE, 2 * ports + 2);
}
