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
/* A run of watched pages splits the KVM slot it lies in into up to three. */
#define SLOTS_MAX (REGIONS_MAX + 2 * MEMORY_WATCHES_MAX)
#define HIGH_BASE (4ull << 30)

/* RAM as the guest sees it: contiguous, one mapping. */
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

/* Watched pages. */
struct watched {
	uint64_t gpa, end;
	bool loads;
};

struct memory {
	int vm_fd;
	bool track_dirty;
	uint64_t size;
	struct region region[REGIONS_MAX];
	unsigned regions;
	struct slot slot[SLOTS_MAX];
	unsigned slots;

	/* In order, each in one region, none overlapping. */
	struct watched watched[MEMORY_WATCHES_MAX];
	unsigned watches;
	bool lifted;

	/* One bit a page. Bits go from `log` to `written` to `ever` and every consumer, and are cleared only
	 * when they have arrived there, so that a failure on the way loses none. */
	size_t words;
	uint64_t *log;	   /* scratch for KVM_GET_DIRTY_LOG */
	uint64_t *written; /* since the last memory_sync_dirty, as far as known here */
	uint64_t *ever;	   /* since all was zero, except `written` */
	struct memory_dirty *consumers;

	/* hash[page] is 0 for a page of zeros; their sum is the digest. */
	struct memory_dirty *undigested;
	uint64_t *hash;
	uint64_t digest;
};

