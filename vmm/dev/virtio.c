// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/dev/virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x74726976u /* "virt", section 4.2.2 */
#define VERSION 2u
#define VENDOR 0x53444e48u /* "HNDS"; any number will do */

/* What a driver can set in the status (section 2.1); it never unsets any but by a reset. */
#define STATUS_DRIVER_BITS                                                                         \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |      \
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

/* Offsets in the parts of a queue, section 2.7. */
#define AVAIL_FLAGS 0
#define AVAIL_INDEX 2
#define AVAIL_RING 4
#define USED_INDEX 2
#define USED_RING 4

/* Lines that no device of a PC without disk controllers, sound or a second port takes. */
static const uint8_t lines[VIRTIO_SLOTS] = {5, 6, 7, 9, 10, 11};

_Static_assert(VIRTIO_MMIO_BASE >= MEMORY_LOW_MAX &&
		       VIRTIO_MMIO_BASE + VIRTIO_SLOTS * VIRTIO_MMIO_SIZE <= 1ull << 32,
	       "the slots lie in the hole of RAM");

unsigned virtio_slot_line(unsigned slot)
{
	return lines[slot];
}

struct mmio_range virtio_slot_range(unsigned slot)
{
	return (struct mmio_range){VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SIZE};
}

void virtio_slot_parameter(unsigned slot, char out[VIRTIO_PARAMETER_MAX])
{
	/* Linux: drivers/virtio/virtio_mmio.c, "<size>@<baseaddr>:<irq>". */
	snprintf(out, VIRTIO_PARAMETER_MAX, "virtio_mmio.device=4K@0x%llx:%u",
		 (unsigned long long)virtio_slot_range(slot).base, virtio_slot_line(slot));
}

static uint64_t features(const struct virtio *v)
{
	return v->ops->features | 1ull << VIRTIO_F_VERSION_1;
}

bool virtio_has_feature(const struct virtio *v, unsigned bit)
{
	return v->driver_features >> bit & 1;
}

/* --- Interrupts --------------------------------------------------------------------------------- */

static void set_line(struct virtio *v, bool level)
{
	v->env.irq(v->env.ctx, virtio_slot_line(v->slot), level);
}

static void raise(struct virtio *v, uint8_t cause)
{
	v->interrupt_status |= cause;
	/* An edge-triggered PIC must see each cause, also one that comes while the line is up. */
	set_line(v, false);
	set_line(v, true);
}

static void acknowledge(struct virtio *v, uint32_t causes)
{
	v->interrupt_status &= (uint8_t)~causes;
	set_line(v, false);
	if (v->interrupt_status)
		set_line(v, true);
}

