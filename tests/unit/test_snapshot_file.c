// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The snapshot file: what is exported is imported; whatever is done to the file, it is refused with
 * a sentence that names what is damaged, and leaves nothing behind; an export that is cut short
 * leaves the old file as it was.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "snapshot/format.h"
#include "snapshot/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DAMAGES 10000
#define HOSTILE 10000
#define KILLS 40
#define MEM_SIZE (MEMORY_LOW_MAX + (8ull << 20))
#define BUDGET (8ull << 20)
#define NODES 5
#define PAGES 6
#define STATE_LEN 5000
#define RECORDS_MAX 100
#define FILE_MAX (256u << 10)

static uint64_t random_state = 5;
static char dir[64], path[128], path_2[128];

/* A file as it was written, and where its records begin. */
static struct {
	uint8_t data[FILE_MAX];
	size_t size;
	size_t record[RECORDS_MAX + 1];
	unsigned records;
} good;

/* The file under test lies in memory; it is opened by its name in /proc. */
static int memory_fd;
static char memory_path[64];

/* xorshift64 (Marsaglia 2003). */
static uint64_t below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

#define assert_ok(rc, err)                                                                         \
	do {                                                                                       \
		if ((rc) < 0)                                                                      \
			fail_msg("%s", (err).text);                                                \
	} while (0)

static struct snapshots *new_tree(void)
{
	struct snapshots *t;
	struct err err;

	assert_ok(snapshots_create(&t, BUDGET, dir, &err), err);
	return t;
}

static uint64_t random_page(void)
{
	/* In both slots, and at their ends. */
	uint64_t pages = MEM_SIZE >> PAGE_SHIFT, hole = MEMORY_LOW_MAX >> PAGE_SHIFT;

	switch (below(4)) {
	case 0:
		return pages - 1 - below(3);
	case 1:
		return hole - 2 + below(4);
	default:
		return below(pages);
	}
}

static void set_page(struct snapshots *t, struct snapshot *s, uint64_t page, uint8_t seed)
{
	uint8_t data[PAGE_SIZE] = {0};
	struct err err;
	page_id id;

	/* Little, so that the file is small, but no two pages alike; seed 0: zeros. */
	if (seed)
		snprintf((char *)data, 64, "page %u", seed);
	for (size_t i = 100; seed > 230 && i < PAGE_SIZE; i++)
		data[i] = (uint8_t)below(256);
	assert_ok(page_store_put(t->store, data, &id, &err), err);
	assert_ok(page_map_set(&s->map, t->store, page, id, &err), err);
}

/* A tree with nodes made by hand: no machine is needed for its files. */
static struct snapshots *some_tree(unsigned nodes)
{
	struct snapshots *t = new_tree();

	t->mem_size = MEM_SIZE;
	t->layout = 12345;
	for (unsigned i = 0; i < nodes; i++) {
		char label[32], data[32];
		struct snapshot_note note = {label, data, below(sizeof(data))};
		uint8_t *state = malloc(STATE_LEN);
		struct snapshot *s;
		struct err err;

		snprintf(label, sizeof(label), "label %u", i);
		memset(data, (int)i, sizeof(data));
		assert_non_null(state);
		memset(state, (int)i, STATE_LEN);
		assert_ok(snapshot_new(t, &note, &s, &err), err);
		assert_ok(snapshot_give_state(t, s, state, STATE_LEN - below(100), &err), err);
		s->boundary = below(1000);
		s->vtime = below(1000);
		s->parent = i ? snapshots_find(t, 1 + below(i)) : NULL;
		if (s->parent)
			s->map = page_map_copy(&s->parent->map);
		snapshot_insert(t, s);
		for (unsigned n = 0; n < PAGES; n++)
			set_page(t, s, random_page(), (uint8_t)below(256));
	}
	return t;
}

static void assert_equal_nodes(const struct snapshots *ta, const struct snapshot *a,
			       const struct snapshots *tb, const struct snapshot *b)
{
	assert_memory_equal(&a->uid, &b->uid, sizeof(a->uid));
	assert_string_equal(a->label, b->label);
	assert_int_equal(a->boundary, b->boundary);
	assert_int_equal(a->vtime, b->vtime);
	assert_int_equal(a->data_len, b->data_len);
	assert_memory_equal(a->data, b->data, a->data_len);
	assert_int_equal(a->state_len, b->state_len);
	assert_memory_equal(a->state, b->state, a->state_len);
	assert_int_equal(snapshot_map_sum(ta, &a->map), snapshot_map_sum(tb, &b->map));
}

