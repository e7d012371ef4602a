// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/gdb_target.h"

#include "debugger/gdb_monitor.h"
#include "debugger/gdb_regs.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pages that all watchpoints together may have. */
#define WATCHED_PAGES_MAX 4096u
/* gdb's own frame for a call, and what it passes on the stack. */
#define SCRATCH_MAX 65536u

static struct machine *machine(struct gdb_view *v)
{
	return v->machine;
}

/* What runs by itself now; NULL: the recording is replayed. */
static struct live *live(struct gdb_view *v)
{
	return v->guest ? v->guest : v->branches.live;
}

static struct vcpu *vcpu(struct gdb_view *v)
{
	return &machine(v)->vcpu[0];
}

static int read_registers(void *ctx, int thread, unsigned groups, struct gdb_registers *r, struct err *err)
{
	struct gdb_view *v = ctx;
	int rc = vcpu_complete(vcpu(v), err);

	(void)thread;
	return rc < 0 ? rc : gdb_regs_read(vcpu(v), groups, r, err);
}

void gdb_view_tell_branch(struct gdb_view *v, struct gdb_session *s)
{
	const struct branches *b = &v->branches;
	struct position at = timeline_position(v->timeline);

	if (b->live)
		gdb_session_print(s,
				  "This is %s now, which goes on live from position %" PRIu64 "+%" PRIu64
				  " of the recording.\nThe recording stays as it is; back to it: monitor branch leave\n",
				  b->current->name, b->current->from.boundary, b->current->from.steps);
	else
		gdb_session_print(s, "Back in the recording, at position %" PRIu64 "+%" PRIu64 "\n", at.boundary, at.steps);
}

static int write_registers(void *ctx, struct gdb_session *s, int thread, unsigned groups,
			   const struct gdb_registers *r, struct err *err)
{
	struct gdb_view *v = ctx;
	bool was_branch = v->branches.live, done = false;
	struct gdb_registers now;
	struct kvm_regs general;
	int rc;

	memset(&now, 0, sizeof(now));
	rc = read_registers(v, thread, groups, &now, err);
	if (rc < 0 || memcmp(&now, r, sizeof(now)) == 0)
		return rc;
	if (groups & GDB_REGS_GENERAL)
		general = gdb_regs_general(vcpu(v), r);
	else
		general = event_regs(vcpu(v));
	rc = v->guest ? 0 : branch_registers(&v->branches, &general, &done, err);
	if (rc == 0 && !done)
		rc = gdb_regs_write(vcpu(v), groups, r, err);
	if (!was_branch && v->branches.live)
		gdb_view_tell_branch(v, s);
	return rc;
}

/* Where [addr, addr+n) of one page lies in RAM. */
static int locate(struct gdb_view *v, enum gdb_space space, const struct kvm_sregs *sregs, uint64_t addr, gpa_t *gpa)
{
	*gpa = GPA(addr);
	return space == GDB_LINEAR ? paging_translate(machine(v)->mem, sregs, GVA(addr), gpa) : 0;
}

static size_t part_of_page(uint64_t at, size_t n)
{
	size_t room = PAGE_SIZE - (at & ~PAGE_MASK);

	return room < n ? room : n;
}

/* All of it is there; the same: it holds just this already. */
static int check_write(struct gdb_view *v, enum gdb_space space, const struct kvm_sregs *sregs, uint64_t addr,
		       const uint8_t *data, size_t n, bool *same, struct err *err)
{
	*same = true;
	for (size_t done = 0, part; done < n; done += part) {
		const void *ram = NULL;
		gpa_t gpa;

		part = part_of_page(addr + done, n - done);
		if (locate(v, space, sregs, addr + done, &gpa) == 0)
			ram = memory_at(machine(v)->mem, gpa, part);
		if (!ram)
			return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr + done);
		*same = *same && memcmp(ram, data + done, part) == 0;
	}
	return 0;
}

/* Where gdb lays out the call of a function: just below the stack pointer, where nothing lives. */
static bool is_scratch(struct gdb_view *v, enum gdb_space space, uint64_t addr, size_t n)
{
	uint64_t sp = vcpu_regs(vcpu(v))->rsp;

	return space == GDB_LINEAR && addr < sp && sp - addr >= n && sp - addr <= SCRATCH_MAX;
}

