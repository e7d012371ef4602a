// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/replayer.h"

#include "base/new_file.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* One of the guest's files, put together from its frames in a file of its own, so that long runs of zeros, which a
 * disk image has, take no memory. */
struct incoming {
	int fd;
	uint64_t size, have;
};

/* Append bytes; whole blocks of zeros are left out. */
static int append(struct incoming *in, const uint8_t *data, size_t len, struct err *err)
{
	static const uint8_t zeros[PAGE_SIZE];

	while (len) {
		size_t n = PAGE_SIZE - in->have % PAGE_SIZE;

		n = n < len ? n : len;
		if (memcmp(data, zeros, n) != 0 && pwrite(in->fd, data, n, (off_t)in->have) != (ssize_t)n)
			return err_sys(err, errno ? errno : ENOSPC, "out of memory for the guest's files");
		in->have += n;
		data += n;
		len -= n;
	}
	return 0;
}

static int take_file_frame(struct incoming *in, const uint8_t *data, size_t len, struct err *err)
{
	struct reader r = reader_init(data, len);
	uint64_t total;
	size_t n;

	reader_u8(&r);
	total = reader_u64(&r);
	n = reader_left(&r);
	if (r.failed || total != in->size || n > in->size - in->have)
		return err_set(err, EBADMSG, "a file inside the trace has another size than announced");
	if (in->fd < 0)
		in->fd = memfd_create("guest-file", MFD_CLOEXEC);
	if (in->fd < 0)
		return err_sys(err, errno, "cannot create a memory file for the guest's files");
	/* Grown as the bytes come, not by what a header claims. */
	return append(in, reader_take(&r, n), n, err);
}

/* Map what came; NULL and 0 if nothing did. */
static int finish_file(struct incoming *in, const uint8_t **data, size_t *size, struct err *err)
{
	void *p;

	if (!in->have)
		return 0;
	p = ftruncate(in->fd, (off_t)in->have) < 0
		    ? MAP_FAILED
		    : mmap(NULL, in->have, PROT_READ, MAP_SHARED, in->fd, 0);
	if (p == MAP_FAILED)
		return err_sys(err, errno, "cannot map the guest's files");
	*data = p;
	*size = (size_t)in->have;
	return 0;
}

static int check_sizes(const struct trace_machine *tm, struct err *err)
{
	if (tm->kernel_size > TRACE_FILE_MAX || tm->initrd_size > TRACE_FILE_MAX ||
	    (tm->disk_size > TRACE_FILE_MAX && !tm->thin) || !tm->kernel_size ||
	    tm->config.disk != (tm->disk_size > 0))
		return err_set(err, EBADMSG, "the trace announces a guest file of impossible size");
	return 0;
}

static int read_files(struct replay_file *f, struct incoming file[TRACE_FILES], struct err *err)
{
	uint64_t left = file[0].size + file[1].size + file[2].size;

	while (left) {
		enum trace_frame type;
		const uint8_t *data;
		struct incoming *in;
		uint64_t before;
		uint8_t which;
		size_t len;
		int rc = trace_reader_next(f->reader, &type, &data, &len, err);

		if (rc == 0)
			return err_set(err, EBADMSG,
				       "the trace ends inside the guest's files: nothing to replay");
		if (rc < 0)
			return rc;
		which = len ? data[0] : 0;
		if (type != TRACE_FILE || which < TRACE_FILE_KERNEL || which > TRACE_FILE_DISK)
			return err_set(err, EBADMSG,
				       "the trace has a frame of type %u where a guest file belongs", type);
		in = &file[which - TRACE_FILE_KERNEL];
		before = in->have;
		rc = take_file_frame(in, data, len, err);
		if (rc < 0)
			return rc;
		left -= in->have - before;
	}
	return 0;
}

static int append_begin(struct replay_file *f, const uint8_t *data, size_t len, struct err *err)
{
	if (write(f->begin_fd, data, len) != (ssize_t)len)
		return err_sys(err, errno ? errno : ENOSPC, "no room in /var/tmp for the trace's snapshot");
	return 0;
}

/* The snapshot file that the machine begins with, on disk: it may be large. What it is is seen by who uses it. So is what
 * it lacks: where a frame is damaged it ends, and its reader names the page. */