static void assert_equal_trees(const struct snapshots *a, const struct snapshots *b)
{
	const struct snapshot *x = a->first, *y = b->first;

	assert_int_equal(a->count, b->count);
	for (; x; x = x->next, y = y->next) {
		assert_equal_nodes(a, x, b, y);
		assert_int_equal(!x->parent, !y->parent);
		if (x->parent)
			assert_memory_equal(&x->parent->uid, &y->parent->uid, sizeof(x->uid));
	}
}

static int import(struct snapshots *t, const char *from, struct err *err)
{
	struct snapshot *last;

	err->text[0] = 0;
	return snapshots_import(t, from, NULL, NULL, &last, err);
}

static void assert_nothing_left(struct snapshots *t)
{
	struct page_store_figures f;

	assert_int_equal(t->count, 0);
	assert_null(t->first);
	page_store_figures(t->store, &f);
	assert_int_equal(f.pages, 0);
}

/* --- Round trips ----------------------------------------------------------------------------- */

struct about {
	const char *want;
	int rc;
};

static int check_about(void *ctx, const void *about, size_t len, struct err *err)
{
	const struct about *a = ctx;

	assert_int_equal(len, strlen(a->want));
	assert_memory_equal(about, a->want, len);
	return a->rc < 0 ? err_set(err, -a->rc, "not this one") : 0;
}

static void test_round_trip(void **state)
{
	struct about about = {.want = "a machine"};
	struct snapshot_export all = {.about = "a machine", .about_len = 9};
	struct snapshots *a = some_tree(30), *b = new_tree();
	struct snapshot *last;
	struct err err;

	(void)state;
	assert_ok(snapshots_export(a, path, &all, &err), err);
	about.rc = -EINVAL;
	assert_int_equal(snapshots_import(b, path, check_about, &about, &last, &err), -EINVAL);
	assert_nothing_left(b);
	about.rc = 0;
	assert_ok(snapshots_import(b, path, check_about, &about, &last, &err), err);
	assert_ptr_equal(last, b->last);
	assert_equal_trees(a, b);
	snapshots_destroy(b);
	snapshots_destroy(a);
}

static void test_one_chain_and_increment(void **state)
{
	struct snapshots *a = some_tree(12), *b = new_tree(), *c = new_tree();
	struct snapshot *deep = a->last, *s;
	struct snapshot_export one = {.last = deep}, chain = {.last = deep, .chain = true};
	struct snapshot_export rest = {.base = a->first};
	uint64_t depth = 0;
	struct err err;

	(void)state;
	while (!deep->parent || !deep->parent->parent)
		deep = deep->prev;
	one.last = chain.last = deep;
	for (s = deep; s; s = s->parent)
		depth++;
	assert_ok(snapshots_export(a, path, &one, &err), err);
	assert_ok(import(b, path, &err), err);
	assert_int_equal(b->count, 1);
	assert_null(b->first->parent);
	assert_equal_nodes(a, deep, b, b->first);

	assert_ok(snapshots_export(a, path, &chain, &err), err);
	assert_ok(import(c, path, &err), err);
	assert_int_equal(c->count, depth);
	assert_equal_nodes(a, deep, c, c->last);
	snapshots_destroy(c);

	/* All but the root, which whoever has it can read. */
	c = new_tree();
	one.last = a->first;
	assert_ok(snapshots_export(a, path, &rest, &err), err);
	assert_int_equal(import(c, path, &err), -ENOENT);
	assert_non_null(strstr(err.text, "import that first"));
	assert_nothing_left(c);
	assert_ok(snapshots_export(a, path_2, &one, &err), err);
	assert_ok(import(c, path_2, &err), err);
	/* Under the same name, but with other content. */
	set_page(c, c->first, 77, 7);
	assert_int_equal(import(c, path, &err), -EINVAL);
	assert_int_equal(import(c, path_2, &err), -EEXIST);
	assert_int_equal(c->count, 1);
	snapshot_delete(c, c->first);
	assert_ok(import(c, path_2, &err), err);
	assert_ok(import(c, path, &err), err);
	assert_equal_trees(a, c);
	snapshots_destroy(a);
	snapshots_destroy(b);
	snapshots_destroy(c);
}

static void test_other_machine(void **state)
{
	struct snapshots *a = some_tree(2), *b = some_tree(1);
	struct snapshot_export all = {0};
	struct err err;

	(void)state;
	assert_ok(snapshots_export(a, path, &all, &err), err);
	b->layout++;
	assert_int_equal(import(b, path, &err), -EINVAL);
	b->layout--;
	b->mem_size -= 1u << 20;
	assert_int_equal(import(b, path, &err), -EINVAL);
	assert_int_equal(b->count, 1);
	snapshots_destroy(a);
	snapshots_destroy(b);
}

/* --- Damage ---------------------------------------------------------------------------------- */

