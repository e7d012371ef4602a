// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The tree of snapshots against a model that keeps a plain copy of all memory for each of them.
 * After every random operation one snapshot, chosen at random, and the machine are compared with the
 * model byte by byte.
 *
 *	test_snapshots [OPERATIONS [SEED]]	(150 for each guest; 5000 is a thorough run)
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
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define OPERATIONS 150
#define RAM (4ull << 20)
#define PAGES (RAM >> PAGE_SHIFT)
/* Guests use none of this, and it may be scribbled on. */
#define FREE_FROM (3ull << 20)
#define NODES_MAX 20
/* Far less than what the snapshots hold, so that pages are compressed and spilled all the time. */
#define BUDGET (320ull << 10)

struct node {
	struct snapshot_uid uid;
	char label[16];
	struct machine_digest digest;
	uint8_t *ram;
};

struct world {
	struct driven d;
	struct snapshots *t;
	struct node node[NODES_MAX];
	unsigned nodes;
	unsigned done[16]; /* operations by kind */
	uint64_t spilled, refused;
	char path[64];
	bool few_boundaries; /* the guest makes hardly any: go by steps only */
};

static uint64_t random_state = 23;
static unsigned operations = OPERATIONS;

static uint64_t below(uint64_t n)
{
	return random_below(&random_state, n);
}

static const uint8_t *ram(const struct world *w)
{
	return memory_at(w->d.m->mem, GPA(0), RAM);
}

static struct snapshot *find(struct world *w, const struct node *n)
{
	struct snapshot *s = snapshots_find_uid(w->t, &n->uid);

	assert_non_null(s);
	assert_string_equal(s->label, n->label);
	return s;
}

/* --- Is the world as the model says? --------------------------------------------------------- */

struct seen {
	const struct world *w;
	const struct node *a;
	const uint8_t *b;
	uint64_t differ[PAGES / 64];
};

static int see(void *ctx, gpa_t gpa, const uint8_t *a, const uint8_t *b, struct err *err)
{
	struct seen *s = ctx;
	uint64_t page = gpa.v >> PAGE_SHIFT;

	(void)err;
	assert_memory_equal(a, s->a->ram + gpa.v, PAGE_SIZE);
	assert_memory_equal(b, s->b + gpa.v, PAGE_SIZE);
	s->differ[page / 64] |= 1ull << (page % 64);
	return 0;
}

/* A snapshot and (b NULL) the machine or another one differ where their copies differ, and there
 * only. */
static void check_difference(struct world *w, const struct node *a, const struct node *b)
{
	struct seen s = {.w = w, .a = a, .b = b ? b->ram : ram(w)};
	struct err err;

	assert_ok(snapshot_diff(w->t, find(w, a), b ? find(w, b) : NULL, see, &s, &err), err);
	for (uint64_t page = 0; page < PAGES; page++) {
		bool differ =
			memcmp(a->ram + page * PAGE_SIZE, s.b + page * PAGE_SIZE, PAGE_SIZE) != 0;

		assert_int_equal(s.differ[page / 64] >> (page % 64) & 1, differ);
	}
}

static void check_machine(struct world *w, const struct node *n)
{
	assert_memory_equal(ram(w), n->ram, RAM);
	assert_same_digest(driven_digest(&w->d), n->digest);
}

static void check(struct world *w)
{
	struct snapshots_figures f;
	unsigned n = 0;

	for (struct snapshot *s = snapshots_next(w->t, NULL); s; s = snapshots_next(w->t, s))
		n++;
	assert_int_equal(n, w->nodes);
	snapshots_figures(w->t, &f);
	assert_int_equal(f.snapshots, w->nodes);
	assert_true(f.store.memory <= BUDGET);
	if (f.store.spilled > w->spilled)
		w->spilled = f.store.spilled;
	if (w->nodes)
		check_difference(w, &w->node[below(w->nodes)], NULL);
}

/* --- Operations ------------------------------------------------------------------------------ */

static void run_a_bit(struct world *w, uint64_t boundaries, uint64_t steps)
{
	if (w->d.m->end)
		return;
	w->d.boundaries = boundaries;
	w->d.steps = steps;
	driven_run(&w->d);
}

static void op_run(struct world *w)
{
	run_a_bit(w, w->few_boundaries ? 0 : 1 + below(40), w->few_boundaries ? 1 + below(100) : 0);
}

static void op_step(struct world *w)
{
	run_a_bit(w, 0, 1 + below(40));
}

/* As devices and debuggers write: random bytes, zeros, and what lies elsewhere. */
static void op_scribble(struct world *w)
{
	static const uint8_t zeros[PAGE_SIZE];

	for (uint64_t i = 1 + below(30); i; i--) {
		uint64_t gpa = FREE_FROM + (below(RAM - FREE_FROM) & PAGE_MASK);
		uint8_t data[PAGE_SIZE];

		switch (below(4)) {
		case 0:
			memcpy(data, zeros, PAGE_SIZE);
			break;
		case 1:
			memcpy(data, ram(w) + (below(RAM) & PAGE_MASK), PAGE_SIZE);
			break;
		case 2: /* does not compress */
			for (size_t k = 0; k < PAGE_SIZE; k++)
				data[k] = (uint8_t)below(256);
			break;
		default:
			memset(data, (int)below(256), PAGE_SIZE);
			data[below(PAGE_SIZE)] = (uint8_t)below(256);
		}
		assert_int_equal(memory_write(w->d.m->mem, GPA(gpa), data, PAGE_SIZE), 0);
	}
}

