// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/gdb_monitor.h"

#include "debugger/session.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct command {
	const char *name, *args, *help;
	int (*run)(struct gdb_view *v, const char *args, struct err *err);
	bool live; /* also of a guest that was not recorded */
};

static int when(struct gdb_view *v, const char *args, struct err *err)
{
	const struct machine *m = v->machine;
	const struct branches *b = &v->branches;
	struct position at;

	(void)args;
	(void)err;
	if (v->guest) {
		gdb_session_print(v->session, "a live guest, %" PRIu64 " boundaries after its start, guest time %.6f s%s\n",
				  m->boundary, (double)m->vtime / (double)NSEC_PER_SEC, m->end ? ", over" : "");
		return 0;
	}
	if (b->live) {
		gdb_session_print(v->session,
				  "%s, %" PRIu64 " boundaries after position %" PRIu64 "+%" PRIu64
				  " of the recording, guest time %.6f s%s\n",
				  b->current->name, m->boundary - b->current->from.boundary, b->current->from.boundary, b->current->from.steps,
				  (double)m->vtime / (double)NSEC_PER_SEC, m->end ? ", over" : "");
		return 0;
	}
	at = timeline_position(v->timeline);
	gdb_session_print(v->session, "position %" PRIu64 "+%" PRIu64 ", guest time %.6f s%s\n", at.boundary,
			  at.steps, (double)m->vtime / (double)NSEC_PER_SEC,
			  timeline_at_end(v->timeline) ? ", the end of the recording" : "");
	return 0;
}

int gdb_monitor_seek(struct gdb_view *v, const char *where, struct err *err)
{
	struct position to;
	struct where w;
	int rc = where_parse(where, &w, err);

	if (rc == 0)
		rc = branch_leave(&v->branches, err);
	if (rc == 0)
		rc = where_find(v->timeline, &w, &to, err);
	return rc < 0 ? rc : timeline_seek(v->timeline, to, err);
}

static int seek(struct gdb_view *v, const char *args, struct err *err)
{
	int rc = gdb_monitor_seek(v, args, err);

	return rc < 0 ? rc : when(v, "", err);
}

/* --- checkpoints and branches --------------------------------------------------------------------- */

static int parse_id(const char *text, uint64_t *id, char **end, struct err *err)
{
	*id = strtoull(text, end, 10);
	if (*end == text || (**end && **end != ' '))
		return err_set(err, EINVAL, "\"%s\" is not the number of a checkpoint; see tree", text);
	*end += strspn(*end, " ");
	return 0;
}

static int checkpoint(struct gdb_view *v, const char *args, struct err *err)
{
	uint64_t id;
	int rc = branch_mark(&v->branches, args, &id, err);

	if (rc == 0)
		gdb_session_print(v->session, "checkpoint %" PRIu64 "; back to it: restart %" PRIu64 "\n", id, id);
	return rc;
}

static int restart(struct gdb_view *v, const char *args, struct err *err)
{
	uint64_t id;
	char *end;
	int rc = parse_id(args, &id, &end, err);

	if (rc == 0)
		rc = branch_restart(&v->branches, id, err);
	return rc < 0 ? rc : when(v, "", err);
}

static int delete(struct gdb_view *v, const char *args, struct err *err)
{
	uint64_t id;
	char *end;
	int rc = parse_id(args, &id, &end, err);

	return rc < 0 ? rc : branch_unmark(&v->branches, id, err);
}

static void print_mark(struct gdb_view *v, const struct branch_mark *mark, const char *indent)
{
	const char *label = mark->snapshot->label;
	double seconds = (double)mark->snapshot->vtime / (double)NSEC_PER_SEC;

	if (mark->branch)
		gdb_session_print(v->session, "%s%-3" PRIu64 " boundary %" PRIu64 ", guest time %.6f s%s%s\n", indent, mark->id,
				  mark->at.boundary, seconds, *label ? ": " : "", label);
	else
		gdb_session_print(v->session, "%s%-3" PRIu64 " position %" PRIu64 "+%" PRIu64 ", guest time %.6f s%s%s\n",
				  indent, mark->id, mark->at.boundary, mark->at.steps, seconds, *label ? ": " : "", label);
}

