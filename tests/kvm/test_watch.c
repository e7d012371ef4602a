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

#include <errno.h>
#include <inttypes.h>
#include <limits.h>

/* In RAM that neither loader nor guest uses. */
#define PAGE_GPA 0x800000ull

/* A page of the buffers of the guest `strings`, which it fills by string instructions. */
#define STRINGS_GPA 0x10d000ull

/* The upper page of the stack on which guests run and take their exceptions (boot_stack_top in examples/lib/boot.S). */
#define STACK_GPA 0x10b000ull

static struct recording wide;

struct model {
	uint64_t gpa;
	uint8_t page[PAGE_SIZE];
	unsigned stores, loads;
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

static int on_load(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err)
{
	struct model *model = ctx;
	uint64_t is = 0;

	(void)m;
	(void)err;
	assert_in_range(gpa.v, PAGE_GPA, PAGE_GPA + PAGE_SIZE - len);
	assert_in_range(len, 1, 8);
	memcpy(&is, model->page + (gpa.v - PAGE_GPA), len);
	assert_int_equal(value, is);
	model->loads++;
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

	(void)state;
	replay_watched(&wide, &model, true);
	assert_true(model.stores > 300);
	assert_true(model.wide > 30);
}

static void test_string_instructions(void **state)
{
	struct model model[2] = {{.gpa = STRINGS_GPA}, {.gpa = STRINGS_GPA}};
	struct recording strings;

	(void)state;
	record_guest(&strings, "strings", "", -1);
	for (unsigned i = 0; i < 2; i++)
		replay_watched(&strings, &model[i], i == 0);
	assert_in_range(model[0].stores, PAGE_SIZE, UINT_MAX);
	assert_int_equal(model[0].stores, model[1].stores);
	recording_free(&strings);
}

/* Interrupts and page faults of kernel code push their frames to a page that is watched: each word is told, and the guest
 * handles the same faults at the same places. */
static void test_exceptions(void **state)
{
	struct model model[2] = {{.gpa = STACK_GPA}, {.gpa = STACK_GPA}};
	struct recording paging;

	(void)state;
	record_guest(&paging, "paging", "n=60", -1);
	for (unsigned i = 0; i < 2; i++)
		replay_watched(&paging, &model[i], i == 0);
	/* Two faults a round, with six words of a frame each. */
	assert_true(model[0].stores > 60 * 2 * 6);
	assert_int_equal(model[0].stores, model[1].stores);
	recording_free(&paging);
}

/*
 * With loads watched too the page is not there for KVM: the guest, which compares it with a model of its own in the end, must
 * not notice, nor must the digests that were recorded.
 */
static void test_every_load(void **state)
{
	static struct model model = {.gpa = PAGE_GPA};
	const struct replay_options options = {.watched = on_store, .loaded = on_load, .watched_ctx = &model};
	const struct memory_watch watch = {.gpa = GPA(PAGE_GPA), .len = 1, .loads = true};
	struct replay r;
	struct err err;
	int rc;

	(void)state;
	/* A run past a landmark, which can be, takes the watch away with the machine: then anew. */
	do {
		on_restart(&model);
		open_replay(&r, &wide, &options);
		assert_ok(memory_watch_all(r.machine->mem, &watch, 1, &err), err);
		rc = replayer_run(r.replayer, &err);
		if (rc == -EAGAIN)
			replay_close(&r);
	} while (rc == -EAGAIN);
	assert_ok(rc, err);
	assert_int_equal(r.machine->end, END_EXIT);
	assert_int_equal(r.machine->end_code, 0);
	assert_memory_equal(memory_at(r.machine->mem, GPA(PAGE_GPA), PAGE_SIZE), model.page, PAGE_SIZE);
	assert_true(model.stores > 300);
	/* The guest looks at each byte of it once, and at more by CMPXCHG16B. */
	assert_true(model.loads > PAGE_SIZE);
	replay_close(&r);
}

/* What cannot be watched is refused, and RAM is as before. */
static void test_refusals(void **state)
{
	struct memory_watch watches[2 * MEMORY_WATCHES_MAX + 2];
	const struct replay_options options = {0};
	struct replay r;
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(watches); i++)
		watches[i] = (struct memory_watch){.gpa = GPA(PAGE_GPA + 2 * i * PAGE_SIZE), .len = 8};
	open_replay(&r, &wide, &options);
	assert_int_equal(memory_watch_all(r.machine->mem, watches, ARRAY_SIZE(watches), &err), -E2BIG);
	watches[1].gpa = GPA(memory_size(r.machine->mem) - 4);
	assert_int_equal(memory_watch_all(r.machine->mem, watches, 2, &err), -EFAULT);
	watches[1].gpa = GPA(PAGE_GPA + 3 * PAGE_SIZE - 4);
	assert_ok(memory_watch_all(r.machine->mem, watches, 2, &err), err);
	assert_true(memory_is_watched(r.machine->mem, GPA(PAGE_GPA), 1));
	assert_false(memory_is_watched(r.machine->mem, GPA(PAGE_GPA + PAGE_SIZE), PAGE_SIZE));
	assert_true(memory_is_watched(r.machine->mem, GPA(PAGE_GPA + 2 * PAGE_SIZE), 2 * PAGE_SIZE));
	assert_false(memory_is_watched(r.machine->mem, GPA(PAGE_GPA + 4 * PAGE_SIZE), 1));
	/* As many as there can be, each in a page of its own, and the guest runs to its end. */
	watches[1].gpa = GPA(PAGE_GPA + 2 * PAGE_SIZE);
	assert_ok(memory_watch_all(r.machine->mem, watches, MEMORY_WATCHES_MAX, &err), err);
	assert_ok(replay_run(&r, &err), err);
	assert_int_equal(r.machine->end, END_EXIT);
	replay_close(&r);
}

static int setup(void **state)
{
	(void)state;
	record_guest(&wide, "wide", "at=0x800000 n=300", -1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recording_free(&wide);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_store),
					   cmocka_unit_test(test_string_instructions),
					   cmocka_unit_test(test_exceptions),
					   cmocka_unit_test(test_every_load), cmocka_unit_test(test_refusals)};
	int missing = kvm_missing("test_watch");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, setup, teardown);
}
