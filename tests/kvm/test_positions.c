// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A position is one state of the machine, however it was reached: at once, from another position
 * before it, or instruction by instruction; and stopping there leaves no trace in what follows.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kvm/recording.h"

#include <inttypes.h>

#define PLACES 8
#define STEPS_MAX 300
#define WALKS 4
#define WALK_STEPS 150
#define THROUGH 3
#define THROUGH_STEPS 1500

static struct recording rec;
static uint64_t random_state = 41;

static const struct position far_away = {.boundary = UINT64_MAX};

struct state {
	struct position at;
	struct machine_digest digest;
	struct kvm_regs regs;
};

static struct state look(struct replay *r)
{
	struct state s = {.at = replayer_position(r->replayer)};
	struct err err;

	assert_ok(machine_digest(r->machine, &s.digest, &err), err);
	s.regs = event_regs(&r->machine->vcpu[0]);
	return s;
}

static void run_to(struct replay *r, struct position to)
{
	struct err err;

	replay_set_target(r, to);
	assert_ok(replay_run(r, &err), err);
}

static struct state go_to(struct replay *r, struct position to)
{
	run_to(r, to);
	return look(r);
}

static struct state go_afresh(struct position to)
{
	struct replay_options options = {.has_target = true, .target = to};
	struct replay r;
	struct state s;
	struct err err;

	open_replay(&r, &rec, &options);
	assert_ok(replay_run(&r, &err), err);
	assert_int_equal(r.machine->end, END_NONE);
	s = look(&r);
	replay_close(&r);
	return s;
}

static void assert_same(const struct state *a, const struct state *b)
{
	if (a->at.boundary != b->at.boundary || a->at.steps != b->at.steps ||
	    a->digest.state != b->digest.state || a->digest.memory != b->digest.memory ||
	    memcmp(&a->regs, &b->regs, sizeof(a->regs)) != 0)
		fail_msg("%" PRIu64 "+%" PRIu64 " (rip 0x%llx, state %016" PRIx64
			 ", memory %016" PRIx64 ") is not %" PRIu64 "+%" PRIu64
			 " (rip 0x%llx, state %016" PRIx64 ", memory %016" PRIx64 ")",
			 a->at.boundary, a->at.steps, a->regs.rip, a->digest.state,
			 a->digest.memory, b->at.boundary, b->at.steps, b->regs.rip,
			 b->digest.state, b->digest.memory);
}

/* From where it stands to the end of the recording, which compares everything on the way. */
static void assert_ends_as_recorded(struct replay *r)
{
	const struct replay_counts *counts;
	struct err err;

	replay_set_target(r, far_away);
	assert_ok(replay_run(r, &err), err);
	assert_int_equal(r->machine->end, END_EXIT);
	assert_int_equal(r->machine->boundary, rec.boundaries);
	counts = replayer_counts(r->replayer);
	assert_int_equal(counts->landmarks + counts->digests + counts->inputs + counts->times + 1,
			 rec.n_events);
}

/* Every other one where a landmark lies, because interrupts come there. */
static uint64_t random_boundary(unsigned i)
{
	const struct event *e;

	if (i % 2)
		return random_below(&random_state, rec.boundaries - 1);
	do {
		e = &rec.events[random_below(&random_state, rec.n_events)];
	} while (e->type != EVENT_LANDMARK);
	return e->boundary;
}

static void test_same_from_scratch(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PLACES; i++) {
		struct position boundary = {random_boundary(i), 0}, inside = boundary;
		struct state a, b;

		inside.steps = 1 + random_below(&random_state, STEPS_MAX);
		a = go_afresh(boundary);
		b = go_afresh(boundary);
		assert_int_equal(a.at.boundary, boundary.boundary);
		assert_int_equal(a.at.steps, 0);
		assert_same(&a, &b);
		a = go_afresh(inside);
		b = go_afresh(inside);
		assert_same(&a, &b);
		/* Where there are fewer instructions, the next boundary comes first. */
		if (a.at.boundary == inside.boundary)
			assert_int_equal(a.at.steps, inside.steps);
		else
			assert_true(a.at.boundary == inside.boundary + 1 && a.at.steps == 0);
	}
}

