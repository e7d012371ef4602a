// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A replay made wrong by one bit or one event is noticed at the next thing that is compared, and
 * the place where it went wrong is found. A bit that the guest overwrites before anything is
 * compared leaves no trace: whether that is so is decided by two replays side by side, not by the
 * comparison under test.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "replay/divergence.h"
#include "tests/kvm/recording.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/wait.h>

#define IMAGE_FAULTS 9
#define FREE_FAULTS 6
#define REGISTER_FAULTS 9
#define LANDMARK_FAULTS 7
#define TRIES_MAX 60
#define LINE_PAUSE_US 200000

static struct recording rec;
static uint64_t random_state = 31;

struct outcome {
	int rc;
	struct divergence divergence;
	enum clock_kind clock;
	struct replay_counts counts;
	struct machine_digest digest;
};

static struct outcome replay_with(const struct recording *of, const struct replay_fault *fault)
{
	struct replay_options options = {.fault = *fault};
	struct outcome out;
	struct replay r;
	struct err err = {0}, ignored;

	open_replay(&r, of, &options);
	out.rc = replay_run(&r, &err);
	if (out.rc < 0 && out.rc != -EILSEQ)
		print_message("%s\n", err.text);
	out.divergence = *replayer_divergence(r.replayer);
	out.counts = *replayer_counts(r.replayer);
	out.clock = r.options.clock;
	memset(&out.digest, 0, sizeof(out.digest));
	if (out.rc == 0)
		assert_ok(machine_digest(r.machine, &out.digest, &ignored), ignored);
	replay_close(&r);
	return out;
}

/* Input and time happen; the machine is compared at the others. */
static bool is_comparison(const struct event *e)
{
	return e->type == EVENT_LANDMARK || e->type == EVENT_DIGEST || e->type == EVENT_END;
}

/* The first event at or after the boundary that is a comparison. */
static const struct event *next_comparison(const struct recording *of, uint64_t boundary)
{
	for (unsigned i = 0; i < of->n_events; i++)
		if (of->events[i].boundary >= boundary && is_comparison(&of->events[i]))
			return &of->events[i];
	fail_msg("no event after boundary %" PRIu64, boundary);
	return NULL;
}

static struct divergence_site locate(const struct recording *of, const struct replay_fault *fault,
				     const struct outcome *out)
{
	struct replay_options as_replayed = {.clock = out->clock, .fault = *fault};
	struct divergence_site site;
	struct err err;
	int rc = divergence_locate(of->path, &as_replayed, &out->divergence, &site, &err);

	assert_ok(rc, err);
	assert_true(site.found);
	assert_true(site.what[0]);
	return site;
}

/* Noticed, and no later than it could be. */
static void assert_noticed(const struct recording *of, const struct replay_fault *fault,
			   uint64_t boundary, const struct outcome *out)
{
	const struct event *e = next_comparison(of, boundary);
	/* That a landmark or the end was missed is known one boundary later. */
	uint64_t latest = e->boundary + (e->type != EVENT_DIGEST);

	if (out->rc != -EILSEQ)
		fail_msg("fault %d at boundary %" PRIu64 " (0x%" PRIx64 ") gives %d", fault->kind,
			 boundary, fault->where, out->rc);
	assert_true(out->divergence.found);
	assert_true(out->divergence.what[0]);
	assert_true(out->divergence.at.boundary >= boundary);
	assert_true(out->divergence.at.boundary <= latest);
	assert_true(out->divergence.last_good <= boundary);
}

static struct machine_digest digest_at(const struct replay_fault *fault, struct position at)
{
	struct replay_options options = {.fault = *fault, .has_target = true, .target = at};
	struct machine_digest digest = {0};
	struct replay r;
	struct err err;

	open_replay(&r, &rec, &options);
	if (replay_run(&r, &err) == 0)
		assert_ok(machine_digest(r.machine, &digest, &err), err);
	replay_close(&r);
	return digest;
}

/* Has the guest itself wiped the flipped bit out before the next comparison? */
static bool vanished(const struct replay_fault *fault)
{
	const struct event *e = next_comparison(&rec, fault->boundary);
	struct replay_fault none = {0};
	struct position at = {.boundary = e->boundary};
	struct machine_digest with, without;

	/* Steps are what the clock counts, string instructions aside. */
	if (e->type == EVENT_LANDMARK && e->landmark.has_clock)
		at.steps = e->landmark.clock;
	else if (e->type == EVENT_LANDMARK)
		at.boundary++;
	with = digest_at(fault, at);
	without = digest_at(&none, at);
	return with.state == without.state && with.memory == without.memory;
}

/* Number of a random event of this type. */
static unsigned random_event_of(const struct recording *of, enum event_type type)
{
	unsigned i;

	do {
		i = (unsigned)random_below(&random_state, of->n_events);
	} while (of->events[i].type != type);
	return i;
}

