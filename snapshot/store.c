// SPDX-License-Identifier: GPL-3.0-or-later
#include "snapshot/store.h"

#include "snapshot/spill.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <zstd.h>

/* Plain pages come from chunks of a huge page, which costs one fault instead of 512. */
#define CHUNK_SIZE (2ull << 20)
/* The fastest: pages are compressed while the guest waits. */
#define ZSTD_LEVEL 1
/* Entries and buckets to begin with; a power of two. */
#define ENTRIES_MIN 1024u
#define ENTRIES_MAX (1u << 31)

enum place { PLACE_VACANT, PLACE_PLAIN, PLACE_COMPRESSED, PLACE_SPILLED };

struct entry {
	XXH128_hash_t hash;
	union {
		uint8_t *data;	 /* PLAIN: a frame; COMPRESSED: allocated */
		uint64_t offset; /* SPILLED */
	};
	page_id next; /* in the bucket, or in the list of vacant entries */
	uint16_t len; /* bytes kept; PAGE_SIZE: not compressed */
	uint8_t place;
	bool used; /* since the hand last came by */
};

struct frame {
	struct frame *next;
};

struct page_store {
	uint64_t budget, memory;
	const char *spill_dir;
	struct spill spill;

	/* By id. References apart, so that counting 64 neighbours touches a few cache lines only.
	 */
	struct entry *entry;
	uint32_t *refs;
	uint32_t entries, cap;
	page_id vacant;	 /* 0: none */
	page_id *bucket; /* cap of them; 0: empty */
	page_id hand;

	struct frame *free_frames;
	uint8_t **chunk;
	size_t chunks;
	size_t given; /* bytes of the last one that have been given out at some time */

	uint64_t count[PLACE_SPILLED + 1];
	uint64_t shared;
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
	uint8_t packed[PAGE_SIZE], unpacked[PAGE_SIZE];
};

static const uint8_t zeros[PAGE_SIZE];

int page_store_create(struct page_store **out, uint64_t budget, const char *spill_dir,
		      struct err *err)
{
	struct page_store *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	spill_init(&s->spill);
	s->budget = budget;
	s->spill_dir = spill_dir;
	s->entries = 1; /* zeros */
	s->compress = ZSTD_createCCtx();
	s->decompress = ZSTD_createDCtx();
	if (!s->compress || !s->decompress) {
		page_store_destroy(s);
		return err_set(err, ENOMEM, "out of memory");
	}
	*out = s;
	return 0;
}

void page_store_destroy(struct page_store *s)
{
	if (!s)
		return;
	for (page_id id = 1; id < s->entries; id++)
		if (s->entry[id].place == PLACE_COMPRESSED)
			free(s->entry[id].data);
	for (size_t i = 0; i < s->chunks; i++)
		free(s->chunk[i]);
	free(s->chunk);
	free(s->entry);
	free(s->refs);
	free(s->bucket);
	spill_fini(&s->spill);
	ZSTD_freeCCtx(s->compress);
	ZSTD_freeDCtx(s->decompress);
	free(s);
}

static uint64_t table_size(uint32_t cap)
{
	return cap * (sizeof(struct entry) + sizeof(uint32_t) + sizeof(page_id));
}

static page_id *bucket_of(const struct page_store *s, XXH128_hash_t hash)
{
	return &s->bucket[hash.low64 & (s->cap - 1)];
}

/* Double the tables. */
static int grow(struct page_store *s, struct err *err)
{
	uint32_t cap = s->cap ? s->cap * 2 : ENTRIES_MIN;
	struct entry *entry;
	uint32_t *refs;
	page_id *bucket;
	int rc;

	if (s->cap == ENTRIES_MAX)
		return err_set(err, ENOMEM, "too many different pages in snapshots");
	rc = page_store_reserve(s, table_size(cap) - table_size(s->cap), err);
	if (rc < 0)
		return rc;
	bucket = calloc(cap, sizeof(*bucket));
	entry = realloc(s->entry, cap * sizeof(*entry));
	if (entry)
		s->entry = entry;
	refs = realloc(s->refs, cap * sizeof(*refs));
	if (refs)
		s->refs = refs;
	if (!bucket || !entry || !refs) {
		free(bucket);
		page_store_release(s, table_size(cap) - table_size(s->cap));
		return err_set(err, ENOMEM, "out of memory for snapshots");
	}
	free(s->bucket);
	s->bucket = bucket;
	s->cap = cap;
	for (page_id id = 1; id < s->entries; id++) {
		page_id *b = bucket_of(s, s->entry[id].hash);

		/* Vacant entries are in a list of their own. */
		if (s->entry[id].place == PLACE_VACANT)
			continue;
		s->entry[id].next = *b;
		*b = id;
	}
	return 0;
}

