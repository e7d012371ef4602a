// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/gdb/fake_target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZF 0x40u

/* A change by gdb, made before the instruction at position. */
struct fake_edit {
	uint64_t position;
	unsigned groups; /* registers, or 0: memory */
	struct gdb_registers regs;
	uint64_t addr;
	size_t n;
	uint8_t *data;
};

static const uint8_t program[] = {
	0x55,			      /* 1000 push rbp */
	0x48, 0x89, 0xe5,	      /* 1001 mov rbp, rsp */
	0xe8, 0x07, 0x00, 0x00, 0x00, /* 1004 call 1010 */
	0x48, 0xff, 0xc9,	      /* 1009 dec rcx */
	0x75, 0xf6,		      /* 100c jnz 1004 */
	0x5d,			      /* 100e pop rbp */
	0xf4,			      /* 100f hlt */
	0x55,			      /* 1010 push rbp */
	0x48, 0x89, 0xe5,	      /* 1011 mov rbp, rsp */
	0x48, 0xff, 0xc0,	      /* 1014 inc rax */
	0x48, 0x89, 0x07,	      /* 1017 mov [rdi], rax */
	0x48, 0x89, 0x07,	      /* 101a mov [rdi], rax */
	0x48, 0x8b, 0x17,	      /* 101d mov rdx, [rdi] */
	0x5d,			      /* 1020 pop rbp */
	0xc3,			      /* 1021 ret */
};

/* --- The CPU -------------------------------------------------------------------------------- */

/* Watchpoints of a run, and what one instruction has hit. */
struct watcher {
	const struct gdb_points *points;
	struct gdb_stop *stop;
};

static uint64_t load(const struct fake *f, uint64_t addr)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)f->ram[(addr + i) % FAKE_RAM] << (8 * i);
	return v;
}

static bool overlaps(const struct gdb_point *p, uint64_t addr)
{
	return addr < p->addr + p->len && p->addr < addr + 8;
}

static void store(struct fake *f, uint64_t addr, const void *data, size_t n)
{
	_Static_assert(FAKE_RAM / PAGE_SIZE == 64, "a bit a page");
	for (size_t i = 0; i < n; i++) {
		uint64_t at = (addr + i) % FAKE_RAM;

		f->ram[at] = ((const uint8_t *)data)[i];
		f->written |= 1ull << (at / PAGE_SIZE);
	}
}

static void notice(const struct watcher *w, uint64_t addr, bool write, uint64_t old, uint64_t new)
{
	if (!w || !w->stop)
		return;
	for (const struct gdb_point *p = w->points->list; p < gdb_points_end(w->points); p++) {
		uint64_t first = addr > p->addr ? addr : p->addr;
		bool changes = false;

		if (!gdb_point_is_watch(p) || !overlaps(p, addr) ||
		    w->stop->n_watches == GDB_WATCH_HITS_MAX)
			continue;
		for (uint64_t a = first; a < addr + 8 && a < p->addr + p->len; a++)
			changes |= (uint8_t)((old ^ new) >> (8 * (a - addr))) != 0;
		if ((p->type == GDB_POINT_WRITE && !(write && changes)) ||
		    (p->type == GDB_POINT_READ && write))
			continue;
		w->stop->watches[w->stop->n_watches].type = p->type;
		w->stop->watches[w->stop->n_watches++].addr = first;
	}
}

static uint64_t read_mem(struct fake *f, const struct watcher *w, uint64_t addr)
{
	uint64_t v = load(f, addr);

	notice(w, addr, false, v, v);
	return v;
}

static void write_mem(struct fake *f, const struct watcher *w, uint64_t addr, uint64_t v)
{
	notice(w, addr, true, load(f, addr), v);
	store(f, addr, &v, sizeof(v));
}

static void push(struct fake *f, const struct watcher *w, uint64_t v)
{
	f->regs.gpr[GDB_RSP] -= 8;
	write_mem(f, w, f->regs.gpr[GDB_RSP], v);
}

static uint64_t pop(struct fake *f, const struct watcher *w)
{
	uint64_t v = read_mem(f, w, f->regs.gpr[GDB_RSP]);

	f->regs.gpr[GDB_RSP] += 8;
	return v;
}

