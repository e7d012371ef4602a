// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Who wrote here last? The trace is replayed with the page of the address watched; the last store that touched
 * the address is then walked to again, to stop on the very instruction.
 */
#include "debugger/commands.h"
#include "debugger/session.h"
#include "debugger/symset.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <Zydis/Zydis.h>

#define FRAMES_MAX 12

/* One store to the address. */
struct hit {
	bool found;
	uint64_t boundary;
	uint64_t ordinal; /* of the stores to the watched pages after this boundary, from 1 */
	uint64_t vtime;
	gpa_t gpa;
	unsigned len;
	uint64_t old, now;
	const char *device; /* whose DMA it was, NULL for a store of the guest */
	bool input;       /* the DMA of what came from outside: no instruction asked for it */
	uint64_t rip;     /* of the instruction, or behind it if `behind` */
	bool behind;
	struct position at;
};

struct watch {
	gpa_t gpa;
	uint64_t len;
	uint64_t from;     /* boundary from which on it is watched */
	uint64_t boundary; /* of the last store to the watched pages */
	uint64_t ordinal;
	uint64_t stores;   /* that touched the address */
	struct hit last;
	uint64_t stop_at;  /* second pass: pause at this ordinal */
	bool reached;
};

static int on_store(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old,
		    uint64_t now, struct err *err)
{
	struct watch *w = ctx;

	(void)err;
	if (m->boundary != w->boundary) {
		w->boundary = m->boundary;
		w->ordinal = 0;
	}
	w->ordinal++;
	if (w->stop_at && w->ordinal == w->stop_at)
		w->reached = true;
	if (gpa.v + len <= w->gpa.v || gpa.v >= w->gpa.v + w->len)
		return 0;
	w->stores++;
	w->last = (struct hit){.found = true,
			       .boundary = m->boundary,
			       .ordinal = w->ordinal,
			       .vtime = m->vtime,
			       .gpa = gpa,
			       .len = len,
			       .old = old,
			       .now = now,
			       .device = m->dma ? (m->accessed ? m->accessed->ops->name : "a device") : NULL,
			       .input = m->dma && !m->accessed,
			       .rip = vcpu_regs(&m->vcpu[0])->rip,
			       .behind = true};
	return 0;
}

static void on_restart(void *ctx)
{
	struct watch *w = ctx;

	*w = (struct watch){.gpa = w->gpa, .len = w->len, .from = w->from, .stop_at = w->stop_at};
}

/* What the end of the search looks like. */
struct end {
	uint64_t boundary, vtime;
};

/* Refuse what cannot give names before the replays, which take their time. */
static int check_symbols(const struct options *o, const struct session *s, struct err *err)
{
	struct symset *symbols;
	int rc = o->symbols ? symset_open(&symbols, o, &s->replay.file->image, err) : 0;

	if (rc == 0 && o->symbols)
		symset_close(symbols);
	return rc;
}

/* Translate the address where the search ends: that is where the user saw it. */
static int find_gpa(const struct options *o, gpa_t *gpa, struct end *end, struct err *err)
{
	struct replay_options ro = {.has_target = o->has_to, .target = o->to};
	struct kvm_sregs sregs;
	const struct machine *m;
	struct session s;
	int rc = session_open(&s, o, &ro, true, err);

	if (rc < 0)
		return rc;
	rc = check_symbols(o, &s, err);
	if (rc == 0)
		rc = session_run(&s, err);
	m = s.replay.machine;
	if (rc == 0)
		rc = vcpu_get_sregs(&m->vcpu[0], &sregs, err);
	if (rc == 0) {
		*end = (struct end){m->boundary, m->vtime};
		*gpa = GPA(o->address.v);
		if (!o->physical && paging_translate(m->mem, &sregs, o->address, gpa) < 0)
			rc = err_set(err, EFAULT,
				     "0x%" PRIx64 " is not mapped at position %" PRIu64
				     "; give another address, or --physical",
				     o->address.v, m->boundary);
	}
	session_close(&s);
	return rc;
}

/* One replay with the address watched from boundary w->from on. */
static int search_from(const struct options *o, struct watch *w, struct err *err)
{
	struct replay_options ro = {.has_target = o->has_to,
				    .target = o->to,
				    .watched = on_store,
				    .restarted = on_restart,
				    .watched_ctx = w,
				    .watch = w->gpa,
				    .watch_len = w->len,
				    .watch_from = w->from};
	struct session s;
	int rc = session_open(&s, o, &ro, true, err);

	if (rc < 0)
		return rc;
	rc = session_run(&s, err);
	session_close(&s);
	return rc;
}