/* The marks of one branch (NULL: of the recording), below its name. */
static void print_branch(struct gdb_view *v, const struct branch *branch)
{
	const struct branches *b = &v->branches;
	const char *here = b->current == branch ? " (here)" : "";

	if (branch)
		gdb_session_print(v->session, "  %s, from position %" PRIu64 "+%" PRIu64 "%s\n", branch->name,
				  branch->from.boundary, branch->from.steps, here);
	else
		gdb_session_print(v->session, "the recording%s\n", here);
	for (size_t i = 0; i < b->n_marks; i++)
		if (b->marks[i].branch == branch)
			print_mark(v, &b->marks[i], branch ? "    " : "  ");
}

static int tree(struct gdb_view *v, const char *args, struct err *err)
{
	const struct branches *b = &v->branches;
	bool current_told = !b->current;

	(void)args;
	(void)err;
	print_branch(v, NULL);
	/* Each branch where its first checkpoint is met. */
	for (size_t i = 0; i < b->n_marks; i++) {
		const struct branch *branch = b->marks[i].branch;
		bool told = !branch;

		for (size_t j = 0; j < i; j++)
			told = told || b->marks[j].branch == branch;
		if (!told)
			print_branch(v, branch);
		current_told = current_told || branch == b->current;
	}
	if (!current_told)
		print_branch(v, b->current);
	return 0;
}

static int checkpoints(struct gdb_view *v, const char *args, struct err *err)
{
	struct timeline_figures f;

	(void)args;
	(void)err;
	for (size_t i = 0; i < v->branches.n_marks; i++)
		print_mark(v, &v->branches.marks[i], "");
	timeline_figures(v->timeline, &f);
	gdb_session_print(v->session,
			  "kept for going back: %u, %u of them in the trace, with %" PRIu64 " distinct pages in %" PRIu64 " KiB of %" PRIu64
			  " (%" PRIu64 " pages compressed, %" PRIu64 " in a file); %" PRIu64
			  " times gone back to one, %" PRIu64 " times again after a late timer\n",
			  f.checkpoints, f.kept, f.snapshots.store.pages, f.snapshots.store.memory >> 10,
			  f.memory >> 10, f.snapshots.store.compressed, f.snapshots.store.spilled, f.restores, f.retries);
	return 0;
}

/* Words that diff shows; the others it counts. */
#define DIFF_WORDS 20

struct difference {
	struct gdb_session *session;
	uint64_t words, pages;
};

static int print_page_difference(void *ctx, gpa_t gpa, const uint8_t *a, const uint8_t *b, struct err *err)
{
	struct difference *d = ctx;

	(void)err;
	d->pages++;
	for (uint64_t at = 0; at < PAGE_SIZE; at += 8) {
		uint64_t then, now;

		memcpy(&then, a + at, sizeof(then));
		memcpy(&now, b + at, sizeof(now));
		if (then != now && d->words++ < DIFF_WORDS)
			gdb_session_print(d->session, "  0x%" PRIx64 ": 0x%016" PRIx64 ", then 0x%016" PRIx64 "\n",
					  gpa.v + at, then, now);
	}
	return 0;
}

static int diff(struct gdb_view *v, const char *args, struct err *err)
{
	const struct branch_mark *mark[2] = {NULL};
	struct difference d = {.session = v->session};
	int rc = 0;

	for (unsigned i = 0; i < 2 && rc == 0 && (i == 0 || *args); i++) {
		uint64_t id;
		char *end;

		rc = parse_id(args, &id, &end, err);
		mark[i] = rc < 0 ? NULL : branch_find_mark(&v->branches, id);
		if (rc == 0 && !mark[i])
			rc = err_set(err, ENOENT, "there is no checkpoint %" PRIu64 "; see tree", id);
		args = end;
	}
	if (rc == 0)
		rc = snapshot_diff(timeline_snapshots(v->timeline), mark[0]->snapshot, mark[1] ? mark[1]->snapshot : NULL,
				   print_page_difference, &d, err);
	if (rc == 0)
		gdb_session_print(v->session, "%" PRIu64 " words of guest RAM differ, in %" PRIu64 " pages%s\n", d.words,
				  d.pages, d.words > DIFF_WORDS ? "; the first are shown, by guest-physical address" : "");
	return rc;
}

