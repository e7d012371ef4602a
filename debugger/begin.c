// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/begin.h"

#include "base/new_file.h"
#include "debugger/index.h"
#include "vmm/paging.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

int begin_import(struct snapshots *t, const struct replay_file *f, struct snapshot **s, struct err *err)
{
	if (f->begin_fd < 0)
		return err_set(err, EINVAL, "this is the trace of a whole run; make a snapshot of it with hindsight snapshot "
					    "take");
	return snapshots_import_from(t, f->begin_fd, "the snapshot in it", NULL, NULL, s, err);
}

int begin_tree(struct snapshots **t, struct machine *m, const struct replay_file *f, struct snapshot **s,
	       struct err *err)
{
	int rc = snapshots_create(t, INDEX_MEMORY, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = snapshots_attach(*t, m, err);
	if (rc == 0)
		rc = begin_import(*t, f, s, err);
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
	int rc = begin_tree(&t, m, f, &s, err);

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

int begin_write_head(struct trace_writer *w, struct trace_machine *tm, const struct guest_image *image,
		     struct snapshots *t, const struct snapshot *s, struct err *err)
{
	const struct snapshot_export what = {.last = s};
	int file, rc = nameless_file_create(INDEX_SPILL_DIR, &file, err);

	if (rc < 0)
		return rc;
	tm->begun = true;
	rc = recorder_write_head(w, tm, image, err);
	if (rc == 0)
		rc = snapshots_export_to(t, file, &what, err);
	if (rc == 0)
		rc = trace_writer_file(w, TRACE_BEGIN, file, err);
	close(file);
	return rc;
}
