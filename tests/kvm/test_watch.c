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
#include <limits.h>

/* In RAM that neither loader nor guest uses. */
#define PAGE_GPA 0x800000ull

/* A page of the buffers of the guest `strings`, which it fills by string instructions. */
#define STRINGS_GPA 0x10d000ull

struct model {
	uint64_t gpa;
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
	assert_in_range(gpa.v, model->gpa, model->gpa + PAGE_SIZE - len);
	assert_in_range(len, 1, 8);
	memcpy(&was, model->page + (gpa.v - model->gpa), len);
	if (was != old)
		fail_msg("store %u at 0x%" PRIx64 ": 0x%" PRIx64 " was there, not 0x%" PRIx64,
			 model->stores, gpa.v, was, old);
	memcpy(model->page + (gpa.v - model->gpa), &now, len);
	model->wide += len == 8 && gpa.v == model->next;
	model->next = gpa.v + len;
	model->stores++;
	return 0;
}

static void on_restart(void *ctx)
{
	struct model *model = ctx;

	*model = (struct model){.gpa = model->gpa};
}

/* Replay the recording with a page watched; all of it must agree, also the instruction count of each landmark. */
static void replay_watched(const struct recording *rec, struct model *model, bool use_clock)
{
	struct replay_options options = {
		.watched = on_store,
		.restarted = on_restart,
		.watched_ctx = model,
		.watch = GPA(model->gpa),
		.watch_len = 8,
	};
	const uint8_t *page;
	struct replay r;
	struct err err;
	int rc = replay_open(&r, rec->path, use_clock, &options, NULL, NULL, &err);

	assert_ok(rc, err);
	assert_ok(replay_run(&r, &err), err);
	assert_int_equal(r.machine->end, END_EXIT);
	assert_int_equal(r.machine->end_code, 0);
	page = memory_at(r.machine->mem, GPA(model->gpa), PAGE_SIZE);
	assert_non_null(page);
	assert_memory_equal(page, model->page, PAGE_SIZE);
	replay_close(&r);
}

static void test_every_store(void **state)
{
	static struct model model = {.gpa = PAGE_GPA};
	struct recording rec;

	(void)state;
	record_guest(&rec, "wide", "at=0x800000 n=300", -1);
	replay_watched(&rec, &model, true);
	assert_true(model.stores > 300);
	assert_true(model.wide > 30);
	recording_free(&rec);
}

static void test_string_instructions(void **state)
{
	struct model model[2] = {{.gpa = STRINGS_GPA}, {.gpa = STRINGS_GPA}};
	struct recording rec;

	(void)state;
	record_guest(&rec, "strings", "", -1);
	for (unsigned i = 0; i < 2; i++)
		replay_watched(&rec, &model[i], i == 0);
	assert_in_range(model[0].stores, PAGE_SIZE, UINT_MAX);
	assert_int_equal(model[0].stores, model[1].stores);
	recording_free(&rec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_store),
					   cmocka_unit_test(test_string_instructions)};
	int missing = kvm_missing("test_watch");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
