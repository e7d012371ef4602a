// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xxhash.h>

#define REGIONS_MAX 2
/* A watch splits the region it lies in into up to three KVM slots. */
#define SLOTS_MAX (REGIONS_MAX + 2)
#define HIGH_BASE (4ull << 30)

/* RAM as the guest sees it: contiguous, one memfd. */
struct region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	uint64_t first_page; /* index into the per-page arrays */
};

struct slot {
	uint64_t gpa;
	uint64_t size;
	bool readonly;
};

struct memory {
	int vm_fd;
	bool track_dirty;
	uint64_t size;
	struct region region[REGIONS_MAX];
	unsigned regions;
	struct slot slot[SLOTS_MAX];
	unsigned slots;

	/* Watched pages, [watch, watch + watch_size); size 0: none. */
	uint64_t watch;
	uint64_t watch_size;

	/* One bit a page: written since the last digest, by whom ever. */
	uint64_t *dirty;
	size_t dirty_words;
	uint64_t *log; /* scratch for KVM_GET_DIRTY_LOG, as large as dirty */

	/* hash[page] is 0 for a page of zeros; their sum is the digest. */
	uint64_t *hash;
	uint64_t digest;
};

static struct region *find_region(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < mem->regions; i++) {
		const struct region *r = &mem->region[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size && len <= r->size - (gpa - r->gpa))
			return (struct region *)r;
	}
	return NULL;
}

static int region_map(struct region *r, struct err *err)
{
	int fd = memfd_create("guest-ram", MFD_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return err_sys(err, errno, "cannot create a memory file for guest RAM");
	if (ftruncate(fd, (off_t)r->size) < 0) {
		rc = err_sys(err, errno, "cannot reserve %" PRIu64 " MiB of guest RAM; try a smaller --mem",
			     r->size >> 20);
		goto out;
	}
	r->hva = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (r->hva == MAP_FAILED) {
		r->hva = NULL;
		rc = err_sys(err, errno, "cannot map %" PRIu64 " MiB of guest RAM; try a smaller --mem",
			     r->size >> 20);
	}
out:
	close(fd);
	return rc;
}

static int slot_set(struct memory *mem, unsigned id, const struct slot *s, uint64_t size,
		    struct err *err)
{
	const struct region *r = find_region(mem, s->gpa, s->size);
	struct kvm_userspace_memory_region kr = {
		.slot = id,
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uint64_t)(uintptr_t)(r->hva + (s->gpa - r->gpa)),
	};

	if (size && mem->track_dirty)
		kr.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	if (size && s->readonly)
		kr.flags |= KVM_MEM_READONLY;
	if (ioctl(mem->vm_fd, KVM_SET_USER_MEMORY_REGION, &kr) < 0)
		return err_sys(err, errno, "KVM refuses guest RAM at 0x%" PRIx64, s->gpa);
	return 0;
}

/* Add [gpa, end) to the slots wanted, if it is not empty. */
static void slot_add(struct memory *mem, uint64_t gpa, uint64_t end, bool readonly)
{
	if (gpa < end)
		mem->slot[mem->slots++] = (struct slot){gpa, end - gpa, readonly};
}

/* Give KVM the slots that regions and watch ask for. The read-only flag of a slot cannot be changed
 * (EINVAL), so all are deleted and made anew. */
