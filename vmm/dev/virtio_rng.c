// SPDX-License-Identifier: GPL-3.0-or-later
/* Entropy source, section 5.4. Its numbers come from the machine's seed, never from the host. */
#include "vmm/dev/virtio_devices.h"

#include <linux/virtio_ids.h>

/* A device may give less than it was asked for (section 5.4.6.2). */
#define ANSWER_MAX 4096u

static void rng_notify(void *dev, unsigned queue)
{
	struct virtio *v = dev;
	unsigned n = virtio_pending(v, queue);
	struct virtio_chain c;

	for (; n && virtio_take(v, queue, &c); n--) {
		uint32_t len = c.write_len < ANSWER_MAX ? c.write_len : ANSWER_MAX;

		for (uint32_t at = 0; at < len; at += (uint32_t)sizeof(uint64_t)) {
			uint64_t value = v->env.entropy(v->env.ctx);
			uint32_t left = len - at;

			virtio_chain_write(v, &c, at, &value,
					   left < sizeof(value) ? left : (uint32_t)sizeof(value));
		}
		virtio_put(v, queue, &c, len);
	}
	virtio_signal(v, queue);
}

static void rng_walk(void *dev, struct walker *w)
{
	virtio_walk(dev, virtio_rng_ops.name, w);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_RNG,
	.chain_max = UINT32_MAX,
	.notify = rng_notify,
};

const struct dev_ops virtio_rng_ops = {
	.name = "virtio-rng",
	.mmio_read = virtio_mmio_read,
	.mmio_write = virtio_mmio_write,
	.walk = rng_walk,
};

void virtio_rng_init(struct virtio_rng *r, const struct dev_env *env)
{
	virtio_init(&r->v, env, &ops, VIRTIO_SLOT_RNG, 1);
}