static int read_begin(struct replay_file *f, struct err *err)
{
	uint64_t max = trace_snapshots_max(f->tm.config.mem_size);
	struct trace_place start = trace_reader_tell(f->reader), before = start;
	enum trace_frame type;
	const uint8_t *data;
	size_t len;
	int rc;

	if (trace_reader_measure(f->reader, TRACE_BEGIN) > max)
		return err_set(err, EFBIG, "the trace begins with snapshots of more than %" PRIu64 " MiB, which is too much for "
			       "its guest", max >> 20);
	rc = nameless_file_create("/var/tmp", &f->begin_fd, err);
	if (rc < 0)
		return rc;
	while ((rc = trace_reader_next(f->reader, &type, &data, &len, err)) > 0 && type == TRACE_BEGIN) {
		rc = append_begin(f, data, len, err);
		if (rc < 0)
			return rc;
		before = trace_reader_tell(f->reader);
	}
	if (rc == -EBADMSG) {
		len = trace_reader_salvage(f->reader, &data);
		if (!len && before.offset == start.offset)
			return rc;
		rc = append_begin(f, data, len, err);
	} else if (rc >= 0 && before.offset == start.offset) {
		return err_set(err, EBADMSG, "the trace ends inside the snapshot that it begins with: nothing to go on from");
	}
	return rc < 0 ? rc : trace_reader_seek(f->reader, before, err);
}

static int read_head(struct replay_file *f, struct err *err)
{
	struct incoming file[TRACE_FILES] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};
	struct guest_image *image = &f->image;
	enum trace_frame type;
	const uint8_t *data;
	size_t len;
	int rc = trace_reader_next(f->reader, &type, &data, &len, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || type != TRACE_MACHINE)
		return err_set(err, EBADMSG, "the trace ends before its machine description: nothing to replay");
	rc = trace_machine_decode(data, len, &f->tm, err);
	if (rc == 0)
		rc = check_sizes(&f->tm, err);
	if (rc < 0)
		return rc;
	file[0].size = f->tm.kernel_size;
	file[1].size = f->tm.initrd_size;
	file[2].size = f->tm.thin ? 0 : f->tm.disk_size;
	image->cmdline = f->tm.cmdline;
	rc = read_files(f, file, err);
	if (rc == 0)
		rc = finish_file(&file[0], &image->kernel, &image->kernel_size, err);
	if (rc == 0)
		rc = finish_file(&file[1], &image->initrd, &image->initrd_size, err);
	if (rc == 0)
		rc = finish_file(&file[2], &image->disk, &image->disk_size, err);
	for (unsigned i = 0; i < TRACE_FILES; i++)
		if (file[i].fd >= 0)
			close(file[i].fd);
	if (rc == 0 && f->tm.begun)
		rc = read_begin(f, err);
	return rc;
}

static int map_disk(struct replay_file *f, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int code = errno;

		if (fd >= 0)
			close(fd);
		return err_sys(err, code, "cannot open the disk image %s", path);
	}
	p = (uint64_t)st.st_size != f->tm.disk_size
		    ? MAP_FAILED
		    : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return err_set(err, EINVAL,
			       "%s has not the %" PRIu64 " bytes of the disk image that the trace was recorded with",
			       path, f->tm.disk_size);
	f->image.disk = p;
	f->image.disk_size = (size_t)st.st_size;
	return 0;
}

int replay_file_attach_disk(struct replay_file *f, const char *path, struct err *err)
{
	int rc;

	if (!f->tm.thin && path)
		return err_set(err, EINVAL, "the trace holds all that it needs: leave out --disk");
	if (!f->tm.thin)
		return 0;
	if (!path)
		return err_set(err, EINVAL,
			       "the trace was recorded with --thin: give its disk image with --disk FILE");
	rc = map_disk(f, path, err);
	if (rc == 0 && XXH3_64bits(f->image.disk, f->image.disk_size) != f->tm.disk_hash)
		return err_set(err, EINVAL, "%s is not the disk image that the trace was recorded with (%016" PRIx64 ")",
			       path, f->tm.disk_hash);
	return rc;
}

