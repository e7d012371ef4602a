// SPDX-License-Identifier: GPL-3.0-or-later
/* Network card without offloads, section 5.1. */
#include "vmm/dev/virtio_devices.h"

#include <linux/if_ether.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <string.h>

enum { QUEUE_RX, QUEUE_TX };

/* With VIRTIO_F_VERSION_1 the header always has num_buffers (section 5.1.6.1). */
#define HEADER_SIZE ((uint32_t)sizeof(struct virtio_net_hdr_v1))
/* Far more than a frame; drivers may post receive buffers of any sensible size. */
#define CHAIN_MAX (128u << 10)

static void transmit(struct virtio *v, const struct virtio_chain *c)
{
	uint32_t len = c->read_len - HEADER_SIZE;
	uint8_t frame[VIRTIO_NET_FRAME_MAX];

	/* What no wire would carry is lost. */
	if (len >= ETH_HLEN && len <= sizeof(frame) &&
	    virtio_chain_read(v, c, HEADER_SIZE, frame, len))
		v->env.transmit(v->env.ctx, frame, len);
}

static void transmit_notify(struct virtio *v)
{
	unsigned n = virtio_pending(v, QUEUE_TX);
	struct virtio_chain c;

	for (; n && virtio_take(v, QUEUE_TX, &c); n--) {
		if (c.read_len < HEADER_SIZE) {
			virtio_break(v);
			return;
		}
		transmit(v, &c);
		virtio_put(v, QUEUE_TX, &c, 0);
	}
	virtio_signal(v, QUEUE_TX);
}

static void net_notify(void *dev, unsigned queue)
{
	struct virtio *v = dev;
	struct virtio_chain c;

	if (queue == QUEUE_TX)
		transmit_notify(v);
	else if (!virtio_peek(v, queue, &c))
		virtio_break(v); /* better told now than when a frame comes */
}

size_t virtio_net_room(const struct virtio_net *n)
{
	struct virtio_chain c;
	uint32_t room;

	if (!virtio_peek(&n->v, QUEUE_RX, &c) || c.write_len < HEADER_SIZE + ETH_HLEN)
		return 0;
	room = c.write_len - HEADER_SIZE;
	return room < VIRTIO_NET_FRAME_MAX ? room : VIRTIO_NET_FRAME_MAX;
}

void virtio_net_receive(struct virtio_net *n, const uint8_t *frame, size_t len)
{
	const struct virtio_net_hdr_v1 head = {.gso_type = VIRTIO_NET_HDR_GSO_NONE, .num_buffers = 1};
	struct virtio_chain c;

	if (!virtio_take(&n->v, QUEUE_RX, &c))
		return;
	virtio_chain_write(&n->v, &c, 0, &head, HEADER_SIZE);
	virtio_chain_write(&n->v, &c, HEADER_SIZE, frame, (uint32_t)len);
	virtio_put(&n->v, QUEUE_RX, &c, HEADER_SIZE + (uint32_t)len);
	virtio_signal(&n->v, QUEUE_RX);
}

static void net_config(void *dev, uint8_t config[VIRTIO_CONFIG_SIZE])
{
	const struct virtio_net *n = dev;

	memcpy(config, n->mac, sizeof(n->mac)); /* first field, section 5.1.4 */
}

static void net_walk(void *dev, struct walker *w)
{
	virtio_walk(dev, virtio_net_ops.name, w);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_NET,
	.features = 1ull << VIRTIO_NET_F_MAC,
	.chain_max = CHAIN_MAX,
	.notify = net_notify,
	.config = net_config,
};

const struct dev_ops virtio_net_ops = {
	.name = "virtio-net",
	.mmio_read = virtio_mmio_read,
	.mmio_write = virtio_mmio_write,
	.walk = net_walk,
};

void virtio_net_init(struct virtio_net *n, const struct dev_env *env, const uint8_t mac[6])
{
	memcpy(n->mac, mac, sizeof(n->mac));
	virtio_init(&n->v, env, &ops, VIRTIO_SLOT_NET, 2);
}
