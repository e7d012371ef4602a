/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A disk: an image that is never written, under an overlay of the 4 KiB blocks that were. The overlay is
 * address space reserved for the whole image, so it costs what was written and a write
 * cannot fail. Its digest is kept as that of RAM is: a sum of one hash per block.
 */
#ifndef VMM_DEV_DISK_H
#define VMM_DEV_DISK_H

#include "base/err.h"
#include "vmm/walk.h"

#define DISK_SECTOR 512u
#define DISK_BLOCK 4096u
#define DISK_MAX (64ull << 30)

struct disk {
	const uint8_t *image; /* not owned */
	uint64_t size;        /* bytes, a multiple of DISK_SECTOR */
	uint64_t blocks;
	uint8_t *overlay;     /* blocks that are not present are zero */
	uint64_t *present;    /* one bit a block: it is in the overlay */
	uint64_t *stale;      /* ... and `hash` does not know it yet */
	uint64_t stale_first, stale_end; /* words of `stale` that can have a bit set */
	uint64_t *hash;       /* 0 for a block that is not present */
	uint64_t digest;      /* their sum */
};

/* The image must outlive the disk. -EINVAL for a size that is not whole sectors, is 0 or over DISK_MAX.
 * Call disk_destroy also after failure. */
int disk_create(struct disk *d, const uint8_t *image, uint64_t size, struct err *err);
void disk_destroy(struct disk *d);

/* How many bytes from `offset` on lie in one piece, and where. offset < size. */
const uint8_t *disk_at(const struct disk *d, uint64_t offset, uint32_t *len);
/* As disk_at, for writing: the block is copied into the overlay first. */
uint8_t *disk_at_dirty(struct disk *d, uint64_t offset, uint32_t *len);

/* Visits the overlay: all of it, or for a digest the sum. */
void disk_walk(struct disk *d, struct walker *w);

#endif
