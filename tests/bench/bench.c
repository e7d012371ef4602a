// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What recording and replaying cost, as ratios within one run of this program: the two sides of a
 * ratio alternate, and what is shown is the median of the ratios of neighbours, with the smallest
 * and the largest. Times are CPU time of the thread that runs the guest, because a busy host
 * stretches wall time; the wall ratio stands beside. A missed bound is said and no failure: whether
 * it was missed by the program or by the host only a reader can judge.
 */
#include "tests/bench/bench_loop.h"
#include "tests/bench/figure.h"

#include "debugger/session.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REPS 15
#define REPS_QUICK 3
#define REPS_MAX SAMPLES_MAX
/* CPU time of one run: short, so that the host is as busy for one side of a ratio as for the other.
 */
#define RUN_NS (400 * NSEC_PER_MSEC)
#define RUN_QUICK_NS (150 * NSEC_PER_MSEC)
/* A replay without a clock stops at every pass through a place: some hundred times slower on a host
 * whose guests are fast and whose exits are not. */
#define STATE_RUN_NS (100 * NSEC_PER_MSEC)
#define IDLE_MS 10000
/* Long enough that what a trace has once does not count. */
#define LANDMARKS_RUN_NS (3 * NSEC_PER_SEC)
#define LANDMARKS_REPS 3
/* The defaults of the program. */
#define MEM_SIZE (64ull << 20)
#define QUANTUM_NS (5 * NSEC_PER_MSEC)
#define EPOCH 946684800

struct options_bench {
	unsigned reps;
	uint64_t run_ns;
	const char *guests;  /* directory */
	const char *figures; /* letters */
};

struct bench {
	struct options_bench o;
	char dir[64];
	char trace[96];
	bool has_clock;
	unsigned over, failed;
};

/* A guest whose length is a number: n=N on the command line, or the number of OUTs. */
struct guest {
	const char *name; /* NULL: the OUT guest */
	const uint8_t *file;
	size_t file_size;
	uint8_t elf[PORT_GUEST_ELF_MAX];
	char cmdline[64];
	struct guest_image image;
};

struct cost {
	uint64_t cpu, wall; /* ns */
};

/* What is known after a run besides its cost. */
struct outcome {
	struct recorder_counts counts;
	uint64_t head, size; /* bytes of the trace */
	uint64_t boundaries, vtime, entries;
};

static struct cost cost_now(void)
{
	return (struct cost){.cpu = host_cpu_ns(), .wall = host_ns()};
}

static struct cost cost_since(struct cost then)
{
	return (struct cost){.cpu = host_cpu_ns() - then.cpu, .wall = host_ns() - then.wall};
}

/* --- guests ---------------------------------------------------------------------------------- */

static int guest_open(struct guest *g, const struct bench *b, const char *name, struct err *err)
{
	char path[4096];

	*g = (struct guest){.name = name};
	if (!name)
		return 0;
	snprintf(path, sizeof(path), "%s/%s.elf", b->o.guests, name);
	return session_map_file(path, &g->file, &g->file_size, err);
}

static void guest_close(struct guest *g)
{
	if (g->file)
		munmap((void *)g->file, g->file_size);
}

static void guest_set_length(struct guest *g, const char *word, uint64_t n)
{
	g->image = (struct guest_image){
		.kernel = g->file,
		.kernel_size = g->file_size,
		.cmdline = g->cmdline,
	};
	if (!g->name) {
		g->image.kernel = g->elf;
		g->image.kernel_size = port_guest_elf(g->elf, (uint32_t)n);
		return;
	}
	snprintf(g->cmdline, sizeof(g->cmdline), "%s=%" PRIu64, word, n);
}

/* --- running, recording, replaying ----------------------------------------------------------- */

static int check_end(const struct machine *m, struct err *err)
{
	if (m->end == END_EXIT && m->end_code == 0)
		return 0;
	return err_set(err, EIO, "the guest did not end well: %s, status %u",
		       machine_end_name(m->end), m->end_code);
}

