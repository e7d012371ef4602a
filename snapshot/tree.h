/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the files of snapshot/ share. */
#ifndef SNAPSHOT_TREE_H
#define SNAPSHOT_TREE_H

#include "snapshot/snapshot.h"

struct snapshots {
	struct page_store *store;
	struct snapshot *first, *last;
	uint64_t count;
	uint64_t numbered; /* numbers given out */
	uint64_t mem_size; /* of the machine that the snapshots are of; 0: not known yet */
	uint64_t layout;   /* of machine_save; 0: not known yet */

	/* The machine differs from `base` in the pages that `dirty` tells, and in no others. */
	struct machine *machine;
	struct memory_dirty *dirty;
	struct page_map base;
	struct snapshot *at;
	uint64_t pages;
	void (*written)(void *ctx, uint64_t page); /* may be NULL */
	void *written_ctx;
};

/* A node that is not in the tree yet, with copies of what is given, but without map and state. */
int snapshot_new(struct snapshots *t, const struct snapshot_note *note, struct snapshot **s,
		 struct err *err);
/* Take over the bytes of a state; they count against the budget. */
int snapshot_give_state(struct snapshots *t, struct snapshot *s, uint8_t *state, size_t len,
			struct err *err);
void snapshot_free(struct snapshots *t, struct snapshot *s);
/* Give it a number and a place in the list. */
void snapshot_insert(struct snapshots *t, struct snapshot *s);
/* Hash of all that a map holds. */
uint64_t snapshot_map_sum(const struct snapshots *t, const struct page_map *map);

#endif
