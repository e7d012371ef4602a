// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A replay that is made to go too far comes back to a snapshot behind it; in the end it has compared all that the trace
 * holds, the machine is the one that a replay without mischance ends with, and the guest's output was shown once.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "debugger/fallback.h"
#include "tests/kvm/recording.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>

#define MEMORY (256ull << 20)
#define OUTPUT_MAX 65536
/* Until no run is free (replay/landmark.c). */
#define HARD_TIMES 3
/* More than margins can grow. */
#define MANY 20
#define HARD_QUANTUM (20 * NSEC_PER_MSEC)

static struct recording rec;

struct outcome {
	int rc;
	unsigned restarts;
	bool same_machine; /* that it began with */
	struct replay_counts counts;
	struct machine_digest digest;
	struct position at;
	size_t printed;
	uint8_t output[OUTPUT_MAX];
};

static void on_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct outcome *out = ctx;

	(void)stream;
	assert_true(out->printed < sizeof(out->output));
	out->output[out->printed++] = byte;
}

/* Snapshots that do not fit into memory have no disk that they could be moved to. */
static void set_disk(bool is_there)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = is_there ? limit.rlim_max : 0;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void replay_of(const struct recording *of, uint64_t memory, struct outcome *out, const struct replay_options *options, uint64_t spacing)
{
	const struct fallback_options fo = {.memory = memory, .spacing = spacing};
	const struct machine *first;
	struct replay r;
	struct err err = {0};

	*out = (struct outcome){0};
	assert_ok(replay_open(&r, of->path, true, options, on_output, out, &err), err);
	first = r.machine;
	set_disk(memory == MEMORY);
	out->rc = fallback_run(&r, &fo, &err);
	set_disk(true);
	out->same_machine = r.machine == first;
	if (out->rc < 0)
		print_message("%s\n", err.text);
	else
		assert_ok(machine_digest(r.machine, &out->digest, &err), err);
	out->restarts = r.restarts;
	out->counts = *replayer_counts(r.replayer);
	out->at = replayer_position(r.replayer);
	replay_close(&r);
}

static void replay(struct outcome *out, const struct replay_options *options, uint64_t spacing)
{
	replay_of(&rec, MEMORY, out, options, spacing);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
	assert_int_equal(a->rc, 0);
	assert_true(a->same_machine);
	assert_int_equal(a->counts.landmarks, b->counts.landmarks);
	assert_int_equal(a->counts.digests, b->counts.digests);
	assert_int_equal(a->counts.inputs, b->counts.inputs);
	assert_int_equal(a->counts.times, b->counts.times);
	assert_true(a->digest.state == b->digest.state && a->digest.memory == b->digest.memory);
	assert_true(a->at.boundary == b->at.boundary);
	assert_int_equal(a->printed, b->printed);
	assert_memory_equal(a->output, b->output, b->printed);
}

static void test_late(void **state)
{
	/* A snapshot at almost each boundary; some; the first alone. */
	static const uint64_t spacings[] = {1, 5 * NSEC_PER_MSEC, 3600 * NSEC_PER_SEC};
	static struct outcome undisturbed, late;

	(void)state;
	replay(&undisturbed, &(struct replay_options){0}, 0);
	assert_same(&undisturbed, &undisturbed);
	assert_true(undisturbed.counts.landmarks > 5 && undisturbed.printed);
	for (size_t i = 0; i < ARRAY_SIZE(spacings); i++)
		for (unsigned part = 1; part <= 4; part++) {
			struct replay_options options = {
				.fault = {.kind = FAULT_LATE, .boundary = rec.boundaries * part / 4}};

			replay(&late, &options, spacings[i]);
			assert_same(&late, &undisturbed);
			assert_true(late.restarts > 0);
		}
}

