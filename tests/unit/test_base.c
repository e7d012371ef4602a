// SPDX-License-Identifier: GPL-3.0-or-later
/* Buffers, readers, error sentences and the state walker: round trips and bounds. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/unit/random_event.h"
#include "vmm/walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 2000
#define ITEMS_MAX 60

/* --- Buffer and reader ------------------------------------------------------------------- */

enum kind { U8, U16, U32, U64, VARINT, STR, BYTES, KINDS };

struct item {
	enum kind kind;
	uint64_t value;
	char text[64]; /* STR: NUL-terminated; BYTES: value of them */
};

static struct item random_item(uint64_t *random)
{
	struct item item = {.kind = (enum kind)random_below(random, KINDS)};
	size_t n = random_below(random, sizeof(item.text));

	switch (item.kind) {
	case U8:
		item.value = (uint8_t)random_value(random);
		break;
	case U16:
		item.value = (uint16_t)random_value(random);
		break;
	case U32:
		item.value = (uint32_t)random_value(random);
		break;
	case STR:
		for (size_t i = 0; i < n; i++)
			item.text[i] = (char)(1 + random_below(random, 255));
		break;
	case BYTES:
		item.value = n;
		for (size_t i = 0; i < n; i++)
			item.text[i] = (char)random_u64(random);
		break;
	default:
		item.value = random_value(random);
	}
	return item;
}

static void put_item(struct buf *b, const struct item *item)
{
	switch (item->kind) {
	case U8:
		buf_put_u8(b, (uint8_t)item->value);
		break;
	case U16:
		buf_put_u16(b, (uint16_t)item->value);
		break;
	case U32:
		buf_put_u32(b, (uint32_t)item->value);
		break;
	case U64:
		buf_put_u64(b, item->value);
		break;
	case VARINT:
		buf_put_varint(b, item->value);
		break;
	case STR:
		buf_put_str(b, item->text);
		break;
	default:
		buf_put(b, item->text, item->value);
	}
}

static void check_item(struct reader *r, const struct item *item)
{
	char bytes[sizeof(item->text)];
	char *text;

	switch (item->kind) {
	case U8:
		assert_int_equal(reader_u8(r), item->value);
		break;
	case U16:
		assert_int_equal(reader_u16(r), item->value);
		break;
	case U32:
		assert_int_equal(reader_u32(r), item->value);
		break;
	case U64:
		assert_int_equal(reader_u64(r), item->value);
		break;
	case VARINT:
		assert_int_equal(reader_varint(r), item->value);
		break;
	case STR:
		text = reader_str(r, sizeof(item->text));
		assert_non_null(text);
		assert_string_equal(text, item->text);
		free(text);
		break;
	default:
		reader_get(r, bytes, item->value);
		if (item->value)
			assert_memory_equal(bytes, item->text, item->value);
	}
}

/* Read the item without looking at it. */
static void skip_item(struct reader *r, enum kind kind, size_t n)
{
	char bytes[64];

	switch (kind) {
	case U8:
		reader_u8(r);
		break;
	case U16:
		reader_u16(r);
		break;
	case U32:
		reader_u32(r);
		break;
	case U64:
		reader_u64(r);
		break;
	case VARINT:
		reader_varint(r);
		break;
	case STR:
		free(reader_str(r, sizeof(bytes)));
		break;
	default:
		reader_get(r, bytes, n);
	}
}

static void test_round_trip(void **state)
{
	uint64_t random = 11;
	struct item items[ITEMS_MAX];

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t n = random_below(&random, ITEMS_MAX + 1);
		struct buf b = {0};
		struct reader r;

		for (size_t i = 0; i < n; i++) {
			items[i] = random_item(&random);
			put_item(&b, &items[i]);
		}
		assert_false(b.failed);
		assert_true(b.len <= b.cap);
		r = reader_init(b.data, b.len);
		for (size_t i = 0; i < n; i++)
			check_item(&r, &items[i]);
		assert_false(r.failed);
		assert_int_equal(reader_left(&r), 0);
		buf_free(&b);
		assert_null(b.data);
	}
}

