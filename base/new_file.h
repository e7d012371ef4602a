/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A file that appears under its name whole or not at all: it is written under another name in the same directory, put
 * on the disk and then renamed. Whatever happens before, what was there under the name stays.
 */
#ifndef BASE_NEW_FILE_H
#define BASE_NEW_FILE_H

#include "base/err.h"

#define NEW_FILE_NAME_MAX 4096

struct new_file {
	const char *path;
	char name[NEW_FILE_NAME_MAX]; /* for the time being */
	int fd;
};

/* path is kept, not copied. */
int new_file_create(struct new_file *f, const char *path, struct err *err);
/* Both end it; after a failure nothing is left of it. */
int new_file_commit(struct new_file *f, struct err *err);
void new_file_abandon(struct new_file *f);

/* A file without a name, in dir, for as long as it is open. */
int nameless_file_create(const char *dir, int *fd, struct err *err);

#endif
