/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A virtio device with a little RAM, and a driver for it that is written from the specification (virtio
 * 1.2) and not from the device: for the tests of the devices, and for their fuzzing. All that the
 * device says is kept. Nothing here depends on cmocka.
 */
#ifndef TESTS_UNIT_VIRTIO_RIG_H
#define TESTS_UNIT_VIRTIO_RIG_H

#include "vmm/dev/virtio_devices.h"

#include <string.h>

#define RIG_RAM (256u << 10)
/* Queue n has its parts from n * RIG_QUEUE on; buffers begin at RIG_DATA. */
#define RIG_QUEUE 0x2000u
#define RIG_AVAIL 0x1000u
#define RIG_USED 0x1800u
#define RIG_DATA (VIRTIO_QUEUES * RIG_QUEUE)
#define RIG_STREAM 8192

/* Registers, section 4.2.2. */
enum {
	R_MAGIC = 0x00,
	R_VERSION = 0x04,
	R_ID = 0x08,
	R_FEATURES = 0x10,
	R_FEATURES_SEL = 0x14,
	R_DRIVER_FEATURES = 0x20,
	R_DRIVER_FEATURES_SEL = 0x24,
	R_QUEUE_SEL = 0x30,
	R_QUEUE_MAX = 0x34,
	R_QUEUE_NUM = 0x38,
	R_QUEUE_READY = 0x44,
	R_NOTIFY = 0x50,
	R_IRQ_STATUS = 0x60,
	R_IRQ_ACK = 0x64,
	R_STATUS = 0x70,
	R_DESC = 0x80,
	R_AVAIL = 0x90,
	R_USED = 0xa0,
	R_CONFIG = 0x100,
};

enum { S_ACK = 1, S_DRIVER = 2, S_OK = 4, S_FEATURES = 8, S_NEEDS_RESET = 64 };
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

#define F_VERSION_1 (1ull << 32)

struct rig_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct rig {
	const struct dev_ops *ops;
	void *dev;
	uint8_t ram[RIG_RAM];
	unsigned line;
	bool level;
	unsigned rises;
	uint64_t entropy;
	/* What the guest sent: bytes of a port, the last frame. */
	uint8_t port[VIRTIO_CONSOLE_PORTS][RIG_STREAM];
	size_t port_len[VIRTIO_CONSOLE_PORTS];
	uint8_t frame[VIRTIO_NET_FRAME_MAX];
	size_t frame_len;
	unsigned frames;
	/* The driver's own. */
	uint16_t size[VIRTIO_QUEUES], avail[VIRTIO_QUEUES], used[VIRTIO_QUEUES];
};

static inline uint64_t rig_now(void *ctx)
{
	(void)ctx;
	return 0;
}

static inline void rig_irq(void *ctx, unsigned line, bool level)
{
	struct rig *r = ctx;

	r->rises += level && !r->level;
	r->line = line;
	r->level = level;
}

static inline void rig_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct rig *r = ctx;
	unsigned port = (unsigned)stream - DEV_STREAM_PORT;

	r->port[port][r->port_len[port]++ % RIG_STREAM] = byte;
}

static inline void rig_request(void *ctx, enum dev_request what, uint32_t code)
{
	(void)ctx;
	(void)what;
	(void)code;
}

static inline bool rig_valid(void *ctx, gpa_t gpa, uint64_t len)
{
	(void)ctx;
	return gpa.v < RIG_RAM && len <= RIG_RAM - gpa.v;
}

static inline bool rig_dma_read(void *ctx, gpa_t gpa, void *out, uint64_t len)
{
	struct rig *r = ctx;

	if (!rig_valid(ctx, gpa, len))
		return false;
	memcpy(out, r->ram + gpa.v, len);
	return true;
}

static inline bool rig_dma_write(void *ctx, gpa_t gpa, const void *data, uint64_t len)
{
	struct rig *r = ctx;

	if (!rig_valid(ctx, gpa, len))
		return false;
	memcpy(r->ram + gpa.v, data, len);
	return true;
}

static inline uint64_t rig_entropy(void *ctx)
{
	return ++((struct rig *)ctx)->entropy;
}

static inline void rig_transmit(void *ctx, const uint8_t *frame, size_t len)
{
	struct rig *r = ctx;

	memcpy(r->frame, frame, len);
	r->frame_len = len;
	r->frames++;
}

/* The environment for the *_init of the device, which comes next. */
static inline struct dev_env rig_init(struct rig *r, const struct dev_ops *ops, void *dev)
{
	memset(r, 0, sizeof(*r));
	r->ops = ops;
	r->dev = dev;
	return (struct dev_env){.ctx = r,
				.now = rig_now,
				.irq = rig_irq,
				.output = rig_output,
				.request = rig_request,
				.dma_valid = rig_valid,
				.dma_read = rig_dma_read,
				.dma_write = rig_dma_write,
				.entropy = rig_entropy,
				.transmit = rig_transmit};
}

/* --- The driver --------------------------------------------------------------------------------- */

static inline uint32_t rig_get(struct rig *r, unsigned offset)
{
	return (uint32_t)r->ops->mmio_read(r->dev, offset, 4);
}

static inline void rig_set(struct rig *r, unsigned offset, uint32_t value)
{
	r->ops->mmio_write(r->dev, offset, 4, value);
}