static int begin_trace(struct trace_writer **w, const char *path, const struct machine *m,
		       const struct guest *g, const struct recorder_options *ro, struct err *err)
{
	char cpu[128];
	struct trace_machine tm = {
		.config = m->config,
		.clock = ro->clock,
		.quantum = ro->quantum,
		.time_rate = ro->time_rate,
		.cmdline = (char *)g->image.cmdline,
		.host_cpu = cpu,
		.cpu_number = cpuid_host_number(),
		.host_kernel = (char *)m->caps.kernel,
		.cpuid_hidden = m->caps.cpuid_honoured[1],
	};
	int rc = trace_writer_create(w, path, err);

	cpuid_host_signature(cpu, sizeof(cpu));
	if (rc == 0)
		rc = recorder_write_head(*w, &tm, &g->image, err);
	return rc;
}

/* Run, or record if path is not NULL. Timed: from the first entry to the end mark in the trace. */
static int run_guest(const struct guest *g, const char *path, struct cost *cost,
		     struct outcome *outcome, struct err *err)
{
	const struct machine_config config = {.mem_size = MEM_SIZE, .epoch = EPOCH};
	struct recorder_options ro = {.quantum = QUANTUM_NS, .time_rate = 1};
	struct recorder *recorder = NULL;
	struct trace_writer *w = NULL;
	struct machine *m = NULL;
	struct cost start;
	int rc = machine_create(&m, &config, &g->image, path != NULL, err);

	if (rc < 0)
		return rc;
	*outcome = (struct outcome){0};
	ro.clock = caps_has_clock(&m->caps) ? CLOCK_EMUL : CLOCK_STATE;
	if (path)
		rc = begin_trace(&w, path, m, g, &ro, err);
	if (rc == 0)
		rc = recorder_create(&recorder, m, &ro, w, err);
	if (rc < 0)
		goto out;
	if (w)
		outcome->head = trace_writer_size(w);
	start = cost_now();
	rc = machine_run(m, err);
	if (rc == 0)
		rc = recorder_finish(recorder, err);
	*cost = cost_since(start);
	if (rc == 0)
		rc = check_end(m, err);
	outcome->counts = *recorder_counts(recorder);
	outcome->boundaries = m->boundary;
	outcome->vtime = m->vtime;
	outcome->entries = m->vcpu[0].entries;
	if (w)
		outcome->size = trace_writer_size(w);
out:
	recorder_destroy(recorder);
	if (w) {
		int closed = trace_writer_close(w, rc == 0 ? err : NULL);

		rc = rc < 0 ? rc : closed;
	}
	machine_destroy(m);
	return rc;
}

static int replay_guest(const char *path, bool use_clock, struct cost *cost, unsigned *restarts,
			struct err *err)
{
	const struct replay_options ro = {0};
	struct replay replay;
	struct cost start;
	int rc = replay_open(&replay, path, use_clock, &ro, NULL, NULL, err);

	if (rc < 0)
		return rc;
	start = cost_now();
	rc = replay_run(&replay, err);
	*cost = cost_since(start);
	if (rc == 0)
		rc = check_end(replay.machine, err);
	*restarts += replay.restarts;
	replay_close(&replay);
	return rc;
}

/* Find the length that takes about `ns` of CPU time, whatever the host. */
static int calibrate(struct guest *g, uint64_t n, uint64_t ns, struct err *err)
{
	struct outcome outcome;
	struct cost cost;

	for (;;) {
		int rc;

		guest_set_length(g, "n", n);
		rc = run_guest(g, NULL, &cost, &outcome, err);
		if (rc < 0)
			return rc;
		if (cost.cpu >= ns / 8 || n > UINT32_MAX / 8)
			break;
		n *= 4;
	}
	n = (uint64_t)((double)n * (double)ns / (double)cost.cpu);
	guest_set_length(g, "n", n < 1 ? 1 : n > UINT32_MAX ? UINT32_MAX : n);
	return 0;
}