/*
 * The last write is most often near the end, so the end is searched first. To watch a page all the time can
 * cost far more than a replay or two: before it became what it is it may have been a stack or a page table,
 * to which every store, the CPU's own included, is then an exit.
 */
static int search(const struct options *o, struct watch *w, const struct end *end, struct err *err)
{
	static const unsigned parts[] = {16, 2, 1};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && rc == 0 && !w->last.found; i++) {
		w->from = end->boundary - end->boundary / parts[i];
		rc = search_from(o, w, err);
	}
	return rc;
}

static void print_instruction(const struct machine *m, uint64_t rip)
{
	struct kvm_sregs sregs;
	ZydisDisassembledInstruction insn;
	uint8_t code[15];
	size_t have = sizeof(code);
	gpa_t gpa;

	if (vcpu_get_sregs(&m->vcpu[0], &sregs, NULL) < 0)
		return;
	while (have && paging_read(m->mem, &sregs, GVA(rip), code, have) < 0)
		have--;
	if (have && paging_translate(m->mem, &sregs, GVA(rip), &gpa) == 0)
		rewrite_show_original(&m->sites, gpa, code, have);
	if (ZYAN_SUCCESS(ZydisDisassembleIntel(sregs.cs.l ? ZYDIS_MACHINE_MODE_LONG_64
							  : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
					       rip, code, have, &insn)))
		printf("Instruction:\n 0x%" PRIx64 ": %s\n\n", rip, insn.text);
}

/* Callers by frame pointers, as far as they look like a chain. */
static void print_callers(const struct machine *m, struct symset *symbols, uint64_t rip)
{
	uint64_t frame = vcpu_regs(&m->vcpu[0])->rbp;
	struct kvm_sregs sregs;
	char text[256];

	symset_format(symbols, GVA(rip), text, sizeof(text));
	printf("Call trace:\n %s\n", text);
	if (vcpu_get_sregs(&m->vcpu[0], &sregs, NULL) < 0)
		return;
	for (int i = 0; i < FRAMES_MAX; i++) {
		uint64_t link[2];

		if (frame & 7 || paging_read(m->mem, &sregs, GVA(frame), link, sizeof(link)) < 0 ||
		    !symset_find(symbols, GVA(link[1]), NULL, NULL, NULL))
			break;
		/* The call lies before the return address, which may begin the next function. */
		symset_format(symbols, GVA(link[1] - 1), text, sizeof(text));
		printf(" %s\n", text);
		if (link[0] <= frame)
			break;
		frame = link[0];
	}
}

static void print_hit(const struct options *o, const struct watch *w, const struct end *end,
		      const struct machine *m, struct symset *symbols)
{
	const struct hit *h = &w->last;
	char where[256];

	if (h->input)
		snprintf(where, sizeof(where), "which received input");
	else
		symset_format(symbols, GVA(h->behind ? h->rip - 1 : h->rip), where, sizeof(where));
	printf("==================================================================\n"
	       "HINDSIGHT: last write to 0x%" PRIx64 ", %" PRIu64 " bytes\n"
	       "Write of size %u at addr 0x%" PRIx64 " (physical 0x%" PRIx64 ") by %s%s%s\n\n"
	       "Value:\n was 0x%0*" PRIx64 ", became 0x%0*" PRIx64 "\n\n",
	       o->address.v, o->length, h->len, o->address.v + (h->gpa.v - w->gpa.v), h->gpa.v,
	       h->device ? h->device : "", h->device ? h->input ? ", " : ", asked by " : "", where,
	       (int)h->len * 2, h->old, (int)h->len * 2, h->now);
	if (h->input)
		printf("Position %" PRIu64, h->boundary);
	else if (h->behind)
		printf("Position %" PRIu64 " and some instructions (cannot be stepped to on this host)",
		       h->boundary);
	else
		printf("Position %" PRIu64 "+%" PRIu64, h->at.boundary, h->at.steps);
	printf(", guest time %.6f s: %" PRIu64 " boundaries and %.6f s before %s\n\n",
	       (double)h->vtime / (double)NSEC_PER_SEC, end->boundary - h->boundary,
	       (double)(end->vtime - h->vtime) / (double)NSEC_PER_SEC,
	       o->has_to ? "the given position" : "the end");
	if (!h->behind && !h->input) {
		print_instruction(m, h->rip);
		print_callers(m, symbols, h->rip);
	}
	printf("\n%" PRIu64 " stores touched the address from boundary %" PRIu64 " on, where the search began.\n"
	       "==================================================================\n",
	       w->stores, w->from);
}

