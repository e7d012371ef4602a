// SPDX-License-Identifier: GPL-3.0-or-later
/* Packets as bytes: what goes out comes in again, in any pieces; what is no packet; bounds. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gdbstub/packet.h"
#include "tests/unit/random_event.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 3000

/* What a decoder has queued, as text: packets in brackets, an interrupt as '!'. */
static const char *drain(struct gdb_decoder *d, char *out, size_t size)
{
	const uint8_t *payload;
	size_t n = 0, len;
	enum gdb_item item;

	out[0] = 0;
	while ((item = gdb_decoder_next(d, &payload, &len)) != GDB_ITEM_NONE) {
		if (item == GDB_ITEM_BREAK)
			n += (size_t)snprintf(out + n, size - n, "!");
		else
			n += (size_t)snprintf(out + n, size - n, "[%.*s]", (int)len,
					      (const char *)payload);
	}
	return out;
}

static int feed(struct gdb_decoder *d, const char *text, struct buf *out)
{
	struct err err;

	return gdb_decoder_feed(d, (const uint8_t *)text, strlen(text), out, &err);
}

/* Bytes, what is queued, what is answered: with acks. */
static const struct {
	const char *bytes, *items, *acks;
} cases[] = {
	{"$g#67", "[g]", "+"},
	{"+$g#67+", "[g]", "+"},
	{"$#00", "[]", "+"},
	{"$g#68", "", "-"},
	{"$g#6x", "", "-"},
	{"$g#67$g#67", "[g][g]", "++"},
	{"$m10,$g#67", "[g]", "+"}, /* the end of the first was lost */
	{"$X0,1:}\x03#9f", "[X0,1:#]", "+"},
	{"$X0,2:}]}\x0a#81", "[X0,2:}*]", "+"},
	{"$X0,1:}$#c0", "[X0,1:\x04]", "+"}, /* escaped, so it begins no packet */
	{"\x03", "!", ""},
	{"\x03$c#63\x03", "![c]!", "+"},
	{"$X0,1:\x03#22", "[X0,1:\x03]", "+"}, /* within a packet it is data */
	{"$g#67\r\n$g#67", "[g][g]", "++"},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* Whole, and one byte at a time. */
		for (size_t piece = 1; piece < 100; piece += 98) {
			struct gdb_decoder d = {.acks = true};
			struct buf out = {0};
			struct err err;
			char items[256];

			for (size_t at = 0; at < strlen(cases[i].bytes); at += piece) {
				size_t left = strlen(cases[i].bytes) - at;

				assert_int_equal(
					gdb_decoder_feed(&d, (const uint8_t *)cases[i].bytes + at,
							 left < piece ? left : piece, &out, &err),
					0);
			}
			assert_string_equal(drain(&d, items, sizeof(items)), cases[i].items);
			assert_int_equal(out.len, strlen(cases[i].acks));
			if (out.len)
				assert_memory_equal(out.data, cases[i].acks, out.len);
			gdb_decoder_free(&d);
			buf_free(&out);
		}
	}
}

static void test_without_acks(void **state)
{
	struct gdb_decoder d = {.acks = false};
	struct buf out = {0};
	char items[64];

	(void)state;
	assert_int_equal(feed(&d, "$g#00-", &out), 0);
	assert_string_equal(drain(&d, items, sizeof(items)), "[g]");
	assert_int_equal(out.len, 0);
	assert_false(d.resend);
	d.acks = true;
	assert_int_equal(feed(&d, "-", &out), 0);
	assert_true(d.resend);
	gdb_decoder_free(&d);
}

static void test_take_break(void **state)
{
	struct gdb_decoder d = {.acks = false};
	struct buf out = {0};
	char items[64];

	(void)state;
	assert_false(gdb_decoder_take_break(&d));
	assert_int_equal(feed(&d, "$a#00$b#00\x03$c#00", &out), 0);
	assert_true(gdb_decoder_take_break(&d));
	assert_false(gdb_decoder_take_break(&d));
	assert_string_equal(drain(&d, items, sizeof(items)), "[a][b][c]");
	gdb_decoder_free(&d);
}

