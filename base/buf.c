// SPDX-License-Identifier: GPL-3.0-or-later
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
	if (b->failed || n == 0)
		return;
	if (n > b->cap - b->len) {
		size_t cap = b->cap ? b->cap : 256;
		uint8_t *data;

		while (cap - b->len < n) {
			if (cap > SIZE_MAX / 2) {
				b->failed = true;
				return;
			}
			cap *= 2;
		}
		data = realloc(b->data, cap);
		if (!data) {
			b->failed = true;
			return;
		}
		b->data = data;
		b->cap = cap;
	}
	memcpy(b->data + b->len, p, n);
	b->len += n;
}

static void put_le(struct buf *b, uint64_t v, size_t n)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	buf_put(b, bytes, n);
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, 1);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
	put_le(b, v, 2);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	put_le(b, v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	put_le(b, v, 8);
}

void buf_put_varint(struct buf *b, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n] = (uint8_t)(v & 0x7f);
		v >>= 7;
		if (v)
			bytes[n] |= 0x80;
		n++;
	} while (v);
	buf_put(b, bytes, n);
}

void buf_put_str(struct buf *b, const char *s)
{
	size_t n = strlen(s);

	buf_put_varint(b, n);
	buf_put(b, s, n);
}

struct reader reader_init(const void *data, size_t len)
{
	return (struct reader){.data = data, .len = len};
}

size_t reader_left(const struct reader *r)
{
	return r->failed ? 0 : r->len - r->pos;
}

const uint8_t *reader_take(struct reader *r, size_t n)
{
	const uint8_t *p;

	if (r->failed || n > r->len - r->pos) {
		r->failed = true;
		return NULL;
	}
	p = r->data + r->pos;
	r->pos += n;
	return p;
}

void reader_get(struct reader *r, void *out, size_t n)
{
	const uint8_t *p = reader_take(r, n);

	if (n == 0)
		return;
	if (p)
		memcpy(out, p, n);
	else
		memset(out, 0, n);
}

static uint64_t get_le(struct reader *r, size_t n)
{
	const uint8_t *p = reader_take(r, n);
	uint64_t v = 0;

	if (!p)
		return 0;
	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)get_le(r, 1);
}

uint16_t reader_u16(struct reader *r)
{
	return (uint16_t)get_le(r, 2);
}

uint32_t reader_u32(struct reader *r)
{
	return (uint32_t)get_le(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
	return get_le(r, 8);
}

uint64_t reader_varint(struct reader *r)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 70; shift += 7) {
		uint8_t byte = reader_u8(r);

		if (r->failed)
			return 0;
		/* The tenth byte has room for one bit only. */
		if (shift == 63 && byte > 1)
			break;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return v;
	}
	r->failed = true;
	return 0;
}

char *reader_str(struct reader *r, size_t max)
{
	uint64_t n = reader_varint(r);
	const uint8_t *p;
	char *s;

	if (n > max) {
		r->failed = true;
		return NULL;
	}
	p = reader_take(r, (size_t)n);
	if (!p || memchr(p, 0, (size_t)n)) {
		r->failed = true;
		return NULL;
	}
	s = malloc((size_t)n + 1);
	if (!s) {
		r->failed = true;
		return NULL;
	}
	memcpy(s, p, (size_t)n);
	s[n] = 0;
	return s;
}
