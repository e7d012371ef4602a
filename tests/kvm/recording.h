/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A guest recorded through the library, for tests that replay it. Include after <cmocka.h>. */
#ifndef RECORDING_H
#define RECORDING_H

#include "replay/recorder.h"
#include "replay/replay.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Short, so that there are many landmarks. */
#define RECORDING_QUANTUM (1 * NSEC_PER_MSEC)
#define RECORDING_MEM (16ull << 20)

struct recording {
	char path[128];
	struct event *events;
	unsigned n_events;
	uint64_t boundaries;
};

/* 0 if there is a KVM to test with; else the test program's exit status plus one. */
static inline int kvm_missing(const char *test)
{
	const char *required = getenv("REQUIRE_KVM");

	if (access("/dev/kvm", R_OK | W_OK) == 0)
		return 0;
	printf("SKIP %s: no /dev/kvm\n", test);
	return required && strcmp(required, "1") == 0 ? 2 : 1;
}

/* xorshift64 (Marsaglia 2003); the state must not be 0. */
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return (x >> 11) % n;
}

#define assert_ok(rc, err)                                                                         \
	do {                                                                                       \
		if ((rc) < 0)                                                                      \
			fail_msg("%s", (err).text);                                                \
	} while (0)

static inline const uint8_t *map_guest(const char *guest, size_t *size)
{
	const char *build = getenv("BUILD");
	char path[256];
	struct stat st;
	void *p;
	int fd;

	snprintf(path, sizeof(path), "%s/guests/%s.elf", build ? build : "build", guest);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		fail_msg("there is no %s; run make guests first", path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	assert_ptr_not_equal(p, MAP_FAILED);
	*size = (size_t)st.st_size;
	return p;
}

static inline void list_events(struct recording *rec)
{
	struct replay_file *f;
	struct err err;
	struct event e;
	int rc = replay_file_open(&f, rec->path, &err);

	assert_ok(rc, err);
	rec->events = NULL;
	rec->n_events = 0;
	while ((rc = replay_file_next(f, &e, &err)) > 0) {
		rec->events = realloc(rec->events, (rec->n_events + 1) * sizeof(e));
		assert_non_null(rec->events);
		rec->events[rec->n_events++] = e;
	}
	assert_ok(rc, err);
	assert_false(replay_file_truncated(f));
	replay_file_close(f);
	assert_true(rec->n_events > 0);
	rec->boundaries = rec->events[rec->n_events - 1].boundary;
}

/* Record the guest of this name until it ends by itself. input_fd: -1 for none; use_clock: where the host has one.
 * quantum: ns. */
static inline void record_guest_by(struct recording *rec, const char *guest, const char *cmdline,
				   int input_fd, bool use_clock, uint64_t quantum)
{
	struct guest_image image = {.cmdline = cmdline};
	struct machine_config config = {.mem_size = RECORDING_MEM,
					.seed = 3,
					.xfeatures = MACHINE_XFEATURES_OF_HOST};
	struct input_fd input;
	struct input_source source = input_fd_source(&input, input_fd, INPUT_SERIAL);
	struct recorder_options options = {.quantum = quantum,
					   .time_rate = 1,
					   .sources = &source,
					   .n_sources = input_fd >= 0};
	struct trace_machine tm = {.config = config,
				   .quantum = quantum,
				   .time_rate = 1,
				   .cmdline = (char *)cmdline};
	const char *tmp = getenv("TMPDIR");
	char cpu[128];
	struct recorder *r;
	struct trace_writer *w;
	struct machine *m;
	struct err err;
	int fd;

	image.kernel = map_guest(guest, &image.kernel_size);
	snprintf(rec->path, sizeof(rec->path), "%.100s/hindsight-test-XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(rec->path);
	assert_true(fd >= 0);
	close(fd);
	assert_ok(host_pin_thread(&err), err);
	assert_ok(machine_create(&m, &config, &image, true, &err), err);
	options.clock = use_clock && caps_has_clock(&m->caps) ? CLOCK_EMUL : CLOCK_STATE;
	cpuid_host_signature(cpu, sizeof(cpu));
	tm.config = m->config;
	tm.clock = options.clock;
	tm.host_cpu = cpu;
	tm.cpu_number = cpuid_host_number();
	tm.host_kernel = m->caps.kernel;
	tm.cpuid_hidden = m->caps.cpuid_honoured[1];
	assert_ok(trace_writer_create(&w, rec->path, &err), err);
	assert_ok(recorder_write_head(w, &tm, &image, &err), err);
	assert_ok(recorder_create(&r, m, &options, w, &err), err);
	assert_ok(machine_run(m, &err), err);
	assert_int_equal(m->end, END_EXIT);
	assert_ok(recorder_finish(r, &err), err);
	assert_ok(trace_writer_close(w, &err), err);
	recorder_destroy(r);
	machine_destroy(m);
	munmap((void *)image.kernel, image.kernel_size);
	list_events(rec);
}

static inline void record_guest(struct recording *rec, const char *guest, const char *cmdline, int input_fd)
{
	record_guest_by(rec, guest, cmdline, input_fd, true, RECORDING_QUANTUM);
}

static inline void recording_free(struct recording *rec)
{
	unlink(rec->path);
	free(rec->events);
	rec->events = NULL;
}

static inline void open_replay(struct replay *r, const struct recording *rec,
			       const struct replay_options *options)
{
	struct err err;
	int rc = replay_open(r, rec->path, true, options, NULL, NULL, &err);

	assert_ok(rc, err);
}

#endif