static bool in_use(const struct virtio *v)
{
	return (v->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==
	       VIRTIO_CONFIG_S_DRIVER_OK;
}

void virtio_break(struct virtio *v)
{
	bool tell = in_use(v);

	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (tell)
		raise(v, VIRTIO_MMIO_INT_CONFIG);
}

/* --- Queues ----------------------------------------------------------------------------------- */

static bool size_is_valid(uint16_t size)
{
	return size && size <= VIRTIO_QUEUE_SIZE && !(size & (size - 1));
}

/* The size is looked at each time, since state can also come from a file. */
static const struct virtq *usable(const struct virtio *v, unsigned queue)
{
	const struct virtq *q = queue < v->queues ? &v->queue[queue] : NULL;

	return q && in_use(v) && q->ready && size_is_valid(q->size) ? q : NULL;
}

static bool read16(const struct virtio *v, uint64_t gpa, uint16_t *out)
{
	return v->env.dma_read(v->env.ctx, GPA(gpa), out, sizeof(*out));
}

/* Chains that wait in q; -1 if the driver's index cannot be. */
static int count_pending(const struct virtio *v, const struct virtq *q)
{
	uint16_t index;

	if (!read16(v, q->avail + AVAIL_INDEX, &index))
		return -1;
	index = (uint16_t)(index - q->next_avail);
	return index <= q->size ? index : -1;
}

unsigned virtio_pending(struct virtio *v, unsigned queue)
{
	const struct virtq *q = usable(v, queue);
	int n = q ? count_pending(v, q) : 0;

	if (n < 0)
		virtio_break(v);
	return n < 0 ? 0 : (unsigned)n;
}

static bool add_segment(const struct virtio *v, struct virtio_chain *c, const struct vring_desc *d)
{
	uint64_t total = (uint64_t)c->read_len + c->write_len + d->len;
	bool write = d->flags & VRING_DESC_F_WRITE;

	/* Indirect descriptors are not offered. Readable ones come first (section 2.7.4.2). */
	if ((d->flags & VRING_DESC_F_INDIRECT) || total > v->ops->chain_max ||
	    (!write && c->segments > c->readable) ||
	    !v->env.dma_valid(v->env.ctx, GPA(d->addr), d->len))
		return false;
	c->segment[c->segments++] = (struct virtio_segment){GPA(d->addr), d->len};
	if (write) {
		c->write_len += d->len;
	} else {
		c->readable++;
		c->read_len += d->len;
	}
	return true;
}

static bool read_chain(const struct virtio *v, const struct virtq *q, struct virtio_chain *c)
{
	struct vring_desc d = {.flags = VRING_DESC_F_NEXT};
	unsigned slot = q->next_avail & (q->size - 1u);

	/* Not the segments: there are many, and few are used. */
	c->segments = c->readable = 0;
	c->read_len = c->write_len = 0;
	if (!read16(v, q->avail + AVAIL_RING + 2ull * slot, &c->head))
		return false;
	d.next = c->head;
	while (d.flags & VRING_DESC_F_NEXT) {
		/* As many descriptors as the ring has: the chain bites its tail. */
		if (d.next >= q->size || c->segments == q->size ||
		    !v->env.dma_read(v->env.ctx, GPA(q->desc + sizeof(d) * d.next), &d, sizeof(d)) ||
		    !add_segment(v, c, &d))
			return false;
	}
	return true;
}

bool virtio_peek(const struct virtio *v, unsigned queue, struct virtio_chain *c)
{
	const struct virtq *q = usable(v, queue);

	return q && count_pending(v, q) > 0 && read_chain(v, q, c);
}

bool virtio_take(struct virtio *v, unsigned queue, struct virtio_chain *c)
{
	if (!virtio_pending(v, queue))
		return false;
	if (!read_chain(v, &v->queue[queue], c)) {
		virtio_break(v);
		return false;
	}
	v->queue[queue].next_avail++;
	return true;
}

/* Copy to or from the segments from `first` up to `end`; one of out and data is NULL. */
static bool chain_copy(const struct virtio *v, const struct virtio_chain *c, unsigned first,
		       unsigned end, uint32_t offset, uint8_t *out, const uint8_t *data, uint32_t len)
{
	for (unsigned i = first; i < end && len; i++) {
		const struct virtio_segment *s = &c->segment[i];
		uint32_t n;

		if (offset >= s->len) {
			offset -= s->len;
			continue;
		}
		n = len < s->len - offset ? len : s->len - offset;
		if (out ? !v->env.dma_read(v->env.ctx, GPA(s->gpa.v + offset), out, n)
			: !v->env.dma_write(v->env.ctx, GPA(s->gpa.v + offset), data, n))
			return false;
		out = out ? out + n : NULL;
		data = data ? data + n : NULL;
		offset = 0;
		len -= n;
	}
	return len == 0;
}

bool virtio_chain_read(const struct virtio *v, const struct virtio_chain *c, uint32_t offset,
		       void *out, uint32_t len)
{
	return chain_copy(v, c, 0, c->readable, offset, out, NULL, len);
}

bool virtio_chain_write(const struct virtio *v, const struct virtio_chain *c, uint32_t offset,
			const void *data, uint32_t len)
{
	return chain_copy(v, c, c->readable, c->segments, offset, NULL, data, len);
}

void virtio_put(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t written)
{
	struct virtq *q = &v->queue[queue];
	struct vring_used_elem e = {.id = c->head, .len = written};
	uint64_t at = q->used + USED_RING + sizeof(e) * (q->next_used & (q->size - 1u));

	q->next_used++;
	if (!v->env.dma_write(v->env.ctx, GPA(at), &e, sizeof(e)) ||
	    !v->env.dma_write(v->env.ctx, GPA(q->used + USED_INDEX), &q->next_used,
			      sizeof(q->next_used)))
		virtio_break(v);
}

void virtio_signal(struct virtio *v, unsigned queue)
{
	const struct virtq *q = usable(v, queue);
	uint16_t flags;

	if (q && read16(v, q->avail + AVAIL_FLAGS, &flags) && !(flags & VRING_AVAIL_F_NO_INTERRUPT))
		raise(v, VIRTIO_MMIO_INT_VRING);
}

static void notify(struct virtio *v, unsigned queue)
{
	if (virtio_pending(v, queue))
		v->ops->notify(v, queue);
}

/* Alignments: section 2.7. */
static bool parts_are_valid(const struct virtio *v, const struct virtq *q)
{
	const struct dev_env *env = &v->env;

	return size_is_valid(q->size) && !(q->desc % VRING_DESC_ALIGN_SIZE) &&
	       !(q->avail % VRING_AVAIL_ALIGN_SIZE) && !(q->used % VRING_USED_ALIGN_SIZE) &&
	       env->dma_valid(env->ctx, GPA(q->desc), 16ull * q->size) &&
	       env->dma_valid(env->ctx, GPA(q->avail), AVAIL_RING + 2ull * q->size) &&
	       env->dma_valid(env->ctx, GPA(q->used), USED_RING + 8ull * q->size);
}

static void set_ready(struct virtio *v, struct virtq *q, bool ready)
{
	if (ready && !q->ready && !parts_are_valid(v, q)) {
		virtio_break(v);
		return;
	}
	if (ready != q->ready)
		q->next_avail = q->next_used = 0;
	q->ready = ready;
}

/* --- Status and features ------------------------------------------------------------------------ */

static void reset(struct virtio *v)
{
	if (v->ops->reset)
		v->ops->reset(v);
	v->driver_features = 0;
	v->device_features_sel = v->driver_features_sel = v->queue_sel = 0;
	v->status = v->interrupt_status = 0;
	memset(v->queue, 0, sizeof(v->queue));
	set_line(v, false);
}

static void set_status(struct virtio *v, uint32_t value)
{
	bool was_in_use = in_use(v);

	if (!value) {
		reset(v);
		return;
	}
	v->status |= value & STATUS_DRIVER_BITS;
	/* Only what is offered, and version 1 always (section 6.1); else the driver reads back that it
	 * did not work, section 3.1.1. */
	if ((v->driver_features & ~features(v)) || !virtio_has_feature(v, VIRTIO_F_VERSION_1))
		v->status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
		v->status &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	/* Chains may have been made available before. */
	for (unsigned i = 0; !was_in_use && i < v->queues; i++)
		notify(v, i);
}

static void set_half(uint64_t *field, unsigned half, uint32_t value)
{
	*field = (*field & ~(0xffffffffull << (32 * half))) | (uint64_t)value << (32 * half);
}

static void set_features(struct virtio *v, uint32_t value)
{
	/* Agreed features stay (section 2.2.2); there are 64. */
	if (!(v->status & VIRTIO_CONFIG_S_FEATURES_OK) && v->driver_features_sel < 2)
		set_half(&v->driver_features, v->driver_features_sel, value);
}

/* --- Registers, section 4.2.2 --------------------------------------------------------------------- */

static uint64_t read_config(struct virtio *v, uint64_t offset, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_SIZE] = {0};
	uint64_t value = UINT64_MAX;

	if (v->ops->config)
		v->ops->config(v, config);
	if (v->ops->config && offset < sizeof(config) && size <= sizeof(config) - offset)
		memcpy(&value, config + offset, size);
	return value;
}

