// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Walking a recording backwards against an oracle: what single steps forward saw. Every position that comes up again, step
 * by step backwards or by a jump, is the same machine; and nothing of it changes what the recording says follows.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kvm/opened.h"
#include "tests/kvm/driven.h"

#include <inttypes.h>

#define WALK 2000
#define DIGEST_EACH 40
#define JUMPS 150
#define SEEKS 500 /* and as many back to a recorded digest; test_timeline N makes N */
/* Without an instruction clock all steps are made one by one. */
#define SLOW_WALK 80
#define SLOW_JUMPS 20
#define SLOW_SEEKS 40
#define TIMED_BOUNDARIES 1000
#define TIMES 60

struct seen {
	struct position at;
	struct kvm_regs regs;
	bool has_digest;
	struct machine_digest digest;
};

static uint64_t random_state = 77;
static bool use_clock = true;
static unsigned walk = WALK, jumps = JUMPS, seeks = SEEKS;

static struct seen look(struct timeline *t, bool digest)
{
	struct seen s = {.has_digest = digest};
	struct err err;

	if (digest)
		assert_ok(machine_digest(timeline_machine(t), &s.digest, &err), err);
	else
		assert_ok(vcpu_complete(&timeline_machine(t)->vcpu[0], &err), err);
	s.at = timeline_position(t);
	s.regs = event_regs(&timeline_machine(t)->vcpu[0]);
	return s;
}

static void assert_same(const char *guest, const struct seen *now, const struct seen *then)
{
	if (now->at.boundary != then->at.boundary || now->at.steps != then->at.steps ||
	    memcmp(&now->regs, &then->regs, sizeof(now->regs)) != 0 ||
	    (then->has_digest && now->has_digest &&
	     (now->digest.state != then->digest.state || now->digest.memory != then->digest.memory)))
		fail_msg("%s: %" PRIu64 "+%" PRIu64 " (rip 0x%llx rsp 0x%llx) is not %" PRIu64 "+%" PRIu64
			 " (rip 0x%llx rsp 0x%llx), state %016" PRIx64 " %016" PRIx64 ", memory %016" PRIx64
			 " %016" PRIx64,
			 guest, now->at.boundary, now->at.steps, now->regs.rip, now->regs.rsp,
			 then->at.boundary, then->at.steps, then->regs.rip, then->regs.rsp,
			 now->digest.state, then->digest.state, now->digest.memory, then->digest.memory);
}

/* Places that are no positions, as those inside a string instruction, lead to the next one that is: never to another. */
static void seek_between(const char *guest, struct timeline *t, const struct seen *seen, unsigned n)
{
	unsigned between = 0;
	struct err err;

	for (unsigned i = 0; i < jumps; i++) {
		struct position to = seen[random_below(&random_state, n)].at;
		const struct seen *next = seen;
		struct seen now;

		to.steps += 1 + random_below(&random_state, 3);
		while (next < seen + n && position_order(next->at, to) < 0)
			next++;
		if (next == seen + n)
			continue;
		between += position_order(next->at, to) != 0;
		assert_ok(timeline_seek(t, to, &err), err);
		now = look(t, next->has_digest);
		assert_same(guest, &now, next);
	}
	print_message("%s: %u of %u places were no positions\n", guest, between, jumps);
}

