// SPDX-License-Identifier: GPL-3.0-or-later
#include "snapshot/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A node at level 0 holds pages, any other one nodes of the level below; NULL stands for zeros. A
 * node with more than one reference is never changed. */
struct map_node {
	uint32_t refs;
	union {
		page_id page[MAP_FANOUT];
		struct map_node *child[MAP_FANOUT];
	};
};

static size_t node_size(unsigned level)
{
	return offsetof(struct map_node, page) +
	       MAP_FANOUT * (level ? sizeof(struct map_node *) : sizeof(page_id));
}

static unsigned index_at(uint64_t page, unsigned level)
{
	return (unsigned)(page >> (level * MAP_FANOUT_BITS)) & (MAP_FANOUT - 1);
}

static void node_drop(struct map_node *n, unsigned level, struct page_store *store)
{
	if (!n || --n->refs)
		return;
	for (unsigned i = 0; i < MAP_FANOUT; i++) {
		if (level)
			node_drop(n->child[i], level - 1, store);
		else
			page_store_unref(store, n->page[i]);
	}
	free(n);
	page_store_release(store, node_size(level));
}

/* Replace *at by a node that is nobody else's, with the same content. */
static int node_own(struct map_node **at, unsigned level, struct page_store *store, struct err *err)
{
	struct map_node *old = *at, *n;
	int rc;

	if (old && old->refs == 1)
		return 0;
	rc = page_store_reserve(store, node_size(level), err);
	if (rc < 0)
		return rc;
	n = calloc(1, node_size(level));
	if (!n) {
		page_store_release(store, node_size(level));
		return err_set(err, ENOMEM, "out of memory for snapshots");
	}
	if (old) {
		memcpy(n, old, node_size(level));
		old->refs--;
		for (unsigned i = 0; i < MAP_FANOUT; i++) {
			if (!level)
				page_store_ref(store, n->page[i]);
			else if (n->child[i])
				n->child[i]->refs++;
		}
	}
	n->refs = 1;
	*at = n;
	return 0;
}

page_id page_map_get(const struct page_map *map, uint64_t page)
{
	const struct map_node *n = map->root;

	for (unsigned level = MAP_LEVELS - 1; n && level; level--)
		n = n->child[index_at(page, level)];
	return n ? n->page[index_at(page, 0)] : PAGE_ZEROS;
}

int page_map_set(struct page_map *map, struct page_store *store, uint64_t page, page_id id,
		 struct err *err)
{
	struct map_node **at = &map->root;
	unsigned level = MAP_LEVELS - 1;
	int rc;

	if (id == PAGE_ZEROS && page_map_get(map, page) == PAGE_ZEROS)
		return 0;
	for (;;) {
		rc = node_own(at, level, store, err);
		if (rc < 0)
			return rc;
		if (!level)
			break;
		at = &(*at)->child[index_at(page, level--)];
	}
	page_store_unref(store, (*at)->page[index_at(page, 0)]);
	(*at)->page[index_at(page, 0)] = id;
	return 0;
}

struct page_map page_map_copy(const struct page_map *map)
{
	if (map->root)
		map->root->refs++;
	return *map;
}

void page_map_drop(struct page_map *map, struct page_store *store)
{
	node_drop(map->root, MAP_LEVELS - 1, store);
	map->root = NULL;
}

struct comparison {
	page_map_fn *fn;
	void *ctx;
	struct err *err;
};

static int compare(const struct comparison *c, const struct map_node *a, const struct map_node *b,
		   unsigned level, uint64_t first)
{
	int rc = 0;

	if (a == b)
		return 0;
	for (unsigned i = 0; i < MAP_FANOUT && rc == 0; i++) {
		if (level) {
			rc = compare(c, a ? a->child[i] : NULL, b ? b->child[i] : NULL, level - 1,
				     first + ((uint64_t)i << (level * MAP_FANOUT_BITS)));
		} else {
			page_id x = a ? a->page[i] : PAGE_ZEROS, y = b ? b->page[i] : PAGE_ZEROS;

			if (x != y)
				rc = c->fn(c->ctx, first + i, x, y, c->err);
		}
	}
	return rc;
}

int page_map_diff(const struct page_map *a, const struct page_map *b, page_map_fn *fn, void *ctx,
		  struct err *err)
{
	struct comparison c = {fn, ctx, err};

	return compare(&c, a->root, b->root, MAP_LEVELS - 1, 0);
}
