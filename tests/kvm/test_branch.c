// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Branches against the recording that they leave: without a change a branch does what was recorded, for as long as that
 * was the guest's own doing; with one it does something else; and whatever it did, the recording is then as before.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "debugger/branch.h"
#include "tests/kvm/recording.h"

#include <errno.h>
#include <string.h>

#define STEPS 600
#define STORE_RANGE 64
/* A page that the guest `paging` has mapped from its start on, and memory that it does not use. */
#define MAPPED_GVA 0x40800000u
#define CODE_GPA 0x700000u
#define ADDRESS_BITS 0x000ffffffffff000u

static struct timeline *open_timeline(const struct recording *rec)
{
	const struct timeline_options options = {0};
	struct timeline *t;
	struct err err;

	assert_ok(timeline_open(&t, rec->path, true, &options, NULL, NULL, &err), err);
	return t;
}

static struct machine_digest digest_of(struct timeline *t)
{
	struct machine_digest digest;
	struct err err;

	assert_ok(machine_digest(timeline_machine(t), &digest, &err), err);
	return digest;
}

static struct kvm_regs regs_of(struct timeline *t)
{
	struct err err;

	assert_ok(vcpu_complete(&timeline_machine(t)->vcpu[0], &err), err);
	return event_regs(&timeline_machine(t)->vcpu[0]);
}

static void assert_same_digest(struct machine_digest a, struct machine_digest b)
{
	assert_int_equal(a.memory, b.memory);
	assert_int_equal(a.state, b.state);
}

static void assert_ends_as_recorded(struct timeline *t, const struct recording *rec)
{
	struct err err;

	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_true(timeline_at_end(t));
	assert_int_equal(timeline_machine(t)->boundary, rec->boundaries);
}

/* The longest stretch of boundaries in which nothing came from outside: its start; returns its length. */
static uint64_t find_quiet(const struct recording *rec, uint64_t *from)
{
	uint64_t last = 0, most = 0;

	for (unsigned i = 0; i < rec->n_events; i++) {
		const struct event *e = &rec->events[i];

		if (e->type == EVENT_DIGEST)
			continue;
		if (e->boundary - last > most) {
			most = e->boundary - last;
			*from = last + 1;
		}
		last = e->boundary;
	}
	return most - 1;
}

struct open {
	struct recording rec;
	struct timeline *t;
	struct branches b;
	struct position at;
	struct machine_digest digest;
};

/* A recording with a timeline at a position, percent of the way. */
static void open_at(struct open *o, const char *guest, const char *cmdline, unsigned percent, uint64_t steps)
{
	struct err err;

	record_guest(&o->rec, guest, cmdline, -1);
	o->t = open_timeline(&o->rec);
	branches_init(&o->b, o->t, NULL, NULL);
	assert_ok(timeline_seek(o->t, (struct position){o->rec.boundaries * percent / 100, steps}, &err), err);
	o->at = timeline_position(o->t);
	o->digest = digest_of(o->t);
}

static void leave_and_close(struct open *o)
{
	struct position now;
	struct err err;

	assert_ok(branch_leave(&o->b, &err), err);
	now = timeline_position(o->t);
	assert_int_equal(now.boundary, o->at.boundary);
	assert_int_equal(now.steps, o->at.steps);
	assert_same_digest(digest_of(o->t), o->digest);
	assert_ends_as_recorded(o->t, &o->rec);
	branches_close(&o->b);
	timeline_close(o->t);
	recording_free(&o->rec);
}

static void step(struct open *o)
{
	struct timeline_stop stop;
	struct err err;

	branch_runs(&o->b);
	assert_ok(live_step(o->b.live, &stop, &err), err);
}

/* Step by step a branch without a change does what the recording does. */
static void test_unchanged(void **state)
{
	static struct kvm_regs seen[STEPS];
	struct open o;
	uint64_t most;
	unsigned n = 0;
	struct err err;

	(void)state;
	open_at(&o, "stale_pointer", "ticks=30", 0, 0);
	most = find_quiet(&o.rec, &o.at.boundary);
	assert_ok(timeline_seek(o.t, o.at, &err), err);
	o.digest = digest_of(o.t);
	while (n < STEPS && timeline_position(o.t).boundary < o.at.boundary + most) {
		assert_ok(timeline_step(o.t, 1, &err), err);
		seen[n++] = regs_of(o.t);
	}
	assert_true(n > 50);
	assert_ok(timeline_seek(o.t, o.at, &err), err);
	assert_ok(branch_begin(&o.b, NULL, &err), err);
	for (unsigned i = 0; i < n; i++) {
		struct kvm_regs now;

		step(&o);
		now = regs_of(o.t);
		assert_memory_equal(&now, &seen[i], sizeof(now));
	}
	leave_and_close(&o);
}