/* Once. A live guest has no history that must stay as it was. */
static void tell_of_calls(struct gdb_view *v, struct gdb_session *s, bool call)
{
	if (call && !v->told_of_calls)
		gdb_session_print(s, "The guest is live: what a function does that is called here stays done, as time that it takes "
				     "is gone.\nIn a recording it would be undone.\n");
	v->told_of_calls |= call;
}

static int write_memory(void *ctx, struct gdb_session *s, int thread, enum gdb_space space, uint64_t addr,
			const void *data, size_t n, struct err *err)
{
	struct gdb_view *v = ctx;
	const uint8_t *bytes = data;
	bool same = false, was_branch = v->branches.live;
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(vcpu(v), &sregs, err);

	(void)thread;
	if (rc == 0)
		rc = check_write(v, space, &sregs, addr, bytes, n, &same, err);
	if (rc < 0 || same)
		return rc;
	if (v->guest)
		tell_of_calls(v, s, is_scratch(v, space, addr, n));
	else if (is_scratch(v, space, addr, n))
		rc = branch_note_call(&v->branches, err);
	else if (!was_branch)
		rc = branch_begin(&v->branches, NULL, err);
	for (size_t done = 0, part; rc == 0 && done < n; done += part) {
		gpa_t gpa;

		part = part_of_page(addr + done, n - done);
		if (locate(v, space, &sregs, addr + done, &gpa) < 0 ||
		    memory_write(machine(v)->mem, gpa, bytes + done, part) < 0)
			rc = err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr + done);
	}
	/* It may have been a page table. */
	if (rc == 0)
		rc = machine_forget_tables(machine(v), err);
	if (rc == 0 && !was_branch && v->branches.live)
		gdb_view_tell_branch(v, s);
	return rc;
}

/* Page by page: what is behind an address that is not mapped may be. */
static int read_memory(void *ctx, int thread, enum gdb_space space, uint64_t addr, void *data, size_t n,
		       size_t *done, struct err *err)
{
	struct gdb_view *v = ctx;
	struct machine *m = machine(v);
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(vcpu(v), &sregs, err);

	(void)thread;
	*done = 0;
	while (rc == 0 && *done < n) {
		uint64_t at = addr + *done;
		size_t part = part_of_page(at, n - *done);
		gpa_t gpa;

		if (locate(v, space, &sregs, at, &gpa) < 0 ||
		    memory_read(m->mem, gpa, (uint8_t *)data + *done, part) < 0)
			break;
		rewrite_show_original(&m->sites, gpa, (uint8_t *)data + *done, part);
		*done += part;
	}
	if (rc == 0 && *done == 0 && n)
		return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr);
	return rc;
}

bool gdb_view_interrupted(void *ctx)
{
	struct gdb_view *v = ctx;

	return v->session && gdb_session_interrupted(v->session);
}

/* The breakpoints at RIP whose conditions hold. */
static bool wanted(void *ctx, struct timeline *t)
{
	struct gdb_view *v = ctx;
	struct gdb_registers r;
	const struct gdb_point *p;

	(void)t;
	if (read_registers(v, 1, GDB_REGS_GENERAL, &r, NULL) < 0)
		return true;
	for (p = gdb_points_from(v->resume->points, r.rip);
	     p != gdb_points_end(v->resume->points) && p->addr == r.rip; p++) {
		if (!gdb_point_is_watch(p) && gdb_target_point_holds(&v->target, 1, p)) {
			v->hit = p;
			return true;
		}
	}
	return false;
}

/* What of each watchpoint lies in one page of RAM. */
struct watched_part {
	const struct gdb_point *point;
	uint64_t addr;
};

struct watches {
	struct timeline_watch watch[WATCHED_PAGES_MAX];
	struct watched_part part[WATCHED_PAGES_MAX];
	size_t n;
};

