// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

static const char header_magic[16] = "HINDSIGHT TRACE\n";

#define FRAME_MAGIC 0x4d524648u /* "HFRM" */
#define FRAME_ZSTD 1u
#define FRAME_CHECKED 24 /* bytes of the frame header that the checksum covers */
/* Fast enough to be lost in the cost of the guest, and most of what there is to gain. */
#define ZSTD_LEVEL 3
/* Below this a compressed frame is not smaller. */
#define COMPRESS_MIN 64

struct trace_writer {
	int fd;
	int failed; /* errno of the first failure */
	uint64_t sequence;
	uint64_t size;
	ZSTD_CCtx *zstd;
	uint8_t *scratch;
	size_t scratch_size;
};

static uint64_t frame_checksum(const uint8_t *head, const void *stored, size_t len)
{
	XXH64_hash_t h = XXH64(head, FRAME_CHECKED, 0);

	return XXH64(stored, len, h);
}

static int write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return errno;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_failed(struct trace_writer *w, int code, struct err *err)
{
	w->failed = code;
	return err_sys(err, code,
		       "cannot write the trace (it stays usable up to here: %" PRIu64 " bytes)%s",
		       w->size, code == ENOSPC ? "; make room on the disk" : "");
}

int trace_writer_continue(struct trace_writer **out, int fd, struct trace_place at, struct err *err)
{
	struct trace_writer *w = calloc(1, sizeof(*w));

	if (!w) {
		close(fd);
		return err_set(err, ENOMEM, "out of memory");
	}
	w->fd = fd;
	w->size = at.offset;
	w->sequence = at.sequence;
	w->scratch_size = ZSTD_compressBound(TRACE_FRAME_RAW_MAX);
	w->scratch = malloc(w->scratch_size);
	w->zstd = ZSTD_createCCtx();
	if (!w->scratch || !w->zstd) {
		trace_writer_close(w, NULL);
		return err_set(err, ENOMEM, "out of memory");
	}
	*out = w;
	return 0;
}

static int write_header(struct trace_writer *w, struct err *err)
{
	struct buf head = {0};
	int rc = ENOMEM;

	buf_put(&head, header_magic, sizeof(header_magic));
	buf_put_u32(&head, TRACE_VERSION);
	buf_put_u32(&head, 0);
	if (!head.failed)
		buf_put_u64(&head, XXH64(head.data, head.len, 0));
	if (!head.failed)
		rc = write_all(w->fd, head.data, head.len);
	w->size = head.len;
	buf_free(&head);
	return rc ? write_failed(w, rc, err) : 0;
}

int trace_writer_create(struct trace_writer **out, const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	struct trace_writer *w;
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "cannot create the trace %s", path);
	rc = trace_writer_continue(&w, fd, (struct trace_place){0}, err);
	if (rc < 0)
		return rc;
	rc = write_header(w, err);
	if (rc < 0) {
		trace_writer_close(w, NULL);
		return rc;
	}
	*out = w;
	return 0;
}

int trace_writer_frame(struct trace_writer *w, enum trace_frame type, const void *data, size_t len,
		       struct err *err)
{
	struct buf head = {0};
	const void *stored = data;
	size_t stored_len = len;
	uint16_t flags = 0;
	int rc;

