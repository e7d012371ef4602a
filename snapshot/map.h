/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A page map: which page of the store lies at which page of RAM. It is a tree of nodes that several
 * maps share: a copy costs nothing, a change costs the path to it once, and a comparison passes
 * over what is shared.
 */
#ifndef SNAPSHOT_MAP_H
#define SNAPSHOT_MAP_H

#include "snapshot/store.h"

#define MAP_FANOUT_BITS 6
#define MAP_FANOUT (1u << MAP_FANOUT_BITS)
/* 2^24 pages are MEMORY_MAX. */
#define MAP_LEVELS 4
#define MAP_PAGES_MAX (1ull << (MAP_LEVELS * MAP_FANOUT_BITS))

struct map_node;

/* All zero: a map of zeros. To be changed by these functions only, and given back by page_map_drop.
 */
struct page_map {
	struct map_node *root;
};

page_id page_map_get(const struct page_map *map, uint64_t page);
/* page < MAP_PAGES_MAX. Takes over the caller's reference to id, unless it fails (-ENOMEM; nothing
 * has changed then). */
int page_map_set(struct page_map *map, struct page_store *store, uint64_t page, page_id id,
		 struct err *err);
/* A second map with the same content. */
struct page_map page_map_copy(const struct page_map *map);
void page_map_drop(struct page_map *map, struct page_store *store);

/* Called for each page that differs, in ascending order; anything but 0 ends the comparison and is
 * its result. */
typedef int page_map_fn(void *ctx, uint64_t page, page_id a, page_id b, struct err *err);
int page_map_diff(const struct page_map *a, const struct page_map *b, page_map_fn *fn, void *ctx,
		  struct err *err);

#endif
