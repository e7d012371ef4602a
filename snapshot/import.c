// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Reading a snapshot file. Nothing in it is believed: a record is looked at when its checksums
 * agree, what it says is checked all the same, and what it makes the program keep counts against
 * the memory budget.
 */
#include "snapshot/format.h"
#include "snapshot/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

/* A page that does not shrink is stored as it is, so nothing stored is longer than this. */
#define STORED_MAX RECORD_RAW_MAX

struct record {
	enum record_type type;
	uint64_t subject;
	const uint8_t *data;
	size_t len;
	uint64_t at; /* byte in the file */
};

struct importer {
	struct snapshots *t;
	const char *path;
	FILE *file;
	uint64_t size, offset, sequence;
	ZSTD_DCtx *zstd;
	uint8_t *stored;
	uint8_t raw[PAGE_SIZE];
	struct record record;

	struct snapshot *before; /* last of the tree before the import */
	struct snapshot **node;	 /* by number of the record, less one */
	uint64_t nodes, node_cap;
	page_id *page; /* likewise, with a reference each */
	uint64_t pages, page_cap;

	struct snapshot *s; /* being read */
	struct snapshot *parent;
	struct buf state;
};

/* --- Records --------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int damaged(const struct importer *im, struct err *err,
							 const char *fmt, ...)
{
	char what[256], where[SNAPSHOT_LABEL_MAX + 64] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (im->s)
		snprintf(where, sizeof(where), " (in snapshot %" PRIu64 " of the file, \"%s\")",
			 im->nodes + 1, im->s->label);
	return err_set(err, EBADMSG, "%s is damaged at byte %" PRIu64 "%s: %s", im->path,
		       im->record.at, where, what);
}

static int read_bytes(struct importer *im, void *out, size_t len, const char *what, struct err *err)
{
	if (len > im->size - im->offset)
		return damaged(im, err, "the file ends inside %s", what);
	if (len && fread(out, len, 1, im->file) != 1)
		return err_sys(err, errno ? errno : EIO, "cannot read %s at byte %" PRIu64,
			       im->path, im->offset);
	im->offset += len;
	return 0;
}

static int read_header(struct importer *im, struct err *err)
{
	uint8_t head[SNAPSHOT_HEADER_SIZE] = {0};
	struct reader r = reader_init(head, sizeof(head));
	uint32_t version;
	int rc;

	if (im->size < sizeof(head))
		return err_set(err, EBADMSG,
			       "%s is no snapshot file: it is shorter than the header of one",
			       im->path);
	rc = read_bytes(im, head, sizeof(head), "the header", err);
	if (rc < 0)
		return rc;
	if (memcmp(reader_take(&r, sizeof(SNAPSHOT_MAGIC) - 1), SNAPSHOT_MAGIC,
		   sizeof(SNAPSHOT_MAGIC) - 1) != 0)
		return err_set(err, EBADMSG, "%s is no hindsight snapshot file", im->path);
	version = reader_u32(&r);
	reader_u32(&r);
	if (reader_u64(&r) != XXH64(head, SNAPSHOT_HEADER_SIZE - 8, 0))
		return damaged(im, err, "the header's checksum does not match");
	if (version != SNAPSHOT_VERSION)
		return err_set(err, EBADMSG,
			       "%s has snapshot format %u, this hindsight reads %u; use the "
			       "version that wrote it",
			       im->path, version, SNAPSHOT_VERSION);
	return 0;
}

/* For messages: what a record is about, by its head. */
static const char *name_record(const struct record *r, char *out, size_t size)
{
	static const char *const names[] = {
		[RECORD_MACHINE] = "the machine's description",
		[RECORD_NODE] = "a snapshot's head",
		[RECORD_BYTES] = "a snapshot's state or data",
		[RECORD_SAME] = "a list of equal pages",
		[RECORD_END] = "the end mark",
	};

	if (r->type == RECORD_PAGE)
		snprintf(out, size, "page 0x%" PRIx64, r->subject);
	else
		snprintf(out, size, "%s",
			 r->type < ARRAY_SIZE(names) && names[r->type] ? names[r->type]
								       : "a record");
	return out;
}

