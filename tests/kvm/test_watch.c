// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What a watch reports against a model: a copy of the watched page that is written by the reports alone. What was
 * there before each store, and the page in the end, must be the same in both; so no store is left out, whether the
 * CPU makes it or an assist.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kvm/recording.h"

#include <inttypes.h>

/* In RAM that neither loader nor guest uses. */
#define PAGE_GPA 0x800000ull

static struct recording rec;

struct model {
	uint8_t page[PAGE_SIZE];
	unsigned stores;
	unsigned wide; /* second halves of what was stored in pieces */
	uint64_t next; /* where the last store ended */
};

static int on_store(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old,
		    uint64_t now, struct err *err)
{
	struct model *model = ctx;
	uint64_t was = 0;

	(void)m;
	(void)err;
	assert_in_range(gpa.v, PAGE_GPA, PAGE_GPA + PAGE_SIZE - len);
	assert_in_range(len, 1, 8);
	memcpy(&was, model->page + (gpa.v - PAGE_GPA), len);
	if (was != old)
		fail_msg("store %u at 0x%" PRIx64 ": 0x%" PRIx64 " was there, not 0x%" PRIx64,
			 model->stores, gpa.v, was, old);
	memcpy(model->page + (gpa.v - PAGE_GPA), &now, len);
	model->wide += len == 8 && gpa.v == model->next;
	model->next = gpa.v + len;
	model->stores++;
	return 0;
}

static void on_restart(void *ctx)
{
	memset(ctx, 0, sizeof(struct model));
}

static void test_every_store(void **state)
{
	static struct model model;
	struct replay_options options = {
		.watched = on_store,
		.restarted = on_restart,
		.watched_ctx = &model,
		.watch = GPA(PAGE_GPA),
		.watch_len = 8,
	};
	const uint8_t *page;
	struct replay r;
	struct err err;

	(void)state;
	open_replay(&r, &rec, &options);
	assert_ok(replay_run(&r, &err), err);
	assert_int_equal(r.machine->end, END_EXIT);
	assert_int_equal(r.machine->end_code, 0);
	page = memory_at(r.machine->mem, GPA(PAGE_GPA), PAGE_SIZE);
	assert_non_null(page);
	assert_memory_equal(page, model.page, PAGE_SIZE);
	assert_true(model.stores > 300);
	assert_true(model.wide > 30);
	replay_close(&r);
}

static int setup(void **state)
{
	(void)state;
	record_guest(&rec, "wide", "at=0x800000 n=300", -1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recording_free(&rec);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_store)};
	int missing = kvm_missing("test_watch");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, setup, teardown);
}
