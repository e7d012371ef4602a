// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/branch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
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

void branches_close(struct branches *b)
{
	if (b->live)
		stop_living(b);
}

static void drop_calls(struct branches *b, unsigned keep)
{
	while (b->n_calls > keep) {
		struct branch_call *c = &b->calls[--b->n_calls];

		if (c->snapshot)
			snapshot_delete(timeline_snapshots(b->timeline), c->snapshot);
	}
}

int branch_begin(struct branches *b, const char *name, struct err *err)
{
	struct machine *m = timeline_machine(b->timeline);
	int rc;

	if (b->live)
		return err_set(err, EBUSY, "this is branch %s already; leave it first", b->name);
	if (name && strlen(name) > BRANCH_NAME_MAX)
		return err_set(err, EINVAL, "a branch's name has at most %d bytes", BRANCH_NAME_MAX);
	if (name)
		snprintf(b->name, sizeof(b->name), "%s", name);
	else
		snprintf(b->name, sizeof(b->name), "branch-%" PRIu64, b->begun + 1);
	rc = timeline_freeze(b->timeline, b->name, &b->origin, err);
	if (rc < 0)
		return rc;
	b->from = timeline_position(b->timeline);
	rc = live_open(&b->live, m, &b->options, err);
	if (rc < 0) {
		snapshot_delete(timeline_snapshots(b->timeline), b->origin);
		return rc;
	}
	b->recorded_output = m->output;
	b->recorded_output_ctx = m->output_ctx;
	m->output = b->output;
	m->output_ctx = b->output_ctx;
	/* Where the recording was stopped from outside the guest can go on. */
	if (machine_end_is_imposed(m->end))
		m->end = END_NONE;
	b->begun++;
	b->ran = b->registers_written = false;
	return 0;
}

int branch_leave(struct branches *b, struct err *err)
{
	int rc;

	if (!b->live)
		return 0;
	rc = timeline_thaw(b->timeline, b->origin, err);
	if (rc < 0)
		return rc;
	stop_living(b);
	drop_calls(b, 0);
	snapshot_delete(timeline_snapshots(b->timeline), b->origin);
	return 0;
}

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
