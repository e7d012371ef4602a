// SPDX-License-Identifier: GPL-3.0-or-later
#include "snapshot/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CACHE_LINE 64 /* of every x86-64 CPU so far */

int snapshots_create(struct snapshots **out, uint64_t memory, const char *spill_dir,
		     struct err *err)
{
	struct snapshots *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return err_set(err, ENOMEM, "out of memory");
	rc = page_store_create(&t->store, memory, spill_dir, err);
	if (rc < 0) {
		free(t);
		return rc;
	}
	*out = t;
	return 0;
}

void snapshots_destroy(struct snapshots *t)
{
	if (!t)
		return;
	snapshots_detach(t);
	while (t->last)
		snapshot_delete(t, t->last);
	page_store_destroy(t->store);
	free(t);
}

/* --- Nodes ----------------------------------------------------------------------------------- */

static uint64_t node_bytes(const struct snapshot *s)
{
	return sizeof(*s) + strlen(s->label) + 1 + s->data_len;
}

int snapshot_new(struct snapshots *t, const struct snapshot_note *note, struct snapshot **out,
		 struct err *err)
{
	const struct snapshot_note none = {0};
	struct snapshot *s = calloc(1, sizeof(*s));
	int rc;

	if (!note)
		note = &none;
	if (!s)
		return err_set(err, ENOMEM, "out of memory for snapshots");
	s->label = strdup(note->label ? note->label : "");
	s->data = malloc(note->data_len ? note->data_len : 1);
	if (!s->label || !s->data)
		rc = err_set(err, ENOMEM, "out of memory for snapshots");
	else if (getrandom(&s->uid, sizeof(s->uid), 0) != sizeof(s->uid))
		rc = err_sys(err, errno, "cannot make a name for a snapshot");
	else
		rc = page_store_reserve(t->store, node_bytes(s) + note->data_len, err);
	if (rc < 0) {
		free(s->label);
		free(s->data);
		free(s);
		return rc;
	}
	if (note->data_len)
		memcpy(s->data, note->data, note->data_len);
	s->data_len = note->data_len;
	*out = s;
	return 0;
}

int snapshot_give_state(struct snapshots *t, struct snapshot *s, uint8_t *state, size_t len,
			struct err *err)
{
	int rc = len > SNAPSHOT_STATE_MAX
			 ? err_set(err, EFBIG, "the state of the devices is larger than %u MiB",
				   SNAPSHOT_STATE_MAX >> 20)
			 : page_store_reserve(t->store, len, err);

	if (rc < 0) {
		free(state);
		return rc;
	}
	s->state = state;
	s->state_len = len;
	return 0;
}

void snapshot_free(struct snapshots *t, struct snapshot *s)
{
	if (!s)
		return;
	page_map_drop(&s->map, t->store);
	page_store_release(t->store, node_bytes(s) + s->state_len);
	free(s->label);
	free(s->data);
	free(s->state);
	free(s);
}

void snapshot_insert(struct snapshots *t, struct snapshot *s)
{
	s->number = ++t->numbered;
	s->prev = t->last;
	if (t->last)
		t->last->next = s;
	else
		t->first = s;
	t->last = s;
	t->count++;
}

void snapshot_delete(struct snapshots *t, struct snapshot *s)
{
	/* Maps are whole by themselves: a child needs its parent for the shape of the tree only. */
	for (struct snapshot *c = t->first; c; c = c->next)
		if (c->parent == s)
			c->parent = s->parent;
	if (t->at == s)
		t->at = s->parent;
	*(s->prev ? &s->prev->next : &t->first) = s->next;
	*(s->next ? &s->next->prev : &t->last) = s->prev;
	t->count--;
	snapshot_free(t, s);
}

static int count_page(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	(void)page;
	(void)a;
	(void)b;
	(void)err;
	++*(uint64_t *)ctx;
	return 0;
}

void snapshot_set_parent(struct snapshot *s, struct snapshot *parent)
{
	const struct page_map none = {0};

	s->parent = parent;
	s->changed = 0;
	page_map_diff(parent ? &parent->map : &none, &s->map, count_page, &s->changed, NULL);
}

int snapshot_set_label(struct snapshots *t, struct snapshot *s, const char *label, struct err *err)
{
	size_t old = strlen(s->label), n = strlen(label);
	char *copy;
	int rc;

	if (n > SNAPSHOT_LABEL_MAX)
		return err_set(err, EINVAL, "a snapshot's label may have %u bytes",
			       SNAPSHOT_LABEL_MAX);
	rc = page_store_reserve(t->store, n, err);
	if (rc < 0)
		return rc;
	copy = strdup(label);
	page_store_release(t->store, copy ? old : n);
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(s->label);
	s->label = copy;
	return 0;
}