static uint32_t read_register(struct virtio *v, uint64_t offset)
{
	const struct virtq *q = v->queue_sel < v->queues ? &v->queue[v->queue_sel] : NULL;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return v->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return v->device_features_sel < 2
			       ? (uint32_t)(features(v) >> (32 * v->device_features_sel))
			       : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? VIRTIO_QUEUE_SIZE : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q ? q->ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return v->interrupt_status;
	case VIRTIO_MMIO_STATUS:
		return v->status;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return 0; /* the configuration space never changes */
	default:
		return UINT32_MAX; /* also the length of shared memory, of which there is none */
	}
}

uint64_t virtio_mmio_read(void *dev, uint64_t offset, unsigned size)
{
	if (offset >= VIRTIO_MMIO_CONFIG)
		return read_config(dev, offset - VIRTIO_MMIO_CONFIG, size);
	/* Registers know aligned 32-bit accesses only (section 4.2.2.2). */
	return size == 4 ? read_register(dev, offset) : UINT64_MAX;
}

/* The registers of the selected queue. What a queue is made of stays while it is ready. */
static void write_queue(struct virtio *v, struct virtq *q, uint64_t offset, uint32_t value)
{
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		set_ready(v, q, value & 1);
		return;
	}
	if (q->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->size = value <= VIRTIO_QUEUE_SIZE ? (uint16_t)value : 0;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_half(&q->desc, 0, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&q->desc, 1, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_half(&q->avail, 0, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&q->avail, 1, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_half(&q->used, 0, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&q->used, 1, value);
		break;
	default:
		break;
	}
}

void virtio_mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio *v = dev;
	uint32_t word = (uint32_t)value;

	/* No device here has a configuration field that can be written. */
	if (size != 4 || offset >= VIRTIO_MMIO_CONFIG)
		return;
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		v->device_features_sel = word;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		v->driver_features_sel = word;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		set_features(v, word);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		v->queue_sel = word;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		notify(v, word);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		acknowledge(v, word);
		break;
	case VIRTIO_MMIO_STATUS:
		set_status(v, word);
		break;
	default:
		if (v->queue_sel < v->queues)
			write_queue(v, &v->queue[v->queue_sel], offset, word);
	}
}

