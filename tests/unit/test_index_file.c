// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Snapshots in a trace file. An index is found behind an end mark or without one, and the events do not notice it;
 * whatever is done to it, or to what a trace begins with, is refused with a sentence or is what was written.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "debugger/begin.h"
#include "debugger/index.h"
#include "replay/mark.h"
#include "snapshot/tree.h"
#include "tests/unit/some_trace.h"

#include <fcntl.h>

#define DAMAGES 10000
#define MARKS 10000
#define NODES 4
#define MEM_SIZE (16ull << 20)
#define BUDGET (8ull << 20)
#define PIECE 1000 /* small, so that there are many frames */

static struct snapshot_uid uid[NODES];
/* The trace with an index, and where that begins. */
static struct {
	uint8_t data[FILE_MAX];
	size_t size, index;
} whole;

static struct snapshots *new_tree(void)
{
	struct snapshots *t;
	struct err err = {0};

	assert_int_equal(snapshots_create(&t, BUDGET, "/tmp", &err), 0);
	return t;
}

static void add_node(struct snapshots *t, unsigned n)
{
	uint8_t data[REPLAY_SAVED_SIZE + 8 + 6] = {0}, page[PAGE_SIZE] = {0};
	struct snapshot_note note = {NULL, data, sizeof(data)};
	uint8_t *state = calloc(1, 100);
	struct snapshot *s;
	struct err err;
	page_id id;

	data[REPLAY_SAVED_SIZE] = (uint8_t)(10 * n);
	assert_non_null(state);
	assert_int_equal(snapshot_new(t, &note, &s, &err), 0);
	assert_int_equal(snapshot_give_state(t, s, state, 100, &err), 0);
	s->boundary = 100 * (n + 1);
	s->parent = t->last;
	if (s->parent)
		s->map = page_map_copy(&s->parent->map);
	snprintf((char *)page, sizeof(page), "page of node %u", n);
	assert_int_equal(page_store_put(t->store, page, &id, &err), 0);
	assert_int_equal(page_map_set(&s->map, t->store, 7 * n, id, &err), 0);
	snapshot_insert(t, s);
	uid[n] = s->uid;
}

