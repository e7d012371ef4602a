// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * replay/approach.h against simulated guests, whose pace changes at known counts: the place is reached without being run
 * past, in few stops, also where the guest has been slower by far; where lateness or pace are beyond foreseeing, growing
 * caution ends it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/types.h"
#include "replay/approach.h"
#include "tests/unit/random_event.h"

#define FASTEST 770.0
#define STOP_NS 10000.0
#define STRETCHES_MAX 8
/* As replay/replay.c. */
#define CAUTION_GROWTH 4

struct stretch {
	uint64_t counts;
	double ns; /* each */
};

struct guest {
	struct stretch stretch[STRETCHES_MAX]; /* the last goes on for ever */
	double late_ns;			       /* kicks come late by up to this */
	uint64_t random;
};

static double at_ns; /* the guest's time */

static uint64_t now(void)
{
	return (uint64_t)at_ns;
}

static double pace_at(const struct guest *g, uint64_t count)
{
	for (unsigned i = 0; i + 1 < STRETCHES_MAX && g->stretch[i + 1].counts; i++) {
		if (count < g->stretch[i].counts)
			return g->stretch[i].ns;
		count -= g->stretch[i].counts;
	}
	for (unsigned i = STRETCHES_MAX; i-- > 0;)
		if (g->stretch[i].counts)
			return g->stretch[i].ns;
	return 0;
}

/* From `count` for so long; kicks come between instructions. */
static uint64_t run(struct guest *g, uint64_t count, double ns)
{
	double end = at_ns + ns + (double)random_below(&g->random, (uint64_t)g->late_ns + 1);

	while (at_ns < end)
		at_ns += pace_at(g, count++);
	return count;
}

struct way {
	bool passed;
	uint64_t stops, runs;
};

/* From count 0 to `to`, the last counts one by one. */
static struct way go(struct guest *g, struct approach *a, uint64_t to, double caution)
{
	struct way w = {0};
	uint64_t at = 0;

	approach_begin(a);
	while (at < to) {
		uint64_t wait = approach_run(a, to - at, 0, caution, at);

		w.stops++;
		if (wait) {
			w.runs++;
			at = run(g, at, (double)wait);
			approach_stopped(a, at);
		} else {
			at_ns += pace_at(g, at++) + STOP_NS;
		}
	}
	w.passed = at > to;
	return w;
}

static struct approach begin(void)
{
	struct approach a;

	approach_init(&a, APPROACH_LANDMARK, FASTEST, now);
	return a;
}

static void test_steady(void **state)
{
	static const double paces[] = {1, 1.3, 2, 5};
	static const uint64_t ways[] = {1, 100, 5000, 700000, 12253034};

	(void)state;
	for (size_t p = 0; p < ARRAY_SIZE(paces); p++) {
		struct guest g = {.stretch = {{1, FASTEST * paces[p]}}, .late_ns = 30000};
		struct approach a = begin();

		for (unsigned round = 0; round < 3; round++)
			for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
				struct way w = go(&g, &a, ways[i], 1);

				assert_false(w.passed);
				assert_true(w.runs < 100);
				assert_true(w.stops - w.runs < 300);
			}
	}
}

/* The start of a kernel: it clears its memory by a few instructions that take a second. */
static void test_string_instructions(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct guest g = {.stretch = {{40, FASTEST}, {1000, 1e6}, {1, FASTEST}}, .late_ns = 20000, .random = seed};
		struct approach a = begin();

		assert_false(go(&g, &a, 9389, 1).passed);
		/* And what it has learnt is no harm to the next, which is far. */
		g.stretch[0] = (struct stretch){1, FASTEST};
		g.stretch[1] = g.stretch[2] = (struct stretch){0};
		assert_false(go(&g, &a, 1000000, 1).passed);
	}
}

/* Long stretches, each of them measured. */
static void test_slow_before_fast(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct guest g = {.stretch = {{1000000, FASTEST * 30}, {1, FASTEST}}, .late_ns = 20000, .random = seed};
		struct approach a = begin();

		assert_false(go(&g, &a, 1100000, 1).passed);
	}
}

/* The host was busy when it was probed; and a run that ends beyond a boundary teaches nothing. */
static void test_too_slow_a_probe(void **state)
{
	double caution = 1;

	(void)state;
	for (;; caution *= CAUTION_GROWTH) {
		struct guest g = {.stretch = {{1, FASTEST}}, .late_ns = 20000};
		struct approach a;

		approach_init(&a, APPROACH_LANDMARK, FASTEST * 20, now);
		if (!go(&g, &a, 10000000, caution).passed)
			break;
	}
	assert_true(caution > 1 && caution <= 64);
}

/* Kicks as late as they like, any paces, also faster than the host seemed: until no run is free. */
static void test_caution(void **state)
{
	uint64_t random = 1, passed = 0, most = 0;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		struct guest g = {.late_ns = (double)random_below(&random, 5000000), .random = round};
		struct approach a = begin();
		uint64_t to = 1 + random_below(&random, 20000);
		double caution = 1;
		struct way w;

		for (unsigned i = 0; i < STRETCHES_MAX; i++)
			g.stretch[i] = (struct stretch){1 + random_below(&random, 10000),
							FASTEST / 100 * (double)(1ull << random_below(&random, 20))};
		while ((w = go(&g, &a, to, caution)).passed) {
			passed++;
			assert_true(caution < APPROACH_CAUTION_MAX);
			caution *= CAUTION_GROWTH;
			most = (uint64_t)caution > most ? (uint64_t)caution : most;
		}
		if (caution >= APPROACH_CAUTION_MAX)
			assert_int_equal(w.runs, 0);
	}
	/* The trouble was real. */
	assert_true(passed > 50 && most >= 16);
}

static void test_no_run_at_the_end_of_caution(void **state)
{
	struct approach a = begin();

	(void)state;
	assert_true(approach_run(&a, 1ull << 40, 0, APPROACH_CAUTION_MAX / CAUTION_GROWTH, 0) > 0);
	assert_int_equal(approach_run(&a, 1ull << 40, 0, APPROACH_CAUTION_MAX, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steady),
		cmocka_unit_test(test_string_instructions),
		cmocka_unit_test(test_slow_before_fast),
		cmocka_unit_test(test_too_slow_a_probe),
		cmocka_unit_test(test_caution),
		cmocka_unit_test(test_no_run_at_the_end_of_caution),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
