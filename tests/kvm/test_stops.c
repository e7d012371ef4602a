// SPDX-License-Identifier: GPL-3.0-or-later
/* Stops at accesses to watched memory, forward and back, against what steps or another way have seen. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kvm/opened.h"

#define LATE_HITS 6
#define LATE_PLACES 12
#define HITS_MAX 4096
#define CHANGES_MIN 40
#define SEARCHES 20
/* Where guests keep their data. */
#define SEARCH_FROM 0x100000ull
#define SEARCHED (1u << 20)
/* The guest paging's, and bits of page-table entries (Intel SDM vol. 3, 4.5). */
#define PAGING_WINDOW 0x40000000ull
#define PTE_ADDRESS 0x000ffffffffff000ull
#define PTE_USED (1ull << 5 | 1ull << 6)
#define CR0_PG (1ull << 31)

static uint64_t random_state = 77;
static bool use_clock = true;

/* A run that a late timer led past a landmark begins again where it began: it neither misses a stop, by beginning at a
 * checkpoint behind that, nor comes to one again that was before. */
static void test_late_timer(void **state)
{
	const struct timeline_options none = {0};
	struct timeline_options late = {.fault = {.kind = FAULT_LATE}};
	struct recording rec;
	struct timeline *t;
	gva_t address;
	struct timeline_stops stops = {.breakpoints = {&address, 1}};
	struct timeline_stop stop;
	struct timeline_figures figures;
	struct position from, hit[LATE_HITS];
	struct err err;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=30", -1);
	from = (struct position){rec.boundaries / 2, 0};
	assert_ok(timeline_open(&t, rec.path, use_clock, &none, NULL, NULL, &err), err);
	/* Code that each character printed comes through. */
	assert_ok(timeline_seek(t, (struct position){from.boundary, 1}, &err), err);
	address = GVA(vcpu_regs(&timeline_machine(t)->vcpu[0])->rip);
	for (unsigned i = 0; i < LATE_HITS; i++) {
		assert_ok(timeline_continue(t, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
		hit[i] = timeline_position(t);
	}
	assert_true(hit[LATE_HITS - 1].boundary > hit[1].boundary + 1);
	timeline_close(t);

	/* The boundary behind the first hit, but not when it is come to on the way there. */
	late.fault.boundary = hit[0].boundary + 1;
	late.fault.where = 1;
	assert_ok(timeline_open(&t, rec.path, use_clock, &late, NULL, NULL, &err), err);
	/* Checkpoints behind it, and none of the hits before them. */
	assert_ok(timeline_seek(t, hit[LATE_HITS - 1], &err), err);
	assert_ok(timeline_seek(t, hit[LATE_HITS - 2], &err), err);
	assert_ok(timeline_seek(t, hit[0], &err), err);
	for (unsigned i = 1; i < LATE_HITS; i++) {
		assert_ok(timeline_continue(t, &stops, &stop, &err), err);
		assert_int_equal(position_order(timeline_position(t), hit[i]), 0);
	}
	timeline_figures(t, &figures);
	assert_int_equal(figures.retries, 1);
	timeline_close(t);

	/* And backwards, where that boundary is come to at least once more on the way to the first hit. */
	for (unsigned nth = 1; nth <= 2; nth++) {
		late.fault.where = nth;
		assert_ok(timeline_open(&t, rec.path, use_clock, &late, NULL, NULL, &err), err);
		assert_ok(timeline_seek(t, hit[LATE_HITS - 1], &err), err);
		for (unsigned i = LATE_HITS - 1; i-- > 0;) {
			assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
			assert_int_equal(position_order(timeline_position(t), hit[i]), 0);
		}
		assert_ends_as_recorded(t, &rec);
		timeline_figures(t, &figures);
		assert_true(figures.retries == 1 || nth > 1);
		timeline_close(t);
	}
	recording_free(&rec);
}

static bool is_late_enough(void *ctx, struct timeline *t)
{
	const struct position *from = ctx;

	return timeline_position(t).boundary >= from->boundary;
}

/* Where code that each character printed comes through is met: the last of these places. */
static struct position find_last_stop(const struct recording *rec, gva_t *address)
{
	struct timeline_stops stops = {.breakpoints = {address, 1}};
	struct timeline *t = open_timeline(rec, use_clock);
	struct timeline_stop stop;
	struct position at;
	struct err err;

	assert_ok(timeline_seek(t, (struct position){rec->boundaries / 2, 1}, &err), err);
	*address = GVA(vcpu_regs(&timeline_machine(t)->vcpu[0])->rip);
	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
	at = timeline_position(t);
	timeline_close(t);
	return at;
}

static void assert_retries(struct timeline *t)
{
	struct timeline_figures figures;

	timeline_figures(t, &figures);
	assert_true(figures.retries >= LATE_PLACES);
	timeline_close(t);
}

/* Late timers at many places of one run, more than margins can grow: to the end, past stops that are not wanted to one
 * that is, and while memory is watched that nobody writes. */
static void test_late_timers(void **state)
{
	struct timeline_options late = {.fault = {.kind = FAULT_LATE, .again = LATE_PLACES - 1}};
	struct timeline_watch untouched = {.gpa = {SEARCH_FROM - 8}, .len = 8, .kinds = WATCH_STORES};
	struct timeline_stops watch = {.watches = &untouched, .n_watches = 1};
	struct position last;
	gva_t address;
	struct timeline_stops stops = {.breakpoints = {&address, 1}, .wanted = is_late_enough, .ctx = &last};
	struct timeline_stop stop;
	struct recording rec;
	struct timeline *t;
	struct err err;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=8", -1);
	last = find_last_stop(&rec, &address);
	late.fault.boundary = late.fault.apart = last.boundary / (LATE_PLACES + 2);
	assert_ok(timeline_open(&t, rec.path, use_clock, &late, NULL, NULL, &err), err);
	assert_ends_as_recorded(t, &rec);
	assert_retries(t);

	assert_ok(timeline_open(&t, rec.path, use_clock, &late, NULL, NULL, &err), err);
	assert_ok(timeline_continue(t, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
	assert_int_equal(position_order(timeline_position(t), last), 0);
	assert_retries(t);

	assert_ok(timeline_open(&t, rec.path, use_clock, &late, NULL, NULL, &err), err);
	assert_ok(timeline_continue(t, &watch, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_END);
	assert_int_equal(timeline_machine(t)->boundary, rec.boundaries);
	assert_retries(t);
	recording_free(&rec);
}

/* A word that changes behind the middle of the recording, in data that interrupts do not push frames to. */
static void find_changing_word(struct timeline *t, const struct recording *rec, struct timeline_watch *watch)
{
	uint64_t *before = malloc(SEARCHED), stack;
	struct err err;

	assert_ok(timeline_seek(t, (struct position){rec->boundaries / 2, 0}, &err), err);
	assert_non_null(before);
	memory_read(timeline_machine(t)->mem, GPA(SEARCH_FROM), before, SEARCHED);
	stack = vcpu_regs(&timeline_machine(t)->vcpu[0])->rsp;
	assert_ok(timeline_seek(t, (struct position){rec->boundaries / 2 + 300, 0}, &err), err);
	for (uint64_t gpa = SEARCH_FROM; gpa < SEARCH_FROM + SEARCHED && !watch->len; gpa += 8) {
		uint64_t now;

		memory_read(timeline_machine(t)->mem, GPA(gpa), &now, sizeof(now));
		if (now != before[(gpa - SEARCH_FROM) / 8] && (gpa < stack - 4 * PAGE_SIZE || gpa > stack + 4 * PAGE_SIZE)) {
			watch->gpa = GPA(gpa);
			watch->len = 8;
		}
	}
	free(before);
	assert_int_equal(watch->len, 8);
}

/* Every access to a word that counts, forward and backward: the same list, with the values in memory that it says. */
static void watch_both_ways(unsigned kinds)
{
	static struct timeline_stop hit[64];
	static struct position at[64];
	struct timeline_watch watch = {.kinds = kinds};
	struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	struct recording rec;
	struct timeline *t;
	unsigned hits = 0;
	struct err err;

	record_guest(&rec, "stale_pointer", "ticks=30", -1);
	t = open_timeline(&rec, use_clock);
	find_changing_word(t, &rec, &watch);
	assert_ok(timeline_seek(t, (struct position){rec.boundaries / 2, 0}, &err), err);
	while (hits < 20) {
		assert_ok(timeline_continue(t, &stops, &hit[hits], &err), err);
		if (hit[hits].reason != TIMELINE_WATCH)
			break;
		assert_true(!hit[hits].load || (kinds & WATCH_LOADS));
		assert_true(hit[hits].load || (kinds & WATCH_STORES) || hit[hits].old != hit[hits].now);
		at[hits] = timeline_position(t);
		hits++;
	}
	assert_true(hits > 1);
	for (unsigned i = hits; i-- > 0;) {
		struct timeline_stop stop;
		uint64_t memory = 0;

		assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_WATCH);
		assert_int_equal(stop.gpa.v, hit[i].gpa.v);
		assert_int_equal(stop.load, hit[i].load);
		assert_int_equal(stop.old, hit[i].old);
		assert_int_equal(stop.now, hit[i].now);
		/* Before the store, so that what it finds is still there. */
		memory_read(timeline_machine(t)->mem, stop.gpa, &memory, stop.len);
		assert_int_equal(memory, stop.old);
		assert_ok(timeline_step(t, 1, &err), err);
		assert_int_equal(timeline_position(t).boundary, at[i].boundary);
		assert_int_equal(timeline_position(t).steps, at[i].steps);
		memory_read(timeline_machine(t)->mem, stop.gpa, &memory, stop.len);
		assert_int_equal(memory, stop.now);
		assert_ok(timeline_reverse_step(t, 1, &err), err);
	}
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

static void test_watch(void **state)
{
	(void)state;
	watch_both_ways(WATCH_CHANGES);
}

static void test_watch_loads(void **state)
{
	(void)state;
	watch_both_ways(WATCH_LOADS);
}

static void test_watch_accesses(void **state)
{
	(void)state;
	watch_both_ways(WATCH_LOADS | WATCH_STORES);
}

/* Where pages were not written is known from the way there, and not searched; that hides nothing, wherever one has been
 * before. */
static void test_untouched(void **state)
{
	static struct timeline_stop hit[HITS_MAX];
	struct timeline_watch watch = {.kinds = WATCH_STORES}, nothing = {.len = 8, .kinds = WATCH_STORES};
	struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	struct timeline_figures before, after;
	struct timeline_stop stop;
	struct recording rec;
	struct timeline *t;
	unsigned hits = 0;
	struct err err;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=30", -1);
	t = open_timeline(&rec, use_clock);
	find_changing_word(t, &rec, &watch);
	assert_ok(timeline_seek(t, (struct position){0, 0}, &err), err);
	do {
		assert_true(hits < HITS_MAX);
		assert_ok(timeline_continue(t, &stops, &hit[hits], &err), err);
	} while (hit[hits++].reason == TIMELINE_WATCH);
	timeline_close(t);
	assert_true(--hits > 1);

	t = open_timeline(&rec, use_clock);
	for (unsigned i = 0; i < SEARCHES; i++) {
		const struct timeline_stop *last = NULL;
		struct position place = {i ? random_below(&random_state, rec.boundaries) : UINT64_MAX, 0};

		assert_ok(timeline_seek(t, place, &err), err);
		for (unsigned n = 0; n < hits && position_order(hit[n].at, place) <= 0; n++)
			last = &hit[n];
		assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, last ? TIMELINE_WATCH : TIMELINE_BEGIN);
		if (last) {
			assert_int_equal(stop.gpa.v, last->gpa.v);
			assert_int_equal(stop.old, last->old);
			assert_int_equal(stop.now, last->now);
			assert_int_equal(stop.rip, last->rip);
		}
		/* New checkpoints between the old ones. */
		place = (struct position){random_below(&random_state, rec.boundaries), 2 * i};
		assert_ok(timeline_seek(t, place, &err), err);
		assert_ok(timeline_reverse_step(t, 1, &err), err);
	}
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);

	/* Where nobody writes, only the last bit of the way is gone through. Not in code: breakpoints may be planted there. */
	record_guest(&rec, "stale_pointer", "ticks=150", -1);
	t = open_timeline(&rec, use_clock);
	nothing.gpa = GPA(memory_size(timeline_machine(t)->mem) - PAGE_SIZE);
	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	timeline_figures(t, &before);
	stops.watches = &nothing;
	assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_BEGIN);
	timeline_figures(t, &after);
	assert_true(before.checkpoints > 3 || !use_clock);
	assert_true(after.restores - before.restores <= 2);
	timeline_close(t);
	recording_free(&rec);
}

/* The page table whose entries map `gva`: 512 words. False if there is none. */
static bool find_page_table(struct timeline *t, uint64_t gva, gpa_t *table)
{
	const struct machine *m = timeline_machine(t);
	struct kvm_sregs sregs;
	uint64_t entry;
	struct err err;

	assert_ok(vcpu_get_sregs(&m->vcpu[0], &sregs, &err), err);
	if (!(sregs.cr0 & CR0_PG))
		return false;
	entry = sregs.cr3 | 1;
	for (unsigned shift = 39; shift > 12; shift -= 9)
		if (memory_read(m->mem, GPA((entry & PTE_ADDRESS) + (gva >> shift & 511) * 8), &entry, sizeof(entry)) < 0 ||
		    !(entry & 1))
			return false;
	*table = GPA(entry & PTE_ADDRESS);
	return true;
}

/* To where it has come to be. */
static struct position seek_page_table(struct timeline *t, uint64_t gva, gpa_t *table)
{
	uint64_t boundary = 0;
	struct err err;

	do {
		assert_ok(timeline_seek(t, (struct position){++boundary, 0}, &err), err);
		assert_false(timeline_at_end(t));
	} while (!find_page_table(t, gva, table));
	assert_ok(timeline_seek(t, (struct position){boundary - 1, 0}, &err), err);
	while (!find_page_table(t, gva, table))
		assert_ok(timeline_step(t, 1, &err), err);
	return timeline_position(t);
}

/* What a store has put there; not the bits that the CPU sets when it uses an entry. */
static bool is_store(const struct timeline_stop *change)
{
	return (change->old | PTE_USED) != (change->now | PTE_USED);
}

/* By steps: some changes in a page table from here on. */
static unsigned step_over_changes(struct timeline *t, gpa_t table, struct timeline_stop *change)
{
	const struct memory *mem = timeline_machine(t)->mem;
	uint64_t held[512], now[512];
	unsigned n = 0;
	struct err err;

	assert_int_equal(memory_read(mem, table, held, sizeof(held)), 0);
	while (n < CHANGES_MIN) {
		assert_false(timeline_at_end(t));
		assert_ok(timeline_step(t, 1, &err), err);
		assert_int_equal(memory_read(mem, table, now, sizeof(now)), 0);
		for (unsigned i = 0; i < ARRAY_SIZE(now); i++) {
			if (now[i] == held[i])
				continue;
			assert_true(n < HITS_MAX);
			change[n++] = (struct timeline_stop){.at = timeline_position(t),
							     .gpa = GPA(table.v + 8 * i),
							     .old = held[i],
							     .now = now[i]};
		}
		memcpy(held, now, sizeof(held));
	}
	return n;
}

/* But for the bits that the CPU sets: where the guest has cleared them again, what was seen with KVM watching, which does not
 * set them, is believed. */
static bool is_same(const struct timeline_stop *hit, const struct timeline_stop *change)
{
	uint64_t but = hit->compared ? 0 : PTE_USED;

	return hit->gpa.v == change->gpa.v && (hit->old | but) == (change->old | but) &&
	       (hit->now | but) == (change->now | but);
}

/* A hit is the next of what steps have seen, but for what the CPU has done itself. */
static void assert_is_change(const struct timeline_stop *hit, const struct timeline_stop *change, unsigned n, unsigned *next,
			     int direction)
{
	while (*next < n && !is_same(hit, &change[*next]) && !is_store(&change[*next]))
		*next += (unsigned)direction;
	assert_true(*next < n);
	assert_true(is_same(hit, &change[*next]));
	*next += (unsigned)direction;
}

/* A page that is watched and serves as a page table: KVM sets no accessed and dirty bits in it, which this guest would
 * notice. All the same the recording is what it was, and what is found is what steps have seen. */
static void test_watched_page_table(void **state)
{
	static struct timeline_stop change[HITS_MAX];
	struct timeline_watch watch = {.len = PAGE_SIZE, .kinds = WATCH_CHANGES};
	struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	unsigned changes, next = 0;
	struct timeline_stop stop;
	struct position from, limit;
	struct recording rec;
	struct timeline *t;
	struct err err;

	(void)state;
	record_guest(&rec, "paging", "n=300", -1);
	t = open_timeline(&rec, use_clock);
	if (!caps_has_clock(&timeline_machine(t)->caps)) {
		printf("not where nothing counts instructions: all of the guest's work is one boundary, to be stepped through\n");
		timeline_close(t);
		recording_free(&rec);
		return;
	}
	from = seek_page_table(t, PAGING_WINDOW, &watch.gpa);
	changes = step_over_changes(t, watch.gpa, change);
	limit = timeline_position(t);
	assert_ok(timeline_seek(t, from, &err), err);
	for (;;) {
		assert_ok(timeline_continue(t, &stops, &stop, &err), err);
		if (position_order(stop.at, limit) > 0)
			break;
		assert_int_equal(stop.reason, TIMELINE_WATCH);
		assert_is_change(&stop, change, changes, &next, 1);
	}
	while (next < changes)
		assert_false(is_store(&change[next++]));
	assert_ok(timeline_seek(t, limit, &err), err);
	for (next = changes - 1;;) {
		assert_ok(timeline_reverse_continue(t, &stops, &stop, &err), err);
		if (position_order(timeline_position(t), from) < 0)
			break;
		assert_is_change(&stop, change, changes, &next, -1);
	}
	assert_ends_as_recorded(t, &rec);
	timeline_close(t);
	recording_free(&rec);
}

/* As on a host that counts nothing. */
static void test_without_clock(void **state)
{
	use_clock = false;
	test_watch(state);
	test_untouched(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late_timer),
		cmocka_unit_test(test_late_timers),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_watch_loads),
		cmocka_unit_test(test_watch_accesses),
		cmocka_unit_test(test_untouched),
		cmocka_unit_test(test_watched_page_table),
		cmocka_unit_test(test_without_clock),
	};
	int missing = kvm_missing("test_stops");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
