// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/replayer.h"

#include "vmm/cpuid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One of the guest's files, put together from its frames. */
struct incoming {
	uint8_t *data;
	uint64_t size, have;
};

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
	/* Grown as the bytes come, not by what a header claims. */
	if (n) {
		uint8_t *p = realloc(in->data, (size_t)in->have + n);

		if (!p)
			return err_set(err, ENOMEM, "out of memory for the guest's files");
		in->data = p;
		reader_get(&r, in->data + in->have, n);
		in->have += n;
	}
	return 0;
}

static int read_head(struct replay_file *f, struct err *err)
{
	struct incoming file[2] = {0};
	enum trace_frame type;
	const uint8_t *data;
	size_t len;
	int rc = trace_reader_next(f->reader, &type, &data, &len, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || type != TRACE_MACHINE)
		return err_set(err, EBADMSG, "the trace ends before its machine description: nothing to replay");
	rc = trace_machine_decode(data, len, &f->tm, err);
	if (rc < 0)
		return rc;
	if (f->tm.kernel_size > TRACE_FILE_MAX || f->tm.initrd_size > TRACE_FILE_MAX ||
	    !f->tm.kernel_size)
		return err_set(err, EBADMSG, "the trace announces a guest file of impossible size");
	file[0].size = f->tm.kernel_size;
	file[1].size = f->tm.initrd_size;
	while (file[0].have < file[0].size || file[1].have < file[1].size) {
		uint8_t which;

		rc = trace_reader_next(f->reader, &type, &data, &len, err);
		if (rc == 0)
			rc = err_set(err, EBADMSG, "the trace ends inside the guest's files: nothing to replay");
		if (rc < 0)
			break;
		which = len ? data[0] : 0;
		if (type != TRACE_FILE || which < TRACE_FILE_KERNEL || which > TRACE_FILE_INITRD) {
			rc = err_set(err, EBADMSG, "the trace has a frame of type %u where a guest file belongs",
				     type);
			break;
		}
		rc = take_file_frame(&file[which - TRACE_FILE_KERNEL], data, len, err);
		if (rc < 0)
			break;
	}
	f->kernel = file[0].data;
	f->initrd = file[1].data;
	f->image = (struct guest_image){.kernel = f->kernel,
					.kernel_size = (size_t)file[0].have,
					.initrd = f->initrd,
					.initrd_size = (size_t)file[1].have,
					.cmdline = f->tm.cmdline};
	return rc < 0 ? rc : 0;
}

int replay_file_open(struct replay_file **out, const char *path, struct err *err)
{
	struct replay_file *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return err_set(err, ENOMEM, "out of memory");
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

void replay_file_close(struct replay_file *f)
{
	if (!f)
		return;
	trace_reader_close(f->reader);
	trace_machine_free(&f->tm);
	free(f->kernel);
	free(f->initrd);
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
		rc = trace_reader_next(f->reader, &type, &data, &len, err);
		if (rc <= 0)
			return rc;
		if (type == TRACE_EVENTS) {
			f->frame = reader_init(data, len);
			f->pending = true;
		} else if (type == TRACE_END) {
			rc = trace_end_decode(data, len, &f->assists, err);
			if (rc < 0)
				return rc;
		} else {
			return err_set(err, EBADMSG, "the trace has a frame of type %u among its events", type);
		}
	}
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
	if ((!f->tm.cpuid_hidden || !m->caps.cpuid_honoured[1]) && strcmp(here, f->tm.host_cpu) != 0)
		return err_set(err, ENOTSUP,
			       "the trace was recorded on another CPU (%s; this is %s), and CPUID in user mode "
			       "cannot be hidden on one of them: replay it on a host with that CPU",
			       f->tm.host_cpu, here);
	return cpuid_check_host(m->kvm_fd, f->tm.config.xfeatures, err);
}
