/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What all virtio devices share: the MMIO transport (version 2) and split queues. Section numbers
 * here and in the devices are those of "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, 2022).
 *
 * A request is complete before the access that notified of it returns, so the order of DMA and
 * instructions is the same in every run. Nothing in guest RAM is believed: each chain is checked
 * as a whole before any of it is used, and a driver that breaks a rule gets DEVICE_NEEDS_RESET
 * while the machine goes on.
 */
#ifndef VMM_DEV_VIRTIO_H
#define VMM_DEV_VIRTIO_H

#include "vmm/dev/dev.h"

/* Slot n has a page of registers and an ISA line of its own. */
#define VIRTIO_SLOTS 6
#define VIRTIO_MMIO_BASE 0xd0000000ull
#define VIRTIO_MMIO_SIZE 0x1000ull

unsigned virtio_slot_line(unsigned slot);
struct mmio_range virtio_slot_range(unsigned slot);
/* What tells a Linux kernel of the slot: "virtio_mmio.device=4K@0xd0000000:5". */
#define VIRTIO_PARAMETER_MAX 48
void virtio_slot_parameter(unsigned slot, char out[VIRTIO_PARAMETER_MAX]);

#define VIRTIO_QUEUE_SIZE 128u /* descriptors of a queue at most: QueueNumMax */
#define VIRTIO_QUEUES 10       /* queues of a device at most */
#define VIRTIO_CONFIG_SIZE 96  /* bytes of configuration space at most */

struct virtq {
	uint64_t desc, avail, used; /* gpa of the three parts */
	uint16_t size;              /* of the ring; checked when the queue is made ready */
	uint16_t next_avail;        /* chains taken so far, modulo 2^16 */
	uint16_t next_used;         /* chains given back so far */
	uint8_t ready;
};

/* What a kind of device adds. `dev` is the struct virtio, which is the device's first member. */
struct virtio_ops {
	uint32_t id;        /* section 5 */
	uint64_t features;  /* offered besides VIRTIO_F_VERSION_1 */
	uint32_t chain_max; /* bytes of one chain; a longer one is the driver's mistake */
	/* Chains are available in this queue, one at least. */
	void (*notify)(void *dev, unsigned queue);
	/* Forget all that the driver told; NULL if that is nothing. */
	void (*reset)(void *dev);
	/* Fill in the configuration space, which never changes; the rest of it is zero. NULL if there
	 * is none. */
	void (*config)(void *dev, uint8_t config[VIRTIO_CONFIG_SIZE]);
};

struct virtio {
	struct dev_env env;
	const struct virtio_ops *ops;
	unsigned slot, queues;
	/* State. */
	uint64_t driver_features;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint8_t status, interrupt_status;
	struct virtq queue[VIRTIO_QUEUES];
};

/* queues: how many the device has, at most VIRTIO_QUEUES. */
void virtio_init(struct virtio *v, const struct dev_env *env, const struct virtio_ops *ops,
		 unsigned slot, unsigned queues);
/* Suit dev_ops; dev is the struct virtio. */
uint64_t virtio_mmio_read(void *dev, uint64_t offset, unsigned size);
void virtio_mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value);
/* Visits the fields of struct virtio, as components "NAME" and "NAME.N" for queue N. */
void virtio_walk(struct virtio *v, const char *name, struct walker *w);
bool virtio_has_feature(const struct virtio *v, unsigned bit);

/* --- Chains --------------------------------------------------------------------------------- */

struct virtio_segment {
	gpa_t gpa;
	uint32_t len;
};

/* A checked chain: all of it is RAM; what the device reads comes before what it writes. */
struct virtio_chain {
	uint16_t head;
	unsigned segments, readable; /* the first `readable` ones are to be read */
	uint32_t read_len, write_len;
	struct virtio_segment segment[VIRTIO_QUEUE_SIZE];
};

/* How many chains wait. Whoever serves a queue takes no more than this at a time: DMA by the chains
 * themselves can make new ones without end. */
unsigned virtio_pending(struct virtio *v, unsigned queue);
/* The chain that waits first, if there is one. */
bool virtio_take(struct virtio *v, unsigned queue, struct virtio_chain *c);
/* The same without taking it and without any effect, for questions that the guest must not notice. False also
 * for a chain that is broken. */
bool virtio_peek(const struct virtio *v, unsigned queue, struct virtio_chain *c);
/* Copy [offset, offset + len) of the chain's readable or to its writable bytes. False, with part of it
 * done at most, if the chain has fewer. */
bool virtio_chain_read(const struct virtio *v, const struct virtio_chain *c, uint32_t offset,
		       void *out, uint32_t len);
bool virtio_chain_write(const struct virtio *v, const struct virtio_chain *c, uint32_t offset,
			const void *data, uint32_t len);
/* Give a chain back, `written` bytes of it written. */
void virtio_put(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t written);
/* Tell the driver that chains came back, unless it asked not to be told (section 2.7.7). */
void virtio_signal(struct virtio *v, unsigned queue);
/* The driver broke a rule: nothing more happens until it resets the device (section 2.1.2). */
void virtio_break(struct virtio *v);

#endif