/* Walk to the store again, instruction by instruction from its boundary, and stop on it. */
static int walk_to(struct session *s, struct watch *w, struct err *err)
{
	struct hit *h = &w->last;
	struct position at = {h->boundary, 0};
	uint64_t ordinal = h->ordinal;
	int rc = session_run(s, err);

	/* Stores are counted from the boundary on. */
	w->boundary = h->boundary;
	w->ordinal = 0;
	w->reached = false;
	w->stop_at = ordinal;
	while (rc == 0 && !w->reached && s->replay.machine->boundary == at.boundary &&
	       !s->replay.machine->end) {
		struct vcpu *v = &s->replay.machine->vcpu[0];
		uint64_t rip;

		rc = vcpu_complete(v, err);
		rip = vcpu_regs(v)->rip;
		at.steps++;
		replay_set_target(&s->replay, at);
		if (rc == 0)
			rc = session_run(s, err);
		if (w->reached) {
			h->rip = rip;
			h->behind = false;
			h->at = (struct position){at.boundary, at.steps - 1};
		}
	}
	return rc;
}

static int answer(const struct options *o, struct watch *w, const struct end *end, struct err *err)
{
	struct replay_options ro = {.has_target = true,
				    .target = {.boundary = w->last.boundary},
				    .watched = on_store,
				    .watch = w->gpa,
				    .watch_len = w->len,
				    .watch_from = w->last.boundary};
	struct watch second = *w;
	struct symset *symbols = NULL;
	struct session s;
	int rc;

	ro.watched_ctx = &second;
	rc = session_open(&s, o, &ro, true, err);
	if (rc < 0)
		return rc;
	rc = w->last.input ? session_run(&s, err) : walk_to(&s, &second, err);
	if (rc == 0) {
		w->last.rip = second.last.rip;
		w->last.behind = second.last.behind;
		w->last.at = second.last.at;
	}
	/* Without symbols, or where stepping fails, the answer is poorer but still one. */
	if (symset_open(&symbols, o, &s.replay.file->image, NULL) == 0)
		symset_find_modules(symbols, s.replay.machine);
	print_hit(o, w, end, s.replay.machine, symbols);
	symset_close(symbols);
	session_close(&s);
	return 0;
}

int cmd_last_write(int argc, char **argv)
{
	unsigned takes = TAKES_FILE | TAKES_ADDRESS | TAKES_BEFORE | TAKES_CLOCK | TAKES_DISK;
	struct watch w = {0};
	struct options o;
	struct end end = {0};
	struct err err = {0};

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s FILE ADDR[,LEN] [OPTIONS]\n\n"
		       "Who wrote last to the LEN bytes (1) at guest-virtual address ADDR?\n\n", argv[0]);
		options_help(stdout, takes);
		printf("\nExit status: 0 with an answer, 1 if nobody wrote there, 125 if it cannot be told.\n");
		return STATUS_OK;
	}
	fprintf(stderr, "hindsight: replaying to find where 0x%" PRIx64 " lies ...\n", o.address.v);
	if (find_gpa(&o, &w.gpa, &end, &err) < 0)
		return session_fail(&err);
	w.len = o.length;
	fprintf(stderr, "hindsight: replaying with 0x%" PRIx64 " watched ...\n", w.gpa.v);
	if (search(&o, &w, &end, &err) < 0)
		return session_fail(&err);
	if (!w.last.found) {
		fprintf(stderr, "hindsight: nobody wrote to 0x%" PRIx64 " before boundary %" PRIu64
				": what is there was loaded with the guest\n", o.address.v, end.boundary);
		return STATUS_NOT_FOUND;
	}
	fprintf(stderr, "hindsight: walking to the write at boundary %" PRIu64 " ...\n", w.last.boundary);
	if (answer(&o, &w, &end, &err) < 0)
		return session_fail(&err);
	return STATUS_OK;
}