static int unpack(struct importer *im, uint32_t stored, uint32_t raw, uint16_t flags,
		  const char *name, struct err *err)
{
	struct record *r = &im->record;

	r->data = im->stored;
	r->len = raw;
	if (!(flags & RECORD_ZSTD))
		return stored == raw ? 0 : damaged(im, err, "%s has two sizes", name);
	if (r->type != RECORD_PAGE || raw != PAGE_SIZE ||
	    ZSTD_decompressDCtx(im->zstd, im->raw, PAGE_SIZE, im->stored, stored) != PAGE_SIZE)
		return damaged(im, err, "%s cannot be decompressed", name);
	r->data = im->raw;
	return 0;
}

static int next_record(struct importer *im, struct err *err)
{
	uint8_t head[RECORD_HEAD_SIZE] = {0};
	struct reader r = reader_init(head, sizeof(head));
	struct record *rec = &im->record;
	uint32_t magic, stored, raw;
	uint64_t sequence, sum;
	uint16_t flags;
	char name[64];
	int rc;

	rec->at = im->offset;
	rc = read_bytes(im, head, sizeof(head), "the head of a record, or before its end mark",
			err);
	if (rc < 0)
		return rc;
	magic = reader_u32(&r);
	rec->type = reader_u16(&r);
	flags = reader_u16(&r);
	stored = reader_u32(&r);
	raw = reader_u32(&r);
	sequence = reader_u64(&r);
	rec->subject = reader_u64(&r);
	sum = reader_u64(&r);
	if (magic != RECORD_MAGIC || reader_u64(&r) != XXH64(head, RECORD_HEAD_CHECKED, 0))
		return damaged(im, err, "the head of record %" PRIu64 " does not check",
			       im->sequence);
	name_record(rec, name, sizeof(name));
	if (sequence != im->sequence)
		return damaged(im, err, "%s is record %" PRIu64 ", where %" PRIu64 " belongs", name,
			       sequence, im->sequence);
	if (stored > STORED_MAX || raw > RECORD_RAW_MAX)
		return damaged(im, err, "%s claims an impossible size", name);
	rc = read_bytes(im, im->stored, stored, name, err);
	if (rc < 0)
		return rc;
	if (XXH64(im->stored, stored, 0) != sum)
		return damaged(im, err, "the checksum of %s does not match", name);
	im->sequence++;
	return unpack(im, stored, raw, flags, name, err);
}

/* Room for one more in an array that grows with the file. */
static int grow(struct importer *im, void **array, uint64_t n, uint64_t *cap, size_t size,
		struct err *err)
{
	uint64_t more = *cap ? *cap : 64;
	void *p;
	int rc;

	if (n < *cap)
		return 0;
	rc = page_store_reserve(im->t->store, more * size, err);
	if (rc < 0)
		return rc;
	p = realloc(*array, (*cap + more) * size);
	if (!p) {
		page_store_release(im->t->store, more * size);
		return err_set(err, ENOMEM, "out of memory");
	}
	*array = p;
	*cap += more;
	return 0;
}

/* --- What the records say -------------------------------------------------------------------- */

