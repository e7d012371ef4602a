// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/gdb_target.h"

#include "debugger/gdb_monitor.h"
#include "debugger/gdb_regs.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Watchpoints of one run must lie this close together in guest RAM: they are one watch of the timeline. */
#define WATCH_SPAN_MAX 65536u

static struct machine *machine(struct gdb_view *v)
{
	return timeline_machine(v->timeline);
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

static int refuse_change(struct err *err)
{
	return err_set(err, ENOTSUP, "this is a recording, and what was recorded is never altered");
}

static int write_registers(void *ctx, struct gdb_session *s, int thread, unsigned groups,
			   const struct gdb_registers *r, struct err *err)
{
	(void)ctx;
	(void)s;
	(void)thread;
	(void)groups;
	(void)r;
	return refuse_change(err);
}

static int write_memory(void *ctx, struct gdb_session *s, int thread, enum gdb_space space, uint64_t addr,
			const void *data, size_t n, struct err *err)
{
	(void)ctx;
	(void)s;
	(void)thread;
	(void)space;
	(void)addr;
	(void)data;
	(void)n;
	return refuse_change(err);
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
		size_t part = PAGE_SIZE - (at & ~PAGE_MASK);
		gpa_t gpa = GPA(at);

		part = part < n - *done ? part : n - *done;
		if ((space == GDB_LINEAR && paging_translate(m->mem, &sregs, GVA(at), &gpa) < 0) ||
		    memory_read(m->mem, gpa, (uint8_t *)data + *done, part) < 0)
			break;
		rewrite_show_original(&m->sites, gpa, (uint8_t *)data + *done, part);
		*done += part;
	}
	if (rc == 0 && *done == 0 && n)
		return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr);
	return rc;
}

