// SPDX-License-Identifier: GPL-3.0-or-later
#include "snapshot/spill.h"

#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A place is the number of the file and, below that, the offset in it. */
#define FILE_SHIFT 48

void spill_init(struct spill *s)
{
	*s = (struct spill){0};
}

void spill_fini(struct spill *s)
{
	while (s->files)
		close(s->fd[--s->files]);
	for (size_t i = 0; i < SPILL_CLASSES; i++)
		free(s->vacant[i].offset);
	spill_init(s);
}

static int make_file(struct spill *s, const char *dir, struct err *err)
{
	int fd, rc;

	if (s->files == SPILL_FILES_MAX)
		return err_set(err, EMFILE,
			       "branches of branches reach too deep for more cold snapshot pages");
	rc = nameless_file_create(dir, &fd, err);
	if (rc < 0)
		return err_prefix(err, rc, "no place for cold snapshot pages");
	s->fd[s->files++] = fd;
	s->own = true;
	s->end = s->sealed = 0;
	return 0;
}

void spill_seal(struct spill *s)
{
	s->sealed = s->end;
	for (size_t i = 0; i < SPILL_CLASSES; i++)
		s->vacant[i].n = 0;
}

void spill_inherit(struct spill *s)
{
	s->own = false;
}

static size_t class_of(size_t len)
{
	return (len - 1) / SPILL_UNIT;
}

int spill_write(struct spill *s, const char *dir, const void *data, size_t len, uint64_t *offset,
		struct err *err)
{
	size_t c = class_of(len), done = 0;
	uint64_t at;
	bool reuse;

	if (!s->own) {
		int rc = make_file(s, dir, err);

		if (rc < 0)
			return rc;
	}
	reuse = s->vacant[c].n > 0;
	at = reuse ? s->vacant[c].offset[s->vacant[c].n - 1] : s->end;
	while (done < len) {
		ssize_t n = pwrite(s->fd[s->files - 1], (const uint8_t *)data + done, len - done,
				   (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n < 0 ? errno : ENOSPC,
				       "cannot write cold snapshot pages to a file in %s", dir);
		done += (size_t)n;
	}
	if (reuse)
		s->vacant[c].n--;
	else
		s->end += (c + 1) * SPILL_UNIT;
	s->used += (c + 1) * SPILL_UNIT;
	*offset = at | (uint64_t)(s->files - 1) << FILE_SHIFT;
	return 0;
}

int spill_read(const struct spill *s, uint64_t offset, void *data, size_t len, struct err *err)
{
	uint64_t at = offset & ((1ull << FILE_SHIFT) - 1);
	int fd = s->fd[offset >> FILE_SHIFT];
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (uint8_t *)data + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n < 0 ? errno : EIO,
				       "cannot read back cold snapshot pages");
		done += (size_t)n;
	}
	return 0;
}

void spill_discard(struct spill *s, uint64_t offset, size_t len)
{
	size_t c = class_of(len);

	s->used -= (c + 1) * SPILL_UNIT;
	/* A branch may still read it. */
	if (!s->own || offset >> FILE_SHIFT != s->files - 1 ||
	    (offset & ((1ull << FILE_SHIFT) - 1)) < s->sealed)
		return;
	offset &= (1ull << FILE_SHIFT) - 1;
	if (s->vacant[c].n == s->vacant[c].cap) {
		size_t cap = s->vacant[c].cap ? 2 * s->vacant[c].cap : 64;
		uint64_t *p = realloc(s->vacant[c].offset, cap * sizeof(*p));

		/* Then the piece stays unused. */
		if (!p)
			return;
		s->vacant[c].offset = p;
		s->vacant[c].cap = cap;
	}
	s->vacant[c].offset[s->vacant[c].n++] = offset;
}
