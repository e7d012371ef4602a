// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/branch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void branches_init(struct branches *b, struct timeline *t, bool (*interrupt)(void *ctx), void *ctx)
{
	const struct trace_machine *tm = timeline_trace(t);

	/* Time goes as it went when the recording was made. Input there is none. */
	*b = (struct branches){
		.timeline = t,
		.options = {.recorder = {.clock = CLOCK_STATE, .quantum = tm->quantum, .time_rate = tm->time_rate},
			    .interrupt = interrupt,
			    .interrupt_ctx = ctx},
	};
}

/* The machine's hooks are the replay's again. */
static void stop_living(struct branches *b)
{
	struct machine *m = timeline_machine(b->timeline);

	live_close(b->live);
	b->live = NULL;
	m->output = b->recorded_output;
	m->output_ctx = b->recorded_output_ctx;
}

static void release(struct branches *b, struct branch *branch)
{
	if (!branch || --branch->users)
		return;
	snapshot_delete(timeline_snapshots(b->timeline), branch->origin);
	free(branch);
}

void branches_close(struct branches *b)
{
	if (b->live)
		stop_living(b);
	release(b, b->current);
	for (size_t i = 0; i < b->n_marks; i++)
		release(b, b->marks[i].branch);
	free(b->marks);
	b->current = NULL;
	b->marks = NULL;
	b->n_marks = 0;
}

static void drop_calls(struct branches *b, unsigned keep)
{
	while (b->n_calls > keep) {
		struct branch_call *c = &b->calls[--b->n_calls];

		if (c->snapshot)
			snapshot_delete(timeline_snapshots(b->timeline), c->snapshot);
	}
}

/* From here on the machine is that of `branch`. */
static int live_in(struct branches *b, struct branch *branch, struct err *err)
{
	struct machine *m = timeline_machine(b->timeline);
	int rc = live_open(&b->live, m, &b->options, err);

	if (rc < 0)
		return rc;
	b->recorded_output = m->output;
	b->recorded_output_ctx = m->output_ctx;
	m->output = b->output;
	m->output_ctx = b->output_ctx;
	b->current = branch;
	branch->users++;
	b->ran = b->registers_written = false;
	return 0;
}

int branch_begin(struct branches *b, const char *name, struct err *err)
{
	struct machine *m = timeline_machine(b->timeline);
	struct branch *branch;
	int rc;

	if (b->live)
		return err_set(err, EBUSY, "this is %s already; leave it first", b->current->name);
	if (name && strlen(name) > BRANCH_NAME_MAX)
		return err_set(err, EINVAL, "a branch's name has at most %d bytes", BRANCH_NAME_MAX);
	branch = calloc(1, sizeof(*branch));
	if (!branch)
		return err_set(err, ENOMEM, "out of memory for a branch");
	if (name)
		snprintf(branch->name, sizeof(branch->name), "%s", name);
	else
		snprintf(branch->name, sizeof(branch->name), "branch-%" PRIu64, b->begun + 1);
	rc = timeline_freeze(b->timeline, branch->name, &branch->origin, err);
	if (rc < 0) {
		free(branch);
		return rc;
	}
	branch->from = timeline_position(b->timeline);
	rc = live_in(b, branch, err);
	if (rc < 0) {
		branch->users = 1;
		release(b, branch);
		return rc;
	}
	/* Where the recording was stopped from outside the guest can go on. */
	if (machine_end_is_imposed(m->end))
		m->end = END_NONE;
	b->begun++;
	return 0;
}

/* The machine is no longer that of the branch, whatever it is made next. */
static void leave(struct branches *b)
{
	stop_living(b);
	drop_calls(b, 0);
	release(b, b->current);
	b->current = NULL;
}

int branch_leave(struct branches *b, struct err *err)
{
	int rc = b->live ? timeline_thaw(b->timeline, b->current->origin, err) : 0;

	if (rc == 0 && b->live)
		leave(b);
	return rc;
}

/* --- checkpoints of the user's -------------------------------------------------------------------- */

const struct branch_mark *branch_find_mark(const struct branches *b, uint64_t id)
{
	for (size_t i = 0; i < b->n_marks; i++)
		if (b->marks[i].id == id)
			return &b->marks[i];
	return NULL;
}

static int find_mark(const struct branches *b, uint64_t id, const struct branch_mark **mark, struct err *err)
{
	*mark = branch_find_mark(b, id);
	return *mark ? 0 : err_set(err, ENOENT, "there is no checkpoint %" PRIu64 "; see tree", id);
}