/* --- The rest --------------------------------------------------------------------------------- */

void virtio_init(struct virtio *v, const struct dev_env *env, const struct virtio_ops *ops,
		 unsigned slot, unsigned queues)
{
	*v = (struct virtio){.env = *env, .ops = ops, .slot = slot, .queues = queues};
}

void virtio_walk(struct virtio *v, const char *name, struct walker *w)
{
	walk_component(w, name);
	walk_u64(w, "driver_features", &v->driver_features);
	walk_u32(w, "device_features_sel", &v->device_features_sel);
	walk_u32(w, "driver_features_sel", &v->driver_features_sel);
	walk_u32(w, "queue_sel", &v->queue_sel);
	walk_u8(w, "status", &v->status);
	walk_u8(w, "interrupt_status", &v->interrupt_status);
	for (unsigned i = 0; i < v->queues; i++) {
		struct virtq *q = &v->queue[i];
		char part[24];

		snprintf(part, sizeof(part), "%s.%u", name, i);
		walk_component(w, part);
		walk_u64(w, "desc", &q->desc);
		walk_u64(w, "avail", &q->avail);
		walk_u64(w, "used", &q->used);
		walk_u16(w, "size", &q->size);
		walk_u16(w, "next_avail", &q->next_avail);
		walk_u16(w, "next_used", &q->next_used);
		walk_u8(w, "ready", &q->ready);
	}
	walk_component(w, name);
}
