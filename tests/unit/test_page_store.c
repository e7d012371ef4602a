// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The page store and the page maps against plain arrays, with so little memory that pages are
 * compressed and spilled all the time.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "snapshot/map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUDGET (512ull << 10)
#define HELD 400
#define KINDS 700
#define OPERATIONS 20000
#define MAPS 8
#define MAP_PAGES 6000
#define MAP_OPERATIONS 4000

static uint64_t random_state = 77;

/* xorshift64 (Marsaglia 2003). */
static uint64_t below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

static struct page_store *open_store(uint64_t budget)
{
	struct page_store *s;
	struct err err;

	assert_int_equal(page_store_create(&s, budget, "/tmp", &err), 0);
	return s;
}

static struct page_store_figures figures(const struct page_store *s)
{
	struct page_store_figures f;

	page_store_figures(s, &f);
	return f;
}

/* Content number `kind`: 0 is zeros, some compress well, some not at all, some differ in one byte
 * only. */
static void make_page(uint64_t kind, uint8_t page[PAGE_SIZE])
{
	uint64_t x = kind / 2 + 1;

	memset(page, 0, PAGE_SIZE);
	if (kind % 3 == 1)
		for (size_t i = 0; i < PAGE_SIZE; i++) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			page[i] = (uint8_t)(x >> 56);
		}
	if (kind)
		memcpy(page + kind % 7 * 500, &kind, sizeof(kind));
}

static void assert_content(struct page_store *s, page_id id, uint64_t kind)
{
	uint8_t want[PAGE_SIZE];
	const uint8_t *data;
	struct err err;

	make_page(kind, want);
	if (page_store_view(s, id, &data, &err) < 0)
		fail_msg("%s", err.text);
	assert_memory_equal(data, want, PAGE_SIZE);
}

static page_id put(struct page_store *s, uint64_t kind)
{
	uint8_t page[PAGE_SIZE];
	struct err err;
	page_id id;

	make_page(kind, page);
	if (page_store_put(s, page, &id, &err) < 0)
		fail_msg("%s", err.text);
	return id;
}

static void test_store_against_model(void **state)
{
	struct page_store *s = open_store(BUDGET);
	struct {
		page_id id;
		uint64_t kind;
	} held[HELD];
	unsigned n = 0, refs[KINDS] = {0};
	page_id id_of[KINDS] = {0};
	uint64_t distinct = 0, spilled = 0, compressed = 0;

	(void)state;
	for (unsigned op = 0; op < OPERATIONS; op++) {
		uint64_t i = n ? below(n) : 0, kind;

		if (n < HELD && below(5) < 3) {
			kind = below(KINDS);
			held[n].kind = kind;
			held[n].id = put(s, kind);
			/* The same content is the same page. */
			if (refs[kind])
				assert_int_equal(held[n].id, id_of[kind]);
			assert_int_equal(held[n].id == PAGE_ZEROS, kind == 0);
			id_of[kind] = held[n].id;
			distinct += kind && !refs[kind]++;
			n++;
		} else if (n && below(2)) {
			kind = held[i].kind;
			page_store_unref(s, held[i].id);
			distinct -= kind && !--refs[kind];
			held[i] = held[--n];
		} else if (n && n < HELD) {
			page_store_ref(s, held[i].id);
			refs[held[i].kind] += held[i].kind != 0;
			held[n++] = held[i];
		}
		if (n) {
			i = below(n);
			assert_content(s, held[i].id, held[i].kind);
		}
		assert_int_equal(figures(s).pages, distinct);
		assert_true(figures(s).memory <= BUDGET);
		spilled += figures(s).spilled;
		compressed += figures(s).compressed;
	}
	assert_true(spilled && compressed);
	while (n)
		page_store_unref(s, held[--n].id);
	assert_int_equal(figures(s).pages, 0);
	assert_int_equal(figures(s).spill, 0);
	page_store_destroy(s);
}

static void test_budget(void **state)
{
	struct page_store *s = open_store(BUDGET);
	struct page_store_figures before;
	struct err err;
	page_id id;

	(void)state;
	for (uint64_t kind = 1; kind <= 100; kind++)
		put(s, kind);
	before = figures(s);
	/* All pages give way; what is more than the budget does not fit. */
	assert_int_equal(page_store_reserve(s, BUDGET, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "--snapshot-memory"));
	assert_int_equal(page_store_reserve(s, BUDGET / 2, &err), 0);
	assert_int_equal(figures(s).pages, before.pages);
	for (page_id i = 1; i <= 100; i++)
		assert_content(s, i, i);
	page_store_release(s, BUDGET / 2);
	page_store_destroy(s);

	/* Nowhere to spill to: refused, and nothing changes. */
	assert_int_equal(page_store_create(&s, BUDGET, "/nonexistent", &err), 0);
	for (uint64_t kind = 1;; kind += 3) {
		uint8_t page[PAGE_SIZE];

		make_page(kind, page);
		before = figures(s);
		if (page_store_put(s, page, &id, &err) == 0)
			continue;
		assert_non_null(strstr(err.text, "/nonexistent"));
		assert_int_equal(figures(s).pages, before.pages);
		break;
	}
	assert_content(s, 1, 1);
	page_store_destroy(s);
}