static uint32_t u32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t u64_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void load_good(void)
{
	struct snapshots *t = some_tree(NODES);
	struct snapshot_export all = {.about = "machine", .about_len = 7};
	struct err err;
	ssize_t n;
	int fd;

	assert_ok(snapshots_export(t, path, &all, &err), err);
	snapshots_destroy(t);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	n = read(fd, good.data, FILE_MAX);
	assert_true(n > 0 && n < (ssize_t)FILE_MAX);
	close(fd);
	good.size = (size_t)n;
	good.records = 0;
	for (size_t at = SNAPSHOT_HEADER_SIZE; at < good.size;) {
		assert_true(good.records < RECORDS_MAX);
		good.record[good.records++] = at;
		at += RECORD_HEAD_SIZE + u32_at(good.data + at + 8);
	}
	good.record[good.records] = good.size;
}

static void set_file(const void *data, size_t size)
{
	assert_int_equal(ftruncate(memory_fd, 0), 0);
	assert_int_equal(pwrite(memory_fd, data, size, 0), (ssize_t)size);
}

/* Refused as damaged, and nothing of it is left. */
static void assert_refused(struct snapshots *t, struct err *err)
{
	int rc = import(t, memory_path, err);

	if (rc != -EBADMSG)
		fail_msg("%d: %s", rc, err->text);
	assert_true(err->text[0]);
	assert_nothing_left(t);
}

static void test_truncated(void **state)
{
	struct snapshots *t = new_tree();
	struct err err;

	(void)state;
	for (size_t size = 0; size < good.size; size += 1 + below(30)) {
		set_file(good.data, size);
		assert_refused(t, &err);
	}
	set_file(good.data, good.size);
	assert_ok(import(t, memory_path, &err), err);
	snapshots_destroy(t);
}

/* The byte at `at` is wrong: does the sentence say where? */
static void assert_named(size_t at, const struct err *err)
{
	char where[64];
	unsigned r = 0;
	const uint8_t *head;

	if (at < SNAPSHOT_HEADER_SIZE)
		return;
	while (good.record[r + 1] <= at)
		r++;
	head = good.data + good.record[r];
	snprintf(where, sizeof(where), "at byte %zu", good.record[r]);
	if (!strstr(err->text, where))
		fail_msg("damage at %zu, in the record at %zu: %s", at, good.record[r], err->text);
	if (at < good.record[r] + RECORD_HEAD_SIZE)
		snprintf(where, sizeof(where), "the head of record %u", r);
	else if (head[4] == RECORD_PAGE)
		snprintf(where, sizeof(where), "page 0x%" PRIx64, u64_at(head + 24));
	else
		return;
	if (!strstr(err->text, where))
		fail_msg("damage at %zu, in \"%s\": %s", at, where, err->text);
}

static void test_damaged(void **state)
{
	static uint8_t data[FILE_MAX];
	struct snapshots *t = new_tree();
	struct err err;

	(void)state;
	for (unsigned i = 0; i < DAMAGES; i++) {
		size_t at = below(good.size), n = 1 + below(i % 3 ? 1 : 64);

		memcpy(data, good.data, good.size);
		for (size_t k = at; k < at + n && k < good.size; k++)
			data[k] ^= (uint8_t)(1 + below(255));
		set_file(data, good.size);
		assert_refused(t, &err);
		assert_named(at, &err);
	}
	snapshots_destroy(t);
}

/* Records that are gone, twice there, or change places. */
static void test_shuffled(void **state)
{
	static uint8_t data[2 * FILE_MAX];
	struct snapshots *t = new_tree();
	struct err err;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		unsigned from = (unsigned)below(good.records), to = (unsigned)below(good.records);
		size_t len = SNAPSHOT_HEADER_SIZE;

		memcpy(data, good.data, len);
		for (unsigned r = 0; r < good.records; r++) {
			unsigned take = r == from ? to : r == to && i % 2 ? from : r;
			size_t n = good.record[take + 1] - good.record[take];

			if (from == to && r == from)
				continue;
			memcpy(data + len, good.data + good.record[take], n);
			len += n;
		}
		set_file(data, len);
		assert_refused(t, &err);
	}
	memcpy(data, good.data, good.size);
	data[good.size] = 0;
	set_file(data, good.size + 1);
	assert_refused(t, &err);
	snapshots_destroy(t);
}

static void seal(uint8_t *head, size_t stored)
{
	uint64_t sum = XXH64(head + RECORD_HEAD_SIZE, stored, 0);

	memcpy(head + 32, &sum, sizeof(sum));
	sum = XXH64(head, RECORD_HEAD_CHECKED, 0);
	memcpy(head + 40, &sum, sizeof(sum));
}