/* --- statistics and output ------------------------------------------------------------------- */

struct ratios {
	struct samples cpu, wall;
};

static void ratios_add(struct ratios *r, struct cost a, struct cost b)
{
	samples_add(&r->cpu, (double)a.cpu / (double)b.cpu);
	samples_add(&r->wall, (double)a.wall / (double)b.wall);
}

static void print_figure(struct bench *b, const char *name, double bound, struct samples *s,
			 struct samples *wall)
{
	b->over += figure_print(name, bound, s, wall);
}

#define PRINT_DETAIL(...) (printf("    " __VA_ARGS__), putchar('\n'))

/* --- figures --------------------------------------------------------------------------------- */

/* Let run and record change places, so that a drift of the host's speed cancels out. */
static int run_and_record(const struct bench *b, const struct guest *g, unsigned rep,
			  struct cost *run, struct cost *record, struct outcome *recorded,
			  struct err *err)
{
	struct outcome ignored;
	int rc = 0;

	for (unsigned turn = 0; turn < 2 && rc == 0; turn++)
		rc = (rep + turn) % 2 ? run_guest(g, b->trace, record, recorded, err)
				      : run_guest(g, NULL, run, &ignored, err);
	return rc;
}

/* a, c */
static int figure_computing(struct bench *b, struct err *err)
{
	struct ratios record = {0}, replay = {0};
	struct outcome outcome = {0};
	struct cost t[3] = {0};
	struct guest g;
	unsigned restarts = 0;
	int rc = guest_open(&g, b, "spin", err);

	if (rc == 0)
		rc = calibrate(&g, 100, b->o.run_ns, err);
	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		rc = run_and_record(b, &g, i, &t[0], &t[1], &outcome, err);
		if (rc < 0)
			break;
		ratios_add(&record, t[1], t[0]);
		if (!b->has_clock)
			continue;
		rc = replay_guest(b->trace, true, &t[2], &restarts, err);
		if (rc == 0)
			ratios_add(&replay, t[2], t[1]);
	}
	guest_close(&g);
	if (rc < 0)
		return rc;
	print_figure(b, "a  record / run, computing guest", 1.05, &record.cpu, &record.wall);
	PRINT_DETAIL("last: run %.0f ms, record %.0f ms, %" PRIu64 " landmarks, %" PRIu64
		     " kicks, %" PRIu64 " boundaries",
		     (double)t[0].cpu / 1e6, (double)t[1].cpu / 1e6, outcome.counts.landmarks,
		     outcome.counts.kicks, outcome.boundaries);
	if (replay.cpu.n) {
		print_figure(b, "c  replay / record, computing, clock", 1.3, &replay.cpu,
			     &replay.wall);
		PRINT_DETAIL("replays begun again after a late timer: %u", restarts);
	}
	return 0;
}

/* c, by state */
static int figure_state_clock(struct bench *b, struct err *err)
{
	struct ratios replay = {0};
	struct outcome outcome;
	struct cost t[2] = {0};
	struct guest g;
	unsigned restarts = 0;
	int rc = guest_open(&g, b, "spin", err);

	if (rc == 0)
		rc = calibrate(&g, 100, STATE_RUN_NS, err);
	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		rc = run_guest(&g, b->trace, &t[0], &outcome, err);
		if (rc == 0)
			rc = replay_guest(b->trace, false, &t[1], &restarts, err);
		if (rc == 0)
			ratios_add(&replay, t[1], t[0]);
	}
	guest_close(&g);
	if (rc < 0)
		return rc;
	print_figure(b, "s  replay / record, computing, state", NO_BOUND, &replay.cpu,
		     &replay.wall);
	return 0;
}

