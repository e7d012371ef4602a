// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/gdb_monitor.h"

#include "debugger/options.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct command {
	const char *name, *args, *help;
	int (*run)(struct gdb_view *v, const char *args, struct err *err);
};

static int when(struct gdb_view *v, const char *args, struct err *err)
{
	struct position at = timeline_position(v->timeline);
	const struct machine *m = timeline_machine(v->timeline);

	const struct branches *b = &v->branches;

	(void)args;
	(void)err;
	if (b->live) {
		gdb_session_print(v->session,
				  "%s, %" PRIu64 " boundaries after position %" PRIu64 "+%" PRIu64
				  " of the recording, guest time %.6f s%s\n",
				  b->name, m->boundary - b->from.boundary, b->from.boundary, b->from.steps,
				  (double)m->vtime / (double)NSEC_PER_SEC, m->end ? ", over" : "");
		return 0;
	}
	gdb_session_print(v->session, "position %" PRIu64 "+%" PRIu64 ", guest time %.6f s%s\n", at.boundary,
			  at.steps, (double)m->vtime / (double)NSEC_PER_SEC,
			  timeline_at_end(v->timeline) ? ", the end of the recording" : "");
	return 0;
}

int gdb_monitor_seek(struct gdb_view *v, const char *where, struct err *err)
{
	struct position to;
	char *end;
	double percent = strtod(where, &end);
	int rc;

	if (end != where && strcmp(end, "%") == 0) {
		if (!(percent >= 0 && percent <= 100))
			return err_set(err, EINVAL, "\"%s\" is not between 0%% and 100%%", where);
		rc = timeline_last(v->timeline, &to, err);
		to = (struct position){(uint64_t)((double)to.boundary * percent / 100), 0};
	} else {
		rc = position_parse(where, &to, err);
	}
	if (rc == 0)
		rc = branch_leave(&v->branches, err);
	return rc < 0 ? rc : timeline_seek(v->timeline, to, err);
}

static int seek(struct gdb_view *v, const char *args, struct err *err)
{
	int rc = gdb_monitor_seek(v, args, err);

	return rc < 0 ? rc : when(v, "", err);
}

static int checkpoints(struct gdb_view *v, const char *args, struct err *err)
{
	struct timeline_figures f;

	(void)args;
	(void)err;
	timeline_figures(v->timeline, &f);
	gdb_session_print(v->session,
			  "%u checkpoints, %u of them in the trace, with %" PRIu64 " distinct pages in %" PRIu64 " KiB of %" PRIu64
			  " (%" PRIu64 " pages compressed, %" PRIu64 " in a file); %" PRIu64
			  " times gone back to one, %" PRIu64 " times again after a late timer\n",
			  f.checkpoints, f.kept, f.snapshots.store.pages, f.snapshots.store.memory >> 10,
			  f.memory >> 10, f.snapshots.store.compressed, f.snapshots.store.spilled, f.restores, f.retries);
	return 0;
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

static int translate(struct gdb_view *v, const char *args, struct err *err)
{
	struct machine *m = timeline_machine(v->timeline);
	uint64_t address;
	struct kvm_sregs sregs;
	gpa_t gpa;
	char *end;
	int rc = vcpu_get_sregs(&m->vcpu[0], &sregs, err);

	if (rc < 0)
		return rc;
	address = strtoull(args, &end, 0);
	if (end == args || *end)
		return err_set(err, EINVAL, "\"%s\" is not an address", args);
	if (paging_translate(m->mem, &sregs, GVA(address), &gpa) < 0)
		return err_set(err, EFAULT, "0x%" PRIx64 " is not mapped at this position", address);
	gdb_session_print(v->session, "0x%" PRIx64 " is at guest-physical 0x%" PRIx64 "\n", address, gpa.v);
	return 0;
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
	{"when", "", "the position, and the guest's time", when},
	{"seek", "POS|N%", "go to a position, before or after this one", seek},
	{"branch", "[NAME|leave]", "go on live from here, or back to the recording", branch},
	{"checkpoints", "", "what is kept for going back", checkpoints},
	{"translate", "ADDR", "where a virtual address lies in guest RAM", translate},
	{"info", "version", "what this is", info},
	{"help", "", "this list", help},
};

static int help(struct gdb_view *v, const char *args, struct err *err)
{
	(void)args;
	(void)err;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		gdb_session_print(v->session, "%-12s %-12s %s\n", commands[i].name, commands[i].args,
				  commands[i].help);
	return 0;
}

int gdb_monitor_run(struct gdb_view *v, const char *line, struct err *err)
{
	size_t n = strcspn(line, " ");
	const char *args = line + n + strspn(line + n, " ");

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0)
			return commands[i].run(v, args, err);
	return err_set(err, EINVAL, "\"%.*s\" is no command here; see monitor help", (int)(n < 40 ? n : 40), line);
}
