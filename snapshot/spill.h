/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The file that cold pages go to. It has no name, so nothing is left of it after a crash. */
#ifndef SNAPSHOT_SPILL_H
#define SNAPSHOT_SPILL_H

#include "base/err.h"
#include "base/types.h"

/* Space is given out in this many bytes or a multiple, and used again for pieces of the same size. */
#define SPILL_UNIT 256u
#define SPILL_CLASSES (PAGE_SIZE / SPILL_UNIT)

struct spill {
	int fd; /* -1: not made yet */
	uint64_t end;
	uint64_t used;
	struct {
		uint64_t *offset;
		size_t n, cap;
	} vacant[SPILL_CLASSES];
};

void spill_init(struct spill *s);
void spill_fini(struct spill *s);
/* Write len bytes (1 to PAGE_SIZE) somewhere; the file is made in dir. */
int spill_write(struct spill *s, const char *dir, const void *data, size_t len, uint64_t *offset,
		struct err *err);
int spill_read(const struct spill *s, uint64_t offset, void *data, size_t len, struct err *err);
/* The piece is not needed any more. */
void spill_discard(struct spill *s, uint64_t offset, size_t len);

#endif