static int branch(struct gdb_view *v, const char *args, struct err *err)
{
	bool leave = strcmp(args, "leave") == 0;
	int rc;

	if (leave && !v->branches.live)
		return err_set(err, EINVAL, "this is the recording; there is no branch to leave");
	rc = leave ? branch_leave(&v->branches, err) : branch_begin(&v->branches, *args ? args : NULL, err);
	if (rc == 0)
		gdb_view_tell_branch(v, v->session);
	return rc;
}

/* --- questions -------------------------------------------------------------------------------------- */

/* *end: behind the number. */
static int parse_address(struct gdb_view *v, const char *text, uint64_t *address, gpa_t *gpa, char **end,
			 struct err *err)
{
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(&v->machine->vcpu[0], &sregs, err);

	if (rc < 0)
		return rc;
	*address = strtoull(text, end, 0);
	if (*end == text || (**end && **end != ' '))
		return err_set(err, EINVAL, "\"%s\" is not an address", text);
	if (paging_translate(v->machine->mem, &sregs, GVA(*address), gpa) < 0)
		return err_set(err, EFAULT, "0x%" PRIx64 " is not mapped at this position", *address);
	return 0;
}

static int translate(struct gdb_view *v, const char *args, struct err *err)
{
	uint64_t address;
	gpa_t gpa;
	char *end;
	int rc = parse_address(v, args, &address, &gpa, &end, err);

	if (rc == 0)
		gdb_session_print(v->session, "0x%" PRIx64 " is at guest-physical 0x%" PRIx64 "\n", address, gpa.v);
	return rc;
}

static int find_last_write(struct gdb_view *v, gpa_t gpa, uint64_t len, struct err *err)
{
	const struct timeline_watch watch = {gpa, len, WATCH_CHANGES};
	const struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	struct position at;
	struct timeline_stop hit;
	int rc = timeline_reverse_continue(v->timeline, &stops, &hit, err);

	if (rc < 0)
		return rc;
	at = timeline_position(v->timeline);
	if (hit.reason == TIMELINE_WATCH)
		gdb_session_print(v->session,
				  "changed at position %" PRIu64 "+%" PRIu64 " by the instruction %s 0x%" PRIx64
				  ": %u bytes at guest-physical 0x%" PRIx64 ", 0x%" PRIx64 " to 0x%" PRIx64 "\n",
				  at.boundary, at.steps, hit.user_rip ? "of user code before" : "at",
				  hit.user_rip ? hit.user_rip
					       : (uint64_t)vcpu_regs(&v->machine->vcpu[0])->rip,
				  hit.len, hit.gpa.v, hit.old, hit.now);
	else
		gdb_session_print(v->session, "not changed since the start of the recording\n");
	return 0;
}

/* Goes back for it, and returns to the present. */
static int last_write(struct gdb_view *v, const char *args, struct err *err)
{
	uint64_t address, len = 1;
	struct snapshot *here;
	struct err back = {0};
	gpa_t gpa;
	char *end;
	int rc = parse_address(v, args, &address, &gpa, &end, err), returned;

	if (rc < 0)
		return rc;
	if (*end)
		len = strtoull(end, &end, 0);
	if (*end || len < 1 || len > PAGE_SIZE - (gpa.v & ~PAGE_MASK))
		return err_set(err, EINVAL, "last-write takes an address and a length of bytes within one page");
	if (v->branches.live)
		return err_set(err, ENOTSUP, "a branch keeps no past; leave it to ask about the recording");
	rc = timeline_freeze(v->timeline, NULL, &here, err);
	if (rc < 0)
		return rc;
	rc = find_last_write(v, gpa, len, err);
	returned = timeline_thaw(v->timeline, here, &back);
	snapshot_delete(timeline_snapshots(v->timeline), here);
	if (rc == 0 && returned < 0)
		*err = back;
	return rc < 0 ? rc : returned;
}

#define EVENTS_SHOWN 10
#define EVENTS_MAX 1000

