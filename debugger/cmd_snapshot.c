// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Snapshots for scripts: out of a recording into a file, and live from there. A snapshot file is a trace that begins with
 * a snapshot and has no events; so gdb and the rest look at it as at any trace.
 */
#include "debugger/begin.h"
#include "debugger/commands.h"
#include "debugger/index.h"
#include "debugger/session.h"
#include "debugger/timeline.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Differing pages that are listed; all are counted. */
#define PAGES_SHOWN 64
#define BYTES_SHOWN 8

/* A snapshot file, and a machine in the state of one of its snapshots. */
struct still {
	struct replay_file *file;
	struct machine *m;
	struct snapshots *snapshots;
	struct snapshot *snapshot;
};

static int still_open(struct still *s, const struct options *o, struct err *err)
{
	uint64_t number;
	int rc = begin_open(&s->file, o->file, o->disk, &number, err);

	if (rc < 0)
		return rc;
	rc = machine_create(&s->m, &s->file->tm.config, &s->file->image, true, err);
	if (rc == 0)
		rc = replay_file_check_host(s->file, s->m, err);
	if (rc == 0)
		rc = begin_tree(&s->snapshots, s->m, s->file, number, &s->snapshot, err);
	if (rc == 0)
		rc = begin_check_rest(s->file, err);
	return rc < 0 ? err_prefix(err, rc, "%s", o->file) : 0;
}

static void still_close(struct still *s)
{
	snapshots_destroy(s->snapshots);
	machine_destroy(s->m);
	replay_file_close(s->file);
}

/* Open a snapshot file and add what it holds to the tree, without a machine. *s: the snapshot that `name` means, NULL if
 * it means the file. */
static int read_file(struct replay_file **f, struct snapshots *t, const char *name, const struct options *o,
		     struct snapshot **s, struct err *err)
{
	uint64_t number;
	int rc = begin_open(f, name, o->disk, &number, err);

	if (rc < 0)
		return rc;
	rc = begin_import(t, *f, number, s, err);
	if (!number)
		*s = NULL;
	return rc < 0 ? err_prefix(err, rc, "%s", name) : 0;
}

/* Write what is to be exported into a file, and tell of it. */
static int write_file(const char *path, struct replay_file *f, struct snapshots *t, const struct snapshot_export *what,
		      struct err *err)
{
	uint64_t bytes;
	int rc = begin_write_file(path, &f->tm, &f->image, t, what, &bytes, err);

	if (rc == 0)
		fprintf(stderr, "hindsight: %s: %" PRIu64 " bytes\n", path, bytes);
	return rc;
}

/* --- take ------------------------------------------------------------------------------------ */

static bool interrupted(void *ctx)
{
	return *(const volatile sig_atomic_t *)ctx;
}

/* Freeze the present, as a child of *last, which it then is. */
static int freeze(struct timeline *t, struct snapshot **last, struct err *err)
{
	struct position at = timeline_position(t);
	char label[48];
	struct snapshot_note note = {.label = label};
	struct snapshot *s;
	int rc;

	snprintf(label, sizeof(label), "%" PRIu64 "+%" PRIu64, at.boundary, at.steps);
	rc = snapshot_take(timeline_snapshots(t), &note, &s, err);
	if (rc < 0)
		return rc;
	snapshot_set_parent(s, *last);
	*last = s;
	fprintf(stderr, "hindsight: position %s, guest time %.6f s\n", label, (double)s->vtime / (double)NSEC_PER_SEC);
	return 0;
}

static int take_at(struct timeline *t, struct position to, struct snapshot **last, struct err *err)
{
	struct position at;
	int rc = timeline_seek(t, to, err);

	if (rc < 0)
		return rc;
	at = timeline_position(t);
	if (timeline_at_end(t))
		return err_set(err, EINVAL, "the guest's run is over at position %" PRIu64 "+%" PRIu64
			       ": nothing can go on from there", to.boundary, to.steps);
	if (at.boundary != to.boundary || at.steps != to.steps)
		fprintf(stderr, "hindsight: there is no position %" PRIu64 "+%" PRIu64 ": this one came first\n",
			to.boundary, to.steps);
	return freeze(t, last, err);
}