static uint8_t *frame_take(struct page_store *s)
{
	struct frame *f = s->free_frames;
	uint8_t **chunk;
	uint8_t *p;

	if (f) {
		s->free_frames = f->next;
		return (uint8_t *)f;
	}
	/* In ascending order, so that neighbours in the guest are neighbours here; and none is touched before it is used. */
	if (s->chunks && s->given < CHUNK_SIZE) {
		p = s->chunk[s->chunks - 1] + s->given;
		s->given += PAGE_SIZE;
		return p;
	}
	chunk = realloc(s->chunk, (s->chunks + 1) * sizeof(*chunk));
	if (!chunk)
		return NULL;
	s->chunk = chunk;
	p = aligned_alloc(CHUNK_SIZE, CHUNK_SIZE);
	if (!p)
		return NULL;
	/* Advice: a kernel without huge pages refuses it. */
	(void)madvise(p, CHUNK_SIZE, MADV_HUGEPAGE);
	s->chunk[s->chunks++] = p;
	s->given = PAGE_SIZE;
	return p;
}

static void frame_give(struct page_store *s, uint8_t *data)
{
	struct frame *f = (struct frame *)data;

	f->next = s->free_frames;
	s->free_frames = f;
}

static void move(struct page_store *s, struct entry *e, enum place place)
{
	s->count[e->place]--;
	s->count[place]++;
	e->place = (uint8_t)place;
}

/* PLAIN to COMPRESSED. False: it does not become smaller, or there is no memory for it. */
static bool squeeze(struct page_store *s, struct entry *e)
{
	size_t n = ZSTD_compressCCtx(s->compress, s->packed, PAGE_SIZE, e->data, PAGE_SIZE,
				     ZSTD_LEVEL);
	uint8_t *data;

	/* What saves less than a quarter is not worth being unpacked. */
	if (ZSTD_isError(n) || n > PAGE_SIZE * 3 / 4)
		return false;
	data = malloc(n);
	if (!data)
		return false;
	memcpy(data, s->packed, n);
	frame_give(s, e->data);
	e->data = data;
	e->len = (uint16_t)n;
	s->memory -= PAGE_SIZE - n;
	move(s, e, PLACE_COMPRESSED);
	return true;
}

static int spill_out(struct page_store *s, struct entry *e, struct err *err)
{
	uint64_t offset;
	int rc = spill_write(&s->spill, s->spill_dir, e->data, e->len, &offset, err);

	if (rc < 0)
		return rc;
	if (e->place == PLACE_PLAIN)
		frame_give(s, e->data);
	else
		free(e->data);
	e->offset = offset;
	s->memory -= e->len;
	move(s, e, PLACE_SPILLED);
	return 0;
}

/* Make room for so many bytes. Pages give way in the order in which they came, but not while they
 * are in use: the hand's first round may only take that mark, the second compress, the third spill.
 */
int page_store_reserve(struct page_store *s, uint64_t bytes, struct err *err)
{
	uint64_t looks = 3 * (uint64_t)s->entries;

	while (bytes > s->budget || s->memory > s->budget - bytes) {
		struct entry *e;
		int rc;

		if (looks-- == 0)
			return err_set(err, ENOMEM,
				       "the snapshots do not fit into %" PRIu64
				       " MiB (--snapshot-memory), with all pages moved out",
				       s->budget >> 20);
		s->hand = s->hand + 1 < s->entries ? s->hand + 1 : 0;
		if (s->hand == PAGE_ZEROS)
			continue;
		e = &s->entry[s->hand];
		if (e->place != PLACE_PLAIN && e->place != PLACE_COMPRESSED)
			continue;
		if (e->used) {
			e->used = false;
			continue;
		}
		if (e->place == PLACE_PLAIN && squeeze(s, e))
			continue;
		rc = spill_out(s, e, err);
		if (rc < 0)
			return rc;
	}
	s->memory += bytes;
	return 0;
}

void page_store_release(struct page_store *s, uint64_t bytes)
{
	s->memory -= bytes;
}

int page_store_view(struct page_store *s, page_id id, const uint8_t **data, struct err *err)
{
	struct entry *e = &s->entry[id];
	const uint8_t *packed;
	int rc;

	if (id == PAGE_ZEROS) {
		*data = zeros;
		return 0;
	}
	e->used = true;
	if (e->place == PLACE_PLAIN) {
		*data = e->data;
		return 0;
	}
	packed = e->data;
	if (e->place == PLACE_SPILLED) {
		rc = spill_read(&s->spill, e->offset, s->packed, e->len, err);
		if (rc < 0)
			return rc;
		packed = s->packed;
	}
	if (e->len == PAGE_SIZE)
		memcpy(s->unpacked, packed, PAGE_SIZE);
	else if (ZSTD_decompressDCtx(s->decompress, s->unpacked, PAGE_SIZE, packed, e->len) !=
		 PAGE_SIZE)
		goto damaged;
	if (!XXH128_isEqual(XXH3_128bits(s->unpacked, PAGE_SIZE), e->hash))
		goto damaged;
	*data = s->unpacked;
	return 0;
damaged:
	return err_set(
		err, EIO,
		"a cold snapshot page is not what it was: memory or disk of this host is faulty");
}