static inline uint64_t rig_features(struct rig *r)
{
	uint64_t low;

	rig_set(r, R_FEATURES_SEL, 0);
	low = rig_get(r, R_FEATURES);
	rig_set(r, R_FEATURES_SEL, 1);
	return low | (uint64_t)rig_get(r, R_FEATURES) << 32;
}

/* Section 3.1.1 up to FEATURES_OK; true if the device agrees. */
static inline bool rig_negotiate(struct rig *r, uint64_t features)
{
	rig_set(r, R_STATUS, 0);
	rig_set(r, R_STATUS, S_ACK);
	rig_set(r, R_STATUS, S_ACK | S_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		rig_set(r, R_DRIVER_FEATURES_SEL, i);
		rig_set(r, R_DRIVER_FEATURES, (uint32_t)(features >> (32 * i)));
	}
	rig_set(r, R_STATUS, S_ACK | S_DRIVER | S_FEATURES);
	return rig_get(r, R_STATUS) & S_FEATURES;
}

static inline void rig_set_address(struct rig *r, unsigned offset, uint64_t gpa)
{
	rig_set(r, offset, (uint32_t)gpa);
	rig_set(r, offset + 4, (uint32_t)(gpa >> 32));
}

static inline void rig_queue(struct rig *r, unsigned queue, uint16_t size)
{
	uint64_t base = queue * RIG_QUEUE;

	memset(r->ram + base, 0, RIG_QUEUE);
	r->size[queue] = size;
	r->avail[queue] = r->used[queue] = 0;
	rig_set(r, R_QUEUE_SEL, queue);
	rig_set(r, R_QUEUE_NUM, size);
	rig_set_address(r, R_DESC, base);
	rig_set_address(r, R_AVAIL, base + RIG_AVAIL);
	rig_set_address(r, R_USED, base + RIG_USED);
	rig_set(r, R_QUEUE_READY, 1);
}

static inline void rig_go(struct rig *r)
{
	rig_set(r, R_STATUS, S_ACK | S_DRIVER | S_FEATURES | S_OK);
}

static inline uint16_t rig_16(const struct rig *r, uint64_t gpa)
{
	uint16_t v;

	memcpy(&v, r->ram + gpa, sizeof(v));
	return v;
}

static inline uint32_t rig_32(const struct rig *r, uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, r->ram + gpa, sizeof(v));
	return v;
}

static inline void rig_put_16(struct rig *r, uint64_t gpa, uint16_t v)
{
	memcpy(r->ram + gpa, &v, sizeof(v));
}

static inline void rig_desc(struct rig *r, unsigned queue, uint16_t index, struct rig_desc d)
{
	memcpy(r->ram + queue * RIG_QUEUE + index * sizeof(d), &d, sizeof(d));
}

/* Make the chain that begins at `head` available, without telling. */
static inline void rig_avail(struct rig *r, unsigned queue, uint16_t head)
{
	uint64_t base = queue * RIG_QUEUE + RIG_AVAIL;

	rig_put_16(r, base + 4 + 2u * (r->avail[queue] % r->size[queue]), head);
	rig_put_16(r, base + 2, ++r->avail[queue]);
}

/* One chain of n descriptors from index `first` on. The flags of D_WRITE are taken from d[]. */
static inline void rig_chain(struct rig *r, unsigned queue, uint16_t first, struct rig_desc *d,
			     unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = (uint16_t)((first + i) % r->size[queue]);

		d[i].next = (uint16_t)((at + 1) % r->size[queue]);
		d[i].flags = (uint16_t)((d[i].flags & D_WRITE) | (i + 1 < n ? D_NEXT : 0));
		rig_desc(r, queue, at, d[i]);
	}
	rig_avail(r, queue, first);
}

static inline void rig_notify(struct rig *r, unsigned queue)
{
	rig_set(r, R_NOTIFY, queue);
}

/* The next chain that came back; false if none did. */
static inline bool rig_used(struct rig *r, unsigned queue, uint32_t *head, uint32_t *len)
{
	uint64_t base = queue * RIG_QUEUE + RIG_USED;
	uint64_t at = base + 4 + 8ull * (r->used[queue] % r->size[queue]);

	if (rig_16(r, base + 2) == r->used[queue])
		return false;
	*head = rig_32(r, at);
	*len = rig_32(r, at + 4);
	r->used[queue]++;
	return true;
}

/* --- State --------------------------------------------------------------------------------------- */

static inline uint64_t rig_digest(struct rig *r)
{
	struct walker w;
	uint64_t digest;

	walker_init_digest(&w);
	r->ops->walk(r->dev, &w);
	digest = walker_digest(&w);
	walker_fini(&w);
	return digest;
}

/* Give `to`, whose device is of the same kind, all that `from` has. False if the walk failed. */
static inline bool rig_copy(struct rig *from, struct rig *to)
{
	const struct dev_ops *ops = to->ops;
	struct walker save, restore;
	void *dev = to->dev;
	bool ok;

	walker_init_save(&save);
	from->ops->walk(from->dev, &save);
	walker_init_restore(&restore, save.out.data, save.out.len);
	ops->walk(dev, &restore);
	ok = !walker_failed(&save) && !walker_failed(&restore) && restore.in.pos == restore.in.len;
	walker_fini(&restore);
	walker_fini(&save);
	*to = *from;
	to->ops = ops;
	to->dev = dev;
	return ok;
}

#endif
