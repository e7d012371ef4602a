// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/begin.h"

#include "base/new_file.h"
#include "debugger/index.h"
#include "vmm/paging.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int begin_check_rest(struct replay_file *f, struct err *err)
{
	struct replay_file_place begin = replay_file_tell(f);
	struct event e;
	int rc = replay_file_next(f, &e, err);

	if (rc == 0 && replay_file_truncated(f))
		rc = err_set(err, EBADMSG, "it is cut off: its end mark is missing");
	return rc < 0 ? rc : replay_file_seek(f, &begin, err);
}

static int open_whole(struct replay_file **f, const char *path, const char *disk, struct err *err)
{
	int rc = replay_file_open(f, path, err);

	if (rc < 0)
		return rc;
	rc = replay_file_attach_disk(*f, disk, err);
	if (rc == 0 && (*f)->begin_fd < 0)
		rc = err_set(err, EINVAL, "this is the trace of a whole run; make a snapshot of it with hindsight snapshot "
			     "take");
	return rc;
}

int begin_open(struct replay_file **f, const char *name, const char *disk, uint64_t *number, struct err *err)
{
	const char *at = strrchr(name, '@');
	char path[PATH_MAX], *end;
	int rc;

	*f = NULL;
	*number = 0;
	snprintf(path, sizeof(path), "%s", name);
	if (at && at[1] >= '1' && at[1] <= '9' && access(name, F_OK) < 0) {
		errno = 0;
		*number = strtoull(at + 1, &end, 10);
		if (errno || *end)
			return err_set(err, ENOENT, "there is no %s, and \"%s\" is no number of a snapshot", name, at + 1);
		snprintf(path, sizeof(path), "%.*s", (int)(at - name), name);
	}
	rc = open_whole(f, path, disk, err);
	return rc < 0 ? err_prefix(err, rc, "%s", path) : 0;
}

static int import(struct snapshots *t, const struct replay_file *f, uint64_t number, struct snapshot **s,
		  struct err *err)
{
	return snapshots_import_from(t, f->begin_fd, "the snapshot in it", NULL, NULL, number, s, err);
}

int begin_import(struct snapshots *t, struct replay_file *f, uint64_t number, struct snapshot **s, struct err *err)
{
	int rc = import(t, f, number, s, err);

	return rc < 0 ? rc : begin_check_rest(f, err);
}

int begin_tree(struct snapshots **t, struct machine *m, const struct replay_file *f, uint64_t number,
	       struct snapshot **s, struct err *err)
{
	int rc = snapshots_create(t, INDEX_MEMORY, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = snapshots_attach(*t, m, err);
	if (rc == 0)
		rc = import(*t, f, number, s, err);
	if (rc == 0)
		rc = snapshot_restore(*t, *s, err);
	if (rc == 0 && (m->end || !m->started))
		rc = err_set(err, EBADMSG, "the snapshot is of a machine that cannot go on");
	if (rc < 0) {
		snapshots_destroy(*t);
		*t = NULL;
	}
	return rc;
}

int begin_restore(struct machine *m, const struct replay_file *f, struct err *err)
{
	struct snapshots *t;
	struct snapshot *s;
	int rc = begin_tree(&t, m, f, 0, &s, err);

	if (rc == 0)
		snapshots_destroy(t);
	return rc;
}

/* Two hexadecimal digits a byte; returns how many bytes, 0 if it is anything else. */
static size_t parse_bytes(const char *text, uint8_t bytes[BEGIN_POKE_MAX])
{
	size_t n = 0;

	for (; text[0]; text += 2) {
		char digits[3] = {text[0], text[1], 0};

		if (n == BEGIN_POKE_MAX || !isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]))
			return 0;
		bytes[n++] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return n;
}

int begin_poke(struct machine *m, const char *text, bool physical, struct err *err)
{
	uint8_t bytes[BEGIN_POKE_MAX];
	struct kvm_sregs sregs;
	uint64_t address;
	size_t len;
	char *end;
	int rc = vcpu_get_sregs(&m->vcpu[0], &sregs, err);

	if (rc < 0)
		return rc;
	errno = 0;
	address = strtoull(text, &end, 0);
	len = errno || end == text || *end != '=' || text[0] == '-' ? 0 : parse_bytes(end + 1, bytes);
	if (!len)
		return err_set(err, EINVAL,
			       "\"%s\" is nothing to poke; write ADDR=BYTES with 1 to %u bytes of two hexadecimal digits each",
			       text, BEGIN_POKE_MAX);
	for (size_t i = 0; i < len; i++) {
		gpa_t gpa = GPA(address + i);

		if ((!physical && paging_translate(m->mem, &sregs, GVA(address + i), &gpa) < 0) ||
		    memory_write(m->mem, gpa, &bytes[i], 1) < 0)
			return err_set(err, EFAULT, "there is no memory at 0x%" PRIx64 " to poke", address + i);
	}
	return 0;
}

/* What is exported, in frames. */
static int write_snapshots(struct trace_writer *w, uint64_t mem_size, struct snapshots *t,
			   const struct snapshot_export *what, struct err *err)
{
	int file, rc = nameless_file_create(INDEX_SPILL_DIR, &file, err);

	if (rc < 0)
		return rc;
	rc = snapshots_export_to(t, file, what, err);
	if (rc == 0 && (uint64_t)lseek(file, 0, SEEK_END) > trace_snapshots_max(mem_size))
		rc = err_set(err, EFBIG, "the snapshots take more than %" PRIu64 " MiB, the most that a file may hold of this "
			     "guest; put fewer into one", trace_snapshots_max(mem_size) >> 20);
	if (rc == 0)
		rc = trace_writer_file(w, TRACE_BEGIN, file, err);
	close(file);
	return rc;
}

int begin_write_head(struct trace_writer *w, struct trace_machine *tm, const struct guest_image *image,
		     struct snapshots *t, const struct snapshot_export *what, struct err *err)
{
	int rc;

	tm->begun = true;
	rc = recorder_write_head(w, tm, image, err);
	return rc < 0 ? rc : write_snapshots(w, tm->config.mem_size, t, what, err);
}

static int write_end(struct trace_writer *w, struct err *err)
{
	const struct trace_end none = {0};
	struct buf end = {0};
	int rc;

	trace_end_encode(&none, &end);
	rc = end.failed ? err_set(err, ENOMEM, "out of memory") : trace_writer_frame(w, TRACE_END, end.data, end.len, err);
	buf_free(&end);
	return rc;
}

int begin_write_file(const char *path, struct trace_machine *tm, const struct guest_image *image, struct snapshots *t,
		     const struct snapshot_export *what, uint64_t *bytes, struct err *err)
{
	struct trace_writer *w = NULL;
	struct new_file out;
	int rc = new_file_create(&out, path, err);

	if (rc < 0)
		return rc;
	rc = trace_writer_create(&w, out.name, err);
	if (rc == 0)
		rc = begin_write_head(w, tm, image, t, what, err);
	if (rc == 0)
		rc = write_end(w, err);
	if (rc == 0)
		*bytes = trace_writer_size(w);
	if (trace_writer_close(w, rc < 0 ? NULL : err) < 0 && rc == 0)
		rc = -EIO;
	if (rc == 0)
		return new_file_commit(&out, err);
	new_file_abandon(&out);
	return err_prefix(err, rc, "%s was not written", path);
}
