// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The estimator of replay/progress.h against simulated loops: a search as replay/landmark.c makes it, on a model whose
 * state at any pass and cost of a pass are known. No place may be run past where movement is steady, and few stops
 * may be needed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "replay/progress.h"
#include "tests/unit/random_event.h"

/* As landmark.c. */
#define FREE_MIN 500.0
#define STOPS_MAX 2000000

struct loop {
	/* The quantities at a pass. */
	void (*state)(uint64_t pass, uint64_t *q);
	unsigned count;
	double pass_ns;
	double entry_ns; /* a free run lasts so much shorter than the timer, as a host that enters slowly makes it */
	double noise_ns; /* and varies by this much */
};

struct search {
	uint64_t stops, runs;
	bool overrun;  /* the place was run past */
	bool noticed;  /* and the estimator says so */
};

static double noise(uint64_t *random, double ns)
{
	return ns * ((double)random_below(random, 2001) / 1000 - 1);
}

/* Search from pass `from` for pass `to`, with timers that come as late as the estimator believes. */
static struct search search_for(const struct loop *l, uint64_t from, uint64_t to, double caution, double pass_ns)
{
	uint64_t target[PROGRESS_MAX], now[PROGRESS_MAX];
	struct search s = {0};
	struct progress p;
	uint64_t random = to + 1;
	double slack = l->entry_ns * 2 + l->noise_ns * 2 + 1;

	l->state(to, target);
	progress_begin(&p, target, l->count, pass_ns);
	l->state(from, now);
	progress_sample(&p, now, 0, slack);
	while (from < to && s.stops < STOPS_MAX) {
		double ns = progress_allow(&p, caution), guest;

		s.stops++;
		if (ns < FREE_MIN) {
			l->state(++from, now);
			progress_sample(&p, now, 0, slack);
			continue;
		}
		s.runs++;
		guest = ns - l->entry_ns + noise(&random, l->noise_ns);
		if (guest < 0)
			guest = 0;
		from += (uint64_t)(guest / l->pass_ns) + 1;
		l->state(from, now);
		progress_sample(&p, now, guest + l->entry_ns / 2 + 500, slack);
		s.noticed = progress_overrun(&p);
	}
	s.overrun = from > to;
	return s;
}

static uint64_t scramble(uint64_t x)
{
	x *= 0x9e3779b97f4a7c15ull;
	return (x ^ x >> 29) * 0xbf58476d1ce4e5b9ull;
}

static void counter(uint64_t n, uint64_t *q)
{
	q[0] = 7;
	q[1] = scramble(n);
	q[2] = n;
}

static void pointer_down(uint64_t n, uint64_t *q)
{
	q[0] = 0xffff888000000000ull - 8 * n;
	q[1] = scramble(n) >> 33;
}

/* Through 0 of 64 bits. */
static void wraps(uint64_t n, uint64_t *q)
{
	q[0] = n - 100000;
	q[1] = n & 1;
}

/* Inner loops of 1,000 passes; the outer counter, and a sum that grows unevenly with it. */
static void nested(uint64_t n, uint64_t *q)
{
	q[0] = n % 1000;
	q[1] = n / 1000;
	q[2] = scramble(n);
	q[3] = n / 1000 * 40 + scramble(n / 1000) % 30;
}

/* Inner loops of 10 passes, as over the bytes of a header. */
static void nested_short(uint64_t n, uint64_t *q)
{
	q[0] = 0x1000 + n % 10 * 2;
	q[1] = n / 10 * 40 + scramble(n / 10) % 30;
	q[2] = scramble(n) & 0xffff;
}

/* An outer loop that is seen only when it moves: the inner ones take a million passes. */
static void nested_long(uint64_t n, uint64_t *q)
{
	q[0] = n % 1000000;
	q[1] = n / 1000000;
}

static void chaotic(uint64_t n, uint64_t *q)
{
	for (unsigned i = 0; i < 8; i++)
		q[i] = scramble(n * 8 + i);
}

/* Zeros first, then large numbers: what looks like the beginning of steady movement. */
static void grows(uint64_t n, uint64_t *q)
{
	q[0] = n < 6 ? 0 : n < 12 ? 1ull << 4 * (n - 5) : scramble(n);
	q[1] = n < 10 ? n * n : scramble(n) >> 3;
}

/* The paces, ns a pass, of an emulated, an ordinary and a very fast host. */
static const double paces[] = {22, 3, 0.5};
#define PACES 3
#define SEARCHES 300

struct outcome {
	uint64_t overrun, noticed;
	uint64_t most[PACES]; /* stops of one search, by pace */
};

