// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Frames that claim what is not so, headers of another version, and disks that are full.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/some_trace.h"

#include <signal.h>
#include <xxhash.h>
#include <zstd.h>

#define FRAME_MAGIC 0x4d524648u
#define FRAME_ZSTD 1

/* --- Frames made by hand ----------------------------------------------------------------- */

struct crafted {
	enum trace_frame type;
	uint16_t flags;
	const void *stored;
	uint32_t stored_size; /* as announced */
	uint32_t raw_size;    /* as announced */
	size_t present;	      /* bytes that are there */
};

/* The good trace up to its first events, then this frame. */
static struct reading read_crafted(const struct crafted *c)
{
	size_t at = (size_t)good.frame_start[good.head_frames];
	size_t checked = c->present < c->stored_size ? c->present : c->stored_size;
	struct buf b = {0};
	struct reading r;

	buf_put(&b, good.data, at);
	buf_put_u32(&b, FRAME_MAGIC);
	buf_put_u16(&b, (uint16_t)c->type);
	buf_put_u16(&b, c->flags);
	buf_put_u32(&b, c->stored_size);
	buf_put_u32(&b, c->raw_size);
	buf_put_u64(&b, good.head_frames);
	assert_false(b.failed);
	buf_put_u64(&b, XXH64(c->stored, checked, XXH64(b.data + at, 24, 0)));
	buf_put(&b, c->stored, c->present);
	assert_false(b.failed);
	set_file(b.data, b.len);
	buf_free(&b);
	r = read_file();
	assert_int_equal(r.opened, 0);
	assert_int_equal(r.events, 0);
	return r;
}

static void refuse_crafted(const struct crafted *c)
{
	struct reading r = read_crafted(c);

	assert_explained(r.rc, &r.err);
}

/* Expands to more than there is memory. */
#define BOMB_SIZE (256u << 20)

/* Zeros, compressed piece by piece. */
static void make_bomb(struct buf *bomb, size_t size)
{
	static uint8_t zeros[1 << 16], out[1 << 16];
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t left = 1;

	assert_non_null(c);
	while (size || left) {
		ZSTD_inBuffer in = {zeros, size < sizeof(zeros) ? size : sizeof(zeros), 0};
		ZSTD_outBuffer to = {out, sizeof(out), 0};

		left = ZSTD_compressStream2(c, &to, &in, size ? ZSTD_e_continue : ZSTD_e_end);
		assert_false(ZSTD_isError(left));
		size -= in.pos;
		buf_put(bomb, out, to.pos);
	}
	ZSTD_freeCCtx(c);
	assert_false(bomb->failed);
}

static void test_zip_bomb(void **state)
{
	struct buf bomb = {0};
	struct crafted c = {.type = TRACE_EVENTS, .flags = FRAME_ZSTD};

	(void)state;
	make_bomb(&bomb, BOMB_SIZE);
	assert_true(bomb.len < TRACE_FRAME_RAW_MAX);
	c.stored = bomb.data;
	c.present = bomb.len;
	c.stored_size = (uint32_t)bomb.len;
	c.raw_size = BOMB_SIZE;
	refuse_crafted(&c);
	c.raw_size = TRACE_FRAME_RAW_MAX;
	refuse_crafted(&c);
	c.raw_size = 0;
	refuse_crafted(&c);
	/* One byte more than announced, one less. */
	buf_clear(&bomb);
	make_bomb(&bomb, 1000);
	c.present = bomb.len;
	c.stored_size = (uint32_t)bomb.len;
	c.raw_size = 999;
	refuse_crafted(&c);
	c.raw_size = 1001;
	refuse_crafted(&c);
	buf_free(&bomb);
}

static void test_announced_sizes(void **state)
{
	static const uint8_t some[100] = {EVENT_DIGEST};
	struct crafted c = {.type = TRACE_EVENTS, .stored = some, .present = sizeof(some)};
	struct reading r;

	(void)state;
	c.stored_size = c.raw_size = UINT32_MAX;
	refuse_crafted(&c);
	c.stored_size = sizeof(some);
	refuse_crafted(&c);
	c.raw_size = TRACE_FRAME_RAW_MAX + 1;
	refuse_crafted(&c);
	c.stored_size = 0x7fffffff;
	c.raw_size = sizeof(some);
	refuse_crafted(&c);
	/* Possible, but not there: an unfinished frame. */
	c.stored_size = c.raw_size = TRACE_FRAME_RAW_MAX;
	r = read_crafted(&c);
	assert_int_equal(r.rc, 0);
	assert_true(r.truncated);
	c.stored_size = sizeof(some);
	c.raw_size = sizeof(some) - 1;
	refuse_crafted(&c);
	/* Not compressed, whatever the flags say. */
	c.flags = FRAME_ZSTD;
	c.raw_size = sizeof(some);
	refuse_crafted(&c);
	/* No frame belongs here but events and the end. */
	c.flags = 0;
	c.type = TRACE_MACHINE;
	refuse_crafted(&c);
	c.type = (enum trace_frame)99;
	refuse_crafted(&c);
}