static void walk_both_ways(const char *guest, struct position from)
{
	static struct seen seen[WALK + 1];
	struct recording rec;
	struct timeline *t;
	unsigned made = 0;
	struct seen now;
	struct err err;

	record_guest(&rec, guest, "", -1);
	t = open_timeline(&rec, use_clock);
	from.boundary = rec.boundaries * from.boundary / 100;
	assert_ok(timeline_seek(t, from, &err), err);
	seen[0] = look(t, true);
	while (made < walk) {
		assert_ok(timeline_step(t, 1, &err), err);
		if (timeline_at_end(t))
			break;
		made++;
		seen[made] = look(t, made % DIGEST_EACH == 0);
	}
	assert_true(made > 0);
	if (timeline_at_end(t))
		assert_ok(timeline_seek(t, seen[made].at, &err), err);
	for (unsigned i = made; i-- > 0;) {
		assert_ok(timeline_reverse_step(t, 1, &err), err);
		now = look(t, seen[i].has_digest);
		assert_same(guest, &now, &seen[i]);
	}
	for (unsigned i = 0; i < jumps; i++) {
		const struct seen *then = &seen[random_below(&random_state, made + 1)];

		assert_ok(timeline_seek(t, then->at, &err), err);
		now = look(t, then->has_digest);
		assert_same(guest, &now, then);
	}
	seek_between(guest, t, seen, made + 1);
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

static void test_kernel_and_interrupts(void **state)
{
	(void)state;
	walk_both_ways("stale_pointer", (struct position){40, 0});
	walk_both_ways("nested", (struct position){50, 7});
}

static void test_rep(void **state)
{
	(void)state;
	walk_both_ways("strings", (struct position){50, 0});
}

static void test_assisted_and_rewritten(void **state)
{
	(void)state;
	walk_both_ways("instrs", (struct position){30, 0});
	walk_both_ways("sse", (struct position){10, 0});
}

static void test_page_faults(void **state)
{
	(void)state;
	walk_both_ways("paging", (struct position){50, 0});
}

static void test_user_code(void **state)
{
	(void)state;
	walk_both_ways("user", (struct position){50, 0});
	walk_both_ways("sse", (struct position){80, 0});
}

/* A place right behind a boundary, the first of them on the walk. */
static gva_t behind_boundary(const struct seen *seen, unsigned made)
{
	unsigned i = 1;

	while (i < made && seen[i].at.steps)
		i++;
	assert_true(i < made);
	return GVA(seen[i].regs.rip);
}

struct asked {
	unsigned n;
	uint64_t boundary[WALK];
};

static bool refuse(void *ctx, struct timeline *t)
{
	struct asked *a = ctx;
	uint64_t boundary = timeline_position(t).boundary;

	/* A late timer has the run made again from its start. */
	if (a->n && boundary < a->boundary[a->n - 1])
		a->n = 0;
	if (a->n < WALK)
		a->boundary[a->n++] = boundary;
	return false;
}

/* All visits are asked about in one run, which pauses for checkpoints on its way. */
static void breakpoints_refused(struct timeline *t, const struct timeline_stops *of, const struct seen *visit, unsigned visits)
{
	static struct asked asked;
	struct timeline_stops stops = *of;
	struct timeline_stop stop;
	struct err err;

	asked.n = 0;
	stops.wanted = refuse;
	stops.ctx = &asked;
	assert_ok(timeline_continue(t, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_END);
	assert_true(asked.n >= visits);
	for (unsigned i = 0; i < visits; i++)
		assert_int_equal(asked.boundary[i], visit[i].at.boundary);
}

/* Every visit of an address, found forward, by stepping, and backward: the same list. spacing: of checkpoints; 0: as
 * ever; 1: one at each boundary, for which runs pause there, and the address is one right behind a boundary. */
static void breakpoints_both_ways(const char *guest, unsigned n_addresses, uint64_t spacing)
{
	static struct seen visit[WALK];
	static struct seen seen[WALK + 1];
	gva_t address[8];
	struct timeline_stops stops = {.breakpoints = {address, n_addresses}};
	struct timeline_stop stop;
	struct recording rec;
	struct timeline *t;
	unsigned visits = 0, made = 0;
	struct seen now;
	struct err err;

	record_guest(&rec, guest, "", -1);
	t = open_timeline_spaced(&rec, use_clock, spacing);
	assert_ok(timeline_seek(t, (struct position){rec.boundaries / 2, 3}, &err), err);
	seen[0] = look(t, false);
	while (made < walk) {
		assert_ok(timeline_step(t, 1, &err), err);
		seen[++made] = look(t, false);
		if (timeline_at_end(t))
			break;
	}
	/* Addresses that were executed, at random places of the walk; kernel code. */
	for (unsigned i = 0; i < n_addresses; i++)
		address[i] = spacing ? behind_boundary(seen, made)
				     : GVA(seen[1 + random_below(&random_state, made - 1)].regs.rip);
	for (unsigned i = 1; i <= made; i++)
		for (unsigned n = 0; n < n_addresses; n++)
			if (seen[i].regs.rip == address[n].v &&
			    (!visits || visit[visits - 1].at.steps != seen[i].at.steps ||
			     visit[visits - 1].at.boundary != seen[i].at.boundary))
				visit[visits++] = seen[i];
	assert_true(visits > 0);
	if (spacing) {
		/* In one that has no checkpoints there yet. */
		timeline_close(t);
		t = open_timeline_spaced(&rec, use_clock, spacing);
		assert_ok(timeline_seek(t, seen[0].at, &err), err);
		breakpoints_refused(t, &stops, visit, visits);
	}
	assert_ok(timeline_seek(t, seen[0].at, &err), err);
	for (unsigned i = 0; i < visits; i++) {
		assert_ok(timeline_continue(t, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
		now = look(t, false);
		assert_same(guest, &now, &visit[i]);
	}
	for (unsigned i = visits - 1; i-- > 0;) {
		assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
		now = look(t, false);
		assert_same(guest, &now, &visit[i]);
	}
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

static void test_breakpoints(void **state)
{
	(void)state;
	breakpoints_both_ways("stale_pointer", 1, 0);
	breakpoints_both_ways("instrs", 3, 0);
	breakpoints_both_ways("tasks", 8, 0);
	breakpoints_both_ways("hello", 1, 1);
}

struct progress {
	unsigned told;
	double part;
	bool over;
};

static void note_progress(void *ctx, double part, double seconds)
{
	struct progress *p = ctx;

	assert_true(part >= p->part && part <= 1 && seconds >= 0);
	p->told++;
	p->part = part;
	p->over = part == 1;
}

/* What is told of a long way only grows, and ends when the way does: forward, and back over all of it for nothing. */
static void test_progress(void **state)
{
	struct progress p = {0};
	const struct timeline_options options = {.progress = note_progress, .progress_ctx = &p};
	const gva_t nowhere = GVA(1);
	struct timeline_stops stops = {.breakpoints = {&nowhere, 1}};
	struct timeline_stop stop;
	struct recording rec;
	struct timeline *t;
	struct err err;

	(void)state;
	record_guest(&rec, "tasks", "ms=600 ticks=1000000", -1);
	assert_ok(timeline_open(&t, rec.path, use_clock, &options, NULL, NULL, &err), err);
	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_true(p.told > 1 && p.over);
	p = (struct progress){0};
	assert_true(timeline_begin_way(t, 0));
	assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
	timeline_end_way(t, true);
	assert_int_equal(stop.reason, TIMELINE_BEGIN);
	assert_true(p.told > 1 && p.over);
	timeline_close(t);
	recording_free(&rec);
}

/* A time is the first boundary that has it, from wherever one comes. */
static void test_times(void **state)
{
	static uint64_t vtime[TIMED_BOUNDARIES];
	struct recording rec;
	struct timeline *t;
	unsigned n = 0;
	struct err err;

	(void)state;
	record_guest(&rec, "nested", "", -1);
	t = open_timeline(&rec, use_clock);
	for (n = 0; n < TIMED_BOUNDARIES && n < rec.boundaries; n++) {
		assert_ok(timeline_seek(t, (struct position){n, 0}, &err), err);
		vtime[n] = timeline_machine(t)->vtime;
	}
	assert_true(n > 1 && vtime[n - 1] > vtime[0]);
	for (unsigned i = 0; i < TIMES; i++) {
		uint64_t sought = random_below(&random_state, 2) ? vtime[random_below(&random_state, n)]
								 : random_below(&random_state, vtime[n - 1]);
		struct position found = {0};

		assert_ok(timeline_seek_time(t, sought, &err), err);
		while (vtime[found.boundary] < sought)
			found.boundary++;
		assert_int_equal(position_order(timeline_position(t), found), 0);
		assert_int_equal(timeline_machine(t)->vtime, vtime[found.boundary]);
		if (i % 3 == 0)
			assert_ok(timeline_seek(t, (struct position){random_below(&random_state, n), 3}, &err), err);
	}
	assert_ok(timeline_seek_time(t, UINT64_MAX, &err), err);
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

/* Anywhere in a trace and back again: the digests that were recorded are those that are found. */
static void test_random_seeks(void **state)
{
	const struct event *digest[4096];
	unsigned digests = 0;
	struct recording rec;
	struct timeline *t;
	struct err err;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=60", -1);
	t = open_timeline(&rec, use_clock);
	for (unsigned i = 0; i < rec.n_events && digests < ARRAY_SIZE(digest); i++)
		if (rec.events[i].type == EVENT_DIGEST)
			digest[digests++] = &rec.events[i];
	assert_true(digests > 1);
	for (unsigned i = 0; i < seeks; i++) {
		struct position to = {random_below(&random_state, rec.boundaries - 1),
				      random_below(&random_state, 30)};
		const struct event *e = digest[random_below(&random_state, digests)];
		struct machine_digest now;

		assert_ok(timeline_seek(t, to, &err), err);
		assert_ok(timeline_seek(t, (struct position){e->boundary, 0}, &err), err);
		assert_ok(machine_digest(timeline_machine(t), &now, &err), err);
		assert_int_equal(now.state, e->digest.digest.state);
		assert_int_equal(now.memory, e->digest.digest.memory);
	}
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

/* As on a host that counts nothing. */
static void test_without_clock(void **state)
{
	(void)state;
	use_clock = false;
	walk = SLOW_WALK;
	jumps = SLOW_JUMPS;
	walk_both_ways("nested", (struct position){50, 7});
	walk_both_ways("sse", (struct position){10, 0});
	breakpoints_both_ways("stale_pointer", 1, 0);
	breakpoints_both_ways("hello", 1, 1);
}

/* The place of slowness is known: do less of all of it. */
static bool counts_nothing(void)
{
	struct driven d;
	bool has;

	driven_open(&d, "hello", "", 16ull << 20);
	has = caps_has_clock(&d.m->caps);
	driven_close(&d);
	return !has;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel_and_interrupts),
		cmocka_unit_test(test_rep),
		cmocka_unit_test(test_assisted_and_rewritten),
		cmocka_unit_test(test_page_faults),
		cmocka_unit_test(test_user_code),
		cmocka_unit_test(test_breakpoints),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_random_seeks),
		cmocka_unit_test(test_without_clock),
	};
	const struct CMUnitTest only_seeks[] = {
		cmocka_unit_test(test_random_seeks),
	};
	int missing = kvm_missing("test_timeline");

	if (missing)
		return missing - 1;
	if (counts_nothing()) {
		walk = SLOW_WALK;
		jumps = SLOW_JUMPS;
		seeks = SLOW_SEEKS;
	}
	if (argc < 2)
		return cmocka_run_group_tests(tests, NULL, NULL);
	seeks = (unsigned)strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(only_seeks, NULL, NULL);
}