/* The entry with this content: its id, 0 if there is none. */
static int find(struct page_store *s, const uint8_t *data, XXH128_hash_t hash, page_id *id,
		struct err *err)
{
	*id = s->cap ? *bucket_of(s, hash) : 0;
	for (; *id; *id = s->entry[*id].next) {
		const uint8_t *there;
		int rc;

		if (!XXH128_isEqual(s->entry[*id].hash, hash))
			continue;
		rc = page_store_view(s, *id, &there, err);
		if (rc < 0)
			return rc;
		/* The hash is not made to withstand a guest that looks for collisions. */
		if (memcmp(there, data, PAGE_SIZE) == 0)
			return 0;
	}
	return 0;
}

static bool is_zeros(const uint8_t *data)
{
	return data[0] == 0 && memcmp(data, zeros, PAGE_SIZE) == 0;
}

int page_store_put(struct page_store *s, const uint8_t *data, page_id *out, struct err *err)
{
	XXH128_hash_t hash;
	struct entry *e;
	uint8_t *frame;
	page_id id, *b;
	int rc;

	*out = PAGE_ZEROS;
	if (is_zeros(data))
		return 0;
	hash = XXH3_128bits(data, PAGE_SIZE);
	rc = find(s, data, hash, &id, err);
	if (rc < 0)
		return rc;
	if (id) {
		s->refs[id]++;
		s->shared++;
		*out = id;
		return 0;
	}
	if (!s->vacant && s->entries >= s->cap) {
		rc = grow(s, err);
		if (rc < 0)
			return rc;
	}
	rc = page_store_reserve(s, PAGE_SIZE, err);
	if (rc < 0)
		return rc;
	frame = frame_take(s);
	if (!frame) {
		page_store_release(s, PAGE_SIZE);
		return err_set(err, ENOMEM, "out of memory for snapshots");
	}
	memcpy(frame, data, PAGE_SIZE);
	id = s->vacant ? s->vacant : s->entries++;
	e = &s->entry[id];
	if (s->vacant)
		s->vacant = e->next;
	b = bucket_of(s, hash);
	*e = (struct entry){.hash = hash,
			    .data = frame,
			    .next = *b,
			    .len = PAGE_SIZE,
			    .place = PLACE_PLAIN,
			    .used = true};
	*b = id;
	s->refs[id] = 1;
	s->count[PLACE_PLAIN]++;
	*out = id;
	return 0;
}

void page_store_ref(struct page_store *s, page_id id)
{
	if (id != PAGE_ZEROS)
		s->refs[id]++;
}

void page_store_unref(struct page_store *s, page_id id)
{
	struct entry *e = &s->entry[id];
	page_id *at;

	if (id == PAGE_ZEROS || --s->refs[id])
		return;
	at = bucket_of(s, e->hash);
	while (*at != id)
		at = &s->entry[*at].next;
	*at = e->next;
	if (e->place == PLACE_PLAIN)
		frame_give(s, e->data);
	else if (e->place == PLACE_COMPRESSED)
		free(e->data);
	else
		spill_discard(&s->spill, e->offset, e->len);
	if (e->place != PLACE_SPILLED)
		s->memory -= e->len;
	s->count[e->place]--;
	*e = (struct entry){.next = s->vacant};
	s->vacant = id;
}

XXH128_hash_t page_store_hash(const struct page_store *s, page_id id)
{
	return id == PAGE_ZEROS ? (XXH128_hash_t){0} : s->entry[id].hash;
}

page_id page_store_end(const struct page_store *s)
{
	return s->entries;
}

void page_store_seal(struct page_store *s)
{
	spill_seal(&s->spill);
}

void page_store_inherit(struct page_store *s)
{
	spill_inherit(&s->spill);
}

void page_store_figures(const struct page_store *s, struct page_store_figures *f)
{
	*f = (struct page_store_figures){
		.plain = s->count[PLACE_PLAIN],
		.compressed = s->count[PLACE_COMPRESSED],
		.spilled = s->count[PLACE_SPILLED],
		.shared = s->shared,
		.memory = s->memory,
		.spill = s->spill.used,
	};
	f->pages = f->plain + f->compressed + f->spilled;
}