/* Write over the first pages of every file of this process that has no name. */
static unsigned damage_spill_files(void)
{
	char name[300], target[300];
	unsigned damaged = 0;
	struct dirent *e;
	DIR *d = opendir("/proc/self/fd");

	assert_non_null(d);
	while ((e = readdir(d))) {
		ssize_t n;
		int fd;

		snprintf(name, sizeof(name), "/proc/self/fd/%s", e->d_name);
		n = readlink(name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		if (strncmp(target, "/tmp/", 5) != 0 || !strstr(target, "(deleted)"))
			continue;
		fd = open(name, O_WRONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		damaged += pwrite(fd, "damaged", 7, 1000) == 7;
		close(fd);
	}
	closedir(d);
	return damaged;
}

static void test_damage_is_noticed(void **state)
{
	struct page_store *s = open_store(BUDGET);
	const uint8_t *data;
	unsigned bad = 0;
	struct err err;

	(void)state;
	for (uint64_t kind = 1; kind <= 300; kind++)
		put(s, kind);
	assert_true(figures(s).spilled > 10);
	assert_int_equal(damage_spill_files(), 1);
	for (page_id id = 1; id <= 300; id++) {
		int rc = page_store_view(s, id, &data, &err);

		if (rc == 0)
			assert_content(s, id, id);
		else
			assert_int_equal(rc, -EIO);
		bad += rc < 0;
	}
	assert_int_equal(bad, 1);
	page_store_destroy(s);
}

static void churn(struct page_store *s, uint64_t from)
{
	for (uint64_t kind = from; kind < from + 200; kind++)
		page_store_unref(s, put(s, kind));
	for (uint64_t kind = from; kind < from + 200; kind++)
		put(s, kind);
}

/* After a fork both go on, and neither spoils what the other has spilled. */
static void test_fork(void **state)
{
	struct page_store *s = open_store(BUDGET);
	pid_t child;
	int status;

	(void)state;
	for (uint64_t kind = 1; kind <= 300; kind++)
		put(s, kind);
	page_store_seal(s);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		page_store_inherit(s);
	for (page_id id = 1; id <= 300; id += 2)
		page_store_unref(s, id);
	churn(s, child ? 10000 : 20000);
	for (page_id id = 2; id <= 300; id += 2)
		assert_content(s, id, id);
	if (child == 0)
		_exit(0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	for (page_id id = 2; id <= 300; id += 2)
		assert_content(s, id, id);
	page_store_destroy(s);
}

/* --- Maps ------------------------------------------------------------------------------------ */

struct model {
	struct page_map map;
	uint16_t kind[MAP_PAGES];
};

/* Pages in a map lie scattered, at the ends of leaves too. */
static uint64_t page_at(uint64_t i)
{
	return i % 2 ? i : MAP_PAGES_MAX - 1 - i * 37;
}

static int on_difference(void *ctx, uint64_t page, page_id a, page_id b, struct err *err)
{
	uint64_t *differences = ctx;

	(void)page;
	(void)err;
	assert_int_not_equal(a, b);
	++*differences;
	return 0;
}

static void check_maps(struct page_store *s, const struct model *a, const struct model *b)
{
	uint64_t expected = 0, found = 0;
	struct err err;

	for (uint64_t i = 0; i < MAP_PAGES; i++) {
		page_id x = page_map_get(&a->map, page_at(i));

		if (i % 97 == 0)
			assert_content(s, x, a->kind[i]);
		assert_int_equal(x == PAGE_ZEROS, a->kind[i] == 0);
		assert_int_equal(x == page_map_get(&b->map, page_at(i)), a->kind[i] == b->kind[i]);
		expected += a->kind[i] != b->kind[i];
	}
	assert_int_equal(page_map_diff(&a->map, &b->map, on_difference, &found, &err), 0);
	assert_int_equal(found, expected);
}

static void set(struct page_store *s, struct model *m, uint64_t i, uint64_t kind)
{
	struct err err;

	assert_int_equal(page_map_set(&m->map, s, page_at(i), put(s, kind), &err), 0);
	m->kind[i] = (uint16_t)kind;
}

static void test_maps_against_model(void **state)
{
	static struct model m[MAPS];
	struct page_store *s = open_store(64ull << 20);
	uint64_t empty;

	(void)state;
	page_store_unref(s, put(s, 1));
	empty = figures(s).memory;
	for (unsigned op = 0; op < MAP_OPERATIONS; op++) {
		struct model *a = &m[below(MAPS)], *b = &m[below(MAPS)];
		uint64_t from = below(MAP_PAGES), n = below(40);

		if (below(10) == 0 && a != b) {
			page_map_drop(&a->map, s);
			*a = *b;
			a->map = page_map_copy(&b->map);
		}
		for (uint64_t i = from; i < from + n && i < MAP_PAGES; i++)
			set(s, a, i, below(3) ? below(KINDS) : 0);
		if (op % 40 == 0)
			check_maps(s, a, b);
	}
	for (unsigned i = 0; i < MAPS; i++)
		page_map_drop(&m[i].map, s);
	assert_int_equal(figures(s).pages, 0);
	/* The tables of the store stay as large as they were. */
	assert_true(figures(s).memory - empty < 1u << 20);
	page_store_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_against_model), cmocka_unit_test(test_budget),
		cmocka_unit_test(test_damage_is_noticed),   cmocka_unit_test(test_fork),
		cmocka_unit_test(test_maps_against_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