/* A run in the input is data: gdb sends none. */
static void test_no_runs_in_input(void **state)
{
	struct gdb_decoder d = {.acks = false};
	struct buf out = {0};
	char items[64];

	(void)state;
	assert_int_equal(feed(&d, "$a* b#00", &out), 0);
	assert_string_equal(drain(&d, items, sizeof(items)), "[a* b]");
	gdb_decoder_free(&d);
}

static void test_strangers(void **state)
{
	static const char *const greetings[] = {"GET / HTTP/1.1\r\n", "POST /$k#6b", "\x16\x03\x01",
						"SSH-2.0", "\r\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
		struct gdb_decoder d = {.acks = true};
		struct buf out = {0};
		char items[64];

		assert_int_equal(feed(&d, greetings[i], &out), -EPROTO);
		assert_string_equal(drain(&d, items, sizeof(items)), "");
		gdb_decoder_free(&d);
		buf_free(&out);
	}
}

/* Feed the same byte until it is refused; the decoder must not have kept more than it may. */
static int feed_for_ever(struct gdb_decoder *d, uint8_t byte, struct buf *out)
{
	uint8_t block[4096];
	struct err err;

	memset(block, byte, sizeof(block));
	for (uint64_t sent = 0; sent < 1ull << 30; sent += sizeof(block)) {
		int rc = gdb_decoder_feed(d, block, sizeof(block), out, &err);

		if (rc)
			return rc;
	}
	return 0;
}

static void test_endless(void **state)
{
	(void)state;
	/* A packet without an end, escaped bytes without an end, noise after a packet. */
	for (int i = 0; i < 3; i++) {
		static const char *const starts[] = {"$", "$}", "$g#67"};
		struct gdb_decoder d = {.acks = true};
		struct buf out = {0};

		assert_int_equal(feed(&d, starts[i], &out), 0);
		assert_int_equal(feed_for_ever(&d, i == 1 ? '}' : 'a', &out),
				 i == 2 ? -EPROTO : -EMSGSIZE);
		assert_true(d.body.cap <= 2 * GDB_PACKET_MAX);
		gdb_decoder_free(&d);
		buf_free(&out);
	}
}

static void test_longest(void **state)
{
	char *text = malloc(GDB_PACKET_MAX + 8);
	struct gdb_decoder d = {.acks = false};
	struct buf out = {0};
	const uint8_t *payload;
	size_t len;

	(void)state;
	assert_non_null(text);
	memset(text, 'a', GDB_PACKET_MAX + 8);
	text[0] = '$';
	strcpy(text + 1 + GDB_PACKET_MAX, "#00");
	assert_int_equal(feed(&d, text, &out), 0);
	assert_int_equal(gdb_decoder_next(&d, &payload, &len), GDB_ITEM_PACKET);
	assert_int_equal(len, GDB_PACKET_MAX);
	strcpy(text + 1 + GDB_PACKET_MAX, "a#00");
	assert_int_equal(feed(&d, text, &out), -EMSGSIZE);
	gdb_decoder_free(&d);
	free(text);
}

/* Requests sent ahead are kept, up to a bound. */
static void test_queue_bound(void **state)
{
	struct gdb_decoder d = {.acks = false};
	struct buf out = {0};
	size_t packets = 0;

	(void)state;
	while (feed(&d, "$g#67", &out) == 0)
		packets++;
	assert_in_range(packets, 1000, GDB_QUEUE_MAX);
	assert_true(d.queue.cap <= 2 * GDB_QUEUE_MAX);
	gdb_decoder_free(&d);
}

