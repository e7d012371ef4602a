/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Growable byte buffer and bounds-checked reader: the only two ways in which the program builds or
 * takes apart a byte format. Integers are little endian; varints are LEB128, at most 10 bytes.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/types.h"

/* Zero-initialise before use; free with buf_free. After a failed allocation `failed` is set, the
 * content is unchanged and further appends do nothing: check once at the end. */
struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	bool failed;
};

void buf_free(struct buf *b);
/* Forget the content, keep the allocation. */
void buf_clear(struct buf *b);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, uint64_t v);
/* varint length, then the bytes without a NUL. */
void buf_put_str(struct buf *b, const char *s);

/* Reads from memory it does not own. A read past the end sets `failed`, yields zeros, and every
 * later read fails too: check once at the end. */
struct reader {
	const uint8_t *data;
	size_t len;
	size_t pos;
	bool failed;
};

struct reader reader_init(const void *data, size_t len);
size_t reader_left(const struct reader *r);
/* Pointer to the next n bytes, or NULL (and `failed`) if there are fewer. */
const uint8_t *reader_take(struct reader *r, size_t n);
void reader_get(struct reader *r, void *out, size_t n);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
uint64_t reader_varint(struct reader *r);
/* A string written by buf_put_str, as a fresh NUL-terminated copy of at most max bytes; NULL on
 * failure (also when it holds a NUL byte). The caller frees it. */
char *reader_str(struct reader *r, size_t max);

#endif
