// SPDX-License-Identifier: GPL-3.0-or-later
/* Requests about memory at large, descriptions, threads and the monitor. */
#include "gdbstub/session_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory looked at between two glances at the connection. */
#define CHUNK 0x10000u

static int read_all(struct gdb_session *s, uint64_t addr, void *data, size_t n, struct err *err)
{
	const struct gdb_target *t = s->target;
	size_t done = 0;
	int rc = t->ops->read_memory(t->ctx, s->general_thread,
				     s->physical ? GDB_PHYSICAL : GDB_LINEAR, addr, data, n, &done,
				     err);

	if (!rc && done < n)
		rc = err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr + done);
	return rc;
}

/* Bytes from addr to the end of all addresses, at most len. */
static uint64_t clip(uint64_t addr, uint64_t len)
{
	return addr && len > 0 - addr ? 0 - addr : len;
}

static int check_interrupt(struct gdb_session *s, struct err *err)
{
	return gdb_session_interrupted(s) ? err_set(err, EINTR, "interrupted") : 0;
}

/* 1 with *found, 0 if it is nowhere, or a negative errno. */
static int search(struct gdb_session *s, uint64_t *found, struct err *err)
{
	const struct gdb_request *q = &s->request;
	size_t pattern = q->data.len;
	uint64_t addr = q->addr, left = clip(q->addr, q->len);
	uint8_t *window = malloc(CHUNK + pattern);
	int rc = 0;

	if (!window)
		return err_set(err, ENOMEM, "out of memory");
	while (left >= pattern && !rc) {
		size_t n = left < CHUNK + pattern ? (size_t)left : CHUNK + pattern;
		const uint8_t *hit;

		rc = read_all(s, addr, window, n, err);
		if (rc)
			break;
		hit = memmem(window, n, q->data.data, pattern);
		if (hit) {
			*found = addr + (uint64_t)(hit - window);
			rc = 1;
			break;
		}
		if (n == left)
			break;
		/* A match can begin in the last pattern - 1 bytes of the window. */
		addr += n - pattern + 1;
		left -= n - pattern + 1;
		rc = check_interrupt(s, err);
	}
	free(window);
	return rc;
}

void session_search(struct gdb_session *s)
{
	uint64_t found = 0;
	struct err err;
	int rc = search(s, &found, &err);

	if (rc < 0)
		session_reply_error(s, rc, &err);
	else if (rc)
		gdb_put_text(&s->reply, "1,%" PRIx64, found);
	else
		gdb_put_text(&s->reply, "0");
}

/* CRC-32 as gdb computes it for compare-sections: polynomial 0x04c11db7, most significant bit
 * first, no final inversion (GDB manual, "General Query Packets", qCRC). */
static uint32_t crc_add(uint32_t crc, const uint8_t *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= (uint32_t)data[i] << 24;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 0x80000000u ? crc << 1 ^ 0x04c11db7u : crc << 1;
	}
	return crc;
}

void session_crc(struct gdb_session *s)
{
	uint64_t addr = s->request.addr, left = clip(addr, s->request.len);
	uint32_t crc = 0xffffffff;
	uint8_t chunk[4096];
	struct err err;
	int rc = 0;

	while (left && !rc) {
		size_t n = left < sizeof(chunk) ? (size_t)left : sizeof(chunk);

		rc = read_all(s, addr, chunk, n, &err);
		if (rc)
			break;
		crc = crc_add(crc, chunk, n);
		addr += n;
		left -= n;
		rc = check_interrupt(s, &err);
	}
	if (rc)
		session_reply_error(s, rc, &err);
	else
		gdb_put_text(&s->reply, "C%x", crc);
}

/* --- Descriptions --------------------------------------------------------------------------- */

/* gdb takes an address outside of the map for absent, and thinks in linear addresses, where a guest
 * may map anything anywhere: all of it is memory. In two halves, since the length of the whole has
 * 65 bits. */
static const char memory_map[] =
	"<?xml version=\"1.0\"?><memory-map>"
	"<memory type=\"ram\" start=\"0x0\" length=\"0x8000000000000000\"/>"
	"<memory type=\"ram\" start=\"0x8000000000000000\" length=\"0x8000000000000000\"/>"
	"</memory-map>";

static void describe_thread(struct gdb_session *s, int thread, char *text, size_t size)
{
	*text = 0;
	s->target->ops->describe_thread(s->target->ctx, thread, text, size);
}

