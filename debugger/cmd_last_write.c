// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Who wrote here last, who first? The recording is gone through with the address watched: backwards from its end, from
 * checkpoint to checkpoint, or forward from a position. The machine then stands before the very instruction.
 */
#include "debugger/commands.h"
#include "debugger/session.h"
#include "debugger/symset.h"
#include "debugger/timeline.h"
#include "vmm/kick.h"
#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>

#include <Zydis/Zydis.h>

#define FRAMES_MAX 12

/* Where the search begins. */
struct origin {
	uint64_t boundary, vtime;
};

struct answer {
	gpa_t gpa; /* of the address */
	struct origin origin;
	struct timeline_stop stop;
	bool reached; /* the machine stands before the store */
};

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

static void print_position(const struct options *o, const struct answer *a, struct timeline *t, bool first)
{
	const struct origin *from = &a->origin;
	uint64_t boundary = a->stop.at.boundary, vtime = timeline_machine(t)->vtime;
	struct position at = timeline_position(t);

	if (a->stop.input) {
		printf("Position %" PRIu64, boundary);
	} else if (!a->reached) {
		printf("Position %" PRIu64 " and some instructions (cannot be stepped to on this host)", boundary);
	} else {
		boundary = at.boundary;
		printf("Position %" PRIu64 "+%" PRIu64, at.boundary, at.steps);
	}
	printf(", guest time %.6f s: %" PRIu64 " boundaries and %.6f s %s %s\n\n", (double)vtime / (double)NSEC_PER_SEC,
	       first ? boundary - from->boundary : from->boundary - boundary,
	       (first ? (double)vtime - (double)from->vtime : (double)from->vtime - (double)vtime) /
		       (double)NSEC_PER_SEC,
	       first ? "after" : "before", o->has_to ? "the given position" : "the end");
}

static void print_answer(const struct options *o, const struct answer *a, struct timeline *t,
			 struct symset *symbols, bool first)
{
	const struct timeline_stop *s = &a->stop;
	const struct machine *m = timeline_machine(t);
	uint64_t rip = vcpu_regs(&m->vcpu[0])->rip;
	char where[256];

	if (s->input)
		snprintf(where, sizeof(where), "which received input");
	else
		symset_format(symbols, GVA(a->reached ? rip : s->rip - 1), where, sizeof(where));
	printf("==================================================================\n"
	       "HINDSIGHT: %s write to 0x%" PRIx64 ", %" PRIu64 " bytes\n"
	       "Write of size %u at addr 0x%" PRIx64 " (physical 0x%" PRIx64 ") by %s%s%s\n\n"
	       "Value:\n was 0x%0*" PRIx64 ", became 0x%0*" PRIx64 "\n\n",
	       first ? "first" : "last", o->address.v, o->length, s->len, o->address.v + (s->gpa.v - a->gpa.v),
	       s->gpa.v, s->device ? s->device : "", s->device ? s->input ? ", " : ", asked by " : "", where,
	       (int)s->len * 2, s->old, (int)s->len * 2, s->now);
	if (s->compared)
		printf("Found by comparing values, for to watch this page would have disturbed the guest: a store that "
		       "left the value as it was is not seen.\n\n");
	print_position(o, a, t, first);
	if (a->reached && !s->input) {
		print_instruction(m, rip);
		print_callers(m, symbols, rip);
		printf("\n");
	}
	printf("==================================================================\n");
}

/* The address means what it means where the user saw it. */
static int find_gpa(const struct options *o, struct timeline *t, struct answer *a, struct err *err)
{
	const struct machine *m = timeline_machine(t);
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(&m->vcpu[0], &sregs, err);

	a->origin = (struct origin){m->boundary, m->vtime};
	a->gpa = GPA(o->address.v);
	if (rc == 0 && !o->physical && paging_translate(m->mem, &sregs, o->address, &a->gpa) < 0)
		rc = err_set(err, EFAULT,
			     "0x%" PRIx64 " is not mapped at position %" PRIu64 "; give another address, or --physical",
			     o->address.v, m->boundary);
	return rc;
}

/* Forward to the first store, then back to before it, by steps that no watch has counted otherwise. */
static int find_first(struct timeline *t, const struct timeline_stops *stops, struct answer *a, struct err *err)
{
	struct timeline_place place = {.from = timeline_position(t), .nth = 1, .known = true};
	int rc = timeline_continue(t, stops, &a->stop, err);

	if (rc < 0 || a->stop.reason != TIMELINE_WATCH)
		return rc;
	place.position = a->stop.at;
	place.regs = event_regs(&timeline_machine(t)->vcpu[0]);
	if (place.from.boundary != place.position.boundary)
		place.from = (struct position){place.position.boundary, 0};
	rc = timeline_seek(t, place.from, err);
	if (rc == 0)
		rc = timeline_find_place(t, stops, &place, err);
	return rc < 0 ? rc : timeline_reverse_step(t, 1, err);
}