/* e */
static int figure_landmarks(struct bench *b, struct err *err)
{
	struct samples bytes = {0};
	struct outcome outcome = {0};
	struct cost cost;
	struct guest g;
	int rc = guest_open(&g, b, "spin", err);

	if (rc == 0)
		rc = calibrate(&g, 100, LANDMARKS_RUN_NS, err);
	for (unsigned i = 0; i < LANDMARKS_REPS && rc == 0; i++) {
		rc = run_guest(&g, b->trace, &cost, &outcome, err);
		if (rc == 0 && outcome.counts.landmarks == 0)
			rc = err_set(err, EIO, "a computing guest was recorded without landmarks");
		if (rc == 0)
			samples_add(&bytes, (double)(outcome.size - outcome.head) /
						    (double)outcome.counts.landmarks);
	}
	guest_close(&g);
	if (rc < 0)
		return rc;
	print_figure(b, "e  bytes on disk per landmark", b->has_clock ? 64 : NO_BOUND, &bytes,
		     NULL);
	PRINT_DETAIL("last: %" PRIu64 " bytes beside the head of %" PRIu64 ", %" PRIu64
		     " landmarks of %.1f bytes before compression, %" PRIu64 " digests",
		     outcome.size - outcome.head, outcome.head, outcome.counts.landmarks,
		     (double)outcome.counts.landmark_bytes / (double)outcome.counts.landmarks,
		     outcome.counts.digests);
	return 0;
}

/* b */
static int figure_exits(struct bench *b, const char *name, const char *title, struct err *err)
{
	struct ratios record = {0};
	struct outcome outcome = {0};
	struct cost t[2] = {0};
	struct guest g;
	int rc = guest_open(&g, b, name, err);

	if (rc == 0)
		rc = calibrate(&g, 100, b->o.run_ns, err);
	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		rc = run_and_record(b, &g, i, &t[0], &t[1], &outcome, err);
		if (rc == 0)
			ratios_add(&record, t[1], t[0]);
	}
	guest_close(&g);
	if (rc < 0)
		return rc;
	print_figure(b, title, 1.10, &record.cpu, &record.wall);
	PRINT_DETAIL("last: %" PRIu64 " boundaries, %.2f us each when run, %.2f recorded; %" PRIu64
		     " entries, %" PRIu64 " landmarks, %" PRIu64 " digests, %" PRIu64 " kicks",
		     outcome.boundaries, (double)t[0].cpu / 1e3 / (double)outcome.boundaries,
		     (double)t[1].cpu / 1e3 / (double)outcome.boundaries, outcome.entries,
		     outcome.counts.landmarks, outcome.counts.digests, outcome.counts.kicks);
	return 0;
}

static int figure_storm(struct bench *b, struct err *err)
{
	int rc = figure_exits(b, "storm", "b  record / run, storm of exits", err);

	if (rc == 0)
		rc = figure_exits(b, NULL, "b  record / run, OUTs alone", err);
	return rc;
}

/* d */
static int figure_idle(struct bench *b, struct err *err)
{
	struct samples seconds = {0}, wall = {0}, growth = {0};
	struct outcome one, two;
	struct cost cost;
	struct guest g;
	unsigned restarts = 0;
	int rc = guest_open(&g, b, "idle", err);

	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		/* Twice as long, but the same in what the guest prints and in the width of every
		 * number in the log. */
		guest_set_length(&g, "ms", 2 * IDLE_MS);
		rc = run_guest(&g, b->trace, &cost, &two, err);
		guest_set_length(&g, "ms", IDLE_MS);
		if (rc == 0)
			rc = run_guest(&g, b->trace, &cost, &one, err);
		if (rc == 0)
			rc = replay_guest(b->trace, true, &cost, &restarts, err);
		if (rc < 0)
			break;
		samples_add(&seconds, (double)cost.cpu / 1e9);
		samples_add(&wall, (double)cost.wall / 1e9);
		samples_add(&growth, ((double)two.counts.log_bytes - (double)one.counts.log_bytes) *
					     1000 / IDLE_MS);
	}
	guest_close(&g);
	if (rc < 0)
		return rc;
	print_figure(b, "d  seconds to replay 10 s of idling", 0.5, &seconds, &wall);
	print_figure(b, "d  log bytes per second of idling", 0, &growth, NULL);
	PRINT_DETAIL("last: %.2f s of guest time: %" PRIu64 " bytes of log, %" PRIu64
		     " on disk, %" PRIu64 " landmarks; %.2f s: %" PRIu64 ", %" PRIu64 ", %" PRIu64,
		     (double)one.vtime / 1e9, one.counts.log_bytes, one.size - one.head,
		     one.counts.landmarks, (double)two.vtime / 1e9, two.counts.log_bytes,
		     two.size - two.head, two.counts.landmarks);
	return 0;
}

