// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * libFuzzer: bytes from a peer through framing, request parser and the conditions of breakpoints,
 * in pieces. Besides what the sanitizers see: what is decoded must not depend on the pieces,
 * lengths hold, and a payload that is framed comes back as it was.
 */
#include "gdbstub/packet.h"
#include "gdbstub/request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static int get_register(void *ctx, unsigned number, uint64_t *value)
{
	(void)ctx;
	*value = number;
	return number < 100 ? 0 : -1;
}

static int read_memory(void *ctx, uint64_t addr, void *data, size_t n)
{
	(void)ctx;
	memset(data, (int)addr, n);
	return addr < 0x10000 ? 0 : -1;
}

static void check_points(struct gdb_points *points, const struct gdb_request *r)
{
	const struct gdb_expr_env env = {.get_register = get_register, .read_memory = read_memory};
	struct err err;

	if (r->type == GDB_SET_POINT && gdb_points_set(points, &r->point, &err) == 0) {
		const struct gdb_point *p = gdb_points_from(points, r->point.addr);

		must(p < gdb_points_end(points) && p->addr == r->point.addr);
		gdb_point_holds(p, &env);
	}
	if (r->type == GDB_CLEAR_POINT)
		gdb_points_remove(points, &r->point);
}

static void check_request(struct gdb_request *r, const uint8_t *payload, size_t len)
{
	struct err err;

	err.text[0] = 0;
	if (gdb_request_parse(r, payload, len, &err)) {
		must(err.text[0]);
		return;
	}
	must(r->n_actions <= GDB_ACTIONS_MAX);
	must(r->type != GDB_WRITE_MEMORY || r->data.len == r->len);
	must(r->type != GDB_SEARCH_MEMORY || r->data.len > 0);
	must(r->type != GDB_SET_POINT || r->point.type < GDB_POINT_TYPES);
}

static void check_round_trip(const uint8_t *payload, size_t len)
{
	struct buf binary = {0}, frame = {0};
	struct gdb_decoder d = {.acks = true};
	const uint8_t *back;
	struct buf acks = {0};
	struct err err;
	size_t n;

	gdb_put_binary(&binary, payload, len);
	gdb_frame(&frame, binary.data, binary.len);
	/* Runs are for gdb's reader; ours, which knows none, is given a frame without. */
	if (!memchr(frame.data, '*', frame.len) && binary.len <= GDB_PACKET_MAX) {
		must(gdb_decoder_feed(&d, frame.data, frame.len, &acks, &err) == 0);
		must(acks.len == 1 && acks.data[0] == '+');
		must(gdb_decoder_next(&d, &back, &n) == GDB_ITEM_PACKET);
		must(n == len && (!n || memcmp(back, payload, n) == 0));
	}
	gdb_decoder_free(&d);
	buf_free(&binary);
	buf_free(&frame);
	buf_free(&acks);
}

/* Feed in pieces; every item is appended to items. */
static void decode(const uint8_t *data, size_t size, size_t piece, struct buf *items)
{
	struct gdb_decoder d = {.acks = true};
	struct buf acks = {0};
	bool alive = true;

	for (size_t at = 0; at < size && alive; at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		const uint8_t *payload;
		enum gdb_item item;
		struct err err;
		size_t len;

		alive = gdb_decoder_feed(&d, data + at, n, &acks, &err) == 0;
		while ((item = gdb_decoder_next(&d, &payload, &len)) != GDB_ITEM_NONE) {
			buf_put_u8(items, (uint8_t)item);
			buf_put_u32(items, (uint32_t)len);
			buf_put(items, payload, len);
		}
	}
	gdb_decoder_free(&d);
	buf_free(&acks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = {0}, pieces = {0};
	struct gdb_request request = {0};
	struct gdb_points points = {0};
	struct reader r;

	if (size < 1)
		return 0;
	decode(data + 1, size - 1, size, &whole);
	decode(data + 1, size - 1, 1 + data[0] % 16, &pieces);
	must(whole.len == pieces.len &&
	     (!whole.len || memcmp(whole.data, pieces.data, whole.len) == 0));

	r = reader_init(whole.data, whole.len);
	while (reader_left(&r)) {
		enum gdb_item item = (enum gdb_item)reader_u8(&r);
		size_t len = reader_u32(&r);
		const uint8_t *payload = reader_take(&r, len);

		if (item != GDB_ITEM_PACKET)
			continue;
		check_request(&request, payload, len);
		check_points(&points, &request);
		check_round_trip(payload, len);
	}
	/* Most inputs are no packets: look at them as the payload of one, and as code. */
	check_request(&request, data + 1, size - 1);
	check_points(&points, &request);
	gdb_points_clear(&points);
	buf_free(&request.data);
	buf_free(&whole);
	buf_free(&pieces);
	return 0;
}
