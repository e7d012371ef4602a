// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What going back costs: single steps back from random places in the last second of a recorded run, right after coming
 * to the place from the end, and the next one after that; reverse-continue against one replay of the recording;
 * last-write, as a command, against one replay of more than 10 s of guest time. CPU time.
 */
#include "tests/bench/figure.h"

#include "debugger/session.h"
#include "debugger/symbols.h"
#include "debugger/timeline.h"
#include "replay/recorder.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACES 99
#define REPS 9
#define STEP_BOUND_MS 60
#define STEP_P95_BOUND_MS 250
#define LAST_WRITE_BOUND 2

static uint64_t random_state = 4711;

static uint64_t random_below(uint64_t n)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % n;
}

static double ms_since(uint64_t began)
{
	return (double)(host_cpu_ns() - began) / 1e6;
}

/* Record the guest into path. */
static int record(const char *guest, const char *path, struct err *err)
{
	struct machine_config config = {
		.mem_size = 64ull << 20, .seed = 3, .xfeatures = MACHINE_XFEATURES_OF_HOST};
	struct recorder_options options = {.quantum = 5 * NSEC_PER_MSEC, .time_rate = 1};
	struct guest_image image = {.cmdline = ""};
	struct trace_writer *w = NULL;
	struct recorder *r = NULL;
	struct machine *m = NULL;
	struct stat st;
	char cpu[128];
	int fd = open(guest, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, ENOENT, "there is no %s; run make guests", guest);
	image.kernel_size = (size_t)st.st_size;
	image.kernel = mmap(NULL, image.kernel_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	cpuid_host_signature(cpu, sizeof(cpu));
	rc = machine_create(&m, &config, &image, true, err);
	if (rc == 0) {
		struct trace_machine tm = {.config = m->config,
					   .quantum = options.quantum,
					   .time_rate = 1,
					   .cmdline = (char *)"",
					   .host_cpu = cpu,
					   .cpu_number = cpuid_host_number(),
					   .host_kernel = m->caps.kernel,
					   .cpuid_hidden = m->caps.cpuid_honoured[1]};

		options.clock = tm.clock = caps_has_clock(&m->caps) ? CLOCK_EMUL : CLOCK_STATE;
		rc = trace_writer_create(&w, path, err);
		if (rc == 0)
			rc = recorder_write_head(w, &tm, &image, err);
	}
	if (rc == 0)
		rc = recorder_create(&r, m, &options, w, err);
	if (rc == 0)
		rc = machine_run(m, err);
	if (rc == 0)
		rc = recorder_finish(r, err);
	if (w && trace_writer_close(w, rc < 0 ? NULL : err) < 0)
		rc = -EIO;
	recorder_destroy(r);
	machine_destroy(m);
	munmap((void *)image.kernel, image.kernel_size);
	return rc;
}

/* The first boundary in the last second of guest time. */
static int last_second(struct timeline *t, struct position *last, struct position *first, struct err *err)
{
	uint64_t low = 0, high, end;
	int rc = timeline_last(t, last, err);

	if (rc == 0)
		rc = timeline_seek(t, *last, err);
	end = timeline_machine(t)->vtime;
	high = last->boundary;
	while (rc == 0 && high - low > 1) {
		struct position middle = {low + (high - low) / 2, 0};

		rc = timeline_seek(t, middle, err);
		if (timeline_machine(t)->vtime + NSEC_PER_SEC < end)
			low = middle.boundary;
		else
			high = middle.boundary;
	}
	*first = (struct position){high, 0};
	return rc;
}

static int bench_steps(struct timeline *t, unsigned *over, struct err *err)
{
	struct samples first_step = {0}, next_step = {0}, tail = {0};
	struct position last, first;
	int rc = last_second(t, &last, &first, err);

	for (unsigned i = 0; rc == 0 && i < PLACES; i++) {
		struct position at = {first.boundary + random_below(last.boundary - first.boundary),
				      random_below(40)};
		uint64_t began;

		rc = timeline_seek(t, last, err);
		if (rc == 0)
			rc = timeline_seek(t, at, err);
		began = host_cpu_ns();
		if (rc == 0)
			rc = timeline_reverse_step(t, 1, err);
		samples_add(&first_step, ms_since(began));
		began = host_cpu_ns();
		if (rc == 0)
			rc = timeline_reverse_step(t, 1, err);
		samples_add(&next_step, ms_since(began));
	}
	if (rc < 0)
		return rc;
	*over += figure_print("t  ms, step back in the last second", STEP_BOUND_MS, &first_step, NULL);
	samples_add(&tail, first_step.v[first_step.n * 95 / 100]);
	*over += figure_print("t  the same, 95th percentile", STEP_P95_BOUND_MS, &tail, NULL);
	figure_print("t  ms, the next step back", NO_BOUND, &next_step, NULL);
	return 0;
}

/* Back over the whole recording with a breakpoint that is never hit, against running it forward once. */
static int bench_continue(const char *path, struct err *err)
{
	const struct timeline_options options = {0};
	const gva_t nowhere = GVA(0x1);
	struct timeline_stops stops = {.breakpoints = {&nowhere, 1}};
	struct samples ratio = {0};
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < REPS; i++) {
		struct timeline_stop stop;
		struct timeline *t;
		double forward, back;
		uint64_t began;

		rc = timeline_open(&t, path, true, &options, NULL, NULL, err);
		if (rc < 0)
			break;
		began = host_cpu_ns();
		rc = timeline_continue(t, &stops, &stop, err);
		forward = ms_since(began);
		began = host_cpu_ns();
		if (rc == 0)
			rc = timeline_reverse_continue(t, &stops, &stop, err);
		back = ms_since(began);
		samples_add(&ratio, back / forward);
		timeline_close(t);
	}
	if (rc == 0)
		figure_print("t  reverse-continue / running forward", NO_BOUND, &ratio, NULL);
	return rc;
}