int replay_file_open(struct replay_file **out, const char *path, struct err *err)
{
	struct replay_file *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return err_set(err, ENOMEM, "out of memory");
	f->begin_fd = -1;
	rc = trace_reader_open(&f->reader, path, err);
	if (rc == 0)
		rc = read_head(f, err);
	if (rc < 0) {
		replay_file_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

static void unmap(const uint8_t *data, size_t size)
{
	if (data)
		munmap((void *)data, size);
}

void replay_file_close(struct replay_file *f)
{
	if (!f)
		return;
	trace_reader_close(f->reader);
	trace_machine_free(&f->tm);
	if (f->begin_fd >= 0)
		close(f->begin_fd);
	unmap(f->image.kernel, f->image.kernel_size);
	unmap(f->image.initrd, f->image.initrd_size);
	unmap(f->image.disk, f->image.disk_size);
	free(f);
}

int replay_file_next(struct replay_file *f, struct event *e, struct err *err)
{
	for (;;) {
		enum trace_frame type;
		const uint8_t *data;
		size_t len;
		int rc;

		if (f->pending) {
			rc = event_decode(&f->codec, &f->frame, e, err);
			if (rc != 0)
				return rc;
			f->pending = false;
		}
		f->frame_at = trace_reader_tell(f->reader);
		rc = trace_reader_next(f->reader, &type, &data, &len, err);
		if (rc <= 0)
			return rc;
		if (type == TRACE_EVENTS) {
			f->frame = reader_init(data, len);
			f->pending = true;
		} else if (type == TRACE_END) {
			rc = trace_end_decode(data, len, &f->end, err);
			if (rc < 0)
				return rc;
		} else {
			return err_set(err, EBADMSG, "the trace has a frame of type %u among its events", type);
		}
	}
}

int replay_file_last(const char *path, uint64_t *boundary, struct err *err)
{
	struct replay_file *f;
	struct event e = {0};
	int rc = replay_file_open(&f, path, err);

	if (rc < 0)
		return rc;
	do {
		rc = replay_file_next(f, &e, err);
	} while (rc > 0);
	replay_file_close(f);
	*boundary = e.boundary;
	return rc;
}

struct replay_file_place replay_file_tell(const struct replay_file *f)
{
	return (struct replay_file_place){
		.frame = f->pending ? f->frame_at : trace_reader_tell(f->reader),
		.consumed = f->pending ? f->frame.pos : 0,
		.pending = f->pending,
		.codec = f->codec,
	};
}

int replay_file_seek(struct replay_file *f, const struct replay_file_place *at, struct err *err)
{
	enum trace_frame type;
	const uint8_t *data;
	size_t len;
	int rc;

	rc = trace_reader_seek(f->reader, at->frame, err);
	if (rc < 0)
		return rc;
	f->codec = at->codec;
	f->pending = at->pending;
	if (!at->pending)
		return 0;
	f->frame_at = at->frame;
	rc = trace_reader_next(f->reader, &type, &data, &len, err);
	if (rc == 0 || (rc > 0 && (type != TRACE_EVENTS || at->consumed > len)))
		rc = err_set(err, EBADMSG, "no events lie at byte %" PRIu64 " of the trace", at->frame.offset);
	if (rc < 0)
		return rc;
	f->frame = reader_init(data, len);
	f->frame.pos = (size_t)at->consumed;
	return 0;
}

bool replay_file_truncated(const struct replay_file *f)
{
	return trace_reader_truncated(f->reader);
}

int replay_file_check_host(const struct replay_file *f, const struct machine *m, struct err *err)
{
	char here[128];

	cpuid_host_signature(here, sizeof(here));
	/* User code that asks CPUID saw the recording host's CPU, or sees ours. */
	if (!f->tm.cpuid_hidden || !m->caps.cpuid_honoured[1]) {
		if (strcmp(here, f->tm.host_cpu) != 0)
			return err_set(err, ENOTSUP,
				       "the trace was recorded on another CPU (%s; this is %s), and CPUID in user mode "
				       "cannot be hidden on one of them: replay it on a host with that CPU",
				       f->tm.host_cpu, here);
		host_pin_thread_to(f->tm.cpu_number);
	}
	return cpuid_check_host(m->kvm_fd, f->tm.config.xfeatures, err);
}