static unsigned access_kinds(enum gdb_point_type type)
{
	return type == GDB_POINT_READ	  ? WATCH_LOADS
	       : type == GDB_POINT_ACCESS ? WATCH_LOADS | WATCH_STORES
					  : WATCH_CHANGES;
}

static bool shares_page(struct gdb_view *v, const struct kvm_sregs *sregs, uint64_t addr, gpa_t page)
{
	gpa_t gpa;

	return locate(v, GDB_LINEAR, sregs, addr, &gpa) == 0 && (gpa.v & PAGE_MASK) == (page.v & PAGE_MASK);
}

/* Where reads are watched, KVM itself cannot read: it would give the guest faults that never were. */
static int check_loads(struct gdb_view *v, const struct kvm_sregs *sregs, gpa_t gpa, struct err *err)
{
	bool table;
	int rc = paging_is_table(machine(v)->mem, sregs, gpa, &table);

	if (rc < 0)
		return err_set(err, -rc, "out of memory for a look at the guest's page tables");
	if (table || shares_page(v, sregs, sregs->gdt.base, gpa) || shares_page(v, sregs, sregs->idt.base, gpa) ||
	    shares_page(v, sregs, sregs->tr.base, gpa))
		return err_set(err, ENOTSUP,
			       "reads cannot be watched in a page with the guest's %s tables; watch for writes",
			       table ? "page" : "descriptor");
	return 0;
}

static int add_watchpoint(struct gdb_view *v, const struct kvm_sregs *sregs, const struct gdb_point *p, struct watches *w,
			  struct err *err)
{
	for (uint64_t done = 0, part; done < p->len; done += part) {
		uint64_t at = p->addr + done;
		gpa_t gpa;

		part = part_of_page(at, p->len - done);
		if (w->n == WATCHED_PAGES_MAX)
			return err_set(err, E2BIG, "watchpoints cover more than %u pages", WATCHED_PAGES_MAX);
		if (locate(v, GDB_LINEAR, sregs, at, &gpa) < 0)
			return err_set(err, EFAULT, "cannot watch 0x%" PRIx64 ": nothing is mapped there now", at);
		if (access_kinds(p->type) & WATCH_LOADS) {
			int rc = check_loads(v, sregs, gpa, err);

			if (rc < 0)
				return rc;
		}
		w->watch[w->n] = (struct timeline_watch){gpa, part, access_kinds(p->type)};
		w->part[w->n++] = (struct watched_part){p, at};
	}
	return 0;
}

/* addresses: room for BREAKPOINTS_MAX. */
static int collect_stops(struct gdb_view *v, gva_t *addresses, struct watches *w, struct timeline_stops *stops,
			 struct err *err)
{
	struct kvm_sregs sregs;
	unsigned n = 0;
	int rc = vcpu_get_sregs(vcpu(v), &sregs, err);

	for (size_t i = 0; rc == 0 && i < v->resume->points->count; i++) {
		const struct gdb_point *p = &v->resume->points->list[i];

		if (gdb_point_is_watch(p)) {
			rc = add_watchpoint(v, &sregs, p, w, err);
			continue;
		}
		if (n && addresses[n - 1].v == p->addr)
			continue; /* the list is sorted */
		if (n == BREAKPOINTS_MAX)
			return err_set(err, E2BIG, "more than %u breakpoints at a time are not supported",
				       BREAKPOINTS_MAX);
		addresses[n++] = GVA(p->addr);
	}
	stops->breakpoints = (struct breakpoint_set){addresses, n};
	stops->watches = w->watch;
	stops->n_watches = w->n;
	return rc;
}

/* Which watchpoints has the access that the run stopped at hit? */
static void report_watch(const struct watches *w, const struct timeline_stop *hit, struct gdb_stop *stop)
{
	for (size_t i = 0; i < w->n && stop->n_watches < GDB_WATCH_HITS_MAX; i++) {
		gpa_t byte;

		if (!stops_watch_sees(&w->watch[i], hit, &byte))
			continue;
		stop->watches[stop->n_watches].type = w->part[i].point->type;
		stop->watches[stop->n_watches++].addr = w->part[i].addr + (byte.v - w->watch[i].gpa.v);
	}
}