/* While it is `refused`, nothing can be spilled. */
static void refuse_writes(bool refused)
{
	static struct rlimit usual;
	struct rlimit none;

	if (refused)
		assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = usual.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, refused ? &none : &usual), 0);
}

static void op_take(struct world *w)
{
	struct node *n = &w->node[w->nodes];
	struct snapshot_note note = {.label = n->label, .data = n, .data_len = 8};
	struct snapshot *s, *at = snapshots_at(w->t);
	struct err err;
	int rc = -1;

	if (w->nodes == NODES_MAX)
		return;
	snprintf(n->label, sizeof(n->label), "n%" PRIu64, below(1000));
	if (below(4) == 0) {
		refuse_writes(true);
		rc = snapshot_take(w->t, &note, &s, &err);
		refuse_writes(false);
		w->refused += rc < 0;
		assert_true(rc == 0 || rc == -EFBIG);
	}
	if (rc < 0)
		assert_ok(snapshot_take(w->t, &note, &s, &err), err);
	assert_ptr_equal(s->parent, at);
	n->uid = s->uid;
	n->ram = malloc(RAM);
	assert_non_null(n->ram);
	memcpy(n->ram, ram(w), RAM);
	n->digest = driven_digest(&w->d);
	w->nodes++;
	check_difference(w, n, NULL);
}

static void op_restore(struct world *w)
{
	struct node *n = &w->node[below(w->nodes)];
	struct err err;

	assert_ok(snapshot_restore(w->t, find(w, n), &err), err);
	check_machine(w, n);
}

static void op_delete(struct world *w)
{
	unsigned i = (unsigned)below(w->nodes);

	if (w->nodes < 4)
		return;
	snapshot_delete(w->t, find(w, &w->node[i]));
	free(w->node[i].ram);
	w->node[i] = w->node[--w->nodes];
}

/* From the same snapshot to the same place, twice. */
static void op_run_twice(struct world *w)
{
	struct node *n = &w->node[below(w->nodes)];
	uint64_t boundaries = !w->few_boundaries && below(2) ? 1 + below(60) : 0;
	uint64_t steps = boundaries ? 0 : 1 + below(60);
	struct machine_digest first = {0};
	struct err err;

	for (int i = 0; i < 2; i++) {
		struct machine_digest now;

		assert_ok(snapshot_restore(w->t, find(w, n), &err), err);
		run_a_bit(w, boundaries, steps);
		now = driven_digest(&w->d);
		if (i)
			assert_same_digest(now, first);
		first = now;
	}
}

static bool child_is_right(struct world *w, const struct node *n, const uint8_t *as_it_stood)
{
	static uint8_t data[PAGE_SIZE] = {1};
	struct err err;

	if (memcmp(ram(w), n ? n->ram : as_it_stood, RAM) != 0 ||
	    memory_write(w->d.m->mem, GPA(RAM - PAGE_SIZE), data, PAGE_SIZE) < 0 ||
	    snapshot_restore(w->t, find(w, &w->node[0]), &err) < 0)
		return false;
	return memcmp(ram(w), w->node[0].ram, RAM) == 0;
}

static void op_branch(struct world *w)
{
	struct node *n = below(2) ? &w->node[below(w->nodes)] : NULL;
	uint8_t *before = malloc(RAM);
	struct err err;
	pid_t child;
	int status;

	assert_non_null(before);
	/* What an access in progress still writes (INS) belongs to where it stands. */
	driven_digest(&w->d);
	memcpy(before, ram(w), RAM);
	assert_ok(snapshot_branch(w->t, n ? find(w, n) : NULL, &child, &err), err);
	if (child == 0)
		_exit(!child_is_right(w, n, before));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_memory_equal(ram(w), before, RAM);
	free(before);
}

static void op_diff(struct world *w)
{
	check_difference(w, &w->node[below(w->nodes)], &w->node[below(w->nodes)]);
}

static void op_label(struct world *w)
{
	struct node *n = &w->node[below(w->nodes)];
	struct snapshot *s = find(w, n);
	struct err err;

	snprintf(n->label, sizeof(n->label), "r%" PRIu64, below(100000));
	assert_ok(snapshot_set_label(w->t, s, n->label, &err), err);
}

static unsigned count(const struct snapshots *t)
{
	unsigned n = 0;

	for (struct snapshot *s = snapshots_next(t, NULL); s; s = snapshots_next(t, s))
		n++;
	return n;
}