/* One instruction; false at HLT and at what is not known, which stay where they are. */
static bool execute(struct fake *f, const struct watcher *w)
{
	uint64_t *r = f->regs.gpr, at = f->regs.rip;
	uint64_t code = load(f, at);

	switch (code & 0xff) {
	case 0x55:
		push(f, w, r[GDB_RBP]);
		f->regs.rip = at + 1;
		return true;
	case 0x5d:
		r[GDB_RBP] = pop(f, w);
		f->regs.rip = at + 1;
		return true;
	case 0xc3:
		f->regs.rip = pop(f, w);
		return true;
	case 0xe8:
		push(f, w, at + 5);
		f->regs.rip = at + 5 + (uint64_t)(int64_t)(int32_t)(uint32_t)(code >> 8);
		return true;
	case 0x75:
		f->regs.rip = at + 2;
		if (!(f->regs.rflags & ZF))
			f->regs.rip += (uint64_t)(int64_t)(int8_t)(uint8_t)(code >> 8);
		return true;
	}
	f->regs.rip = at + 3;
	switch (code & 0xffffff) {
	case 0xe58948:
		r[GDB_RBP] = r[GDB_RSP];
		return true;
	case 0xc0ff48:
		r[GDB_RAX]++;
		return true;
	case 0xc9ff48:
		f->regs.rflags = --r[GDB_RCX] ? f->regs.rflags & ~ZF : f->regs.rflags | ZF;
		return true;
	case 0x078948:
		write_mem(f, w, r[GDB_RDI], r[GDB_RAX]);
		return true;
	case 0x178b48:
		r[GDB_RDX] = read_mem(f, w, r[GDB_RDI]);
		return true;
	}
	f->regs.rip = at;
	return false;
}

/* --- Time ----------------------------------------------------------------------------------- */

static uint64_t rounds_of(const struct fake *f)
{
	return (f->end - 3) / FAKE_ROUND;
}

static void reset(struct fake *f)
{
	uint8_t *xmm = f->regs.xmm[0];

	memset(&f->regs, 0, sizeof(f->regs));
	for (unsigned i = 0; i < 64; i++)
		if (f->written >> i & 1)
			memset(f->ram + i * PAGE_SIZE, 0, PAGE_SIZE);
	f->written = 0;
	store(f, FAKE_MAIN, program, sizeof(program));
	store(f, FAKE_TEXT, "hindsight", 9);
	f->regs.rip = FAKE_MAIN;
	f->regs.rflags = 2;
	f->regs.gpr[GDB_RSP] = FAKE_STACK;
	f->regs.gpr[GDB_RDI] = FAKE_COUNTER;
	f->regs.gpr[GDB_RCX] = rounds_of(f);
	f->regs.gpr[GDB_R8] = 0x8877665544332211;
	f->regs.selector[GDB_CS] = 0x10;
	f->regs.cr0 = 0x80010001;
	f->regs.efer = 0x500;
	f->regs.cr3 = 0x3000;
	f->regs.base[GDB_FS] = 0x123456789abc;
	f->regs.kernel_gs_base = 0xffff888000000000;
	for (unsigned i = 0; i < sizeof(f->regs.xmm); i++)
		xmm[i] = (uint8_t)i;
	f->regs.fctrl = 0x37f;
	f->regs.mxcsr = 0x1f80;
	f->position = 0;
}

static void copy_groups(struct gdb_registers *to, const struct gdb_registers *from, unsigned groups)
{
	struct gdb_registers source = *from;

	for (unsigned i = 0; i < gdb_regs_count(true); i++) {
		if (gdb_reg_group(i) & groups)
			memcpy(gdb_reg_bytes(to, i), gdb_reg_bytes(&source, i), gdb_reg_size(i));
	}
}

static void apply(struct fake *f, const struct fake_edit *e)
{
	if (e->groups)
		copy_groups(&f->regs, &e->regs, e->groups);
	else
		store(f, e->addr, e->data, e->n);
}

static void apply_edits(struct fake *f)
{
	for (size_t i = 0; i < f->n_edits; i++) {
		if (f->edits[i].position == f->position)
			apply(f, &f->edits[i]);
	}
}

static void forward(struct fake *f, const struct watcher *w)
{
	execute(f, w);
	f->position++;
	apply_edits(f);
}

void fake_seek(struct fake *f, uint64_t position)
{
	if (position < f->position) {
		reset(f);
		apply_edits(f);
	}
	while (f->position < position)
		forward(f, NULL);
}

static int edit(struct fake *f, struct gdb_session *s, struct fake_edit e)
{
	struct fake_edit *edits;

	/* What was changed later belongs to the future that is now left. */
	while (f->n_edits && f->edits[f->n_edits - 1].position > f->position)
		free(f->edits[--f->n_edits].data);
	edits = reallocarray(f->edits, f->n_edits + 1, sizeof(*edits));
	if (!edits) {
		free(e.data);
		return -ENOMEM;
	}
	e.position = f->position;
	f->edits = edits;
	f->edits[f->n_edits++] = e;
	apply(f, &e);
	if (f->n_edits == 1)
		gdb_session_print(s, "branch %u starts at %" PRIu64 "\n", ++f->branches,
				  f->position);
	return 0;
}

