/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Guest RAM: private memory of this process, one mapping per slot, given to KVM. Dirty pages are KVM's dirty
 * log or'ed with our own writes; each of those who want to know of them has a list of his own. The digest
 * of memory is kept incrementally: the sum of one hash per page, so its cost is proportional to what was
 * written since the last one.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include "base/err.h"
#include "base/types.h"

struct memory;

#define MEMORY_MIN (1ull << 20)
#define MEMORY_MAX (64ull << 30)

/* size: bytes, a multiple of PAGE_SIZE within MEMORY_MIN..MEMORY_MAX. vm_fd may be -1: RAM without
 * a VM, for loaders' tests. track_dirty: needed for memory_digest and memory_dirty_open. */
int memory_create(struct memory **mem, int vm_fd, uint64_t size, bool track_dirty, struct err *err);
void memory_destroy(struct memory *mem);
uint64_t memory_size(const struct memory *mem);

/* Pointer to [gpa, gpa+len) if all of it is RAM of one slot, else NULL. For reading. */
const void *memory_at(const struct memory *mem, gpa_t gpa, uint64_t len);
/* As memory_at, for writing: the pages are marked dirty. Also the one way for devices to do DMA. */
void *memory_at_dirty(struct memory *mem, gpa_t gpa, uint64_t len);
/* Copy from or to RAM across pages and slots. -EFAULT if any byte is not RAM; nothing is written
 * then. */
int memory_read(const struct memory *mem, gpa_t gpa, void *out, uint64_t len);
int memory_write(struct memory *mem, gpa_t gpa, const void *data, uint64_t len);

/* Digest of all RAM; all bytes, whoever wrote them. */
int memory_digest(struct memory *mem, uint64_t *digest, struct err *err);
/* Compare two memories of equal size byte by byte. Returns true and the first differing address. */
bool memory_first_difference(const struct memory *a, const struct memory *b, gpa_t *where);

/*
 * Pages by number: 0 to memory_pages - 1, in the order of their addresses, without the hole below 4 GiB.
 */
uint64_t memory_pages(const struct memory *mem);
gpa_t memory_page_gpa(uint64_t page);
/* UINT64_MAX: in the hole. There may be less RAM than that. */
uint64_t memory_page_number(gpa_t gpa);
/* Its PAGE_SIZE bytes, for reading. */
const uint8_t *memory_page(const struct memory *mem, uint64_t page);
/* Replace it by data. Consumers of dirty pages know of it at once. */
void memory_page_put(struct memory *mem, uint64_t page, const uint8_t *data);
bool memory_page_is_zero(const uint8_t *page);

/*
 * Which pages were written since the last memory_dirty_clear of this consumer, by whom ever. At first: all
 * that were written since RAM was zero.
 */
struct memory_dirty;
int memory_dirty_open(struct memory *mem, struct memory_dirty **d, struct err *err);
void memory_dirty_close(struct memory *mem, struct memory_dirty *d);
/* Let every consumer know of all that was written up to now. */
int memory_sync_dirty(struct memory *mem, struct err *err);
/* The first dirty page at or after *page. */
bool memory_dirty_next(const struct memory_dirty *d, uint64_t *page);
bool memory_dirty_has(const struct memory_dirty *d, uint64_t page);
/* The same for the page at gpa, up to now; d NULL: since memory_digest was last called. Some hosts' KVM counts the first
 * access of any kind. */
int memory_page_written(struct memory *mem, const struct memory_dirty *d, gpa_t gpa, bool *written, struct err *err);
/* Forget what this consumer was told up to the last memory_sync_dirty; for when it has been dealt with. */
void memory_dirty_clear(struct memory_dirty *d);

/* Make KVM forget what it derived from the guest's page tables, where it does not notice that the VMM
 * replaced them (caps.table_flush). */
int memory_drop_shadow(struct memory *mem, struct err *err);
/* Give this RAM to another VM, which has none yet: in a child process, whose RAM is a copy. */
int memory_move(struct memory *mem, int vm_fd, struct err *err);

/*
 * Watches, by pages: guest stores to pages that hold a byte of one come back as KVM_EXIT_MMIO and are made by
 * memory_watched_store; if loads are watched, loads there too, answered by memory_watched_load. Whether an access
 * touches the bytes is for the caller to see. KVM fails at instructions fetched from a page whose loads are
 * watched, and reads neither page tables nor descriptors there.
 */
struct memory_watch {
	gpa_t gpa;
	uint64_t len;
	bool loads;
};

/* Runs of pages that can be watched at a time. Each takes up to two KVM slots more, of 509 in all
 * (KVM_USER_MEM_SLOTS, arch/x86, before Linux 5.12). */
#define MEMORY_WATCHES_MAX 128

/* Instead of those before; n 0: none. -EFAULT if one is not RAM, -E2BIG: too many runs of pages. */
int memory_watch_all(struct memory *mem, const struct memory_watch *watches, size_t n, struct err *err);
/* Stores to one range. */
int memory_watch(struct memory *mem, gpa_t gpa, uint64_t len, struct err *err);
int memory_unwatch(struct memory *mem, struct err *err);
/* For a while no access comes back, though what is watched stays so. */
int memory_lift_watches(struct memory *mem, bool lift, struct err *err);
/* Whether anything is watched. */
bool memory_watches(const struct memory *mem);
/* Whether any of these bytes lies in a watched page. */
bool memory_is_watched(const struct memory *mem, gpa_t gpa, uint64_t len);
/* If [gpa, gpa+len) lies in watched pages, do the store and return true. `old` receives the bytes
 * that were there (len <= 8). */
bool memory_watched_store(struct memory *mem, gpa_t gpa, const void *data, unsigned len, void *old);
/* If it lies in pages of which loads are watched, give its bytes and return true. */
bool memory_watched_load(const struct memory *mem, gpa_t gpa, void *data, unsigned len);

#endif
