/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The file that cold pages go to. It has no name, so nothing is left of it after a crash. A process
 * made by fork() reads what was there before, and writes to a file of its own.
 */
#ifndef SNAPSHOT_SPILL_H
#define SNAPSHOT_SPILL_H

#include "base/err.h"
#include "base/types.h"

/* Space is given out in this many bytes or a multiple, and used again for pieces of the same size.
 */
#define SPILL_UNIT 256u
#define SPILL_CLASSES (PAGE_SIZE / SPILL_UNIT)

/* Ancestors of a process that have written one; more are refused. */
#define SPILL_FILES_MAX 64

struct spill {
	int fd[SPILL_FILES_MAX]; /* all but the last for reading */
	unsigned files;
	bool own;	 /* the last file is this process's */
	uint64_t end;	 /* of it */
	uint64_t sealed; /* what lies below in it may be read by others: not to be overwritten */
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
/* Before a fork() in the parent; after it in the child. */
void spill_seal(struct spill *s);
void spill_inherit(struct spill *s);

#endif
