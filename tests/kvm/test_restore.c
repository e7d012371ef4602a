// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A machine runs on from a snapshot bit for bit as it would have without: frozen wherever a kick or
 * a step stops it, in kernel and user code, restored in any order, into another machine, and in
 * other processes.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "snapshot/snapshot.h"
#include "tests/kvm/recording.h"
#include "tests/kvm/driven.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/wait.h>

#define PLACES 10
#define BUDGET (256ull << 20)
#define BRANCHES 4

static uint64_t random_state = 17;

struct place {
	struct snapshot *s;
	struct machine_digest digest;
};

static const struct subject {
	const char *guest;
	unsigned n; /* its length, at first */
	bool user;  /* has user code */
} subjects[] = {
	{"user", 100, true},   {"paging", 50, false}, {"sse", 10, false},
	{"storm", 100, false}, {"strings", 1, false}, {"selfmod", 200, false},
};

/* Whatever the host's speed, a guest runs for so long, undisturbed. */
#define RUN_NS (150 * NSEC_PER_MSEC)

/* The next kick, if one is not good enough. */
#define KICK_NS (150 * NSEC_PER_USEC)

static struct snapshots *new_tree(void)
{
	struct snapshots *t;
	struct err err;

	assert_ok(snapshots_create(&t, BUDGET, "/tmp", &err), err);
	return t;
}

static struct machine_digest run_to_end(struct driven *d)
{
	d->at_kick = false;
	driven_run(d);
	assert_int_equal(d->m->end, END_EXIT);
	assert_int_equal(d->m->end_code, 0);
	return driven_digest(d);
}

/* Stop at random places and freeze them; returns how many there were before the end. */
static unsigned freeze_places(struct driven *d, struct snapshots *t, bool user, uint64_t run_ns,
			      struct place place[PLACES])
{
	struct kick_timer timer;
	unsigned n = 0;
	struct err err;

	assert_ok(kick_timer_create(&timer, &d->m->vcpu[0], &err), err);
	while (n < PLACES) {
		int rc;

		d->at_kick = n % 3 != 2;
		d->in_user = user && n % 2 == 0;
		if (d->at_kick)
			kick_timer_set(&timer, 1 + random_below(&random_state, run_ns / PLACES),
				       KICK_NS);
		else
			d->steps = 1 + random_below(&random_state, 50);
		driven_run(d);
		kick_timer_set(&timer, 0, 0);
		if (d->m->end)
			break;
		place[n].digest = driven_digest(d);
		rc = snapshot_take(t, NULL, &place[n].s, &err);
		if (rc == -EBUSY)
			continue;
		assert_ok(rc, err);
		/* Taking it has changed nothing. */
		assert_same_digest(driven_digest(d), place[n].digest);
		n++;
	}
	kick_timer_destroy(&timer);
	return n;
}

/* Find a length that takes long enough. */
static struct machine_digest run_undisturbed(const struct subject *subject, char cmdline[32],
					     uint64_t *run_ns)
{
	struct machine_digest end;
	unsigned n = subject->n;
	struct driven d;

	for (;; n *= 3) {
		snprintf(cmdline, 32, "n=%u", n);
		driven_open(&d, subject->guest, cmdline, RECORDING_MEM);
		*run_ns = host_cpu_ns();
		end = run_to_end(&d);
		*run_ns = host_cpu_ns() - *run_ns;
		driven_close(&d);
		if (*run_ns >= RUN_NS)
			return end;
	}
}

static void run_on(const struct subject *subject)
{
	struct place place[PLACES];
	struct snapshots *t = new_tree();
	struct driven d, other;
	struct machine_digest end;
	unsigned n, user = 0;
	uint64_t run_ns;
	char cmdline[32];
	struct err err;

	end = run_undisturbed(subject, cmdline, &run_ns);
	driven_open(&d, subject->guest, cmdline, RECORDING_MEM);
	assert_ok(snapshots_attach(t, d.m, &err), err);
	n = freeze_places(&d, t, subject->user, run_ns, place);
	assert_true(n > 1);
	assert_same_digest(run_to_end(&d), end);
	for (unsigned i = 0; i < 2 * n; i++) {
		const struct place *p = &place[random_below(&random_state, n)];

		assert_ok(snapshot_restore(t, p->s, &err), err);
		assert_same_digest(driven_digest(&d), p->digest);
		user += vcpu_cpl(&d.m->vcpu[0], &err) == 3;
		if (i % 2)
			assert_same_digest(run_to_end(&d), end);
	}
	assert_int_equal(user > 0, subject->user);
	snapshots_detach(t);

	/* In a machine that has done something else. */
	driven_open(&other, "stale_pointer", "", RECORDING_MEM);
	other.boundaries = 500;
	driven_run(&other);
	assert_ok(snapshots_attach(t, other.m, &err), err);
	assert_ok(snapshot_restore(t, place[n / 2].s, &err), err);
	assert_same_digest(driven_digest(&other), place[n / 2].digest);
	assert_same_digest(run_to_end(&other), end);
	snapshots_destroy(t);
	driven_close(&other);
	driven_close(&d);
	print_message("%s: %u places, %u restores into user code\n", subject->guest, n, user);
}