/* All that holds: where a watchpoint is hit there can be a breakpoint as well. */
static void report_stop(struct gdb_view *v, const struct watches *w, const struct timeline_stop *hit,
			struct gdb_stop *stop)
{
	stop->history_begin = hit->reason == TIMELINE_BEGIN;
	stop->history_end = hit->reason == TIMELINE_END;
	if (hit->reason == TIMELINE_WATCH) {
		report_watch(w, hit, stop);
		v->hit = NULL;
	}
	if (hit->reason == TIMELINE_WATCH && hit->user_rip)
		gdb_session_print(v->session,
				  "User code made the access before 0x%" PRIx64
				  "; this host cannot stop there, so this is where that code was entered\n",
				  hit->user_rip);
	if (hit->reason == TIMELINE_BREAKPOINT || (hit->reason == TIMELINE_WATCH && wanted(v, NULL))) {
		stop->hard = v->hit && v->hit->type == GDB_POINT_HARD;
		stop->soft = !stop->hard;
	}
}

/* One run to what stops it. */
static int run_once(struct gdb_view *v, const struct timeline_stops *stops, struct timeline_stop *hit, struct err *err)
{
	if (live(v))
		return live_continue(live(v), stops, hit, err);
	return v->resume->reverse ? timeline_reverse_continue(v->timeline, stops, hit, err)
				  : timeline_continue(v->timeline, stops, hit, err);
}

/* Continue until a stop that gdb asked for. */
static int run_on(struct gdb_view *v, struct gdb_stop *stop, struct err *err)
{
	gva_t addresses[BREAKPOINTS_MAX];
	struct timeline_stops stops = {.wanted = wanted, .ctx = v, .here = true};
	struct watches *w = malloc(sizeof(*w));
	struct timeline_stop hit;
	int rc;

	if (!w)
		return err_set(err, ENOMEM, "out of memory for watchpoints");
	w->n = 0;
	v->hit = NULL;
	rc = collect_stops(v, addresses, w, &stops, err);
	if (rc == 0)
		rc = run_once(v, &stops, &hit, err);
	if (rc == 0)
		report_stop(v, w, &hit, stop);
	free(w);
	return rc;
}

static int step_once(struct gdb_view *v, struct gdb_stop *stop, struct err *err)
{
	struct position from, to;
	struct timeline_stop hit;
	int rc;

	if (live(v)) {
		rc = live_step(live(v), &hit, err);
		stop->history_end = rc == 0 && hit.reason == TIMELINE_END;
		return rc;
	}
	from = timeline_position(v->timeline);
	rc = v->resume->reverse ? timeline_reverse_step(v->timeline, 1, err) : timeline_step(v->timeline, 1, err);
	if (rc < 0)
		return rc;
	to = timeline_position(v->timeline);
	if (timeline_at_end(v->timeline))
		stop->history_end = true;
	else if (to.boundary == from.boundary && to.steps == from.steps)
		stop->history_begin = true;
	return 0;
}

static int run_steps(struct gdb_view *v, struct gdb_stop *stop, struct err *err)
{
	const struct gdb_resume *r = v->resume;
	struct gdb_registers regs;
	int rc;

	do {
		rc = step_once(v, stop, err);
		if (rc < 0 || stop->history_end || stop->history_begin || r->run == GDB_RUN_STEP)
			return rc;
		if (gdb_view_interrupted(v))
			return err_set(err, EINTR, "interrupted");
		rc = read_registers(v, 1, GDB_REGS_GENERAL, &regs, err);
	} while (rc == 0 && regs.rip >= r->start && regs.rip < r->end);
	return rc;
}

/* A branch goes forward only. Back from its start leads into the recording, from elsewhere to where it began there. */
static int leave_backwards(struct gdb_view *v, struct gdb_session *s, bool *there, struct err *err)
{
	int rc;

	*there = v->branches.live && v->branches.ran;
	if (!v->branches.live)
		return 0;
	rc = branch_leave(&v->branches, err);
	if (rc == 0)
		gdb_view_tell_branch(v, s);
	return rc;
}