	if (w->failed)
		return write_failed(w, w->failed, err);
	if (len > TRACE_FRAME_RAW_MAX)
		return err_set(err, EINVAL, "a frame of %zu bytes is too large", len);
	if (len >= COMPRESS_MIN) {
		size_t n = ZSTD_compressCCtx(w->zstd, w->scratch, w->scratch_size, data, len, ZSTD_LEVEL);

		if (!ZSTD_isError(n) && n < len) {
			stored = w->scratch;
			stored_len = n;
			flags = FRAME_ZSTD;
		}
	}
	buf_put_u32(&head, FRAME_MAGIC);
	buf_put_u16(&head, (uint16_t)type);
	buf_put_u16(&head, flags);
	buf_put_u32(&head, (uint32_t)stored_len);
	buf_put_u32(&head, (uint32_t)len);
	buf_put_u64(&head, w->sequence);
	if (head.failed) {
		buf_free(&head);
		return err_set(err, ENOMEM, "out of memory");
	}
	buf_put_u64(&head, frame_checksum(head.data, stored, stored_len));
	rc = head.failed ? ENOMEM : write_all(w->fd, head.data, head.len);
	buf_free(&head);
	if (rc == 0)
		rc = write_all(w->fd, stored, stored_len);
	if (rc)
		return write_failed(w, rc, err);
	w->sequence++;
	w->size += TRACE_FRAME_SIZE + stored_len;
	return 0;
}

int trace_writer_file(struct trace_writer *w, enum trace_frame type, int fd, struct err *err)
{
	uint8_t *piece = malloc(TRACE_FRAME_RAW_MAX);
	off_t at = 0;
	ssize_t n;
	int rc = piece ? 0 : err_set(err, ENOMEM, "out of memory");

	while (rc == 0 && (n = pread(fd, piece, TRACE_FRAME_RAW_MAX, at)) != 0) {
		rc = n < 0 ? err_sys(err, errno, "cannot read again what is to go into the trace")
			   : trace_writer_frame(w, type, piece, (size_t)n, err);
		at += n;
	}
	free(piece);
	return rc;
}

uint64_t trace_writer_size(const struct trace_writer *w)
{
	return w->size;
}

int trace_writer_close(struct trace_writer *w, struct err *err)
{
	int rc = 0;

	if (!w)
		return 0;
	if (w->fd >= 0 && close(w->fd) < 0)
		rc = err_sys(err, errno, "cannot finish writing the trace");
	ZSTD_freeCCtx(w->zstd);
	free(w->scratch);
	free(w);
	return rc;
}

struct trace_reader {
	int fd;
	uint64_t size;
	uint64_t offset; /* of the next frame */
	uint64_t sequence;
	bool truncated;
	bool ended;
	uint8_t *stored;
	uint8_t *raw;
};

static int read_at(const struct trace_reader *r, void *out, size_t len, uint64_t offset,
		   struct err *err)
{
	uint8_t *p = out;

	while (len) {
		ssize_t n = pread(r->fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "cannot read the trace at byte %" PRIu64, offset);
		if (n == 0)
			return err_set(err, EBADMSG, "the trace became shorter while it was read");
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int trace_reader_open(struct trace_reader **out, const char *path, struct err *err)
{
	struct trace_reader *r = calloc(1, sizeof(*r));
	uint8_t head[TRACE_HEADER_SIZE];
	struct reader in;
	struct stat st;
	uint32_t version;
	int rc;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->stored = malloc(ZSTD_compressBound(TRACE_FRAME_RAW_MAX));
	r->raw = malloc(TRACE_FRAME_RAW_MAX);
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!r->stored || !r->raw) {
		rc = err_set(err, ENOMEM, "out of memory");
		goto fail;
	}
	if (r->fd < 0 || fstat(r->fd, &st) < 0) {
		rc = err_sys(err, errno, "cannot open the trace %s", path);
		goto fail;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = err_set(err, EINVAL, "%s is not a regular file; give a trace file", path);
		goto fail;
	}
	r->size = (uint64_t)st.st_size;
	if (r->size < sizeof(head)) {
		rc = err_set(err, EBADMSG, "%s is not a trace: it is shorter than a trace's header", path);
		goto fail;
	}
	rc = read_at(r, head, sizeof(head), 0, err);
	if (rc < 0)
		goto fail;
	if (memcmp(head, header_magic, sizeof(header_magic)) != 0) {
		rc = err_set(err, EBADMSG, "%s is not a hindsight trace", path);
		goto fail;
	}
	in = reader_init(head + sizeof(header_magic), sizeof(head) - sizeof(header_magic));
	version = reader_u32(&in);
	reader_u32(&in);
	if (reader_u64(&in) != XXH64(head, FRAME_CHECKED, 0)) {
		rc = err_set(err, EBADMSG, "the header of %s is damaged", path);
		goto fail;
	}
	if (version != TRACE_VERSION) {
		rc = err_set(err, EBADMSG,
			     "%s has trace format %u, this hindsight reads %u; use the version that recorded it",
			     path, version, TRACE_VERSION);
		goto fail;
	}
	r->offset = sizeof(head);
	*out = r;
	return 0;
fail:
	trace_reader_close(r);
	return rc;
}

void trace_reader_close(struct trace_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->stored);
	free(r->raw);
	free(r);
}

