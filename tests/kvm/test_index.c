// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The checkpoints of a trace's index against replays that know nothing of them: whatever place a session comes to through
 * one is the same machine; and the recording is what it was.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "debugger/index.h"
#include "debugger/timeline.h"
#include "tests/kvm/recording.h"

#include <inttypes.h>

#define EVERY_NS (15 * NSEC_PER_MSEC)
#define SESSIONS 4
#define SEEKS 8
#define STEPS 40

static uint64_t random_state = 41;
static const struct replay_fault no_fault;

struct place {
	struct position at;
	struct kvm_regs regs;
	struct machine_digest digest;
};

static struct index_figures make_index(const struct recording *rec, const char *output, const struct replay_fault *fault)
{
	const struct index_options options = {
		.every = EVERY_NS, .memory = INDEX_MEMORY, .output = output, .use_clock = true, .fault = *fault};
	struct index_figures f;
	struct err err;

	assert_ok(index_make(rec->path, &options, &f, &err), err);
	return f;
}

static struct timeline *open_timeline(const char *path)
{
	const struct timeline_options options = {0};
	struct timeline *t;
	struct err err;

	assert_ok(timeline_open(&t, path, true, &options, NULL, NULL, &err), err);
	return t;
}

static struct place look(struct machine *m, struct position at)
{
	struct place p = {.at = at};
	struct err err;

	assert_ok(machine_digest(m, &p.digest, &err), err);
	p.regs = event_regs(&m->vcpu[0]);
	return p;
}

static struct place seek(struct timeline *t, struct position to)
{
	struct err err;

	assert_ok(timeline_seek(t, to, &err), err);
	/* Completing an access may count. */
	assert_ok(vcpu_complete(&timeline_machine(t)->vcpu[0], &err), err);
	return look(timeline_machine(t), timeline_position(t));
}

/* The same place, by a replay from the start. */
static struct place replay_to(const struct recording *rec, struct position to)
{
	const struct replay_options options = {.has_target = true, .target = to, .positions = true};
	struct replay r;
	struct place p;
	struct err err;

	open_replay(&r, rec, &options);
	assert_ok(replay_run(&r, &err), err);
	assert_ok(vcpu_complete(&r.machine->vcpu[0], &err), err);
	p = look(r.machine, replayer_position(r.replayer));
	replay_close(&r);
	return p;
}

static void assert_same_place(const char *guest, const struct place *a, const struct place *b)
{
	if (a->at.boundary != b->at.boundary || a->at.steps != b->at.steps ||
	    memcmp(&a->regs, &b->regs, sizeof(a->regs)) != 0 || a->digest.state != b->digest.state ||
	    a->digest.memory != b->digest.memory)
		fail_msg("%s: %" PRIu64 "+%" PRIu64 " (rip 0x%llx, digest %016" PRIx64 "%016" PRIx64 ") is not %" PRIu64
			 "+%" PRIu64 " (rip 0x%llx, digest %016" PRIx64 "%016" PRIx64 ")",
			 guest, a->at.boundary, a->at.steps, a->regs.rip, a->digest.state, a->digest.memory,
			 b->at.boundary, b->at.steps, b->regs.rip, b->digest.state, b->digest.memory);
}

/* few: of checkpoints there must be so many. late: how many timers are late while the index is made. */
static void compare_sessions(const char *guest, const char *cmdline, unsigned few, unsigned late)
{
	struct replay_fault fault = {0};
	struct recording rec, indexed;
	struct timeline_figures figures;
	struct timeline *plain, *quick;
	struct index_figures made;
	unsigned kept = 0;

	record_guest(&rec, guest, cmdline, -1);
	indexed = rec;
	snprintf(indexed.path, sizeof(indexed.path), "%.100s.indexed", rec.path);
	replay_to(&rec, (struct position){UINT64_MAX, 0});
	if (late)
		fault = (struct replay_fault){.kind = FAULT_LATE,
					      .boundary = rec.boundaries / (late + 2),
					      .again = late - 1,
					      .apart = rec.boundaries / (late + 2)};
	made = make_index(&rec, indexed.path, &fault);
	plain = open_timeline(rec.path);
	for (unsigned i = 0; i < SESSIONS; i++) {
		quick = open_timeline(indexed.path);
		timeline_figures(quick, &figures);
		kept = figures.kept;
		assert_int_equal(kept, made.checkpoints);
		for (unsigned n = 0; n < SEEKS; n++) {
			struct position to = {random_below(&random_state, rec.boundaries),
					      n % 3 ? random_below(&random_state, STEPS) : 0};
			struct place a = seek(quick, to), b = seek(plain, to);

			assert_same_place(guest, &a, &b);
			if (n == 0) {
				b = replay_to(&rec, to);
				assert_same_place(guest, &a, &b);
			}
		}
		timeline_close(quick);
	}
	assert_true(kept >= few);
	timeline_close(plain);
	unlink(indexed.path);
	recording_free(&rec);
}

static void test_kernel(void **state)
{
	(void)state;
	compare_sessions("stale_pointer", "ticks=200", 3, 0);
	compare_sessions("nested", "", 1, 0);
}

static void test_user_code(void **state)
{
	(void)state;
	compare_sessions("user", "", 0, 0);
}

static void test_vector_state(void **state)
{
	(void)state;
	/* So much that a checkpoint is due also where kernel code is fast. */
	compare_sessions("sse", "n=200", 1, 0);
}

/* Many more than margins can grow. */
static void test_late_timers(void **state)
{
	(void)state;
	compare_sessions("stale_pointer", "ticks=100", 3, 20);
}

static off_t file_size(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* In place, and once more: the events stay, the old index goes. */
static void test_in_place(void **state)
{
	struct recording rec, after;
	off_t plain, once, twice;
	struct timeline *t;
	struct err err;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=100", -1);
	plain = file_size(rec.path);
	make_index(&rec, NULL, &no_fault);
	once = file_size(rec.path);
	make_index(&rec, NULL, &no_fault);
	twice = file_size(rec.path);
	assert_true(once > plain);
	assert_true(twice < plain + 2 * (once - plain));
	after = rec;
	list_events(&after);
	assert_int_equal(after.n_events, rec.n_events);
	for (unsigned i = 0; i < rec.n_events; i++)
		assert_memory_equal(&after.events[i], &rec.events[i], sizeof(rec.events[i]));
	free(after.events);
	t = open_timeline(rec.path);
	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_int_equal(timeline_machine(t)->boundary, rec.boundaries);
	timeline_close(t);
	recording_free(&rec);
}

/* A recorder that was killed wrote no end mark: the index comes behind what is whole. */
static void test_cut_off(void **state)
{
	struct recording rec;
	struct replay_file *f;
	struct timeline *t;
	unsigned events = 0;
	struct event e;
	struct err err;
	int rc;

	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=100", -1);
	assert_int_equal(truncate(rec.path, file_size(rec.path) - 10), 0);
	assert_true(make_index(&rec, NULL, &no_fault).checkpoints > 0);
	assert_ok(replay_file_open(&f, rec.path, &err), err);
	while ((rc = replay_file_next(f, &e, &err)) > 0)
		assert_memory_equal(&e, &rec.events[events++], sizeof(e));
	assert_ok(rc, err);
	assert_true(replay_file_truncated(f));
	replay_file_close(f);
	t = open_timeline(rec.path);
	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_true(timeline_at_end(t));
	timeline_close(t);
	recording_free(&rec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_user_code),
		cmocka_unit_test(test_vector_state),
		cmocka_unit_test(test_late_timers),
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_cut_off),
	};
	int missing = kvm_missing("test_index");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