static int run_bare(uint32_t outs, struct cost *cost, uint64_t *exits, struct err *err)
{
	struct bare_vm *vm;
	struct cost start;
	int rc = bare_vm_create(&vm, outs, err);

	if (rc < 0)
		return rc;
	start = cost_now();
	rc = bare_vm_run(vm, exits, err);
	*cost = cost_since(start);
	bare_vm_destroy(vm);
	return rc;
}

/* f */
static int figure_bare(struct bench *b, struct err *err)
{
	struct outcome outcome = {0};
	struct ratios ratio = {0};
	struct cost t[2] = {0};
	uint64_t exits = 1;
	uint32_t outs = 0;
	struct guest g;
	int rc = guest_open(&g, b, NULL, err);

	/* One instruction is as good as another for a calibration. */
	if (rc == 0)
		rc = run_bare(1000, &t[1], &exits, err);
	if (rc < 0)
		return rc;
	outs = (uint32_t)(1000 * b->o.run_ns / t[1].cpu);
	guest_set_length(&g, NULL, outs);
	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		for (unsigned turn = 0; turn < 2 && rc == 0; turn++)
			rc = (i + turn) % 2 ? run_guest(&g, NULL, &t[0], &outcome, err)
					    : run_bare(outs, &t[1], &exits, err);
		if (rc == 0 && exits != outcome.boundaries)
			rc = err_set(err, EIO, "%" PRIu64 " bare exits, %" PRIu64 " boundaries",
				     exits, outcome.boundaries);
		if (rc == 0)
			ratios_add(&ratio, t[0], t[1]);
	}
	if (rc < 0)
		return rc;
	print_figure(b, "f  run / bare KVM loop, OUTs alone", 1.15, &ratio.cpu, &ratio.wall);
	PRINT_DETAIL("last: %" PRIu64 " exits, %.2f us each bare, %.2f run", exits,
		     (double)t[1].cpu / 1e3 / (double)exits,
		     (double)t[0].cpu / 1e3 / (double)exits);
	return 0;
}

/* g */
static int figure_start(struct bench *b, struct err *err)
{
	struct samples cpu = {0}, wall = {0}, probe_cpu = {0}, probe_wall = {0};
	struct guest g;
	int rc = guest_open(&g, b, NULL, err);

	guest_set_length(&g, NULL, 1);
	for (unsigned i = 0; i < b->o.reps && rc == 0; i++) {
		struct cost start = cost_now(), ignored, cost;
		struct host_caps caps;
		struct outcome outcome;

		/* The guest's second exit ends it: what is timed is all start and no running. */
		rc = run_guest(&g, NULL, &ignored, &outcome, err);
		cost = cost_since(start);
		samples_add(&cpu, (double)cost.cpu / 1e6);
		samples_add(&wall, (double)cost.wall / 1e6);
		start = cost_now();
		if (rc == 0)
			rc = host_probe(&caps, false, err);
		cost = cost_since(start);
		samples_add(&probe_cpu, (double)cost.cpu / 1e6);
		samples_add(&probe_wall, (double)cost.wall / 1e6);
	}
	if (rc < 0)
		return rc;
	print_figure(b, "g  ms to make, start and end a machine", NO_BOUND, &cpu, &wall);
	print_figure(b, "g  ms of these for the probe", NO_BOUND, &probe_cpu, &probe_wall);
	return 0;
}