/* A frame that does not check: the unfinished tail of a file that was being written ends at or past the
 * end of file; anything else is damage. */
static int bad_frame(const struct trace_reader *r, const char *what, struct err *err)
{
	return err_set(err, EBADMSG, "the trace is damaged at byte %" PRIu64 ": %s", r->offset, what);
}

/* What the head of a frame says, unchecked but for what it takes to find the next. */
struct head {
	uint8_t bytes[TRACE_FRAME_SIZE];
	uint16_t kind, flags;
	uint32_t stored, raw;
	uint64_t sequence, checksum;
};

/* The head of the next frame, whose bytes are all there: 1, or 0 at the end of what is whole. */
static int read_head(struct trace_reader *r, struct head *h, struct err *err)
{
	uint64_t left = r->size - r->offset;
	struct reader in = reader_init(h->bytes, sizeof(h->bytes));
	uint32_t magic;
	int rc;

	if (left < sizeof(h->bytes))
		return r->ended && left ? bad_frame(r, "there are bytes behind its end mark", err) : 0;
	rc = read_at(r, h->bytes, sizeof(h->bytes), r->offset, err);
	if (rc < 0)
		return rc;
	magic = reader_u32(&in);
	h->kind = reader_u16(&in);
	h->flags = reader_u16(&in);
	h->stored = reader_u32(&in);
	h->raw = reader_u32(&in);
	h->sequence = reader_u64(&in);
	h->checksum = reader_u64(&in);
	if (magic != FRAME_MAGIC)
		return bad_frame(r, "no frame begins here", err);
	if (h->raw > TRACE_FRAME_RAW_MAX || h->stored > ZSTD_compressBound(TRACE_FRAME_RAW_MAX))
		return bad_frame(r, "a frame claims an impossible size", err);
	if (r->ended && h->kind != TRACE_CHECKPOINTS)
		return bad_frame(r, "there are bytes behind its end mark", err);
	if (r->ended && h->stored > left - sizeof(h->bytes))
		return bad_frame(r, "its checkpoints are cut off", err);
	return h->stored <= left - sizeof(h->bytes);
}

static void pass_frame(struct trace_reader *r, const struct head *h)
{
	r->offset += sizeof(h->bytes) + h->stored;
	r->sequence++;
	r->ended = r->ended || h->kind == TRACE_END;
}

static int read_body(struct trace_reader *r, const struct head *h, const uint8_t **data, size_t *len,
		     struct err *err)
{
	int rc = read_at(r, r->stored, h->stored, r->offset + sizeof(h->bytes), err);

	if (rc < 0)
		return rc;
	if (h->checksum != frame_checksum(h->bytes, r->stored, h->stored))
		return bad_frame(r, "a frame's checksum does not match", err);
	if (h->sequence != r->sequence)
		return bad_frame(r, "a frame is missing or out of order", err);
	if (h->flags & FRAME_ZSTD) {
		size_t n = ZSTD_decompress(r->raw, TRACE_FRAME_RAW_MAX, r->stored, h->stored);

		if (ZSTD_isError(n) || n != h->raw)
			return bad_frame(r, "a frame cannot be decompressed", err);
		*data = r->raw;
	} else {
		if (h->stored != h->raw)
			return bad_frame(r, "a frame's sizes disagree", err);
		*data = r->stored;
	}
	*len = h->raw;
	pass_frame(r, h);
	return 1;
}

