/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pages by content: each distinct page is kept once and counts its references; the page of zeros is
 * kept not at all. Over its budget of memory the store compresses pages that were not used lately,
 * and then moves them to a file without a name, which is gone when the process is.
 */
#ifndef SNAPSHOT_STORE_H
#define SNAPSHOT_STORE_H

#include "base/err.h"
#include "base/types.h"

#include <xxhash.h>

struct page_store;

/* A page in the store. Numbers are used again once a page has no references left. */
typedef uint32_t page_id;
#define PAGE_ZEROS 0u

struct page_store_figures {
	uint64_t pages;			     /* distinct ones, without zeros */
	uint64_t plain, compressed, spilled; /* of these */
	uint64_t shared;		     /* times that a page put was there already */
	uint64_t memory;		     /* bytes, with all that was reserved */
	uint64_t spill;			     /* bytes of the file in use */
};

/* budget: bytes of memory. spill_dir: where the file lies, made when it is first needed (kept, not
 * copied). */
int page_store_create(struct page_store **s, uint64_t budget, const char *spill_dir,
		      struct err *err);
void page_store_destroy(struct page_store *s);

/* Add a reference to the page with these PAGE_SIZE bytes. -ENOMEM, -ENOSPC: over the budget, and
 * what is there cannot be moved out; nothing has changed then. */
int page_store_put(struct page_store *s, const uint8_t *data, page_id *id, struct err *err);
void page_store_ref(struct page_store *s, page_id id);
void page_store_unref(struct page_store *s, page_id id);
/* Its bytes, valid until the next call. -EIO: they are not what was put. */
int page_store_view(struct page_store *s, page_id id, const uint8_t **data, struct err *err);
/* Hash of the content; two zeros for zeros. */
XXH128_hash_t page_store_hash(const struct page_store *s, page_id id);
/* All ids are below this. */
page_id page_store_end(const struct page_store *s);

/* Memory of others that belongs into the budget. */
int page_store_reserve(struct page_store *s, uint64_t bytes, struct err *err);
void page_store_release(struct page_store *s, uint64_t bytes);

/* Before a fork() in the parent, after it in the child: from then on neither touches what the other
 * reads. */
void page_store_seal(struct page_store *s);
void page_store_inherit(struct page_store *s);

void page_store_figures(const struct page_store *s, struct page_store_figures *f);

#endif