static const struct {
	char letter;
	int (*measure)(struct bench *b, struct err *err);
	const char *what;
} figures[] = {
	{'a', figure_computing, "record / run and replay / record of a computing guest (a, c)"},
	{'s', figure_state_clock, "the same replay without an instruction clock"},
	{'e', figure_landmarks, "size of a landmark in the trace"},
	{'b', figure_storm, "record / run of guests that exit all the time"},
	{'d', figure_idle, "replay of an idling guest, and its log"},
	{'f', figure_bare, "run / bare KVM loop"},
	{'g', figure_start, "start of a machine"},
};

/* --- main ------------------------------------------------------------------------------------ */

static int usage(FILE *out, const char *name)
{
	fprintf(out,
		"usage: %s [-q] [-n REPS] [-g DIR] [-f FIGURES]\n\n"
		"Measure what recording and replaying cost on this host.\n\n"
		"  -q          quick: %u repetitions of short runs\n"
		"  -n REPS     repetitions, 1 to %u (%u)\n"
		"  -g DIR      where spin.elf, storm.elf and idle.elf are (build/guests)\n"
		"  -f FIGURES  only these, by letter:\n",
		name, REPS_QUICK, REPS_MAX, REPS);
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		fprintf(out, "              %c  %s\n", figures[i].letter, figures[i].what);
	return out == stdout ? 0 : 1;
}

static int prepare(struct bench *b, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	struct host_caps caps;
	int rc;

	rc = host_pin_thread(err);
	if (rc == 0)
		rc = host_probe(&caps, false, err);
	if (rc < 0)
		return rc;
	b->has_clock = caps_has_clock(&caps);
	printf("%s, Linux %s, clock %s; %u repetitions; CPU time unless said otherwise\n", caps.cpu,
	       caps.kernel, clock_kind_name(b->has_clock ? CLOCK_EMUL : CLOCK_STATE), b->o.reps);
	snprintf(b->dir, sizeof(b->dir), "%s/hindsight-bench.XXXXXX",
		 tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	if (!mkdtemp(b->dir))
		return err_sys(err, errno, "cannot make the directory %s", b->dir);
	snprintf(b->trace, sizeof(b->trace), "%s/trace", b->dir);
	return 0;
}

int main(int argc, char **argv)
{
	struct bench b = {.o = {.reps = REPS, .run_ns = RUN_NS, .guests = "build/guests"}};
	struct err err = {0};
	int c;

	while ((c = getopt(argc, argv, "hqn:g:f:")) != -1) {
		switch (c) {
		case 'h':
			return usage(stdout, argv[0]);
		case 'q':
			b.o.reps = REPS_QUICK;
			b.o.run_ns = RUN_QUICK_NS;
			break;
		case 'n':
			b.o.reps = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'g':
			b.o.guests = optarg;
			break;
		case 'f':
			b.o.figures = optarg;
			break;
		default:
			return usage(stderr, argv[0]);
		}
	}
	if (optind != argc || b.o.reps < 1 || b.o.reps > REPS_MAX)
		return usage(stderr, argv[0]);
	if (prepare(&b, &err) < 0) {
		fprintf(stderr, "bench: %s\n", err.text);
		return 1;
	}
	figure_print_header();
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		if (b.o.figures && !strchr(b.o.figures, figures[i].letter))
			continue;
		if (figures[i].measure(&b, &err) < 0) {
			printf("%c  cannot be measured: %s\n", figures[i].letter, err.text);
			b.failed++;
		}
	}
	printf("%u over their bounds, %u could not be measured\n", b.over, b.failed);
	unlink(b.trace);
	rmdir(b.dir);
	return b.failed ? 1 : 0;
}