static int check_point(void *ctx, const struct gdb_point *p, struct err *err)
{
	(void)ctx;
	if (p->type == GDB_POINT_READ || p->type == GDB_POINT_ACCESS)
		return err_set(err, ENOTSUP, "reads cannot be watched; watch for changes with \"watch\"");
	return 0;
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

/* Breakpoints and the one watch that covers all watchpoints. addresses: room for BREAKPOINTS_MAX. */
static int collect_stops(struct gdb_view *v, gva_t *addresses, struct timeline_stops *stops, struct err *err)
{
	uint64_t low = UINT64_MAX, high = 0;
	struct kvm_sregs sregs;
	unsigned n = 0;
	int rc = vcpu_get_sregs(vcpu(v), &sregs, err);

	for (size_t i = 0; rc == 0 && i < v->resume->points->count; i++) {
		const struct gdb_point *p = &v->resume->points->list[i];
		gpa_t gpa;

		if (!gdb_point_is_watch(p)) {
			if (n && addresses[n - 1].v == p->addr)
				continue; /* the list is sorted */
			if (n == BREAKPOINTS_MAX)
				return err_set(err, E2BIG, "more than %u breakpoints at a time are not supported",
					       BREAKPOINTS_MAX);
			addresses[n++] = GVA(p->addr);
		} else if (paging_translate(machine(v)->mem, &sregs, GVA(p->addr), &gpa) < 0) {
			return err_set(err, EFAULT, "cannot watch 0x%" PRIx64 ": nothing is mapped there now", p->addr);
		} else {
			low = gpa.v < low ? gpa.v : low;
			high = gpa.v + p->len > high ? gpa.v + p->len : high;
		}
	}
	if (rc == 0 && low < high) {
		if (high - low > WATCH_SPAN_MAX)
			return err_set(err, ENOTSUP,
				       "watchpoints must lie within 64 KiB of guest RAM; delete some of them");
		stops->watch = GPA(low);
		stops->watch_len = high - low;
	}
	stops->breakpoints = (struct breakpoint_set){addresses, n};
	return rc;
}

/* A store that the timeline stopped at: which watchpoints has it changed a byte of? */
static void report_watch(struct gdb_view *v, const struct timeline_stop *hit, struct gdb_stop *stop)
{
	struct kvm_sregs sregs;

	if (vcpu_get_sregs(vcpu(v), &sregs, NULL) < 0)
		return;
	for (size_t i = 0; i < v->resume->points->count && stop->n_watches < GDB_WATCH_HITS_MAX; i++) {
		const struct gdb_point *p = &v->resume->points->list[i];
		gpa_t gpa;

		if (!gdb_point_is_watch(p) || paging_translate(machine(v)->mem, &sregs, GVA(p->addr), &gpa) < 0)
			continue;
		for (unsigned b = 0; b < hit->len; b++) {
			uint64_t at = hit->gpa.v + b;

			if (at < gpa.v || at >= gpa.v + p->len || !((hit->old ^ hit->now) >> (8 * b) & 0xff))
				continue;
			stop->watches[stop->n_watches].type = p->type;
			stop->watches[stop->n_watches++].addr = p->addr + (at - gpa.v);
			break;
		}
	}
}

static void report_stop(struct gdb_view *v, const struct timeline_stop *hit, struct gdb_stop *stop)
{
	switch (hit->reason) {
	case TIMELINE_BREAKPOINT:
		stop->hard = v->hit && v->hit->type == GDB_POINT_HARD;
		stop->soft = !stop->hard;
		break;
	case TIMELINE_WATCH:
		report_watch(v, hit, stop);
		break;
	case TIMELINE_BEGIN:
		stop->history_begin = true;
		break;
	case TIMELINE_END:
		stop->history_end = true;
		break;
	}
}

/* Continue until a stop that gdb asked for; a store beside the watchpoints, or one that changes none of their bytes, is none. */
static int run_on(struct gdb_view *v, struct gdb_stop *stop, struct err *err)
{
	gva_t addresses[BREAKPOINTS_MAX];
	struct timeline_stops stops = {.wanted = wanted, .ctx = v, .here = true};
	struct timeline_stop hit;
	int rc = collect_stops(v, addresses, &stops, err);

	while (rc == 0) {
		v->hit = NULL;
		rc = v->resume->reverse ? timeline_reverse_continue(v->timeline, &stops, &hit, err)
					: timeline_continue(v->timeline, &stops, &hit, err);
		if (rc < 0)
			break;
		report_stop(v, &hit, stop);
		if (hit.reason != TIMELINE_WATCH || stop->n_watches)
			break;
		stops.here = false;
	}
	return rc;
}

static int run_steps(struct gdb_view *v, struct gdb_stop *stop, struct err *err)
{
	const struct gdb_resume *r = v->resume;
	struct gdb_registers regs;
	int rc;

	do {
		struct position from = timeline_position(v->timeline), to;

		rc = r->reverse ? timeline_reverse_step(v->timeline, 1, err) : timeline_step(v->timeline, 1, err);
		if (rc < 0)
			return rc;
		to = timeline_position(v->timeline);
		if (timeline_at_end(v->timeline))
			stop->history_end = true;
		else if (to.boundary == from.boundary && to.steps == from.steps)
			stop->history_begin = true;
		if (stop->history_end || stop->history_begin || r->run == GDB_RUN_STEP)
			return 0;
		if (gdb_view_interrupted(v))
			return err_set(err, EINTR, "interrupted");
		rc = read_registers(v, 1, GDB_REGS_GENERAL, &regs, err);
	} while (rc == 0 && regs.rip >= r->start && regs.rip < r->end);
	return rc;
}

static int resume(void *ctx, struct gdb_session *s, const struct gdb_resume *r, struct gdb_stop *stop,
		  struct err *err)
{
	struct gdb_view *v = ctx;
	int rc;

	v->session = s;
	v->resume = r;
	*stop = (struct gdb_stop){.thread = 1, .signal = GDB_SIGNAL_TRAP};
	rc = r->run == GDB_RUN_CONTINUE ? run_on(v, stop, err) : run_steps(v, stop, err);
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
	struct position at = timeline_position(v->timeline);

	(void)thread;
	snprintf(text, size, "%s code at position %" PRIu64 "+%" PRIu64,
		 vcpu_cpl(vcpu(v), NULL) == 3 ? "user" : "kernel", at.boundary, at.steps);
}

void gdb_view_init(struct gdb_view *v, struct timeline *t)
{
	static const struct gdb_target_ops ops = {
		.read_registers = read_registers,
		.write_registers = write_registers,
		.read_memory = read_memory,
		.write_memory = write_memory,
		.check_point = check_point,
		.resume = resume,
		.restart = restart,
		.monitor = monitor,
		.describe_thread = describe_thread,
	};

	*v = (struct gdb_view){
		.target = {.ops = &ops, .ctx = v, .threads = 1, .can_reverse = true}, .timeline = t};
	v->target.avx = timeline_machine(t)->config.xfeatures != 0;
}