static int find(const struct options *o, struct timeline *t, struct answer *a, bool first, struct err *err)
{
	struct timeline_watch watch = {.len = o->length, .kinds = WATCH_STORES};
	struct timeline_stops stops = {.watches = &watch, .n_watches = 1};
	struct position there = {UINT64_MAX, 0};
	bool way;
	int rc;

	fprintf(stderr, "hindsight: replaying to find where 0x%" PRIx64 " lies ...\n", o->address.v);
	rc = o->has_to ? where_find(t, &o->to, &there, err) : 0;
	if (rc == 0)
		rc = timeline_seek(t, there, err);
	if (rc == 0)
		rc = find_gpa(o, t, a, err);
	if (rc < 0)
		return rc;
	fprintf(stderr, "hindsight: replaying %s with 0x%" PRIx64 " watched ...\n", first ? "on" : "backwards", a->gpa.v);
	watch.gpa = a->gpa;
	way = timeline_begin_way(t, first ? UINT64_MAX : 0);
	rc = first ? find_first(t, &stops, a, err) : timeline_reverse_continue(t, &stops, &a->stop, err);
	timeline_end_way(t, way);
	a->reached = rc == 0 && !a->stop.user_rip;
	/* An answer all the same, if a poorer one. */
	return rc == -ENOTSUP && a->stop.reason == TIMELINE_WATCH ? 0 : rc;
}

static bool interrupted(void *ctx)
{
	return *(const volatile sig_atomic_t *)ctx;
}

static int open_timeline(const struct options *o, struct timeline **t, struct err *err)
{
	struct timeline_options options = {.memory = o->snapshot_memory,
					   .disk = o->disk,
					   .interrupt = interrupted,
					   .interrupt_ctx = (void *)session_catch_interrupts(),
					   .progress = session_show_progress};
	enum clock_kind clock;
	int rc = host_pin_thread(err);

	if (rc == 0)
		rc = timeline_open(t, o->file, o->clock != CLOCK_CHOICE_STATE, &options, NULL, NULL, err);
	return rc < 0 ? rc : options_clock(o, &timeline_machine(*t)->caps, &clock, err);
}

/* Returns the exit status, or an error. */
static int answer(const struct options *o, bool first, struct err *err)
{
	struct symset *symbols = NULL;
	struct replay_file *file = NULL;
	struct timeline *t = NULL;
	struct answer a = {0};
	int rc = replay_file_open(&file, o->file, err);

	/* What cannot give names is refused before the replay, which takes its time; without any the answer is poorer,
	 * but still one. */
	if (rc == 0) {
		rc = symset_open(&symbols, o, &file->image, err);
		rc = o->symbols ? rc : 0;
	}
	if (rc == 0)
		rc = open_timeline(o, &t, err);
	if (rc == 0)
		rc = find(o, t, &a, first, err);
	if (rc == 0 && a.stop.reason != TIMELINE_WATCH) {
		fprintf(stderr, "hindsight: nobody wrote to 0x%" PRIx64 " %s boundary %" PRIu64 "%s\n", o->address.v,
			first ? "after" : "before", a.origin.boundary,
			first ? "" : ": what is there was loaded with the guest");
		rc = STATUS_NOT_FOUND;
	} else if (rc == 0) {
		if (symbols) {
			symset_find_slide(symbols, timeline_machine(t));
			symset_find_modules(symbols, timeline_machine(t));
		}
		print_answer(o, &a, t, symbols, first);
	}
	symset_close(symbols);
	timeline_close(t);
	replay_file_close(file);
	return rc;
}

static int command(int argc, char **argv, bool first)
{
	unsigned takes = TAKES_FILE | TAKES_ADDRESS | TAKES_CLOCK | TAKES_DISK | TAKES_SYMBOLS | TAKES_MEMORY |
			 (first ? TAKES_AFTER : TAKES_BEFORE);
	struct options o;
	struct err err = {0};
	int rc;

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s FILE ADDR[,LEN] [OPTIONS]\n\n"
		       "Who wrote %s to the LEN bytes (1) at guest-virtual address ADDR?\n\n",
		       argv[0], first ? "first, after a position," : "last");
		options_help(stdout, takes);
		printf("\nExit status: 0 with an answer, 1 if nobody wrote there, 125 if it cannot be told, 130 interrupted.\n");
		return STATUS_OK;
	}
	if (first && !o.has_to) {
		err_set(&err, EINVAL, "after which position? give --after POS");
		return session_fail(&err);
	}
	rc = answer(&o, first, &err);
	if (rc < 0)
		session_fail(&err);
	return rc == -EINTR ? STATUS_INTERRUPTED : rc < 0 ? STATUS_FAILED : rc;
}

int cmd_last_write(int argc, char **argv)
{
	return command(argc, argv, false);
}

int cmd_first_write(int argc, char **argv)
{
	return command(argc, argv, true);
}