/* Searches between random passes, the first of them below span. */
static struct outcome search_often(const struct loop *base, uint64_t span, double caution, bool from_start)
{
	struct outcome o = {0};
	uint64_t random = 99;

	for (unsigned i = 0; i < SEARCHES; i++) {
		struct loop l = *base;
		unsigned pace = i % PACES;
		uint64_t from = from_start ? 0 : random_below(&random, span);
		uint64_t to = from + 1 + random_below(&random, span);
		struct search s;

		l.pass_ns = paces[pace];
		l.entry_ns = i % 2 ? 1000 : 0;
		l.noise_ns = i % 4 > 1 ? 20 : 0;
		/* Every fifth begins without knowing the least pass. */
		s = search_for(&l, from, to, caution, i % 5 ? l.pass_ns / 2 : 0);
		o.overrun += s.overrun;
		o.noticed += s.overrun && s.noticed;
		if (s.stops > o.most[pace])
			o.most[pace] = s.stops;
	}
	print_message("%llu of %d run past, %llu noticed; most stops %llu %llu %llu\n",
		      (unsigned long long)o.overrun, SEARCHES, (unsigned long long)o.noticed,
		      (unsigned long long)o.most[0], (unsigned long long)o.most[1],
		      (unsigned long long)o.most[2]);
	return o;
}

/* Steady movement: none is run past, and besides the last passes, which no free run is worth, few are walked. */
static void check_steady(const struct loop *l, uint64_t span)
{
	struct outcome o = search_often(l, span, 1, false);

	assert_int_equal(o.overrun, 0);
	for (unsigned i = 0; i < PACES; i++)
		assert_true((double)o.most[i] <= 4 * FREE_MIN / paces[i] + 200);
}

static void test_counter(void **state)
{
	(void)state;
	check_steady(&(struct loop){.state = counter, .count = 3}, 1000000);
}

static void test_pointer_down(void **state)
{
	(void)state;
	check_steady(&(struct loop){.state = pointer_down, .count = 2}, 1000000);
}

static void test_wrap_around(void **state)
{
	(void)state;
	check_steady(&(struct loop){.state = wraps, .count = 2}, 400000);
}

/* In the last round of an inner loop it is a matter of odds; some rounds are walked. */
static void test_nested(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = nested, .count = 4}, 1000000, 1, false);

	(void)state;
	assert_true(o.overrun <= SEARCHES / 32);
	for (unsigned i = 0; i < PACES; i++)
		assert_true(o.most[i] <= 10000);
}

static void test_nested_short(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = nested_short, .count = 3}, 1000000, 1, false);

	(void)state;
	assert_true(o.overrun <= SEARCHES / 32);
	for (unsigned i = 0; i < PACES; i++)
		assert_true(o.most[i] <= 10000);
}

static void test_nested_long(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = nested_long, .count = 2}, 10000000, 1, false);

	(void)state;
	assert_true(o.overrun <= SEARCHES / 32);
}

/* More caution, fewer of these: that is what a replay which ran past one counts on. */
static void test_caution(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = nested, .count = 4}, 1000000, 16, false);

	(void)state;
	assert_int_equal(o.overrun, 0);
}

/* Nothing to go by: every pass is walked, and nothing is taken for movement. */
static void test_chaotic(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = chaotic, .count = 8}, 20000, 1, false);

	(void)state;
	assert_int_equal(o.overrun, 0);
}

static void test_grows(void **state)
{
	struct outcome o = search_often(&(struct loop){.state = grows, .count = 2}, 20000, 1, true);

	(void)state;
	assert_int_equal(o.overrun, 0);
}

/* A timer that comes far too late: the place lies behind, and that is seen. */
static void test_overrun_noticed(void **state)
{
	uint64_t target[] = {1000000}, now[] = {0};
	struct progress p;

	(void)state;
	progress_begin(&p, target, 1, 1);
	for (unsigned i = 0; i < 20; i++, now[0]++)
		progress_sample(&p, now, 0, 10);
	assert_true(progress_allow(&p, 1) > FREE_MIN);
	now[0] = 900000;
	progress_sample(&p, now, 1e6, 10);
	assert_false(progress_overrun(&p));
	assert_true(progress_allow(&p, 1) > FREE_MIN);
	now[0] = 1000001;
	progress_sample(&p, now, 1e6, 10);
	assert_true(progress_overrun(&p));
	assert_true(progress_allow(&p, 1) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counter),
		cmocka_unit_test(test_pointer_down),
		cmocka_unit_test(test_wrap_around),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_nested_short),
		cmocka_unit_test(test_nested_long),
		cmocka_unit_test(test_caution),
		cmocka_unit_test(test_chaotic),
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_overrun_noticed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