static uint64_t random_boundary(void)
{
	return random_below(&random_state, rec.boundaries);
}

/* Physical addresses of the guest's image, which is loaded where it is linked. */
static uint64_t random_image_gpa(void)
{
	size_t size;
	const uint8_t *kernel = map_guest("stale_pointer", &size);
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)kernel;
	const Elf64_Phdr *ph = (const Elf64_Phdr *)(kernel + eh->e_phoff);
	uint64_t gpa;

	do {
		gpa = ph[random_below(&random_state, eh->e_phnum)].p_paddr;
	} while (!gpa);
	for (unsigned i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && ph[i].p_paddr == gpa && ph[i].p_memsz)
			gpa += random_below(&random_state, ph[i].p_memsz);
	munmap((void *)kernel, size);
	return gpa;
}

/* --- Memory ------------------------------------------------------------------------------ */

/* True if the fault counts: it did not vanish. */
static bool try_memory(uint64_t gpa)
{
	struct replay_fault fault = {
		.kind = FAULT_MEMORY, .boundary = random_boundary(), .where = gpa};
	struct outcome out = replay_with(&rec, &fault);
	struct divergence_site site;
	char named[64];

	if (out.rc == 0 && vanished(&fault))
		return false;
	assert_noticed(&rec, &fault, fault.boundary, &out);
	site = locate(&rec, &fault, &out);
	snprintf(named, sizeof(named), "physical 0x%" PRIx64 " ", gpa);
	if (!strstr(site.what, named))
		fail_msg("0x%" PRIx64 " at %" PRIu64 " was located as: %s", gpa, fault.boundary,
			 site.what);
	assert_int_equal(site.at.boundary, fault.boundary);
	assert_int_equal(site.at.steps, 0);
	return true;
}

/* A replay from the start that does the same again differs from the recording as well; one that does not agrees. */
static void assert_recurs(const struct replay_fault *fault, const struct outcome *out)
{
	struct replay_options options = {.clock = out->clock, .fault = *fault};
	bool recurs = false;
	struct err err;

	assert_ok(divergence_recurs(rec.path, &options, &out->divergence, &recurs, &err), err);
	assert_true(recurs);
	options.fault = (struct replay_fault){0};
	assert_ok(divergence_recurs(rec.path, &options, &out->divergence, &recurs, &err), err);
	assert_false(recurs);
}

/* What went wrong behind the last boundary before it is noticed. */
static void test_memory_at_landmark(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LANDMARK_FAULTS; i++) {
		const struct event *e = &rec.events[random_event_of(&rec, EVENT_LANDMARK)];
		struct replay_fault fault = {
			.kind = FAULT_MEMORY,
			.boundary = e->boundary,
			.at_landmark = true,
			.where = RECORDING_MEM / 2 + random_below(&random_state, RECORDING_MEM / 2),
		};
		struct outcome out = replay_with(&rec, &fault);
		struct divergence_site site;
		char named[64];

		assert_noticed(&rec, &fault, e->boundary, &out);
		assert_int_equal(out.divergence.at.boundary, e->boundary);
		assert_recurs(&fault, &out);
		site = locate(&rec, &fault, &out);
		snprintf(named, sizeof(named), "physical 0x%" PRIx64 " ", fault.where);
		if (!strstr(site.what, named))
			fail_msg("0x%" PRIx64 " at a landmark in %" PRIu64 " was located as: %s", fault.where,
				 fault.boundary, site.what);
		assert_int_equal(site.at.boundary, e->boundary);
		assert_true(site.at.steps > 0);
	}
}

static void test_memory_in_use(void **state)
{
	unsigned tries = 0, counted = 0;

	(void)state;
	while (counted < IMAGE_FAULTS) {
		assert_true(tries++ < TRIES_MAX);
		counted += try_memory(random_image_gpa());
	}
	print_message("%u bits flipped, %u of them overwritten before it mattered\n", tries,
		      tries - counted);
}

static void test_memory_not_in_use(void **state)
{
	(void)state;
	for (unsigned i = 0; i < FREE_FAULTS; i++)
		assert_true(try_memory(RECORDING_MEM / 2 +
				       random_below(&random_state, RECORDING_MEM / 2)));
}

/* --- Registers --------------------------------------------------------------------------- */