static int compare_positions(const void *a, const void *b)
{
	return position_order(*(const struct position *)a, *(const struct position *)b);
}

/* All of them in one walk, each below the one before it. */
static int take_all(struct options *o, struct timeline *t, struct replay_file *f, struct err *err)
{
	struct snapshot *last = NULL;
	struct snapshot_export what = {.chain = true};
	struct position at[POSITIONS_MAX];
	int rc = 0;

	if (o->chain && f->begin_fd >= 0)
		rc = begin_import(timeline_snapshots(t), f, 0, &last, err);
	for (size_t i = 0; i < o->places && rc == 0; i++)
		rc = where_find(t, &o->place[i], &at[i], err);
	if (rc == 0)
		qsort(at, o->places, sizeof(at[0]), compare_positions);
	for (size_t i = 0; i < o->places && rc == 0; i++)
		rc = take_at(t, at[i], &last, err);
	what.last = last;
	return rc < 0 ? rc : write_file(o->output, f, timeline_snapshots(t), &what, err);
}

static int take(struct options *o, struct err *err)
{
	struct timeline_options to = {.memory = o->snapshot_memory,
				      .disk = o->disk,
				      .interrupt = interrupted,
				      .interrupt_ctx = (void *)session_catch_interrupts(),
				      .progress = session_show_progress};
	struct timeline *t = NULL;
	struct replay_file *f = NULL;
	int rc = replay_file_open(&f, o->file, err);

	if (rc == 0)
		rc = replay_file_attach_disk(f, o->disk, err);
	if (rc == 0)
		rc = timeline_open(&t, o->file, o->clock != CLOCK_CHOICE_STATE, &to, NULL, NULL, err);
	if (rc == 0)
		rc = take_all(o, t, f, err);
	timeline_close(t);
	replay_file_close(f);
	return rc;
}

/* --- info ------------------------------------------------------------------------------------ */

static void print_label(const char *label)
{
	/* It comes from a file: nothing that could drive a terminal. */
	for (; *label; label++)
		putchar(*label >= 0x20 && *label < 0x7f ? *label : '?');
}

static void print_tree(const struct snapshots *t)
{
	printf("snapshot  parent  guest time  pages changed  position\n");
	for (const struct snapshot *s = snapshots_next(t, NULL); s; s = snapshots_next(t, s)) {
		char parent[24] = "-";

		if (s->parent)
			snprintf(parent, sizeof(parent), "%" PRIu64, s->parent->number);
		printf("%8" PRIu64 "  %6s  %10.6f  %13" PRIu64 "  ", s->number, parent,
		       (double)s->vtime / (double)NSEC_PER_SEC, s->changed);
		print_label(s->label);
		printf("\n");
	}
	printf("\n");
}

static int info(struct options *o, struct err *err)
{
	struct machine_digest digest;
	struct snapshots_figures f;
	struct still s = {0};
	int rc = still_open(&s, o, err);

	if (rc == 0)
		rc = machine_digest(s.m, &digest, err);
	if (rc == 0) {
		snapshots_figures(s.snapshots, &f);
		print_tree(s.snapshots);
		printf("snapshot    %" PRIu64 " of %" PRIu64 "\nposition    ", s.snapshot->number, f.snapshots);
		print_label(s.snapshot->label);
		printf("\nguest time  %.6f s\nmemory      %" PRIu64 " MiB; in all %" PRIu64
		       " different pages besides zeros\ndigest      state %016" PRIx64 " memory %016" PRIx64 "\n",
		       (double)s.m->vtime / (double)NSEC_PER_SEC, memory_size(s.m->mem) >> 20, f.store.pages, digest.state,
		       digest.memory);
		session_print_registers(stdout, s.m);
	}
	still_close(&s);
	return rc;
}

