// SPDX-License-Identifier: GPL-3.0-or-later
/* The head of a trace: what the machine is, and the guest's files. */
#include "replay/recorder.h"

#include <errno.h>
#include <string.h>

static int write_file(struct trace_writer *w, uint8_t which, const uint8_t *data, size_t size,
		      struct err *err)
{
	const size_t chunk = TRACE_FRAME_RAW_MAX - 9;
	struct buf b = {0};
	int rc = 0;

	for (size_t at = 0; at < size && rc == 0; at += chunk) {
		size_t n = size - at < chunk ? size - at : chunk;

		buf_clear(&b);
		buf_put_u8(&b, which);
		buf_put_u64(&b, size);
		buf_put(&b, data + at, n);
		rc = b.failed ? err_set(err, ENOMEM, "out of memory")
			      : trace_writer_frame(w, TRACE_FILE, b.data, b.len, err);
	}
	buf_free(&b);
	return rc;
}

int recorder_write_head(struct trace_writer *w, struct trace_machine *tm,
			const struct guest_image *image, struct err *err)
{
	struct buf b = {0};
	int rc;

	tm->kernel_size = image->kernel_size;
	tm->initrd_size = image->initrd_size;
	tm->disk_size = image->disk_size;
	if (tm->thin)
		tm->disk_hash = XXH3_64bits(image->disk, image->disk_size);
	if (image->kernel_size > TRACE_FILE_MAX || image->initrd_size > TRACE_FILE_MAX)
		return err_set(err, EFBIG, "a kernel or initrd over 1 GiB does not fit into a trace");
	if (image->disk_size > TRACE_FILE_MAX && !tm->thin)
		return err_set(err, EFBIG,
			       "a disk image over 1 GiB does not fit into a trace; record with --thin and keep the image");
	trace_machine_encode(tm, &b);
	rc = b.failed ? err_set(err, ENOMEM, "out of memory")
		      : trace_writer_frame(w, TRACE_MACHINE, b.data, b.len, err);
	buf_free(&b);
	if (rc == 0)
		rc = write_file(w, TRACE_FILE_KERNEL, image->kernel, image->kernel_size, err);
	if (rc == 0)
		rc = write_file(w, TRACE_FILE_INITRD, image->initrd, image->initrd_size, err);
	if (rc == 0 && !tm->thin)
		rc = write_file(w, TRACE_FILE_DISK, image->disk, image->disk_size, err);
	return rc;
}