/* Run a command with no output; its CPU time in seconds. status: what it must end with. */
static int run_command(char *const argv[], int status, double *seconds, struct err *err)
{
	struct rusage used;
	int how, null;
	pid_t pid = fork();

	if (pid == 0) {
		null = open("/dev/null", O_RDWR);
		for (int fd = 0; fd <= STDERR_FILENO; fd++)
			dup2(null, fd);
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &how, 0, &used) != pid)
		return err_sys(err, errno, "cannot run %s", argv[0]);
	if (!WIFEXITED(how) || WEXITSTATUS(how) != status)
		return err_set(err, EIO, "%s %s ended otherwise than with status %d", argv[0], argv[1], status);
	*seconds = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
		   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	return 0;
}

/* Where nobody writes, in a page that is written in once, at the start, and in one that each tick writes to. */
static int bench_last_write(const char *build, char *path, struct err *err)
{
	static const struct {
		const char *what, *symbol;
		uint64_t offset;
		int status;
		double bound;
	} cases[] = {
		{"t  last-write, nobody / replay", "start64", 0, 1, LAST_WRITE_BOUND},
		{"t  last-write, at the start / replay", "idt", 0, 0, LAST_WRITE_BOUND},
		{"t  last-write, at the end / replay", "timer_ticks", 0, 0, LAST_WRITE_BOUND},
		{"t  last-write, nobody, tick's page", "timer_ticks", 32, 1, NO_BOUND},
	};
	char program[256], guest[256], address[32];
	char *record_argv[] = {program, "record", "-o", path, "--append", "ms=10500 ticks=1000000", "--kernel", guest, NULL};
	char *replay_argv[] = {program, "replay", path, NULL};
	char *ask_argv[] = {program, "last-write", path, address, NULL};
	double replay = 0, seconds;
	struct symbols *symbols = NULL;
	const uint8_t *elf = NULL;
	size_t size = 0;
	int rc, over = 0;

	snprintf(program, sizeof(program), "%s/hindsight", build);
	snprintf(guest, sizeof(guest), "%s/guests/tasks.elf", build);
	rc = session_map_file(guest, &elf, &size, err);
	if (rc == 0)
		rc = symbols_open(elf, size, &symbols, err);
	if (rc == 0)
		rc = run_command(record_argv, 0, &seconds, err);
	if (rc == 0)
		rc = run_command(replay_argv, 0, &replay, err);
	for (size_t i = 0; i < ARRAY_SIZE(cases) && rc == 0; i++) {
		struct samples ratio = {0};
		gva_t at;

		if (!symbols_lookup(symbols, cases[i].symbol, &at, NULL)) {
			rc = err_set(err, ENOENT, "%s has no %s", guest, cases[i].symbol);
			break;
		}
		snprintf(address, sizeof(address), "0x%" PRIx64 ",8", at.v + cases[i].offset);
		rc = run_command(ask_argv, cases[i].status, &seconds, err);
		samples_add(&ratio, seconds / replay);
		if (rc == 0)
			over += figure_print(cases[i].what, cases[i].bound, &ratio, NULL);
	}
	symbols_close(symbols);
	if (elf)
		munmap((void *)elf, size);
	return rc < 0 ? rc : over;
}

int main(void)
{
	const struct timeline_options options = {0};
	const char *build = getenv("BUILD");
	char guest[256], path[] = "/tmp/bench-timeline.XXXXXX";
	struct timeline *t = NULL;
	struct err err = {0};
	unsigned over = 0;
	int fd = mkstemp(path);
	int rc = fd < 0 ? err_sys(&err, errno, "cannot make a file in /tmp") : host_pin_thread(&err);

	if (fd >= 0)
		close(fd);
	snprintf(guest, sizeof(guest), "%s/guests/stale_pointer.elf", build ? build : "build");
	if (rc == 0)
		rc = record(guest, path, &err);
	if (rc == 0)
		rc = timeline_open(&t, path, true, &options, NULL, NULL, &err);
	if (rc == 0) {
		figure_print_header();
		rc = bench_steps(t, &over, &err);
	}
	timeline_close(t);
	if (rc == 0)
		rc = bench_continue(path, &err);
	if (rc == 0)
		rc = bench_last_write(build ? build : "build", path, &err);
	over += rc > 0 ? (unsigned)rc : 0;
	unlink(path);
	if (rc < 0) {
		fprintf(stderr, "bench_timeline: %s\n", err.text);
		return 1;
	}
	printf("%u over their bounds\n", over);
	return over != 0;
}
