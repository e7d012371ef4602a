// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The trace file: what is written is read back; whatever happens to the file afterwards, a reader
 * gets the first events as they were, or a sentence.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/some_trace.h"

#include <sys/stat.h>

#define DAMAGES 10000
#define HOSTILE 3000

static void test_round_trip(void **state)
{
	struct reading r;
	struct replay_file *f;
	struct err err;

	(void)state;
	set_file(good.data, good.size);
	r = read_file();
	assert_int_equal(r.opened, 0);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.events, EVENTS_MAX);
	assert_true(r.same);
	assert_false(r.truncated);

	assert_int_equal(replay_file_open(&f, file_path, &err), 0);
	assert_memory_equal(f->image.kernel, good.kernel, sizeof(good.kernel));
	assert_memory_equal(f->image.initrd, good.initrd, sizeof(good.initrd));
	assert_string_equal(f->image.cmdline, "ticks=5");
	assert_int_equal(f->tm.config.seed, 3);
	replay_file_close(f);
}

/* Files larger than a frame are put together from several. */
static void test_large_files(void **state)
{
	size_t size = 3 * TRACE_FRAME_RAW_MAX + 12345;
	uint8_t *kernel = malloc(size);
	struct trace_machine tm = some_machine();
	struct guest_image image = {.kernel = kernel, .kernel_size = size};
	struct trace_writer *w;
	struct replay_file *f;
	uint64_t random = 22;
	struct err err;

	(void)state;
	assert_non_null(kernel);
	for (size_t i = 0; i < size; i++)
		kernel[i] = (uint8_t)random_below(&random, 7);
	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_int_equal(recorder_write_head(w, &tm, &image, &err), 0);
	assert_int_equal(trace_writer_close(w, &err), 0);
	assert_int_equal(replay_file_open(&f, file_path, &err), 0);
	assert_int_equal(f->image.kernel_size, size);
	assert_memory_equal(f->image.kernel, kernel, size);
	assert_int_equal(f->image.initrd_size, 0);
	replay_file_close(f);
	free(kernel);
}

#define DISK_SIZE (5u << 20)

/* A trace whose guest has this disk; from the file that it is in if thin. */
static void write_disk_trace(const uint8_t *disk, bool thin)
{
	struct trace_machine tm = some_machine();
	struct guest_image image = {.kernel = good.kernel,
				    .kernel_size = sizeof(good.kernel),
				    .disk = disk,
				    .disk_size = DISK_SIZE};
	struct trace_writer *w;
	struct err err;

	tm.config.disk = true;
	tm.thin = thin;
	assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
	assert_int_equal(recorder_write_head(w, &tm, &image, &err), 0);
	assert_int_equal(trace_writer_close(w, &err), 0);
}

static int attach(const char *path, struct replay_file **f, struct err *err)
{
	assert_int_equal(replay_file_open(f, file_path, err), 0);
	return replay_file_attach_disk(*f, path, err);
}

static void test_disk(void **state)
{
	uint8_t *disk = calloc(1, DISK_SIZE);
	char path[64];
	struct replay_file *f;
	struct err err;
	struct stat st;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	(void)state;
	assert_non_null(disk);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Data at the start, the end, and over the border of two frames; zeros between. */
	memset(disk, 1, 10000);
	memset(disk + DISK_SIZE - 3, 2, 3);
	for (unsigned i = 0; i < 20000; i++)
		disk[TRACE_FRAME_RAW_MAX - 10000 + i] = (uint8_t)(i * i >> 3);
	write_disk_trace(disk, false);
	assert_int_equal(stat(file_path, &st), 0);
	assert_true(st.st_size < 40000);
	assert_int_equal(attach(NULL, &f, &err), 0);
	assert_int_equal(f->image.disk_size, DISK_SIZE);
	assert_memory_equal(f->image.disk, disk, DISK_SIZE);
	replay_file_close(f);
	assert_int_equal(attach(path, &f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "leave out --disk"));
	replay_file_close(f);

	/* Thin: the image must come from elsewhere, and be the same. */
	write_disk_trace(disk, true);
	assert_int_equal(stat(file_path, &st), 0);
	assert_true(st.st_size < 2000);
	assert_int_equal(attach(NULL, &f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "give its disk image with --disk FILE"));
	replay_file_close(f);
	assert_int_equal(attach(path, &f, &err), -EINVAL); /* empty */
	replay_file_close(f);
	assert_int_equal(pwrite(fd, disk, DISK_SIZE, 0), DISK_SIZE);
	assert_int_equal(attach(path, &f, &err), 0);
	assert_memory_equal(f->image.disk, disk, DISK_SIZE);
	replay_file_close(f);
	assert_int_equal(pwrite(fd, "x", 1, 4321), 1);
	assert_int_equal(attach(path, &f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "is not the disk image"));
	replay_file_close(f);
	close(fd);
	free(disk);
}