int branch_mark(struct branches *b, const char *label, uint64_t *id, struct err *err)
{
	const struct snapshot_note note = {.label = label};
	struct branch_mark *more = realloc(b->marks, (b->n_marks + 1) * sizeof(*more));
	struct branch_mark mark = {.branch = b->current};
	int rc;

	if (!more)
		return err_set(err, ENOMEM, "out of memory for checkpoints");
	b->marks = more;
	rc = b->live ? snapshot_take(timeline_snapshots(b->timeline), &note, &mark.snapshot, err)
		     : timeline_freeze(b->timeline, label, &mark.snapshot, err);
	if (rc < 0)
		return rc;
	if (b->live)
		b->current->users++;
	mark.at = b->live ? (struct position){timeline_machine(b->timeline)->boundary, 0} : timeline_position(b->timeline);
	mark.id = *id = ++b->marked;
	b->marks[b->n_marks++] = mark;
	return 0;
}

int branch_restart(struct branches *b, uint64_t id, struct err *err)
{
	const struct branch_mark *mark;
	int rc = find_mark(b, id, &mark, err);

	if (rc < 0)
		return rc;
	if (!mark->branch) {
		rc = timeline_thaw(b->timeline, mark->snapshot, err);
		if (rc == 0 && b->live)
			leave(b);
		return rc;
	}
	rc = snapshot_restore(timeline_snapshots(b->timeline), mark->snapshot, err);
	if (rc < 0)
		return rc;
	/* The mark holds its branch. */
	if (b->live)
		leave(b);
	rc = live_in(b, mark->branch, err);
	if (rc < 0)
		(void)timeline_thaw(b->timeline, mark->branch->origin, NULL);
	b->ran = true;
	return rc;
}

int branch_unmark(struct branches *b, uint64_t id, struct err *err)
{
	const struct branch_mark *mark;
	int rc = find_mark(b, id, &mark, err);

	if (rc < 0)
		return rc;
	release(b, mark->branch);
	snapshot_delete(timeline_snapshots(b->timeline), mark->snapshot);
	b->n_marks--;
	memmove(&b->marks[mark - b->marks], mark + 1, (b->n_marks - (size_t)(mark - b->marks)) * sizeof(*mark));
	return 0;
}

/* --- calls ---------------------------------------------------------------------------------------- */

/* Back to before a call. */
static int undo(struct branches *b, unsigned i, struct err *err)
{
	struct branch_call *c = &b->calls[i];
	int rc;

	if (!c->snapshot)
		return branch_leave(b, err);
	rc = snapshot_restore(timeline_snapshots(b->timeline), c->snapshot, err);
	if (rc < 0)
		return rc;
	drop_calls(b, i);
	b->registers_written = false;
	return 0;
}

/* The guest has not run since this was noted, nor have its registers changed. */
static bool is_noted(const struct branches *b, const struct kvm_regs *now)
{
	const struct branch_call *c = b->n_calls ? &b->calls[b->n_calls - 1] : NULL;

	return c && !c->ran && memcmp(&c->before, now, sizeof(*now)) == 0;
}

int branch_note_call(struct branches *b, struct err *err)
{
	struct snapshots *tree = timeline_snapshots(b->timeline);
	struct branch_call c = {.before = event_regs(&timeline_machine(b->timeline)->vcpu[0])};
	int rc = 0;

	if (b->live && is_noted(b, &c.before))
		return 0;
	if (b->live)
		rc = snapshot_take(tree, NULL, &c.snapshot, err);
	else
		rc = branch_begin(b, NULL, err);
	if (rc < 0)
		return rc;
	if (b->n_calls == BRANCH_CALLS_MAX) {
		if (b->calls[0].snapshot)
			snapshot_delete(tree, b->calls[0].snapshot);
		memmove(&b->calls[0], &b->calls[1], --b->n_calls * sizeof(b->calls[0]));
	}
	b->calls[b->n_calls++] = c;
	b->registers_written = true;
	return 0;
}

int branch_registers(struct branches *b, const struct kvm_regs *now, bool *done, struct err *err)
{
	*done = false;
	for (unsigned i = b->n_calls; i-- > 0;) {
		if (!b->calls[i].ran || memcmp(&b->calls[i].before, now, sizeof(*now)) != 0)
			continue;
		*done = true;
		return undo(b, i, err);
	}
	return b->live && b->registers_written ? 0 : branch_note_call(b, err);
}

void branch_runs(struct branches *b)
{
	for (unsigned i = 0; i < b->n_calls; i++)
		b->calls[i].ran = true;
	b->ran = true;
	b->registers_written = false;
}