/* A trace of these bytes and frames, then an index. */
static void write_index(const void *trace, struct trace_place end)
{
	const struct snapshot_export all = {0};
	struct snapshots *t = new_tree();
	uint8_t piece[PIECE];
	struct trace_writer *w;
	struct err err = {0};
	int fd, file = memfd_create("snapshots", MFD_CLOEXEC);
	ssize_t n;

	t->mem_size = MEM_SIZE;
	t->layout = 77;
	for (unsigned i = 0; i < NODES; i++)
		add_node(t, i);
	assert_int_equal(snapshots_export_to(t, file, &all, &err), 0);
	snapshots_destroy(t);
	set_file(trace, end.offset);
	fd = open(file_path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(trace_writer_continue(&w, fd, end, &err), 0);
	lseek(file, 0, SEEK_SET);
	while ((n = read(file, piece, sizeof(piece))) > 0)
		assert_int_equal(trace_writer_frame(w, TRACE_CHECKPOINTS, piece, (size_t)n, &err), 0);
	assert_true(trace_writer_size(w) < sizeof(whole.data));
	assert_int_equal(trace_writer_close(w, &err), 0);
	close(file);
	whole.index = end.offset;
	whole.size = (size_t)lseek(file_fd, 0, SEEK_END);
	assert_int_equal(pread(file_fd, whole.data, sizeof(whole.data), 0), (ssize_t)whole.size);
}

static void assert_index(const struct snapshots *t)
{
	const struct snapshot *s = snapshots_next(t, NULL);

	for (unsigned n = 0; n < NODES; n++, s = s->next) {
		struct index_note note;
		struct err err;

		assert_non_null(s);
		assert_memory_equal(&s->uid, &uid[n], sizeof(uid[n]));
		assert_int_equal(s->boundary, 100 * (n + 1));
		assert_int_equal(index_read_note(s, &note, &err), 0);
		assert_int_equal(note.work, 10 * n);
		assert_int_equal(reader_left(&note.printed), 6);
		assert_true(page_map_get(&s->map, 7 * n) != PAGE_ZEROS);
	}
	assert_null(s);
}

static struct trace_place whole_end(void)
{
	return (struct trace_place){good.size, good.n_frames, true};
}

static void test_found(void **state)
{
	/* Without the end mark, and with half of it. */
	struct trace_place cut = {good.frame_start[good.n_frames - 1], good.n_frames - 1, false};
	struct snapshots *t = new_tree();
	struct index_figures f;
	struct reading r;
	struct err err;

	(void)state;
	write_index(good.data, whole_end());
	r = read_file();
	assert_true(r.same && r.rc == 0 && !r.truncated && r.events == good.n_events);
	assert_int_equal(index_load(t, file_path, &f, &err), 0);
	assert_int_equal(f.checkpoints, NODES);
	assert_int_equal(f.bytes, whole.size - whole.index);
	assert_index(t);
	snapshots_destroy(t);
	write_index(good.data, cut);
	r = read_file();
	assert_true(r.same && r.rc == 0 && r.truncated && r.events == good.n_events);
	t = new_tree();
	assert_int_equal(index_load(t, file_path, &f, &err), 0);
	assert_index(t);
	snapshots_destroy(t);
	/* There need not be any. */
	set_file(good.data, good.size);
	t = new_tree();
	assert_int_equal(index_load(t, file_path, &f, &err), 0);
	assert_int_equal(f.checkpoints, 0);
	assert_int_equal(f.bytes, 0);
	snapshots_destroy(t);
}

/* Of what begins at whole.index; returns the file's size. */
static size_t damage(uint8_t *data, uint64_t *random)
{
	size_t len = whole.size - whole.index;
	size_t at = whole.index + (size_t)random_below(random, len);
	size_t n = 1 + (size_t)random_below(random, 40);

	memcpy(data, whole.data, whole.size);
	if (n > whole.size - at)
		n = whole.size - at;
	switch (random_below(random, 5)) {
	case 0:
		data[at] ^= (uint8_t)(1u << random_below(random, 8));
		return whole.size;
	case 1:
		for (size_t i = 0; i < n; i++)
			data[at + i] = (uint8_t)random_u64(random);
		return whole.size;
	case 2:
		return at;
	case 3: /* something is missing */
		memmove(data + at, data + at + n, whole.size - at - n);
		return whole.size - n;
	default:
		memset(data + whole.size, 0, n);
		return whole.size + n;
	}
}

static void test_damage(void **state)
{
	static uint8_t data[FILE_MAX + 64];
	unsigned refused = 0, none = 0;
	uint64_t random = 29;

	(void)state;
	write_index(good.data, whole_end());
	for (unsigned i = 0; i < DAMAGES; i++) {
		size_t size = damage(data, &random);
		struct snapshots *t = new_tree();
		struct index_figures f;
		struct err err = {0};
		struct reading r;
		int rc;

		set_file(data, size);
		r = read_file();
		assert_true(r.same && r.events == good.n_events);
		rc = index_load(t, file_path, &f, &err);
		if (rc < 0) {
			assert_explained(rc, &err);
			assert_null(snapshots_next(t, NULL));
			refused++;
		} else if (f.checkpoints) {
			assert_index(t);
		} else {
			assert_int_equal(size, whole.index);
			none++;
		}
		snapshots_destroy(t);
	}
	print_message("%u damages: %u refused, %u without an index\n", DAMAGES, refused, none);
	assert_true(refused > DAMAGES - DAMAGES / 20);
}

/* A snapshot file with all of the nodes. */
static void write_snapshots(void)
{
	struct trace_machine tm = some_machine();
	struct guest_image image = {.kernel = good.kernel, .kernel_size = sizeof(good.kernel)};
	const struct snapshot_export all = {0};
	struct snapshots *t = new_tree();
	char path[] = "/tmp/test-snapshots.XXXXXX";
	uint64_t bytes = 0;
	struct err err;
	int fd = mkstemp(path);

	t->mem_size = MEM_SIZE;
	t->layout = 77;
	for (unsigned i = 0; i < NODES; i++)
		add_node(t, i);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(begin_write_file(path, &tm, &image, t, &all, &bytes, &err), 0);
	snapshots_destroy(t);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	whole.size = bytes;
	assert_int_equal(read(fd, whole.data, sizeof(whole.data)), (ssize_t)whole.size);
	close(fd);
	unlink(path);
	/* The first frame of the snapshots. */
	for (whole.index = TRACE_HEADER_SIZE; whole.data[whole.index + 4] != TRACE_BEGIN;) {
		uint32_t stored;

		memcpy(&stored, whole.data + whole.index + 8, sizeof(stored));
		whole.index += TRACE_FRAME_SIZE + stored;
	}
}

/* A sentence that says where: by byte and record or page, or which part of the file does not go on. */
static void assert_place_named(const struct err *err)
{
	static const char *const places[] = {"at byte ", "the trace ends inside", "is cut off", "no hindsight snapshot file",
					     "shorter than the header"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (strstr(err->text, places[i]))
			return;
	fail_msg("no place: %s", err->text);
}

static void test_begin(void **state)
{
	static uint8_t data[FILE_MAX + 64];
	unsigned refused = 0, same = 0, pages = 0;
	uint64_t random = 37;

	(void)state;
	write_snapshots();
	for (unsigned i = 0; i < DAMAGES; i++) {
		/* The first times as it is. */
		size_t size = i > NODES ? damage(data, &random) : whole.size;
		const uint8_t *bytes = i > NODES ? data : whole.data;
		bool is_same = size == whole.size && memcmp(bytes, whole.data, size) == 0;
		struct snapshots *t = new_tree();
		uint64_t number = i % (NODES + 1);
		struct replay_file *f = NULL;
		struct snapshot *s;
		struct err err = {0};
		int rc;

		set_file(bytes, size);
		rc = begin_open(&f, file_path, NULL, &(uint64_t){0}, &err);
		if (rc == 0)
			rc = begin_import(t, f, number, &s, &err);
		assert_int_equal(rc == 0, is_same);
		if (rc == 0) {
			assert_true(f->tm.begun);
			assert_memory_equal(&s->uid, &uid[(number ? number : NODES) - 1], sizeof(uid[0]));
			same++;
		} else {
			assert_explained(rc, &err);
			assert_place_named(&err);
			pages += strstr(err.text, "page 0x") != NULL;
			refused++;
		}
		replay_file_close(f);
		snapshots_destroy(t);
	}
	print_message("%u damages: %u refused, %u of them by page; %u were none\n", DAMAGES, refused, pages, same);
	assert_true(refused > DAMAGES - DAMAGES / 20);
	assert_true(pages > 0);
}

/* More zeros than a trace of this guest may hold, in a file that is small. */
static void write_zeros(struct trace_writer *w, enum trace_frame type)
{
	static const uint8_t zeros[TRACE_FRAME_RAW_MAX];
	const uint64_t max = trace_snapshots_max(some_machine().config.mem_size);
	struct err err;

	for (uint64_t bytes = 0; bytes <= max; bytes += sizeof(zeros))
		assert_int_equal(trace_writer_frame(w, type, zeros, sizeof(zeros), &err), 0);
	assert_true(trace_writer_size(w) < max / 1000);
	assert_int_equal(trace_writer_close(w, &err), 0);
}

/* Frames that say little and mean much: what they hold is not even put together. */
static void test_size(void **state)
{
	struct guest_image image = {.kernel = good.kernel, .kernel_size = sizeof(good.kernel)};
	struct trace_machine tm = some_machine();
	struct trace_place end = whole_end();
	struct snapshots *t = new_tree();
	struct replay_file *file;
	struct index_figures f;
	struct trace_writer *w;
	struct err err = {0};
	int fd;

	(void)state;
	set_file(good.data, end.offset);
	fd = open(file_path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(trace_writer_continue(&w, fd, end, &err), 0);
	write_zeros(w, TRACE_CHECKPOINTS);
	assert_int_equal(index_load(t, file_path, &f, &err), -EFBIG);
	assert_non_null(strstr(err.text, "hindsight index makes them anew"));
	snapshots_destroy(t);

	tm.begun = true;
	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_int_equal(recorder_write_head(w, &tm, &image, &err), 0);
	write_zeros(w, TRACE_BEGIN);
	assert_int_equal(replay_file_open(&file, file_path, &err), -EFBIG);
	assert_non_null(strstr(err.text, "too much for its guest"));
}

static void assert_same_mark(const struct replay_mark *a, const struct replay_mark *b)
{
	assert_int_equal(a->next.pending, b->next.pending);
	assert_int_equal(a->next.consumed, b->next.consumed);
	assert_int_equal(a->next.frame.offset, b->next.frame.offset);
	assert_int_equal(a->next.frame.sequence, b->next.frame.sequence);
	assert_int_equal(a->next.frame.ended, b->next.frame.ended);
	assert_memory_equal(&a->next.codec, &b->next.codec, sizeof(a->next.codec));
}

/* A place in the log that comes from a file may be anything. */
static void test_marks(void **state)
{
	struct replay_file *f;
	uint64_t random = 31;
	unsigned sought = 0;
	struct err err;

	(void)state;
	set_file(good.data, good.size);
	assert_int_equal(replay_file_open(&f, file_path, &err), 0);
	for (unsigned i = 0; i < MARKS; i++) {
		struct replay_mark mark = {.next = replay_file_tell(f)}, back;
		struct event e;
		struct buf b = {0};
		struct reader r;
		int rc;

		for (uint64_t n = random_below(&random, 3); n; n--)
			switch (random_below(&random, 4)) {
			case 0:
				mark.next.frame.offset = random_below(&random, 2)
								 ? good.frame_start[random_below(&random, good.n_frames)]
								 : random_value(&random);
				break;
			case 1:
				mark.next.frame.sequence = random_below(&random, good.n_frames);
				break;
			case 2:
				mark.next.consumed = random_value(&random);
				break;
			default:
				mark.next.pending = !mark.next.pending;
			}
		replay_mark_encode(&mark, &b);
		assert_int_equal(b.len, REPLAY_SAVED_SIZE - 8);
		b.len -= random_below(&random, 10) == 0;
		r = reader_init(b.data, b.len);
		rc = replay_mark_decode(&r, &back, &err);
		if (rc == 0)
			assert_same_mark(&back, &mark);
		if (rc == 0)
			rc = replay_file_seek(f, &back.next, &err);
		if (rc == 0)
			rc = replay_file_next(f, &e, &err);
		if (rc < 0)
			assert_explained(rc, &err);
		sought += rc > 0;
		buf_free(&b);
		/* From a good place again, now and then. */
		if (rc <= 0) {
			replay_file_close(f);
			assert_int_equal(replay_file_open(&f, file_path, &err), 0);
		}
	}
	replay_file_close(f);
	assert_true(sought > MARKS / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_begin),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, trace_setup, trace_teardown);
}
