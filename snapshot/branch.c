// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Branches by fork(). Guest RAM, the tree and the devices are private memory, so that the child has
 * them all at once, shares what neither changes, and sees nothing of what the parent does later.
 * Only KVM does not come along: it refuses its files to any other process than the one that made
 * them, so the child makes a VM anew.
 */
#include "snapshot/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child says when it is ready. */
struct report {
	int rc;
	struct err err;
};

static int become(struct snapshots *t, struct snapshot *s, const struct buf *state, struct err *err)
{
	int rc = machine_reopen(t->machine, err);

	if (rc < 0)
		return rc;
	return s ? snapshot_restore(t, s, err)
		 : machine_restore(t->machine, state->data, state->len, err);
}

static void tell(int fd, const struct report *report)
{
	/* Less than PIPE_BUF, so it goes as one. If the parent is gone nobody wants to know. */
	if (write(fd, report, sizeof(*report)) < 0)
		return;
}

static int hear(int fd, struct err *err)
{
	struct report report;
	ssize_t n;

	do {
		n = read(fd, &report, sizeof(report));
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(report))
		return err_set(err, ECHILD, "the branch's process died before it was ready");
	*err = report.err;
	return report.rc;
}

int snapshot_branch(struct snapshots *t, struct snapshot *s, pid_t *child, struct err *err)
{
	struct report report = {0};
	struct buf state = {0};
	int fd[2];
	int rc = machine_save(t->machine, &state, err);

	/* The child's KVM has no log of what was written here. */
	if (rc == 0)
		rc = memory_sync_dirty(t->machine->mem, err);
	if (rc == 0 && pipe2(fd, O_CLOEXEC) < 0)
		rc = err_sys(err, errno, "cannot make a pipe to a branch");
	if (rc < 0)
		goto out;
	page_store_seal(t->store);
	*child = fork();
	if (*child == 0) {
		page_store_inherit(t->store);
		close(fd[0]);
		report.rc = become(t, s, &state, &report.err);
		/* What it took to make the machine is free again, in pages that are this process's own by now. */
		buf_free(&state);
		malloc_trim(0);
		tell(fd[1], &report);
		close(fd[1]);
		if (report.rc < 0)
			_exit(1);
		goto out;
	}
	close(fd[1]);
	if (*child < 0) {
		rc = err_sys(err, errno, "cannot make a process for a branch");
	} else {
		rc = hear(fd[0], err);
		if (rc < 0)
			waitpid(*child, NULL, 0);
	}
	close(fd[0]);
out:
	buf_free(&state);
	return rc;
}
