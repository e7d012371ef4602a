// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/packet.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define INTERRUPT 0x03
#define ESCAPE '}'
#define ESCAPE_XOR 0x20
/* A run is "c*n" where n is the number of repeats beyond c plus 29: three repeats are the fewest
 * that fit a printable n, and n is at most '~'. */
#define RUN_BIAS 29
#define RUN_MIN 3
#define RUN_MAX ('~' - RUN_BIAS)

/* Bytes of an item before its payload. */
#define ITEM_HEAD 5

static const char hex_digits[] = "0123456789abcdef";

void gdb_decoder_free(struct gdb_decoder *d)
{
	buf_free(&d->body);
	buf_free(&d->queue);
}

/* --- Queue ---------------------------------------------------------------------------------- */

static int enqueue(struct gdb_decoder *d, enum gdb_item kind, const void *data, size_t n,
		   struct err *err)
{
	if (d->queue_pos == d->queue.len) {
		buf_clear(&d->queue);
		d->queue_pos = 0;
	}
	if (d->queue.len + ITEM_HEAD + n > GDB_QUEUE_MAX)
		return err_set(
			err, EMSGSIZE,
			"it sends requests without waiting for the answers: more than %u bytes",
			GDB_QUEUE_MAX);
	buf_put_u8(&d->queue, (uint8_t)kind);
	buf_put_u32(&d->queue, (uint32_t)n);
	buf_put(&d->queue, data, n);
	return d->queue.failed ? err_set(err, ENOMEM, "out of memory") : 0;
}

/* The item at pos, and where the one behind it begins. */
static enum gdb_item item_at(const struct gdb_decoder *d, size_t pos, const uint8_t **payload,
			     size_t *len, size_t *next)
{
	struct reader r = reader_init(d->queue.data + pos, d->queue.len - pos);
	enum gdb_item kind = (enum gdb_item)reader_u8(&r);

	*len = reader_u32(&r);
	*payload = reader_take(&r, *len);
	*next = pos + r.pos;
	return kind;
}

enum gdb_item gdb_decoder_next(struct gdb_decoder *d, const uint8_t **payload, size_t *len)
{
	if (d->queue_pos == d->queue.len)
		return GDB_ITEM_NONE;
	return item_at(d, d->queue_pos, payload, len, &d->queue_pos);
}

bool gdb_decoder_take_break(struct gdb_decoder *d)
{
	const uint8_t *payload;
	size_t next, len;

	for (size_t pos = d->queue_pos; pos < d->queue.len; pos = next) {
		if (item_at(d, pos, &payload, &len, &next) != GDB_ITEM_BREAK)
			continue;
		memmove(d->queue.data + pos, d->queue.data + next, d->queue.len - next);
		d->queue.len -= next - pos;
		return true;
	}
	return false;
}

bool gdb_decoder_has_packet(const struct gdb_decoder *d)
{
	const uint8_t *payload;
	size_t next, len;

	for (size_t pos = d->queue_pos; pos < d->queue.len; pos = next) {
		if (item_at(d, pos, &payload, &len, &next) == GDB_ITEM_PACKET)
			return true;
	}
	return false;
}

/* --- Decoding ------------------------------------------------------------------------------- */

static int hex_value(uint8_t c)
{
	const char *at = c ? strchr(hex_digits, c | 0x20) : NULL;

	return at ? (int)(at - hex_digits) : -1;
}

static int between(struct gdb_decoder *d, uint8_t c, struct err *err)
{
	switch (c) {
	case '$':
		buf_clear(&d->body);
		d->sum = 0;
		d->state = GDB_BODY;
		return 0;
	case INTERRUPT:
		return enqueue(d, GDB_ITEM_BREAK, NULL, 0, err);
	case '+':
		return 0;
	case '-': /* gdb sends it without acks too, when it is tired of waiting */
		d->resend |= d->acks;
		return 0;
	}
	/* A browser that a web page sends to this port begins with a word, and is not heard
	 * further. */
	if (!d->spoken || ++d->noise > GDB_PACKET_MAX)
		return err_set(err, EPROTO, "it does not speak the gdb remote protocol");
	return 0;
}