/* With checksums that are right: whatever is said, it is refused or believed, in bounded memory. */
static void test_hostile(void **state)
{
	static uint8_t data[FILE_MAX];
	unsigned believed = 0;

	(void)state;
	for (unsigned i = 0; i < HOSTILE; i++) {
		struct snapshots *t = new_tree();
		unsigned r = (unsigned)below(good.records);
		uint8_t *head = data + good.record[r];
		size_t stored = good.record[r + 1] - good.record[r] - RECORD_HEAD_SIZE;
		struct page_store_figures f;
		struct err err;
		int rc;

		memcpy(data, good.data, good.size);
		for (uint64_t n = 1 + below(3); n; n--) {
			uint8_t *p = below(3) || !stored ? head + 4 + below(28)
							 : head + RECORD_HEAD_SIZE + below(stored);

			*p = below(3) ? (uint8_t)below(256) : below(2) ? 0xff : 0;
		}
		seal(head, stored);
		set_file(data, good.size);
		rc = import(t, memory_path, &err);
		if (rc < 0) {
			assert_true(err.text[0]);
			assert_nothing_left(t);
		}
		believed += rc == 0;
		page_store_figures(t->store, &f);
		assert_true(f.memory <= BUDGET);
		snapshots_destroy(t);
	}
	assert_true(believed > 0 && believed < HOSTILE);
}

/* --- The disk -------------------------------------------------------------------------------- */

static unsigned files_in_dir(void)
{
	DIR *d = opendir(dir);
	unsigned n = 0;
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void test_full_disk(void **state)
{
	struct snapshots *a = some_tree(20), *b = some_tree(20), *t;
	struct snapshot_export all = {0};
	struct rlimit usual, limit;
	unsigned files;
	struct err err;

	(void)state;
	assert_ok(snapshots_export(a, path, &all, &err), err);
	files = files_in_dir();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
	for (rlim_t size = 0; size < 100000; size += 9973) {
		int rc;

		limit = (struct rlimit){size, usual.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		rc = snapshots_export(b, path, &all, &err);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
		if (rc == 0)
			break;
		assert_int_equal(rc, -EFBIG);
		assert_int_equal(files_in_dir(), files);
		t = new_tree();
		assert_ok(import(t, path, &err), err);
		assert_equal_trees(a, t);
		snapshots_destroy(t);
	}
	assert_int_equal(snapshots_export(b, "/nonexistent/file", &all, &err), -ENOENT);
	snapshots_destroy(a);
	snapshots_destroy(b);
}

/* Killed at any moment: under the name is the old file or the new one. */
static void test_killed(void **state)
{
	struct snapshots *a = some_tree(20), *b = some_tree(40);
	struct snapshot_export all = {0};
	unsigned old = 0, new = 0;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < KILLS; i++) {
		struct timespec wait = {.tv_nsec = (long)below(12000000)};
		struct snapshots *t = new_tree();
		pid_t child;
		int status;

		assert_ok(snapshots_export(a, path, &all, &err), err);
		child = fork();
		assert_true(child >= 0);
		if (child == 0)
			_exit(snapshots_export(b, path, &all, &err) < 0);
		nanosleep(&wait, NULL);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
		assert_ok(import(t, path, &err), err);
		assert_equal_trees(t->count == a->count ? a : b, t);
		old += t->count == a->count;
		new += t->count == b->count;
		snapshots_destroy(t);
	}
	print_message("killed: %u times the old file, %u times the new one\n", old, new);
	assert_true(old > 0);
	snapshots_destroy(a);
	snapshots_destroy(b);
}

static void test_no_snapshot_file(void **state)
{
	struct snapshots *t = new_tree();
	struct snapshot_export all = {0};
	struct err err;

	(void)state;
	assert_int_equal(import(t, "/nonexistent", &err), -ENOENT);
	assert_int_equal(import(t, "/dev/null", &err), -EINVAL);
	assert_int_equal(import(t, "/proc/self/exe", &err), -EBADMSG);
	assert_int_equal(snapshots_export(t, path, &all, &err), -ENOENT);
	assert_nothing_left(t);
	snapshots_destroy(t);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/hindsight-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/one", dir);
	snprintf(path_2, sizeof(path_2), "%s/two", dir);
	memory_fd = memfd_create("snapshots", MFD_CLOEXEC);
	assert_true(memory_fd >= 0);
	snprintf(memory_path, sizeof(memory_path), "/proc/self/fd/%d", memory_fd);
	signal(SIGXFSZ, SIG_IGN);
	load_good();
	return 0;
}

static int tear_down(void **state)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	close(memory_fd);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_one_chain_and_increment),
		cmocka_unit_test(test_other_machine),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_shuffled),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_no_snapshot_file),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