/* The last n events up to a boundary, in a ring; total: how many there were. */
static int read_events(const char *path, uint64_t boundary, struct event *ring, uint64_t n, uint64_t *total,
		       struct err *err)
{
	struct replay_file *f;
	struct event e;
	int rc = replay_file_open(&f, path, err);

	if (rc < 0)
		return rc;
	*total = 0;
	while ((rc = replay_file_next(f, &e, err)) > 0 && e.boundary <= boundary)
		ring[(*total)++ % n] = e;
	replay_file_close(f);
	return rc < 0 ? rc : 0;
}

static void print_event(struct gdb_view *v, const struct event *e)
{
	char line[256] = "";
	FILE *to = fmemopen(line, sizeof(line), "w");

	if (!to)
		return;
	session_print_event(to, e);
	fclose(to);
	gdb_session_print(v->session, "%s", line);
}

static int events(struct gdb_view *v, const char *args, struct err *err)
{
	char *end;
	uint64_t n = *args ? strtoull(args, &end, 10) : EVENTS_SHOWN, total;
	const struct branches *b = &v->branches;
	uint64_t until = b->live ? b->current->from.boundary : timeline_position(v->timeline).boundary;
	struct event *ring;
	int rc;

	if ((*args && *end) || n < 1 || n > EVENTS_MAX)
		return err_set(err, EINVAL, "events takes how many to show, 1 to %d", EVENTS_MAX);
	ring = calloc(n, sizeof(*ring));
	if (!ring)
		return err_set(err, ENOMEM, "out of memory for events");
	rc = read_events(timeline_path(v->timeline), until, ring, n, &total, err);
	for (uint64_t i = total > n ? total - n : 0; rc == 0 && i < total; i++)
		print_event(v, &ring[i % n]);
	free(ring);
	return rc;
}

/* What Linux's gdb scripts ask of QEMU, to see that they are not on a real machine. */
static int info(struct gdb_view *v, const char *args, struct err *err)
{
	if (strcmp(args, "version") != 0)
		return err_set(err, EINVAL, "\"info %s\" is not known; see monitor help", args);
	gdb_session_print(v->session, "hindsight\n");
	return 0;
}

static int help(struct gdb_view *v, const char *args, struct err *err);

static const struct command commands[] = {
	{"when", "", "the position, and the guest's time", when, true},
	{"seek", "POS|N%|1.5s", "go to a position or guest time, before or after this one", seek, false},
	{"branch", "[NAME|leave]", "go on live from here, or back to the recording", branch, false},
	{"checkpoint", "[LABEL]", "keep this place, in the recording or in a branch", checkpoint, false},
	{"restart", "ID", "go back to a checkpoint", restart, false},
	{"delete", "ID", "forget a checkpoint", delete, false},
	{"tree", "", "the recording, its branches, and the checkpoints in them", tree, false},
	{"diff", "ID [ID]", "what differs in RAM between a checkpoint and here, or another", diff, false},
	{"checkpoints", "", "the checkpoints, and what is kept for going back", checkpoints, false},
	{"last-write", "ADDR [LEN]", "what changed memory last before here", last_write, false},
	{"events", "[N]", "the last events of the log up to here", events, false},
	{"translate", "ADDR", "where a virtual address lies in guest RAM", translate, true},
	{"info", "version", "what this is", info, true},
	{"help", "", "this list", help, true},
};

static int help(struct gdb_view *v, const char *args, struct err *err)
{
	(void)args;
	(void)err;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (v->guest && !commands[i].live)
			continue;
		gdb_session_print(v->session, "%-12s %-12s %s\n", commands[i].name, commands[i].args,
				  commands[i].help);
	}
	return 0;
}

int gdb_monitor_run(struct gdb_view *v, const char *line, struct err *err)
{
	size_t n = strcspn(line, " ");
	const char *args = line + n + strspn(line + n, " ");

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0 &&
		    (!v->guest || commands[i].live))
			return commands[i].run(v, args, err);
	return err_set(err, EINVAL, "\"%.*s\" is no command here; see monitor help", (int)(n < 40 ? n : 40), line);
}