static void test_run_on(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++)
		run_on(&subjects[i]);
}

/* Frozen before the first entry, and at the end. */
static void test_first_and_last(void **state)
{
	struct snapshots *t = new_tree();
	struct snapshot *first, *last;
	struct machine_digest end;
	struct driven d;
	struct err err;

	(void)state;
	driven_open(&d, "storm", "n=50", RECORDING_MEM);
	assert_ok(snapshots_attach(t, d.m, &err), err);
	assert_ok(snapshot_take(t, NULL, &first, &err), err);
	end = run_to_end(&d);
	assert_ok(snapshot_take(t, NULL, &last, &err), err);
	assert_ptr_equal(last->parent, first);
	assert_ok(snapshot_restore(t, first, &err), err);
	assert_int_equal(d.m->end, END_NONE);
	assert_int_equal(d.m->boundary, 0);
	/* The hook at boundary 0 is called again. */
	d.boundaries = 1;
	driven_run(&d);
	assert_int_equal(d.m->boundary, 0);
	assert_true(d.m->pause);
	assert_same_digest(run_to_end(&d), end);
	assert_ok(snapshot_restore(t, first, &err), err);
	assert_ok(snapshot_restore(t, last, &err), err);
	assert_int_equal(d.m->end, END_EXIT);
	assert_same_digest(driven_digest(&d), end);
	snapshots_destroy(t);
	driven_close(&d);
}

/* RAM on both sides of the hole below 4 GiB. */
/* Back to where no vector register had been used, with a guest that has changed MXCSR since. */
static void test_unused_vectors(void **state)
{
	struct snapshots *t = new_tree();
	struct machine_digest soon;
	struct snapshot *s;
	struct driven d;
	struct err err;

	(void)state;
	driven_open(&d, "sse", "n=10", RECORDING_MEM);
	assert_ok(snapshots_attach(t, d.m, &err), err);
	d.boundaries = 2;
	driven_run(&d);
	assert_ok(snapshot_take(t, NULL, &s, &err), err);
	d.boundaries = 20;
	driven_run(&d);
	soon = driven_digest(&d);
	driven_run(&d);
	assert_true(d.m->end != END_NONE);
	assert_ok(snapshot_restore(t, s, &err), err);
	d.boundaries = 20;
	driven_run(&d);
	assert_same_digest(driven_digest(&d), soon);
	snapshots_destroy(t);
	driven_close(&d);
}

static void test_two_slots(void **state)
{
	static const uint64_t gpa[] = {0x300000, MEMORY_LOW_MAX - PAGE_SIZE, 4ull << 30,
				       (4ull << 30) + (15u << 20)};
	struct snapshots *t = new_tree();
	struct snapshot *a, *b;
	struct machine_digest at_a, at_b;
	struct driven d;
	struct err err;
	uint64_t v;

	(void)state;
	driven_open(&d, "storm", "n=50", MEMORY_LOW_MAX + (16u << 20));
	assert_ok(snapshots_attach(t, d.m, &err), err);
	for (uint64_t i = 0; i < ARRAY_SIZE(gpa); i++)
		assert_int_equal(memory_write(d.m->mem, GPA(gpa[i]), &i, sizeof(i)), 0);
	assert_ok(snapshot_take(t, NULL, &a, &err), err);
	at_a = driven_digest(&d);
	for (uint64_t i = 1; i < ARRAY_SIZE(gpa); i++) {
		v = ~i;
		assert_int_equal(memory_write(d.m->mem, GPA(gpa[i]), &v, sizeof(v)), 0);
	}
	assert_ok(snapshot_take(t, NULL, &b, &err), err);
	assert_int_equal(b->changed, ARRAY_SIZE(gpa) - 1);
	at_b = driven_digest(&d);
	assert_ok(snapshot_restore(t, a, &err), err);
	assert_same_digest(driven_digest(&d), at_a);
	for (uint64_t i = 0; i < ARRAY_SIZE(gpa); i++) {
		assert_int_equal(memory_read(d.m->mem, GPA(gpa[i]), &v, sizeof(v)), 0);
		assert_int_equal(v, i);
	}
	assert_ok(snapshot_restore(t, b, &err), err);
	assert_same_digest(driven_digest(&d), at_b);
	snapshots_destroy(t);
	driven_close(&d);
}

#define SPILL_GPA 0x800000
#define SPILL_PAGES 300
#define SPILL_BUDGET (768ull << 10)

static void scribble(struct driven *d)
{
	for (uint64_t gpa = SPILL_GPA; gpa < SPILL_GPA + SPILL_PAGES * PAGE_SIZE; gpa += 8) {
		uint64_t v = random_below(&random_state, UINT64_MAX);

		assert_int_equal(memory_write(d->m->mem, GPA(gpa), &v, sizeof(v)), 0);
	}
}