/* A place that is hard to stop at is no reason to be slow elsewhere: with such margins the replay steps. */
static void test_hard_place(void **state)
{
	struct replay_options options = {.fault = {.kind = FAULT_LATE, .again = HARD_TIMES}};
	static struct outcome undisturbed, late;
	struct recording by_state;

	(void)state;
	record_guest_by(&by_state, "memloop", "", -1, false, HARD_QUANTUM);
	replay_of(&by_state, MEMORY, &undisturbed, &(struct replay_options){0}, 0);
	options.fault.boundary = by_state.boundaries * 3 / 4;
	replay_of(&by_state, MEMORY, &late, &options, 3600 * NSEC_PER_SEC);
	recording_free(&by_state);
	assert_same(&late, &undisturbed);
	assert_true(late.restarts > HARD_TIMES);
	print_message("%" PRIu64 " stops, %" PRIu64 " without it\n", late.counts.stops, undisturbed.counts.stops);
	assert_true(late.counts.stops < 3 * (HARD_TIMES + 2) * undisturbed.counts.stops);
}

/* Nor are many, behind one snapshot, a reason to give up. */
static void test_many(void **state)
{
	const uint64_t apart = rec.boundaries / (MANY + 2);
	const struct replay_options options = {
		.fault = {.kind = FAULT_LATE, .boundary = apart, .again = MANY - 1, .apart = apart}};
	static struct outcome undisturbed, late;

	(void)state;
	replay(&undisturbed, &(struct replay_options){0}, 0);
	replay(&late, &options, 3600 * NSEC_PER_SEC);
	assert_same(&late, &undisturbed);
	assert_true(late.restarts >= MANY);
}

/* The CPU that is brought back still lets user code write to a port. */
static void test_user_port(void **state)
{
	struct replay_options options = {.fault = {.kind = FAULT_LATE}};
	static struct outcome undisturbed, late;
	struct recording ports;

	(void)state;
	record_guest(&ports, "ports", "", -1);
	replay_of(&ports, MEMORY, &undisturbed, &(struct replay_options){0}, 0);
	options.fault.boundary = ports.boundaries / 2;
	replay_of(&ports, MEMORY, &late, &options, 1);
	recording_free(&ports);
	assert_same(&late, &undisturbed);
	assert_true(late.restarts > 0);
}

/* A target is where it is, whatever comes between. */
static void test_target(void **state)
{
	struct replay_options options = {.has_target = true, .positions = true};
	static struct outcome plain, late;

	(void)state;
	options.target = (struct position){rec.boundaries / 2, 3};
	replay(&plain, &options, 0);
	assert_int_equal(plain.rc, 0);
	options.fault = (struct replay_fault){.kind = FAULT_LATE, .boundary = rec.boundaries / 3};
	replay(&late, &options, 1);
	assert_same(&late, &plain);
	assert_int_equal(late.at.steps, plain.at.steps);
	assert_true(late.restarts > 0);
}

/* A divergence is one, and none is taken for a late timer. */
static void test_divergence(void **state)
{
	struct replay_options options = {.fault = {.kind = FAULT_DROP_EVENT, .where = rec.n_events / 2}};
	static struct outcome out;

	(void)state;
	while (rec.events[options.fault.where].type != EVENT_LANDMARK)
		options.fault.where++;
	replay(&out, &options, 1);
	assert_int_equal(out.rc, -EILSEQ);
}

/* Where there is no room but for the first snapshot, a late timer costs more and no more than that. */
static void test_no_room(void **state)
{
	const struct replay_options late = {.fault = {.kind = FAULT_LATE, .boundary = rec.boundaries / 2}};
	static struct outcome undisturbed, out;
	unsigned refused = 0;

	(void)state;
	replay(&undisturbed, &(struct replay_options){0}, 0);
	for (uint64_t memory = MEMORY >> 14; memory <= MEMORY; memory += memory / 8) {
		replay_of(&rec, memory, &out, &late, 1);
		if (out.rc < 0) {
			assert_int_equal(out.at.boundary, 0);
			refused++;
			continue;
		}
		assert_same(&out, &undisturbed);
		assert_true(out.restarts > 0);
		if (memory > MEMORY >> 4)
			break;
	}
	assert_true(refused > 0);
}

static int record(void **state)
{
	(void)state;
	record_guest(&rec, "storm", "", -1);
	return 0;
}

static int forget(void **state)
{
	(void)state;
	recording_free(&rec);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_hard_place),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_user_port),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_divergence),
		cmocka_unit_test(test_no_room),
	};
	int missing = kvm_missing("test_fallback");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, record, forget);
}