/* In one replay from place to place, as compared with going to each by itself. */
static void test_on_the_way(void **state)
{
	struct replay_options options = {0};
	struct position at[PLACES];
	struct replay r;

	(void)state;
	for (unsigned i = 0; i < PLACES; i++) {
		at[i].boundary = random_boundary(i);
		at[i].steps = i % 4 ? random_below(&random_state, 20) : 0;
		for (unsigned j = i; j && at[j].boundary < at[j - 1].boundary; j--) {
			struct position swap = at[j];

			at[j] = at[j - 1];
			at[j - 1] = swap;
		}
	}
	open_replay(&r, &rec, &options);
	for (unsigned i = 0; i < PLACES; i++) {
		struct state here, alone;

		if (i && at[i].boundary <= at[i - 1].boundary + 1)
			continue;
		here = go_to(&r, at[i]);
		alone = go_afresh(at[i]);
		assert_same(&here, &alone);
	}
	assert_ends_as_recorded(&r);
	replay_close(&r);
}

static void test_stepping(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WALKS; i++) {
		struct position from = {random_boundary(i), 0}, to = from;
		struct state seen[WALK_STEPS + 1];
		struct replay_options options = {0};
		unsigned made = 0;
		struct replay r;

		from.steps = i < 2 ? 0 : 1 + random_below(&random_state, 5);
		to.steps = from.steps;
		open_replay(&r, &rec, &options);
		seen[0] = go_to(&r, from);
		while (made < WALK_STEPS && seen[made].at.boundary == from.boundary) {
			to.steps++;
			seen[++made] = go_to(&r, to);
		}
		for (unsigned k = 0; k < 4; k++) {
			unsigned n = k ? (unsigned)random_below(&random_state, made + 1) : made;
			struct position there = {from.boundary, from.steps + n};
			struct state direct = go_afresh(there);

			assert_same(&direct, &seen[n]);
		}
		assert_ends_as_recorded(&r);
		replay_close(&r);
	}
}

/*
 * One replay steps through a boundary, another runs through it: they end in the same state. Over interrupts,
 * system calls and page faults from user code, SSE state, self-made interrupt shadows, rewritten
 * and assisted instructions.
 */
static void test_stepped_through(void **state)
{
	static const char *const guests[] = {"user", "sse", "paging", "shadows", "instrs", "strings"};

	(void)state;
	for (unsigned g = 0; g < ARRAY_SIZE(guests); g++) {
		struct recording other;

		record_guest(&other, guests[g], "", -1);
		for (unsigned i = 0; i < THROUGH; i++) {
			struct position at = {random_below(&random_state, other.boundaries - 2), 0};
			struct replay_options options = {.has_target = true, .target = at};
			struct replay stepped, run;
			struct position next = {at.boundary + 1, 0};
			struct state a, b;

			open_replay(&stepped, &other, &options);
			open_replay(&run, &other, &options);
			run_to(&stepped, at);
			while (stepped.machine->boundary == at.boundary && at.steps < THROUGH_STEPS) {
				at.steps++;
				run_to(&stepped, at);
			}
			if (stepped.machine->boundary == at.boundary)
				run_to(&stepped, next);
			a = look(&stepped);
			b = go_to(&run, next);
			assert_same(&a, &b);
			replay_close(&stepped);
			replay_close(&run);
		}
		recording_free(&other);
	}
}

/* The first and the last place there is. */
static void test_ends(void **state)
{
	struct position start = {0, 0}, end = {rec.boundaries - 1, 0};
	struct replay_options options = {.has_target = true, .target = start};
	struct state a, b;
	struct replay r;
	struct err err;

	(void)state;
	open_replay(&r, &rec, &options);
	assert_ok(replay_run(&r, &err), err);
	assert_int_equal(r.machine->boundary, 0);
	a = look(&r);
	assert_int_equal(rec.events[0].type, EVENT_DIGEST);
	assert_int_equal(a.digest.state, rec.events[0].digest.digest.state);
	assert_int_equal(a.digest.memory, rec.events[0].digest.digest.memory);
	a = go_to(&r, end);
	b = go_afresh(end);
	assert_same(&a, &b);
	assert_ends_as_recorded(&r);
	replay_close(&r);
}

static int setup(void **state)
{
	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=8", -1);
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
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_from_scratch),
		cmocka_unit_test(test_on_the_way),
		cmocka_unit_test(test_stepping),
		cmocka_unit_test(test_stepped_through),
		cmocka_unit_test(test_ends),
	};
	int missing = kvm_missing("test_positions");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, setup, teardown);
}