static size_t random_payload(uint64_t *random, uint8_t *data, size_t max)
{
	static const uint8_t favourites[] = {'#', '$', '}', '*', '0', 0x03, '+', 0};
	size_t n = random_below(random, max);

	for (size_t i = 0; i < n;) {
		size_t run = random_below(random, 4) ? 1 : random_below(random, 300);
		uint8_t byte = random_below(random, 2)
				       ? favourites[random_below(random, sizeof(favourites))]
				       : (uint8_t)random_u64(random);

		for (; run && i < n; run--)
			data[i++] = byte;
	}
	return n;
}

/* The reader that the manual describes: runs first, then escapes. */
static size_t read_frame(const struct buf *frame, uint8_t *out)
{
	uint8_t *flat = malloc(200 * frame->len + 1);
	size_t n = 0, len = 0;
	unsigned sum = 0, sent;

	assert_non_null(flat);
	assert_int_equal(frame->data[0], '$');
	assert_int_equal(frame->data[frame->len - 3], '#');
	for (size_t i = 1; i < frame->len - 3; i++) {
		sum += frame->data[i];
		assert_true(frame->data[i] != '$' && frame->data[i] != '#');
		if (frame->data[i] != '*') {
			flat[n++] = frame->data[i];
			continue;
		}
		/* Of escaped bytes there are no runs, on which readers differ. */
		assert_true(n < 2 || flat[n - 2] != '}');
		sum += frame->data[++i];
		assert_true(frame->data[i] != '$' && frame->data[i] != '#');
		assert_in_range(frame->data[i], ' ', '~');
		for (int k = 0; k < frame->data[i] - 29; k++, n++)
			flat[n] = flat[n - 1];
	}
	assert_int_equal(sscanf((const char *)frame->data + frame->len - 2, "%2x", &sent), 1);
	assert_int_equal(sent, sum & 0xff);
	for (size_t i = 0; i < n; i++)
		out[len++] = flat[i] == '}' ? flat[++i] ^ 0x20 : flat[i];
	free(flat);
	return len;
}

static void test_encode(void **state)
{
	static uint8_t data[2000], back[4000];
	uint64_t random = 20;

	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		size_t n = random_payload(&random, data, sizeof(data));
		struct buf payload = {0}, frame = {0};

		if (i % 2) {
			gdb_put_binary(&payload, data, n);
			gdb_frame(&frame, payload.data, payload.len);
			buf_put_u8(&frame, 0); /* ends the sum for sscanf */
			frame.len--;
			assert_int_equal(read_frame(&frame, back), n);
			assert_memory_equal(back, data, n);
		} else {
			gdb_put_hex(&payload, data, n);
			gdb_frame(&frame, payload.data, payload.len);
			buf_put_u8(&frame, 0);
			frame.len--;
			assert_int_equal(read_frame(&frame, back), 2 * n);
			assert_memory_equal(back, payload.data ? payload.data : data, 2 * n);
		}
		buf_free(&payload);
		buf_free(&frame);
	}
}

static void test_runs_pay(void **state)
{
	static const uint8_t zeros[4096];
	struct buf payload = {0}, frame = {0};

	(void)state;
	gdb_put_hex(&payload, zeros, sizeof(zeros));
	gdb_frame(&frame, payload.data, payload.len);
	assert_true(frame.len < payload.len / 30);
	buf_free(&payload);
	buf_free(&frame);
}

static void test_text_is_tame(void **state)
{
	struct buf payload = {0};

	(void)state;
	gdb_put_text(&payload, "E.%s", "a#b$c}d*e");
	assert_int_equal(payload.len, 11);
	assert_memory_equal(payload.data, "E.a?b?c?d?e", 11);
	buf_free(&payload);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),	     cmocka_unit_test(test_without_acks),
		cmocka_unit_test(test_take_break),   cmocka_unit_test(test_no_runs_in_input),
		cmocka_unit_test(test_strangers),    cmocka_unit_test(test_endless),
		cmocka_unit_test(test_longest),	     cmocka_unit_test(test_queue_bound),
		cmocka_unit_test(test_encode),	     cmocka_unit_test(test_runs_pay),
		cmocka_unit_test(test_text_is_tame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