static int slots_apply(struct memory *mem, struct err *err)
{
	int rc;

	for (unsigned i = 0; i < mem->slots; i++) {
		rc = slot_set(mem, i, &mem->slot[i], 0, err);
		if (rc < 0)
			return rc;
	}
	mem->slots = 0;
	for (unsigned i = 0; i < mem->regions; i++) {
		const struct region *r = &mem->region[i];
		uint64_t end = r->gpa + r->size;

		if (mem->watch_size && find_region(mem, mem->watch, mem->watch_size) == r) {
			slot_add(mem, r->gpa, mem->watch, false);
			slot_add(mem, mem->watch, mem->watch + mem->watch_size, true);
			slot_add(mem, mem->watch + mem->watch_size, end, false);
		} else {
			slot_add(mem, r->gpa, end, false);
		}
	}
	for (unsigned i = 0; i < mem->slots; i++) {
		rc = slot_set(mem, i, &mem->slot[i], mem->slot[i].size, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int memory_create(struct memory **out, int vm_fd, uint64_t size, bool track_dirty, struct err *err)
{
	struct memory *mem;
	uint64_t low = size < MEMORY_LOW_MAX ? size : MEMORY_LOW_MAX;
	int rc;

	if (size < MEMORY_MIN || size > MEMORY_MAX || size % PAGE_SIZE)
		return err_set(err, EINVAL,
			       "guest RAM must be %llu MiB to %llu MiB and a multiple of 4 KiB",
			       MEMORY_MIN >> 20, MEMORY_MAX >> 20);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return err_set(err, ENOMEM, "out of memory");
	mem->vm_fd = vm_fd;
	mem->track_dirty = track_dirty;
	mem->size = size;
	mem->region[mem->regions++] = (struct region){.size = low};
	if (size > low)
		mem->region[mem->regions++] = (struct region){
			.gpa = HIGH_BASE, .size = size - low, .first_page = low >> PAGE_SHIFT};
	if (track_dirty) {
		uint64_t pages = size >> PAGE_SHIFT;

		mem->dirty_words = (size_t)((pages + 63) / 64);
		mem->dirty = calloc(mem->dirty_words, sizeof(*mem->dirty));
		mem->log = calloc(mem->dirty_words + 1, sizeof(*mem->log));
		mem->hash = calloc((size_t)pages, sizeof(*mem->hash));
		if (!mem->dirty || !mem->log || !mem->hash) {
			rc = err_set(err, ENOMEM, "out of memory for the page table of guest RAM");
			goto fail;
		}
	}
	for (unsigned i = 0; i < mem->regions; i++) {
		rc = region_map(&mem->region[i], err);
		if (rc < 0)
			goto fail;
	}
	if (vm_fd >= 0) {
		rc = slots_apply(mem, err);
		if (rc < 0)
			goto fail;
	}
	*out = mem;
	return 0;
fail:
	memory_destroy(mem);
	return rc;
}

void memory_destroy(struct memory *mem)
{
	if (!mem)
		return;
	for (unsigned i = 0; i < mem->regions; i++)
		if (mem->region[i].hva)
			munmap(mem->region[i].hva, mem->region[i].size);
	free(mem->dirty);
	free(mem->log);
	free(mem->hash);
	free(mem);
}

uint64_t memory_size(const struct memory *mem)
{
	return mem->size;
}

const void *memory_at(const struct memory *mem, gpa_t gpa, uint64_t len)
{
	const struct region *r = find_region(mem, gpa.v, len);

	return r ? r->hva + (gpa.v - r->gpa) : NULL;
}

void *memory_at_dirty(struct memory *mem, gpa_t gpa, uint64_t len)
{
	const struct region *r = find_region(mem, gpa.v, len);

	if (!r)
		return NULL;
	if (mem->track_dirty && len) {
		uint64_t first = r->first_page + ((gpa.v - r->gpa) >> PAGE_SHIFT);
		uint64_t last = r->first_page + ((gpa.v + len - 1 - r->gpa) >> PAGE_SHIFT);

		for (uint64_t p = first; p <= last; p++)
			mem->dirty[p / 64] |= 1ull << (p % 64);
	}
	return r->hva + (gpa.v - r->gpa);
}

int memory_read(const struct memory *mem, gpa_t gpa, void *out, uint64_t len)
{
	const void *p = memory_at(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(out, p, len);
	return 0;
}

int memory_write(struct memory *mem, gpa_t gpa, const void *data, uint64_t len)
{
	void *p = memory_at_dirty(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, data, len);
	return 0;
}

/* Move KVM's dirty log into mem->dirty. */
static int collect_dirty(struct memory *mem, struct err *err)
{
	if (mem->vm_fd < 0)
		return 0;
	for (unsigned i = 0; i < mem->slots; i++) {
		const struct slot *s = &mem->slot[i];
		const struct region *r = find_region(mem, s->gpa, s->size);
		uint64_t first = r->first_page + ((s->gpa - r->gpa) >> PAGE_SHIFT);
		size_t words = (size_t)(((s->size >> PAGE_SHIFT) + 63) / 64);
		struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = mem->log};

		if (s->readonly)
			continue; /* only memory_watched_store writes there */
		if (ioctl(mem->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
			return err_sys(err, errno, "cannot read KVM's dirty log");
		for (size_t w = 0; w < words; w++) {
			uint64_t bits = mem->log[w];

			while (bits) {
				uint64_t p = first + w * 64 + (uint64_t)__builtin_ctzll(bits);

				mem->dirty[p / 64] |= 1ull << (p % 64);
				bits &= bits - 1;
			}
		}
	}
	return 0;
}

int memory_page_written(struct memory *mem, gpa_t gpa, bool *written, struct err *err)
{
	const struct region *r = find_region(mem, gpa.v, 1);
	int rc = collect_dirty(mem, err);
	uint64_t page;

	*written = false;
	if (rc < 0 || !r)
		return rc;
	page = r->first_page + ((gpa.v - r->gpa) >> PAGE_SHIFT);
	*written = mem->dirty[page / 64] >> (page % 64) & 1;
	return 0;
}

static uint8_t *page_hva(const struct memory *mem, uint64_t page)
{
	const struct region *r = &mem->region[0];

	if (mem->regions > 1 && page >= mem->region[1].first_page)
		r = &mem->region[1];
	return r->hva + ((page - r->first_page) << PAGE_SHIFT);
}

static bool page_is_zero(const uint8_t *p)
{
	return p[0] == 0 && memcmp(p, p + 1, PAGE_SIZE - 1) == 0;
}

int memory_digest(struct memory *mem, uint64_t *digest, struct err *err)
{
	int rc = collect_dirty(mem, err);

	if (rc < 0)
		return rc;
	for (size_t w = 0; w < mem->dirty_words; w++) {
		uint64_t bits = mem->dirty[w];

		mem->dirty[w] = 0;
		while (bits) {
			uint64_t page = w * 64 + (uint64_t)__builtin_ctzll(bits);
			const uint8_t *p = page_hva(mem, page);
			uint64_t hash = 0;

			/* Seeded by its number, so that two pages that change places are seen. */
			if (!page_is_zero(p))
				hash = XXH3_64bits_withSeed(p, PAGE_SIZE, page + 1);
			mem->digest += hash - mem->hash[page];
			mem->hash[page] = hash;
			bits &= bits - 1;
		}
	}
	*digest = mem->digest;
	return 0;
}

bool memory_first_difference(const struct memory *a, const struct memory *b, gpa_t *where)
{
	for (unsigned i = 0; i < a->regions; i++) {
		const struct region *ra = &a->region[i];
		const struct region *rb = &b->region[i];

		for (uint64_t off = 0; off < ra->size; off += PAGE_SIZE) {
			const uint8_t *pa = ra->hva + off, *pb = rb->hva + off;

			if (memcmp(pa, pb, PAGE_SIZE) == 0)
				continue;
			while (*pa == *pb) {
				pa++;
				pb++;
			}
			*where = GPA(ra->gpa + (uint64_t)(pa - ra->hva));
			return true;
		}
	}
	return false;
}

int memory_watch(struct memory *mem, gpa_t gpa, uint64_t len, struct err *err)
{
	uint64_t first = gpa.v & PAGE_MASK;
	uint64_t end = (gpa.v + len + PAGE_SIZE - 1) & PAGE_MASK;

	if (!len || gpa.v + len < gpa.v || !find_region(mem, first, end - first))
		return err_set(err, EFAULT,
			       "0x%" PRIx64 " is not in guest RAM; give an address that the guest can write",
			       gpa.v);
	if (mem->track_dirty) {
		int rc = collect_dirty(mem, err);

		if (rc < 0)
			return rc;
	}
	mem->watch = first;
	mem->watch_size = end - first;
	return slots_apply(mem, err);
}

int memory_unwatch(struct memory *mem, struct err *err)
{
	if (!mem->watch_size)
		return 0;
	if (mem->track_dirty) {
		int rc = collect_dirty(mem, err);

		if (rc < 0)
			return rc;
	}
	mem->watch_size = 0;
	return slots_apply(mem, err);
}

bool memory_is_watched(const struct memory *mem, gpa_t gpa, uint64_t len)
{
	return len && mem->watch_size && gpa.v < mem->watch + mem->watch_size &&
	       (gpa.v >= mem->watch || len > mem->watch - gpa.v);
}

bool memory_watched_store(struct memory *mem, gpa_t gpa, const void *data, unsigned len, void *old)
{
	void *p;

	if (!mem->watch_size || gpa.v < mem->watch || gpa.v - mem->watch >= mem->watch_size ||
	    len > mem->watch_size - (gpa.v - mem->watch))
		return false;
	p = memory_at_dirty(mem, gpa, len);
	memcpy(old, p, len);
	memcpy(p, data, len);
	return true;
}
