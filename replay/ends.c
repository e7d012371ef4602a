// SPDX-License-Identifier: GPL-3.0-or-later
/* The two ends of a trace: what the machine is, and the guest's files; and what the run as a whole had in it. */
#include "replay/recorder.h"

#include <errno.h>
#include <stdio.h>
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

static void note_modules(const struct rewrite_sites *sites, struct trace_end *end)
{
	struct assist_counts *counts = &end->modules;

	_Static_assert((int)REWRITE_KINDS <= (int)ASSIST_COUNTS_MAX, "room for each kind");
	for (unsigned i = 0; i < REWRITE_KINDS; i++) {
		if (!sites->module_count[i])
			continue;
		snprintf(counts->of[counts->len].name, ASSIST_NAME_MAX, "%s", rewrite_kind_name(i));
		counts->of[counts->len++].count = sites->module_count[i];
	}
	_Static_assert(sizeof(end->note) == REWRITE_NOTES_MAX * sizeof(*sites->note), "room for all");
	if (sites->notes)
		memcpy(end->note, sites->note, sites->notes * sizeof(*sites->note));
	end->notes = sites->notes;
}

int recorder_write_end(struct trace_writer *w, const struct machine *m, const struct user_code_found *user_code,
		       struct err *err)
{
	struct trace_end end = {0};
	struct buf content = {0};
	int rc;

	assist_count(&m->vcpu[0], &end.assists);
	memcpy(end.user_code, user_code, sizeof(end.user_code));
	note_modules(&m->sites, &end);
	trace_end_encode(&end, &content);
	rc = content.failed ? err_set(err, ENOMEM, "out of memory")
			    : trace_writer_frame(w, TRACE_END, content.data, content.len, err);
	buf_free(&content);
	return rc;
}