static void test_registers(void **state)
{
	/* What a compiled function keeps across port accesses, and the stack pointer, by their
	 * places in struct kvm_regs: RBX, RSI, RDI, RSP, RBP, R12 to R15. */
	static const unsigned live[] = {1, 4, 5, 6, 7, 12, 13, 14, 15};
	unsigned tries = 0, counted = 0;

	(void)state;
	while (counted < REGISTER_FAULTS) {
		struct replay_fault fault = {.kind = FAULT_REGISTER, .boundary = random_boundary()};
		struct divergence_site site;
		struct outcome out;
		char named[16];

		assert_true(tries++ < TRIES_MAX);
		fault.where = live[random_below(&random_state, ARRAY_SIZE(live))];
		out = replay_with(&rec, &fault);
		if (out.rc == 0 && vanished(&fault))
			continue;
		assert_noticed(&rec, &fault, fault.boundary, &out);
		site = locate(&rec, &fault, &out);
		snprintf(named, sizeof(named), ".%s:", event_reg_name((unsigned)fault.where));
		if (!strstr(site.what, named))
			fail_msg("%s at %" PRIu64 " was located as: %s", named, fault.boundary,
				 site.what);
		assert_int_equal(site.at.boundary, fault.boundary);
		assert_int_equal(site.at.steps, 0);
		counted++;
	}
	print_message("%u bits flipped, %u of them overwritten before it mattered\n", tries,
		      tries - counted);
}

/* --- Events ------------------------------------------------------------------------------ */

static void drop_event(const struct recording *of, unsigned number)
{
	struct replay_fault fault = {.kind = FAULT_DROP_EVENT, .where = number};
	const struct event *e = &of->events[number];
	struct outcome out = replay_with(of, &fault);
	struct divergence_site site;
	unsigned next = number + 1;

	while (!is_comparison(&of->events[next]))
		next++;
	if (out.rc != -EILSEQ)
		fail_msg("without event %u (%s at boundary %" PRIu64 ") the replay gives %d",
			 number, event_type_name(e->type), e->boundary, out.rc);
	assert_true(out.divergence.at.boundary >= e->boundary);
	assert_true(out.divergence.at.boundary <= of->events[next].boundary + 1);
	site = locate(of, &fault, &out);
	/* Between the place of the event and the next boundary: by its effect, or when it is
	 * missed. */
	assert_true(site.at.boundary >= e->boundary);
	assert_true(site.at.boundary <= e->boundary + 1);
}

static void test_dropped_landmarks(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LANDMARK_FAULTS; i++)
		drop_event(&rec, random_event_of(&rec, EVENT_LANDMARK));
}

/*
 * The guest waits for the first line in a loop over memory, for the second by polling the port, for
 * the third halted. Without the first it would wait for ever, which no replay can tell from
 * computing.
 */
static void test_dropped_input(void **state)
{
	static const char *const lines[] = {"first\n", "second\n", "quit\n"};
	struct recording with_input;
	unsigned inputs = 0;
	pid_t writer;
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	writer = fork();
	assert_true(writer >= 0);
	if (writer == 0) {
		for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
			usleep(LINE_PAUSE_US);
			if (write(fd[1], lines[i], strlen(lines[i])) < 0)
				_exit(1);
		}
		_exit(0);
	}
	close(fd[1]);
	record_guest(&with_input, "serial_in", "", fd[0]);
	close(fd[0]);
	waitpid(writer, NULL, 0);
	for (unsigned i = 0; i < with_input.n_events; i++)
		if (with_input.events[i].type == EVENT_INPUT && inputs++)
			drop_event(&with_input, i);
	print_message("%u inputs\n", inputs);
	recording_free(&with_input);
}

/* --- No fault ---------------------------------------------------------------------------- */

static void test_same_every_time(void **state)
{
	struct replay_fault none = {0};
	const struct event *end = &rec.events[rec.n_events - 1];
	struct outcome first = replay_with(&rec, &none), second = replay_with(&rec, &none);

	(void)state;
	assert_int_equal(first.rc, 0);
	assert_int_equal(second.rc, 0);
	assert_false(first.divergence.found);
	assert_true(first.counts.landmarks > 0);
	assert_int_equal(first.counts.landmarks, second.counts.landmarks);
	assert_int_equal(first.counts.digests, second.counts.digests);
	assert_int_equal(first.counts.inputs, second.counts.inputs);
	assert_int_equal(first.digest.state, second.digest.state);
	assert_int_equal(first.digest.memory, second.digest.memory);
	assert_int_equal(end->type, EVENT_END);
	assert_int_equal(first.counts.landmarks + first.counts.digests + first.counts.times + 1,
			 rec.n_events);
	if (end->end.has_digest)
		assert_int_equal(first.digest.memory, end->end.digest.memory);
}

static int setup(void **state)
{
	(void)state;
	record_guest(&rec, "stale_pointer", "ticks=8", -1);
	print_message("%" PRIu64 " boundaries, %u events\n", rec.boundaries, rec.n_events);
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
		cmocka_unit_test(test_same_every_time),	  cmocka_unit_test(test_memory_in_use),
		cmocka_unit_test(test_memory_not_in_use), cmocka_unit_test(test_memory_at_landmark), cmocka_unit_test(test_registers),
		cmocka_unit_test(test_dropped_landmarks), cmocka_unit_test(test_dropped_input),
	};
	int missing = kvm_missing("test_divergence");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, setup, teardown);
}
