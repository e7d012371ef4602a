// SPDX-License-Identifier: GPL-3.0-or-later
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A rename lasts when the directory is on the disk. */
static int sync_directory(const char *path, struct err *err)
{
	char *copy = strdup(path);
	int fd, rc = 0;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		rc = err_sys(err, errno, "cannot make sure that %s is on the disk", path);
	if (fd >= 0)
		close(fd);
	free(copy);
	return rc;
}

/* As open() would have made it; mkostemp makes files that nobody else may read. */
static void set_usual_mode(int fd)
{
	mode_t mask = umask(0);

	umask(mask);
	(void)fchmod(fd, 0666 & ~mask);
}

int new_file_create(struct new_file *f, const char *path, struct err *err)
{
	f->path = path;
	if (snprintf(f->name, sizeof(f->name), "%s.XXXXXX", path) >= (int)sizeof(f->name))
		return err_set(err, ENAMETOOLONG, "the name %s is too long", path);
	f->fd = mkostemp(f->name, O_CLOEXEC);
	if (f->fd < 0)
		return err_sys(err, errno, "cannot create %s", f->name);
	set_usual_mode(f->fd);
	return 0;
}

int new_file_commit(struct new_file *f, struct err *err)
{
	int rc = 0;

	if (fsync(f->fd) < 0)
		rc = err_sys(err, errno, "cannot write %s", f->path);
	if (close(f->fd) < 0 && rc == 0)
		rc = err_sys(err, errno, "cannot write %s", f->path);
	if (rc == 0 && rename(f->name, f->path) < 0)
		rc = err_sys(err, errno, "cannot rename %s to %s", f->name, f->path);
	if (rc < 0) {
		unlink(f->name);
		return rc;
	}
	return sync_directory(f->path, err);
}

void new_file_abandon(struct new_file *f)
{
	close(f->fd);
	unlink(f->name);
}

int nameless_file_create(const char *dir, int *fd, struct err *err)
{
	char path[NEW_FILE_NAME_MAX];

	*fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (*fd >= 0)
		return 0;
	/* Not every file system has files without a name from the start. */
	if (snprintf(path, sizeof(path), "%s/hindsight-XXXXXX", dir) >= (int)sizeof(path))
		return err_set(err, ENAMETOOLONG, "the name %s is too long", dir);
	*fd = mkostemp(path, O_CLOEXEC);
	if (*fd < 0)
		return err_sys(err, errno, "cannot create a file in %s", dir);
	unlink(path);
	return 0;
}