static void test_truncation_at_every_byte(void **state)
{
	unsigned frame = good.n_frames;

	(void)state;
	set_file(good.data, good.size);
	for (size_t size = good.size; size-- > 0;) {
		struct reading r;

		assert_int_equal(ftruncate(file_fd, (off_t)size), 0);
		while (frame && good.frame_start[frame] > size)
			frame--;
		r = read_file();
		if (frame < good.head_frames) {
			assert_explained(r.opened, &r.err);
			continue;
		}
		assert_int_equal(r.opened, 0);
		assert_int_equal(r.rc, 0);
		assert_true(r.truncated);
		assert_true(r.same);
		assert_int_equal(r.events, good.events_by[frame]);
	}
}

/* --- Damage ------------------------------------------------------------------------------ */

static uint8_t damaged[2 * FILE_MAX];

static size_t swap_frames(uint64_t *random)
{
	unsigned a = (unsigned)random_below(random, good.n_frames - 1);
	unsigned b = a + 1 + (unsigned)random_below(random, good.n_frames - 1 - a);
	uint64_t a0 = good.frame_start[a], a1 = good.frame_start[a + 1];
	uint64_t b0 = good.frame_start[b], b1 = good.frame_start[b + 1];
	uint8_t *p = damaged + a0;

	memcpy(p, good.data + b0, b1 - b0);
	p += b1 - b0;
	memcpy(p, good.data + a1, b0 - a1);
	p += b0 - a1;
	memcpy(p, good.data + a0, a1 - a0);
	return good.size;
}

static size_t duplicate_frame(uint64_t *random)
{
	unsigned i = (unsigned)random_below(random, good.n_frames);
	uint64_t from = good.frame_start[i], to = good.frame_start[i + 1];

	memcpy(damaged + to, good.data + from, good.size - from);
	return good.size + (to - from);
}

static size_t drop_frame(uint64_t *random)
{
	unsigned i = (unsigned)random_below(random, good.n_frames);
	uint64_t from = good.frame_start[i], to = good.frame_start[i + 1];

	memcpy(damaged + from, good.data + to, good.size - to);
	return good.size - (to - from);
}

static size_t insert_bytes(uint64_t *random)
{
	size_t at = random_below(random, good.size + 1), n = 1 + random_below(random, 100);

	for (size_t i = 0; i < n; i++)
		damaged[at + i] = (uint8_t)random_u64(random);
	memcpy(damaged + at + n, good.data + at, good.size - at);
	return good.size + n;
}

static size_t remove_bytes(uint64_t *random)
{
	size_t at = random_below(random, good.size), n = 1 + random_below(random, 100);

	if (n > good.size - at)
		n = good.size - at;
	memcpy(damaged + at, good.data + at + n, good.size - at - n);
	return good.size - n;
}

/* Make a damaged copy; its size. */
static size_t damage(uint64_t *random)
{
	size_t at = random_below(random, good.size), n = 1 + random_below(random, 200);

	memcpy(damaged, good.data, good.size);
	if (n > good.size - at)
		n = good.size - at;
	switch (random_below(random, 9)) {
	case 0:
		for (n = 1 + n % 4; n; n--)
			damaged[random_below(random, good.size)] ^=
				(uint8_t)(1u << random_below(random, 8));
		return good.size;
	case 1: /* also behind the bytes that a checksum looks at first */
		damaged[good.frame_start[random_below(random, good.n_frames)] +
			random_below(random, TRACE_FRAME_SIZE)] ^= (uint8_t)(1 + n % 255);
		return good.size;
	case 2:
		return at;
	case 3:
		return insert_bytes(random);
	case 4:
		return remove_bytes(random);
	case 5:
		return swap_frames(random);
	case 6:
		return n % 2 ? duplicate_frame(random) : drop_frame(random);
	case 7:
		memset(damaged + at, 0, n);
		return good.size;
	default:
		for (size_t i = 0; i < n; i++)
			damaged[good.size + i] = n % 2 ? 0 : (uint8_t)random_u64(random);
		return good.size + n;
	}
}

