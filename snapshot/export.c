// SPDX-License-Identifier: GPL-3.0-or-later
#include "base/new_file.h"
#include "snapshot/format.h"
#include "snapshot/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zstd.h>

#define OUT_SIZE (256u << 10)
/* Pages are written once and may be sent around: better than the fastest, and still far above disk
 * speed. */
#define ZSTD_LEVEL 3

struct exporter {
	struct snapshots *t;
	const struct snapshot_export *what;
	int fd;
	uint8_t *out;
	size_t out_len;
	uint64_t sequence;
	ZSTD_CCtx *zstd;

	uint64_t *written; /* by page_id: number of its page record, from 1; 0: none yet */
	uint64_t *node;	   /* by number of the snapshot: number of its node record, likewise */
	uint64_t pages, nodes;
	struct buf same; /* entries not written yet */
	struct buf body; /* scratch */
};

static int flush(struct exporter *x, struct err *err)
{
	size_t done = 0;

	while (done < x->out_len) {
		ssize_t n = write(x->fd, x->out + done, x->out_len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "cannot write the snapshot file%s",
				       errno == ENOSPC ? "; make room on the disk" : "");
		done += (size_t)n;
	}
	x->out_len = 0;
	return 0;
}

static int put(struct exporter *x, const void *data, size_t len, struct err *err)
{
	int rc = 0;

	if (len > OUT_SIZE - x->out_len)
		rc = flush(x, err);
	if (rc < 0)
		return rc;
	memcpy(x->out + x->out_len, data, len);
	x->out_len += len;
	return 0;
}

static int put_buf(struct exporter *x, struct buf *b, struct err *err)
{
	return b->failed ? err_set(err, ENOMEM, "out of memory") : put(x, b->data, b->len, err);
}

static int put_header(struct exporter *x, struct err *err)
{
	struct buf head = {0};
	int rc;

	buf_put(&head, SNAPSHOT_MAGIC, sizeof(SNAPSHOT_MAGIC) - 1);
	buf_put_u32(&head, SNAPSHOT_VERSION);
	buf_put_u32(&head, 0);
	if (!head.failed)
		buf_put_u64(&head, XXH64(head.data, head.len, 0));
	rc = put_buf(x, &head, err);
	buf_free(&head);
	return rc;
}

static int put_record(struct exporter *x, enum record_type type, uint64_t subject, const void *data,
		      size_t len, struct err *err)
{
	uint8_t packed[ZSTD_COMPRESSBOUND(PAGE_SIZE)];
	const void *stored = data;
	size_t stored_len = len;
	struct buf head = {0};
	uint16_t flags = 0;
	int rc;

	if (type == RECORD_PAGE) {
		size_t n =
			ZSTD_compressCCtx(x->zstd, packed, sizeof(packed), data, len, ZSTD_LEVEL);

		if (!ZSTD_isError(n) && n < len) {
			stored = packed;
			stored_len = n;
			flags = RECORD_ZSTD;
		}
	}
	buf_put_u32(&head, RECORD_MAGIC);
	buf_put_u16(&head, (uint16_t)type);
	buf_put_u16(&head, flags);
	buf_put_u32(&head, (uint32_t)stored_len);
	buf_put_u32(&head, (uint32_t)len);
	buf_put_u64(&head, x->sequence++);
	buf_put_u64(&head, subject);
	buf_put_u64(&head, XXH64(stored, stored_len, 0));
	if (!head.failed)
		buf_put_u64(&head, XXH64(head.data, head.len, 0));
	rc = put_buf(x, &head, err);
	buf_free(&head);
	if (rc == 0)
		rc = put(x, stored, stored_len, err);
	return rc;
}

static int put_bytes(struct exporter *x, const void *data, size_t len, struct err *err)
{
	const uint8_t *p = data;
	int rc = 0;

	while (rc == 0 && len) {
		size_t n = len < RECORD_PIECE_MAX ? len : RECORD_PIECE_MAX;

		rc = put_record(x, RECORD_BYTES, 0, p, n, err);
		p += n;
		len -= n;
	}
	return rc;
}

static int put_body(struct exporter *x, enum record_type type, struct err *err)
{
	int rc = x->body.failed ? err_set(err, ENOMEM, "out of memory")
				: put_record(x, type, 0, x->body.data, x->body.len, err);

	buf_clear(&x->body);
	return rc;
}

static int put_machine(struct exporter *x, struct err *err)
{
	int rc;

	buf_put_u64(&x->body, x->t->mem_size);
	buf_put_u64(&x->body, x->t->layout);
	buf_put_u32(&x->body, (uint32_t)x->what->about_len);
	rc = put_body(x, RECORD_MACHINE, err);
	if (rc == 0)
		rc = put_bytes(x, x->what->about, x->what->about_len, err);
	return rc;
}

/* --- Pages ----------------------------------------------------------------------------------- */

static int flush_same(struct exporter *x, struct err *err)
{
	int rc = 0;

	if (x->same.failed)
		return err_set(err, ENOMEM, "out of memory");
	if (x->same.len)
		rc = put_record(x, RECORD_SAME, 0, x->same.data, x->same.len, err);
	buf_clear(&x->same);
	return rc;
}

static int put_page(void *ctx, uint64_t page, page_id before, page_id id, struct err *err)
{
	struct exporter *x = ctx;
	const uint8_t *data;
	int rc;

	(void)before;
	if (id == PAGE_ZEROS || x->written[id]) {
		buf_put_u64(&x->same, page);
		buf_put_u64(&x->same, id == PAGE_ZEROS ? 0 : x->written[id]);
		return x->same.len < RECORD_RAW_MAX ? 0 : flush_same(x, err);
	}
	rc = page_store_view(x->t->store, id, &data, err);
	if (rc == 0)
		rc = put_record(x, RECORD_PAGE, memory_page_gpa(page).v, data, PAGE_SIZE, err);
	x->written[id] = ++x->pages;
	return rc;
}