/* One byte less than was written: some read fails, and all after it. */
static void test_reading_past_the_end(void **state)
{
	uint64_t random = 12;
	struct item items[ITEMS_MAX];

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t n = 1 + random_below(&random, ITEMS_MAX);
		struct buf b = {0};
		uint8_t *copy;
		size_t len;
		struct reader r;

		for (size_t i = 0; i < n; i++) {
			items[i] = random_item(&random);
			put_item(&b, &items[i]);
		}
		if (!b.len)
			continue;
		len = random_below(&random, b.len);
		/* Of exactly this size, so that the sanitizer sees a read past the end. */
		copy = malloc(len ? len : 1);
		assert_non_null(copy);
		memcpy(copy, b.data, len);
		r = reader_init(copy, len);
		for (size_t i = 0; i < n; i++)
			skip_item(&r, items[i].kind, items[i].value);
		assert_true(r.failed);
		assert_true(r.pos <= r.len);
		assert_int_equal(reader_left(&r), 0);
		assert_null(reader_take(&r, 0));
		assert_int_equal(reader_u64(&r), 0);
		free(copy);
		buf_free(&b);
	}
}

static void test_reader_keeps_bounds(void **state)
{
	const uint8_t data[4] = {1, 2, 3, 4};
	struct reader r = reader_init(data, sizeof(data));
	uint8_t out[8];

	(void)state;
	assert_ptr_equal(reader_take(&r, 4), data);
	assert_non_null(reader_take(&r, 0));
	assert_null(reader_take(&r, 1));
	assert_true(r.failed);

	r = reader_init(data, sizeof(data));
	assert_null(reader_take(&r, SIZE_MAX));
	assert_true(r.failed);

	r = reader_init(data, sizeof(data));
	reader_u8(&r);
	assert_null(reader_take(&r, SIZE_MAX));

	/* What could not be read is zero, not what was there before. */
	r = reader_init(data, sizeof(data));
	memset(out, 0xaa, sizeof(out));
	reader_get(&r, out, sizeof(out));
	assert_true(r.failed);
	for (size_t i = 0; i < sizeof(out); i++)
		assert_int_equal(out[i], 0);
}

static uint64_t varint_of(const uint8_t *data, size_t len, bool *failed, size_t *used)
{
	struct reader r = reader_init(data, len);
	uint64_t v = reader_varint(&r);

	*failed = r.failed;
	*used = r.pos;
	return v;
}

static void test_varint_edges(void **state)
{
	uint8_t data[12];
	bool failed;
	size_t used;

	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (uint64_t around = 0; around < 3; around++) {
			uint64_t v = (1ull << bit) - 1 + around;
			struct buf b = {0};

			buf_put_varint(&b, v);
			assert_false(b.failed);
			assert_true(b.len <= 10);
			assert_int_equal(varint_of(b.data, b.len, &failed, &used), v);
			assert_false(failed);
			assert_int_equal(used, b.len);
			if (b.len > 1) {
				varint_of(b.data, b.len - 1, &failed, &used);
				assert_true(failed);
			}
			buf_free(&b);
		}
	}
	/* Ten bytes hold 64 bits; an eleventh, or more in the tenth, is no varint of ours. */
	memset(data, 0xff, sizeof(data));
	data[9] = 0x01;
	assert_int_equal(varint_of(data, sizeof(data), &failed, &used), UINT64_MAX);
	assert_false(failed);
	assert_int_equal(used, 10);
	data[9] = 0x02;
	varint_of(data, sizeof(data), &failed, &used);
	assert_true(failed);
	data[9] = 0x81;
	varint_of(data, sizeof(data), &failed, &used);
	assert_true(failed);
	memset(data, 0x80, sizeof(data));
	varint_of(data, sizeof(data), &failed, &used);
	assert_true(failed);
}

static void refuse_string(const void *data, size_t len, size_t max)
{
	struct reader r = reader_init(data, len);

	assert_null(reader_str(&r, max));
	assert_true(r.failed);
}

