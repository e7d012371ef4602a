/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A small trace with a bit of everything, to be damaged by the tests of the trace file; little
 * memory to read it with. Include after <cmocka.h>.
 */
#ifndef SOME_TRACE_H
#define SOME_TRACE_H

#include "replay/recorder.h"
#include "replay/replayer.h"
#include "tests/unit/random_event.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define KERNEL_SIZE 700
#define INITRD_SIZE 300
#define EVENTS_MAX 48
#define FRAMES_MAX 24
#define FILE_MAX (64u << 10)
/* Buffers for a frame, a guest file of some MiB, and what malloc likes to keep. */
#define MEMORY_ALLOWED (32ull << 20)

/* A trace as it was written, and the events in it. */
static struct {
	uint8_t kernel[KERNEL_SIZE], initrd[INITRD_SIZE];
	struct event events[EVENTS_MAX];
	unsigned n_events;
	/* Where each frame ends, and how many events are whole by then. */
	uint64_t frame_start[FRAMES_MAX + 1];
	unsigned events_by[FRAMES_MAX + 1];
	unsigned n_frames, head_frames;
	uint8_t data[FILE_MAX];
	size_t size;
} good;

/* The file under test lives in memory; it is opened by its name in /proc. */
static int file_fd;
static char file_path[64];

static inline void set_file(const void *data, size_t size)
{
	assert_int_equal(ftruncate(file_fd, 0), 0);
	assert_int_equal(pwrite(file_fd, data, size, 0), (ssize_t)size);
}

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif

/* From here on, whoever believes an announced size runs out of memory. Not with the sanitizer,
 * whose own memory is larger than any limit. */
static inline void limit_memory(void)
{
#ifndef HAS_ASAN
	unsigned long long pages = 0;
	struct rlimit limit;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu", &pages), 1);
	fclose(f);
	assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = pages * PAGE_SIZE + MEMORY_ALLOWED;
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
#endif
}

/* --- Making the trace -------------------------------------------------------------------- */

static inline struct trace_machine some_machine(void)
{
	return (struct trace_machine){.config = {.mem_size = 64ull << 20, .seed = 3},
				      .clock = CLOCK_EMUL,
				      .cmdline = (char *)"ticks=5",
				      .host_cpu = (char *)"a CPU",
				      .host_kernel = (char *)"a kernel"};
}

static inline void end_frame(struct trace_writer *w)
{
	good.n_frames++;
	assert_true(good.n_frames < FRAMES_MAX);
	good.frame_start[good.n_frames] = trace_writer_size(w);
	good.events_by[good.n_frames] = good.n_events;
}

static inline void write_events(struct trace_writer *w, uint64_t *random)
{
	struct event_codec codec = {0};
	struct kvm_regs regs = {0};
	uint64_t boundary = 0;
	struct buf b = {0};
	struct err err;

	while (good.n_events < EVENTS_MAX) {
		uint64_t n = 1 + random_below(random, 8);

		buf_clear(&b);
		while (n-- && good.n_events < EVENTS_MAX) {
			struct event e = random_event(random, &boundary, &regs);

			event_encode(&codec, &e, &b);
			good.events[good.n_events++] = e;
		}
		assert_int_equal(trace_writer_frame(w, TRACE_EVENTS, b.data, b.len, &err), 0);
		end_frame(w);
	}
	buf_free(&b);
}

static inline int trace_setup(void **state)
{
	struct trace_machine tm = some_machine();
	struct guest_image image = {.kernel = good.kernel,
				    .kernel_size = sizeof(good.kernel),
				    .initrd = good.initrd,
				    .initrd_size = sizeof(good.initrd)};
	struct trace_end counts = {.assists = {.len = 1, .of = {{"sse", 12345}}}};
	struct buf end = {0};
	struct trace_writer *w;
	uint64_t random = 21;
	struct err err;

	(void)state;
	file_fd = memfd_create("trace", MFD_CLOEXEC);
	assert_true(file_fd >= 0);
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file_fd);
	for (size_t i = 0; i < sizeof(good.kernel); i++)
		good.kernel[i] = (uint8_t)random_u64(&random);
	memset(good.initrd, 'i', sizeof(good.initrd));

	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_int_equal(trace_writer_size(w), TRACE_HEADER_SIZE);
	good.frame_start[0] = TRACE_HEADER_SIZE;
	assert_int_equal(recorder_write_head(w, &tm, &image, &err), 0);
	good.size = (size_t)trace_writer_size(w);
	assert_true(good.size < sizeof(good.data));
	/* Where the frames of the head begin, from their stored sizes. */
	assert_int_equal(pread(file_fd, good.data, good.size, 0), (ssize_t)good.size);
	for (uint64_t at = TRACE_HEADER_SIZE; at < good.size;) {
		uint32_t stored;

		memcpy(&stored, good.data + at + 8, sizeof(stored));
		at += TRACE_FRAME_SIZE + stored;
		good.frame_start[++good.n_frames] = at;
	}
	good.head_frames = good.n_frames;
	write_events(w, &random);
	trace_end_encode(&counts, &end);
	assert_int_equal(trace_writer_frame(w, TRACE_END, end.data, end.len, &err), 0);
	buf_free(&end);
	end_frame(w);
	good.size = (size_t)trace_writer_size(w);
	assert_int_equal(trace_writer_close(w, &err), 0);
	assert_true(good.size < sizeof(good.data));
	assert_int_equal(pread(file_fd, good.data, sizeof(good.data), 0), (ssize_t)good.size);
	limit_memory();
	return 0;
}

static inline int trace_teardown(void **state)
{
	(void)state;
	close(file_fd);
	return 0;
}

/* --- Reading it -------------------------------------------------------------------------- */

struct reading {
	int opened;	 /* result of replay_file_open */
	int rc;		 /* last result of replay_file_next */
	unsigned events; /* read before that */
	bool same;	 /* each equal to the one written */
	bool truncated;
	struct err err;
};

/* Read all of the file; events beyond those written end the test. */
static inline struct reading read_file(void)
{
	struct reading r = {.same = true};
	struct replay_file *f;
	struct event e;

	r.opened = replay_file_open(&f, file_path, &r.err);
	if (r.opened < 0)
		return r;
	assert_true(f->image.kernel_size == f->tm.kernel_size);
	assert_true(f->image.initrd_size == f->tm.initrd_size);
	while ((r.rc = replay_file_next(f, &e, &r.err)) > 0) {
		r.same = r.same && r.events < good.n_events &&
			 same_event(&e, &good.events[r.events]);
		r.events++;
		assert_true(r.events <= FILE_MAX);
	}
	r.truncated = replay_file_truncated(f);
	/* The end stays the end. */
	if (r.rc == 0)
		assert_int_equal(replay_file_next(f, &e, &r.err), 0);
	replay_file_close(f);
	return r;
}

/* An error is a sentence about the file, and never for lack of memory. */
static inline void assert_explained(int rc, const struct err *err)
{
	assert_true(rc == -EBADMSG || rc == -EINVAL);
	assert_true(strlen(err->text) > 10);
}

#endif