struct map_sum {
	const struct page_store *store;
	uint64_t sum;
};

static int add_to_sum(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	struct map_sum *s = ctx;
	struct {
		uint64_t page;
		XXH128_hash_t hash;
	} entry = {page, page_store_hash(s->store, b)};

	(void)a;
	(void)err;
	s->sum = XXH64(&entry, sizeof(entry), s->sum);
	return 0;
}

uint64_t snapshot_map_sum(const struct snapshots *t, const struct page_map *map)
{
	const struct page_map none = {0};
	struct map_sum s = {.store = t->store};

	page_map_diff(&none, map, add_to_sum, &s, NULL);
	return s.sum;
}

/* --- Nodes ----------------------------------------------------------------------------------- */

static bool is_above(const struct snapshot *a, const struct snapshot *s)
{
	while (s && s != a)
		s = s->parent;
	return s == a;
}

/* The reader has it already. */
static bool is_outside(const struct exporter *x, const struct snapshot *s)
{
	return x->what->base && is_above(s, x->what->base);
}

static bool is_wanted(const struct exporter *x, const struct snapshot *s)
{
	const struct snapshot_export *w = x->what;

	if (is_outside(x, s))
		return false;
	return !w->last || s == w->last || (w->chain && is_above(s, w->last));
}

/* What a node is written as a difference to: the nearest of its ancestors that the reader has by
 * then. */
static const struct snapshot *reference(const struct exporter *x, const struct snapshot *s)
{
	const struct snapshot *p = s->parent;

	while (p && !is_outside(x, p) && !x->node[p->number])
		p = p->parent;
	return p;
}

static int put_node(struct exporter *x, const struct snapshot *s, struct err *err)
{
	const struct page_map none = {0};
	const struct snapshot_uid nobody = {0};
	const struct snapshot *ref = reference(x, s);
	bool outside = ref && is_outside(x, ref);
	const struct snapshot_uid *base = outside ? &ref->uid : &nobody;
	int rc;

	if (x->nodes == SNAPSHOT_NODES_MAX)
		return err_set(err, EFBIG, "a snapshot file holds no more than %u snapshots",
			       SNAPSHOT_NODES_MAX);
	buf_put_u64(&x->body, s->uid.v[0]);
	buf_put_u64(&x->body, s->uid.v[1]);
	buf_put_u64(&x->body, outside ? NODE_PARENT_OUTSIDE : ref ? x->node[ref->number] : 0);
	buf_put_u64(&x->body, base->v[0]);
	buf_put_u64(&x->body, base->v[1]);
	buf_put_u64(&x->body, outside ? snapshot_map_sum(x->t, &ref->map) : 0);
	buf_put_u64(&x->body, s->boundary);
	buf_put_u64(&x->body, s->vtime);
	buf_put_u64(&x->body, s->changed);
	buf_put_u32(&x->body, (uint32_t)s->data_len);
	buf_put_u32(&x->body, (uint32_t)s->state_len);
	buf_put_str(&x->body, s->label);
	rc = put_body(x, RECORD_NODE, err);
	if (rc == 0)
		rc = put_bytes(x, s->data, s->data_len, err);
	if (rc == 0)
		rc = put_bytes(x, s->state, s->state_len, err);
	if (rc == 0)
		rc = page_map_diff(ref ? &ref->map : &none, &s->map, put_page, x, err);
	if (rc == 0)
		rc = flush_same(x, err);
	x->node[s->number] = ++x->nodes;
	return rc;
}

static int put_all(struct exporter *x, struct err *err)
{
	int rc = put_header(x, err);

	if (rc == 0)
		rc = put_machine(x, err);
	/* By number a parent comes before its children. */
	for (const struct snapshot *s = x->t->first; rc == 0 && s; s = s->next)
		if (is_wanted(x, s))
			rc = put_node(x, s, err);
	if (rc < 0)
		return rc;
	if (!x->nodes)
		return err_set(err, ENOENT, "there is no snapshot to export");
	buf_put_u64(&x->body, x->nodes);
	buf_put_u64(&x->body, x->pages);
	rc = put_body(x, RECORD_END, err);
	return rc < 0 ? rc : flush(x, err);
}

/* --- The file -------------------------------------------------------------------------------- */

int snapshots_export_to(struct snapshots *t, int fd, const struct snapshot_export *what,
			struct err *err)
{
	struct exporter x = {.t = t, .what = what, .fd = fd};
	int rc;

	if (what->about_len > SNAPSHOT_DATA_MAX)
		return err_set(err, EINVAL, "a description of %zu bytes is too long",
			       what->about_len);
	x.out = malloc(OUT_SIZE);
	x.written = calloc(page_store_end(t->store), sizeof(*x.written));
	x.node = calloc(t->numbered + 1, sizeof(*x.node));
	x.zstd = ZSTD_createCCtx();
	if (x.out && x.written && x.node && x.zstd)
		rc = put_all(&x, err);
	else
		rc = err_set(err, ENOMEM, "out of memory");
	free(x.out);
	free(x.written);
	free(x.node);
	ZSTD_freeCCtx(x.zstd);
	buf_free(&x.same);
	buf_free(&x.body);
	return rc;
}

int snapshots_export(struct snapshots *t, const char *path, const struct snapshot_export *what,
		     struct err *err)
{
	struct new_file file;
	int rc = new_file_create(&file, path, err);

	if (rc < 0)
		return rc;
	rc = snapshots_export_to(t, file.fd, what, err);
	if (rc < 0) {
		new_file_abandon(&file);
		return rc;
	}
	return new_file_commit(&file, err);
}