static void test_strings_refused(void **state)
{
	static const uint8_t longer[] = {5, 'a', 'b', 'c'};
	static const uint8_t nul[] = {3, 'a', 0, 'c'};
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
				       0xff, 0xff, 0xff, 0x01, 'a'};
	static const uint8_t good[] = {3, 'a', 'b', 'c'};

	(void)state;
	refuse_string(longer, sizeof(longer), 100);
	refuse_string(nul, sizeof(nul), 100);
	refuse_string(huge, sizeof(huge), 100);
	refuse_string(huge, sizeof(huge), SIZE_MAX);
	refuse_string(good, sizeof(good), 2);
	refuse_string(good, 0, 100);
}

static void test_buffer_is_reused(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_put(&b, "x", 0);
	assert_int_equal(b.len, 0);
	for (unsigned i = 0; i < 10000; i++)
		buf_put_u8(&b, (uint8_t)i);
	assert_int_equal(b.len, 10000);
	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(b.data[i], (uint8_t)i);
	buf_clear(&b);
	assert_int_equal(b.len, 0);
	assert_true(b.cap >= 10000);
	buf_put_u8(&b, 7);
	assert_int_equal(b.data[0], 7);
	buf_free(&b);
}

/* More than there is: the buffer says so, keeps what it has, and stays that way until cleared. */
static void test_buffer_failure_is_kept(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_put_u32(&b, 0x01020304);
	buf_put(&b, &b, SIZE_MAX - 8);
	assert_true(b.failed);
	assert_int_equal(b.len, 4);
	buf_put_u8(&b, 1);
	assert_int_equal(b.len, 4);
	buf_clear(&b);
	buf_put_u8(&b, 1);
	assert_false(b.failed);
	assert_int_equal(b.len, 1);
	buf_free(&b);
}

/* --- Errors ------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
	struct err err;
	char big[2 * ERR_TEXT_MAX];

	(void)state;
	assert_int_equal(err_set(&err, EINVAL, "no %s", "way"), -EINVAL);
	assert_string_equal(err.text, "no way");
	assert_int_equal(err_prefix(&err, -EINVAL, "file %d", 3), -EINVAL);
	assert_string_equal(err.text, "file 3: no way");
	assert_int_equal(err_sys(&err, ENOENT, "cannot open"), -ENOENT);
	assert_string_equal(err.text, "cannot open: No such file or directory");
	assert_int_equal(err_set(NULL, EIO, "nobody listens"), -EIO);
	assert_int_equal(err_sys(NULL, EIO, "nobody listens"), -EIO);
	assert_int_equal(err_prefix(NULL, -EIO, "nobody listens"), -EIO);
	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = 0;
	err_set(&err, EIO, "%s", big);
	assert_true(strlen(err.text) < ERR_TEXT_MAX);
	err_prefix(&err, -EIO, "%s", big);
	assert_true(strlen(err.text) < ERR_TEXT_MAX);
	err_sys(&err, EIO, "%s", big);
	assert_true(strlen(err.text) < ERR_TEXT_MAX);
}

/* --- Walker ------------------------------------------------------------------------------ */

struct thing {
	bool flag;
	uint8_t a;
	uint16_t b;
	uint32_t c;
	uint64_t d;
	uint8_t bytes[40];
};

#define THING_SIZE (1 + 1 + 2 + 4 + 8 + 40)

static void walk_thing(struct walker *w, struct thing *t)
{
	walk_component(w, "thing");
	walk_bool(w, "flag", &t->flag);
	walk_u8(w, "a", &t->a);
	walk_u16(w, "b", &t->b);
	walk_u32(w, "c", &t->c);
	walk_component(w, "more");
	walk_u64(w, "d", &t->d);
	walk_bytes(w, "bytes", t->bytes, sizeof(t->bytes));
}