/* A guest file that is announced as huge costs no memory before its bytes come. */
static void test_announced_files(void **state)
{
	static const uint64_t sizes[] = {0, 5, TRACE_FILE_MAX, TRACE_FILE_MAX + 1, UINT64_MAX};
	uint8_t file[100] = {TRACE_FILE_KERNEL};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct trace_machine tm = some_machine();
		struct trace_writer *w;
		struct reading r;
		struct buf b = {0};
		struct err err;

		tm.kernel_size = sizes[i];
		trace_machine_encode(&tm, &b);
		assert_false(b.failed);
		memcpy(file + 1, &sizes[i], sizeof(sizes[i]));
		assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
		assert_int_equal(trace_writer_frame(w, TRACE_MACHINE, b.data, b.len, &err), 0);
		assert_int_equal(trace_writer_frame(w, TRACE_FILE, file, sizeof(file), &err), 0);
		assert_int_equal(trace_writer_close(w, &err), 0);
		buf_free(&b);
		r = read_file();
		assert_explained(r.opened, &r.err);
	}
}

static void test_header(void **state)
{
	static const uint8_t other_version[] = {TRACE_VERSION + 1};
	uint8_t damaged[FILE_MAX];
	struct reading r;
	uint64_t checksum;
	char format[32];

	(void)state;
	snprintf(format, sizeof(format), "format %u", TRACE_VERSION + 1);
	memcpy(damaged, good.data, good.size);
	memcpy(damaged + 16, other_version, 1);
	set_file(damaged, good.size);
	r = read_file();
	assert_int_equal(r.opened, -EBADMSG);
	assert_non_null(strstr(r.err.text, "damaged"));
	checksum = XXH64(damaged, 24, 0);
	memcpy(damaged + 24, &checksum, sizeof(checksum));
	set_file(damaged, good.size);
	r = read_file();
	assert_int_equal(r.opened, -EBADMSG);
	assert_non_null(strstr(r.err.text, format));
}

/* --- Writing that fails ------------------------------------------------------------------ */

static void test_writer_refuses_large_frames(void **state)
{
	uint8_t *data = calloc(1, TRACE_FRAME_RAW_MAX + 1);
	struct trace_writer *w;
	struct err err;

	(void)state;
	assert_non_null(data);
	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_true(trace_writer_frame(w, TRACE_EVENTS, data, TRACE_FRAME_RAW_MAX + 1, &err) < 0);
	assert_int_equal(trace_writer_frame(w, TRACE_EVENTS, data, TRACE_FRAME_RAW_MAX, &err), 0);
	assert_int_equal(trace_writer_close(w, &err), 0);
	free(data);
}

/* As many events as make about 3 KB that cannot be compressed. */
#define NOISE_EVENTS 150

static void encode_noise(struct event_codec *codec, uint64_t *random, struct buf *b)
{
	buf_clear(b);
	for (unsigned i = 0; i < NOISE_EVENTS; i++) {
		struct event e = {.type = EVENT_DIGEST, .boundary = codec->boundary + 1};

		random_digest(random, &e.digest.digest);
		event_encode(codec, &e, b);
	}
	assert_false(b->failed);
}

static void test_full_disk(void **state)
{
	struct trace_machine tm = some_machine();
	struct guest_image image = {.kernel = good.kernel, .kernel_size = sizeof(good.kernel)};
	struct event_codec codec = {0};
	struct rlimit old, limit;
	struct trace_writer *w;
	struct replay_file *f;
	struct event e;
	struct err err = {0};
	struct buf b = {0};
	uint64_t usable, random = 25;
	unsigned frames = 0, events = 0;
	int rc;

	(void)state;
	assert_true(trace_writer_create(&w, "/dev/full", &err) < 0);
	assert_non_null(strstr(err.text, "No space left"));

	/* The limit bites in the middle of a frame. */
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = 10000;
	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_int_equal(recorder_write_head(w, &tm, &image, &err), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (;;) {
		usable = trace_writer_size(w);
		encode_noise(&codec, &random, &b);
		rc = trace_writer_frame(w, TRACE_EVENTS, b.data, b.len, &err);
		if (rc < 0)
			break;
		frames++;
	}
	assert_int_equal(rc, -EFBIG);
	assert_non_null(strstr(err.text, "usable"));
	assert_true(frames > 0);
	/* There would be room for this one, but not behind half a frame. */
	assert_int_equal(trace_writer_frame(w, TRACE_END, NULL, 0, &err), -EFBIG);
	assert_int_equal(trace_writer_size(w), usable);
	assert_int_equal(trace_writer_close(w, &err), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	buf_free(&b);

	assert_int_equal(replay_file_open(&f, file_path, &err), 0);
	while ((rc = replay_file_next(f, &e, &err)) > 0)
		events++;
	assert_int_equal(rc, 0);
	assert_int_equal(events, frames * NOISE_EVENTS);
	assert_true(replay_file_truncated(f));
	replay_file_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zip_bomb),
		cmocka_unit_test(test_announced_sizes),
		cmocka_unit_test(test_announced_files),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_writer_refuses_large_frames),
		cmocka_unit_test(test_full_disk),
	};

	return cmocka_run_group_tests(tests, trace_setup, trace_teardown);
}