/* --- export, import -------------------------------------------------------------------------- */

static int export(struct options *o, struct err *err)
{
	struct snapshot_export what = {.chain = o->chain};
	struct snapshot *chosen = NULL;
	struct replay_file *f = NULL;
	struct snapshots *t;
	int rc = snapshots_create(&t, INDEX_MEMORY, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = read_file(&f, t, o->file, o, &chosen, err);
	what.last = chosen;
	if (rc == 0 && o->since) {
		what.base = snapshots_find(t, o->since);
		if (!what.base)
			rc = err_set(err, ENOENT, "%s has no snapshot %" PRIu64 " to leave out", o->file, o->since);
	}
	if (rc == 0)
		rc = write_file(o->output, f, t, &what, err);
	replay_file_close(f);
	snapshots_destroy(t);
	return rc;
}

static bool same_bytes(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	return a_len == b_len && (!a_len || memcmp(a, b, a_len) == 0);
}

/* Snapshots of both can be in one file, whose head is that of a. */
static bool same_machine(const struct replay_file *a, const struct replay_file *b)
{
	const struct machine_config *c = &a->tm.config, *d = &b->tm.config;

	return c->mem_size == d->mem_size && c->seed == d->seed && c->epoch == d->epoch && c->xfeatures == d->xfeatures &&
	       c->disk == d->disk && c->rng == d->rng && c->net == d->net && c->ports == d->ports &&
	       a->tm.thin == b->tm.thin && strcmp(a->tm.cmdline, b->tm.cmdline) == 0 &&
	       strcmp(a->tm.host_cpu, b->tm.host_cpu) == 0 && a->tm.cpuid_hidden == b->tm.cpuid_hidden &&
	       same_bytes(a->image.kernel, a->image.kernel_size, b->image.kernel, b->image.kernel_size) &&
	       same_bytes(a->image.initrd, a->image.initrd_size, b->image.initrd, b->image.initrd_size) &&
	       same_bytes(a->image.disk, a->image.disk_size, b->image.disk, b->image.disk_size);
}

/* A branch's recording begins with snapshots too, but has more to lose. */
static int refuse_recording(struct replay_file *f, const char *name, struct err *err)
{
	struct event e;
	int rc = replay_file_next(f, &e, err);

	if (rc > 0)
		rc = err_set(err, EINVAL, "%s is a recording; hindsight snapshot export %s -o FILE gives a snapshot file to "
			     "import to", name, name);
	return rc;
}

static int add_file(struct snapshots *t, const struct options *o, struct replay_file *into, struct err *err)
{
	struct replay_file *from = NULL;
	struct snapshot *s;
	int rc = read_file(&from, t, o->second, o, &s, err);

	if (rc == 0 && !same_machine(into, from))
		rc = err_set(err, EINVAL, "%s and %s are of guests or machines that differ", o->file, o->second);
	replay_file_close(from);
	return rc;
}

static int import(struct options *o, struct err *err)
{
	const struct snapshot_export all = {0};
	struct snapshots_figures before, after;
	struct replay_file *into = NULL;
	struct snapshots *t;
	struct snapshot *s;
	char *real = NULL;
	int rc = snapshots_create(&t, INDEX_MEMORY, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = read_file(&into, t, o->file, o, &s, err);
	if (rc == 0)
		rc = refuse_recording(into, o->file, err);
	snapshots_figures(t, &before);
	if (rc == 0)
		rc = add_file(t, o, into, err);
	snapshots_figures(t, &after);
	if (rc == 0) {
		/* Of a link, what it points to is written anew. */
		real = realpath(o->file, NULL);
		rc = real ? write_file(real, into, t, &all, err) : err_sys(err, errno, "cannot find %s again", o->file);
	}
	if (rc == 0)
		fprintf(stderr, "hindsight: %s: %" PRIu64 " snapshots, %" PRIu64 " of them new\n", o->file,
			after.snapshots, after.snapshots - before.snapshots);
	free(real);
	replay_file_close(into);
	snapshots_destroy(t);
	return rc;
}

/* --- diff ------------------------------------------------------------------------------------ */

struct difference {
	uint64_t pages, bytes;
	bool registers;
};

static void print_bytes(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf(" %02x", bytes[i]);
}

static int show_page(void *ctx, gpa_t gpa, const uint8_t *a, const uint8_t *b, struct err *err)
{
	struct difference *d = ctx;
	size_t n = 0, first = PAGE_SIZE, shown;

	(void)err;
	for (size_t i = 0; i < PAGE_SIZE; i++) {
		if (a[i] == b[i])
			continue;
		first = first < i ? first : i;
		n++;
	}
	d->bytes += n;
	if (d->pages++ >= PAGES_SHOWN)
		return 0;
	shown = PAGE_SIZE - first < BYTES_SHOWN ? PAGE_SIZE - first : BYTES_SHOWN;
	printf("page 0x%" PRIx64 ": %zu bytes differ, the first at 0x%" PRIx64 ":", gpa.v, n, gpa.v + first);
	print_bytes(a + first, shown);
	printf(" |");
	print_bytes(b + first, shown);
	printf("\n");
	return 0;
}

static int compare_registers(struct still *s, struct snapshot *other, struct difference *d, struct err *err)
{
	struct kvm_regs a = event_regs(&s->m->vcpu[0]), b;
	int rc = snapshot_restore(s->snapshots, other, err);

	if (rc < 0)
		return rc;
	b = event_regs(&s->m->vcpu[0]);
	for (unsigned i = 0; i < REGS_COUNT; i++) {
		uint64_t was = ((const uint64_t *)&a)[i], is = ((const uint64_t *)&b)[i];

		if (was == is)
			continue;
		printf("register %s: %016" PRIx64 " | %016" PRIx64 "\n", event_reg_name(i), was, is);
		d->registers = true;
	}
	return 0;
}

static int compare(struct still *s, struct snapshot *other, struct difference *d, struct err *err)
{
	int rc = snapshot_diff(s->snapshots, s->snapshot, other, show_page, d, err);
	/* What is neither: devices, system registers, time. */
	bool state = s->snapshot->state_len != other->state_len ||
		     memcmp(s->snapshot->state, other->state, other->state_len) != 0;

	if (rc == 0)
		rc = compare_registers(s, other, d, err);
	if (rc < 0)
		return rc;
	if (d->pages > PAGES_SHOWN)
		printf("and %" PRIu64 " pages more\n", d->pages - PAGES_SHOWN);
	printf("%" PRIu64 " pages and %" PRIu64 " bytes of memory differ; registers %s, state %s\n", d->pages, d->bytes,
	       d->registers ? "differ" : "are the same", state ? "differs" : "is the same");
	return d->pages || d->registers || state;
}

static int diff(struct options *o, struct err *err)
{
	struct replay_file *second = NULL;
	struct difference d = {0};
	struct snapshot *other;
	struct still s = {0};
	uint64_t number;
	int rc = still_open(&s, o, err);

	if (rc == 0)
		rc = begin_open(&second, o->second, o->disk, &number, err);
	if (rc == 0) {
		rc = begin_import(s.snapshots, second, number, &other, err);
		if (rc < 0)
			err_prefix(err, rc, "%s", o->second);
	}
	if (rc == 0)
		rc = compare(&s, other, &d, err);
	replay_file_close(second);
	still_close(&s);
	return rc;
}

/* --- run ------------------------------------------------------------------------------------- */

static int run(struct options *o, struct err *err)
{
	struct replay_file *f;
	int rc = begin_open(&f, o->file, o->disk, &o->node, err);

	if (rc == 0)
		rc = run_from_snapshot(o, f);
	replay_file_close(f);
	return rc;
}

static const struct subcommand {
	const char *name, *args;
	unsigned takes;
	int (*run)(struct options *o, struct err *err); /* the exit status, or an error */
	const char *help, *status;
} subcommands[] = {
	{"take", "TRACE POS... -o FILE",
	 TAKES_FILE | TAKES_POSITION | TAKES_SNAPSHOT | TAKES_CHAIN | TAKES_CLOCK | TAKES_DISK | TAKES_MEMORY, take,
	 "the states at positions of a trace into a file, each as what differs from the one before",
	 "0; 125 if it cannot be done; 130 interrupted."},
	{"info", "FILE", TAKES_FILE | TAKES_DISK, info, "what is in it", "0."},
	{"export", "FILE -o FILE", TAKES_FILE | TAKES_SNAPSHOT | TAKES_CHAIN | TAKES_SINCE | TAKES_DISK, export,
	 "one of its snapshots into a file of its own (FILE@N), or some, or all", "0; 125 if it cannot be done."},
	{"import", "FILE FROM", TAKES_FILE | TAKES_SECOND | TAKES_DISK, import,
	 "add the snapshots of FROM to FILE; what is there already is not added again",
	 "0; 125 if it cannot be done: FILE is as it was."},
	{"diff", "FILE FILE", TAKES_FILE | TAKES_SECOND | TAKES_DISK, diff, "pages and registers that differ",
	 "0 if nothing differs, 1 if something does."},
	{"run", "FILE", TAKES_FILE | TAKES_LIVE | TAKES_CLOCK | TAKES_DISK | TAKES_PORT_OUTPUT, run,
	 "go on live from it; several can run at once, none knows of the others",
	 "the guest's, as of hindsight run."},
};

static int help(void)
{
	printf("usage: hindsight snapshot COMMAND [ARGUMENTS]\n\nStates of a guest in files. Commands:\n");
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++)
		printf("  %-6s %-20s %s\n", subcommands[i].name, subcommands[i].args, subcommands[i].help);
	printf("\nFILE holds all that it needs. FILE@N is the N-th of its snapshots, as info numbers them; without a number\n"
	       "info, diff and run take the last. It is a trace without events: gdb and info look at it as at any, from the\n"
	       "last snapshot on. So is what run --record writes. hindsight snapshot COMMAND --help tells more.\n");
	return STATUS_OK;
}

static int run_subcommand(const struct subcommand *c, int argc, char **argv)
{
	char name[32];
	struct options o;
	struct err err = {0};
	int rc;

	snprintf(name, sizeof(name), "snapshot %s", c->name);
	argv[0] = name;
	if (options_parse(argc, argv, c->takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s %s [OPTIONS]\n\nSnapshots: %s.\n\n", name, c->args, c->help);
		options_help(stdout, c->takes);
		printf("\nExit status: %s\n", c->status);
		return STATUS_OK;
	}
	rc = host_pin_thread(&err);
	if (rc == 0)
		rc = c->run(&o, &err);
	if (rc < 0)
		session_fail(&err);
	return rc == -EINTR ? STATUS_INTERRUPTED : rc < 0 ? STATUS_FAILED : rc;
}

int cmd_snapshot(int argc, char **argv)
{
	struct options o;
	struct err err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(subcommands) && argc > 1; i++)
		if (strcmp(argv[1], subcommands[i].name) == 0)
			return run_subcommand(&subcommands[i], argc - 1, argv + 1);
	if (options_parse(argc, argv, TAKES_HELP, &o, &err) == 0) {
		if (o.help)
			return help();
		err_set(&err, EINVAL, "take, info, export, import, diff or run? See hindsight snapshot --help");
	}
	return session_fail(&err);
}
