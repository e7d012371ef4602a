/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Virtio over MMIO as a guest sees it (virtio 1.2, sections 2.7 and 4.2): a small driver core. */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "test.h"

#define VIRTIO_BASE 0xd0000000UL
#define VIRTIO_PAGE 0x1000UL
#define VIRTIO_SLOTS 6
#define VIRTIO_MAGIC 0x74726976u

enum { VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_CONSOLE = 3, VIRTIO_RNG = 4 };

enum {
	VIRTIO_REG_MAGIC = 0x00,
	VIRTIO_REG_ID = 0x08,
	VIRTIO_REG_FEATURES = 0x20,
	VIRTIO_REG_FEATURES_SEL = 0x24,
	VIRTIO_REG_QUEUE_SEL = 0x30,
	VIRTIO_REG_QUEUE_NUM = 0x38,
	VIRTIO_REG_QUEUE_READY = 0x44,
	VIRTIO_REG_NOTIFY = 0x50,
	VIRTIO_REG_IRQ_STATUS = 0x60,
	VIRTIO_REG_IRQ_ACK = 0x64,
	VIRTIO_REG_STATUS = 0x70,
	VIRTIO_REG_DESC = 0x80,
	VIRTIO_REG_AVAIL = 0x90,
	VIRTIO_REG_USED = 0xa0,
	VIRTIO_REG_CONFIG = 0x100,
};

enum { VIRTIO_ACK = 1, VIRTIO_DRIVER = 2, VIRTIO_OK = 4, VIRTIO_FEATURES_OK = 8 };
enum { VIRTIO_NEXT = 1, VIRTIO_WRITE = 2 };

#define VIRTIO_QUEUE 16

struct virtio_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* The guest's memory is mapped where it lies, so an address is a physical one. */
struct virtio_queue {
	struct virtio_desc desc[VIRTIO_QUEUE];
	struct {
		uint16_t flags, index, ring[VIRTIO_QUEUE];
	} avail;
	struct {
		uint16_t flags, index;
		struct {
			uint32_t id, len;
		} ring[VIRTIO_QUEUE];
	} used __attribute__((aligned(4)));
	uint16_t seen; /* chains that came back and were looked at */
} __attribute__((aligned(16)));

static const uint8_t virtio_line[VIRTIO_SLOTS] = {5, 6, 7, 9, 10, 11};

static inline volatile uint32_t *virtio_reg(unsigned slot, unsigned reg)
{
	return (volatile uint32_t *)(VIRTIO_BASE + slot * VIRTIO_PAGE + reg);
}

static inline void virtio_map(void)
{
	for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++)
		page_map(VIRTIO_BASE + slot * VIRTIO_PAGE, VIRTIO_BASE + slot * VIRTIO_PAGE,
			 PAGE_PRESENT | PAGE_WRITE);
}

/* The device's kind, 0 if there is none. */
static inline uint32_t virtio_kind(unsigned slot)
{
	return *virtio_reg(slot, VIRTIO_REG_MAGIC) == VIRTIO_MAGIC ? *virtio_reg(slot, VIRTIO_REG_ID)
								   : 0;
}

/* Up to FEATURES_OK; low: features 0 to 31. */
static inline void virtio_begin(unsigned slot, uint32_t low)
{
	*virtio_reg(slot, VIRTIO_REG_STATUS) = 0;
	*virtio_reg(slot, VIRTIO_REG_STATUS) = VIRTIO_ACK | VIRTIO_DRIVER;
	*virtio_reg(slot, VIRTIO_REG_FEATURES_SEL) = 0;
	*virtio_reg(slot, VIRTIO_REG_FEATURES) = low;
	*virtio_reg(slot, VIRTIO_REG_FEATURES_SEL) = 1;
	*virtio_reg(slot, VIRTIO_REG_FEATURES) = 1; /* VIRTIO_F_VERSION_1 */
	*virtio_reg(slot, VIRTIO_REG_STATUS) = VIRTIO_ACK | VIRTIO_DRIVER | VIRTIO_FEATURES_OK;
}

static inline void virtio_add_queue(unsigned slot, unsigned n, struct virtio_queue *q)
{
	static const unsigned regs[3] = {VIRTIO_REG_DESC, VIRTIO_REG_AVAIL, VIRTIO_REG_USED};
	const uint64_t parts[3] = {(uint64_t)q->desc, (uint64_t)&q->avail, (uint64_t)&q->used};

	q->avail.flags = q->avail.index = q->used.flags = q->used.index = q->seen = 0;
	*virtio_reg(slot, VIRTIO_REG_QUEUE_SEL) = n;
	*virtio_reg(slot, VIRTIO_REG_QUEUE_NUM) = VIRTIO_QUEUE;
	for (unsigned i = 0; i < 3; i++) {
		*virtio_reg(slot, regs[i]) = (uint32_t)parts[i];
		*virtio_reg(slot, regs[i] + 4) = (uint32_t)(parts[i] >> 32);
	}
	*virtio_reg(slot, VIRTIO_REG_QUEUE_READY) = 1;
}

static inline void virtio_go(unsigned slot)
{
	*virtio_reg(slot, VIRTIO_REG_STATUS) =
		VIRTIO_ACK | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_OK;
}

/* Descriptor i; with VIRTIO_NEXT it leads to the one behind it. */
static inline void virtio_set(struct virtio_queue *q, unsigned i, const void *p, size_t len,
			      unsigned flags)
{
	q->desc[i] = (struct virtio_desc){(uint64_t)p, (uint32_t)len, (uint16_t)flags,
					  (uint16_t)(i + 1)};
}

/* Make the chain that begins at `head` available. */
static inline void virtio_offer(struct virtio_queue *q, unsigned head)
{
	q->avail.ring[q->avail.index % VIRTIO_QUEUE] = (uint16_t)head;
	__asm__ volatile("" ::: "memory");
	q->avail.index++;
}

static inline void virtio_notify(unsigned slot, unsigned queue)
{
	__asm__ volatile("" ::: "memory");
	*virtio_reg(slot, VIRTIO_REG_NOTIFY) = queue;
	__asm__ volatile("" ::: "memory");
}

/* A chain came back: true, and its head and length. */
static inline bool virtio_done(struct virtio_queue *q, uint32_t *head, uint32_t *len)
{
	*head = *len = 0;
	if (*(volatile uint16_t *)&q->used.index == q->seen)
		return false;
	*head = q->used.ring[q->seen % VIRTIO_QUEUE].id;
	*len = q->used.ring[q->seen % VIRTIO_QUEUE].len;
	q->seen++;
	return true;
}

#endif