/* --- Operations ----------------------------------------------------------------------------- */

static int read_registers(void *ctx, int thread, unsigned groups, struct gdb_registers *r,
			  struct err *err)
{
	struct fake *f = ctx;

	(void)err;
	copy_groups(r, &f->regs, groups);
	if (thread > 1) /* a CPU that sleeps for ever */
		r->rip = 0x2000u * (unsigned)thread;
	return 0;
}

static int write_registers(void *ctx, struct gdb_session *s, int thread, unsigned groups,
			   const struct gdb_registers *r, struct err *err)
{
	if (thread > 1)
		return err_set(err, EPERM, "CPU %d sleeps", thread - 1);
	return edit(ctx, s, (struct fake_edit){.groups = groups, .regs = *r});
}

/* Physical memory begins one page lower, so that one can tell the spaces apart. */
static bool locate(enum gdb_space space, uint64_t *addr)
{
	if (space == GDB_PHYSICAL)
		*addr += PAGE_SIZE;
	return *addr < FAKE_RAM;
}

static int read_memory(void *ctx, int thread, enum gdb_space space, uint64_t addr, void *data,
		       size_t n, size_t *done, struct err *err)
{
	struct fake *f = ctx;
	bool there = locate(space, &addr);
	size_t max = there ? FAKE_RAM - (size_t)addr : 0;

	(void)thread;
	if (!there && !f->endless_memory)
		return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr);
	*done = n < max ? n : max;
	memcpy(data, f->ram + (there ? addr : 0), *done);
	if (f->endless_memory) {
		memset((uint8_t *)data + *done, 0, n - *done);
		*done = n;
	}
	return 0;
}

static int write_memory(void *ctx, struct gdb_session *s, int thread, enum gdb_space space,
			uint64_t addr, const void *data, size_t n, struct err *err)
{
	uint8_t *copy;

	(void)thread;
	if (!locate(space, &addr) || n > FAKE_RAM - addr)
		return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, addr);
	copy = malloc(n);
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(copy, data, n);
	return edit(ctx, s, (struct fake_edit){.addr = addr, .n = n, .data = copy});
}

static int check_point(void *ctx, const struct gdb_point *p, struct err *err)
{
	(void)ctx;
	if (p->addr >= FAKE_RAM || (gdb_point_is_watch(p) && p->len > FAKE_RAM - p->addr))
		return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64, p->addr);
	return 0;
}

/* Breakpoints where the CPU stands. */
static bool at_breakpoint(struct fake *f, const struct gdb_points *points, struct gdb_stop *stop)
{
	for (const struct gdb_point *p = gdb_points_from(points, f->regs.rip);
	     p < gdb_points_end(points) && p->addr == f->regs.rip; p++) {
		if (gdb_point_is_watch(p) || !gdb_target_point_holds(&f->target, 1, p))
			continue;
		stop->soft |= p->type == GDB_POINT_SOFT;
		stop->hard |= p->type == GDB_POINT_HARD;
	}
	return stop->soft || stop->hard;
}

/* Every 1,024 instructions. */
static bool interrupted(struct fake *f, struct gdb_session *s, uint64_t count)
{
	if (count % 1024 != 0)
		return false;
	if (f->slice_us)
		usleep(f->slice_us);
	return gdb_session_interrupted(s);
}

static void run_forward(struct fake *f, struct gdb_session *s, const struct gdb_resume *r,
			struct gdb_stop *stop)
{
	const struct watcher watcher = {r->points, stop};

	if (r->run == GDB_RUN_CONTINUE && at_breakpoint(f, r->points, stop))
		return;
	for (uint64_t n = 1;; n++) {
		if (f->position == f->end) {
			stop->history_end = !f->live;
			stop->exited = f->live;
			return;
		}
		forward(f, &watcher);
		if (at_breakpoint(f, r->points, stop) || stop->n_watches ||
		    r->run == GDB_RUN_STEP ||
		    (r->run == GDB_RUN_STEP_RANGE &&
		     (f->regs.rip < r->start || f->regs.rip >= r->end)))
			return;
		if (interrupted(f, s, n)) {
			stop->signal = GDB_SIGNAL_INT;
			return;
		}
	}
}

/* Run again from the start up to where it began, and keep the last hit. */
static void run_backward(struct fake *f, struct gdb_session *s, const struct gdb_resume *r,
			 struct gdb_stop *stop)
{
	const uint64_t start = f->position;
	const uint64_t first = r->run == GDB_RUN_STEP && start ? start - 1 : 0;
	const struct gdb_stop none = *stop;
	uint64_t found = first;