static int resume(void *ctx, struct gdb_session *s, const struct gdb_resume *r, struct gdb_stop *stop,
		  struct err *err)
{
	struct gdb_view *v = ctx;
	bool there = false;
	int rc = 0;

	v->session = s;
	v->resume = r;
	*stop = (struct gdb_stop){.thread = 1, .signal = GDB_SIGNAL_TRAP};
	if (r->reverse)
		rc = leave_backwards(v, s, &there, err);
	branch_runs(&v->branches);
	if (rc == 0 && there)
		stop->history_begin = true;
	else if (rc == 0)
		rc = r->run == GDB_RUN_CONTINUE ? run_on(v, stop, err) : run_steps(v, stop, err);
	if (rc == 0 && stop->history_end && live(v)) {
		/* It can still be looked at, which it could not if it "exited" to gdb. */
		gdb_session_print(s, "%s is over: %s\n", v->guest ? "The guest" : v->branches.current->name,
				  machine_end_name(machine(v)->end));
		stop->history_end = !v->guest;
	}
	v->session = NULL;
	v->resume = NULL;
	if (rc == -EINTR) {
		stop->signal = GDB_SIGNAL_INT;
		return 0;
	}
	return rc;
}

static int restart(void *ctx, struct gdb_session *s, const char *args, struct err *err)
{
	struct gdb_view *v = ctx;
	int rc;

	v->session = s;
	rc = gdb_monitor_seek(v, *args ? args : "0", err);
	v->session = NULL;
	return rc;
}

static int monitor(void *ctx, struct gdb_session *s, const char *line, struct err *err)
{
	struct gdb_view *v = ctx;
	int rc;

	v->session = s;
	rc = gdb_monitor_run(v, line, err);
	v->session = NULL;
	return rc;
}

static void describe_thread(void *ctx, int thread, char *text, size_t size)
{
	struct gdb_view *v = ctx;
	const char *mode = vcpu_cpl(vcpu(v), NULL) == 3 ? "user" : "kernel";
	struct position at;

	(void)thread;
	if (live(v)) {
		snprintf(text, size, "%s code in %s, at boundary %" PRIu64, mode,
			 v->guest ? "a live guest" : v->branches.current->name, machine(v)->boundary);
		return;
	}
	at = timeline_position(v->timeline);
	snprintf(text, size, "%s code at position %" PRIu64 "+%" PRIu64, mode, at.boundary, at.steps);
}

/* What the guest of a branch prints, its user is shown. */
static void show_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct gdb_view *v = ctx;

	if (stream == DEV_STREAM_SERIAL && v->session)
		gdb_session_print(v->session, "%c", byte);
}

static const struct gdb_target_ops recording_ops = {
	.read_registers = read_registers,
	.write_registers = write_registers,
	.read_memory = read_memory,
	.write_memory = write_memory,
	.resume = resume,
	.restart = restart,
	.monitor = monitor,
	.describe_thread = describe_thread,
};

/* Without restart. */
static const struct gdb_target_ops live_ops = {
	.read_registers = read_registers,
	.write_registers = write_registers,
	.read_memory = read_memory,
	.write_memory = write_memory,
	.resume = resume,
	.monitor = monitor,
	.describe_thread = describe_thread,
};

static void init(struct gdb_view *v, struct machine *m, const struct gdb_target_ops *ops)
{
	*v = (struct gdb_view){.target = {.ops = ops, .ctx = v, .threads = 1}, .machine = m};
	v->target.avx = m->config.xfeatures != 0;
}

void gdb_view_init(struct gdb_view *v, struct timeline *t)
{
	init(v, timeline_machine(t), &recording_ops);
	v->target.can_reverse = true;
	v->timeline = t;
	branches_init(&v->branches, t, gdb_view_interrupted, v);
	v->branches.output = show_output;
	v->branches.output_ctx = v;
}

void gdb_view_init_live(struct gdb_view *v, struct machine *m, struct live *guest)
{
	init(v, m, &live_ops);
	v->guest = guest;
}

void gdb_view_close(struct gdb_view *v)
{
	branches_close(&v->branches);
}