struct snapshot *snapshots_at(const struct snapshots *t)
{
	return t->at;
}

struct snapshot *snapshots_next(const struct snapshots *t, const struct snapshot *s)
{
	return s ? s->next : t->first;
}

struct snapshot *snapshots_find(const struct snapshots *t, uint64_t number)
{
	for (struct snapshot *s = t->first; s; s = s->next)
		if (s->number == number)
			return s;
	return NULL;
}

struct snapshot *snapshots_find_uid(const struct snapshots *t, const struct snapshot_uid *uid)
{
	for (struct snapshot *s = t->first; s; s = s->next)
		if (memcmp(&s->uid, uid, sizeof(*uid)) == 0)
			return s;
	return NULL;
}

void snapshots_figures(const struct snapshots *t, struct snapshots_figures *f)
{
	*f = (struct snapshots_figures){.snapshots = t->count, .pages = t->pages};
	page_store_figures(t->store, &f->store);
}

/* --- The machine ----------------------------------------------------------------------------- */

int snapshots_attach(struct snapshots *t, struct machine *m, struct err *err)
{
	struct buf state = {0};
	struct reader r;
	uint64_t layout = t->layout;
	int rc;

	if (t->machine)
		return err_set(err, EBUSY, "the snapshots belong to another machine already");
	if (m->caps.table_flush == TABLES_STALE)
		return err_set(err, ENOTSUP,
			       "this host's KVM does not notice that page tables were replaced, so "
			       "nothing can be restored; see hindsight doctor");
	if (t->mem_size && t->mem_size != memory_size(m->mem))
		return err_set(err, EINVAL,
			       "the snapshots are of a machine with %" PRIu64
			       " MiB of RAM, this one has %" PRIu64,
			       t->mem_size >> 20, memory_size(m->mem) >> 20);
	rc = machine_save(m, &state, err);
	if (rc == 0) {
		r = reader_init(state.data, state.len);
		layout = reader_u64(&r);
	}
	buf_free(&state);
	if (rc < 0)
		return rc;
	if (t->layout && t->layout != layout)
		return err_set(err, EINVAL,
			       "the snapshots were made by another version of hindsight");
	rc = memory_dirty_open(m->mem, &t->dirty, err);
	if (rc < 0)
		return rc;
	t->layout = layout;
	t->mem_size = memory_size(m->mem);
	t->machine = m;
	return 0;
}

void snapshots_detach(struct snapshots *t)
{
	if (!t->machine)
		return;
	memory_dirty_close(t->machine->mem, t->dirty);
	page_map_drop(&t->base, t->store);
	t->machine = NULL;
	t->dirty = NULL;
	t->at = NULL;
}

/* From here on the machine is equal to s. */
static void stand_at(struct snapshots *t, struct snapshot *s)
{
	struct page_map old = t->base;

	t->base = page_map_copy(&s->map);
	page_map_drop(&old, t->store);
	memory_dirty_clear(t->dirty);
	t->at = s;
}

/* Begin to load the next dirty page into the cache: hashing waits for memory more than it computes.
 */
static void load_ahead(const struct snapshots *t, uint64_t page)
{
	const uint8_t *p;

	if (!memory_dirty_next(t->dirty, &page))
		return;
	p = memory_page(t->machine->mem, page);
	for (size_t i = 0; i < PAGE_SIZE; i += CACHE_LINE)
		__builtin_prefetch(p + i);
}

/* Put what was written since `base` into a map that is a copy of it. */
static int store_dirty(struct snapshots *t, struct snapshot *s, struct err *err)
{
	for (uint64_t page = 0; memory_dirty_next(t->dirty, &page); page++) {
		page_id id;
		int rc;

		load_ahead(t, page + 1);
		if (t->written)
			t->written(t->written_ctx, page);
		rc = page_store_put(t->store, memory_page(t->machine->mem, page), &id, err);
		if (rc < 0)
			return rc;
		s->changed++;
		if (id != page_map_get(&s->map, page))
			rc = page_map_set(&s->map, t->store, page, id, err);
		else
			page_store_unref(t->store, id);
		if (rc < 0) {
			page_store_unref(t->store, id);
			return rc;
		}
	}
	return 0;
}

void snapshots_tell_written(struct snapshots *t, void (*written)(void *ctx, uint64_t page), void *ctx)
{
	t->written = written;
	t->written_ctx = ctx;
}