int trace_reader_next(struct trace_reader *r, enum trace_frame *type, const uint8_t **data,
		      size_t *len, struct err *err)
{
	struct head h = {0};
	int rc = read_head(r, &h, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || h.kind == TRACE_CHECKPOINTS) {
		r->truncated = !r->ended;
		return 0;
	}
	*type = (enum trace_frame)h.kind;
	return read_body(r, &h, data, len, err);
}

size_t trace_reader_salvage(struct trace_reader *r, const uint8_t **data)
{
	ZSTD_outBuffer out = {r->raw, TRACE_FRAME_RAW_MAX, 0};
	ZSTD_inBuffer in = {r->stored, 0, 0};
	struct head h = {0};
	ZSTD_DCtx *zstd;
	size_t before, rc;

	if (read_head(r, &h, NULL) <= 0 || read_at(r, r->stored, h.stored, r->offset + sizeof(h.bytes), NULL) < 0)
		return 0;
	*data = r->stored;
	if (!(h.flags & FRAME_ZSTD))
		return h.stored < TRACE_FRAME_RAW_MAX ? h.stored : TRACE_FRAME_RAW_MAX;
	zstd = ZSTD_createDCtx();
	if (!zstd)
		return 0;
	in.size = h.stored;
	do {
		before = out.pos;
		rc = ZSTD_decompressStream(zstd, &out, &in);
	} while (!ZSTD_isError(rc) && rc && (out.pos != before || in.pos < in.size) && out.pos < out.size);
	ZSTD_freeDCtx(zstd);
	*data = r->raw;
	return out.pos;
}

uint64_t trace_reader_measure(struct trace_reader *r, enum trace_frame type)
{
	struct trace_place here = trace_reader_tell(r);
	uint64_t bytes = 0;
	struct head h = {0};

	while (read_head(r, &h, NULL) > 0 && h.kind == type) {
		bytes += h.raw;
		pass_frame(r, &h);
	}
	r->offset = here.offset;
	r->sequence = here.sequence;
	r->ended = here.ended;
	return bytes;
}

int trace_reader_find_checkpoints(struct trace_reader *r, struct err *err)
{
	struct head h = {0};
	int rc;

	while ((rc = read_head(r, &h, err)) > 0 && h.kind != TRACE_CHECKPOINTS)
		pass_frame(r, &h);
	return rc;
}

int trace_reader_next_checkpoints(struct trace_reader *r, const uint8_t **data, size_t *len, struct err *err)
{
	struct head h = {0};
	int rc = read_head(r, &h, err);

	if (rc == 0 && r->offset != r->size)
		return bad_frame(r, "its checkpoints are cut off", err);
	if (rc <= 0)
		return rc;
	if (h.kind != TRACE_CHECKPOINTS)
		return bad_frame(r, "something else comes among its checkpoints", err);
	return read_body(r, &h, data, len, err);
}

bool trace_reader_truncated(const struct trace_reader *r)
{
	return r->truncated;
}

uint64_t trace_reader_offset(const struct trace_reader *r)
{
	return r->offset;
}

struct trace_place trace_reader_tell(const struct trace_reader *r)
{
	return (struct trace_place){r->offset, r->sequence, r->ended};
}

int trace_reader_seek(struct trace_reader *r, struct trace_place at, struct err *err)
{
	if (at.offset < TRACE_HEADER_SIZE || at.offset > r->size)
		return err_set(err, EBADMSG, "byte %" PRIu64 " is no place in the trace", at.offset);
	r->offset = at.offset;
	r->sequence = at.sequence;
	r->ended = at.ended;
	r->truncated = false;
	return 0;
}