static struct thing random_thing(uint64_t *random)
{
	struct thing t = {.flag = random_below(random, 2),
			  .a = (uint8_t)random_u64(random),
			  .b = (uint16_t)random_u64(random),
			  .c = (uint32_t)random_u64(random),
			  .d = random_u64(random)};

	for (size_t i = 0; i < sizeof(t.bytes); i++)
		t.bytes[i] = (uint8_t)random_u64(random);
	return t;
}

static uint64_t digest_of(struct thing *t)
{
	struct walker w;
	uint64_t digest;

	assert_int_equal(walker_init_digest(&w), 0);
	walk_thing(&w, t);
	digest = walker_digest(&w);
	walker_fini(&w);
	return digest;
}

static void test_walker(void **state)
{
	uint64_t random = 13;

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct thing t = random_thing(&random), u = random_thing(&random);
		struct walker save, other;

		walker_init_save(&save);
		walk_thing(&save, &t);
		assert_false(walker_failed(&save));
		assert_int_equal(save.out.len, THING_SIZE);

		walker_init_compare(&other, save.out.data, save.out.len);
		walk_thing(&other, &t);
		assert_false(other.differs);
		walker_fini(&other);

		walker_init_restore(&other, save.out.data, save.out.len);
		walk_thing(&other, &u);
		assert_false(walker_failed(&other));
		walker_fini(&other);
		assert_int_equal(u.flag, t.flag);
		assert_int_equal(u.a, t.a);
		assert_int_equal(u.b, t.b);
		assert_int_equal(u.c, t.c);
		assert_int_equal(u.d, t.d);
		assert_memory_equal(u.bytes, t.bytes, sizeof(t.bytes));
		assert_int_equal(digest_of(&t), digest_of(&u));
		walker_fini(&save);
	}
}

/* Any one changed bit is seen by digest and comparison, and named. */
static void test_walker_names_the_difference(void **state)
{
	uint64_t random = 14;

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct thing t = random_thing(&random), u = t;
		size_t byte = random_below(&random, sizeof(t.bytes));
		uint8_t bit = (uint8_t)(1u << random_below(&random, 8));
		struct walker save, compare;

		walker_init_save(&save);
		walk_thing(&save, &t);
		u.bytes[byte] ^= bit;
		assert_int_not_equal(digest_of(&t), digest_of(&u));
		walker_init_compare(&compare, save.out.data, save.out.len);
		walk_thing(&compare, &u);
		assert_true(compare.differs);
		assert_string_equal(compare.diff, "more.bytes");
		assert_int_equal(compare.diff_offset, byte);
		assert_in_range(compare.diff_len, 1, WALK_SHOWN_MAX);
		assert_int_equal(compare.diff_now[0], u.bytes[byte]);
		assert_int_equal(compare.diff_then[0], t.bytes[byte]);
		walker_fini(&compare);
		/* The first difference is the one that is told. */
		u.b ^= 1;
		walker_init_compare(&compare, save.out.data, save.out.len);
		walk_thing(&compare, &u);
		assert_string_equal(compare.diff, "thing.b");
		walker_fini(&compare);
		walker_fini(&save);
	}
}

static void test_walker_notices_short_input(void **state)
{
	uint64_t random = 15;
	struct thing t = random_thing(&random);
	struct walker save, restore;

	(void)state;
	walker_init_save(&save);
	walk_thing(&save, &t);
	for (size_t len = 0; len < save.out.len; len++) {
		struct thing u = {0};

		walker_init_restore(&restore, save.out.data, len);
		walk_thing(&restore, &u);
		assert_true(walker_failed(&restore));
		walker_fini(&restore);
	}
	walker_fini(&save);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_reading_past_the_end),
		cmocka_unit_test(test_reader_keeps_bounds),
		cmocka_unit_test(test_varint_edges),
		cmocka_unit_test(test_strings_refused),
		cmocka_unit_test(test_buffer_is_reused),
		cmocka_unit_test(test_buffer_failure_is_kept),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_walker),
		cmocka_unit_test(test_walker_names_the_difference),
		cmocka_unit_test(test_walker_notices_short_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