int snapshot_take(struct snapshots *t, const struct snapshot_note *note, struct snapshot **out,
		  struct err *err)
{
	struct machine *m = t->machine;
	struct buf state = {0};
	struct snapshot *s;
	int rc;

	if (note && ((note->label && strlen(note->label) > SNAPSHOT_LABEL_MAX) ||
		     note->data_len > SNAPSHOT_DATA_MAX))
		return err_set(err, EINVAL, "a snapshot's label may have %u bytes, its data %u MiB",
			       SNAPSHOT_LABEL_MAX, SNAPSHOT_DATA_MAX >> 20);
	/* First, because it completes an access that may write to memory. */
	rc = machine_save(m, &state, err);
	if (rc == 0)
		rc = memory_sync_dirty(m->mem, err);
	if (rc < 0) {
		buf_free(&state);
		return rc;
	}
	rc = snapshot_new(t, note, &s, err);
	if (rc < 0) {
		buf_free(&state);
		return rc;
	}
	s->boundary = m->boundary;
	s->vtime = m->vtime;
	s->parent = t->at;
	s->map = page_map_copy(&t->base);
	rc = snapshot_give_state(t, s, state.data, state.len, err);
	if (rc == 0)
		rc = store_dirty(t, s, err);
	if (rc < 0) {
		snapshot_free(t, s);
		return rc;
	}
	snapshot_insert(t, s);
	stand_at(t, s);
	t->pages = s->changed;
	*out = s;
	return 0;
}

static int copy_page(struct snapshots *t, uint64_t page, page_id id, struct err *err)
{
	const uint8_t *data;
	int rc = page_store_view(t->store, id, &data, err);

	if (rc < 0)
		return rc;
	memory_page_put(t->machine->mem, page, data);
	t->pages++;
	return 0;
}

static int copy_difference(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	struct snapshots *t = ctx;

	(void)a;
	/* Then it has been copied. */
	if (memory_dirty_has(t->dirty, page))
		return 0;
	return copy_page(t, page, b, err);
}

int snapshot_restore(struct snapshots *t, struct snapshot *s, struct err *err)
{
	struct machine *m = t->machine;
	int rc = vcpu_abandon(&m->vcpu[0], err);

	if (rc == 0)
		rc = memory_sync_dirty(m->mem, err);
	t->pages = 0;
	for (uint64_t page = 0; rc == 0 && memory_dirty_next(t->dirty, &page); page++)
		rc = copy_page(t, page, page_map_get(&s->map, page), err);
	if (rc == 0)
		rc = page_map_diff(&t->base, &s->map, copy_difference, t, err);
	if (rc == 0)
		rc = machine_restore(m, s->state, s->state_len, err);
	if (rc == 0)
		stand_at(t, s);
	return rc;
}

/* --- Comparison ------------------------------------------------------------------------------ */

struct difference {
	struct snapshots *t;
	snapshot_page_fn *fn;
	void *ctx;
	const struct page_map *a;
	bool machine; /* b is the machine, where it is dirty */
};

static int show(const struct difference *d, uint64_t page, page_id a, const uint8_t *b,
		struct err *err)
{
	uint8_t first[PAGE_SIZE];
	const uint8_t *data;
	int rc = page_store_view(d->t->store, a, &data, err);

	if (rc < 0)
		return rc;
	memcpy(first, data, PAGE_SIZE);
	if (memcmp(first, b, PAGE_SIZE) == 0)
		return 0;
	return d->fn(d->ctx, memory_page_gpa(page), first, b, err);
}

static int show_stored(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	const struct difference *d = ctx;
	uint8_t second[PAGE_SIZE];
	const uint8_t *data;
	int rc;

	if (d->machine && memory_dirty_has(d->t->dirty, page))
		return 0;
	rc = page_store_view(d->t->store, b, &data, err);
	if (rc < 0)
		return rc;
	memcpy(second, data, PAGE_SIZE);
	return show(d, page, a, second, err);
}

int snapshot_diff(struct snapshots *t, struct snapshot *a, struct snapshot *b, snapshot_page_fn *fn,
		  void *ctx, struct err *err)
{
	struct difference d = {t, fn, ctx, &a->map, !b};
	int rc = 0;

	if (!b)
		rc = memory_sync_dirty(t->machine->mem, err);
	for (uint64_t page = 0; rc == 0 && !b && memory_dirty_next(t->dirty, &page); page++)
		rc = show(&d, page, page_map_get(&a->map, page), memory_page(t->machine->mem, page),
			  err);
	if (rc == 0)
		rc = page_map_diff(&a->map, b ? &b->map : &t->base, show_stored, &d, err);
	return rc;
}