static void assert_equal_snapshot(struct world *w, struct snapshots *t, const struct node *n)
{
	struct snapshot *s = find(w, n), *other = snapshots_find_uid(t, &n->uid);

	assert_non_null(other);
	assert_int_equal(s->state_len, other->state_len);
	assert_memory_equal(s->state, other->state, s->state_len);
	assert_int_equal(s->data_len, other->data_len);
	assert_memory_equal(s->data, other->data, s->data_len);
	assert_int_equal(s->boundary, other->boundary);
	assert_int_equal(s->changed, other->changed);
	assert_int_equal(!s->parent, !other->parent);
	if (s->parent)
		assert_memory_equal(&s->parent->uid, &other->parent->uid, sizeof(s->uid));
}

/* All of the tree through a file, in one or as two increments; the world goes on with what was
 * read. */
static void op_files(struct world *w)
{
	struct snapshot *middle = find(w, &w->node[below(w->nodes)]), *last;
	struct snapshot_export all = {0}, chain = {.last = middle, .chain = true},
			       rest = {.base = middle};
	struct snapshots *t;
	struct err err;
	int rc = 0;

	assert_ok(snapshots_create(&t, BUDGET, "/tmp", &err), err);
	if (below(2)) {
		assert_ok(snapshots_export(w->t, w->path, &chain, &err), err);
		assert_ok(snapshots_import(t, w->path, NULL, NULL, &last, &err), err);
		assert_memory_equal(&last->uid, &middle->uid, sizeof(last->uid));
		/* There may be nothing else. */
		rc = snapshots_export(w->t, w->path, &rest, &err);
		assert_true(rc == 0 || (rc == -ENOENT && count(t) == w->nodes));
	} else {
		assert_ok(snapshots_export(w->t, w->path, &all, &err), err);
	}
	if (rc == 0)
		assert_ok(snapshots_import(t, w->path, NULL, NULL, &last, &err), err);
	assert_int_equal(count(t), w->nodes);
	/* What is there is not added again. */
	assert_ok(snapshots_export(w->t, w->path, &all, &err), err);
	assert_ok(snapshots_import(t, w->path, NULL, NULL, &last, &err), err);
	assert_int_equal(count(t), w->nodes);
	for (unsigned i = 0; i < w->nodes; i++)
		assert_equal_snapshot(w, t, &w->node[i]);
	snapshots_destroy(w->t);
	w->t = t;
	assert_ok(snapshots_attach(t, w->d.m, &err), err);
	op_restore(w);
}

static const struct operation {
	void (*run)(struct world *w);
	unsigned weight;
	const char *name;
} ops[] = {
	{op_run, 20, "run"},	    {op_step, 10, "step"},	 {op_scribble, 20, "scribble"},
	{op_take, 20, "take"},	    {op_restore, 25, "restore"}, {op_delete, 12, "delete"},
	{op_run_twice, 6, "twice"}, {op_branch, 4, "branch"},	 {op_diff, 5, "diff"},
	{op_label, 3, "label"},	    {op_files, 3, "files"},
};

static void operate(struct world *w)
{
	uint64_t total = 0, pick;
	size_t i = 0;

	for (size_t k = 0; k < ARRAY_SIZE(ops); k++)
		total += ops[k].weight;
	for (pick = below(total); pick >= ops[i].weight; i++)
		pick -= ops[i].weight;
	ops[i].run(w);
	w->done[i]++;
	check(w);
}

static void walk_the_tree(const char *guest, const char *cmdline, bool few_boundaries)
{
	struct world w = {.few_boundaries = few_boundaries};
	struct err err;
	int fd;

	snprintf(w.path, sizeof(w.path), "/tmp/hindsight-test-XXXXXX");
	fd = mkstemp(w.path);
	assert_true(fd >= 0);
	close(fd);
	driven_open(&w.d, guest, cmdline, RAM);
	assert_ok(snapshots_create(&w.t, BUDGET, "/tmp", &err), err);
	assert_ok(snapshots_attach(w.t, w.d.m, &err), err);
	op_take(&w);
	for (unsigned i = 0; i < operations; i++)
		operate(&w);
	print_message("%s:", guest);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		print_message(" %u %s", w.done[i], ops[i].name);
	print_message("; up to %" PRIu64 " pages spilled, %" PRIu64 " takes refused\n", w.spilled,
		      w.refused);
	for (unsigned i = 0; i < w.nodes; i++)
		free(w.node[i].ram);
	snapshots_destroy(w.t);
	driven_close(&w.d);
	unlink(w.path);
}

static void test_storm(void **state)
{
	(void)state;
	walk_the_tree("storm", "n=100000", false);
}

static void test_user(void **state)
{
	(void)state;
	walk_the_tree("user", "n=100000", true);
}

static void test_paging(void **state)
{
	(void)state;
	walk_the_tree("paging", "n=100000", true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_paging),
	};
	int missing = kvm_missing("test_snapshots");
	struct err err;

	if (missing)
		return missing - 1;
	if (argc > 1)
		operations = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		random_state = strtoull(argv[2], NULL, 10);
	signal(SIGXFSZ, SIG_IGN);
	if (host_pin_thread(&err) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
