// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Snapshots for scripts: out of a recording into a file, and live from there. A snapshot file is a trace that begins with
 * a snapshot and has no events; so gdb and the rest look at it as at any trace.
 */
#include "base/new_file.h"
#include "debugger/begin.h"
#include "debugger/commands.h"
#include "debugger/index.h"
#include "debugger/session.h"
#include "debugger/timeline.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Differing pages that are listed; all are counted. */
#define PAGES_SHOWN 64
#define BYTES_SHOWN 8

/* A snapshot file, and a machine in its state. */
struct still {
	struct replay_file *file;
	struct machine *m;
	struct snapshots *snapshots;
	struct snapshot *snapshot;
};

static int open_file(struct replay_file **f, const char *path, const char *disk, struct err *err)
{
	int rc = replay_file_open(f, path, err);

	return rc < 0 ? rc : replay_file_attach_disk(*f, disk, err);
}

static int still_open(struct still *s, const struct options *o, struct err *err)
{
	int rc = open_file(&s->file, o->file, o->disk, err);

	if (rc == 0)
		rc = machine_create(&s->m, &s->file->tm.config, &s->file->image, true, err);
	if (rc == 0)
		rc = replay_file_check_host(s->file, s->m, err);
	if (rc == 0)
		rc = begin_tree(&s->snapshots, s->m, s->file, &s->snapshot, err);
	return rc < 0 ? err_prefix(err, rc, "%s", o->file) : 0;
}

static void still_close(struct still *s)
{
	snapshots_destroy(s->snapshots);
	machine_destroy(s->m);
	replay_file_close(s->file);
}

/* --- take ------------------------------------------------------------------------------------ */

static bool interrupted(void *ctx)
{
	return *(const volatile sig_atomic_t *)ctx;
}

/* The timeline stands where the snapshot is to be taken. */
static int write_snapshot(const struct options *o, struct timeline *t, struct replay_file *f, struct err *err)
{
	struct position at = timeline_position(t);
	char label[48];
	struct snapshot_note note = {.label = label};
	const struct trace_end none = {0};
	struct trace_writer *w = NULL;
	struct buf end = {0};
	struct snapshot *s;
	struct new_file out;
	int rc;

	snprintf(label, sizeof(label), "%" PRIu64 "+%" PRIu64, at.boundary, at.steps);
	rc = snapshot_take(timeline_snapshots(t), &note, &s, err);
	if (rc == 0)
		rc = new_file_create(&out, o->output, err);
	if (rc < 0)
		return rc;
	trace_end_encode(&none, &end);
	rc = trace_writer_create(&w, out.name, err);
	if (rc == 0)
		rc = begin_write_head(w, &f->tm, &f->image, timeline_snapshots(t), s, err);
	if (rc == 0)
		rc = end.failed ? err_set(err, ENOMEM, "out of memory")
				: trace_writer_frame(w, TRACE_END, end.data, end.len, err);
	buf_free(&end);
	if (rc == 0)
		fprintf(stderr, "hindsight: %s: position %s, guest time %.6f s, %" PRIu64 " bytes\n", o->output, label,
			(double)s->vtime / (double)NSEC_PER_SEC, trace_writer_size(w));
	if (trace_writer_close(w, rc < 0 ? NULL : err) < 0 && rc == 0)
		rc = -EIO;
	if (rc == 0)
		return new_file_commit(&out, err);
	new_file_abandon(&out);
	return err_prefix(err, rc, "%s was not written", o->output);
}

static int take_at(const struct options *o, struct timeline *t, struct replay_file *f, struct err *err)
{
	struct position at;
	int rc = timeline_seek(t, o->to, err);

	if (rc < 0)
		return rc;
	at = timeline_position(t);
	if (timeline_at_end(t))
		return err_set(err, EINVAL, "the guest's run is over at position %" PRIu64 "+%" PRIu64
			       ": nothing can go on from there", o->to.boundary, o->to.steps);
	if (at.boundary != o->to.boundary || at.steps != o->to.steps)
		fprintf(stderr, "hindsight: there is no position %" PRIu64 "+%" PRIu64 ": this one came first\n",
			o->to.boundary, o->to.steps);
	return write_snapshot(o, t, f, err);
}

static int take(struct options *o, struct err *err)
{
	struct timeline_options to = {.memory = o->snapshot_memory,
				      .disk = o->disk,
				      .interrupt = interrupted,
				      .interrupt_ctx = (void *)session_catch_interrupts()};
	struct timeline *t = NULL;
	struct replay_file *f = NULL;
	int rc = open_file(&f, o->file, o->disk, err);

	if (rc == 0)
		rc = timeline_open(&t, o->file, o->clock != CLOCK_CHOICE_STATE, &to, NULL, NULL, err);
	if (rc == 0)
		rc = take_at(o, t, f, err);
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

static int info(struct options *o, struct err *err)
{
	struct snapshots_figures f;
	struct still s = {0};
	int rc = still_open(&s, o, err);

	if (rc == 0) {
		snapshots_figures(s.snapshots, &f);
		printf("position    ");
		print_label(s.snapshot->label);
		printf("\nguest time  %.6f s\nmemory      %" PRIu64 " MiB, %" PRIu64 " different pages besides zeros\n",
		       (double)s.m->vtime / (double)NSEC_PER_SEC, memory_size(s.m->mem) >> 20, f.store.pages);
		session_print_registers(stdout, s.m);
	}
	still_close(&s);
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
	int rc = still_open(&s, o, err);

	if (rc == 0) {
		rc = replay_file_open(&second, o->second, err);
		if (rc == 0)
			rc = begin_import(s.snapshots, second, &other, err);
		if (rc < 0)
			rc = err_prefix(err, rc, "%s", o->second);
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
	struct replay_file *f = NULL;
	int rc = open_file(&f, o->file, o->disk, err);

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
	{"take", "TRACE POS -o FILE", TAKES_FILE | TAKES_POSITION | TAKES_SNAPSHOT | TAKES_CLOCK | TAKES_DISK | TAKES_MEMORY,
	 take,
	 "put the state at a position of a trace into a file", "0; 125 if it cannot be done; 130 interrupted."},
	{"info", "FILE", TAKES_FILE | TAKES_DISK, info, "what is in it", "0."},
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
		printf("  %-5s %-18s %s\n", subcommands[i].name, subcommands[i].args, subcommands[i].help);
	printf("\nFILE holds all that it needs, and is a trace without events: gdb and info look at it as at any. So is what\n"
	       "run --record writes. hindsight snapshot COMMAND --help tells more.\n");
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
		err_set(&err, EINVAL, "take, info, diff or run? See hindsight snapshot --help");
	}
	return session_fail(&err);
}
