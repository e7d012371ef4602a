// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/dev/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define BITS 64u

static uint64_t bitmap_words(const struct disk *d)
{
	return (d->blocks + BITS - 1) / BITS;
}

static bool bit_get(const uint64_t *map, uint64_t n)
{
	return map[n / BITS] >> (n % BITS) & 1;
}

static void bit_set(uint64_t *map, uint64_t n)
{
	map[n / BITS] |= 1ull << (n % BITS);
}

/* Zeroed address space that takes memory only where it is touched. */
static void *reserve(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void release(void *p, uint64_t size)
{
	if (p)
		munmap(p, size);
}

int disk_create(struct disk *d, const uint8_t *image, uint64_t size, struct err *err)
{
	*d = (struct disk){.image = image, .size = size};
	if (!size || size % DISK_SECTOR || size > DISK_MAX)
		return err_set(err, EINVAL,
			       "a disk image must have a multiple of %u bytes, up to %llu GiB; this one has %" PRIu64,
			       DISK_SECTOR, DISK_MAX >> 30, size);
	d->blocks = (size + DISK_BLOCK - 1) / DISK_BLOCK;
	d->overlay = reserve(d->blocks * DISK_BLOCK);
	d->present = reserve(bitmap_words(d) * sizeof(uint64_t));
	d->stale = reserve(bitmap_words(d) * sizeof(uint64_t));
	d->hash = reserve(d->blocks * sizeof(uint64_t));
	if (!d->overlay || !d->present || !d->stale || !d->hash)
		return err_sys(err, errno, "cannot reserve address space for what is written to the disk");
	return 0;
}

void disk_destroy(struct disk *d)
{
	release(d->overlay, d->blocks * DISK_BLOCK);
	release(d->present, bitmap_words(d) * sizeof(uint64_t));
	release(d->stale, bitmap_words(d) * sizeof(uint64_t));
	release(d->hash, d->blocks * sizeof(uint64_t));
	*d = (struct disk){0};
}

static uint32_t left_in_block(const struct disk *d, uint64_t offset)
{
	uint64_t end = (offset / DISK_BLOCK + 1) * DISK_BLOCK;

	return (uint32_t)((end < d->size ? end : d->size) - offset);
}

const uint8_t *disk_at(const struct disk *d, uint64_t offset, uint32_t *len)
{
	*len = left_in_block(d, offset);
	return (bit_get(d->present, offset / DISK_BLOCK) ? d->overlay : d->image) + offset;
}

static void mark(struct disk *d, uint64_t block)
{
	uint64_t word = block / BITS;

	bit_set(d->present, block);
	bit_set(d->stale, block);
	if (d->stale_first == d->stale_end) {
		d->stale_first = word;
		d->stale_end = word + 1;
	} else if (word < d->stale_first) {
		d->stale_first = word;
	} else if (word >= d->stale_end) {
		d->stale_end = word + 1;
	}
}

uint8_t *disk_at_dirty(struct disk *d, uint64_t offset, uint32_t *len)
{
	uint64_t block = offset / DISK_BLOCK, start = block * DISK_BLOCK;

	*len = left_in_block(d, offset);
	if (!bit_get(d->present, block))
		memcpy(d->overlay + start, d->image + start, left_in_block(d, start));
	mark(d, block);
	return d->overlay + offset;
}

static void update_digest(struct disk *d)
{
	for (uint64_t w = d->stale_first; w < d->stale_end; w++) {
		for (; d->stale[w]; d->stale[w] &= d->stale[w] - 1) {
			uint64_t block = w * BITS + (uint64_t)__builtin_ctzll(d->stale[w]);
			/* Seeded by its number, so that two blocks that change places are seen. */
			uint64_t hash = XXH3_64bits_withSeed(d->overlay + block * DISK_BLOCK, DISK_BLOCK,
							     block + 1);

			d->digest += hash - d->hash[block];
			d->hash[block] = hash;
		}
	}
	d->stale_first = d->stale_end = 0;
}

static void clear(struct disk *d)
{
	uint64_t words = bitmap_words(d);

	/* Gives the memory back; what is read next is zero again. */
	madvise(d->overlay, d->blocks * DISK_BLOCK, MADV_DONTNEED);
	madvise(d->hash, d->blocks * sizeof(uint64_t), MADV_DONTNEED);
	madvise(d->present, words * sizeof(uint64_t), MADV_DONTNEED);
	madvise(d->stale, words * sizeof(uint64_t), MADV_DONTNEED);
	d->stale_first = d->stale_end = 0;
	d->digest = 0;
}

static uint64_t count_present(const struct disk *d)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < bitmap_words(d); w++)
		n += (uint64_t)__builtin_popcountll(d->present[w]);
	return n;
}

static void restore(struct disk *d, struct walker *w, uint64_t n)
{
	clear(d);
	while (n-- && !walker_failed(w)) {
		uint64_t block = 0;

		walk_u64(w, "block", &block);
		if (block >= d->blocks) {
			w->in.failed = true;
			return;
		}
		walk_bytes(w, "data", d->overlay + block * DISK_BLOCK, DISK_BLOCK);
		mark(d, block);
	}
}

void disk_walk(struct disk *d, struct walker *w)
{
	uint64_t n;

	if (w->op == WALK_DIGEST) {
		update_digest(d);
		walk_u64(w, "overlay", &d->digest);
		return;
	}
	n = count_present(d);
	walk_u64(w, "overlay_blocks", &n);
	if (w->op == WALK_RESTORE) {
		restore(d, w, n);
		return;
	}
	for (uint64_t word = 0; word < bitmap_words(d); word++) {
		for (uint64_t bits = d->present[word]; bits; bits &= bits - 1) {
			uint64_t block = word * BITS + (uint64_t)__builtin_ctzll(bits);

			walk_u64(w, "block", &block);
			walk_bytes(w, "data", d->overlay + block * DISK_BLOCK, DISK_BLOCK);
		}
	}
}