static int body(struct gdb_decoder *d, uint8_t c, struct err *err)
{
	if (d->state == GDB_BODY && c == '#') {
		d->state = GDB_SUM_HIGH;
		return 0;
	}
	if (d->state == GDB_BODY && c == '$') /* the rest of the last packet was lost */
		return between(d, c, err);
	d->sum = (uint8_t)(d->sum + c);
	if (d->state == GDB_BODY && c == ESCAPE) {
		d->state = GDB_ESCAPE;
		return 0;
	}
	if (d->body.len == GDB_PACKET_MAX)
		return err_set(err, EMSGSIZE, "it sent a packet of more than %u bytes",
			       GDB_PACKET_MAX);
	buf_put_u8(&d->body, d->state == GDB_ESCAPE ? c ^ ESCAPE_XOR : c);
	d->state = GDB_BODY;
	return d->body.failed ? err_set(err, ENOMEM, "out of memory") : 0;
}

static int sum(struct gdb_decoder *d, uint8_t c, struct buf *out, struct err *err)
{
	int digit = hex_value(c);

	if (d->state == GDB_SUM_HIGH) {
		d->sum_sent = 0;
		d->bad_digit = false;
	}
	d->bad_digit |= digit < 0;
	d->sum_sent = (uint8_t)(d->sum_sent << 4 | (digit & 0xf));
	if (d->state == GDB_SUM_HIGH) {
		d->state = GDB_SUM_LOW;
		return 0;
	}
	d->state = GDB_BETWEEN;
	/* Without acks nobody would send it again, and the channel is reliable: gdb ignores sums
	 * then. */
	if (d->acks && (d->bad_digit || d->sum != d->sum_sent)) {
		buf_put_u8(out, '-');
		return 0;
	}
	if (d->acks)
		buf_put_u8(out, '+');
	d->spoken = true;
	d->noise = 0;
	return enqueue(d, GDB_ITEM_PACKET, d->body.data, d->body.len, err);
}

int gdb_decoder_feed(struct gdb_decoder *d, const uint8_t *data, size_t n, struct buf *out,
		     struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		switch (d->state) {
		case GDB_BETWEEN:
			rc = between(d, data[i], err);
			break;
		case GDB_BODY:
		case GDB_ESCAPE:
			rc = body(d, data[i], err);
			break;
		case GDB_SUM_HIGH:
		case GDB_SUM_LOW:
			rc = sum(d, data[i], out, err);
			break;
		}
	}
	return rc;
}

/* --- Encoding ------------------------------------------------------------------------------- */

static bool is_special(uint8_t c)
{
	return c == '$' || c == '#' || c == ESCAPE || c == '*';
}

void gdb_put_text(struct buf *b, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* There is no escape for text. */
	for (char *p = text; *p; p++) {
		if (is_special((uint8_t)*p))
			*p = '?';
	}
	buf_put(b, text, strlen(text));
}

void gdb_put_hex(struct buf *b, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++) {
		buf_put_u8(b, (uint8_t)hex_digits[p[i] >> 4]);
		buf_put_u8(b, (uint8_t)hex_digits[p[i] & 0xf]);
	}
}

void gdb_put_binary(struct buf *b, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++) {
		if (is_special(p[i])) {
			buf_put_u8(b, ESCAPE);
			buf_put_u8(b, p[i] ^ ESCAPE_XOR);
		} else {
			buf_put_u8(b, p[i]);
		}
	}
}

static size_t run_length(const uint8_t *p, size_t n)
{
	size_t run = 1;

	while (run < n && run <= RUN_MAX && p[run] == p[0])
		run++;
	return run;
}

void gdb_frame(struct buf *out, const void *payload, size_t n)
{
	const uint8_t *p = payload;
	size_t start = out->len + 1;
	uint8_t sum = 0;

	buf_put_u8(out, '$');
	for (size_t i = 0; i < n;) {
		size_t repeats = run_length(p + i, n - i) - 1;

		buf_put_u8(out, p[i]);
		/* An escaped byte is not repeated: readers differ in when they unescape. */
		if (repeats < RUN_MIN || (i > 0 && p[i - 1] == ESCAPE)) {
			i++;
			continue;
		}
		/* Repeat counts that would be a '#' or a '$'. */
		if (repeats + RUN_BIAS == '#' || repeats + RUN_BIAS == '$')
			repeats = '"' - RUN_BIAS;
		buf_put_u8(out, '*');
		buf_put_u8(out, (uint8_t)(repeats + RUN_BIAS));
		i += 1 + repeats;
	}
	if (out->failed)
		return;
	for (size_t i = start; i < out->len; i++)
		sum = (uint8_t)(sum + out->data[i]);
	buf_put_u8(out, '#');
	gdb_put_hex(out, &sum, 1);
}