	if (start == 0) {
		stop->history_begin = true;
		return;
	}
	fake_seek(f, first);
	while (f->position < start) {
		const uint64_t here = f->position;
		struct gdb_stop hit = none;
		const struct watcher watcher = {r->points, &hit};

		at_breakpoint(f, r->points, &hit);
		forward(f, &watcher);
		if (hit.soft || hit.hard || hit.n_watches) {
			found = here;
			*stop = hit;
		}
		if (interrupted(f, s, here)) {
			*stop = none;
			stop->signal = GDB_SIGNAL_INT;
			fake_seek(f, start);
			return;
		}
	}
	stop->history_begin =
		!stop->soft && !stop->hard && !stop->n_watches && r->run == GDB_RUN_CONTINUE;
	fake_seek(f, found);
}

static int resume(void *ctx, struct gdb_session *s, const struct gdb_resume *r,
		  struct gdb_stop *stop, struct err *err)
{
	struct fake *f = ctx;

	(void)err;
	f->last_resume = *r;
	if (r->reverse)
		run_backward(f, s, r, stop);
	else
		run_forward(f, s, r, stop);
	stop->thread = 1;
	return 0;
}

/* "40%" or a position. */
static int seek(struct fake *f, const char *where, struct err *err)
{
	char *end;
	uint64_t n = strtoull(where, &end, 10);

	if (end == where || (*end && strcmp(end, "%") != 0))
		return err_set(err, EINVAL, "'%s' is no position", where);
	if (*end)
		n = n > 100 ? f->end + 1 : f->end * n / 100;
	if (n > f->end)
		return err_set(err, ERANGE, "the recording ends at %" PRIu64, f->end);
	fake_seek(f, n);
	return 0;
}

static int restart(void *ctx, struct gdb_session *s, const char *args, struct err *err)
{
	(void)s;
	return seek(ctx, *args ? args : "0", err);
}

static int monitor(void *ctx, struct gdb_session *s, const char *line, struct err *err)
{
	struct fake *f = ctx;

	if (strcmp(line, "help") == 0) {
		gdb_session_print(s, "when            where we are\n"
				     "seek POSITION   go there\n"
				     "wait            until interrupted\n"
				     "info version    what this is\n");
	} else if (strcmp(line, "when") == 0) {
		gdb_session_print(s, "%" PRIu64 " of %" PRIu64 "\n", f->position, f->end);
	} else if (strncmp(line, "seek ", 5) == 0) {
		int rc = seek(f, line + 5, err);

		if (rc)
			return rc;
		gdb_session_print(s, "now at %" PRIu64 "\n", f->position);
	} else if (strcmp(line, "wait") == 0) {
		gdb_session_print(s, "waiting\n");
		while (!gdb_session_interrupted(s))
			usleep(1000);
		return err_set(err, EINTR, "interrupted");
	} else if (strcmp(line, "info version") == 0) {
		gdb_session_print(s, "1\n");
	} else {
		return err_set(err, EINVAL, "'%s' is no command; try help", line);
	}
	return 0;
}

static void killed(void *ctx)
{
	struct fake *f = ctx;

	f->kills++;
}

static void describe_thread(void *ctx, int thread, char *text, size_t size)
{
	struct fake *f = ctx;

	if (thread == 1)
		snprintf(text, size, "kernel, at %" PRIu64, f->position);
	else
		snprintf(text, size, "<asleep>");
}

static const struct gdb_target_ops ops = {
	.read_registers = read_registers,
	.write_registers = write_registers,
	.read_memory = read_memory,
	.write_memory = write_memory,
	.check_point = check_point,
	.resume = resume,
	.restart = restart,
	.monitor = monitor,
	.kill = killed,
	.describe_thread = describe_thread,
};

struct fake *fake_create(uint64_t rounds, bool live)
{
	struct fake *f = calloc(1, sizeof(*f));

	if (f)
		fake_renew(f, rounds, live);
	return f;
}

static void drop_edits(struct fake *f)
{
	while (f->n_edits)
		free(f->edits[--f->n_edits].data);
	free(f->edits);
	f->edits = NULL;
}

void fake_renew(struct fake *f, uint64_t rounds, bool live)
{
	drop_edits(f);
	/* push, mov; the rounds; pop, and the end stands on HLT. */
	f->end = 2 + rounds * FAKE_ROUND + 1;
	f->live = live;
	f->endless_memory = false;
	f->slice_us = 0;
	f->branches = 0;
	f->last_resume = (struct gdb_resume){0};
	f->kills = 0;
	f->target = (struct gdb_target){
		.ops = &ops, .ctx = f, .threads = 1, .can_reverse = !live, .avx = true};
	reset(f);
}

void fake_destroy(struct fake *f)
{
	drop_edits(f);
	free(f);
}