/* Collect RECORD_BYTES up to len. */
static int read_pieces(struct importer *im, struct buf *out, size_t len, const char *what,
		       struct err *err)
{
	while (out->len < len) {
		int rc = next_record(im, err);

		if (rc < 0)
			return rc;
		if (im->record.type != RECORD_BYTES || !im->record.len ||
		    im->record.len > len - out->len)
			return damaged(im, err, "%s is not complete", what);
		buf_put(out, im->record.data, im->record.len);
		if (out->failed)
			return err_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

static int take_machine(struct importer *im,
			int (*check)(void *ctx, const void *about, size_t len, struct err *err),
			void *ctx, struct err *err)
{
	struct snapshots *t = im->t;
	struct buf about = {0};
	uint64_t mem_size, layout;
	struct reader r;
	uint32_t len;
	int rc = next_record(im, err);

	if (rc < 0)
		return rc;
	if (im->record.type != RECORD_MACHINE)
		return damaged(im, err, "the machine's description is missing");
	r = reader_init(im->record.data, im->record.len);
	mem_size = reader_u64(&r);
	layout = reader_u64(&r);
	len = reader_u32(&r);
	if (r.failed || reader_left(&r))
		return damaged(im, err, "the machine's description has another length");
	if (mem_size < MEMORY_MIN || mem_size > MEMORY_MAX || mem_size % PAGE_SIZE)
		return damaged(im, err, "the machine cannot have %" PRIu64 " bytes of RAM",
			       mem_size);
	if (len > SNAPSHOT_DATA_MAX)
		return damaged(im, err, "the machine's description cannot have %u bytes", len);
	if (t->mem_size && t->mem_size != mem_size)
		return err_set(err, EINVAL,
			       "%s is of a machine with %" PRIu64
			       " MiB of RAM, this one has %" PRIu64,
			       im->path, mem_size >> 20, t->mem_size >> 20);
	if (t->layout && t->layout != layout)
		return err_set(err, EINVAL,
			       "%s was made by another version of hindsight, whose machine has "
			       "other state",
			       im->path);
	rc = read_pieces(im, &about, len, "the machine's description", err);
	if (rc == 0 && check)
		rc = check(ctx, about.data, about.len, err);
	buf_free(&about);
	if (rc < 0)
		return rc;
	t->mem_size = mem_size;
	t->layout = layout;
	return 0;
}

static int find_parent(struct importer *im, uint64_t number, const struct snapshot_uid *base,
		       uint64_t sum, struct err *err)
{
	im->parent = NULL;
	if (number == NODE_PARENT_OUTSIDE) {
		im->parent = snapshots_find_uid(im->t, base);
		if (!im->parent)
			return err_set(err, ENOENT,
				       "%s holds what differs from a snapshot that is not here "
				       "(%016" PRIx64 "%016" PRIx64 "); import that first",
				       im->path, base->v[0], base->v[1]);
		if (snapshot_map_sum(im->t, &im->parent->map) != sum)
			return err_set(err, EINVAL,
				       "%s holds what differs from snapshot %" PRIu64
				       ", but that has other content here",
				       im->path, im->parent->number);
	} else if (number > im->nodes) {
		return damaged(im, err, "a snapshot comes before its parent");
	} else if (number) {
		im->parent = im->node[number - 1];
	}
	return 0;
}

static int begin_node(struct importer *im, struct err *err)
{
	struct reader r = reader_init(im->record.data, im->record.len);
	struct snapshot_uid uid, base;
	uint64_t parent, sum, boundary, vtime, changed;
	struct snapshot_note note = {0};
	struct buf data = {0};
	uint32_t data_len, state_len;
	char *label;
	int rc;

	if (im->nodes == SNAPSHOT_NODES_MAX)
		return damaged(im, err, "there are more than %u snapshots", SNAPSHOT_NODES_MAX);
	uid.v[0] = reader_u64(&r);
	uid.v[1] = reader_u64(&r);
	parent = reader_u64(&r);
	base.v[0] = reader_u64(&r);
	base.v[1] = reader_u64(&r);
	sum = reader_u64(&r);
	boundary = reader_u64(&r);
	vtime = reader_u64(&r);
	changed = reader_u64(&r);
	data_len = reader_u32(&r);
	state_len = reader_u32(&r);
	label = reader_str(&r, SNAPSHOT_LABEL_MAX);
	if (r.failed || reader_left(&r)) {
		free(label);
		return damaged(im, err, "a snapshot's head has another length");
	}
	note.label = label;
	if (data_len > SNAPSHOT_DATA_MAX || state_len > SNAPSHOT_STATE_MAX)
		rc = damaged(im, err, "a snapshot cannot have %u bytes of data and %u of state",
			     data_len, state_len);
	else
		rc = find_parent(im, parent, &base, sum, err);
	if (rc == 0)
		rc = read_pieces(im, &data, data_len, "a snapshot's data", err);
	note.data = data.data;
	note.data_len = data.len;
	if (rc == 0)
		rc = snapshot_new(im->t, &note, &im->s, err);
	buf_free(&data);
	free(label);
	if (rc < 0)
		return rc;
	im->s->uid = uid;
	im->s->parent = im->parent;
	im->s->boundary = boundary;
	im->s->vtime = vtime;
	im->s->changed = changed;
	if (im->parent)
		im->s->map = page_map_copy(&im->parent->map);
	rc = read_pieces(im, &im->state, state_len, "a snapshot's state", err);
	if (rc < 0)
		return rc;
	rc = snapshot_give_state(im->t, im->s, im->state.data, im->state.len, err);
	im->state = (struct buf){0};
	return rc;
}

static int differs(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	(void)ctx;
	(void)page;
	(void)a;
	(void)b;
	(void)err;
	return 1;
}

/* The node is complete: into the tree, unless it is there. */
static int finish_node(struct importer *im, struct err *err)
{
	struct snapshot *s = im->s, *there;
	int rc;

	if (!s)
		return 0;
	rc = grow(im, (void **)&im->node, im->nodes, &im->node_cap, sizeof(*im->node), err);
	if (rc < 0)
		return rc;
	there = snapshots_find_uid(im->t, &s->uid);
	if (there && page_map_diff(&there->map, &s->map, differs, NULL, NULL) != 0)
		return err_set(err, EEXIST,
			       "snapshot %" PRIu64 " of %s is here as number %" PRIu64
			       ", with other content",
			       im->nodes + 1, im->path, there->number);
	im->s = NULL;
	if (there) {
		snapshot_free(im->t, s);
		s = there;
	} else {
		snapshot_insert(im->t, s);
	}
	im->node[im->nodes++] = s;
	return 0;
}

/* Put a page into the node being read; takes over the reference. */
static int set_page(struct importer *im, uint64_t page, page_id id, struct err *err)
{
	int rc = 0;

	if (page >= im->t->mem_size >> PAGE_SHIFT)
		rc = damaged(im, err, "there is no page number %" PRIu64, page);
	else
		rc = page_map_set(&im->s->map, im->t->store, page, id, err);
	if (rc < 0)
		page_store_unref(im->t->store, id);
	return rc;
}

static int take_page(struct importer *im, struct err *err)
{
	uint64_t gpa = im->record.subject;
	uint64_t page = memory_page_number(GPA(gpa));
	page_id id;
	int rc;

	if (page >= im->t->mem_size >> PAGE_SHIFT || gpa % PAGE_SIZE || im->record.len != PAGE_SIZE)
		return damaged(im, err, "0x%" PRIx64 " is no page of the machine", gpa);
	rc = grow(im, (void **)&im->page, im->pages, &im->page_cap, sizeof(*im->page), err);
	if (rc == 0)
		rc = page_store_put(im->t->store, im->record.data, &id, err);
	if (rc < 0)
		return rc;
	page_store_ref(im->t->store, id);
	im->page[im->pages++] = id;
	return set_page(im, page, id, err);
}

static int take_same(struct importer *im, struct err *err)
{
	struct reader r = reader_init(im->record.data, im->record.len);
	int rc = 0;

	if (im->record.len % SAME_ENTRY_SIZE)
		return damaged(im, err, "a list of equal pages has another length");
	while (rc == 0 && reader_left(&r)) {
		uint64_t page = reader_u64(&r), which = reader_u64(&r);
		page_id id;

		if (which > im->pages)
			return damaged(im, err,
				       "a page is said to equal one that did not come yet");
		id = which ? im->page[which - 1] : PAGE_ZEROS;
		page_store_ref(im->t->store, id);
		rc = set_page(im, page, id, err);
	}
	return rc;
}

static int take_end(struct importer *im, struct err *err)
{
	struct reader r = reader_init(im->record.data, im->record.len);
	uint64_t nodes, pages;
	int rc = finish_node(im, err);

	if (rc < 0)
		return rc;
	nodes = reader_u64(&r);
	pages = reader_u64(&r);
	if (r.failed || reader_left(&r) || nodes != im->nodes || pages != im->pages || !nodes)
		return damaged(im, err, "the end mark counts otherwise");
	if (im->offset != im->size)
		return damaged(im, err, "there are bytes behind the end mark");
	return 1;
}

/* 1 at the end. */
static int take_record(struct importer *im, struct err *err)
{
	int rc = next_record(im, err);

	if (rc < 0)
		return rc;
	if (!im->s && im->record.type != RECORD_NODE)
		return damaged(im, err, "no snapshot has begun");
	switch (im->record.type) {
	case RECORD_NODE:
		rc = finish_node(im, err);
		return rc < 0 ? rc : begin_node(im, err);
	case RECORD_PAGE:
		return take_page(im, err);
	case RECORD_SAME:
		return take_same(im, err);
	case RECORD_END:
		return take_end(im, err);
	case RECORD_MACHINE:
	case RECORD_BYTES:
		break;
	}
	return damaged(im, err, "a record of type %u does not belong here", im->record.type);
}

/* --- The file -------------------------------------------------------------------------------- */

static int open_stream(struct importer *im, int fd, struct err *err)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	struct stat st;

	if (own < 0 || fstat(own, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (own >= 0)
			close(own);
		return err_set(err, EINVAL, "%s is not a regular file; give a snapshot file",
			       im->path);
	}
	im->size = (uint64_t)st.st_size;
	im->file = fdopen(own, "rb");
	if (!im->file) {
		close(own);
		return err_set(err, ENOMEM, "out of memory");
	}
	rewind(im->file);
	return 0;
}

static void clean_up(struct importer *im, bool failed)
{
	struct snapshots *t = im->t;

	snapshot_free(t, im->s);
	while (failed && t->last != im->before)
		snapshot_delete(t, t->last);
	for (uint64_t i = 0; i < im->pages; i++)
		page_store_unref(t->store, im->page[i]);
	page_store_release(t->store,
			   im->page_cap * sizeof(*im->page) + im->node_cap * sizeof(*im->node));
	free(im->page);
	free(im->node);
	free(im->stored);
	buf_free(&im->state);
	ZSTD_freeDCtx(im->zstd);
	if (im->file)
		fclose(im->file);
}

int snapshots_import_from(struct snapshots *t, int fd, const char *name,
			  int (*check_about)(void *ctx, const void *about, size_t len,
					     struct err *err),
			  void *ctx, uint64_t number, struct snapshot **s, struct err *err)
{
	struct importer im = {.t = t, .path = name, .before = t->last};
	uint64_t mem_size = t->mem_size, layout = t->layout;
	int rc = open_stream(&im, fd, err);

	im.stored = malloc(STORED_MAX);
	im.zstd = ZSTD_createDCtx();
	if (rc == 0 && (!im.stored || !im.zstd))
		rc = err_set(err, ENOMEM, "out of memory");
	if (rc == 0)
		rc = read_header(&im, err);
	if (rc == 0)
		rc = take_machine(&im, check_about, ctx, err);
	while (rc == 0)
		rc = take_record(&im, err);
	if (rc > 0 && number > im.nodes)
		rc = err_set(err, ENOENT, "there are %" PRIu64 " snapshots in the file and no number %" PRIu64, im.nodes,
			     number);
	if (rc > 0)
		*s = im.node[(number ? number : im.nodes) - 1];
	clean_up(&im, rc < 0);
	if (rc < 0) {
		t->mem_size = mem_size;
		t->layout = layout;
	}
	return rc < 0 ? rc : 0;
}

int snapshots_import(struct snapshots *t, const char *path,
		     int (*check_about)(void *ctx, const void *about, size_t len, struct err *err),
		     void *ctx, struct snapshot **last, struct err *err)
{
	/* A FIFO must not keep us waiting. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "cannot open the snapshot file %s", path);
	rc = snapshots_import_from(t, fd, path, check_about, ctx, 0, last, err);
	close(fd);
	return rc;
}