/* Write over a byte at the start of the file of cold pages. */
static void damage_spill(void)
{
	unsigned damaged = 0;

	for (int fd = 3; fd < 64; fd++) {
		char name[64], target[300] = "";

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		if (readlink(name, target, sizeof(target) - 1) > 0 &&
		    strncmp(target, "/tmp/", 5) == 0 && strstr(target, "(deleted)"))
			damaged += pwrite(fd, "!", 1, 100) == 1;
	}
	assert_int_equal(damaged, 1);
}

/* A page cannot be read back: the restore fails in the middle, and any other one is still right. */
static void test_failed_restore(void **state)
{
	struct snapshots *t;
	struct snapshot *a, *b;
	struct machine_digest at_b;
	struct driven d;
	struct err err;

	(void)state;
	assert_ok(snapshots_create(&t, SPILL_BUDGET, "/tmp", &err), err);
	driven_open(&d, "storm", "n=50", RECORDING_MEM);
	assert_ok(snapshots_attach(t, d.m, &err), err);
	scribble(&d);
	assert_ok(snapshot_take(t, NULL, &a, &err), err);
	scribble(&d);
	d.boundaries = 300;
	driven_run(&d);
	assert_ok(snapshot_take(t, NULL, &b, &err), err);
	at_b = driven_digest(&d);
	damage_spill();
	assert_int_equal(snapshot_restore(t, a, &err), -EIO);
	assert_ptr_equal(snapshots_at(t), b);
	assert_ok(snapshot_restore(t, b, &err), err);
	assert_same_digest(driven_digest(&d), at_b);
	snapshots_destroy(t);
	driven_close(&d);
}

struct branch_result {
	struct machine_digest end;
	uint64_t scribble;
};

#define SCRIBBLE_GPA 0x800000

/* What the child does: write where the others write too, run on, and tell. */
static void live(struct driven *d, struct snapshots *t, uint64_t mark, int go, int out)
{
	struct branch_result r = {.end = {0}};
	struct snapshot *own;
	struct err err;
	char byte;

	if (memory_write(d->m->mem, GPA(SCRIBBLE_GPA), &mark, sizeof(mark)) < 0 ||
	    snapshot_take(t, NULL, &own, &err) < 0 || read(go, &byte, 1) != 1 ||
	    memory_read(d->m->mem, GPA(SCRIBBLE_GPA), &r.scribble, sizeof(r.scribble)) < 0 ||
	    snapshot_restore(t, own->parent, &err) < 0)
		_exit(1);
	d->m->pause = false;
	if (machine_run(d->m, &err) < 0 || machine_digest(d->m, &r.end, &err) < 0 ||
	    write(out, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(0);
}

/* Several at once, of a snapshot and of the machine as it stands; none sees another. */
static void test_branches(void **state)
{
	struct snapshots *t = new_tree();
	struct snapshot *s, *later;
	struct machine_digest end, here;
	struct driven d;
	struct err err;
	pid_t child[BRANCHES];
	int go[2], out[2];

	(void)state;
	driven_open(&d, "user", "n=100", RECORDING_MEM);
	assert_ok(snapshots_attach(t, d.m, &err), err);
	d.boundaries = 20;
	driven_run(&d);
	assert_ok(snapshot_take(t, NULL, &s, &err), err);
	d.steps = 500;
	driven_run(&d);
	assert_int_equal(d.m->end, END_NONE);
	here = driven_digest(&d);
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(out), 0);
	for (uint64_t i = 0; i < BRANCHES; i++) {
		assert_ok(snapshot_branch(t, i % 2 ? s : NULL, &child[i], &err), err);
		if (child[i] == 0)
			live(&d, t, i + 1, go[0], out[1]);
	}
	assert_same_digest(driven_digest(&d), here);
	assert_ok(snapshot_take(t, NULL, &later, &err), err);
	end = run_to_end(&d);
	assert_int_equal(write(go[1], "gogogogo", BRANCHES), BRANCHES);
	for (uint64_t i = 0, seen = 0; i < BRANCHES; i++) {
		struct branch_result r;
		int status;

		assert_int_equal(read(out[0], &r, sizeof(r)), sizeof(r));
		assert_same_digest(r.end, end);
		assert_true(r.scribble >= 1 && r.scribble <= BRANCHES && !(seen >> r.scribble & 1));
		seen |= 1ull << r.scribble;
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, 0);
	}
	assert_ok(snapshot_restore(t, later, &err), err);
	assert_same_digest(driven_digest(&d), here);
	for (int i = 0; i < 2; i++) {
		close(go[i]);
		close(out[i]);
	}
	snapshots_destroy(t);
	driven_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_and_last), cmocka_unit_test(test_unused_vectors),
		cmocka_unit_test(test_two_slots),
		cmocka_unit_test(test_failed_restore), cmocka_unit_test(test_branches),
		cmocka_unit_test(test_run_on),
	};
	int missing = kvm_missing("test_restore");
	struct err err;

	if (missing)
		return missing - 1;
	if (host_pin_thread(&err) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