/* A branch runs to a breakpoint, further, and to the end of its guest; the recording knows nothing of it. */
static void test_runs_on(void **state)
{
	struct timeline_stops stops = {0};
	struct timeline_stop stop;
	struct kvm_regs there;
	gva_t address;
	struct open o;
	struct err err;

	(void)state;
	open_at(&o, "stale_pointer", "ticks=30", 40, 3);
	assert_ok(timeline_step(o.t, 100, &err), err);
	there = regs_of(o.t);
	address = GVA(there.rip);
	assert_ok(timeline_seek(o.t, o.at, &err), err);
	assert_ok(branch_begin(&o.b, "trial", &err), err);
	assert_int_equal(branch_begin(&o.b, "trial", &err), -EBUSY);
	stops.breakpoints = (struct breakpoint_set){&address, 1};
	for (unsigned i = 0; i < 5; i++) {
		branch_runs(&o.b);
		assert_ok(live_continue(o.b.live, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
		assert_int_equal(regs_of(o.t).rip, there.rip);
	}
	stops.breakpoints.len = 0;
	assert_ok(live_continue(o.b.live, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_END);
	assert_int_equal(timeline_machine(o.t)->end, END_EXIT);
	leave_and_close(&o);
}

/* What is written counts in the branch and nowhere else; a watch sees the guest store to it. */
static void test_written(void **state)
{
	struct timeline_watch watch = {.kinds = WATCH_CHANGES};
	struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	struct timeline_stop stop;
	uint64_t old, now;
	struct open o;
	struct err err;
	gpa_t stack;

	(void)state;
	open_at(&o, "stale_pointer", "ticks=30", 50, 1);
	stack = GPA((regs_of(o.t).rsp & ~7ull) - STORE_RANGE);
	assert_ok(branch_begin(&o.b, NULL, &err), err);
	memory_read(timeline_machine(o.t)->mem, stack, &old, sizeof(old));
	now = ~old;
	assert_int_equal(memory_write(timeline_machine(o.t)->mem, stack, &now, sizeof(now)), 0);
	assert_true(digest_of(o.t).memory != o.digest.memory);
	watch.gpa = GPA(stack.v - STORE_RANGE);
	watch.len = 2 * STORE_RANGE;
	for (unsigned i = 0; i < 3; i++) {
		uint64_t found = 0;

		branch_runs(&o.b);
		assert_ok(live_continue(o.b.live, &stops, &stop, &err), err);
		assert_int_equal(stop.reason, TIMELINE_WATCH);
		memory_read(timeline_machine(o.t)->mem, stop.gpa, &found, stop.len);
		assert_int_equal(found, stop.now);
		assert_int_not_equal(stop.now, stop.old);
	}
	leave_and_close(&o);
}

/* Registers that are written back to what they were undo all that was done meanwhile; in a branch, in that branch. */
static void test_calls(void **state)
{
	const uint64_t mark = 0x5a5a5a5a5a5a5a5a;
	struct kvm_regs before, changed;
	struct machine_digest marked;
	struct open o;
	struct err err;
	bool done;
	gpa_t stack;

	(void)state;
	open_at(&o, "stale_pointer", "ticks=30", 50, 1);
	before = changed = regs_of(o.t);
	changed.rsp -= 256;
	stack = GPA((before.rsp & ~7ull) - 512);

	/* From the recording: back in the recording. */
	assert_ok(branch_registers(&o.b, &changed, &done, &err), err);
	assert_false(done);
	*vcpu_regs_mut(&timeline_machine(o.t)->vcpu[0]) = changed;
	step(&o);
	assert_ok(branch_registers(&o.b, &before, &done, &err), err);
	assert_true(done);
	assert_null(o.b.live);
	assert_same_digest(digest_of(o.t), o.digest);

	/* From a branch with a change of its own. */
	assert_ok(branch_begin(&o.b, NULL, &err), err);
	assert_int_equal(memory_write(timeline_machine(o.t)->mem, stack, &mark, sizeof(mark)), 0);
	marked = digest_of(o.t);
	for (unsigned i = 0; i < 2 * BRANCH_CALLS_MAX; i++) {
		assert_ok(branch_registers(&o.b, &changed, &done, &err), err);
		assert_false(done);
		*vcpu_regs_mut(&timeline_machine(o.t)->vcpu[0]) = changed;
		step(&o);
		assert_ok(branch_registers(&o.b, &before, &done, &err), err);
		assert_true(done);
		assert_non_null(o.b.live);
		assert_same_digest(digest_of(o.t), marked);
	}
	leave_and_close(&o);
}

/* The entry that maps a page of 4 KiB, by hand. */
static gpa_t entry_of(const struct machine *m, const struct kvm_sregs *sregs, uint64_t gva)
{
	uint64_t table = sregs->cr3;

	for (unsigned shift = 39; shift > 12; shift -= 9)
		assert_int_equal(memory_read(m->mem, GPA((table & ADDRESS_BITS) + 8 * (gva >> shift & 511)), &table, 8), 0);
	return GPA((table & ADDRESS_BITS) + 8 * (gva >> 12 & 511));
}

/*
 * A function that returns to a stack that may not be executed, where a breakpoint is, as gdb calls functions: it has run, and
 * the guest stands at the breakpoint.
 */
static void test_call_on_data(void **state)
{
	/* mov rax, [rdi]; add rax, 1; ret */
	static const uint8_t function[] = {0x48, 0x8b, 0x07, 0x48, 0x83, 0xc0, 0x01, 0xc3};
	const gva_t dummy = GVA(MAPPED_GVA + 0xff0);
	struct timeline_stops stops = {.breakpoints = {&dummy, 1}, .here = true};
	struct timeline_stop stop;
	struct kvm_sregs sregs;
	struct kvm_regs *regs;
	struct machine *m;
	struct open o;
	struct err err;
	uint64_t entry, word = 41;
	gpa_t stack, at;

	(void)state;
	open_at(&o, "paging", "n=60", 50, 1);
	m = timeline_machine(o.t);
	assert_ok(branch_begin(&o.b, NULL, &err), err);
	assert_ok(vcpu_get_sregs(&m->vcpu[0], &sregs, &err), err);
	at = entry_of(m, &sregs, MAPPED_GVA);
	assert_int_equal(memory_read(m->mem, at, &entry, 8), 0);
	stack = GPA(entry & ADDRESS_BITS);
	entry |= 1ull << 63;
	assert_int_equal(memory_write(m->mem, at, &entry, 8), 0);
	sregs.efer |= 1u << 11;
	sregs.cr4 ^= 1u << 7; /* a change of CR4.PGE makes KVM forget translations */
	assert_ok(vcpu_set_sregs(&m->vcpu[0], &sregs, &err), err);
	assert_int_equal(memory_write(m->mem, GPA(CODE_GPA), function, sizeof(function)), 0);
	assert_int_equal(memory_write(m->mem, GPA(stack.v + 0xe00), &dummy.v, 8), 0);
	assert_int_equal(memory_write(m->mem, GPA(stack.v + 0xf00), &word, 8), 0);
	regs = vcpu_regs_mut(&m->vcpu[0]);
	regs->rip = CODE_GPA;
	regs->rsp = MAPPED_GVA + 0xe00;
	regs->rdi = MAPPED_GVA + 0xf00;
	regs->rflags &= ~(1ull << 9);
	branch_runs(&o.b);
	assert_ok(live_continue(o.b.live, &stops, &stop, &err), err);
	assert_int_equal(stop.reason, TIMELINE_BREAKPOINT);
	assert_int_equal(vcpu_regs(&m->vcpu[0])->rip, dummy.v);
	assert_int_equal(vcpu_regs(&m->vcpu[0])->rsp, MAPPED_GVA + 0xe08);
	assert_int_equal(vcpu_regs(&m->vcpu[0])->rax, 42);
	leave_and_close(&o);
}

/* Checkpoints in the recording and in two branches, gone to in any order, are what they were; a branch that only a
 * checkpoint remembers can be left from there. */
static void test_marks(void **state)
{
	struct machine_digest digest[4];
	struct position at[4];
	uint64_t id[4];
	struct open o;
	struct err err;
	uint64_t x = 11;

	(void)state;
	open_at(&o, "stale_pointer", "ticks=30", 50, 1);
	for (unsigned i = 0; i < 4; i++) {
		if (i % 2)
			assert_ok(branch_begin(&o.b, NULL, &err), err);
		for (unsigned n = 0; i % 2 && n < 50 * i; n++)
			step(&o);
		assert_ok(branch_mark(&o.b, i % 2 ? "in a branch" : "", &id[i], &err), err);
		digest[i] = digest_of(o.t);
		at[i] = timeline_position(o.t);
		assert_ok(branch_leave(&o.b, &err), err);
		assert_ok(timeline_step(o.t, 100, &err), err);
	}
	for (unsigned i = 0; i < 60; i++) {
		unsigned n = (unsigned)random_below(&x, 4);

		assert_ok(branch_restart(&o.b, id[n], &err), err);
		assert_int_equal(o.b.live != NULL, n % 2);
		assert_same_digest(digest_of(o.t), digest[n]);
		if (n % 2)
			step(&o);
		else if (random_below(&x, 2))
			assert_ok(timeline_step(o.t, 30, &err), err);
		if (random_below(&x, 3) == 0) {
			assert_ok(branch_leave(&o.b, &err), err);
			assert_null(o.b.live);
		}
	}
	for (unsigned i = 0; i < 4; i++)
		assert_ok(branch_unmark(&o.b, id[i], &err), err);
	assert_int_equal(branch_restart(&o.b, id[1], &err), -ENOENT);
	assert_ok(branch_leave(&o.b, &err), err);
	assert_ok(timeline_seek(o.t, at[0], &err), err);
	leave_and_close(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unchanged),
		cmocka_unit_test(test_runs_on),
		cmocka_unit_test(test_written),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_call_on_data),
		cmocka_unit_test(test_marks),
	};
	int missing = kvm_missing("test_branch");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