static void test_damage(void **state)
{
	unsigned refused = 0, shorter = 0, unopened = 0;
	uint64_t random = 23;

	(void)state;
	for (unsigned i = 0; i < DAMAGES; i++) {
		size_t size = damage(&random);
		struct reading r;

		set_file(damaged, size);
		r = read_file();
		/* Zeroes over zeroes are no damage. */
		if (size == good.size && memcmp(damaged, good.data, size) == 0)
			continue;
		if (r.opened < 0) {
			assert_explained(r.opened, &r.err);
			unopened++;
			continue;
		}
		assert_true(r.same);
		assert_true(r.events <= good.n_events);
		if (r.rc < 0) {
			assert_explained(r.rc, &r.err);
			refused++;
		} else {
			/* Never taken for the whole. */
			assert_true(r.truncated);
			shorter++;
		}
	}
	print_message(
		"%u damages: %u files refused, %u refused at the damage, %u read as cut off\n",
		DAMAGES, unopened, refused, shorter);
	assert_true(refused > DAMAGES / 10 && shorter > DAMAGES / 100);
}

/* Frames whose checksums are right and whose content is not: made to hurt. */
static void test_hostile_content(void **state)
{
	struct trace_machine tm = some_machine();
	uint64_t random = 24;
	struct buf machine = {0};

	(void)state;
	tm.kernel_size = KERNEL_SIZE;
	trace_machine_encode(&tm, &machine);
	assert_false(machine.failed);
	for (unsigned i = 0; i < HOSTILE; i++) {
		unsigned hurt = (unsigned)random_below(&random, 4);
		uint8_t copy[512], file[9 + KERNEL_SIZE], content[400];
		struct trace_writer *w;
		struct replay_file *f;
		struct event e;
		struct err err;
		unsigned events = 0;
		int rc;

		assert_true(machine.len <= sizeof(copy));
		memcpy(copy, machine.data, machine.len);
		if (hurt == 0)
			copy[random_below(&random, machine.len)] = (uint8_t)random_u64(&random);
		memset(file, 0, sizeof(file));
		file[0] = TRACE_FILE_KERNEL;
		file[1] = KERNEL_SIZE & 0xff;
		file[2] = KERNEL_SIZE >> 8;
		if (hurt == 1)
			file[random_below(&random, 9)] = (uint8_t)random_u64(&random);
		for (size_t k = 0; k < sizeof(content); k++)
			content[k] = (uint8_t)(k % 23 ? random_u64(&random) : 1 + k % 4);
		assert_int_equal(trace_writer_create(&w, file_path, &err), 0);
		assert_int_equal(trace_writer_frame(w, TRACE_MACHINE, copy, machine.len, &err), 0);
		assert_int_equal(trace_writer_frame(w, TRACE_FILE, file,
						    hurt == 2 ? random_below(&random, sizeof(file))
							      : sizeof(file),
						    &err),
				 0);
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(
				trace_writer_frame(w,
						   random_below(&random, 8) ? TRACE_EVENTS
									    : (enum trace_frame)k,
						   content, random_below(&random, sizeof(content)),
						   &err),
				0);
		assert_int_equal(trace_writer_close(w, &err), 0);

		err.text[0] = 0;
		rc = replay_file_open(&f, file_path, &err);
		if (rc < 0) {
			assert_explained(rc, &err);
			continue;
		}
		while ((rc = replay_file_next(f, &e, &err)) > 0) {
			assert_in_range(e.type, EVENT_LANDMARK, EVENT_TIME);
			assert_true(++events <= 3 * sizeof(content));
		}
		if (rc < 0)
			assert_explained(rc, &err);
		replay_file_close(f);
	}
	buf_free(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_large_files),
		cmocka_unit_test(test_disk),
		cmocka_unit_test(test_truncation_at_every_byte),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_hostile_content),
	};

	return cmocka_run_group_tests(tests, trace_setup, trace_teardown);
}