struct memory_dirty {
	struct memory_dirty *next;
	size_t words;
	uint64_t bits[];
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

/* What one table of the host's last level maps (SDM 3A 4.5). */
#define TABLE_SPAN (2ull << 20)

/*
 * Private memory, so that fork() gives a child RAM of its own at once (snapshot/branch.c). Small pages: KVM logs
 * writes and the kernel copies after a fork by the page, and a huge one would be split by either.
 */
static int region_map(struct region *r, struct err *err)
{
	uint8_t *map = mmap(NULL, r->size + TABLE_SPAN, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	if (map == MAP_FAILED)
		return err_sys(err, errno, "cannot map %" PRIu64 " MiB of guest RAM; try a smaller --mem",
			       r->size >> 20);
	/* So that each branch has no more page tables of the host's than its RAM needs. */
	before = -(uintptr_t)map & (TABLE_SPAN - 1);
	if (before)
		munmap(map, before);
	r->hva = map + before;
	munmap(r->hva + r->size, TABLE_SPAN - before);
	/* Advice: a kernel without huge pages refuses it. */
	(void)madvise(r->hva, r->size, MADV_NOHUGEPAGE);
	return 0;
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
		uint64_t at = r->gpa, end = r->gpa + r->size;

		for (unsigned n = 0; n < mem->watches && !mem->lifted; n++) {
			const struct watched *w = &mem->watched[n];

			if (find_region(mem, w->gpa, w->end - w->gpa) != r)
				continue;
			slot_add(mem, at, w->gpa, false);
			/* Where there is no slot, loads come out too. */
			if (!w->loads)
				slot_add(mem, w->gpa, w->end, true);
			at = w->end;
		}
		slot_add(mem, at, end, false);
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

		mem->words = (size_t)((pages + 63) / 64);
		mem->log = calloc(mem->words + 1, sizeof(*mem->log));
		mem->written = calloc(mem->words, sizeof(*mem->written));
		mem->ever = calloc(mem->words, sizeof(*mem->ever));
		mem->hash = calloc((size_t)pages, sizeof(*mem->hash));
		if (!mem->log || !mem->written || !mem->ever || !mem->hash) {
			rc = err_set(err, ENOMEM, "out of memory for the page table of guest RAM");
			goto fail;
		}
		rc = memory_dirty_open(mem, &mem->undigested, err);
		if (rc < 0)
			goto fail;
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
	memory_dirty_close(mem, mem->undigested);
	free(mem->log);
	free(mem->written);
	free(mem->ever);
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

static void set_bit(uint64_t *bits, uint64_t n)
{
	bits[n / 64] |= 1ull << (n % 64);
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
			set_bit(mem->written, p);
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

/* Move KVM's dirty log into mem->written. */
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
			for (uint64_t bits = mem->log[w]; bits; bits &= bits - 1)
				set_bit(mem->written,
					first + w * 64 + (uint64_t)__builtin_ctzll(bits));
		}
	}
	return 0;
}

int memory_dirty_open(struct memory *mem, struct memory_dirty **out, struct err *err)
{
	struct memory_dirty *d;

	if (!mem->track_dirty)
		return err_set(err, EINVAL, "this machine does not keep track of written memory");
	d = malloc(sizeof(*d) + mem->words * sizeof(d->bits[0]));
	if (!d)
		return err_set(err, ENOMEM, "out of memory for the page table of guest RAM");
	d->words = mem->words;
	memcpy(d->bits, mem->ever, mem->words * sizeof(d->bits[0]));
	d->next = mem->consumers;
	mem->consumers = d;
	*out = d;
	return 0;
}

void memory_dirty_close(struct memory *mem, struct memory_dirty *d)
{
	struct memory_dirty **at = &mem->consumers;

	if (!d)
		return;
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	free(d);
}

int memory_sync_dirty(struct memory *mem, struct err *err)
{
	int rc = collect_dirty(mem, err);

	if (rc < 0)
		return rc;
	for (size_t w = 0; w < mem->words; w++) {
		if (!mem->written[w])
			continue;
		mem->ever[w] |= mem->written[w];
		for (struct memory_dirty *d = mem->consumers; d; d = d->next)
			d->bits[w] |= mem->written[w];
		mem->written[w] = 0;
	}
	return 0;
}

int memory_page_written(struct memory *mem, const struct memory_dirty *d, gpa_t gpa, bool *written, struct err *err)
{
	const struct region *r = find_region(mem, gpa.v, 1);
	int rc = memory_sync_dirty(mem, err);
	uint64_t page;

	*written = false;
	if (rc < 0 || !r)
		return rc;
	page = r->first_page + ((gpa.v - r->gpa) >> PAGE_SHIFT);
	*written = memory_dirty_has(d ? d : mem->undigested, page);
	return 0;
}

bool memory_dirty_next(const struct memory_dirty *d, uint64_t *page)
{
	size_t w = (size_t)(*page / 64);
	uint64_t bits;

	if (w >= d->words)
		return false;
	bits = d->bits[w] & ~0ull << (*page % 64);
	while (!bits) {
		if (++w == d->words)
			return false;
		bits = d->bits[w];
	}
	*page = w * 64 + (uint64_t)__builtin_ctzll(bits);
	return true;
}

void memory_dirty_clear(struct memory_dirty *d)
{
	memset(d->bits, 0, d->words * sizeof(d->bits[0]));
}

static uint8_t *page_hva(const struct memory *mem, uint64_t page)
{
	const struct region *r = &mem->region[0];

	if (mem->regions > 1 && page >= mem->region[1].first_page)
		r = &mem->region[1];
	return r->hva + ((page - r->first_page) << PAGE_SHIFT);
}

uint64_t memory_pages(const struct memory *mem)
{
	return mem->size >> PAGE_SHIFT;
}

const uint8_t *memory_page(const struct memory *mem, uint64_t page)
{
	return page_hva(mem, page);
}

void memory_page_put(struct memory *mem, uint64_t page, const uint8_t *data)
{
	set_bit(mem->ever, page);
	for (struct memory_dirty *d = mem->consumers; d; d = d->next)
		set_bit(d->bits, page);
	memcpy(page_hva(mem, page), data, PAGE_SIZE);
}

gpa_t memory_page_gpa(uint64_t page)
{
	uint64_t gpa = page << PAGE_SHIFT;

	return GPA(gpa < MEMORY_LOW_MAX ? gpa : gpa - MEMORY_LOW_MAX + HIGH_BASE);
}

uint64_t memory_page_number(gpa_t gpa)
{
	if (gpa.v < MEMORY_LOW_MAX)
		return gpa.v >> PAGE_SHIFT;
	return gpa.v < HIGH_BASE ? UINT64_MAX : (gpa.v - HIGH_BASE + MEMORY_LOW_MAX) >> PAGE_SHIFT;
}

bool memory_page_is_zero(const uint8_t *p)
{
	return p[0] == 0 && memcmp(p, p + 1, PAGE_SIZE - 1) == 0;
}

int memory_digest(struct memory *mem, uint64_t *digest, struct err *err)
{
	int rc = memory_sync_dirty(mem, err);

	if (rc < 0)
		return rc;
	for (uint64_t page = 0; memory_dirty_next(mem->undigested, &page); page++) {
		const uint8_t *p = page_hva(mem, page);
		uint64_t hash = 0;

		/* Seeded by its number, so that two pages that change places are seen. */
		if (!memory_page_is_zero(p))
			hash = XXH3_64bits_withSeed(p, PAGE_SIZE, page + 1);
		mem->digest += hash - mem->hash[page];
		mem->hash[page] = hash;
	}
	memory_dirty_clear(mem->undigested);
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

static int watched_order(const void *a, const void *b)
{
	const struct watched *x = a, *y = b;

	return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

/* The pages of each, sorted, and joined where they overlap or are alike side by side. */
static unsigned join(struct watched *list, size_t n)
{
	unsigned out = 0;

	qsort(list, n, sizeof(*list), watched_order);
	for (size_t i = 0; i < n; i++) {
		struct watched *last = out ? &list[out - 1] : NULL;

		if (last && (list[i].gpa < last->end ||
			     (list[i].gpa == last->end && list[i].loads == last->loads && last->end != HIGH_BASE))) {
			last->end = list[i].end > last->end ? list[i].end : last->end;
			last->loads |= list[i].loads;
		} else {
			list[out++] = list[i];
		}
	}
	return out;
}

/* Before slots are deleted: their dirty logs go with them. */
static int apply_watches(struct memory *mem, struct err *err)
{
	int rc = mem->track_dirty ? collect_dirty(mem, err) : 0;

	return rc < 0 ? rc : slots_apply(mem, err);
}

int memory_watch_all(struct memory *mem, const struct memory_watch *watches, size_t n, struct err *err)
{
	struct watched *list = calloc(n + 1, sizeof(*list));
	unsigned count;
	int rc = list ? 0 : err_set(err, ENOMEM, "out of memory for watches");

	for (size_t i = 0; rc == 0 && i < n; i++) {
		uint64_t gpa = watches[i].gpa.v, len = watches[i].len;

		list[i] = (struct watched){gpa & PAGE_MASK, (gpa + len + PAGE_SIZE - 1) & PAGE_MASK, watches[i].loads};
		if (!len || gpa + len < gpa || !find_region(mem, list[i].gpa, list[i].end - list[i].gpa))
			rc = err_set(err, EFAULT,
				     "0x%" PRIx64 " is not in guest RAM; give an address that the guest can write",
				     gpa);
	}
	if (rc < 0)
		goto out;
	count = join(list, n);
	if (count > MEMORY_WATCHES_MAX) {
		rc = err_set(err, E2BIG, "watched memory lies in %u places; at most %d can be watched at a time", count,
			     MEMORY_WATCHES_MAX);
		goto out;
	}
	memcpy(mem->watched, list, count * sizeof(*list));
	mem->watches = count;
	rc = apply_watches(mem, err);
	if (rc < 0 && count) {
		/* RAM as a whole is worth more than a watch. */
		mem->watches = 0;
		(void)apply_watches(mem, NULL);
	}
out:
	free(list);
	return rc;
}

int memory_watch(struct memory *mem, gpa_t gpa, uint64_t len, struct err *err)
{
	const struct memory_watch watch = {.gpa = gpa, .len = len};

	return memory_watch_all(mem, &watch, 1, err);
}

int memory_unwatch(struct memory *mem, struct err *err)
{
	return mem->watches ? memory_watch_all(mem, NULL, 0, err) : 0;
}

int memory_lift_watches(struct memory *mem, bool lift, struct err *err)
{
	mem->lifted = lift;
	return apply_watches(mem, err);
}

bool memory_watches(const struct memory *mem)
{
	return mem->watches;
}

bool memory_is_watched(const struct memory *mem, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; len && i < mem->watches; i++) {
		const struct watched *w = &mem->watched[i];

		if (gpa.v < w->end && (gpa.v >= w->gpa || len > w->gpa - gpa.v))
			return true;
	}
	return false;
}

/* The run of pages that holds all of it. */
static const struct watched *find_watched(const struct memory *mem, gpa_t gpa, unsigned len)
{
	for (unsigned i = 0; i < mem->watches; i++) {
		const struct watched *w = &mem->watched[i];

		if (gpa.v >= w->gpa && gpa.v < w->end && len <= w->end - gpa.v)
			return w;
	}
	return NULL;
}

bool memory_watched_store(struct memory *mem, gpa_t gpa, const void *data, unsigned len, void *old)
{
	void *p;

	if (!find_watched(mem, gpa, len))
		return false;
	p = memory_at_dirty(mem, gpa, len);
	memcpy(old, p, len);
	memcpy(p, data, len);
	return true;
}

bool memory_watched_load(const struct memory *mem, gpa_t gpa, void *data, unsigned len)
{
	const struct watched *w = find_watched(mem, gpa, len);

	return w && w->loads && memory_read(mem, gpa, data, len) == 0;
}

bool memory_dirty_has(const struct memory_dirty *d, uint64_t page)
{
	return d->bits[page / 64] >> (page % 64) & 1;
}

/* Any slot will do: KVM drops all shadow pages when one goes away (x86, kvm_arch_flush_shadow_memslot). This
 * one lies where RAM never is, shows RAM that exists, and is gone before the guest runs. */
int memory_drop_shadow(struct memory *mem, struct err *err)
{
	struct kvm_userspace_memory_region kr = {
		.slot = SLOTS_MAX,
		.guest_phys_addr = MEMORY_LOW_MAX,
		.memory_size = PAGE_SIZE,
		.userspace_addr = (uint64_t)(uintptr_t)mem->region[0].hva,
	};

	if (ioctl(mem->vm_fd, KVM_SET_USER_MEMORY_REGION, &kr) == 0) {
		kr.memory_size = 0;
		if (ioctl(mem->vm_fd, KVM_SET_USER_MEMORY_REGION, &kr) == 0)
			return 0;
	}
	return err_sys(err, errno, "KVM refuses to forget the guest's page tables");
}

int memory_move(struct memory *mem, int vm_fd, struct err *err)
{
	mem->vm_fd = vm_fd;
	mem->slots = 0;
	return slots_apply(mem, err);
}