static void put_xml_text(struct buf *xml, const char *text)
{
	static const char *const entities[] = {
		['<'] = "&lt;", ['>'] = "&gt;", ['&'] = "&amp;", ['"'] = "&quot;"};

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < ARRAY_SIZE(entities) && entities[c])
			buf_put(xml, entities[c], strlen(entities[c]));
		else
			buf_put_u8(xml, c);
	}
}

static void put_literal(struct buf *xml, const char *text)
{
	buf_put(xml, text, strlen(text));
}

static void thread_list(struct gdb_session *s, struct buf *xml)
{
	put_literal(xml, "<?xml version=\"1.0\"?><threads>");
	for (int t = 1; t <= s->target->threads; t++) {
		char head[64], text[128];

		snprintf(head, sizeof(head), "<thread id=\"%x\" core=\"%d\" name=\"CPU %d\">",
			 (unsigned)t, t - 1, t - 1);
		put_literal(xml, head);
		describe_thread(s, t, text, sizeof(text));
		put_xml_text(xml, text);
		put_literal(xml, "</thread>");
	}
	put_literal(xml, "</threads>");
}

void session_read_object(struct gdb_session *s)
{
	const struct gdb_request *q = &s->request;
	static const char annex[] = "target.xml";
	/* Each byte may be escaped. */
	uint64_t n = q->len < (GDB_PACKET_MAX - 1) / 2 ? q->len : (GDB_PACKET_MAX - 1) / 2;
	struct buf object = {0};
	uint64_t left;

	switch (q->object) {
	case GDB_OBJECT_FEATURES:
		if (q->data.len != sizeof(annex) - 1 ||
		    memcmp(q->data.data, annex, q->data.len) != 0) {
			gdb_put_text(&s->reply, "E00"); /* no such annex */
			return;
		}
		gdb_regs_describe(&object, s->target->avx);
		break;
	case GDB_OBJECT_MEMORY_MAP:
		put_literal(&object, memory_map);
		break;
	case GDB_OBJECT_THREADS:
		thread_list(s, &object);
		break;
	case GDB_OBJECT_AUXV: /* a kernel has none: it is empty */
		break;
	}
	left = q->addr < object.len ? object.len - q->addr : 0;
	buf_put_u8(&s->reply, n < left ? 'm' : 'l');
	if (left)
		gdb_put_binary(&s->reply, object.data + q->addr,
			       n < left ? (size_t)n : (size_t)left);
	s->reply.failed |= object.failed;
	buf_free(&object);
}

static bool has_feature(const struct buf *list, const char *feature)
{
	size_t n = strlen(feature);
	const char *p = (const char *)list->data, *end = p + list->len;

	while (p < end) {
		const char *semicolon = memchr(p, ';', (size_t)(end - p));
		size_t len = (size_t)((semicolon ? semicolon : end) - p);

		if (len == n && memcmp(p, feature, n) == 0)
			return true;
		p += len + 1;
	}
	return false;
}

void session_features(struct gdb_session *s)
{
	const struct buf *list = &s->request.data;

	if (list->len) {
		s->error_text = has_feature(list, "error-message+");
		s->soft_stops = has_feature(list, "swbreak+");
		s->hard_stops = has_feature(list, "hwbreak+");
	}
	gdb_put_text(&s->reply,
		     "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:memory-map:read+;"
		     "qXfer:threads:read+;qXfer:auxv:read+;vContSupported+;swbreak+;hwbreak+;"
		     "ConditionalBreakpoints+;binary-upload+;error-message+",
		     GDB_PACKET_MAX);
	if (s->target->can_reverse)
		gdb_put_text(&s->reply, ";ReverseStep+;ReverseContinue+");
}

/* --- Threads and monitor -------------------------------------------------------------------- */

void session_threads(struct gdb_session *s)
{
	for (int t = 1; t <= s->target->threads; t++)
		gdb_put_text(&s->reply, "%c%x", t == 1 ? 'm' : ',', (unsigned)t);
}

void session_thread_info(struct gdb_session *s)
{
	char text[128];

	describe_thread(s, s->request.thread, text, sizeof(text));
	gdb_put_hex(&s->reply, text, strlen(text));
}

void session_monitor(struct gdb_session *s)
{
	struct err err;
	int rc;

	buf_put_u8(&s->request.data, 0);
	if (s->request.data.failed)
		return;
	session_begin(s, false);
	rc = s->target->ops->monitor(s->target->ctx, s, (const char *)s->request.data.data, &err);
	/* A gdb that does not ask for error texts takes one for hex digits here. */
	if (rc && !s->error_text)
		gdb_session_print(s, "%s\n", err.text);
	session_end(s);
	if (rc)
		session_reply_error(s, rc, &err);
	else
		gdb_put_text(&s->reply, "OK");
}
